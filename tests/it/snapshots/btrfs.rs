//! The same on btrfs, where copies share their content.

use serde_json::json;

use super::disk::Disk;
use super::{assert_nothing_is_left, fork, post, stop};
use crate::harness::{Daemon, skip};

/// A daemon whose state is on btrfs.
fn daemon() -> Option<(Daemon, Disk)> {
    let mut daemon = Daemon::start();
    assert!(daemon.stop().success());
    let disk = Disk::mount(&["mkfs.btrfs", "-q"], 768 << 20, &daemon.state_dir())?;
    daemon.spawn();
    Some((daemon, disk))
}

#[test]
fn copies_share_their_content_and_are_apart() {
    let Some((mut daemon, disk)) = daemon() else {
        skip!("loop", "a file system of its own cannot be made and mounted here");
    };
    daemon.create(json!({"id": "box"}));
    // Content that is written but not on the disk yet, names that are several, and a directory whose place has changed.
    daemon.shell(
        "box",
        "cd /root && mkdir -p a/b && echo one > a/b/f && ln a/b/f hard && ln -s f a/b/soft && mv a moved && \
         head -c 3000000 /dev/urandom > big && (while :; do echo x >> grows; done) & sleep 0.3; sha256sum /root/big > /tmp/sum",
    );
    let look = "cd /root; cat moved/b/f; stat -c %h hard; readlink moved/b/soft; sha256sum big";
    let seen = daemon.shell("box", look);
    let kept = post(&daemon, "/v1/sandboxes/box/snapshots", json!({}));
    assert_eq!(kept["method"], "reflink", "{kept}");
    assert!(kept["size_bytes"].as_u64().unwrap() > 3_000_000 && kept["entries"].as_u64().unwrap() > 5);
    fork(&daemon, "box", &["child", "other"]);
    for child in ["child", "other"] {
        assert_eq!(daemon.shell(child, look), seen);
        daemon.shell(child, &format!("echo {child} > /root/moved/b/f; rm /root/big"));
    }
    assert_eq!(daemon.shell("box", look), seen, "what children do is theirs");
    fork(&daemon, "child", &["grandchild"]);
    // Files of one layer are not taken for those of another, which numbers of inodes that come twice would do.
    assert_eq!(
        daemon.shell(
            "grandchild",
            "find /root \\( -type d -o -links 1 \\) -printf '%i\\n' 2>&1 | sort | uniq -d"
        ),
        ""
    );
    assert_eq!(daemon.shell("grandchild", "cat /root/moved/b/f; ls /root/big 2>/dev/null; true"), "child\n");
    daemon.shell("box", "rm -rf /root/moved /root/hard");
    post(&daemon, "/v1/sandboxes/box/rollback", json!({}));
    assert_eq!(daemon.shell("box", look), seen);
    stop(&daemon, "other");
    fork(&daemon, "other", &["stacked"]);
    assert_eq!(daemon.shell("stacked", "cat /root/moved/b/f"), "other\n");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(daemon.shell("stacked", "cat /root/moved/b/f"), "other\n");
    assert_nothing_is_left(&daemon);
    assert!(daemon.stop().success());
    drop(disk);
}

#[test]
fn any_sequence_of_steps_leaves_the_trees_of_the_model() {
    match daemon() {
        None => skip!("loop", "a file system of its own cannot be made and mounted here"),
        Some((daemon, disk)) => drop((disk, daemon)),
    }
    super::model::run(3, || {
        let (daemon, disk) = daemon().expect("as a moment ago");
        (daemon, Some(disk))
    });
}
