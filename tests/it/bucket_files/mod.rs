//! A bucket as files, against a real server that checks signatures: what programs do, what other clients see, what goes
//! wrong. Each test has a worker and a mount of its own; the sandbox around it is `buckets`' part.

mod ceph;
mod hostile;
mod mount;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::{Strategy as _, any, prop_oneof};
use serde_json::json;
use stockade::wire::bucket::{BucketCall, BucketFailureKind, BucketStart, BucketWord, Credentials};

use crate::harness::s3::S3;
use crate::harness::tls::Authority;
use crate::harness::{scratch, skip};
use mount::{Fault, Mounted, Proxy, anonymous, start};

macro_rules! server {
    () => {
        match S3::start() {
            Some(server) => server,
            None => skip!("registries", "Python has no moto: cargo xtask test installs it"),
        }
    };
}

/// Longer than any attribute is believed in these tests.
const STALE: Duration = Duration::from_millis(400);

const PATIENCE: Duration = Duration::from_secs(60);

/// For tests that wait until an operation is given up: long enough for attempts that pass.
const IMPATIENCE_MS: u64 = 4000;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn programs_work_and_everything_is_in_the_bucket() {
    let server = server!();
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bucket/s3");
    mounted.shell(&format!("cp -r {source} copy && diff -r {source} copy"));
    mounted.shell(&format!(
        "tar -C {source} -cf src.tar . && mkdir out && tar -C out -xf src.tar && diff -r {source} out"
    ));
    mounted.shell(&format!("rsync -a {source}/ synced && rsync -ac --itemize-changes {source}/ synced | tee again && test ! -s again"));
    mounted.shell("python3 -c 'open(\"log\",\"a\").write(\"one\\n\")'; python3 -c 'open(\"log\",\"a\").write(\"two\\n\")'");
    assert_eq!(server.get("log").as_deref(), Some("one\ntwo\n"));
    mounted.shell("mv log moved && mv out there && test -f there/mod.rs && test ! -e out && test ! -e log");
    mounted.shell(
        "printf 'first\\n' > text && vim -es -u NONE -c 'set backupcopy=no' -c '%s/first/second/' -c wq text",
    );
    assert_eq!(server.get("text").as_deref(), Some("second\n"));
    mounted.shell(
        "git init -q work && cd work && git config user.email a@b && git config user.name n && cp -r ../copy . \
         && git add -A && git commit -qm all && git gc -q && cd .. && git clone -q work cloned && git -C cloned fsck \
         && diff -r copy cloned/copy && test -z \"$(git -C cloned status --porcelain)\"",
    );
    mounted.shell(
        "python3 -c 'import sqlite3; d = sqlite3.connect(\"db\"); d.execute(\"create table t(x)\"); \
         [d.execute(\"insert into t values (?)\", (i,)) for i in range(100)]; d.commit(); d.close()' \
         && test \"$(python3 -c 'import sqlite3; print(sqlite3.connect(\"db\").execute(\"select sum(x) from t\").fetchone()[0])')\" = 4950",
    );
    mounted.shell(
        "printf 'x' > run && chmod 755 run && ln -s moved link && touch -d '2001-02-03 04:05:06.789' moved",
    );
    // A mount that knows nothing yet sees the same.
    let other = Mounted::new(&start(&server, &server.endpoint));
    assert_eq!(other.shell("cat link"), "one\ntwo\n");
    assert_eq!(fs::read_link(other.join("link")).unwrap(), Path::new("moved"));
    assert_eq!(fs::metadata(other.join("run")).unwrap().mode() & 0o777, 0o755);
    let moved = fs::metadata(other.join("moved")).unwrap();
    assert_eq!(moved.mtime_nsec(), 789_000_000);
    other.shell(&format!("diff -r {source} synced && diff -r {source} there && git -C cloned fsck"));
    other.shell("rm -r cloned work there && test ! -e work");
    assert_eq!(mounted.unmount(PATIENCE), BucketWord::Drained);
}

