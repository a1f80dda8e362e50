//! Snapshots of one directory.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{assert_nothing_is_left, post, stop};
use crate::harness::{Daemon, assert_error, host, scratch};

const TREE: &str = "cd /root/p && find . -printf '%p %y %m %U %G %n %s %l\\n' | sort && find . -type f | sort | xargs -d '\\n' cat";

#[test]
fn a_directory_is_kept_and_put_into_any_sandbox() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell(
        "box",
        "mkdir -p /root/p/src/deep /root/p/node_modules/m /root/p/out && cd /root/p && echo a > src/a && ln src/a src/hard && \
         ln -s a src/soft && ln -s /etc/passwd src/out && mkfifo pipe && chown -R 1000:7 src && chmod 640 src/a && chmod 2750 src && \
         echo m > node_modules/m/m && echo o > out/o && echo k > out/kept && echo l > x.log && echo n > 'a b' && echo d > src/deep/x.log && \
         printf '*.log\\nout/*\\n!out/kept\\n' > .gitignore && printf '!x.log\\n' > src/deep/.gitignore && chmod 1711 . && chown 12:34 . && echo .git > /root/beside",
    );
    let all = daemon.shell("box", TREE);
    let whole = post(&daemon, "/v1/sandboxes/box/snapshots", json!({"path": "/root/p", "name": "whole"}));
    assert_eq!((&whole["path"], &whole["method"]), (&json!("/root/p"), &json!("archived")));
    assert!(whole["entries"].is_null(), "nobody looks into it: {whole}");
    for file in ["/root/p/src/a", "/root/p/src/out", "/root/p/pipe"] {
        let answer = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&json!({"path": file})));
        assert_error(&answer, 409, "NOT_DIRECTORY");
    }
    let wanted = json!({"path": "p", "exclude": ["node_modules"], "gitignore": true});
    let relative = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&wanted));
    assert_error(&relative, 404, "FILE_NOT_FOUND");
    let wanted = json!({"path": "/root/p", "exclude": ["node_modules", "src/h*"], "gitignore": true});
    let part = post(&daemon, "/v1/sandboxes/box/snapshots", wanted);
    assert_eq!(daemon.shell("box", TREE), all);
    daemon.shell("box", "rm -rf /root/p/src; echo more > /root/p/more; chmod 755 /root/p; chown 0:0 /root/p");
    let restored = post(&daemon, "/v1/sandboxes/box/restore", json!({"snapshot": whole["id"]}));
    assert_eq!(restored["state"], "running", "nothing ends");
    assert_eq!(daemon.shell("box", TREE), all);
    assert_eq!(daemon.shell("box", "cat /root/beside; ls -A /root").lines().count(), 3);
    // Also where there is nothing yet, in a sandbox that has to be woken.
    daemon.create(json!({"id": "other"}));
    stop(&daemon, "other");
    post(&daemon, "/v1/sandboxes/other/restore", json!({"snapshot": part["id"], "path": "/root/new/p"}));
    let found = daemon.shell("other", "cd /root/new/p && find . -type f -o -type l -o -type p | sort");
    assert_eq!(
        found,
        "./.gitignore\n./a b\n./out/kept\n./pipe\n./src/a\n./src/deep/.gitignore\n./src/deep/x.log\n./src/out\n./src/soft\n"
    );
    assert_eq!(daemon.shell("other", "stat -c '%a %u %g' /root/new/p"), "1711 12 34\n");
    // It is no file system: nothing is made of it, and nobody goes back to it.
    let made = daemon.request("POST", "/v1/sandboxes", Some(&json!({"snapshot": part["id"]})));
    assert_error(&made, 409, "SNAPSHOT_MISMATCH");
    assert_error(
        &daemon.request("POST", "/v1/sandboxes/box/rollback", Some(&json!({}))),
        404,
        "SNAPSHOT_NOT_FOUND",
    );
    let root = json!({"snapshot": part["id"], "path": "/"});
    assert_error(&daemon.request("POST", "/v1/sandboxes/box/restore", Some(&root)), 422, "PATH_INVALID");
    only_in_the_place_of_a_directory(&daemon, &part);
    for wrong in [
        json!({"exclude": ["a"]}),
        json!({"gitignore": true}),
        json!({"path": ""}),
        json!({"path": "/root", "exclude": ["[z-"]}),
    ] {
        let answer = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&wrong));
        assert_eq!(answer.status, 400, "{wrong}: {}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!(daemon.ids(), ["box", "other"]);
    assert_nothing_is_left(&daemon);
}

