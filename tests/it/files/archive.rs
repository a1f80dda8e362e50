//! Trees as archives: what `tar` of the host makes of them, and what hostile ones do not.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::Files;
use crate::harness::http::Response;
use crate::harness::{assert_error, host_command, scratch};

fn upload(files: &Files, path: &str, more: &str, tar: &[u8]) -> Response {
    files.daemon.send(
        "PUT",
        &files.route("archive", path, more),
        &[("Content-Type", "application/x-tar")],
        tar,
    )
}

/// A tree with all that an archive can hold for an ordinary user.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("d/empty")).unwrap();
    fs::write(root.join("d/file"), vec![7; 100_000]).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"d/\xff\n name")), "odd").unwrap();
    fs::write(root.join("d").join("x".repeat(200)), "long").unwrap();
    fs::write(root.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../outside", root.join("link")).unwrap();
    symlink("y".repeat(300), root.join("longlink")).unwrap();
    fs::hard_link(root.join("script"), root.join("twin")).unwrap();
    fs::create_dir(root.join("readonly")).unwrap();
    fs::write(root.join("readonly/file"), "r").unwrap();
    fs::set_permissions(root.join("readonly"), fs::Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn a_tree_goes_up_and_comes_down_the_same() {
    let files = Files::start();
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (up, down) = (directory.path().join("up"), directory.path().join("down"));
    fs::create_dir(&up).unwrap();
    fs::create_dir(&down).unwrap();
    plant(&up);
    for format in ["gnu", "pax"] {
        host_command("tar", &["-C", &at("up"), &format!("--format={format}"), "-cf", &at("up.tar"), "."]);
        let path = format!("/workspace/{format}/below");
        let answer = upload(&files, &path, "", &fs::read(at("up.tar")).unwrap());
        assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
        let answer = files.get("archive", &path, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-tar")));
        fs::write(at("down.tar"), &answer.body).unwrap();
        host_command("tar", &["-C", &at("down"), "-xpf", &at("down.tar")]);
        host_command("diff", &["-r", "--no-dereference", &at("up"), &at("down")]);
        assert_eq!(down.join("readonly").metadata().unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(down.join("script").metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(
            down.join("script").metadata().unwrap().ino(),
            down.join("twin").metadata().unwrap().ino()
        );
        host_command("sh", &["-c", &format!("chmod -R u+w {0} && rm -r {0} && mkdir {0}", at("down"))]);
    }
    // One file is an archive of one.
    let answer = files.get("archive", "/workspace/gnu/below/d/file", "");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    fs::write(at("one.tar"), &answer.body).unwrap();
    assert_eq!(host_command("tar", &["-tf", &at("one.tar")]), "file\n");
    assert_error(&files.get("archive", "/workspace/none", ""), 404, "FILE_NOT_FOUND");
    assert_error(&files.get("archive", "/dev/null", ""), 422, "FILE_NOT_REGULAR");
}

#[test]
fn owners_are_taken_from_an_archive_only_when_asked() {
    let files = Files::start();
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("a"), "a").unwrap();
    host_command("tar", &["-C", &at(""), "--owner=12", "--group=34", "-cf", &at("a.tar"), "a"]);
    let tar = fs::read(at("a.tar")).unwrap();
    assert_eq!(upload(&files, "/workspace", "", &tar).status, 204);
    assert_eq!(files.shell("stat -c '%u %g' /workspace/a"), "0 0\n");
    assert_eq!(upload(&files, "/workspace", "&owners", &tar).status, 204);
    assert_eq!(files.shell("stat -c '%u %g' /workspace/a"), "12 34\n");
    let denied = upload(&files, "/tmp/x", "&owners&user=65534", &tar);
    assert_error(&denied, 422, "ARCHIVE_INVALID");
}

#[test]
fn a_hostile_archive_stays_where_it_was_sent() {
    let files = Files::start();
    let directory = scratch();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir_all(directory.path().join("t/sub")).unwrap();
    fs::write(at("t/evil"), "evil").unwrap();
    symlink("/etc", directory.path().join("t/out")).unwrap();
    let tar = |name: &str, arguments: &[&str]| {
        let mut all = vec!["-P", "-C", &*Box::leak(at("t").into_boxed_str())];
        all.extend_from_slice(arguments);
        host_command("tar", &[&["-cf", Box::leak(at(name).into_boxed_str())], all.as_slice()].concat());
        fs::read(at(name)).unwrap()
    };
    let climbing = tar("climb.tar", &["--transform=s,^evil,../../etc/evil,", "evil"]);
    let absolute = tar("abs.tar", &["--transform=s,^evil,/etc/evil,", "evil"]);
    let mut through = tar("link.tar", &["out"]);
    let second = tar("second.tar", &["--transform=s,^evil,out/evil,", "evil"]);
    // The link, then a file through it: without the two blocks of zeros in between.
    let end = through.len() - through.iter().rev().take_while(|&&byte| byte == 0).count();
    through.truncate(end.next_multiple_of(512));
    through.extend_from_slice(&second);
    assert_error(&upload(&files, "/workspace", "", &climbing), 422, "ARCHIVE_INVALID");
    // An absolute name is one below the directory.
    assert_eq!(upload(&files, "/workspace", "", &absolute).status, 204);
    assert_eq!(files.content("/workspace/etc/evil"), b"evil");
    assert_error(&upload(&files, "/workspace", "", &through), 422, "ARCHIVE_INVALID");
    assert_eq!(files.shell("ls /etc | grep evil; readlink /workspace/out"), "/etc\n");
    let directory_of_probe = tar("good.tar", &["evil"]);
    assert_eq!(upload(&files, "/workspace/good", "", &directory_of_probe).status, 204);
    let cut = &directory_of_probe[..700];
    assert_error(&upload(&files, "/workspace/cut", "", cut), 422, "ARCHIVE_INVALID");
    // Neither says that it ends: the one is nothing, the other was cut between two entries.
    let end = directory_of_probe.iter().rposition(|&byte| byte != 0).unwrap().next_multiple_of(512);
    let (nothing, part) = (&directory_of_probe[..0], &directory_of_probe[..end]);
    for unmarked in [nothing, part] {
        assert_error(&upload(&files, "/workspace/cut", "", unmarked), 422, "ARCHIVE_INVALID");
    }
    assert_eq!(upload(&files, "/workspace/none", "", &[0; 1024]).status, 204, "an archive of nothing");
    assert_error(&upload(&files, "/workspace/junk", "", &super::noise(5000)), 422, "ARCHIVE_INVALID");
    assert_error(&upload(&files, "/workspace/good/evil", "", &directory_of_probe), 409, "NOT_DIRECTORY");
    // The service goes on.
    assert_eq!(files.content("/workspace/good/evil"), b"evil");
}

#[test]
fn a_download_that_fails_on_the_way_does_not_look_whole() {
    let files = Files::start();
    files.shell("cd /workspace && mkdir -p t/a t/z && head -c 1000000 /dev/zero > t/a/f && chmod 700 t/z && chmod 755 /workspace");
    let mut connection = files.daemon.connect();
    connection.send("GET", &files.route("archive", "/workspace/t", "&user=65534"), &[], b"").unwrap();
    let head = connection.receive_head().unwrap();
    assert_eq!(head.status, 200);
    let mut whole = Vec::new();
    let read = std::io::Read::read_to_end(&mut connection.body(&head), &mut whole);
    assert!(read.is_err(), "{} bytes, and no error", whole.len());
    assert_eq!(files.get("archive", "/workspace/t", "").status, 200, "as root");
}