#[test]
fn pip_installs_into_a_bucket() {
    let server = server!();
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    let package = scratch();
    fs::create_dir(package.path().join("thing")).unwrap();
    fs::write(package.path().join("thing/__init__.py"), "value = 42\n").unwrap();
    fs::write(
        package.path().join("setup.py"),
        "from setuptools import setup\nsetup(name='thing', version='1', packages=['thing'])\n",
    )
    .unwrap();
    mounted.shell(&format!(
        "cd {0} && /usr/bin/python3 -m pip --quiet wheel --no-deps --no-build-isolation --no-index -w {0}/wheels . && cd - >/dev/null \
         && /usr/bin/python3 -m pip --quiet install --no-index --target site {0}/wheels/*.whl",
        package.path().display()
    ));
    assert_eq!(
        mounted.shell("PYTHONPATH=site /usr/bin/python3 -c 'import thing; print(thing.value)'"),
        "42\n"
    );
}

#[test]
fn large_files_go_both_ways_over_tls_within_bounded_memory() {
    let server = server!();
    let authority = Authority::new();
    let proxy = Proxy::new(&server, Some(authority.server(&["localhost"], true)));
    let ca_pem = fs::read_to_string(authority.path()).unwrap();
    let start = BucketStart { ca_pem, ..start(&server, &proxy.endpoint) };
    let mounted = Mounted::new(&start);
    mounted.shell("head -c 40000001 /dev/urandom > big && sha256sum big > sum");
    let other = Mounted::new(&start);
    other.shell("sha256sum -c sum && cp big again && cmp big again");
    let size = server.try_call("head_object", &json!({"Bucket": "photos", "Key": "again"}));
    assert_eq!(size["ok"]["ContentLength"], 40_000_001);
    for mounted in [&mounted, &other] {
        assert!(mounted.peak_kib() < (64 << 10) * 2, "{} KiB", mounted.peak_kib());
    }
    // A certificate that nobody vouches for, and one that has run out.
    let untrusted = BucketStart { ca_pem: String::new(), ..start.clone() };
    let kind = Mounted::try_new(&untrusted, &scratch()).err().unwrap().kind;
    assert_eq!(kind, BucketFailureKind::BadCertificate);
    let expired = Proxy::new(&server, Some(authority.server(&["localhost"], false)));
    let expired = BucketStart { ca_pem: start.ca_pem.clone(), ..mount::start(&server, &expired.endpoint) };
    assert_eq!(Mounted::try_new(&expired, &scratch()).err().unwrap().kind, BucketFailureKind::BadCertificate);
}

#[test]
fn a_mount_that_cannot_be_says_why() {
    let server = server!();
    let fails = |start: &BucketStart| Mounted::try_new(start, &scratch()).err().unwrap().kind;
    let good = start(&server, &server.endpoint);
    assert_eq!(
        fails(&BucketStart { bucket: "absent".to_owned(), ..good.clone() }),
        BucketFailureKind::NoSuchBucket
    );
    let wrong = Credentials::Keys {
        access_key_id: server.access_key_id.clone(),
        secret_access_key: "wrong".to_owned(),
        session_token: None,
        expires_ms: None,
    };
    assert_eq!(fails(&BucketStart { credentials: wrong, ..good }), BucketFailureKind::Denied);
    assert_eq!(fails(&anonymous("http://127.0.0.1:1")), BucketFailureKind::Unreachable);
}

#[test]
fn others_see_a_file_when_it_is_closed_and_we_see_theirs_in_time() {
    let server = server!();
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    let mut file = File::create(mounted.join("new")).unwrap();
    file.write_all(b"bytes").unwrap();
    assert_eq!(server.get("new"), None, "not before it is closed");
    assert_eq!(fs::read(mounted.join("new")).unwrap(), b"bytes", "but here");
    file.sync_all().unwrap();
    assert_eq!(server.get("new").as_deref(), Some("bytes"));
    file.write_all(b" more").unwrap();
    drop(file);
    assert_eq!(server.get("new").as_deref(), Some("bytes more"));

    server.put("new", "theirs");
    server.put("dir/implicit", "made");
    std::thread::sleep(STALE);
    assert_eq!(fs::read(mounted.join("new")).unwrap(), b"theirs");
    assert_eq!(fs::read(mounted.join("dir/implicit")).unwrap(), b"made");
    // The last file of a directory that nobody has made goes, and the directory stays.
    fs::remove_file(mounted.join("dir/implicit")).unwrap();
    assert_eq!(fs::read_dir(mounted.join("dir")).unwrap().count(), 0);
    fs::remove_dir(mounted.join("dir")).unwrap();
    assert_eq!(mounted.shell("ls"), "new\n");
}

