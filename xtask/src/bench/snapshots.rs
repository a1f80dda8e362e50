//! Snapshots: of a sandbox with 1 GiB in 20,000 files, beside cp, and beside tar and zstd.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Daemon, Place, Report, met, ms, quantile, verdict};
use crate::process::run;

/// Programs compress about as well as what people keep.
const FILL: &str = "mkdir -p /root/d && while cat /bin/busybox; do :; done 2>/dev/null | head -c BYTES | \
     /bin/busybox split -a 4 -b 53687 - /root/d/f";

/// Measures all rows. Each round writes `bytes` four times.
pub(super) fn snapshots(place: &Place, report: &mut Report, rounds: usize, bytes: u64) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    let mut times: [Vec<Duration>; 6] = Default::default();
    for _ in 0..rounds {
        for (all, one) in times.iter_mut().zip(daemon.keep(place, bytes)?) {
            all.push(one);
        }
    }
    let [fork, back, copy, cp, archive, tar] = times.map(|samples| quantile(&samples, 0.5));
    let title = format!("snapshots: {} MiB in {} files", bytes >> 20, bytes / 53_687);
    report.title(&title, "what | ms | rival | its ms | target");
    let alone = |name: &str, time: Duration| {
        let target = format!("at most 15 ms {}", met(ms(time) <= 15.0));
        [name.to_owned(), format!("{:.1}", ms(time)), String::new(), String::new(), target]
    };
    report.row(&alone("fork of a stopped sandbox until the child runs", fork));
    report.row(&alone("rollback of a running sandbox", back));
    let beside = |name: &str, time: Duration, rival: &str, its: Duration| {
        let (time, its) = (ms(time), ms(its));
        [
            name.to_owned(),
            format!("{time:.0}"),
            rival.to_owned(),
            format!("{its:.0}"),
            verdict(its / time, 1.0),
        ]
    };
    report.row(&beside("fork of a running sandbox", copy, "cp -a --reflink=auto", cp));
    report.row(&beside("snapshot of a directory, on the disk", archive, "tar, zstd -T2, sync", tar));
    Ok(())
}

impl Daemon {
    /// Fork, rollback, fork while it runs and cp, archive and tar.
    fn keep(&mut self, place: &Place, bytes: u64) -> Result<[Duration; 6]> {
        let spec = br#"{"id":"keep","image":"bench:1"}"#;
        self.call("POST", "/v1/sandboxes", spec, 201)?;
        self.fill(bytes)?;
        let upper = self.state()?.join("sandboxes/keep/upper/root/d");
        let copy = self.timed("/v1/sandboxes/keep/fork", br#"{"ids":["child"]}"#, 201)?;
        self.call("DELETE", "/v1/sandboxes/child", b"", 204)?;
        settle();
        let cp =
            raced(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&upper).arg(place.path("copy")))?;
        std::fs::remove_dir_all(place.path("copy"))?;
        settle();
        let file = place.path("tar.zst");
        let line = format!("tar -C {} -c . | zstd -T2 -q -f -o {file} && sync {file}", upper.display());
        let tar = raced(Command::new("sh").args(["-c", &line]))?;
        self.call("POST", "/v1/sandboxes/keep/stop", b"", 200)?;
        settle();
        let fork = self.timed("/v1/sandboxes/keep/fork", br#"{"ids":["child"]}"#, 201)?;
        self.call("DELETE", "/v1/sandboxes/child", b"", 204)?;
        settle();
        let archive = self.timed("/v1/sandboxes/keep/snapshots", br#"{"path":"/root/d"}"#, 201)?;
        let kept: Value =
            serde_json::from_slice(&self.call("POST", "/v1/sandboxes/keep/snapshots", b"{}", 201)?)?;
        self.fill(bytes)?;
        settle();
        let back = self.timed("/v1/sandboxes/keep/rollback", b"{}", 200)?;
        self.call("DELETE", "/v1/sandboxes/keep", b"", 204)?;
        let id = kept["id"].as_str().context("a snapshot without id")?;
        self.call("DELETE", &format!("/v1/snapshots/{id}"), b"", 204)?;
        settle();
        Ok([fork, back, copy, cp, archive, tar])
    }

    fn fill(&mut self, bytes: u64) -> Result<()> {
        let line = FILL.replace("BYTES", &bytes.to_string());
        let body = serde_json::json!({"argv": ["/bin/sh", "-c", line]}).to_string();
        self.call("POST", "/v1/sandboxes/keep/commands", body.as_bytes(), 200)?;
        Ok(())
    }

    fn timed(&mut self, path: &str, body: &[u8], status: u16) -> Result<Duration> {
        let start = Instant::now();
        self.call("POST", path, body, status)?;
        Ok(start.elapsed())
    }

    /// Beside the log, and of the same name.
    fn state(&self) -> Result<PathBuf> {
        let name = self.log.file_name().and_then(|name| name.to_str()).context("a log without name")?;
        Ok(self.log.with_file_name(name.replacen("log-", "state-", 1)))
    }
}

/// Nothing is left for the disk to do that the next contestant would pay for.
fn settle() {
    // What it cannot write, the next contestant finds out too.
    let _ = run(&mut Command::new("sync"));
    std::thread::sleep(super::PAUSE);
}

fn raced(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    run(command)?;
    Ok(start.elapsed())
}
