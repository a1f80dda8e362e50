//! The clients of `sdk/`: what a call costs beside the same request without a client, and large files beside curl.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Daemon, Place, Report, met, ms, quantile};
use crate::clients;
use crate::process::{self, output, run, target};

/// Calls of one round.
const CALLS: usize = 500;

/// Bytes of the large file.
const LARGE: usize = 100 << 20;

/// What a call may cost above a bare request, in milliseconds, and the least part of curl's speed.
const TYPESCRIPT_MS: f64 = 0.5;
const PYTHON_MS: f64 = 0.8;
const RATIO: f64 = 0.6;

const FILE: &str = "http://stockade/v1/sandboxes/sdk/files/content?path=%2Fworkspace%2Fsdk";

/// The rounds of one client.
#[derive(Default)]
struct Samples {
    bare: Vec<Duration>,
    client: Vec<Duration>,
    upload: Vec<Duration>,
    download: Vec<Duration>,
}

impl Samples {
    fn add(&mut self, command: &mut Command, daemon: &Daemon) -> Result<()> {
        let arguments = ["sdk".to_owned(), CALLS.to_string(), LARGE.to_string()];
        let text = output(command.arg(&daemon.socket).args(arguments))?;
        let told: Value = serde_json::from_str(&text).with_context(|| format!("no result: {text}"))?;
        let all = [&mut self.bare, &mut self.client, &mut self.upload, &mut self.download];
        for (name, samples) in ["bare", "client", "upload", "download"].iter().zip(all) {
            let milliseconds = told[*name].as_f64().with_context(|| format!("no {name}: {text}"))?;
            samples.push(Duration::from_secs_f64(milliseconds / 1e3));
        }
        Ok(())
    }
}

/// Measures both clients in turn with curl, which writes what it downloads into a file: on /dev/null nothing would
/// touch the memory that a client gives to its user.
pub(super) fn sdk(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    process::need(&[("curl", "curl"), ("node", "nodejs"), ("npm", "npm"), ("pip3", "python3-pip")])?;
    clients::prepare()?;
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    let spec = json!({"id": "sdk", "image": "bench:1"}).to_string();
    daemon.call("POST", "/v1/sandboxes", spec.as_bytes(), 201)?;
    let [sent, received] = ["sdk-sent", "sdk-received"].map(|name| place.directory.join(name));
    fs::write(&sent, vec![b'x'; LARGE])?;
    let (mut typescript, mut python) = (Samples::default(), Samples::default());
    let (mut uploads, mut downloads) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        uploads.push(curl(&daemon, "-T", &sent)?);
        downloads.push(curl(&daemon, "-o", &received)?);
        typescript.add(&mut node()?, &daemon)?;
        python.add(&mut python3(), &daemon)?;
    }
    report.title("clients", "what | measured | without | target");
    for (name, samples, most) in [("TypeScript", &typescript, TYPESCRIPT_MS), ("Python", &python, PYTHON_MS)]
    {
        let [client, bare] = [&samples.client, &samples.bare].map(|times| ms(quantile(times, 0.5)));
        report.row(&[
            format!("a call, {name}, p50"),
            format!("{client:.2} ms"),
            format!("{bare:.2} ms"),
            format!("at most {most} ms above {}", met(client - bare <= most)),
        ]);
        transfer(report, &format!("100 MiB up, {name}"), &samples.upload, &uploads);
        transfer(report, &format!("100 MiB down, {name}"), &samples.download, &downloads);
    }
    report.note(
        "Without: the same request by `node:http` and `http.client`; `curl -T FILE` and `curl -o FILE`.",
    );
    daemon.call("DELETE", "/v1/sandboxes/sdk", b"", 204)?;
    Ok(())
}

fn transfer(report: &mut Report, name: &str, ours: &[Duration], theirs: &[Duration]) {
    let [ours, theirs] = [ours, theirs].map(|times| ms(quantile(times, 0.5)));
    let ratio = theirs / ours;
    report.row(&[
        name.to_owned(),
        format!("{ours:.0} ms"),
        format!("{theirs:.0} ms"),
        format!("{ratio:.2} × (at least {RATIO}) {}", met(ratio >= RATIO)),
    ]);
}

fn curl(daemon: &Daemon, flag: &str, file: &Path) -> Result<Duration> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "-H", "content-type: application/octet-stream", "--unix-socket"]);
    let start = Instant::now();
    run(curl.arg(&daemon.socket).arg(flag).arg(file).arg(FILE).stdout(Stdio::null()))?;
    Ok(start.elapsed())
}

/// Node, on the script in the project that has the package.
fn node() -> Result<Command> {
    let project = target().join("clients/typescript");
    let script = project.join("bench.mjs");
    fs::copy(process::root().join("xtask/bench/sdk.mjs"), &script)?;
    let mut node = Command::new(fs::read_to_string(target().join("clients/node"))?);
    node.arg(script).current_dir(project);
    Ok(node)
}

fn python3() -> Command {
    let mut python = Command::new("python3");
    python.arg(process::root().join("xtask/bench/sdk.py")).env("PYTHONPATH", target().join("clients/python"));
    python
}
