//! `stats`, `top`, `limits`, `quota`: what sandboxes use, and what they may.
//!
//! Processor time is a sum; how busy a sandbox is shows between two readings, so that a table takes two of them.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use clap::Args;
use hyper::Method;

use super::client::{Client, Events, json as answer, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::limits;
use super::quantity::{self, Duration};
use super::show;
use crate::api::StatsList;
use crate::api::schema::{ErrorBody, ResourceLimits};
use crate::sandbox::{LimitChange, QuotaView, ResourcesChange, SandboxStats, SandboxView, Share, State};
use crate::wire::launch::Limit;

/// Between the two readings of a table, in milliseconds.
const BETWEEN_MS: u64 = 300;

/// Characters of a bar.
const BAR: usize = 10;

/// Help of `stats`.
pub const HELP: &str = "\
Wakes nothing. What this host does not count is shown as `-`, and --json says why.

Examples:
  stockade stats                        all sandboxes, once
  stockade stats work --disk            one, with what its files take
  stockade stats --watch                again every second, until it is interrupted
  stockade stats --json --watch         one line of JSON for each reading";

/// Help of `limits`.
pub const LIMITS_HELP: &str = "\
Examples:
  stockade limits show work
  stockade limits set work --memory 1g --cpus 2
  stockade limits set work --pids 0 --dry-run      what would change; 0 is no limit";

/// Arguments of `stats`.
#[derive(Args, Debug)]
pub struct Stats {
    /// Sandboxes; all when none is named.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Count what their files take on disk too.
    #[arg(long)]
    pub disk: bool,
    /// Go on until it is interrupted.
    #[arg(long)]
    pub watch: bool,
    /// Time between two readings.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, default_value = "1s")]
    pub interval: Duration,
}

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// Time between two readings.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, default_value = "1s")]
    pub interval: Duration,
}

/// What `limits` does.
#[derive(Debug, clap::Subcommand)]
pub enum Limits {
    /// Show what limits a sandbox, and what enforces it.
    Show {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
    },
    /// Give a sandbox other limits, while it runs. Those that are not named stay.
    Set {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
        /// Its limits.
        #[command(flatten)]
        limits: limits::Limits,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Readings of all sandboxes, as they come.
struct Readings {
    events: Events,
    before: HashMap<String, (u64, jiff::Timestamp)>,
}

impl Readings {
    async fn open(client: &Client, disk: bool, interval_ms: u64) -> Result<Self, Failure> {
        let path = format!("/v1/stats?interval_ms={interval_ms}&disk={disk}");
        let response = client.request::<()>(Method::GET, &path, None, "text/event-stream").await?;
        Ok(Self { events: Events::new(response), before: HashMap::new() })
    }

    /// The next one, each with the part of a processor that it has used since the one before.
    async fn next(&mut self) -> Result<Option<Vec<(SandboxStats, Option<f64>)>>, Failure> {
        let Some(event) = self.events.next().await? else { return Ok(None) };
        if event.name == "error" {
            let body: ErrorBody = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
            return Err(Failure::Refused(Box::new(body)));
        }
        let list: StatsList = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
        let mut before = HashMap::new();
        let mut all = Vec::new();
        for stats in list.sandboxes {
            let now = stats.cpu.usage_us.zip(stats.at.parse::<jiff::Timestamp>().ok());
            let busy = now.and_then(|now| busy(*self.before.get(&stats.id)?, now));
            before.extend(now.map(|now| (stats.id.clone(), now)));
            all.push((stats, busy));
        }
        self.before = before;
        Ok(Some(all))
    }
}

/// Which part of a processor was used between two readings.
fn busy(before: (u64, jiff::Timestamp), now: (u64, jiff::Timestamp)) -> Option<f64> {
    let passed = now.1.duration_since(before.1).as_secs_f64();
    // Less than before: it was started again.
    let used = now.0.checked_sub(before.0)?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds between two readings are few")]
    let used = used as f64 / 1e6;
    (passed > 0.0).then(|| used / passed)
}

/// `stockade stats`.
pub(super) async fn stats(daemon: Daemon, arguments: Stats, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    for id in &arguments.ids {
        // One that is not there is an error, and not an empty table.
        connection.client.get::<SandboxView>(&format!("/v1/sandboxes/{}", segment(id))).await?;
    }
    let interval = if arguments.watch { arguments.interval } else { BETWEEN_MS };
    let mut readings = Readings::open(&connection.client, arguments.disk, interval).await?;
    let wanted = |stats: &SandboxStats| arguments.ids.is_empty() || arguments.ids.contains(&stats.id);
    let mut first = !json;
    while let Some(mut all) = readings.next().await? {
        all.retain(|(stats, _)| wanted(stats));
        // The first has nothing to be compared with.
        if std::mem::take(&mut first) && all.iter().any(|(stats, _)| stats.cpu.usage_us.is_some()) {
            continue;
        }
        if json {
            let sandboxes = all.into_iter().map(|(stats, _)| stats).collect();
            let list = StatsList { sandboxes };
            if arguments.watch {
                let line = serde_json::to_string(&list).map_err(Failure::NotOurs)?;
                show::print(&(line + "\n"))?;
            } else {
                show::print_json(&list)?;
            }
        } else {
            show::print(&table(&all))?;
        }
        if !arguments.watch {
            break;
        }
    }
    Ok(0)
}

/// `stockade top`: on a terminal again and again, elsewhere once.
pub(super) async fn top(daemon: Daemon, arguments: Top) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let live = std::io::stdout().is_terminal();
    let interval = if live { arguments.interval } else { BETWEEN_MS };
    let mut readings = Readings::open(&connection.client, false, interval).await?;
    let mut first = true;
    while let Some(mut all) = readings.next().await? {
        all.sort_by(|(a, busy_a), (b, busy_b)| {
            let order = busy_b.unwrap_or(0.0).total_cmp(&busy_a.unwrap_or(0.0));
            order
                .then_with(|| b.memory.current_bytes.cmp(&a.memory.current_bytes))
                .then_with(|| a.id.cmp(&b.id))
        });
        if live {
            let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(24, |size| size.ws_row);
            // Two lines of heads, one in which the cursor rests.
            all.truncate(usize::from(rows.saturating_sub(3)).max(1));
            // ECMA-48: to the upper left, and nothing below.
            show::print(&format!("\u{1b}[H\u{1b}[J{}", bars(&all)))?;
        } else if !std::mem::take(&mut first) || all.is_empty() {
            show::print(&bars(&all))?;
            break;
        }
    }
    Ok(0)
}

fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Paused => "paused",
        State::Stopped => "stopped",
        State::Dead => "dead",
    }
}

fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

fn memory(stats: &SandboxStats) -> String {
    let limit = stats.memory.limit_bytes.map(|limit| format!(" / {}", show::size(limit)));
    or_dash(stats.memory.current_bytes, |used| show::size(used) + &limit.unwrap_or_default())
}

fn both(one: Option<u64>, other: Option<u64>) -> String {
    match (one, other) {
        (None, None) => "-".to_owned(),
        (one, other) => format!("{} / {}", or_dash(one, show::size), or_dash(other, show::size)),
    }
}

fn table(all: &[(SandboxStats, Option<f64>)]) -> String {
    const HEADS: [&str; 9] =
        ["ID", "STATE", "CPU", "MEMORY", "PEAK", "PIDS", "READ / WRITTEN", "SENT / RECEIVED", "DISK"];
    let row = |(stats, busy): &(SandboxStats, Option<f64>)| {
        let network = stats.network;
        vec![
            stats.id.clone(),
            state(stats.state).to_owned(),
            or_dash(*busy, percent),
            memory(stats),
            or_dash(stats.memory.peak_bytes, show::size),
            or_dash(stats.pids.current, |now| now.to_string()),
            both(stats.io.read_bytes, stats.io.written_bytes),
            both(network.map(|network| network.sent_bytes), network.map(|network| network.received_bytes)),
            or_dash(stats.disk.as_ref(), |disk| show::size(disk.used_bytes)),
        ]
    };
    show::table(&HEADS, &all.iter().map(row).collect::<Vec<_>>())
}

/// A part of a whole as `[###       ]`.
fn bar(part: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between nothing and the length of a bar"
    )]
    let filled = (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("[{}{}]", "#".repeat(filled), " ".repeat(BAR - filled))
}

#[expect(clippy::cast_precision_loss, reason = "a share, shown in ten steps")]
fn share(used: Option<u64>, limit: Option<u64>) -> String {
    used.zip(limit)
        .filter(|(_, limit)| *limit > 0)
        .map_or_else(|| " ".repeat(BAR + 2), |(used, limit)| bar(used as f64 / limit as f64))
}

