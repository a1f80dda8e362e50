//! Sandboxes that leave one host and come to another: two daemons with a state of their own each.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{assert_nothing_is_left, post};
use crate::harness::docker::Registry;
use crate::harness::http::Response;
use crate::harness::image::Image;
use crate::harness::s3::S3;
use crate::harness::{Daemon, assert_error, host, host_command, id, scratch, skip};

// From `age-keygen`, for these tests alone.
const IDENTITY: &str = "AGE-SECRET-KEY-16TQS4YND69LXWL4HGT4VNQAZS948UQKF9T8N9HFLHMMATXWR3YXQG7XQ0Q";
const RECIPIENT: &str = "age1grem75kgxxswhnr2gf3xnt7xee4jzj63e2am60dhwmnvxareyfsscpjt2p";
const STRANGER: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

/// What is to be the same elsewhere.
const LOOK: &str = "echo $A $PWD; cat /w/text; sha256sum /w/big; stat -c '%a %u %g %h' /w/text; readlink /w/soft; ls -d /e /d 2>/dev/null; true";

/// A daemon with a sandbox `box` in which somebody has worked; nothing when this host has no busybox.
fn worked_in(daemon: Daemon) -> Option<(Daemon, String)> {
    let image = Image::busybox()?;
    daemon.import("box:1", &image.layout_tar("box:1"));
    daemon.create(json!({"id": "box", "image": "box:1", "env": {"A": "1"}, "cwd": "/w"}));
    // More than one chunk of an upload, and nothing that compresses.
    daemon.shell(
        "box",
        "echo mine > /w/text && ln /w/text /w/hard && ln -s /etc/passwd /w/soft && chown 5:6 /w/text && \
         chmod 4711 /w/text && mkdir /d && mv /d /e && head -c 20000000 /dev/urandom > /w/big && echo plain-marker > /w/marker",
    );
    let seen = daemon.shell("box", LOOK);
    Some((daemon, seen))
}

macro_rules! worked_in_or_skip {
    ($daemon:expr) => {
        match worked_in($daemon) {
            Some(made) => made,
            None => skip!("busybox", "busybox-static is not installed"),
        }
    };
}

fn export(daemon: &Daemon, query: &str) -> Response {
    daemon.send("GET", &format!("/v1/sandboxes/box/export?{query}"), &[], b"")
}

fn import(daemon: &Daemon, query: &str, identity: Option<&str>, body: &[u8]) -> Response {
    let mut headers = vec![("content-type", "application/x-tar")];
    headers.extend(identity.map(|identity| ("x-stockade-identity", identity)));
    daemon.send("POST", &format!("/v1/images/import?{query}"), &headers, body)
}

#[track_caller]
fn assert_same(daemon: &Daemon, image: &str, seen: &str) {
    daemon.create(json!({"id": "box", "image": image}));
    assert_eq!(daemon.shell("box", LOOK), seen);
    daemon.destroy("box");
}

#[track_caller]
fn assert_no_images(daemon: &Daemon) {
    for image in daemon.get("/v1/images")["images"].as_array().unwrap() {
        let name = image["reference"].as_str().unwrap().replace('/', "%2F");
        assert_eq!(daemon.request("DELETE", &format!("/v1/images/{name}"), None).status, 204);
    }
    assert_eq!(daemon.layers(), 0);
    host::wait_until_none("blobs", || {
        let entries = std::fs::read_dir(daemon.state_dir().join("blobs/sha256")).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    });
}