#[test]
fn an_object_that_changes_while_it_is_read_is_never_a_mixture() {
    let server = server!();
    server.put("text", &"a".repeat(3 << 20));
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    let file = File::open(mounted.join("text")).unwrap();
    let mut byte = [0; 1];
    file.read_exact_at(&mut byte, 0).unwrap();
    server.put("text", &"b".repeat(3 << 20));
    std::thread::sleep(STALE);
    let mut all = vec![0; 3 << 20];
    match file.read_exact_at(&mut all, 0) {
        Ok(()) => assert!(all.iter().all(|byte| *byte == b'a')),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
    }
    assert!(fs::read(mounted.join("text")).unwrap().iter().all(|byte| *byte == b'b'));
}

#[test]
fn two_writers_do_not_silently_lose_data_where_that_is_asked_for() {
    let server = server!();
    server.put("shared", "base");
    let asked = BucketStart { conditional_writes: true, ..start(&server, &server.endpoint) };
    let mounted = Mounted::new(&asked);
    let mut file = File::options().write(true).open(mounted.join("shared")).unwrap();
    file.write_all(b"mine").unwrap();
    server.put("shared", "theirs");
    assert_eq!(errno(file.sync_all()), libc::ESTALE);
    drop(file);
    assert_eq!(server.get("shared").as_deref(), Some("theirs"));
    let mut file = File::create(mounted.join("fresh")).unwrap();
    file.write_all(b"mine").unwrap();
    server.put("fresh", "theirs");
    assert_eq!(errno(file.sync_all()), libc::ESTALE);
    drop(file);
    assert_eq!(server.get("fresh").as_deref(), Some("theirs"));
    match mounted.unmount(Duration::from_millis(500)) {
        BucketWord::Lost { mut files, count: 2 } => {
            files.sort();
            assert_eq!(files, ["fresh", "shared"]);
        }
        other => panic!("{other:?}"),
    }
    // Without being asked for, the last one wins.
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    let mut file = File::options().write(true).open(mounted.join("shared")).unwrap();
    file.write_all(b"mine").unwrap();
    server.put("shared", "their");
    drop(file);
    assert_eq!(server.get("shared").as_deref(), Some("miners"));
}

#[test]
fn what_passes_is_not_noticed_and_what_stays_is_an_error() {
    let server = server!();
    server.put("text", &"0123456789".repeat(1_000_000));
    let proxy = Proxy::new(&server, None);
    let asked = BucketStart { patience_ms: IMPATIENCE_MS, ..start(&server, &proxy.endpoint) };
    let mounted = Mounted::new(&asked);
    let expected = "0123456789".repeat(1_000_000).into_bytes();
    for (fault, times) in [(Fault::Busy, 3), (Fault::Reset, 3), (Fault::Truncated, 3)] {
        proxy.set(fault, times);
        fs::write(mounted.join("written"), format!("{fault:?}")).unwrap();
        assert_eq!(server.get("written"), Some(format!("{fault:?}")));
        proxy.set(fault, times);
        // Another version, so that nothing of it is cached.
        server.put("text", std::str::from_utf8(&expected).unwrap());
        std::thread::sleep(STALE);
        assert!(fs::read(mounted.join("text")).unwrap() == expected, "{fault:?}");
    }
    assert!(mounted.status().retries >= 6, "{:?}", mounted.status());
    proxy.set(Fault::Reset, u64::MAX);
    std::thread::sleep(STALE);
    assert_eq!(errno(fs::read(mounted.join("text"))), libc::EIO);
    let mut file = File::create(mounted.join("kept"));
    // Whether there is such a file nobody can say.
    assert_eq!(
        errno(
            file.as_mut()
                .map(|_| ())
                .map_err(|error| std::io::Error::from_raw_os_error(error.raw_os_error().unwrap()))
        ),
        libc::EIO
    );
    proxy.set(Fault::None, 0);
    fs::write(mounted.join("kept"), "now").unwrap();
    assert_eq!(server.get("kept").as_deref(), Some("now"));
}