/// What is no directory is not one's place, and a link to one is not the directory.
#[track_caller]
fn only_in_the_place_of_a_directory(daemon: &Daemon, part: &Value) {
    daemon.shell("other", "echo mine > /root/file; mkfifo /root/pipe; ln -s new/p /root/link");
    for path in ["/root/file", "/root/pipe", "/root/link"] {
        let place = json!({"snapshot": part["id"], "path": path});
        let restored = daemon.request("POST", "/v1/sandboxes/other/restore", Some(&place));
        assert_error(&restored, 409, "NOT_DIRECTORY");
        let kept = daemon.request("POST", "/v1/sandboxes/other/snapshots", Some(&json!({"path": path})));
        assert_error(&kept, 409, "NOT_DIRECTORY");
    }
    assert_eq!(
        daemon.shell("other", "cat /root/file; readlink /root/link; test -p /root/pipe"),
        "mine\nnew/p\n"
    );
}

#[test]
fn what_is_kept_is_of_one_moment_and_nobody_waits_for_it() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell(
        "box",
        "mkdir /root/p && cd /root/p && for n in $(seq 200); do head -c 100000 /dev/urandom > m$n; done",
    );
    let line = "cd /root/p; n=0; while :; do n=$((n+1)); echo $n > 0first; echo $n > zlast; done";
    let spec = json!({"id": "writer", "argv": ["sh", "-c", line]});
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec)).status, 201);
    host::wait_for("the writer", || !daemon.shell("box", "cat /root/p/zlast 2>/dev/null || true").is_empty());
    daemon.create(json!({"id": "other"}));
    for _ in 0..3 {
        let kept = post(&daemon, "/v1/sandboxes/box/snapshots", json!({"path": "/root/p"}));
        post(&daemon, "/v1/sandboxes/other/restore", json!({"snapshot": kept["id"]}));
        let text = daemon.shell("other", "cd /root/p && cat 0first zlast");
        let both: Vec<i64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert!(both.len() < 2 || (0..=1).contains(&(both[0] - both[1])), "torn: {both:?}");
    }
    assert_nothing_is_left(&daemon);
}

#[test]
fn a_crash_leaves_neither_archives_nor_what_they_are_made_of() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell(
        "box",
        "mkdir /root/p && cd /root/p && for n in $(seq 60); do head -c 1000000 /dev/urandom > f$n; done",
    );
    for round in 0..6 {
        let mut connection = daemon.connect();
        let asked = std::thread::spawn(move || {
            let headers = [("content-type", "application/json")];
            let answer = connection.request(
                "POST",
                "/v1/sandboxes/box/snapshots",
                &headers,
                br#"{"path": "/root/p"}"#,
            );
            answer.is_ok_and(|answer| answer.status == 201)
        });
        std::thread::sleep(std::time::Duration::from_millis(30 + 60 * round));
        if round % 2 == 0 {
            kill(Pid::from_raw(daemon.serve_pid()), Signal::SIGKILL).unwrap();
            daemon.wait_until_healthy();
        } else {
            daemon.kill_all();
            daemon.spawn();
        }
        let acknowledged = asked.join().unwrap();
        assert_eq!(daemon.ids(), ["box"]);
        let listed = daemon.get("/v1/snapshots")["snapshots"].as_array().unwrap().len();
        assert!(listed >= usize::from(acknowledged));
    }
    assert_nothing_is_left(&daemon);
    host::wait_until_none("sandboxes' files", || {
        let entries = std::fs::read_dir(daemon.state_dir().join("sandboxes")).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != ".trash")
            .collect()
    });
}

