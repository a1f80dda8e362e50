//! Snapshots of snapshots, far more than can lie on top of each other.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{assert_nothing_is_left, fork, post, restore, saved, snapshot, stop};
use crate::harness::{Daemon, host, id};

/// More than twice as many as lie on top of each other.
const LONG: usize = 140;

/// What the tree is in which [`step`] works: kinds, modes, owners, content, links and what hides what.
const SEEN: &str = "cd /root && find . /etc/ssl /etc/alternatives /etc/moved* /srv 2>/dev/null ! -type d -printf '%p %y %m %U %s %T@ %l\\n' | sort; \
     find . /etc/ssl /etc/moved* /srv -type d -printf '%p %m %U %T@\\n' 2>/dev/null | sort; \
     find . -type f -size -100k -print0 | sort -z | xargs -0 -r cat; true";

/// Two names of one file, which nobody touches.
const LINKED: &str =
    "mkdir -p /workspace/d && echo both > /workspace/one && ln /workspace/one /workspace/d/other";
const ARE_LINKED: &str =
    "[ /workspace/one -ef /workspace/d/other ] && stat -c %h /workspace/one && cat /workspace/one";

/// Says what differs, and not all that is the same.
#[track_caller]
fn assert_seen(daemon: &Daemon, sandbox: &str, seen: &str, when: &str) {
    let now = daemon.shell(sandbox, SEEN);
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|there| there == *line)).map(str::to_owned).collect()
    };
    assert!(now == seen, "{when}: gone {:#?}, new {:#?}", only(seen, &now), only(&now, seen));
}

/// One of many different changes, each of which leaves another mark of overlayfs: a file over a file, removed and made
/// anew, directories renamed once and again, into each other, over a removed one, from the image and back.
fn step(number: usize) -> String {
    let change = match number % 14 {
        0 => "mkdir -p a/b/c && echo N > a/b/c/f && echo N > a/f",
        1 => "ln -f a/f hard || echo N > hard; ln -f hard a/hard; true",
        2 => "rm -rf z && mv a z && mkdir a && echo new N > a/f",
        3 => "mv z/b y && mkdir -p y/in && echo N > y/in/f && chmod 751 y",
        4 => "rm -rf a && mkdir a && echo N > a/only && chown 5:6 a/only",
        5 => "rm -rf a/deep && mv y a/deep && ln -sf N a/soft",
        6 => "if [ -d /etc/ssl ]; then rm -rf /etc/movedN && mv /etc/ssl /etc/movedN; fi; true",
        7 => "for d in /etc/moved*; do [ -d $d ] && mv $d /etc/ssl && break; done; true",
        8 => "mkdir -p /srv/n && mv a/deep /srv/n/N && echo N > /srv/n/N/in/g; true",
        9 => "mv /srv/n/[0-9]* /root/back 2>/dev/null; rm -rf /srv/n; mv back a/back 2>/dev/null; true",
        10 => "rm -f /etc/alternatives/$(ls /etc/alternatives | head -1); touch /etc/alternatives/N",
        11 => "rm -rf a/b z; mkdir -p z/b && mv a/back z/b/b 2>/dev/null; rm -f a/hard",
        12 => "echo N >> hard; mv hard z/hard; cp -a z/hard hard; truncate -s 1M sparse",
        _ => "mv z q && mkdir z && mv q z/q && mv z/q/b w && rm -rf a/deep && mv w a/deep; rm -rf z/q/n",
    };
    format!("cd /root; {}", change.replace('N', &number.to_string()))
}

/// The deepest stack that any saved files are part of.
fn deepest(daemon: &Daemon) -> usize {
    let place = daemon.state_dir().join("saved");
    let depth = |name: &String| {
        let mut next = Some(std::path::PathBuf::from(name));
        std::iter::from_fn(|| {
            let here = next.take()?;
            next = std::fs::read_link(place.join(&here).join("below")).ok();
            Some(here)
        })
        .count()
    };
    saved(daemon).iter().map(depth).max().unwrap_or(0)
}