#[test]
fn an_upload_that_fails_is_an_error_of_its_close_and_is_tried_again() {
    let server = server!();
    let proxy = Proxy::new(&server, None);
    let kept = scratch();
    let asked = BucketStart { patience_ms: IMPATIENCE_MS, ..start(&server, &proxy.endpoint) };
    let mut mounted = Mounted::try_new(&asked, &kept).unwrap();
    let mut file = File::create(mounted.join("report")).unwrap();
    file.write_all(b"worth keeping").unwrap();
    proxy.set(Fault::Reset, u64::MAX);
    assert_eq!(errno(file.sync_all()), libc::EIO);
    drop(file);
    assert_eq!(mounted.status().failing_uploads, 1);
    assert_eq!(fs::read(mounted.join("report")).unwrap(), b"worth keeping");
    // Killed before the server is back: the next worker on the same directory does it.
    mounted.kill();
    assert_eq!(errno(fs::read(mounted.join("report"))), libc::ENOTCONN);
    proxy.set(Fault::None, 0);
    let next = Mounted::try_new(&start(&server, &proxy.endpoint), &kept).unwrap();
    assert_eq!(fs::read(next.join("report")).unwrap(), b"worth keeping");
    assert_eq!(next.unmount(PATIENCE), BucketWord::Drained);
    assert_eq!(server.get("report").as_deref(), Some("worth keeping"));
    // Nothing that a worker after this one would upload again.
    let staged = fs::read_dir(kept.path().join("staged")).unwrap().flatten();
    assert_eq!(staged.filter(|entry| entry.path().extension().is_some()).count(), 0);
}

#[test]
fn whoever_waits_for_a_silent_server_can_be_killed() {
    let server = server!();
    server.put("text", "text");
    let proxy = Proxy::new(&server, None);
    let mounted = Mounted::new(&start(&server, &proxy.endpoint));
    proxy.set(Fault::Silent, u64::MAX);
    let mut reader = Command::new("cat").arg(mounted.join("text")).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(reader.try_wait().unwrap().is_none(), "it waits");
    reader.kill().unwrap();
    let told = Instant::now();
    reader.wait().unwrap();
    // The bound of an operation is 25 s; being let go comes before it.
    assert!(told.elapsed() < Duration::from_secs(20));
}

#[test]
fn expired_credentials_are_asked_for_and_used() {
    let server = server!();
    let good = start(&server, &server.endpoint);
    let mut soon = good.clone();
    if let Credentials::Keys { expires_ms, .. } = &mut soon.credentials {
        *expires_ms = Some(1);
    }
    let mounted = Mounted::new(&soon);
    assert_eq!(mounted.word(), BucketWord::NeedCredentials);
    let mut wrong = good.credentials.clone();
    if let Credentials::Keys { secret_access_key, .. } = &mut wrong {
        "wrong".clone_into(secret_access_key);
    }
    mounted.tell(&BucketCall::Credentials(wrong));
    mounted.status();
    assert_eq!(errno(fs::write(mounted.join("x"), "x")), libc::EACCES);
    mounted.tell(&BucketCall::Credentials(good.credentials));
    mounted.status();
    fs::write(mounted.join("x"), "x").unwrap();
}

#[test]
fn directories_of_many_keys_are_listed_whole() {
    let server = server!();
    // Nobody else changes anything while it is looked at: a name is asked for once.
    let asked = BucketStart { attribute_ttl_ms: 60_000, ..start(&server, &server.endpoint) };
    let mounted = Mounted::new(&asked);
    let keys: Vec<_> = (0..1_234).map(|index| format!("many/{index:05}")).collect();
    server.put_all(&keys, "");
    for key in ["many/", "many/sub/", "many/other/deep", "odd/a", "odd/a/b"] {
        server.put(key, "");
    }
    let names =
        mounted.shell("ls -U many | sort | sed -n '1p;$p'; ls many | wc -l; find many -type d | sort");
    assert_eq!(names, "00000\nsub\n1236\nmany\nmany/other\nmany/sub\n");
    assert_eq!(mounted.shell("ls -F odd"), "a/\n");
    assert_eq!(mounted.shell("ls odd/a; ls"), "b\nmany\nodd\n");
    let long = "n".repeat(256);
    assert_eq!(errno(fs::write(mounted.join(&long), "")), libc::ENAMETOOLONG);
    let deep = format!("many/{}", format!("{}/", "d".repeat(250)).repeat(5));
    assert_eq!(errno(fs::create_dir_all(mounted.join(&deep))), libc::ENAMETOOLONG);
    for name in ["with space", "plus+", "per%cent", "\u{fc}n\u{ef}code", "q?&=#", "quote'\"", "back\\slash"] {
        fs::write(mounted.join(name), name).unwrap();
        assert_eq!(server.get(name).as_deref(), Some(name));
        fs::rename(mounted.join(name), mounted.join(&format!("{name}2"))).unwrap();
        assert_eq!(server.get(&format!("{name}2")).as_deref(), Some(name));
    }
}

