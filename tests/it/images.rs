//! Images by import: every form, built by us and by others, and what becomes of their layers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::image::{Image, Meta, Tar, busybox_layer};
use crate::harness::{Daemon, assert_error, escape, host, host_command, id, scratch, skip};
use crate::lifecycle::{GROUP, as_user};

/// The busybox image, or the end of the test.
macro_rules! busybox_or_skip {
    () => {
        match Image::busybox() {
            Some(image) => image,
            None => skip!("busybox", "busybox-static is not installed"),
        }
    };
}

/// Creates a sandbox of an image and checks that busybox runs in it.
#[track_caller]
fn runs(daemon: &Daemon, reference: &str) {
    let name = id(&daemon.create(json!({"image": reference})));
    let result = daemon.run(&name, json!({"argv": ["/bin/busybox", "echo", "hello from", reference]}));
    assert_eq!(result["stdout"], format!("hello from {reference}\n"), "{result}");
    daemon.destroy(&name);
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn the_host_image_needs_no_import_and_shows_the_hosts_programs() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    assert_eq!(daemon.run(&name, json!({"argv": ["python3", "-c", "print(6*7)"]}))["stdout"], "42\n");
    let listing = daemon.shell(&name, "ls /");
    for directory in ["bin", "dev", "etc", "lib", "proc", "root", "tmp", "usr", "workspace"] {
        assert!(listing.lines().any(|line| line == directory), "{directory} is missing in {listing}");
    }
    for path in ["/tmp", "/root", "/workspace"] {
        daemon.shell(&name, &format!("echo x > {path}/x && cat {path}/x"));
    }
    assert!(daemon.shell(&name, "cat /etc/passwd").lines().count() < 20, "the host's own passwd shows");
}