#[test]
fn an_archive_moves_a_sandbox_to_another_host() {
    let (here, seen) = worked_in_or_skip!(Daemon::start());
    let there = Daemon::start();
    let archive = export(&here, "reference=moved:1");
    assert_eq!(archive.status, 200, "{}\n{}", String::from_utf8_lossy(&archive.body), here.log());
    let imported = import(&there, "", None, &archive.body);
    assert_eq!(imported.status, 200, "{}", String::from_utf8_lossy(&imported.body));
    assert_eq!(imported.json()["images"][0]["reference"], "docker.io/library/moved:1");
    assert_same(&there, "moved:1", &seen);
    // Programs that are not ours read it too.
    if Command::new("skopeo").arg("--version").output().is_ok() {
        let directory = scratch();
        let path = directory.path().join("archive.tar");
        std::fs::write(&path, &archive.body).unwrap();
        let told = host_command("skopeo", &["inspect", &format!("oci-archive:{}", path.display())]);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert!(told["Env"].as_array().unwrap().contains(&json!("A=1")), "{told}");
    }
    // What is cut short is none.
    let half = &archive.body[..archive.body.len() / 2];
    assert_error(&import(&there, "reference=half:1", None, half), 422, "IMAGE_INVALID");
    for (wrong, status) in [
        ("format=zip", 400),
        ("recipient=age1", 422),
        ("reference=UPPER", 400),
        ("more=1", 400),
        ("format=tar&reference=a:1", 422),
    ] {
        assert_eq!(export(&here, wrong).status, status, "{wrong}");
    }
    assert_error(&there.request("GET", "/v1/sandboxes/none/export", None), 404, "SANDBOX_NOT_FOUND");
    there.create(json!({"id": "host"}));
    assert_error(&there.request("GET", "/v1/sandboxes/host/export", None), 422, "SNAPSHOT_UNSUPPORTED");
    for daemon in [&here, &there] {
        assert_nothing_is_left(daemon);
        assert_no_images(daemon);
    }
}

