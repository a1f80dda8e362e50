//! `stockade cp`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use super::{Files, noise};
use crate::harness::{binary, host_command, scratch};

fn cp(files: &Files, from: &str, to: &str) {
    let output = files.daemon.cli(&["cp", from, to]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cp {from} {to}: {error}");
    assert_eq!((output.stdout.len(), &*error), (0, ""));
}

#[test]
fn files_and_trees_are_copied_both_ways() {
    let files = Files::start();
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let inside = |path: &str| format!("{}:{path}", files.id);
    fs::write(at("a"), noise(3_000_000)).unwrap();
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o750)).unwrap();
    cp(&files, &at("a"), &inside("/workspace/b"));
    cp(&files, &at("a"), &inside("/workspace"));
    cp(&files, &at("a"), &inside(""));
    assert_eq!(files.shell("cd /workspace; stat -c '%n %s %a' *; cmp a b"), "a 3000000 750\nb 3000000 750\n");
    cp(&files, &inside("/workspace/b"), &at("back"));
    cp(&files, &inside("b"), &at(""));
    for name in ["back", "b"] {
        assert!(fs::read(at(name)).unwrap() == noise(3_000_000));
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o750);
    }
    fs::create_dir_all(at("t/sub")).unwrap();
    fs::write(at("t/sub/file"), "content").unwrap();
    symlink("sub", at("t/link")).unwrap();
    cp(&files, &at("t"), &inside("/workspace/tree"));
    cp(&files, &at("t"), &inside("/workspace/tree"));
    assert_eq!(
        files.shell("cd /workspace/tree; find . | sort"),
        ".\n./link\n./sub\n./sub/file\n./t\n./t/link\n./t/sub\n./t/sub/file\n"
    );
    files.shell("rm -r /workspace/tree/t");
    cp(&files, &inside("/workspace/tree"), &at("down"));
    cp(&files, &inside("/workspace/tree"), &at("down"));
    host_command("diff", &["-r", "--no-dereference", &at("t"), &at("down/tree")]);
    assert_eq!(fs::read_link(at("down/link")).unwrap().to_str(), Some("sub"));
}

#[test]
fn streams_are_copied_and_failures_said() {
    let files = Files::start();
    let inside = format!("{}:/workspace/a", files.id);
    let mut child = Command::new(binary())
        .args(["cp", "-", &inside])
        .env("STOCKADE_SOCKET", files.daemon.socket())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&noise(1_000_000)).unwrap();
    assert!(child.wait().unwrap().success());
    let output = files.daemon.cli(&["cp", &inside, "-"]);
    assert!(output.status.success() && output.stdout == noise(1_000_000));
    let json = files.daemon.cli(&["--json", "cp", &inside, "/dev/null/x"]);
    assert_eq!(json.status.code(), Some(125));
    for (from, to, says) in [
        ("/etc/passwd", "/tmp/x", "in a sandbox"),
        ("no-such-sandbox:/a", "-", "no sandbox"),
        (&*format!("{}:/none", files.id), "-", "no such file"),
        (&*format!("{}:/dev/zero", files.id), "-", "a device"),
        ("/no/such/file", &*inside, "/no/such/file"),
        ("/etc/passwd", &*format!("{}:/workspace/none/x", files.id), "no such file"),
    ] {
        let output = files.daemon.cli(&["cp", from, to]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{from} {to}: {error}");
        assert!(error.contains(says), "{from} {to}: {error}");
    }
}

#[test]
fn what_comes_out_stays_where_it_was_sent() {
    let files = Files::start();
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(at("outside")).unwrap();
    fs::create_dir(at("into")).unwrap();
    // The way out is in the target already: an earlier copy, or somebody else, made it.
    symlink(at("outside"), at("into/d")).unwrap();
    files.shell("mkdir -p /workspace/t/d && printf evil > /workspace/t/d/evil && printf x > /workspace/t/s && chmod 4755 /workspace/t/s");
    let output = files.daemon.cli(&["cp", &format!("{}:/workspace/t/.", files.id), &at("into")]);
    assert_eq!(output.status.code(), Some(125), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 0);
    fs::remove_file(at("into/d")).unwrap();
    cp(&files, &format!("{}:/workspace/t/.", files.id), &at("into"));
    assert_eq!(fs::read(at("into/d/evil")).unwrap(), b"evil");
    assert_eq!(fs::metadata(at("into/s")).unwrap().permissions().mode() & 0o7777, 0o755);
}
