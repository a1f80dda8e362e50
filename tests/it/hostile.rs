//! Images that lie, and images that attack: refused, or harmless.

use serde_json::{Value, json};

use crate::harness::image::{
    Blob, CONFIG, INDEX, Image, LAYER_GZIP, MANIFEST, Meta, Tar, gzip, layout_tar, sha256,
};
use crate::harness::{Daemon, assert_error, escape, host, host_command, skip};

fn manifest_of(layers: &Value, config: &Blob) -> Blob {
    let body =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": layers});
    Blob { media_type: MANIFEST, bytes: body.to_string().into_bytes() }
}

fn config_of(diff_ids: &[String]) -> Blob {
    let body =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    Blob { media_type: CONFIG, bytes: body.to_string().into_bytes() }
}

/// A layout whose one layer is this tar, with every digest right.
fn single(tar: &[u8]) -> Vec<u8> {
    Image::new(vec![tar.to_vec()]).layout_tar("1")
}

fn index_of(manifest: &Blob) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest.descriptor()]})
}

/// A layout of this manifest and these blobs.
fn layout(manifest: &Blob, blobs: &[&Blob]) -> Vec<u8> {
    let mut all = vec![manifest.clone()];
    all.extend(blobs.iter().copied().cloned());
    layout_tar(&all, &index_of(manifest))
}