fn bars(all: &[(SandboxStats, Option<f64>)]) -> String {
    const HEADS: [&str; 8] = ["ID", "STATE", "CPU", "", "MEMORY", "", "PIDS", ""];
    let row = |(stats, busy): &(SandboxStats, Option<f64>)| {
        // Of the limit, or of one processor.
        #[expect(clippy::cast_precision_loss, reason = "processors are few")]
        let processors = stats.cpu.limit_millis.map_or(1.0, |millis| millis as f64 / 1000.0);
        let cpu = busy.map_or_else(|| " ".repeat(BAR + 2), |busy| bar(busy / processors));
        vec![
            stats.id.clone(),
            state(stats.state).to_owned(),
            cpu,
            or_dash(*busy, percent),
            share(stats.memory.current_bytes, stats.memory.limit_bytes),
            memory(stats),
            share(stats.pids.current, stats.pids.limit),
            or_dash(stats.pids.current, |now| now.to_string()),
        ]
    };
    show::table(&HEADS, &all.iter().map(row).collect::<Vec<_>>())
}

/// `stockade quota`.
pub(super) async fn quota(daemon: Daemon, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let quota: QuotaView = connection.client.get("/v1/quota").await?;
    if json {
        show::print_json(&quota)?;
        return Ok(0);
    }
    let row = |name: &str, share: Share| {
        vec![
            name.to_owned(),
            shown(name, share.used),
            share.allowed.map_or_else(|| "as much as there is".to_owned(), |allowed| shown(name, allowed)),
        ]
    };
    let rows = [
        row("sandboxes", quota.sandboxes),
        row("memory_bytes", quota.memory_bytes),
        row("cpu_millis", quota.cpu_millis),
        row("disk_bytes", quota.disk_bytes),
        row("snapshots", quota.snapshots),
        row("snapshot_bytes", quota.snapshot_bytes),
        row("image_bytes", quota.image_bytes),
    ];
    show::print(&show::table(&["QUOTA", "TAKEN", "ALLOWED"], &rows))?;
    Ok(0)
}

/// `stockade limits`.
pub(super) async fn change_limits(daemon: Daemon, action: Limits, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    match action {
        Limits::Show { sandbox } => {
            // Nothing is changed by no change: and a sandbox that was stopped has limits too.
            let change = change(&connection.client, &sandbox, &ResourceLimits::default(), true).await?;
            if json { show::print_json(&change.limits)? } else { show::print(&enforced(&change.limits))? }
        }
        Limits::Set { sandbox, limits, dry_run } => {
            let wanted = ResourceLimits::from(limits);
            if wanted == ResourceLimits::default() {
                return Err(Failure::Usage("name a limit: --memory, --cpus, --pids, …".to_owned()));
            }
            let change = change(&connection.client, &sandbox, &wanted, dry_run).await?;
            if json {
                show::print_json(&change)?;
            } else {
                for warning in &change.warnings {
                    show::say(&format!("stockade: {warning}"));
                }
                show::print(&change.changes.iter().map(line).collect::<String>())?;
            }
        }
    }
    Ok(0)
}

async fn change(
    client: &Client,
    sandbox: &str,
    wanted: &ResourceLimits,
    dry_run: bool,
) -> Result<ResourcesChange, Failure> {
    let path = format!("/v1/sandboxes/{}/resources?dry_run={dry_run}", segment(sandbox));
    answer(client.request(Method::PATCH, &path, Some(wanted), "application/json").await?).await
}

fn line(change: &LimitChange) -> String {
    let shown = |value: Option<u64>| or_dash(value, |value| shown(&change.limit, value));
    format!("{}: {} -> {}\n", change.limit, shown(change.before), shown(change.after))
}

fn shown(limit: &str, value: u64) -> String {
    if limit.contains("bytes") { show::size(value) } else { value.to_string() }
}

fn enforced(limits: &std::collections::BTreeMap<String, Limit>) -> String {
    let row = |(name, limit): (&String, &Limit)| {
        vec![name.clone(), or_dash(limit.value, |value| shown(name, value)), limit.enforced_by.clone()]
    };
    show::table(&["LIMIT", "VALUE", "ENFORCED BY"], &limits.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(bar(0.0), "[          ]");
        assert_eq!(bar(0.5), "[#####     ]");
        assert_eq!(bar(7.0), "[##########]");
        assert_eq!(share(Some(1), None).trim(), "");
    }

    #[test]
    fn one_that_was_started_again_is_not_busy_before_the_next_reading() {
        let at = |second: i64| jiff::Timestamp::from_second(second).expect("time");
        assert_eq!(busy((0, at(0)), (500_000, at(1))), Some(0.5));
        assert_eq!(busy((500_000, at(0)), (0, at(1))), None);
        assert_eq!(busy((0, at(1)), (1, at(1))), None);
    }
}