#[test]
fn an_image_is_made_of_a_sandbox() {
    let daemon = Daemon::start();
    let Some(image) = crate::harness::image::Image::busybox() else {
        crate::harness::skip!("busybox", "there is no static busybox on this host");
    };
    daemon.import("box:1", &image.layout_tar("box:1"));
    daemon.create(json!({"id": "box", "image": "box:1", "env": {"A": "1"}, "cwd": "/w"}));
    daemon.shell("box", "echo mine > /w/f && ln /w/f /w/hard && chown 5:6 /w/f && chmod 4711 /w/f && mkdir /d && mv /d /e && touch /w/.wh.f");
    // What would be a whiteout in a layer would not be there.
    let commit = || daemon.request("POST", "/v1/sandboxes/box/commit", Some(&json!({"reference": "made:1"})));
    assert_error(&commit(), 422, "SNAPSHOT_UNSUPPORTED");
    daemon.shell("box", "rm /w/.wh.f");
    let made = commit();
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    let made = made.json();
    assert_eq!(
        (&made["layers"].as_array().unwrap().len(), &made["config"]["working_dir"]),
        (&1, &json!("/w"))
    );
    daemon.destroy("box");
    daemon.request("DELETE", "/v1/images/box:1", None);
    daemon.create(json!({"id": "again", "image": "made:1"}));
    let found = daemon
        .shell("again", "echo $A $PWD; cat hard; stat -c '%a %u %g %h' f; ls -d /e; ls /d 2>/dev/null; true");
    assert_eq!(found, "1 /w\nmine\n4711 5 6 2\n/e\n");
    daemon.create(json!({"id": "host"}));
    let host = daemon.request("POST", "/v1/sandboxes/host/commit", Some(&json!({"reference": "host:1"})));
    assert_error(&host, 422, "SNAPSHOT_UNSUPPORTED");
    let bad = daemon.request("POST", "/v1/sandboxes/again/commit", Some(&json!({"reference": "UPPER"})));
    assert_error(&bad, 400, "INVALID_REFERENCE");
    let output = daemon.cli(&["commit", "again", "made:2"]);
    assert!(
        output.status.success() && output.stdout.starts_with(b"docker.io/library/made:2 sha256:"),
        "{output:?}"
    );
    assert_nothing_is_left(&daemon);
    for name in ["made:1", "made:2"] {
        assert_eq!(daemon.request("DELETE", &format!("/v1/images/{name}"), None).status, 204);
    }
    assert_eq!(daemon.layers(), 0);
}

#[test]
fn what_is_mounted_in_the_place_of_a_directory_keeps_what_it_has() {
    let directory = scratch();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("kept"), "kept\n").unwrap();
    std::os::unix::fs::chown(&data, Some(12_345), Some(12_345)).unwrap();
    std::os::unix::fs::chown(data.join("kept"), Some(12_345), Some(12_345)).unwrap();
    let daemon =
        Daemon::configured(&format!("[mounts]\ndirectories = [{data:?}]\n[preview]\nlisten = \"off\"\n"));
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "mkdir -p /root/p && echo old > /root/p/f");
    let part = post(&daemon, "/v1/sandboxes/box/snapshots", json!({"path": "/root/p"}));
    daemon.shell("box", "echo new > /root/p/f");
    let mount = json!({"path": "/root/p/data", "endpoint": format!("file://{}", data.display())});
    post(&daemon, "/v1/sandboxes/box/mounts", mount);
    let refuse = |path: &str| {
        let wanted = json!({"snapshot": part["id"], "path": path});
        let answer = daemon.request("POST", "/v1/sandboxes/box/restore", Some(&wanted));
        assert_error(&answer, 409, "MOUNT_IN_USE");
        assert_eq!(answer.json()["context"]["field"], "path");
    };
    for path in ["/root/p", "/root/p/", "/root/p/data", "/root", "/proc", "/dev"] {
        refuse(path);
    }
    assert_eq!(
        daemon.shell("box", "cat /root/p/f /root/p/data/kept; ls -A / | grep '^[.]'; true"),
        "new\nkept\n"
    );
    // Neither does whoever removes what it is mounted in take anything of it.
    for path in ["/root/p", "/root/p/data"] {
        let wanted = json!({"path": path, "recursive": true, "user": "0"});
        let answer = daemon.request("POST", "/v1/sandboxes/box/files/remove", Some(&wanted));
        assert_error(&answer, 409, "FILE_BUSY");
    }
    assert_eq!(std::fs::read_to_string(data.join("kept")).unwrap(), "kept\n");
    assert_nothing_is_left(&daemon);
}

