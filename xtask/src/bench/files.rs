//! Files through the API: a gibibyte each way beside `cat` through a socket pair, and small reads one after another.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::disk::Disk;
use super::{Daemon, Place, Report, http, met, ms, quantile};
use crate::process::run;

/// Bytes of the large file.
const LARGE: u64 = 1 << 30;

/// Reads of 4 KiB in one round.
const SMALL_READS: u32 = 5000;

/// The least part of what `cat` reaches, and the fewest reads in a second.
const RATIO: f64 = 0.7;
const READS_PER_SECOND: f64 = 5000.0;

/// The most that an event may be behind, in milliseconds.
const EVENT_MS: f64 = 2.0;

const FILES: &str = "/v1/sandboxes/bench/files/content?path=%2Fworkspace%2F";

/// Both directions, and small reads.
pub(super) fn files(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    // Room for six copies of the large file, on the same disk for both sides.
    let directory = PathBuf::from(format!("{}-files", place.directory.display()));
    let _disk = Disk::mount(&directory, 8)?;
    let mut daemon = Daemon::start_on(&directory)?;
    daemon.import(place)?;
    daemon.call(
        "POST",
        "/v1/sandboxes",
        json!({"id": "bench", "image": "bench:1"}).to_string().as_bytes(),
        201,
    )?;
    let mut chunk = vec![0_u8; 1 << 20];
    for (index, byte) in chunk.iter_mut().enumerate() {
        *byte = u8::try_from(index % 251)?;
    }
    // What is read, what is replaced, and what small reads read.
    let [large, copy] = ["large", "copy"].map(|name| directory.join(name));
    cat_write(&large, &chunk)?;
    cat_write(&copy, &chunk)?;
    api_write(&mut daemon, "large", &chunk)?;
    daemon.call("PUT", &format!("{FILES}small"), &chunk[..4096], 200)?;
    let mut samples: [Vec<Duration>; 7] = Default::default();
    let new = directory.join("new");
    let remove = json!({"path": "/workspace/new"}).to_string();
    for _ in 0..rounds {
        settle(&new, &chunk)?;
        samples[0].push(api_write(&mut daemon, "new", &chunk)?);
        daemon.call("POST", "/v1/sandboxes/bench/files/remove", remove.as_bytes(), 204)?;
        settle(&new, &chunk)?;
        samples[1].push(cat_write(&new, &chunk)?);
        std::fs::remove_file(&new)?;
        settle(&new, &chunk)?;
        samples[2].push(api_write(&mut daemon, "large", &chunk)?);
        settle(&new, &chunk)?;
        samples[3].push(cat_replace(&copy, &new, &chunk)?);
        samples[4].push(api_read(&mut daemon, &mut chunk)?);
        samples[5].push(cat_read(&large, &mut chunk)?);
        samples[6].push(small_reads(&mut daemon)?);
    }
    let changes = changes(&mut daemon, 100 * rounds)?;
    daemon.call("DELETE", "/v1/sandboxes/bench", b"", 204)?;
    rows(report, &samples, &changes);
    Ok(())
}

fn rows(report: &mut Report, samples: &[Vec<Duration>; 7], changes: &[Duration]) {
    report.title("files through the API", "what | stockade | `cat` through a socket pair | target");
    for (name, ours, theirs) in
        [("write 1 GiB", 0, 1), ("write 1 GiB in place of another", 2, 3), ("read 1 GiB", 4, 5)]
    {
        let (ours, theirs) = (quantile(&samples[ours], 0.5), quantile(&samples[theirs], 0.5));
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        let speed = |time: Duration| format!("{:.0} ms", ms(time));
        let verdict = format!("{ratio:.2} × (at least {RATIO}) {}", met(ratio >= RATIO));
        report.row(&[name.to_owned(), speed(ours), speed(theirs), verdict]);
    }
    let rate = f64::from(SMALL_READS) / quantile(&samples[6], 0.5).as_secs_f64();
    let verdict = format!("at least {READS_PER_SECOND} {}", met(rate >= READS_PER_SECOND));
    let name = "4 KiB reads per second, one connection";
    report.row(&[name.to_owned(), format!("{rate:.0}"), String::new(), verdict]);
    let p50 = ms(quantile(changes, 0.5));
    let verdict = format!("at most {EVENT_MS} ms {}", met(p50 <= EVENT_MS));
    let name = "watch event after a change, p50";
    report.row(&[name.to_owned(), format!("{p50:.2} ms"), String::new(), verdict]);
    report.note(
        "In place of another: the API replaces a file in one step, and so `cat` writes beside it and renames. Before each \
         write the disk is idle, and memory was just in use. The event's time begins with the request that makes the change.",
    );
}