#[test]
fn a_prefix_is_all_that_is_seen_and_reading_only_is_only_reading() {
    let server = server!();
    server.put("inside/a", "a");
    server.put("outside", "o");
    let narrow =
        BucketStart { prefix: "inside/".to_owned(), read_only: true, ..start(&server, &server.endpoint) };
    let mounted = Mounted::new(&narrow);
    assert_eq!(mounted.shell("ls; cat a"), "a\na");
    for result in [
        fs::write(mounted.join("b"), ""),
        fs::remove_file(mounted.join("a")),
        fs::create_dir(mounted.join("d")),
        fs::rename(mounted.join("a"), mounted.join("c")),
        symlink("a", mounted.join("l")),
        fs::set_permissions(mounted.join("a"), fs::Permissions::from_mode(0o600)),
    ] {
        assert_eq!(errno(result), libc::EROFS);
    }
}

#[test]
fn fio_verifies_what_it_wrote() {
    let server = server!();
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    mounted.shell(
        "fio --name=v --filename=f --rw=randwrite --bs=4k --size=8m --verify=crc32c --do_verify=1 --end_fsync=1 \
         --ioengine=psync --minimal > /tmp/fio.$$; rm /tmp/fio.$$; \
         fio --name=s --filename=g --rw=write --bs=128k --size=24m --verify=sha256 --do_verify=1 --ioengine=psync --minimal > /dev/null",
    );
}

/// What fsx does: operations on one file, and the same on a file of a disk.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Truncate(u64),
    Read(u64, usize),
    Sync,
    Reopen,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let offset = 0_u64..400_000;
    prop_oneof![
        4 => (offset.clone(), 1_usize..200_000, any::<u8>()).prop_map(|(at, length, byte)| Step::Write(at, length, byte)),
        2 => offset.clone().prop_map(Step::Truncate),
        4 => (offset, 1_usize..200_000).prop_map(|(at, length)| Step::Read(at, length)),
        1 => proptest::strategy::Just(Step::Sync),
        1 => proptest::strategy::Just(Step::Reopen),
    ]
}

#[test]
fn a_file_is_what_a_file_on_a_disk_is() {
    let server = server!();
    let mounted = Mounted::new(&start(&server, &server.endpoint));
    let plain = scratch();
    let open = |directory: &Path, name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(name))
            .unwrap()
    };
    let cases = std::cell::Cell::new(0);
    let config = proptest::test_runner::Config { cases: 12, failure_persistence: None, ..Default::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..30), |steps| {
            cases.set(cases.get() + 1);
            let case = cases.get();
            let name = format!("file{case}");
            let (mut ours, theirs) = (open(mounted.path(), &name), open(plain.path(), &name));
            for step in &steps {
                match *step {
                    Step::Write(at, length, byte) => {
                        for file in [&ours, &theirs] {
                            file.write_all_at(&vec![byte; length], at).unwrap();
                        }
                    }
                    Step::Truncate(size) => {
                        [&ours, &theirs].map(|file| file.set_len(size).unwrap()).into_iter().collect()
                    }
                    Step::Read(at, length) => {
                        let read = |file: &File| {
                            let mut bytes = Vec::new();
                            let mut file = file.try_clone().unwrap();
                            file.seek(SeekFrom::Start(at)).unwrap();
                            file.take(u64::try_from(length).unwrap()).read_to_end(&mut bytes).unwrap();
                            bytes
                        };
                        assert!(read(&ours) == read(&theirs), "{steps:?}");
                    }
                    Step::Sync => ours.sync_all().unwrap(),
                    Step::Reopen => ours = open(mounted.path(), &name),
                }
            }
            drop(ours);
            assert!(
                fs::read(mounted.join(&name)).unwrap() == fs::read(plain.path().join(&name)).unwrap(),
                "{steps:?}"
            );
            Ok(())
        })
        .unwrap();
    let other = Mounted::new(&start(&server, &server.endpoint));
    for entry in fs::read_dir(plain.path()).unwrap().flatten() {
        assert!(fs::read(other.path().join(entry.file_name())).unwrap() == fs::read(entry.path()).unwrap());
    }
}