#[test]
fn what_cannot_be_kept_is_refused_in_words_that_help() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    for path in ["/", "/.", "//", "/root/.."] {
        let answer = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&json!({"path": path})));
        assert_error(&answer, 422, "PATH_INVALID");
        assert!(answer.text().contains("leave `path` out"), "{}", answer.text());
    }
    let answer = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&json!({"path": "/proc"})));
    assert!(answer.status >= 400 && !answer.text().contains("`user`"), "{}", answer.text());
    assert_nothing_is_left(&daemon);
}

#[test]
fn times_and_holes_are_kept() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell(
        "box",
        "mkdir -p /root/p/d && cd /root/p && ln -s nowhere soft && mkfifo pipe && echo old > old && truncate -s 256M hole && \
         printf end >> hole && touch -h -d '1999-01-02 03:04:05Z' soft && touch -d '1998-01-02 03:04:05Z' pipe && \
         touch -d '1955-11-05 06:15:00Z' old d && touch -h -d '1901-12-14 00:00:00Z' hole",
    );
    let look = "cd /root/p && stat -c '%n %Y %s' soft pipe old d hole && tail -c 3 hole && sha256sum hole";
    let seen = daemon.shell("box", look);
    let kept = post(&daemon, "/v1/sandboxes/box/snapshots", json!({"path": "/root/p"}));
    daemon.shell("box", "rm -rf /root/p");
    post(&daemon, "/v1/sandboxes/box/restore", json!({"snapshot": kept["id"]}));
    assert_eq!(daemon.shell("box", look), seen);
    let blocks: u64 = daemon.shell("box", "stat -c %b /root/p/hole").trim().parse().unwrap();
    assert!(blocks < 1024, "{blocks} blocks of a hole");
}

#[test]
fn what_is_left_out_may_be_written_as_in_a_gitignore() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell(
        "box",
        "mkdir -p /root/p/a/in /root/p/b/a /root/p/b/c && cd /root/p && touch a/in/f b/a/f b/c/f c b/c/a",
    );
    let left = |exclude: &str| {
        let wanted = json!({"path": "/root/p", "exclude": [exclude]});
        let kept = post(&daemon, "/v1/sandboxes/box/snapshots", wanted);
        post(&daemon, "/v1/sandboxes/box/restore", json!({"snapshot": kept["id"], "path": "/root/q"}));
        daemon.shell("box", "cd /root/q && find . -type f | sort | tr '\\n' ' '; rm -rf /root/q")
    };
    assert_eq!(left("/a"), "./b/a/f ./b/c/a ./b/c/f ./c ");
    assert_eq!(left("./a"), left("/a"));
    assert_eq!(left("/a/"), left("/a"));
    assert_eq!(left("a/"), "./b/c/a ./b/c/f ./c ");
    assert_eq!(left("c/"), "./a/in/f ./b/a/f ./c ");
    assert_eq!(left("/c"), "./a/in/f ./b/a/f ./b/c/a ./b/c/f ");
    assert_eq!(left("b/c/"), "./a/in/f ./b/a/f ./c ");
    for none in ["/", "./", "."] {
        let wanted = json!({"path": "/root/p", "exclude": [none]});
        let answer = daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&wanted));
        assert_error(&answer, 400, "INVALID_REQUEST");
    }
}
