//! A disk that is full at any step: what was acknowledged stays, and what was not leaves nothing.

use serde_json::json;

use super::disk::{Disk, succeeds};
use super::{assert_nothing_is_left, post, saved};
use crate::harness::{Daemon, assert_error, id, skip};

#[test]
fn no_acknowledged_snapshot_is_lost_when_the_disk_is_full() {
    let mut daemon = Daemon::start();
    assert!(daemon.stop().success());
    let Some(disk) = Disk::mount(&["mkfs.ext4", "-q"], 96 << 20, &daemon.state_dir()) else {
        skip!("loop", "a file system of its own cannot be made and mounted here");
    };
    // The log has room of its own: what may not be recorded is refused before it comes to snapshots.
    let (log, journal) = (disk.path().join("log"), daemon.state_dir().join("journal"));
    std::fs::create_dir(&log).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let journal = journal.to_str().unwrap();
    assert!(succeeds("mount", &["--bind", log.to_str().unwrap(), journal]));
    daemon.spawn();
    daemon.create(json!({"id": "box"}));
    daemon.create(json!({"id": "other"}));
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for round in 0..60 {
        let line = format!(
            "head -c 3000000 /dev/urandom > /root/f && echo {round} > /root/round && cat /root/f /root/round | sha256sum"
        );
        let wrote = daemon.run("box", json!({"shell": line}));
        let sum = wrote["stdout"].as_str().unwrap().to_owned();
        for body in [json!({}), json!({"path": "/root"})] {
            let answer = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&body));
            if answer.status == 201 {
                acknowledged.push((
                    id(&answer.json()),
                    body != json!({}),
                    sum.clone(),
                    wrote["exit_code"] == 0,
                ));
            } else {
                assert_error(&answer, 503, "CAPACITY_EXHAUSTED");
                refused += 1;
            }
        }
        if refused > 6 {
            break;
        }
    }
    assert!(refused > 6 && acknowledged.len() > 6, "{refused} {acknowledged:?}");
    daemon.kill_all();
    daemon.spawn();
    // Room for those that look.
    for (kept, ..) in acknowledged.drain(..4) {
        assert_eq!(daemon.request("DELETE", &format!("/v1/snapshots/{kept}"), None).status, 204);
    }
    daemon.shell("box", "rm -f /root/f");
    crate::harness::host::wait_for("the files of those to go", || {
        saved(&daemon).len() == acknowledged.iter().filter(|(_, directory, ..)| !directory).count()
    });
    for (kept, _, sum, whole) in &acknowledged {
        daemon.shell("other", "rm -rf /root/f");
        post(&daemon, "/v1/sandboxes/other/restore", json!({"snapshot": kept}));
        if *whole {
            assert_eq!(&daemon.shell("other", "cat /root/f /root/round | sha256sum"), sum);
        }
    }
    assert_nothing_is_left(&daemon);
    assert!(daemon.stop().success());
    assert!(succeeds("umount", &["--lazy", journal]));
}

#[test]
fn a_daemon_starts_on_a_full_disk_and_can_make_room() {
    let mut daemon = Daemon::start();
    assert!(daemon.stop().success());
    let Some(_disk) = Disk::mount(&["mkfs.ext4", "-q"], 64 << 20, &daemon.state_dir()) else {
        skip!("loop", "a file system of its own cannot be made and mounted here");
    };
    daemon.spawn();
    daemon.create(json!({"id": "box"}));
    daemon.create(json!({"id": "other"}));
    let kept = id(&post(&daemon, "/v1/sandboxes/other/snapshots", json!({})));
    daemon.run("box", json!({"shell": "cat /dev/zero > /root/a; cat /dev/zero > /root/b"}));
    // The audit log, too, has no room: its last line is cut where the room ended.
    for _ in 0..200 {
        daemon.request("POST", "/v1/sandboxes/other/commands", Some(&json!({"argv": ["true"]})));
    }
    for _ in 0..2 {
        daemon.kill_all();
        daemon.spawn();
        assert_eq!(daemon.ids(), ["box", "other"]);
        assert_eq!(id(&daemon.get("/v1/snapshots")["snapshots"][0]), kept);
    }
    daemon.destroy("box");
    crate::harness::host::wait_for("the room to be there", || {
        daemon.request("POST", "/v1/sandboxes/other/commands", Some(&json!({"argv": ["true"]}))).status == 200
    });
    assert_nothing_is_left(&daemon);
    assert!(daemon.stop().success());
}