/// From a request that changes something to the event that says so, on another connection.
fn changes(daemon: &mut Daemon, rounds: usize) -> Result<Vec<Duration>> {
    let mut watch = http::Connection::open(&daemon.socket)?;
    let headers = [("Accept", "text/event-stream")];
    watch.send("GET", "/v1/sandboxes/bench/watch?path=%2Fworkspace", &headers, b"")?;
    let head = watch.receive_head()?;
    let mut events = watch.body(&head);
    let mut next = || events.next_event()?.context("the watch ended");
    next()?;
    let mut samples = Vec::new();
    for round in 0..rounds {
        // Beyond what is gathered into one report.
        std::thread::sleep(Duration::from_millis(15));
        let body = json!({"path": format!("/workspace/{round}")}).to_string();
        let start = Instant::now();
        daemon.call("POST", "/v1/sandboxes/bench/files/mkdir", body.as_bytes(), 204)?;
        while next()?.name != "create" {}
        samples.push(start.elapsed());
    }
    Ok(samples)
}

/// Lets the disk take what was written before, and writes and removes as much as is written next: a virtual machine may
/// have given memory that was free for some seconds back to its host, and whoever comes first would wait for all of it.
fn settle(scratch: &Path, chunk: &[u8]) -> Result<()> {
    run(&mut Command::new("sync"))?;
    cat_write(scratch, chunk)?;
    std::fs::remove_file(scratch)?;
    Ok(())
}

fn api_write(daemon: &mut Daemon, name: &str, chunk: &[u8]) -> Result<Duration> {
    let connection = daemon.connection()?;
    let start = Instant::now();
    let head = format!("PUT {FILES}{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n");
    connection.send_raw(head.as_bytes())?;
    for _ in 0..LARGE >> 20 {
        // A refusal comes before the end, and is what counts.
        if connection.send_raw(chunk).is_err() {
            break;
        }
    }
    let answer = connection.receive()?;
    let took = start.elapsed();
    if answer.status != 200 {
        bail!("write: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(took)
}

fn cat_write(path: &Path, chunk: &[u8]) -> Result<Duration> {
    let start = Instant::now();
    let (mut ours, theirs) = UnixStream::pair()?;
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(theirs));
    let mut child = Command::new("cat").stdin(stdin).stdout(File::create(path)?).spawn()?;
    for _ in 0..LARGE >> 20 {
        ours.write_all(chunk)?;
    }
    drop(ours);
    child.wait()?;
    Ok(start.elapsed())
}

/// The same over a file that is there, in one step.
fn cat_replace(path: &Path, draft: &Path, chunk: &[u8]) -> Result<Duration> {
    let took = cat_write(draft, chunk)?;
    let start = Instant::now();
    std::fs::rename(draft, path)?;
    Ok(took + start.elapsed())
}

fn api_read(daemon: &mut Daemon, buffer: &mut [u8]) -> Result<Duration> {
    let connection = daemon.connection()?;
    let start = Instant::now();
    connection.send("GET", &format!("{FILES}large"), &[], b"")?;
    let head = connection.receive_head()?;
    let mut body = connection.body(&head);
    let mut total = 0;
    loop {
        match body.read(buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    if head.status != 200 || total != LARGE {
        bail!("read: {} with {total} bytes", head.status);
    }
    Ok(start.elapsed())
}

fn cat_read(path: &Path, buffer: &mut [u8]) -> Result<Duration> {
    let start = Instant::now();
    let (mut ours, theirs) = UnixStream::pair()?;
    let stdout = Stdio::from(std::os::fd::OwnedFd::from(theirs));
    let mut child = Command::new("cat").arg(path).stdout(stdout).spawn()?;
    while ours.read(buffer)? > 0 {}
    child.wait()?;
    Ok(start.elapsed())
}

fn small_reads(daemon: &mut Daemon) -> Result<Duration> {
    let path = format!("{FILES}small");
    let start = Instant::now();
    for _ in 0..SMALL_READS {
        daemon.call("GET", &path, b"", 200)?;
    }
    Ok(start.elapsed())
}
