//! What a sandbox that does nothing costs the host.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Daemon, Place, Report, met};

/// The host's memory, in KiB.
#[derive(Clone, Copy, Debug)]
struct Sample {
    pss: u64,
    slab: u64,
    page_tables: u64,
    stacks: u64,
    percpu: u64,
    available: u64,
}

/// Measures idle sandboxes.
pub(super) fn idle(place: &Place, report: &mut Report, count: usize) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    let create = |daemon: &mut Daemon, number: usize| {
        let spec = json!({"id": format!("idle-{number}"), "image": "bench:1"}).to_string();
        daemon.call("POST", "/v1/sandboxes", spec.as_bytes(), 201).map(|_| ())
    };
    // One and its command first: threads, buffers and caches that stay belong to the daemon, not to a sandbox.
    create(&mut daemon, 0)?;
    daemon.call("POST", "/v1/sandboxes/idle-0/commands", br#"{"argv":["/bin/true"]}"#, 200)?;
    let before = sample(daemon.child.id())?;
    for number in 1..=count {
        create(&mut daemon, number)?;
    }
    let after = sample(daemon.child.id())?;
    for number in 0..=count {
        daemon.call("DELETE", &format!("/v1/sandboxes/idle-{number}"), b"", 204)?;
    }
    report.title(&format!("{count} idle sandboxes"), "part | KiB per sandbox | target");
    let each = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    let parts = [
        ("PSS of all processes", each(before.pss, after.pss)),
        ("slab", each(before.slab, after.slab)),
        ("page tables", each(before.page_tables, after.page_tables)),
        ("kernel stacks", each(before.stacks, after.stacks)),
    ];
    for (name, value) in parts {
        report.row(&[name.to_owned(), format!("{value:.0}"), String::new()]);
    }
    let sum: f64 = parts.iter().map(|(_, value)| value).sum();
    let met = met(sum <= 1024.0);
    report.row(&["**sum**".to_owned(), format!("{sum:.0}"), format!("at most 1024 {met}")]);
    report.row(&[
        "per-cpu memory".to_owned(),
        format!("{:.0}", each(before.percpu, after.percpu)),
        String::new(),
    ]);
    let available = each(after.available, before.available);
    report.row(&["MemAvailable, difference".to_owned(), format!("{available:.0}"), String::new()]);
    Ok(())
}

fn sample(daemon: u32) -> Result<Sample> {
    // Freed namespaces and cgroups of what came before are still on their way out.
    std::thread::sleep(Duration::from_secs(2));
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    };
    Ok(Sample {
        pss: descendants(daemon).into_iter().map(pss).sum(),
        slab: field("Slab:")?,
        page_tables: field("PageTables:")?,
        stacks: field("KernelStack:")?,
        percpu: field("Percpu:")?,
        available: field("MemAvailable:")?,
    })
}

/// A process and all that come from it.
pub(super) fn descendants(root: u32) -> BTreeSet<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        parents.extend(parent.map(|parent| (parent, pid)));
    }
    let mut found = BTreeSet::from([root]);
    // A child may be listed before its parent: go round until nothing is added.
    while parents.iter().any(|(parent, pid)| found.contains(parent) && found.insert(*pid)) {}
    found
}

/// The proportional set size of a process, in KiB.
pub(super) fn pss(pid: u32) -> u64 {
    rollup(pid, "Pss:")
}

/// One line of `smaps_rollup` (proc_pid_smaps(5)), in KiB.
pub(super) fn rollup(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
