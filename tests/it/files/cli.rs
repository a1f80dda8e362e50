//! `stockade file`, and what `stockade cp` makes of trees.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::Files;
use crate::harness::{binary, host, host_command, scratch};

/// Runs with these arguments, which need not be UTF-8, and this input.
fn cli(files: &Files, arguments: &[&[u8]], input: &[u8]) -> Output {
    let mut child = Command::new(binary())
        .args(arguments.iter().map(|argument| OsStr::from_bytes(argument)))
        .env("STOCKADE_SOCKET", files.daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read it has its reason to say.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Runs `stockade file VERB SANDBOX …`.
fn file(files: &Files, verb: &str, arguments: &[&[u8]]) -> (Option<i32>, Vec<u8>, String) {
    let before = [b"file".as_slice(), verb.as_bytes(), files.id.as_bytes()];
    let output = cli(files, &[&before, arguments].concat(), b"");
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn done(files: &Files, verb: &str, arguments: &[&[u8]]) -> Vec<u8> {
    let (code, out, err) = file(files, verb, arguments);
    assert_eq!((code, &*err), (Some(0), ""), "{verb}");
    out
}

#[track_caller]
fn refused(files: &Files, verb: &str, arguments: &[&[u8]], words: &[&str]) {
    let (code, out, err) = file(files, verb, arguments);
    assert_eq!((code, out.len()), (Some(125), 0), "{verb}: {err}");
    assert!(words.iter().all(|word| err.contains(word)), "{verb}: {words:?} are not in {err}");
}

#[test]
fn files_are_made_moved_linked_and_removed() {
    let files = Files::start();
    done(&files, "mkdir", &[b"-p", b"--mode", b"700", b"d/e/f", b"other"]);
    assert_eq!(
        files.shell("stat -c '%n %a' /workspace/d/e/f /workspace/other"),
        "/workspace/d/e/f 700\n/workspace/other 700\n"
    );
    refused(&files, "mkdir", &[b"d"], &["d: it is there already"]);
    files.shell("echo content > /workspace/d/a");
    done(&files, "cp", &[b"d", b"copy"]);
    refused(&files, "cp", &[b"d/a", b"copy/a"], &["there already"]);
    done(&files, "cp", &[b"--overwrite", b"d/a", b"copy/a"]);
    done(&files, "mv", &[b"copy/a", b"/workspace/b"]);
    refused(&files, "mv", &[b"none", b"x"], &["no such file"]);
    done(&files, "ln", &[b"/nowhere", b"link"]);
    done(&files, "chmod", &[b"640", b"b"]);
    done(&files, "chown", &[b"1000:1000", b"b"]);
    assert_eq!(
        files.shell("cd /workspace; stat -c '%a %u %g' b; readlink link; ls copy"),
        "640 1000 1000\n/nowhere\ne\n"
    );
    refused(&files, "chmod", &[b"9", b"b"], &["the mode"]);
    refused(&files, "rm", &[b"d"], &["d: the directory is not empty", "--recursive"]);
    // One that cannot be removed does not keep the others from it.
    refused(&files, "rm", &[b"-r", b"none", b"d", b"copy"], &["none: there is no such file"]);
    done(&files, "rm", &[b"-f", b"none", b"b", b"link", b"other"]);
    assert_eq!(files.shell("ls -A /workspace"), "");
}

#[test]
fn files_are_listed_shown_and_read_whatever_their_names() {
    let files = Files::start();
    files.shell("cd /workspace; mkdir sub .hidden; printf one > sub/a.txt; printf two > sub/b; ln -s b sub/l; printf odd > \"$(printf 'o\\377\\nx')\"");
    let odd = b"o\xff\nx".as_slice();
    assert_eq!(done(&files, "ls", &[]), b"o\xff\nx\nsub\n");
    assert_eq!(
        done(&files, "ls", &[b"-r", b"-a", b"-0"]),
        b".hidden\0o\xff\nx\0sub\0sub/a.txt\0sub/b\0sub/l\0"
    );
    assert_eq!(done(&files, "ls", &[b"/workspace", b"-r", b"--glob", b"*.txt"]), b"sub/a.txt\n");
    let long = String::from_utf8(done(&files, "ls", &[b"sub", b"--long"])).unwrap();
    let lines: Vec<_> = long.lines().collect();
    assert!(lines[0].starts_with("-rw-r--r--   1     0     0            3 2"), "{long}");
    assert!(lines[2].starts_with("lrwxrwxrwx ") && lines[2].ends_with(" l -> b"), "{long}");
    let listed: Value = serde_json::from_slice(&done(&files, "ls", &[b"--json"])).unwrap();
    assert_eq!(listed["entries"][0]["path"], json!({"base64": "b/8KeA=="}), "{listed}");
    assert_eq!(done(&files, "cat", &[b"sub/a.txt", odd]), b"oneodd");
    let stat = done(&files, "stat", &[odd]);
    assert!(stat.starts_with(b"path      o\xff\nx\ntype      file\nsize      3\n"), "{stat:?}");
    let link: Value =
        serde_json::from_slice(&done(&files, "stat", &[b"--json", b"--no-follow", b"sub/l"])).unwrap();
    assert_eq!((&link["type"], &link["target"]), (&json!("symlink"), &json!("b")));
    assert_eq!(done(&files, "exists", &[odd]), b"");
    assert_eq!(file(&files, "exists", &[b"none"]).0, Some(1));
    done(&files, "mv", &[odd, b"p\xfe"]);
    done(&files, "rm", &[b"p\xfe"]);
    refused(&files, "cat", &[b"p\xfe"], &["p\\xfe: there is no such file"]);
    refused(&files, "cat", &[b"sub"], &["sub: it is a directory", "stockade file ls"]);
    refused(&files, "ls", &[b"none"], &["none: there is no such file"]);
}

#[test]
fn all_pages_of_a_list_come() {
    let files = Files::start();
    files.shell("mkdir /workspace/m; cd /workspace/m; seq 1 10500 | xargs touch");
    let listed = done(&files, "ls", &[b"m"]);
    assert_eq!(listed.iter().filter(|&&byte| byte == b'\n').count(), 10_500);
    let listed: Value = serde_json::from_slice(&done(&files, "ls", &[b"m", b"--json"])).unwrap();
    assert_eq!((listed["entries"].as_array().map(Vec::len), &listed["cursor"]), (Some(10_500), &Value::Null));
}

#[test]
fn text_is_searched_and_changes_are_asked_for() {
    let files = Files::start();
    files.shell("cd /workspace; mkdir d; printf 'one\\nt.o\\n' > d/a; printf 'two\\n' > d/b.rs; printf 'TWO\\377\\n' > c");
    assert_eq!(done(&files, "grep", &[b"t.o"]), b"d/a:2:t.o\nd/b.rs:1:two\n");
    assert_eq!(done(&files, "grep", &[b"-F", b"t.o", b"/workspace/d"]), b"/workspace/d/a:2:t.o\n");
    assert_eq!(done(&files, "grep", &[b"-i", b"two", b"c"]), b"c:1:TWO\xff\n");
    assert_eq!(done(&files, "grep", &[b"two|one", b"d/", b"--glob", b"*.rs"]), b"d/b.rs:1:two\n");
    assert_eq!(file(&files, "grep", &[b"nothing-like-it"]).0, Some(1));
    refused(&files, "grep", &[b"("], &["cannot be compiled"]);
    let ask = |more: &[&[u8]]| {
        let out = String::from_utf8(done(&files, "changes", &[&[b"/workspace".as_slice()], more].concat()))
            .unwrap();
        let (status, cursor) =
            out.trim_end().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        (status, cursor)
    };
    let (_, cursor) = ask(&[]);
    let (status, cursor) = ask(&[b"--cursor", cursor.as_bytes()]);
    assert_eq!(status, "unchanged");
    files.shell("touch /workspace/new");
    host::wait_for("the change", || ask(&[b"--cursor", cursor.as_bytes()]).0 == "changed");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_private_tree_stays_private_on_both_ways() {
    let files = Files::start();
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).into_os_string();
    let cp = |from: OsString, to: OsString| {
        let output = cli(&files, &[b"cp", &from.into_vec(), &to.into_vec()], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let inside = |path: &str| OsString::from(format!("{}:{path}", files.id));
    for (name, bits) in [("pm", 0o700), ("ro", 0o555)] {
        fs::create_dir_all(at(name)).unwrap();
        fs::write(directory.path().join(name).join("key"), "secret").unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(bits)).unwrap();
        // Into a directory, to a new name, below directories that are not there.
        for to in ["/tmp/".to_owned(), format!("/tmp/{name}-new"), format!("/tmp/far/{name}/away")] {
            cp(at(name), inside(&to));
        }
        let paths = format!("/tmp/{name} /tmp/{name}-new /tmp/far/{name}/away");
        assert_eq!(files.shell(&format!("stat -c %a {paths}")), format!("{bits:o}\n").repeat(3));
        cp(inside(&format!("/tmp/{name}")), at(&format!("back-{name}")));
        let back = directory.path().join(format!("back-{name}"));
        assert_eq!((mode(&back), fs::read(back.join("key")).unwrap()), (bits, b"secret".to_vec()));
    }
    // One that is there keeps its mode, as with cp -r.
    fs::create_dir(at("open")).unwrap();
    cp(inside("/tmp/pm"), at("open"));
    assert_eq!(
        (mode(&directory.path().join("open")), mode(&directory.path().join("open/pm"))),
        (0o755, 0o700)
    );
    cp(inside("/tmp/pm/."), at("open"));
    assert_eq!(mode(&directory.path().join("open")), 0o755);
}

#[test]
fn a_tree_is_an_archive_on_a_pipe() {
    let files = Files::start();
    let directory = scratch();
    files.shell("mkdir -p /workspace/d/e; printf text > /workspace/d/e/f");
    let inside = |path: &str| format!("{}:{path}", files.id).into_bytes();
    let tar = cli(&files, &[b"cp", &inside("/workspace/d"), b"-"], b"");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    fs::write(directory.path().join("tar"), &tar.stdout).unwrap();
    let at = directory.path().join("tar").display().to_string();
    assert_eq!(host_command("tar", &["-tf", &at]), "e/\ne/f\n");
    for to in ["/tmp", "/tmp/new/"] {
        let output = cli(&files, &[b"cp", b"-", &inside(to)], &tar.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(files.shell("cat /tmp/e/f /tmp/new/e/f"), "texttext");
    let output = cli(&files, &[b"cp", b"-", &inside("/tmp")], b"no archive at all");
    assert_eq!(output.status.code(), Some(125));
}
