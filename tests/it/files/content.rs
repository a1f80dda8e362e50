//! Reading and writing.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Files, noise};
use crate::harness::{Daemon, assert_error, host, skip};

#[test]
fn what_is_written_is_read_whole_and_in_parts() {
    let files = Files::start();
    for length in [0, 1, 4096, 65_536, 65_537, 300_000, 5_000_000] {
        let bytes = noise(length);
        let written = files.write("/workspace/a", &bytes);
        assert_eq!(written["size"], length, "{written}");
        assert!(files.content("/workspace/a") == bytes, "{length}");
        assert!(
            files.daemon.run(&files.id, json!({"argv": ["wc", "-c", "a"]}))["stdout"]
                .as_str()
                .unwrap()
                .starts_with(&length.to_string())
        );
    }
    let bytes = noise(5_000_000);
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=70000-4999998", 70_000..4_999_999),
        ("bytes=4999999-", 4_999_999..5_000_000),
        ("bytes=-17", 4_999_983..5_000_000),
        ("bytes=100-99999999999", 100..5_000_000),
    ] {
        let answer = files.read("/workspace/a", &[("Range", range)]);
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == bytes[part.clone()], "{range}");
        let expected = format!("bytes {}-{}/5000000", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    let answer = files.read("/workspace/a", &[("Range", "bytes=5000000-")]);
    assert_error(&answer, 416, "RANGE_NOT_SATISFIABLE");
    assert_eq!(answer.header("content-range"), Some("bytes */5000000"));
    // A relative path begins at the working directory.
    assert!(files.content("a") == bytes);
}

#[test]
fn a_version_is_known_by_its_tag() {
    let files = Files::start();
    let first = files.write("/workspace/a", b"one")["etag"].as_str().unwrap().to_owned();
    let answer = files.read("/workspace/a", &[]);
    assert_eq!(answer.header("etag"), Some(first.as_str()));
    assert_eq!(files.stat("/workspace/a")["etag"], first.as_str());
    let same = files.read("/workspace/a", &[("If-None-Match", &first)]);
    assert_eq!((same.status, same.body.len()), (304, 0));
    // The next version, of the same length, written by the sandbox itself.
    files.shell("printf two > /workspace/a");
    let answer = files.read("/workspace/a", &[("If-None-Match", &first)]);
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"two".as_slice()));
    assert_error(&files.read("/workspace/a", &[("If-Match", &first)]), 412, "PRECONDITION_FAILED");
    let stale = files.try_write("/workspace/a", "", &[("If-Match", &first)], b"lost");
    assert_error(&stale, 412, "PRECONDITION_FAILED");
    assert_eq!(files.content("/workspace/a"), b"two");
    let second = answer.header("etag").unwrap().to_owned();
    assert_eq!(files.try_write("/workspace/a", "", &[("If-Match", &second)], b"three").status, 200);
    assert_eq!(files.content("/workspace/a"), b"three");
    let taken = files.try_write("/workspace/a", "", &[("If-None-Match", "*")], b"x");
    assert_error(&taken, 412, "PRECONDITION_FAILED");
    assert_eq!(files.try_write("/workspace/b", "", &[("If-None-Match", "*")], b"x").status, 200);
    let absent = files.try_write("/workspace/c", "", &[("If-Match", "*")], b"x");
    assert_error(&absent, 412, "PRECONDITION_FAILED");
    let half = files.read("/workspace/a", &[("Range", "bytes=0-1"), ("If-Range", &second)]);
    assert_eq!(
        (half.status, half.body.as_slice()),
        (200, b"three".as_slice()),
        "a range of an older version"
    );
}

