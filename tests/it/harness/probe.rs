//! The attempts of `probe.c`, inside a sandbox and outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Daemon, host_command};

const SOURCE: &str = include_str!("../probe.c");

/// The probe as a static program: compiled once per version of its source.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("STOCKADE_TEST_PROBE") {
        return PathBuf::from(path);
    }
    let digest = super::image::sha256(SOURCE.as_bytes());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}", &digest[7..23]));
    if path.exists() {
        return path;
    }
    let own = path.with_extension(std::process::id().to_string());
    let source = own.with_extension("c");
    fs::write(&source, SOURCE).unwrap();
    let (source_text, own_text) = (source.display().to_string(), own.display().to_string());
    host_command("gcc", &["-O1", "-Wall", "-static", "-o", &own_text, &source_text]);
    fs::remove_file(source).unwrap();
    // Tests compile at the same time; the last rename wins and all are the same.
    fs::rename(own, &path).unwrap();
    path
}

/// What came of each attempt: `ok`, the name of an errno, or a signal.
pub type Outcomes = BTreeMap<String, String>;

fn parse(text: &str) -> Outcomes {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, outcome)| (name.to_owned(), outcome.to_owned()))
        .collect()
}

/// Makes the attempts on the host as root, in scratch namespaces where nothing they do is seen.
pub fn outside(group: &str) -> Outcomes {
    // What asks for rights over one's own user namespace has them only in a new one.
    let user: &[&str] = if group == "own_user_namespace" { &["--user", "--map-root-user"] } else { &[] };
    let output = Command::new("unshare")
        .args(user)
        .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "--mount-proc", "--"])
        .arg(program())
        .args(["attempt", group])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Where [`install`] puts the probe.
pub const PATH: &str = "/tmp/probe";

/// Puts the probe into a sandbox.
#[track_caller]
pub fn install(daemon: &Daemon, id: &str) {
    daemon.put(id, PATH, &fs::read(program()).unwrap());
}

/// Makes the attempts in a sandbox where the probe is installed.
#[track_caller]
pub fn inside(daemon: &Daemon, id: &str, user: &str, group: &str) -> Outcomes {
    let result = daemon.run(id, json!({"argv": [PATH, "attempt", group], "user": user}));
    assert_eq!(result["exit_code"], 0, "{result}");
    parse(result["stdout"].as_str().unwrap())
}
