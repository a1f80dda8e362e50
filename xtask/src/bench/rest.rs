//! What it costs to stop a sandbox, to wake it, to pause it, and to keep a thousand that are stopped.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Daemon, Place, Report, memory, met, ms, quantile};

const COMMAND: &[u8] = br#"{"argv":["/bin/true"]}"#;
const WRITE: &[u8] = br#"{"argv":["/bin/busybox","touch","/root/f"]}"#;
const SPIN: &[u8] = br#"{"id":"spin","argv":["/bin/busybox","sleep","1000"]}"#;

/// Measures all rows.
pub(super) fn rest(place: &Place, report: &mut Report, rounds: usize, stopped: usize) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    let (mut created, mut woken, mut resumed) = (Vec::new(), Vec::new(), Vec::new());
    // The first rounds warm caches and are not counted.
    for round in 0..rounds + 3 {
        let (create, wake, resume) = daemon.lives(round)?;
        if round >= 3 {
            created.push(create);
            woken.push(wake);
            resumed.push(resume);
        }
    }
    report.title("rest", "what | p50 ms | p90 ms | target");
    let cells = |name: &str, samples: &[Duration], verdict: String| {
        let at = |part| format!("{:.2}", ms(quantile(samples, part)));
        [name.to_owned(), at(0.5), at(0.9), verdict]
    };
    let (create, wake) = (ms(quantile(&created, 0.5)), ms(quantile(&woken, 0.5)));
    let (ratio, resume) = (wake / create, ms(quantile(&resumed, 0.5)));
    report.row(&cells("create until the first command has run", &created, String::new()));
    let verdict = format!("{ratio:.2} × create (at most 1.2) {}", met(ratio <= 1.2));
    report.row(&cells("wake until the first command has run", &woken, verdict));
    let verdict = format!("at most 2 ms {}", met(resume <= 2.0));
    report.row(&cells("resume from pause until the answer", &resumed, verdict));
    let (list, kib) = daemon.many(stopped)?;
    let verdict = format!("at most 10 ms {}", met(ms(quantile(&list, 0.5)) <= 10.0));
    report.row(&cells(&format!("list of {stopped} stopped sandboxes"), &list, verdict));
    let mib = kib as f64 / 1024.0;
    report.note(&format!(
        "The daemon with {stopped} stopped sandboxes takes {mib:.1} MiB (PSS of launch and serve; at most 32) {}.",
        met(mib <= 32.0)
    ));
    Ok(())
}

impl Daemon {
    /// One sandbox, created, stopped and woken, paused and resumed, destroyed.
    fn lives(&mut self, round: usize) -> Result<(Duration, Duration, Duration)> {
        let path = format!("/v1/sandboxes/rest-{round}");
        let spec = format!(r#"{{"id":"rest-{round}","image":"bench:1"}}"#);
        let start = Instant::now();
        self.call("POST", "/v1/sandboxes", spec.as_bytes(), 201)?;
        self.call("POST", &format!("{path}/commands"), COMMAND, 200)?;
        let create = start.elapsed();
        self.call("POST", &format!("{path}/commands"), WRITE, 200)?;
        self.call("POST", &format!("{path}/stop"), b"", 200)?;
        std::thread::sleep(super::PAUSE);
        let start = Instant::now();
        self.call("POST", &format!("{path}/commands"), COMMAND, 200)?;
        let wake = start.elapsed();
        self.call("POST", &format!("{path}/processes"), SPIN, 201)?;
        self.call("POST", &format!("{path}/pause"), b"", 200)?;
        std::thread::sleep(super::PAUSE);
        let start = Instant::now();
        let resumed = self.call("POST", &format!("{path}/start"), b"", 200)?;
        let resume = start.elapsed();
        if serde_json::from_slice::<Value>(&resumed)?["state"] != "running" {
            bail!("it was not resumed");
        }
        self.call("DELETE", &path, b"", 204)?;
        std::thread::sleep(super::PAUSE);
        Ok((create, wake, resume))
    }

    /// How long it takes to list so many that are stopped, and KiB of the daemon.
    fn many(&mut self, count: usize) -> Result<(Vec<Duration>, u64)> {
        for number in 0..count {
            let spec = format!(r#"{{"id":"many-{number}","image":"bench:1"}}"#);
            self.call("POST", "/v1/sandboxes", spec.as_bytes(), 201)?;
            self.call("POST", &format!("/v1/sandboxes/many-{number}/stop"), b"", 200)?;
        }
        let mut samples = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            self.call("GET", "/v1/sandboxes", b"", 200)?;
            samples.push(start.elapsed());
        }
        // Longer than the daemon waits before it gives back what that took.
        std::thread::sleep(Duration::from_secs(6));
        let kib = memory::descendants(self.child.id()).into_iter().map(memory::pss).sum();
        for number in 0..count {
            self.call("DELETE", &format!("/v1/sandboxes/many-{number}"), b"", 204)?;
        }
        Ok((samples, kib))
    }
}