#[test]
fn an_oci_layout_tar_is_imported_under_its_reference_and_its_digest() {
    let daemon = Daemon::start();
    let image = busybox_or_skip!();
    let digest = image.blobs()[0].digest();
    let imported = daemon.import("tools/busybox:v1", &image.layout_tar("v1"));
    assert_eq!(imported["digest"], digest, "{imported}");
    assert_eq!(imported["platform"]["os"], "linux");
    assert_eq!(imported["platform"]["architecture"], "amd64");
    assert_eq!(imported["layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(daemon.get("/v1/images")["images"], json!([imported]));
    assert_eq!(daemon.get(&format!("/v1/images/{}", escape("tools/busybox:v1"))), imported);
    assert_eq!(daemon.get(&format!("/v1/images/{}", escape(&digest)))["digest"], digest);
    runs(&daemon, "tools/busybox:v1");
    let sandbox = daemon.create(json!({"image": "tools/busybox:v1"}));
    assert_eq!(sandbox["image"]["digest"], digest);
}

#[test]
fn a_compressed_tar_is_imported_like_a_plain_one() {
    let daemon = Daemon::start();
    let image = busybox_or_skip!();
    daemon.import("gz:1", &crate::harness::image::gzip(&image.layout_tar("1")));
    runs(&daemon, "gz:1");
}

#[test]
fn a_layout_directory_is_imported_by_the_command_line() {
    let daemon = Daemon::start();
    let directory = scratch();
    busybox_or_skip!().write_layout(directory.path(), "v1");
    let output = daemon.cli(&["import", &directory.path().display().to_string(), "--reference", "dir:v1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    runs(&daemon, "dir:v1");
}

#[test]
fn a_docker_archive_made_by_skopeo_is_imported() {
    if !has("skopeo") {
        skip!("skopeo", "skopeo is not installed");
    }
    let daemon = Daemon::start();
    let directory = scratch();
    let layout = directory.path().join("layout");
    busybox_or_skip!().write_layout(&layout, "v1");
    let archive = directory.path().join("archive.tar");
    let to = format!("docker-archive:{}:busybox:v1", archive.display());
    host_command(
        "skopeo",
        &["--insecure-policy", "copy", "-q", &format!("oci:{}:v1", layout.display()), &to],
    );
    daemon.import("docker:v1", &fs::read(&archive).unwrap());
    runs(&daemon, "docker:v1");
}

#[test]
fn an_image_built_by_umoci_is_imported_and_its_settings_apply() {
    if !has("umoci") {
        skip!("umoci", "umoci is not installed");
    }
    let daemon = Daemon::start();
    let directory = scratch();
    let layout = directory.path().join("layout").display().to_string();
    let bundle = directory.path().join("bundle").display().to_string();
    let reference = format!("{layout}:v1");
    host_command("umoci", &["init", "--layout", &layout]);
    host_command("umoci", &["new", "--image", &reference]);
    host_command("umoci", &["unpack", "--image", &reference, &bundle]);
    let root = Path::new(&bundle).join("rootfs");
    for name in ["bin", "etc", "data", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    if fs::copy("/bin/busybox", root.join("bin/busybox")).is_err() {
        skip!("busybox", "busybox-static is not installed");
    }
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1234:1234::/data:/bin/sh\n").unwrap();
    fs::write(root.join("data/a"), "one").unwrap();
    host_command("umoci", &["repack", "--image", &reference, &bundle]);
    // A second layer that takes something away.
    fs::remove_file(root.join("data/a")).unwrap();
    fs::write(root.join("data/b"), "two").unwrap();
    host_command("umoci", &["repack", "--image", &reference, "--refresh-bundle", &bundle]);
    let settings = [
        "--config.user",
        "user",
        "--config.workingdir",
        "/data",
        "--config.env",
        "COLOUR=green",
        "--config.env",
        "PATH=/bin",
    ];
    host_command("umoci", &[&["config", "--image", &reference][..], &settings].concat());
    let output = daemon.cli(&["import", &layout, "--reference", "umoci:v1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let name = id(&daemon.create(json!({"image": "umoci:v1"})));
    let line = "busybox id -u; pwd; echo $COLOUR; busybox ls";
    assert_eq!(daemon.run(&name, json!({"shell": line}))["stdout"], "1234\n/data\ngreen\nb\n");
}

/// Where the package manager keeps the fixtures of `oci-client`.
pub fn third_party_fixtures() -> Option<PathBuf> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/third-party/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path", manifest])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .ok()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|package| package["name"] == "oci-client")?;
    Some(Path::new(package["manifest_path"].as_str()?).parent()?.join("tests/fixtures"))
}

#[test]
fn a_real_image_from_elsewhere_is_imported_and_runs() {
    let Some(fixtures) = third_party_fixtures() else {
        skip!("crates", "the third-party image cannot be fetched")
    };
    if !has("skopeo") {
        skip!("skopeo", "skopeo is not installed");
    }
    // skopeo's `dir:` form: the manifest, and each blob under its digest.
    let directory = scratch();
    let source = directory.path().join("dir");
    fs::create_dir(&source).unwrap();
    let manifest = fs::read(fixtures.join("manifest.json")).unwrap();
    let parsed: Value = serde_json::from_slice(&manifest).unwrap();
    fs::write(source.join("manifest.json"), &manifest).unwrap();
    fs::write(source.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    for (file, digest) in
        [("config.json", &parsed["config"]["digest"]), ("blob.tar.gz", &parsed["layers"][0]["digest"])]
    {
        let name = digest.as_str().unwrap().trim_start_matches("sha256:");
        fs::copy(fixtures.join(file), source.join(name)).unwrap();
    }
    let daemon = Daemon::start();
    let archive = directory.path().join("busybox.tar");
    let from = format!("dir:{}", source.display());
    host_command(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            &from,
            &format!("docker-archive:{}:busybox:latest", archive.display()),
        ],
    );
    daemon.import("busybox", &fs::read(&archive).unwrap());
    let oci = directory.path().join("oci");
    host_command(
        "skopeo",
        &["--insecure-policy", "copy", "-q", &from, &format!("oci:{}:latest", oci.display())],
    );
    let output = daemon.cli(&["import", &oci.display().to_string(), "--reference", "busybox:oci"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(daemon.layers(), 1, "the same layer was unpacked twice");
    for reference in ["busybox", "busybox:oci"] {
        let name = id(&daemon.create(json!({"image": reference})));
        let result =
            daemon.run(&name, json!({"shell": "busybox | head -1; ls /bin | wc -l; stat -c %h /bin/ls"}));
        let text = result["stdout"].as_str().unwrap().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("BusyBox v1.3"), "{result}");
        assert!(lines[1].trim().parse::<u32>().unwrap() > 300, "{result}");
        assert!(lines[2].trim().parse::<u32>().unwrap() > 300, "hard links became copies: {result}");
    }
}

#[test]
fn layers_are_stacked_as_the_specification_says() {
    let Some(base) = busybox_layer() else { skip!("busybox", "busybox-static is not installed") };
    let lower = Tar::new()
        .directory("d/", Meta::DIRECTORY)
        .file("d/gone", Meta::FILE, b"1")
        .file("d/kept", Meta { mode: 0o640, uid: 1000, gid: 2000 }, b"kept")
        .directory("opaque/", Meta::DIRECTORY)
        .file("opaque/old", Meta::FILE, b"old")
        .file("becomes-directory", Meta::FILE, b"x")
        .directory("becomes-file/", Meta::DIRECTORY)
        .file("becomes-file/x", Meta::FILE, b"x")
        .pax(&[("path", &format!("long/{}", "n".repeat(250)))])
        .file("long", Meta::FILE, b"long")
        .pax(&[("SCHILY.xattr.user.colour", "green")])
        .file("with-attribute", Meta::FILE, b"x")
        .pax(&[("mtime", "1700000000.5")])
        .file("dated", Meta::FILE, b"x")
        .finish();
    let upper = Tar::new()
        .file("d/.wh.gone", Meta::FILE, b"")
        .file("d/first", Meta::FILE, b"linked")
        .hardlink("d/second", "d/first")
        .file("opaque/.wh..wh..opq", Meta::FILE, b"")
        .file("opaque/new", Meta::FILE, b"new")
        .directory("becomes-directory/", Meta::DIRECTORY)
        .file("becomes-directory/y", Meta::FILE, b"y")
        .file("becomes-file", Meta::FILE, b"z")
        .finish();
    let daemon = Daemon::start();
    daemon.import("stack:1", &Image::new(vec![base, lower, upper]).layout_tar("1"));
    let name = id(&daemon.create(json!({"image": "stack:1"})));
    assert_eq!(daemon.shell(&name, "ls /d"), "first\nkept\nsecond\n");
    assert_eq!(daemon.shell(&name, "stat -c '%a %u:%g' /d/kept; cat /d/kept"), "640 1000:2000\nkept");
    assert_eq!(daemon.shell(&name, "stat -c %h /d/first; cat /d/second"), "2\nlinked");
    assert_eq!(daemon.shell(&name, "ls -A /opaque"), "new\n");
    assert_eq!(daemon.shell(&name, "ls /becomes-directory; cat /becomes-file"), "y\nz");
    assert_eq!(daemon.shell(&name, "cat /long/n*"), "long");
    assert_eq!(daemon.shell(&name, "stat -c %Y /dated"), "1700000000\n");
    // What the sandbox does to its files stays its own.
    daemon.shell(&name, "rm /d/kept; mv /opaque /moved; echo changed > /becomes-file");
    let other = id(&daemon.create(json!({"image": "stack:1"})));
    assert_eq!(daemon.shell(&other, "cat /d/kept /opaque/new /becomes-file"), "keptnewz");
}

#[test]
fn a_set_user_id_bit_of_an_image_survives_and_gives_nothing() {
    let daemon = Daemon::start();
    daemon.import("suid:1", &busybox_or_skip!().layout_tar("1"));
    let name = id(&daemon.create(json!({"image": "suid:1"})));
    let result = daemon.run(
        &name,
        json!({"shell": "stat -c %a /bin/busybox-suid; /bin/busybox-suid id -u", "user": "alice"}),
    );
    assert_eq!(result["stdout"], "4755\n1000\n", "{result}");
}

#[test]
fn shared_layers_are_stored_once_and_go_with_their_last_image() {
    let Some(base) = busybox_layer() else { skip!("busybox", "busybox-static is not installed") };
    let daemon = Daemon::start();
    let with = |content: &[u8]| {
        let own = Tar::new().file("own", Meta::FILE, content).finish();
        Image::new(vec![base.clone(), own]).layout_tar("1")
    };
    daemon.import("one:1", &with(b"one"));
    assert_eq!(daemon.layers(), 2);
    daemon.import("two:1", &with(b"two"));
    assert_eq!(daemon.layers(), 3, "the shared layer was unpacked again");
    let name = id(&daemon.create(json!({"image": "one:1"})));
    let delete =
        |reference: &str| daemon.request("DELETE", &format!("/v1/images/{}", escape(reference)), None);
    assert_error(&delete("one:1"), 409, "IMAGE_IN_USE");
    assert_eq!(daemon.shell(&name, "cat /own"), "one");
    assert_eq!(delete("two:1").status, 204);
    host::wait_for("the layer of the deleted image to go", || daemon.layers() == 2);
    assert_eq!(daemon.shell(&name, "cat /own"), "one");
    daemon.destroy(&name);
    assert_eq!(delete("one:1").status, 204);
    host::wait_for("the last layers to go", || daemon.layers() == 0);
    let blobs =
        || fs::read_dir(daemon.state_dir().join("blobs/sha256")).map(Iterator::count).unwrap_or_default();
    host::wait_for("the blobs to go", || blobs() == 0);
    assert_error(&delete("one:1"), 404, "IMAGE_NOT_FOUND");
}

#[test]
fn a_reference_can_be_moved_to_another_image() {
    let Some(base) = busybox_layer() else { skip!("busybox", "busybox-static is not installed") };
    let daemon = Daemon::start();
    let with = |content: &[u8]| {
        Image::new(vec![base.clone(), Tar::new().file("own", Meta::FILE, content).finish()]).layout_tar("1")
    };
    daemon.import("moving:1", &with(b"old"));
    let old = id(&daemon.create(json!({"image": "moving:1"})));
    daemon.import("moving:1", &with(b"new"));
    let new = id(&daemon.create(json!({"image": "moving:1"})));
    assert_eq!(
        (daemon.shell(&old, "cat /own"), daemon.shell(&new, "cat /own")),
        ("old".to_owned(), "new".to_owned())
    );
    assert_eq!(daemon.get("/v1/images")["images"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_store_is_closed_to_other_users() {
    let daemon = Daemon::start();
    daemon.import("closed:1", &busybox_or_skip!().layout_tar("1"));
    for (uid, what) in [("1000", "an ordinary user"), ("65534", "nobody")] {
        let output = Command::new("setpriv")
            .args(["--reuid", uid, "--regid", uid, "--clear-groups", "find"])
            .arg(daemon.state_dir())
            .args(["-name", "busybox-suid"])
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"", "{what} finds set-user-id files in the store");
    }
}

#[test]
fn a_name_is_whose_it_was_first_and_others_only_use_it() {
    let image = busybox_or_skip!();
    let mut daemon = Daemon::with(&["--socket-gid", GROUP]);
    daemon.import("root:1", &image.layout_tar("root:1"));
    let ask = |daemon: &Daemon, uid: &str, method: &str, path: &str, body: Value| {
        as_user(daemon, uid, GROUP, method, path, &body.to_string()).unwrap()
    };
    let commit = |daemon: &Daemon, uid: &str, sandbox: &str, name: &str| {
        ask(daemon, uid, "POST", &format!("/v1/sandboxes/{sandbox}/commit"), json!({"reference": name}))
    };
    for (uid, name) in [("1001", "one"), ("1002", "two")] {
        let made = ask(&daemon, uid, "POST", "/v1/sandboxes", json!({"id": name, "image": "root:1"}));
        assert_eq!(made.0, 201, "{}", made.1);
    }
    let denied = |(status, answer): (u16, Value)| {
        assert_eq!((status, &answer["code"]), (403, &json!("PERMISSION_DENIED")), "{answer}");
    };
    let (status, made) = commit(&daemon, "1001", "one", "mine:1");
    // Nor under its digest, which means those bytes.
    let digest = made["digest"].as_str().unwrap();
    for name in [format!("mine:1@{digest}"), digest.to_owned(), format!("DOCKER.io/library/mine@{digest}")] {
        let (status, answer) = commit(&daemon, "1002", "two", &name);
        assert_eq!((status, &answer["code"]), (400, &json!("INVALID_REFERENCE")), "{name}: {answer}");
        let imported = daemon.try_import(&name, &image.layout_tar("root:1"));
        assert_error(&imported, 400, "INVALID_REFERENCE");
    }
    assert_eq!((status, &made["owner_uid"]), (201, &json!(1001)), "{made}");
    daemon.kill_all();
    daemon.spawn();
    denied(commit(&daemon, "1002", "two", "mine:1"));
    denied(commit(&daemon, "1002", "two", "root:1"));
    denied(commit(&daemon, "1002", "two", "Docker.IO/library/root:1"));
    denied(ask(&daemon, "1002", "DELETE", "/v1/images/mine:1", json!({})));
    denied(ask(
        &daemon,
        "1002",
        "DELETE",
        &format!("/v1/images/{}", made["digest"].as_str().unwrap()),
        json!({}),
    ));
    denied(ask(&daemon, "1001", "DELETE", "/v1/images/root:1", json!({})));
    let used = ask(&daemon, "1002", "POST", "/v1/sandboxes", json!({"id": "three", "image": "mine:1"}));
    assert_eq!(used.0, 201, "{}", used.1);
    // Whose it is may, and root may; it stays whose it was.
    daemon.shell("one", "echo more > /more");
    assert_eq!(commit(&daemon, "1001", "one", "mine:1").0, 201);
    let (status, replaced) = commit(&daemon, "0", "two", "mine:1");
    assert_eq!((status, &replaced["owner_uid"]), (201, &json!(1001)), "{replaced}");
    for sandbox in ["one", "two", "three"] {
        daemon.destroy(sandbox);
    }
    assert_eq!(ask(&daemon, "1001", "DELETE", "/v1/images/mine:1", json!({})).0, 204);
    // What was entered before names had owners is root's.
    let index = daemon.state_dir().join("images");
    for entry in fs::read_dir(index).unwrap() {
        let path = entry.unwrap().path();
        let mut entered: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        entered.as_object_mut().unwrap().remove("owner_uid").unwrap();
        fs::write(path, entered.to_string()).unwrap();
    }
    daemon.kill_all();
    daemon.spawn();
    denied(ask(&daemon, "1001", "DELETE", "/v1/images/root:1", json!({})));
    assert_eq!(ask(&daemon, "0", "DELETE", "/v1/images/root:1", json!({})).0, 204);
}