#[test]
fn of_many_writers_with_the_same_tag_one_wins() {
    let files = Files::start();
    let tag = files.write("/workspace/a", b"0")["etag"].as_str().unwrap().to_owned();
    let won: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number: u32| {
                let (files, tag) = (&files, &tag);
                scope.spawn(move || {
                    let body = number.to_string();
                    files.try_write("/workspace/a", "", &[("If-Match", tag)], body.as_bytes()).status
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(won.iter().filter(|&&status| status == 200).count(), 1, "{won:?}");
    assert_eq!(won.iter().filter(|&&status| status == 412).count(), 7, "{won:?}");
}

#[test]
fn mode_and_owner_are_set_or_kept() {
    let files = Files::start();
    assert_eq!(files.write("/workspace/a", b"x")["mode"], "0644");
    let answer = files.try_write("/workspace/a", "&mode=0751&owner=65534:65534", &[], b"y");
    assert_eq!(answer.status, 200);
    let kept = files.write("/workspace/a", b"z");
    assert_eq!((&kept["mode"], &kept["uid"], &kept["gid"]), (&json!("0751"), &json!(65534), &json!(65534)));
    assert_eq!(files.shell("stat -c '%a %u %g' /workspace/a"), "751 65534 65534\n");
    assert_error(&files.try_write("/workspace/a", "&mode=4755", &[], b""), 400, "INVALID_REQUEST");
    assert_error(
        &files.try_write("/workspace/a", "&owner=nobody-of-this-name", &[], b""),
        422,
        "USER_NOT_FOUND",
    );
    // As another user, with that one's rights and no more.
    assert_error(&files.try_write("/b", "&user=65534", &[], b""), 403, "FILE_DENIED");
    let answer = files.try_write("/tmp/b", "&user=65534", &[], b"x");
    assert_eq!((answer.status, &answer.json()["uid"]), (200, &json!(65534)));
    files.shell("printf secret > /workspace/s && chmod 600 /workspace/s");
    let denied = files.daemon.send("GET", &files.route("content", "/workspace/s", "&user=65534"), &[], b"");
    assert_error(&denied, 403, "FILE_DENIED");
    assert_eq!(files.content("/workspace/s"), b"secret");
    files.shell("chmod 444 /tmp/b && chown 65534 /tmp");
    assert_error(&files.try_write("/tmp/b", "&user=65534", &[], b""), 403, "FILE_DENIED");
}

#[test]
fn directories_are_made_when_asked_and_links_are_followed() {
    let files = Files::start();
    assert_error(&files.try_write("/workspace/x/y/z", "", &[], b"1"), 404, "FILE_NOT_FOUND");
    assert_eq!(files.try_write("/workspace/x/y/z", "&parents", &[], b"1").status, 200);
    files.shell("cd /workspace && ln -s x/y/z link && ln -s /workspace/new dangling && ln -s x/y dir");
    files.write("/workspace/link", b"2");
    assert_eq!(files.content("/workspace/x/y/z"), b"2");
    files.write("/workspace/dangling", b"3");
    assert_eq!(files.content("/workspace/new"), b"3");
    files.write("/workspace/dir/w", b"4");
    assert_eq!(
        files.shell("cd /workspace; readlink link; readlink dangling; cat x/y/w"),
        "x/y/z\n/workspace/new\n4"
    );
    assert_error(&files.try_write("/workspace/x", "", &[], b""), 409, "IS_DIRECTORY");
    assert_error(&files.try_write("/workspace/new/x", "", &[], b""), 409, "NOT_DIRECTORY");
    assert_error(&files.read("/workspace/x", &[]), 409, "IS_DIRECTORY");
}

#[test]
fn a_head_says_what_a_get_would_and_types_are_named() {
    let files = Files::start();
    files.write("/workspace/a.html", b"<p>");
    let mut connection = files.daemon.connect();
    connection.send("HEAD", &files.route("content", "/workspace/a.html", ""), &[], b"").unwrap();
    let head = connection.receive_head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    assert_eq!(head.header("content-type"), Some("text/html"));
    assert_eq!(head.header("x-content-type-options"), Some("nosniff"));
    // The connection is in step: there was no body.
    assert_eq!(connection.request("GET", "/v1/healthz", &[], b"").unwrap().status, 200);
    files.write("/workspace/text", "grün\n".as_bytes());
    files.write("/workspace/bytes", b"\x7fELF\0\0");
    for (path, mime) in [
        ("a.html", "text/html"),
        ("text", "text/plain"),
        ("bytes", "application/octet-stream"),
        ("", "inode/directory"),
    ] {
        assert_eq!(files.stat(format!("/workspace/{path}"))["mime"], mime, "{path}");
    }
}

#[test]
fn a_client_that_vanishes_leaves_the_old_file_and_no_litter() {
    let files = Files::start();
    files.write("/workspace/a", b"old");
    for chunked in [false, true] {
        let mut connection = files.daemon.connect();
        let route = files.route("content", "/workspace/a", "");
        let (framing, part) = if chunked {
            ("Transfer-Encoding: chunked", [b"100000\r\n".as_slice(), &noise(0x10_0000), b"\r\n"].concat())
        } else {
            ("Content-Length: 4000000", noise(1_000_000))
        };
        let head = format!("PUT {route} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
        connection.send_raw(head.as_bytes()).unwrap();
        connection.send_raw(&part).unwrap();
        // Half-closed first: the body is cut short, and the answer says so or the connection ends.
        connection.finish_sending().unwrap();
        drop(connection);
    }
    host::wait_for("the uploads to be over", || {
        files.daemon.run(&files.id, json!({"shell": "ls -A /workspace"}))["stdout"] == "a\n"
    });
    assert_eq!(files.content("/workspace/a"), b"old");
    // Readers see the old or the new file, never a part.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40_u8 {
                files.write("/workspace/a", &vec![round; 200_000]);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let bytes = files.content("/workspace/a");
            assert!(bytes == b"old" || bytes.len() == 200_000, "{}", bytes.len());
            assert!(bytes == b"old" || bytes.iter().all(|&byte| byte == bytes[0]));
        }
    });
}

#[test]
fn a_full_disk_is_an_answer_and_the_old_file_stays() {
    let daemon = Daemon::start();
    if daemon.get("/v1/info")["host"]["limits"]["disk_bytes"].is_null() {
        skip!("limit", "this host cannot enforce disk_bytes");
    }
    let files = Files::of(daemon, &json!({"resources": {"disk_bytes": 32 << 20}}));
    files.write("/workspace/a", b"old");
    let answer = files.try_write("/workspace/a", "", &[], &noise(64 << 20));
    assert_error(&answer, 507, "DISK_FULL");
    assert_eq!(files.content("/workspace/a"), b"old");
    // What was written is given back.
    host::wait_for("room for a file", || {
        files.try_write("/workspace/b", "", &[], &noise(16 << 20)).status == 200
    });
}

#[test]
fn a_slow_reader_costs_the_daemon_nothing() {
    let files = Files::start();
    files.shell("head -c 400000000 /dev/zero > /workspace/a");
    files.content("/workspace/a");
    let before = host::resident_kib(files.daemon.serve_pid());
    let mut readers: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = files.daemon.connect();
            connection.send("GET", &files.route("content", "/workspace/a", ""), &[], b"").unwrap();
            connection
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    let grown = host::resident_kib(files.daemon.serve_pid()).saturating_sub(before);
    // Two chunks for each, whatever the file's size.
    assert!(grown < 20 * 1024, "{grown} KiB for 20 readers");
    // Other callers are not kept waiting.
    let start = Instant::now();
    files.stat("/workspace/a");
    assert!(start.elapsed() < Duration::from_secs(2));
    let head = readers[0].receive_head().unwrap();
    let mut whole = Vec::new();
    readers[0].body(&head).read_to_end(&mut whole).unwrap();
    assert_eq!(whole.len(), 400_000_000);
}