#[test]
fn a_snapshot_of_all_files_moves_as_its_sandbox_would() {
    let (here, seen) = worked_in_or_skip!(Daemon::start());
    let there = Daemon::start();
    let snapshot = id(&post(&here, "/v1/sandboxes/box/snapshots", json!({})));
    // It is what it was, whatever has become of the sandbox.
    here.destroy("box");
    let directory = scratch();
    let path = directory.path().join("box.tar");
    let told = here.cli(&["snapshot", "export", &snapshot, path.to_str().unwrap(), "--reference", "moved:1"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let imported = import(&there, "", None, &std::fs::read(&path).unwrap());
    assert_eq!(imported.status, 200, "{}", String::from_utf8_lossy(&imported.body));
    assert_same(&there, "moved:1", &seen);
    let route = format!("/v1/snapshots/{snapshot}/archive?format=tar&recipient={RECIPIENT}");
    let sealed = here.send("GET", &route, &[], b"");
    let imported = import(&there, "rootfs=true&reference=plain:1", Some(IDENTITY), &sealed.body);
    assert_eq!(imported.status, 200, "{}", String::from_utf8_lossy(&imported.body));
    // A tar of files says that it is one.
    let tar = here.send("GET", &format!("/v1/snapshots/{snapshot}/archive?format=tar"), &[], b"");
    let refused = import(&there, "reference=plain:2", None, &tar.body);
    assert_error(&refused, 422, "IMAGE_INVALID");
    assert!(refused.text().contains("`rootfs`"), "{}", refused.text());
    assert_eq!(here.ids(), [""; 0]);
    for daemon in [&here, &there] {
        assert_nothing_is_left(daemon);
        assert_no_images(daemon);
    }
}

#[test]
fn a_tar_of_the_files_is_what_tar_reads_and_becomes_an_image() {
    let (here, seen) = worked_in_or_skip!(Daemon::start());
    let tar = export(&here, "format=tar");
    assert_eq!(tar.status, 200, "{}", String::from_utf8_lossy(&tar.body));
    let directory = scratch();
    let path = directory.path().join("files.tar.zst");
    std::fs::write(&path, &tar.body).unwrap();
    let plain = directory.path().join("files.tar");
    std::fs::write(&plain, zstd::decode_all(&*tar.body).unwrap()).unwrap();
    let listed = host_command("tar", &["-tf", plain.to_str().unwrap()]);
    assert!(listed.lines().any(|line| line.trim_start_matches("./") == "w/text"), "{listed}");
    assert!(!listed.contains("proc/1"), "{listed}");
    let there = Daemon::start();
    let nameless = import(&there, "rootfs=true", None, &tar.body).json();
    assert_eq!(nameless["images"][0]["reference"], nameless["images"][0]["digest"], "{nameless}");
    assert_error(&import(&there, "rootfs=1&reference=a:1", None, &tar.body), 400, "INVALID_REQUEST");
    let image = import(&there, "rootfs=true&reference=files:1", None, &tar.body);
    assert_eq!(image.status, 200, "{}\n{}", String::from_utf8_lossy(&image.body), there.log());
    assert_eq!(image.json()["images"][0]["layers"].as_array().unwrap().len(), 1);
    // Of variables and the working directory a tar of files says nothing.
    there.create(json!({"id": "box", "image": "files:1", "env": {"A": "1"}, "cwd": "/w"}));
    assert_eq!(there.shell("box", LOOK), seen);
    let cut = &tar.body[..tar.body.len() - 100];
    assert_error(&import(&there, "rootfs=true&reference=cut:1", None, cut), 422, "IMAGE_INVALID");
    let noise = import(&there, "rootfs=true&reference=noise:1", None, &[7; 5000]);
    assert_error(&noise, 422, "IMAGE_INVALID");
    let output = there.cli(&["import", "--rootfs", path.to_str().unwrap(), "--reference", "again:1"]);
    assert!(output.status.success(), "{output:?}");
    for daemon in [&here, &there] {
        assert_nothing_is_left(daemon);
        assert_no_images(daemon);
    }
}

#[test]
fn what_is_sealed_opens_for_its_identity_alone() {
    let (here, seen) = worked_in_or_skip!(Daemon::start());
    let there = Daemon::start();
    for format in ["oci", "tar"] {
        let sealed = export(&here, &format!("format={format}&recipient={RECIPIENT}"));
        assert_eq!(sealed.status, 200, "{}", String::from_utf8_lossy(&sealed.body));
        assert!(sealed.body.starts_with(b"age-encryption.org/v1\n"));
        let query = if format == "tar" { "rootfs=true&reference=sealed:1" } else { "reference=sealed:1" };
        for identity in [None, Some(STRANGER)] {
            let refused = import(&there, query, identity, &sealed.body);
            assert_error(&refused, 422, "IMAGE_INVALID");
            assert!(refused.json()["hint"].as_str().unwrap().contains("identity"), "{}", refused.text());
        }
        assert_error(&import(&there, query, Some("AGE-SECRET-KEY-1"), &sealed.body), 422, "KEY_INVALID");
        let mut changed = sealed.body.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        assert_error(&import(&there, query, Some(IDENTITY), &changed), 422, "IMAGE_INVALID");
        let opened = import(&there, query, Some(IDENTITY), &sealed.body);
        assert_eq!(opened.status, 200, "{}", String::from_utf8_lossy(&opened.body));
        there.create(json!({"id": "box", "image": "sealed:1", "env": {"A": "1"}, "cwd": "/w"}));
        assert_eq!(there.shell("box", LOOK), seen);
        there.destroy("box");
        assert!(!there.log().contains(IDENTITY) && !there.log().contains(STRANGER));
        if Command::new("age").arg("--version").output().is_ok() {
            age_opens_it(&sealed.body);
        }
    }
    assert_no_images(&there);
}

/// The program that the format is from.
fn age_opens_it(sealed: &[u8]) {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("identity"), IDENTITY).unwrap();
    std::fs::write(path("sealed"), sealed).unwrap();
    host_command("age", &["-d", "-i", &path("identity"), "-o", &path("plain"), &path("sealed")]);
    assert!(Path::new(&path("plain")).metadata().unwrap().len() > 20_000_000);
}

#[test]
fn a_registry_has_the_sandbox_as_an_image() {
    let (here, seen) = worked_in_or_skip!(Daemon::start());
    let more = "  tls: {certificate: ROOT/tls.pem, key: ROOT/tls.key}\n\
                auth: {htpasswd: {realm: basic, path: ROOT/htpasswd}}\n";
    let Some(registry) = Registry::start(more) else { skip!("registry", "docker-registry is not installed") };
    let ca = std::fs::read_to_string(registry.path().join("ca.pem")).unwrap();
    let reference = format!("{}/team/moved:1", registry.address);
    let push = |body: Value| daemon_push(&here, &body);
    assert_error(&push(json!({"reference": reference, "ca_pem": ca})), 422, "REGISTRY_DENIED");
    let wrong = json!({"reference": reference, "ca_pem": ca, "username": "user", "password": "wrong"});
    assert_error(&push(wrong), 422, "REGISTRY_DENIED");
    let login = |reference: &str| json!({"reference": reference, "ca_pem": ca, "username": "user", "password": "secret"});
    assert_error(
        &push(json!({"reference": reference, "username": "user", "password": "secret"})),
        502,
        "REGISTRY_UNREACHABLE",
    );
    let digest = format!("{reference}@sha256:{}", "0".repeat(64));
    assert_error(&push(login(&digest)), 400, "INVALID_REFERENCE");
    // Before it is looked at what is to be pushed.
    here.create(json!({"id": "host"}));
    let unnamed = here.request("POST", "/v1/sandboxes/host/push", Some(&login(&digest)));
    assert_error(&unnamed, 400, "INVALID_REFERENCE");
    assert_error(&push(json!({"reference": "localhost:1/a:1"})), 502, "REGISTRY_UNREACHABLE");
    let pushed = push(login(&reference));
    assert_eq!(pushed.status, 200, "{}\n{}", String::from_utf8_lossy(&pushed.body), here.log());
    let pushed = pushed.json();
    assert!(pushed["size_bytes"].as_u64().unwrap() > 20_000_000, "{pushed}");
    let there = Daemon::start();
    let by_digest = format!("{}/team/moved@{}", registry.address, pushed["digest"].as_str().unwrap());
    let pulled = there.request("POST", "/v1/images/pull", Some(&login(&by_digest)));
    assert_eq!(pulled.status, 200, "{}", String::from_utf8_lossy(&pulled.body));
    assert_same(&there, pulled.json()["digest"].as_str().unwrap(), &seen);
    // Events; and what is there already is not sent again.
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let body = login(&reference).to_string();
    let events = here.send("POST", "/v1/sandboxes/box/push", &headers, body.as_bytes());
    let text = String::from_utf8(events.body).unwrap();
    assert!(text.contains("event: progress") && text.contains("event: image"), "{text}");
    // What fails when the answer has begun is written down as that, and what has left is told.
    here.send("POST", "/v1/sandboxes/none/push", &headers, body.as_bytes());
    let lines = here.get("/v1/audit?sandbox=none");
    let verdicts: Vec<_> =
        lines["lines"].as_array().unwrap().iter().map(|line| &line["record"]["verdict"]).collect();
    assert!(verdicts.contains(&&json!("SANDBOX_NOT_FOUND")), "{lines}");
    let events = here.get("/v1/events?sandbox=box&type=sandbox.exported");
    assert_eq!(events["events"][0]["data"]["digest"], pushed["digest"], "{events}");
    for daemon in [&here, &there] {
        assert_nothing_is_left(daemon);
        assert_no_images(daemon);
    }
}

fn daemon_push(daemon: &Daemon, body: &Value) -> Response {
    daemon.request("POST", "/v1/sandboxes/box/push", Some(body))
}

#[test]
fn a_bucket_carries_a_sandbox_to_another_host() {
    let Some(server) = S3::start() else {
        skip!("registries", "Python has no moto: cargo xtask test installs it")
    };
    let config = "[network]\nopen = [\"127.0.0.0/8\"]\n[preview]\nlisten = \"off\"\n";
    let (here, seen) = worked_in_or_skip!(Daemon::configured(config));
    let there = Daemon::configured(config);
    let object = |key: &str| {
        let mut object = server.mount("");
        object.as_object_mut().unwrap().remove("path");
        object["key"] = json!(key);
        object
    };
    let objects = || server.keys();
    let stored = post(
        &here,
        "/v1/sandboxes/box/store",
        json!({"object": object("moves/box.tar"), "reference": "moved:1", "recipient": RECIPIENT}),
    );
    assert_eq!(stored["key"], "moves/box.tar");
    assert!(stored["size_bytes"].as_u64().unwrap() > 20_000_000, "{stored}");
    let load = |body: Value| there.request("POST", "/v1/images/load", Some(&body));
    assert_error(&load(json!({"object": object("moves/box.tar")})), 422, "IMAGE_INVALID");
    let loaded = load(json!({"object": object("moves/box.tar"), "identity": IDENTITY}));
    assert_eq!(loaded.status, 200, "{}\n{}", String::from_utf8_lossy(&loaded.body), there.log());
    assert_same(&there, "moved:1", &seen);
    assert_error(&load(json!({"object": object("moves/none")})), 404, "FILE_NOT_FOUND");
    for key in ["/a", "a//b", "../a", "a/."] {
        assert_error(&load(json!({"object": object(key)})), 422, "PATH_INVALID");
    }
    for key in ["", "a\nb"] {
        assert_error(&load(json!({"object": object(key)})), 400, "INVALID_REQUEST");
    }
    let mut elsewhere = object("a");
    elsewhere["bucket"] = json!("nowhere");
    assert_error(&load(json!({"object": elsewhere})), 404, "BUCKET_NOT_FOUND");
    assert_error(
        &here.request("POST", "/v1/sandboxes/box/store", Some(&json!({"object": elsewhere}))),
        404,
        "BUCKET_NOT_FOUND",
    );
    // What is no image begins no object; whoever goes away leaves nothing of one.
    here.create(json!({"id": "host"}));
    let refused =
        here.request("POST", "/v1/sandboxes/host/store", Some(&json!({"object": object("none/host.tar")})));
    assert_error(&refused, 422, "SNAPSHOT_UNSUPPORTED");
    let mut leaving = here.connect();
    let body = json!({"object": object("left/deep/left.tar")}).to_string();
    let headers = [("content-type", "application/json")];
    leaving.send("POST", "/v1/sandboxes/box/store", &headers, body.as_bytes()).unwrap();
    host::wait_for("it to begin", || objects().iter().any(|key| key.contains("left/deep/.stockade-")));
    drop(leaving);
    host::wait_for("the bucket to have what was stored", || objects() == ["moves/", "moves/box.tar"]);
    let local =
        json!({"object": {"endpoint": "file:///etc", "key": "passwd"}, "rootfs": true, "reference": "a:1"});
    assert_error(&load(local), 422, "DIRECTORY_DENIED");
    assert_eq!(there.ids(), Vec::<String>::new(), "what carries is nobody's to see");
    let carriers = |daemon: &Daemon| daemon.role_pid("stockade-bucket");
    assert_eq!((carriers(&here), carriers(&there)), (None, None));
    for daemon in [&here, &there] {
        assert_nothing_is_left(daemon);
        assert_no_images(daemon);
    }
}

/// A daemon that shows a directory of this host, and the directory, which belongs to an ordinary user.
fn with_directory() -> (tempfile::TempDir, Daemon) {
    let place = scratch();
    std::os::unix::fs::chown(place.path(), Some(1000), Some(1000)).unwrap();
    let config =
        format!("[mounts]\ndirectories = [\"{}\"]\n[preview]\nlisten = \"off\"\n", place.path().display());
    (place, Daemon::configured(&config))
}

#[test]
fn what_is_stored_in_a_directory_is_there() {
    let (place, daemon) = with_directory();
    let Some((here, _)) = worked_in(daemon) else { skip!("busybox", "busybox-static is not installed") };
    let outside = scratch();
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir(at("real")).unwrap();
    std::os::unix::fs::chown(at("real"), Some(1000), Some(1000)).unwrap();
    std::os::unix::fs::symlink("/nowhere", at("dangling")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("out")).unwrap();
    std::os::unix::fs::symlink("real", at("in")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/env", at("program")).unwrap();
    host_command("mkfifo", &[at("pipe").to_str().unwrap()]);
    let object =
        |key: &str| json!({"object": {"endpoint": format!("file://{}", place.path().display()), "key": key}});
    let store = |key: &str| here.request("POST", "/v1/sandboxes/box/store", Some(&object(key)));
    let load = |key: &str| here.request("POST", "/v1/images/load", Some(&object(key)));
    for key in ["dangling", "dangling/box.tar", "out/box.tar", "in/box.tar", "program"] {
        let refused = store(key);
        assert_error(&refused, 422, "PATH_INVALID");
        assert!(refused.text().contains("symbolic link"), "{}", refused.text());
        assert_error(&load(key), 422, "PATH_INVALID");
    }
    assert_error(&load("pipe"), 422, "FILE_NOT_REGULAR");
    assert_error(&load("real"), 404, "FILE_NOT_FOUND");
    assert_error(&load("none/at/all"), 404, "FILE_NOT_FOUND");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(at("real")).unwrap().count(), 0);
    let stored = store("real/deep/box.tar");
    assert_eq!(stored.status, 200, "{}\n{}", stored.text(), here.log());
    let length = at("real/deep/box.tar").metadata().unwrap().len();
    assert_eq!(stored.json()["size_bytes"], length);
    assert_nothing_is_left(&here);
}

#[test]
fn what_an_archive_cannot_have_is_refused_before_it_begins() {
    let Some((here, _)) = worked_in(Daemon::start()) else {
        skip!("busybox", "busybox-static is not installed")
    };
    let every = |code: &str, status: u16, named: &str| {
        let tries = [
            here.request("POST", "/v1/sandboxes/box/commit", Some(&json!({"reference": "made:1"}))),
            here.request("GET", "/v1/sandboxes/box/export", None),
            here.request("GET", "/v1/sandboxes/box/export?format=tar", None),
        ];
        for refused in tries {
            assert_error(&refused, status, code);
            assert!(refused.text().contains(named), "{}", refused.text());
        }
    };
    // In a layer it would mean that `keep` is removed.
    here.shell("box", "echo mine > /w/.wh.keep");
    every("SNAPSHOT_UNSUPPORTED", 422, "w/.wh.keep");
    let tar = |name: &str| {
        let directory = scratch();
        std::fs::write(directory.path().join(name), "x").unwrap();
        let path = directory.path().join("archive.tar");
        host_command("tar", &["-cf", path.to_str().unwrap(), "-C", directory.path().to_str().unwrap(), name]);
        std::fs::read(path).unwrap()
    };
    assert_eq!(import(&here, "rootfs=true&reference=plain:1", None, &tar("keep")).status, 200);
    let refused = import(&here, "rootfs=true&reference=plain:2", None, &tar(".wh.keep"));
    assert_error(&refused, 422, "IMAGE_INVALID");
    assert!(refused.text().contains(".wh.keep"), "{}", refused.text());
    // A snapshot is no image.
    let kept = post(&here, "/v1/sandboxes/box/snapshots", json!({"path": "/w"}));
    here.shell("box", "rm /w/.wh.keep");
    post(&here, "/v1/sandboxes/box/restore", json!({"snapshot": kept["id"]}));
    assert_eq!(here.shell("box", "cat /w/.wh.keep && rm /w/.wh.keep"), "mine\n");
    // Longer than any path that the kernel takes, of two that it does.
    let (step, deep) = ("n".repeat(200), vec!["n".repeat(200); 11].join("/"));
    here.shell("box", &format!("cd /w && mkdir -p {deep} m/{deep} && mv m {deep}/"));
    every("PATH_INVALID", 422, "w/nnnn");
    let refused = here.request("POST", "/v1/sandboxes/box/snapshots", Some(&json!({"path": "/w"})));
    assert_error(&refused, 422, "PATH_INVALID");
    let lines = here.get("/v1/audit?sandbox=box");
    let exports = lines["lines"].as_array().unwrap().iter().map(|line| &line["record"]);
    let done: Vec<_> = exports
        .filter(|record| record["operation"] == "exportSandbox" && record["verdict"] == "done")
        .collect();
    assert!(done.is_empty(), "{done:?}");
    here.shell("box", &format!("cd /w && mv {deep}/m . && rm -r {step} m"));
    assert_eq!(export(&here, "format=tar").status, 200);
}

#[test]
fn a_snapshot_of_a_directory_moves_too() {
    let (here, there) = (Daemon::start(), Daemon::start());
    here.create(json!({"id": "box"}));
    here.shell("box", "mkdir -p /root/p/deep && echo a > /root/p/deep/a && chmod 600 /root/p/deep/a && chown 7:8 /root/p/deep/a");
    let snapshot = id(&post(&here, "/v1/sandboxes/box/snapshots", json!({"path": "/root/p"})));
    let all = id(&post(&here, "/v1/sandboxes/box/snapshots", json!({})));
    let of = |snapshot: &str, query: &str| {
        here.request("GET", &format!("/v1/snapshots/{snapshot}/archive{query}"), None)
    };
    assert_error(&of(&all, ""), 422, "SNAPSHOT_UNSUPPORTED");
    for query in ["?format=oci", "?reference=a:1"] {
        assert_error(&of(&snapshot, query), 409, "SNAPSHOT_MISMATCH");
    }
    let upload = |query: &str, identity: Option<&str>, body: &[u8]| {
        let headers: Vec<_> =
            identity.map(|identity| ("x-stockade-identity", identity)).into_iter().collect();
        there.send("POST", &format!("/v1/snapshots?{query}"), &headers, body)
    };
    there.create(json!({"id": "other"}));
    for sealed in [false, true] {
        let query = if sealed { format!("?recipient={RECIPIENT}") } else { String::new() };
        let archive = here.send("GET", &format!("/v1/snapshots/{snapshot}/archive{query}"), &[], b"");
        assert_eq!(archive.status, 200);
        let uploaded =
            upload("path=/root/q&name=moved&ttl_ms=600000", sealed.then_some(IDENTITY), &archive.body);
        assert_eq!(uploaded.status, 201, "{}", String::from_utf8_lossy(&uploaded.body));
        let uploaded = uploaded.json();
        assert_eq!((&uploaded["path"], &uploaded["sandbox"]), (&json!("/root/q"), &Value::Null));
        post(&there, "/v1/sandboxes/other/restore", json!({"snapshot": uploaded["id"]}));
        assert_eq!(there.shell("other", "cd /root/q/deep && cat a && stat -c '%a %u %g' a"), "a\n600 7 8\n");
        there.shell("other", "rm -r /root/q");
        if sealed {
            assert_error(&upload("path=/q", Some(STRANGER), &archive.body), 422, "IMAGE_INVALID");
        }
    }
    for query in ["", "path=/q&ttl_ms=0", "path=/q&ttl_ms=x", "path=/q&more=1"] {
        assert_error(&upload(query, None, b"x"), 400, "INVALID_REQUEST");
    }
    for query in ["path=q", "path=/"] {
        assert_error(&upload(query, None, b"x"), 422, "PATH_INVALID");
    }
    // What is no tar, or only the beginning of one, is not kept.
    let plain =
        zstd::decode_all(&*here.send("GET", &format!("/v1/snapshots/{snapshot}/archive"), &[], b"").body)
            .unwrap();
    for broken in [&b""[..], b"not a tar at all", &[7; 5000], &plain[..plain.len() - 1024], &plain[..1024]] {
        let refused = upload("path=/root/q", None, broken);
        assert_error(&refused, 422, "IMAGE_INVALID");
        assert!(!refused.json()["hint"].as_str().unwrap().contains("image"), "{}", refused.json());
    }
    let sealed =
        here.send("GET", &format!("/v1/snapshots/{snapshot}/archive?recipient={RECIPIENT}"), &[], b"").body;
    let refused = upload("path=/root/q", None, &sealed);
    assert_error(&refused, 422, "IMAGE_INVALID");
    assert!(
        String::from_utf8_lossy(&refused.body).contains("identity"),
        "{}",
        String::from_utf8_lossy(&refused.body)
    );
    assert_eq!(upload("path=/root/q", None, &plain).status, 201, "it need not be compressed");
    for daemon in [&here, &there] {
        assert_nothing_is_left(daemon);
    }
}
