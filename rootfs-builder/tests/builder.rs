//! The real binary: what it says when asked wrongly, and that it builds one image twice to one digest.

use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_rootfs-builder");

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("start the builder")
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "expected a failure");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_shows_examples_and_where_mirrors_come_from() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["rootfs-builder build full --archive --json", "rootfs-builder lock", "PIP_INDEX_URL"] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn an_unknown_image_is_answered_with_the_known_ones() {
    let text = errors(&run(&["build", "everything"]));
    assert!(text.contains("base, python, node, full"), "{text}");
}

#[test]
fn an_image_named_twice_is_refused() {
    assert!(errors(&run(&["build", "base", "base"])).contains("named twice"));
}

#[test]
fn a_missing_lock_names_the_fix() {
    let text = errors(&run(&["build", "base", "--lock", "/nonexistent"]));
    assert!(text.contains("rootfs-builder lock"), "{text}");
}

#[test]
fn a_place_that_holds_something_else_is_refused_before_any_work() {
    let directory = tempfile::tempdir().expect("directory");
    let precious = directory.path().join("precious");
    std::fs::write(&precious, "thesis").expect("file");
    let cache = directory.path().join("cache");
    let text = errors(&run(&["build", "base", "--output", text_of(&precious), "--cache", text_of(&cache)]));
    assert!(text.contains("is not an image"), "{text}");
    assert_eq!(std::fs::read_to_string(&precious).expect("read"), "thesis");
}

#[test]
fn an_unreachable_mirror_is_an_error_that_leaves_only_the_cache() {
    let directory = tempfile::tempdir().expect("directory");
    let cache = directory.path().join("cache");
    let output = directory.path().join("image");
    // Port 1 on loopback: refused at once, wherever the test runs.
    let arguments = ["build", "base", "--mirror", "http://127.0.0.1:1/debian", "--output", text_of(&output)];
    let text = errors(&run(&[&arguments[..], &["--cache", text_of(&cache)]].concat()));
    assert!(text.contains("check the network"), "{text}");
    assert!(!output.exists());
    let left: Vec<_> =
        cache.read_dir().expect("cache").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(left, ["sha256"]);
}

#[test]
#[ignore = "downloads Debian packages; `cargo test -p rootfs-builder -- --ignored` runs it"]
fn two_builds_of_base_give_one_digest_and_a_working_debian() {
    let directory = tempfile::tempdir().expect("directory");
    let cache = directory.path().join("cache");
    let indexes = ["one", "two"].map(|name| {
        let output = directory.path().join(name);
        let result =
            run(&["build", "base", "--relock", "--cache", text_of(&cache), "--output", text_of(&output)]);
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        std::fs::read_to_string(output.join("index.json")).expect("index")
    });
    assert_eq!(indexes[0], indexes[1]);
    let index: serde_json::Value = serde_json::from_str(&indexes[0]).expect("index");
    let blob = |digest: &serde_json::Value| {
        let sum = digest.as_str().expect("digest").trim_start_matches("sha256:").to_owned();
        std::fs::read(directory.path().join("one/blobs/sha256").join(sum)).expect("blob")
    };
    let manifest: serde_json::Value =
        serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).expect("manifest");
    let layer = blob(&manifest["layers"][0]["digest"]);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer.as_slice()));
    let paths: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|e| e.expect("entry").path().expect("path").into_owned())
        .collect();
    for wanted in
        ["usr/bin/bash", "usr/bin/apt-get", "etc/ssl/certs/ca-certificates.crt", "var/lib/dpkg/status"]
    {
        assert!(paths.iter().any(|path| path == Path::new(wanted)), "{wanted}");
    }
    for unwanted in ["dev/null", "etc/machine-id", "var/log/dpkg.log", "usr/share/man/man1/bash.1.gz"] {
        assert!(!paths.iter().any(|path| path == Path::new(unwanted)), "{unwanted}");
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}
