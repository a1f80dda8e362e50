//! Snapshots: of a sandbox with 1 GiB in 20,000 files, beside cp, and beside tar and zstd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::disk::Disk;
use super::{Daemon, Place, Report, met, ms, quantile};
use crate::process::run;

/// Bytes of one file.
const FILE: u64 = 53_687;

/// Measures all rows. Each round writes `bytes` four times.
pub(super) fn snapshots(place: &Place, report: &mut Report, rounds: usize, bytes: u64) -> Result<()> {
    // Room for what every contestant writes, and for what is removed only when nobody waits.
    let directory = PathBuf::from(format!("{}-snapshots", place.directory.display()));
    let _disk = Disk::mount(&directory, 16)?;
    let files = files(&directory.join("files"), bytes / FILE)?;
    let mut daemon = Daemon::start_on(&directory)?;
    daemon.import(place)?;
    let mut times: [Vec<Duration>; 6] = Default::default();
    for _ in 0..rounds {
        for (all, one) in times.iter_mut().zip(daemon.keep(&directory, &files)?) {
            all.push(one);
        }
    }
    let [fork, back, copy, cp, archive, tar] = times.map(|samples| quantile(&samples, 0.5));
    let title = format!("snapshots: {} MiB in {} files", bytes >> 20, bytes / FILE);
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
            format!("{:.2} × (at least 1) {}", its / time, met(its >= time)),
        ]
    };
    report.row(&beside("fork of a running sandbox", copy, "cp -a --reflink=auto", cp));
    report.row(&beside("snapshot of a directory, on the disk", archive, "tar, zstd -T2, sync", tar));
    Ok(())
}

/// An archive of so many files. Programs compress about as well as what people keep.
fn files(directory: &Path, count: u64) -> Result<Vec<u8>> {
    let program = std::fs::read("/bin/busybox")?;
    let length = usize::try_from(FILE)?;
    std::fs::create_dir_all(directory)?;
    for (number, start) in (0..count).zip((0..program.len() - length).step_by(4099).cycle()) {
        std::fs::write(directory.join(format!("f{number}")), &program[start..start + length])?;
    }
    let tar = Command::new("tar").arg("-C").arg(directory).args(["-c", "."]).output()?;
    std::fs::remove_dir_all(directory)?;
    if !tar.status.success() {
        bail!("tar: {}", String::from_utf8_lossy(&tar.stderr));
    }
    Ok(tar.stdout)
}

impl Daemon {
    /// Fork, rollback, fork while it runs and cp, archive and tar.
    fn keep(&mut self, place: &Path, files: &[u8]) -> Result<[Duration; 6]> {
        let spec = br#"{"id":"keep","image":"bench:1"}"#;
        self.call("POST", "/v1/sandboxes", spec, 201)?;
        self.fill(files)?;
        let upper = self.state()?.join("sandboxes/keep/upper/root/d");
        let copy = self.timed("/v1/sandboxes/keep/fork", br#"{"ids":["child"]}"#, 201)?;
        self.call("DELETE", "/v1/sandboxes/child", b"", 204)?;
        settle();
        let cp =
            raced(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&upper).arg(place.join("copy")))?;
        std::fs::remove_dir_all(place.join("copy"))?;
        settle();
        let file = place.join("tar.zst").display().to_string();
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
        self.fill(files)?;
        settle();
        let back = self.timed("/v1/sandboxes/keep/rollback", b"{}", 200)?;
        self.call("DELETE", "/v1/sandboxes/keep", b"", 204)?;
        let id = kept["id"].as_str().context("a snapshot without id")?;
        self.call("DELETE", &format!("/v1/snapshots/{id}"), b"", 204)?;
        settle();
        Ok([fork, back, copy, cp, archive, tar])
    }

    fn fill(&mut self, files: &[u8]) -> Result<()> {
        self.call("PUT", "/v1/sandboxes/keep/files/archive?path=%2Froot%2Fd", files, 204)?;
        Ok(())
    }

    fn timed(&mut self, path: &str, body: &[u8], status: u16) -> Result<Duration> {
        // What was measured before may have taken long, and opening another connection is no part of this.
        self.connection()?;
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
