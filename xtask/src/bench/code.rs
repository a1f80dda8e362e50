//! Code in contexts of the image `full`, beside a Jupyter kernel and a fresh interpreter on the host.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Daemon, Place, Report, memory, met, ms, quantile, unpack};
use crate::process::{self, output};

const PROGRAMS: [(&str, &str); 2] =
    [("jupyter-kernelspec", "jupyter-client"), ("jupyter-kernelspec", "python3-ipykernel")];

/// Debian's: the packages are for it, whatever another one the path leads to first.
const PYTHON: &str = "/usr/bin/python3";

/// Runs whose median is shown.
pub(super) const RUNS: usize = 300;

/// Contexts that are kept, for what one takes.
const CONTEXTS: usize = 20;

/// What one run writes.
const OUTPUT: &str = "import sys\nfor _ in range(50): sys.stdout.write('x' * 999_999 + '\\n')";

const FRAME: &str = "import pandas as pd; pd.DataFrame({'a': range(1000), 'b': range(1000)})";
const PLOT: &str = "import matplotlib.pyplot as plt; plt.plot([1, 2, 3]); plt.show()";

/// Measures all rows.
pub(super) fn code(place: &Place, report: &mut Report, rounds: usize, runs: usize) -> Result<()> {
    process::need(&PROGRAMS)?;
    // Before the daemon, whose connection would be idle for longer than it bears; and so is what the host is measured by.
    let archive = unpack::archive(place)?;
    let kernel = kernel(runs)?;
    let fresh = fresh(runs / 10)?;
    let mut daemon = Daemon::start(place)?;
    daemon.call("POST", "/v1/images/import?reference=full%3A1", &archive, 200)?;
    let spec = br#"{"id":"code","image":"full:1","resources":{"memory_bytes":0,"pids":0}}"#;
    daemon.call("POST", "/v1/sandboxes", spec, 201)?;
    report.title("code", "what | measured | target");
    for (language, most) in [("python", 1.2), ("javascript", 0.8)] {
        let p50 = ms(daemon.warm(language, runs)?);
        report.row(&[
            format!("`1+1` in a warm context, {language}, p50"),
            format!("{p50:.2} ms"),
            verdict(p50, most, "ms"),
        ]);
    }
    report.row(&[
        "`1+1` in a warm ipykernel, by jupyter_client, p50".to_owned(),
        format!("{:.2} ms", ms(kernel)),
        String::new(),
    ]);
    report.row(&[
        "`python3 -c 1+1`, on the host, p50".to_owned(),
        format!("{:.2} ms", ms(fresh)),
        String::new(),
    ]);
    let (mut contexts, mut frames, mut plots) = (Vec::new(), Vec::new(), Vec::new());
    // The first is what makes the zygote load what the others begin with.
    for round in 0..rounds + 2 {
        let (context, frame, plot) = daemon.fresh_context(round)?;
        if round >= 2 {
            contexts.push(context);
            frames.push(frame);
            plots.push(plot);
        }
    }
    for (name, samples, most) in [
        ("a new context until its first `1+1`, pandas loaded", &contexts, 15.0),
        ("its first data frame", &frames, 30.0),
        ("its first plot", &plots, 150.0),
    ] {
        let p50 = ms(quantile(samples, 0.5));
        report.row(&[name.to_owned(), format!("{p50:.1} ms"), verdict(p50, most, "ms")]);
    }
    let mib = daemon.idle_contexts()?;
    report.row(&[
        format!("memory of each of {CONTEXTS} idle Python contexts, PSS"),
        format!("{mib:.1} MiB"),
        verdict(mib, 12.0, "MiB"),
    ]);
    let took = daemon.run_code("python", &json!({"code": OUTPUT, "output_bytes_max": 1 << 20}))?;
    let rate = 50.0 / took.as_secs_f64();
    let met = met(rate >= 100.0);
    report.row(&[
        "50 MB of stdout in one run".to_owned(),
        format!("{rate:.0} MB/s"),
        format!("at least 100 {met}"),
    ]);
    report.note("Stockade's times are those of whole requests through the socket. Host and image have different Pythons.");
    daemon.call("DELETE", "/v1/sandboxes/code", b"", 204)?;
    Ok(())
}