/// Everything in a tree: what each name is, and what is in it.
fn tree(root: &Path, at: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(root.join(at)).unwrap().flatten() {
        let path = format!("{at}/{}", entry.file_name().to_str().unwrap()).trim_start_matches('/').to_owned();
        let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
        let what = if metadata.is_dir() {
            tree(root, &path, found);
            "directory".to_owned()
        } else if metadata.is_symlink() {
            format!("to {}", fs::read_link(root.join(&path)).unwrap().display())
        } else {
            format!("{:o} {}", metadata.mode() & 0o777, fs::read_to_string(root.join(&path)).unwrap())
        };
        found.insert(path, what);
    }
}

#[derive(Clone, Debug)]
enum Change {
    Make(String),
    Write(String, u16),
    Append(String),
    Remove(String),
    RemoveDirectory(String),
    Rename(String, String),
    Link(String),
    Mode(String, bool),
}

fn change() -> impl proptest::strategy::Strategy<Value = Change> {
    let path = || {
        proptest::sample::select(vec!["a", "b", "c", "a/x", "a/y", "b/x", "b/y", "a/x/z", "b/x/z"])
            .prop_map(str::to_owned)
    };
    prop_oneof![
        3 => path().prop_map(Change::Make),
        3 => (path(), any::<u16>()).prop_map(|(path, number)| Change::Write(path, number)),
        1 => path().prop_map(Change::Append),
        2 => path().prop_map(Change::Remove),
        1 => path().prop_map(Change::RemoveDirectory),
        3 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => path().prop_map(Change::Link),
        1 => (path(), any::<bool>()).prop_map(|(path, all)| Change::Mode(path, all)),
    ]
}

/// What came of a change, and nothing of the error but which.
fn apply(root: &Path, change: &Change) -> Result<(), i32> {
    let path = |path: &str| root.join(path);
    let result = match change {
        Change::Make(at) => fs::create_dir(path(at)),
        Change::Write(at, number) => fs::write(path(at), number.to_string()),
        Change::Append(at) => {
            File::options().append(true).open(path(at)).and_then(|mut file| file.write_all(b"+"))
        }
        Change::Remove(at) => fs::remove_file(path(at)),
        Change::RemoveDirectory(at) => fs::remove_dir(path(at)),
        Change::Rename(from, to) => fs::rename(path(from), path(to)),
        Change::Link(at) => symlink("target", path(at)),
        Change::Mode(at, all) => match fs::symlink_metadata(path(at)) {
            Ok(found) if found.is_file() => {
                fs::set_permissions(path(at), fs::Permissions::from_mode(if *all { 0o755 } else { 0o600 }))
            }
            _ => Ok(()),
        },
    };
    result.map_err(|error| error.raw_os_error().unwrap())
}

#[test]
fn a_tree_is_what_a_tree_on_a_disk_is() {
    let server = server!();
    let config = proptest::test_runner::Config { cases: 8, failure_persistence: None, ..Default::default() };
    let cases = std::cell::Cell::new(0);
    proptest::test_runner::TestRunner::new(config)
        .run(&proptest::collection::vec(change(), 1..40), |changes| {
            cases.set(cases.get() + 1);
            let case = cases.get();
            let start = BucketStart { prefix: format!("case{case}/"), ..start(&server, &server.endpoint) };
            let (mounted, plain) = (Mounted::new(&start), scratch());
            for change in &changes {
                let (ours, theirs) = (apply(mounted.path(), change), apply(plain.path(), change));
                assert_eq!(ours, theirs, "{change:?} of {changes:?}");
            }
            let mut expected = BTreeMap::new();
            tree(plain.path(), "", &mut expected);
            // What is here, and what a mount sees that knows nothing.
            for mounted in [&mounted, &Mounted::new(&start)] {
                let mut found = BTreeMap::new();
                tree(mounted.path(), "", &mut found);
                assert_eq!(found, expected, "{changes:?}");
            }
            Ok(())
        })
        .unwrap();
}