#[test]
fn any_number_of_snapshots_of_a_sandbox_lie_on_each_other() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", LINKED);
    let mut kept = Vec::new();
    for number in 0..LONG {
        daemon.shell("box", &step(number));
        let seen = daemon.shell("box", SEEN);
        stop(&daemon, "box");
        let made = post(&daemon, "/v1/sandboxes/box/snapshots", json!({}));
        assert_eq!(made["method"], "stacked", "{number}");
        // Around the place where they are made one.
        if number % 9 == 0 || number % 64 > 60 || number % 64 < 4 {
            assert_seen(&daemon, "box", &seen, &format!("after {number}: {}", step(number)));
        }
        kept.push((id(&made), seen));
        if number == 100 {
            daemon.kill_all();
            daemon.spawn();
        }
    }
    assert!(deepest(&daemon) <= 64);
    for (number, (snapshot, seen)) in kept.iter().enumerate().filter(|(number, _)| number % 7 == 6) {
        let made = id(&daemon.create(json!({"snapshot": snapshot})));
        assert_seen(&daemon, &made, seen, &format!("of {number}"));
        assert_eq!(daemon.shell(&made, ARE_LINKED), "2\nboth\n");
        daemon.destroy(&made);
    }
    // The first ones may go, and what is above them stays.
    for (snapshot, _) in kept.drain(..LONG - 1) {
        assert_eq!(daemon.request("DELETE", &format!("/v1/snapshots/{snapshot}"), None).status, 204);
    }
    daemon.shell("box", "rm -rf /root/*");
    restore(&daemon, "box", &kept[0].0);
    assert_seen(&daemon, "box", &kept[0].1, "of the last");
    assert_nothing_is_left(&daemon);
}

#[test]
fn any_number_of_forks_and_rollbacks_follow_each_other() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box0"}));
    daemon.shell("box0", LINKED);
    let mut seen = String::new();
    for number in 0..LONG {
        let (parent, child) = (format!("box{number}"), format!("box{}", number + 1));
        daemon.shell(&parent, &step(number));
        seen = daemon.shell(&parent, SEEN);
        if number % 2 == 0 {
            snapshot(&daemon, &parent);
            daemon.shell(&parent, "rm -rf /root/*");
            post(&daemon, &format!("/v1/sandboxes/{parent}/rollback"), json!({}));
        }
        fork(&daemon, &parent, &[&child]);
        if number % 64 > 60 || number % 64 < 4 {
            assert_seen(&daemon, &child, &seen, &format!("child of {number}"));
            assert_seen(&daemon, &parent, &seen, &format!("{number}"));
        }
        daemon.destroy(&parent);
    }
    assert_seen(&daemon, &format!("box{LONG}"), &seen, "the last");
    assert_eq!(daemon.shell(&format!("box{LONG}"), ARE_LINKED), "2\nboth\n");
    assert!(deepest(&daemon) <= 64);
    assert_nothing_is_left(&daemon);
}

#[test]
fn a_kill_while_a_long_chain_is_made_one_loses_nothing() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "cd /root && for n in $(seq 500); do echo $n > f$n; done");
    for number in 0..64 {
        daemon.shell("box", &step(number));
        stop(&daemon, "box");
        snapshot(&daemon, "box");
    }
    // Two of them lie on the same, and want it to be one at once.
    fork(&daemon, "box", &["other"]);
    daemon.shell("box", &step(64));
    let seen = daemon.shell("box", SEEN);
    for round in 0..6_u64 {
        let asked: Vec<_> = ["box", "other"]
            .into_iter()
            .map(|name| {
                let mut connection = daemon.connect();
                std::thread::spawn(move || {
                    let path = format!("/v1/sandboxes/{name}/snapshots");
                    let json = [("content-type", "application/json")];
                    connection.request("POST", &path, &json, b"{}").map(|answer| answer.status).ok()
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(round * 25));
        if round % 2 == 0 {
            daemon.kill_all();
            daemon.spawn();
        } else if round < 5 {
            kill(Pid::from_raw(daemon.serve_pid()), Signal::SIGKILL).unwrap();
            daemon.wait_until_healthy();
        }
        let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
        if round == 5 {
            assert_eq!(answers, [Some(201), Some(201)], "nobody was killed");
        }
        assert_seen(&daemon, "box", &seen, &format!("round {round}"));
    }
    stop(&daemon, "box");
    let last = snapshot(&daemon, "box");
    let made = id(&daemon.create(json!({"snapshot": last})));
    assert_seen(&daemon, &made, &seen, "the last");
    assert!(deepest(&daemon) <= 64);
    assert_nothing_is_left(&daemon);
    let trash = daemon.state_dir().join("saved/.trash");
    host::wait_until_none("what is being removed", || {
        let entries = std::fs::read_dir(&trash).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    });
}

#[test]
fn the_copy_that_a_snapshot_needs_is_counted_with_it_and_once() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "head -c 3000000 /dev/urandom > /root/large");
    let size = || {
        let made = post(&daemon, "/v1/sandboxes/box/snapshots", json!({}));
        made["size_bytes"].as_u64().unwrap()
    };
    for number in 0..64 {
        stop(&daemon, "box");
        let bytes = size();
        assert!(number == 0 || bytes < 1_000_000, "{number}: {bytes}");
        daemon.shell("box", &format!("echo {number} > /root/n"));
    }
    stop(&daemon, "box");
    assert!(size() > 3_000_000);
    daemon.shell("box", "echo more > /root/n");
    stop(&daemon, "box");
    assert!(size() < 1_000_000);
    assert_nothing_is_left(&daemon);
}