fn verdict(value: f64, most: f64, unit: &str) -> String {
    format!("at most {most} {unit} {}", met(value <= most))
}

fn kernel(runs: usize) -> Result<Duration> {
    let script = process::root().join("xtask/bench/kernel.py");
    let text = output(Command::new(PYTHON).arg(script).arg(runs.to_string()))?;
    Ok(Duration::from_nanos(text.trim().parse().context("the kernel's time is no number")?))
}

fn fresh(runs: usize) -> Result<Duration> {
    let mut samples = Vec::new();
    for _ in 0..runs.max(5) {
        let start = Instant::now();
        output(Command::new(PYTHON).args(["-c", "1+1"]))?;
        samples.push(start.elapsed());
    }
    Ok(quantile(&samples, 0.5))
}

impl Daemon {
    fn run_code(&mut self, context: &str, body: &Value) -> Result<Duration> {
        let path = format!("/v1/sandboxes/code/contexts/{context}/runs");
        let body = body.to_string();
        let start = Instant::now();
        let answer = self.call("POST", &path, body.as_bytes(), 200)?;
        let took = start.elapsed();
        let answer: Value = serde_json::from_slice(&answer)?;
        if !answer["error"].is_null() {
            bail!("{body} fails: {}", answer["error"]);
        }
        Ok(took)
    }

    fn warm(&mut self, language: &str, runs: usize) -> Result<Duration> {
        let body = json!({"code": "1+1"});
        let mut samples = Vec::new();
        for run in 0..runs + 20 {
            let took = self.run_code(language, &body)?;
            samples.extend((run >= 20).then_some(took));
        }
        Ok(quantile(&samples, 0.5))
    }

    /// A context's first run, first data frame and first plot.
    fn fresh_context(&mut self, round: usize) -> Result<(Duration, Duration, Duration)> {
        let name = format!("fresh-{round}");
        let spec = json!({"id": name, "language": "python"}).to_string();
        // The last one has had its time to be replaced by another that is ready.
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        self.call("POST", "/v1/sandboxes/code/contexts", spec.as_bytes(), 201)?;
        self.run_code(&name, &json!({"code": "1+1"}))?;
        let context = start.elapsed();
        let frame = self.run_code(&name, &json!({"code": FRAME}))?;
        let plot = self.run_code(&name, &json!({"code": PLOT}))?;
        self.call("DELETE", &format!("/v1/sandboxes/code/contexts/{name}"), b"", 204)?;
        Ok((context, frame, plot))
    }

    /// MiB of each of some contexts that have run `1+1` in a sandbox of their own.
    fn idle_contexts(&mut self) -> Result<f64> {
        let spec = br#"{"id":"idle","image":"full:1","resources":{"memory_bytes":0,"pids":0}}"#;
        self.call("POST", "/v1/sandboxes", spec, 201)?;
        for number in 0..CONTEXTS {
            let spec = json!({"id": format!("c{number}"), "language": "python"}).to_string();
            self.call("POST", "/v1/sandboxes/idle/contexts", spec.as_bytes(), 201)?;
            let path = format!("/v1/sandboxes/idle/contexts/c{number}/runs");
            self.call("POST", &path, br#"{"code":"1+1"}"#, 200)?;
        }
        std::thread::sleep(Duration::from_secs(1));
        let view: Value = serde_json::from_slice(&self.call("GET", "/v1/sandboxes/idle", b"", 200)?)?;
        let agent = u32::try_from(view["pid"].as_u64().context("no pid")?)?;
        let python = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|path: PathBuf| path.to_string_lossy().contains("python"))
        };
        let kib: u64 = memory::descendants(agent).into_iter().filter(python).map(memory::pss).sum();
        self.call("DELETE", "/v1/sandboxes/idle", b"", 204)?;
        Ok(kib as f64 / 1024.0 / CONTEXTS as f64)
    }
}
