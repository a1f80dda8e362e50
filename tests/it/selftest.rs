//! `stockade selftest`: the wall stands on this host, its own attacks are some, and a hole would be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::image::{Image, busybox_layer};
use crate::harness::{Daemon, binary, host, skip, skipped};

/// Contexts: three profiles, two users.
const CONTEXTS: usize = 6;

fn selftest(daemon: Option<&Daemon>, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    if let Some(daemon) = daemon {
        command.arg("--socket").arg(daemon.socket());
    }
    command.arg("selftest").args(arguments);
    // In the VM of `cargo xtask vm` nothing is lost when a control goes wrong.
    if std::env::var_os("STOCKADE_TEST_LOSABLE").is_some() {
        command.arg("--real-root");
    }
    command.output().unwrap()
}

#[track_caller]
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no report ({error}): {}", String::from_utf8_lossy(&output.stderr));
    })
}

fn rows<'a>(report: &'a Value, of: &str, verdict: &str) -> Vec<&'a Value> {
    report[of].as_array().unwrap().iter().filter(|row| row["verdict"] == verdict).collect()
}

#[test]
fn the_wall_stands_against_every_attack_in_every_profile() {
    let daemon = Daemon::start();
    let mut arguments = vec!["--json"];
    if !host::has_tool("sh") {
        // The machine of `cargo xtask vm` has no programs to show.
        let Some(layer) = busybox_layer() else { skip!("busybox", "busybox-static is not installed") };
        daemon.import("busybox:1", &Image::new(vec![layer]).layout_tar("1"));
        arguments.extend(["--image", "busybox:1"]);
    }
    let output = selftest(Some(&daemon), &arguments);
    let report = report(&output);
    let failed = [rows(&report, "attacks", "FAIL"), rows(&report, "processes", "FAIL")].concat();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What is skipped proves nothing: most attacks must have worked where nothing stops them.
    let mut passed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(&report, "attacks", "PASS") {
        let context = format!("{}/{}", row["profile"].as_str().unwrap(), row["user"].as_str().unwrap());
        passed.entry(context).or_default().insert(row["attack"].as_str().unwrap().to_owned());
    }
    assert_eq!(passed.len(), CONTEXTS, "{:?}", passed.keys());
    for (context, attacks) in &passed {
        assert!(attacks.len() >= 150, "{context}: only {} attacks have a control that works", attacks.len());
    }
    let skipped_here: BTreeSet<&str> =
        rows(&report, "attacks", "SKIP").iter().filter_map(|row| row["attack"].as_str()).collect();
    if !skipped_here.is_empty() {
        skipped("kernel-feature", &format!("controls that do not work on this host: {skipped_here:?}"));
    }
    // The roles that run all the time, and the gateway, which the neighbour's policy has started.
    let examined: BTreeSet<&str> =
        rows(&report, "processes", "PASS").iter().filter_map(|row| row["role"].as_str()).collect();
    for role in ["launch", "serve", "gateway", "agent", "zygote"] {
        assert!(examined.contains(role), "{role} was not examined: {examined:?}");
    }
    assert_eq!(daemon.ids(), Vec::<String>::new(), "it has left sandboxes behind");
}

#[test]
fn attacks_work_on_what_nothing_protects_and_are_said_to() {
    let output = selftest(None, &["--without-sandbox", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&output);
    assert_eq!(report["verdict"], "FAIL");
    assert!(rows(&report, "attacks", "PASS").is_empty(), "something passed without a sandbox");
    let failed = rows(&report, "attacks", "FAIL").len();
    assert!(failed >= 150, "only {failed} attacks work where nothing stops them");
}

#[test]
fn people_list_filter_and_read_it() {
    let daemon = Daemon::start();
    let list = selftest(None, &["--list", "--json"]);
    let list: Vec<Value> = serde_json::from_slice(&list.stdout).unwrap();
    assert!(list.len() >= 150 && list.iter().any(|one| one["attack"] == "every-system-call"));
    let some = selftest(Some(&daemon), &["--profile", "hardened", "--filter", "mount-"]);
    let text = String::from_utf8_lossy(&some.stdout);
    assert!(some.status.success() && text.contains("hardened/1000") && text.contains("0 FAIL"), "{text}");
    assert!(!text.contains("compat/"), "{text}");
    let none = selftest(Some(&daemon), &["--filter", "no such attack"]);
    assert_eq!(none.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--list"), "it does not say where the names are");
}