/// A layout whose layer's file holds other bytes than its name says.
fn with_flipped_bit(manifest: &Blob, config: &Blob, layer: &Blob) -> Vec<u8> {
    let mut flipped = layer.bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let place = |blob: &Blob| blob.digest().replace("sha256:", "blobs/sha256/");
    Tar::new()
        .file("oci-layout", Meta::FILE, br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", Meta::FILE, index_of(manifest).to_string().as_bytes())
        .file(&place(manifest), Meta::FILE, &manifest.bytes)
        .file(&place(config), Meta::FILE, &config.bytes)
        .file(&place(layer), Meta::FILE, &flipped)
        .finish()
}

/// Images that are not what they say, by what is wrong with them.
fn lies(tar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let layer = Blob { media_type: LAYER_GZIP, bytes: gzip(tar) };
    let config = config_of(&[sha256(tar)]);
    let good = manifest_of(&json!([layer.descriptor()]), &config);
    let larger = json!([{"mediaType": LAYER_GZIP, "digest": layer.digest(), "size": layer.bytes.len() + 1}]);
    let wrong_size = manifest_of(&larger, &config);
    let other_config = config_of(&[sha256(b"something else")]);
    let wrong_diff_id = manifest_of(&json!([layer.descriptor()]), &other_config);
    let two_for_one = manifest_of(&json!([layer.descriptor(), layer.descriptor()]), &config);
    let many: Vec<Value> = (0..200).map(|_| layer.descriptor()).collect();
    let many_config = config_of(&vec![sha256(tar); 200]);
    let too_many = manifest_of(&json!(many), &many_config);
    let whole = single(tar);
    vec![
        ("noise", vec![0x5a; 4096]),
        ("an empty tar", Tar::new().finish()),
        ("a truncated tar", whole[..whole.len() / 2].to_vec()),
        ("a flipped bit", with_flipped_bit(&good, &config, &layer)),
        ("a missing blob", layout(&good, &[&config])),
        ("a wrong size", layout(&wrong_size, &[&config, &layer])),
        ("a wrong diff id", layout(&wrong_diff_id, &[&other_config, &layer])),
        ("more layers than diff ids", layout(&two_for_one, &[&config, &layer])),
        ("200 layers", layout(&too_many, &[&many_config, &layer])),
        ("an index that is none", layout_tar(&[], &json!({"schemaVersion": 2, "manifests": "x"}))),
    ]
}

#[test]
fn a_passwd_file_that_is_none_stops_names_and_no_ids() {
    let daemon = Daemon::start();
    for make in [
        "mkfifo /etc/passwd",
        "mkdir /etc/passwd",
        "ln -s /dev/zero /etc/passwd",
        "ln -s /dev/tty /etc/passwd",
        "ln -s passwd /etc/passwd",
        "ln -s /proc/self/mem /etc/passwd",
        "head -c 3000000 /dev/zero > /etc/passwd",
    ] {
        let name = daemon.sandbox();
        let spoil = format!("rm -f /etc/passwd /etc/group; {make}; cp -a /etc/passwd /etc/group");
        daemon.run(&name, json!({"shell": spoil, "user": "0"}));
        for user in ["0", "1234", "1234:99"] {
            let result = daemon.run(&name, json!({"shell": "id -u", "user": user, "timeout_ms": 10_000}));
            let uid = user.split(':').next().unwrap_or_default();
            assert_eq!(result["stdout"].as_str().map(str::trim), Some(uid), "{make}, {user}: {result}");
        }
        for user in ["nobody", "0:nogroup"] {
            let answer = daemon.try_run(&name, &json!({"argv": ["id"], "user": user, "timeout_ms": 10_000}));
            assert_error(&answer, 422, "USER_NOT_FOUND");
        }
    }
}

#[test]
fn images_that_are_not_what_they_say_are_refused_and_leave_the_store_as_it_was() {
    let daemon = Daemon::start();
    let tar = Tar::new().file("f", Meta::FILE, b"x").finish();
    for (what, bytes) in lies(&tar) {
        let answer = daemon.try_import("bad:1", &bytes);
        assert_eq!(answer.status, 422, "{what}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json()["code"], "IMAGE_INVALID", "{what}");
    }
    assert_eq!(daemon.try_import("bad:1", b"").status / 100, 4, "an empty body");
    let mut foreign = Image::new(vec![tar.clone()]);
    foreign.architecture = "arm64".to_owned();
    let answer = daemon.try_import("bad:1", &foreign.layout_tar("1"));
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(matches!(&*code, "PLATFORM_NOT_FOUND" | "IMAGE_INVALID"), "another platform: {code}");
    assert_eq!(daemon.get("/v1/images")["images"].as_array().map(Vec::len), Some(0));
    let path = format!("/v1/images/{}", escape("bad:1"));
    assert_error(&daemon.request("GET", &path, None), 404, "IMAGE_NOT_FOUND");
    assert_error(&daemon.request("DELETE", &path, None), 404, "IMAGE_NOT_FOUND");
    host::wait_for("layers of refused images to be gone", || daemon.layers() == 0);
    let blobs = daemon.state_dir().join("blobs/sha256").display().to_string();
    host::wait_until_none("blobs of refused images", || {
        host_command("find", &[&blobs, "-type", "f", "!", "-name", "*.partial"])
            .lines()
            .map(str::to_owned)
            .collect()
    });
    daemon.import("good:1", &single(&tar));
}

/// Layers that want to touch something outside, by how they try.
fn attacks(outside: &str) -> Vec<(&'static str, Tar)> {
    const ANYBODY: Meta = Meta { mode: 0o666, uid: 0, gid: 0 };
    let up = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let redirect =
        [("SCHILY.xattr.trusted.overlay.redirect", "/../.."), ("SCHILY.xattr.trusted.overlay.opaque", "y")];
    let long = "n".repeat(300);
    let evil = |tar: Tar, name: &str| tar.file(name, Meta::FILE, b"evil");
    vec![
        ("parent", evil(Tar::new(), &up)),
        ("absolute", evil(Tar::new(), outside)),
        ("through a link", evil(Tar::new().symlink("link", "/"), &format!("link{outside}"))),
        ("over a link", evil(Tar::new().symlink("link", outside), "link")),
        ("hard link out", evil(Tar::new().hardlink("link", outside), "link")),
        ("hard link up", evil(Tar::new().hardlink("link", &up), "link")),
        ("devices", Tar::new().entry(b'3', "mem", "", ANYBODY, b"").entry(b'4', "disk", "", ANYBODY, b"")),
        ("whiteout of the parent", Tar::new().file(".wh...", Meta::FILE, b"")),
        ("whiteout of itself", Tar::new().file(".wh..", Meta::FILE, b"").file(".wh.", Meta::FILE, b"")),
        ("attributes of the overlay", Tar::new().pax(&redirect).directory("d", Meta::DIRECTORY)),
        ("a long name", evil(Tar::new().pax(&[("path", &long)]), "short")),
        ("a lying size", evil(Tar::new().pax(&[("size", "99999999999")]), "f")),
        ("proc is a link", Tar::new().symlink("proc", "/etc").symlink("dev", "/tmp").symlink("sys", "..")),
        ("etc is a file", evil(evil(Tar::new(), "etc"), "tmp")),
    ]
}

#[test]
fn hostile_layers_are_refused_or_harmless() {
    let daemon = Daemon::start();
    let canary = daemon.directory().join("canary");
    std::fs::write(&canary, b"untouched").unwrap();
    for (number, (what, tar)) in attacks(&canary.display().to_string()).into_iter().enumerate() {
        let reference = format!("hostile:{number}");
        let answer = daemon.try_import(&reference, &single(&tar.finish()));
        assert!(matches!(answer.status / 100, 2 | 4), "{what}: {}", String::from_utf8_lossy(&answer.body));
        if answer.status == 200 {
            // Accepted: then a sandbox of it is refused, or made and keeps everything to itself.
            let name = format!("h{number}");
            let spec = json!({"image": reference, "id": name});
            let made = daemon.request("POST", "/v1/sandboxes", Some(&spec));
            assert!(matches!(made.status / 100, 2 | 4), "{what}: {}", String::from_utf8_lossy(&made.body));
            if made.status == 201 {
                daemon.destroy(&name);
            }
        }
        assert_eq!(std::fs::read(&canary).unwrap(), b"untouched", "{what}");
    }
    let layers = daemon.state_dir().join("layers").display().to_string();
    let found = host_command("find", &[&layers, "-type", "c", "-o", "-type", "b"]);
    // A whiteout is a character device 0:0 in overlayfs; anything else is a device that an image brought.
    for path in found.lines() {
        assert_eq!(host_command("stat", &["-c", "%t:%T", path]).trim(), "0:0", "{path}");
    }
}

#[test]
fn image_settings_that_point_elsewhere_are_refused() {
    let daemon = Daemon::start();
    let Some(image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
    for (number, cwd) in ["/proc/self/fd/3", "/proc/1/cwd", "/dev/fd/7", "/proc/self/root"].iter().enumerate()
    {
        let mut image = image.clone();
        image.config["WorkingDir"] = json!(cwd);
        let reference = format!("cwd:{number}");
        daemon.import(&reference, &image.layout_tar("1"));
        let made = daemon.request("POST", "/v1/sandboxes", Some(&json!({"image": reference, "id": "cwd"})));
        if made.status == 201 {
            let answer = daemon.try_run("cwd", &json!({"argv": ["pwd"]}));
            assert_error(&answer, 422, "INVALID_CWD");
            daemon.destroy("cwd");
        } else {
            assert_eq!(made.status / 100, 4, "{cwd}: {}", String::from_utf8_lossy(&made.body));
        }
    }
    let mut other = image.clone();
    other.config["User"] = json!("nobody-here");
    daemon.import("user:1", &other.layout_tar("1"));
    let made = daemon.request("POST", "/v1/sandboxes", Some(&json!({"image": "user:1", "id": "user"})));
    if made.status == 201 {
        assert_error(&daemon.try_run("user", &json!({"argv": ["id"]})), 422, "USER_NOT_FOUND");
        daemon.destroy("user");
    } else {
        assert_error(&made, 422, "USER_NOT_FOUND");
    }
}
