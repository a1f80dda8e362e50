//! Background processes: how long a long list takes, and what output costs that nobody reads.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Daemon, Place, Report, met};

/// Processes that run while the list is read.
const PROCESSES: usize = 1000;

/// How often it is read.
const LISTS: usize = 21;

/// Bytes by which the daemon may grow while `yes` writes.
const GROWTH_KIB_MAX: u64 = 4096;

/// Measures both.
pub(super) fn processes(place: &Place, report: &mut Report, flood: Duration) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    report.title("Background processes", "what | measured | target");
    let (start, list) = list(&mut daemon)?;
    report.row(&["start, median".to_owned(), format!("{:.2} ms", milliseconds(start)), String::new()]);
    report.row(&[
        format!("list of {PROCESSES}, median"),
        format!("{:.1} ms", milliseconds(list)),
        format!("at most 20 ms {}", met(list <= Duration::from_millis(20))),
    ]);
    let (grown, written) = yes(&mut daemon, flood)?;
    report.row(&[
        format!("`yes` for {} s without a reader: growth of the daemon", flood.as_secs()),
        format!("{grown} KiB, while {} MiB were written", written >> 20),
        format!("at most 4 MiB {}", met(grown <= GROWTH_KIB_MAX)),
    ]);
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How long a process takes to start, and the list of all of them.
fn list(daemon: &mut Daemon) -> Result<(Duration, Duration)> {
    let spec =
        json!({"id": "many", "image": "bench:1", "resources": {"pids": 2 * PROCESSES, "memory_bytes": 0}});
    daemon.call("POST", "/v1/sandboxes", spec.to_string().as_bytes(), 201)?;
    let path = "/v1/sandboxes/many/processes";
    let mut starts = Vec::new();
    for _ in 0..PROCESSES {
        let began = Instant::now();
        daemon.call("POST", path, br#"{"argv":["/bin/busybox","sleep","600"]}"#, 201)?;
        starts.push(began.elapsed());
    }
    let mut lists = Vec::new();
    for _ in 0..LISTS {
        let began = Instant::now();
        let bytes = daemon.call("GET", path, b"", 200)?;
        lists.push(began.elapsed());
        let list: Value = serde_json::from_slice(&bytes)?;
        if list["processes"].as_array().map(Vec::len) != Some(PROCESSES) {
            bail!("not all processes are listed");
        }
    }
    daemon.call("DELETE", "/v1/sandboxes/many", b"", 204)?;
    Ok((median(starts), median(lists)))
}

/// By how many KiB the daemon is larger at its largest, and how many bytes were written.
fn yes(daemon: &mut Daemon, flood: Duration) -> Result<(u64, u64)> {
    daemon.call("POST", "/v1/sandboxes", br#"{"id":"flood","image":"bench:1"}"#, 201)?;
    let path = "/v1/sandboxes/flood/processes";
    // What a first log makes the daemon allocate for good is not growth.
    let first = br#"{"id":"first","argv":["/bin/busybox","head","-c","20000000","/dev/zero"]}"#;
    daemon.call("POST", path, first, 201)?;
    daemon.call("POST", &format!("{path}/first/wait"), b"{}", 200)?;
    let serve = daemon.role("stockade-serve")?;
    let resident = || -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{serve}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    };
    let before = resident()?;
    daemon.call("POST", path, br#"{"id":"yes","argv":["/bin/busybox","yes"]}"#, 201)?;
    let (began, mut most) = (Instant::now(), before);
    while began.elapsed() < flood {
        std::thread::sleep(Duration::from_millis(50));
        most = most.max(resident()?);
        // A connection that says nothing is closed, and this shows that the daemon answers all the while.
        daemon.call("GET", "/v1/healthz", b"", 200)?;
    }
    let process: Value = serde_json::from_slice(&daemon.call("GET", &format!("{path}/yes"), b"", 200)?)?;
    let written = process["log"]["end_cursor"].as_u64().context("no cursor")?;
    daemon.call("DELETE", "/v1/sandboxes/flood", b"", 204)?;
    Ok((most - before, written))
}
