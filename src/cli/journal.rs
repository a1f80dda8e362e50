//! `events` and `audit`: what happens, and who asked for it.

use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;

use super::client::{Client, Events, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::{OWN_FAILURE, show};
use crate::api::{AuditLines, EventList};
use crate::journal::audit::{self, Line};
use crate::journal::feed::Happened;

/// Help of `events`.
pub const EVENTS_HELP: &str = "\
Examples:
  stockade events                               what happens from now on, until it is interrupted
  stockade events --sandbox work --type command.exited
  stockade events --since 0 --no-follow         what is remembered
  stockade events --json                        one line of JSON for each";

/// Help of `audit`.
pub const AUDIT_HELP: &str = "\
Examples:
  stockade audit tail -n 20
  stockade audit tail --sandbox work --json
  stockade audit verify                         as root: the log is read where it lies, the daemon is not asked
  stockade audit verify --expect 1042:9f86d0…   that this record, remembered from before, is still in it

`verify` finds every line that was changed, removed, inserted or moved. That the end was cut off it can find only by a \
record that was remembered elsewhere: keep what `verify` or `tail` prints last.";

/// Arguments of `events`.
#[derive(Args, Debug)]
pub struct Listen {
    /// Of this sandbox alone. May be repeated.
    #[arg(long, value_name = "ID")]
    pub sandbox: Vec<String>,
    /// Of this type alone, like sandbox.created. May be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Vec<String>,
    /// From behind this event on; 0 is all that is remembered.
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// End when there is no more for now.
    #[arg(long)]
    pub no_follow: bool,
}

/// What `audit` does.
#[derive(Debug, clap::Subcommand)]
pub enum Audit {
    /// Show the last records.
    Tail {
        /// So many.
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        lines: u32,
        /// About this sandbox alone.
        #[arg(long, value_name = "ID")]
        sandbox: Option<String>,
    },
    /// Check the whole log.
    Verify {
        /// Where it lies.
        #[arg(value_name = "DIRECTORY", default_value = "/var/lib/stockade/journal")]
        directory: PathBuf,
        /// A record that was remembered: its number and its hash.
        #[arg(long, value_name = "SEQ:HASH", value_parser = remembered)]
        expect: Option<Remembered>,
    },
}

/// Number and hash of a record.
pub type Remembered = (u64, String);

fn remembered(text: &str) -> Result<Remembered, String> {
    let wrong = || "write the number of a record and its hash, like 7:9f86d081…".to_owned();
    let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    seq.parse().ok().filter(|_| is_hash).map(|seq| (seq, hash.to_owned())).ok_or_else(wrong)
}

/// `stockade events`.
pub(super) async fn events(daemon: Daemon, arguments: Listen, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let sandboxes = arguments.sandbox.iter().map(|id| format!("sandbox={}", segment(id)));
    let kinds = arguments.kind.iter().map(|kind| format!("type={}", segment(kind)));
    let since = arguments.since.map(|since| format!("after={since}"));
    let query: Vec<String> = sandboxes.chain(kinds).chain(since).collect();
    let path = format!("/v1/events?{}", query.join("&"));
    if arguments.no_follow {
        return remembered_events(&connection.client, &path, json).await;
    }
    let response = connection.client.request::<()>(Method::GET, &path, None, "text/event-stream").await?;
    let mut events = Events::new(response);
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "error" => return Err(event.refusal()),
            "lost" => show::say("stockade: some events before the next one are not remembered any more"),
            _ => {
                let happened: Happened = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
                print(&happened, json)?;
            }
        }
    }
    Ok(0)
}

async fn remembered_events(client: &Client, path: &str, json: bool) -> Result<u8, Failure> {
    let mut next = None;
    loop {
        let after = next.map(|next| format!("&after={next}")).unwrap_or_default();
        let list: EventList = client.get(&format!("{path}{after}")).await?;
        if list.lost {
            show::say("stockade: some events before these are not remembered any more");
        }
        for happened in &list.events {
            print(happened, json)?;
        }
        if list.events.is_empty() {
            return Ok(0);
        }
        next = Some(list.next);
    }
}

fn print(happened: &Happened, json: bool) -> Result<(), Failure> {
    if json {
        return show::print(&(serde_json::to_string(happened).map_err(Failure::NotOurs)? + "\n"));
    }
    let more = match &happened.data {
        serde_json::Value::Null => String::new(),
        data => format!("  {data}"),
    };
    let sandbox = happened.sandbox.as_deref().unwrap_or("-");
    let line = format!("{}  {:<18} {sandbox}{more}", happened.at, happened.kind.name());
    show::print(&format!("{}\n", show::safe(&line)))
}

/// `stockade audit tail`.
pub(super) async fn tail(
    daemon: Daemon,
    (lines, sandbox): (u32, Option<String>),
    json: bool,
) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let sandbox = sandbox.map(|id| format!("&sandbox={}", segment(&id))).unwrap_or_default();
    let found: AuditLines = connection.client.get(&format!("/v1/audit?limit={lines}{sandbox}")).await?;
    if json {
        show::print_json(&found)?;
    } else {
        let rows: Vec<Vec<String>> = found.lines.iter().map(row).collect();
        show::print(&show::table(&["SEQ", "AT", "UID", "PID", "OPERATION", "SANDBOX", "VERDICT"], &rows))?;
        show::say(&format!("the last record is {}:{}", found.last, found.head));
    }
    Ok(0)
}

fn row(line: &Line) -> Vec<String> {
    let record = &line.record;
    vec![
        record.seq.to_string(),
        record.at.clone(),
        record.uid.to_string(),
        record.pid.to_string(),
        record.operation.clone(),
        record.sandbox.clone().unwrap_or_else(|| "-".to_owned()),
        record.verdict.clone(),
    ]
}

/// `stockade audit verify`: of files, so that no daemon has to be believed.
pub(super) fn verify(directory: &Path, expect: Option<&Remembered>, json: bool) -> Result<u8, Failure> {
    let expected = expect.map(|(seq, hash)| (*seq, hash.as_str()));
    let verified = audit::verify(directory, expected)
        .map_err(|source| Failure::Local { what: format!("cannot read {}", directory.display()), source })?;
    match verified {
        Ok(found) if json => show::print_json(&found)?,
        Ok(found) => {
            show::print(&format!(
                "whole: {} records, {} to {}\nremember this, elsewhere: {}:{}\n",
                found.records, found.first, found.last, found.last, found.head
            ))?;
            if found.missed > 0 {
                show::say(&format!(
                    "{} requests could not be written down, and the log says so",
                    found.missed
                ));
            }
            if found.repaired > 0 {
                show::say(&format!(
                    "{} bytes at an end were cut by a crash, and the log says so",
                    found.repaired
                ));
            }
        }
        Err(broken) => {
            if json {
                show::print_json(&broken)?;
            }
            show::say(&format!("stockade: the audit log is not whole: {broken}"));
            return Ok(OWN_FAILURE);
        }
    }
    Ok(0)
}
