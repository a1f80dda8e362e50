//! The same against radosgw over TLS: a server that is stricter than moto and of other habits. Few tests with much in
//! each, because a cluster takes twenty seconds to start.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::json;
use stockade::wire::bucket::{BucketFailureKind, BucketStart, BucketWord, Credentials};

use super::mount::{Fault, Mounted, Proxy, start};
use super::{PATIENCE, errno};
use crate::harness::s3::S3;
use crate::harness::tls::Authority;
use crate::harness::{Daemon, scratch, skip};

macro_rules! server {
    ($authority:expr) => {
        match S3::ceph($authority) {
            Some(server) => server,
            None => skip!("programs", "radosgw is not installed: cargo xtask test does"),
        }
    };
}

#[test]
fn a_strict_server_has_what_programs_do_and_shows_it_to_the_next() {
    let authority = Authority::new();
    let server = server!(&authority);
    let asked = start(&server, &server.endpoint);
    let mounted = Mounted::new(&asked);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bucket/fs");
    mounted.shell(&format!(
        "cp -r {source} copy && tar -C copy -cf all.tar . && mkdir out && tar -C out -xf all.tar && mv out there \
         && diff -r {source} there && echo one > log && echo two >> log && ln -s log link && chmod 750 log \
         && printf x > q && mv q 'odd +%name' && touch -d '2001-02-03 04:05:06.789' copy/mod.rs \
         && git init -q work && cd work && git config user.email a@b && git config user.name n && cp -r ../copy . \
         && git add -A && git commit -qm all && git clone -q . ../cloned"
    ));
    // Several parts, written in order and otherwise; appending to what is in the bucket.
    mounted.shell(
        "head -c 40000001 /dev/urandom > big && cp big other && printf end >> other \
         && printf mark | dd of=other bs=1 seek=20000000 conv=notrunc status=none && sha256sum big other > sums",
    );
    let size = server.try_call("head_object", &json!({"Bucket": "photos", "Key": "other"}));
    assert_eq!(size["ok"]["ContentLength"], 40_000_004);
    // Pages of keys, directories with markers and without, an object beside a directory of its name.
    let keys: Vec<_> = (0..1_234).map(|index| format!("many/{index:05}")).collect();
    server.put_all(&keys, "");
    for key in ["many/", "many/sub/", "many/zz/deep", "odd/a", "odd/a/b", "none//x"] {
        server.put(key, "");
    }
    // Nobody else changes anything now: a name is asked for once.
    let other = Mounted::new(&BucketStart { attribute_ttl_ms: 60_000, ..asked });
    assert_eq!(other.shell("cat link; stat -c %a log; cat 'odd +%name'"), "one\ntwo\n750\nx");
    assert_eq!(fs::read_link(other.join("link")).unwrap(), Path::new("log"));
    assert_eq!(fs::metadata(other.join("copy/mod.rs")).unwrap().mtime_nsec(), 789_000_000);
    other.shell(&format!("sha256sum -c sums && diff -r {source} there && git -C cloned fsck"));
    let names = other.shell("ls -U many | sort | sed -n '1p;$p'; ls many | wc -l; find many -type d | sort");
    assert_eq!(names, "00000\nzz\n1236\nmany\nmany/sub\nmany/zz\n");
    assert_eq!(other.shell("ls -F odd; ls odd/a; ls -A none"), "a/\nb\n");
    other.shell("rm -r cloned work there && test ! -e work");
    assert_eq!(other.unmount(PATIENCE), BucketWord::Drained);
    assert_eq!(mounted.unmount(PATIENCE), BucketWord::Drained);
    let left = server.try_call("list_multipart_uploads", &json!({"Bucket": "photos"}));
    assert!(left["ok"].is_object() && left["ok"]["Uploads"].is_null(), "{left}");
}

#[test]
fn a_strict_server_refuses_and_that_is_said() {
    let authority = Authority::new();
    let server = server!(&authority);
    let good = start(&server, &server.endpoint);
    let fails = |start: &BucketStart| Mounted::try_new(start, &scratch()).err().map(|failure| failure.kind);
    let absent = BucketStart { bucket: "absent".to_owned(), ..good.clone() };
    assert_eq!(fails(&absent), Some(BucketFailureKind::NoSuchBucket));
    let keys = |id: &str, secret: &str, token: Option<&str>| Credentials::Keys {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: token.map(str::to_owned),
        expires_ms: None,
    };
    for credentials in [
        keys(&server.access_key_id, "wrong", None),
        keys("nobody", &server.secret_access_key, None),
        keys(&server.access_key_id, &server.secret_access_key, Some("none of theirs")),
        Credentials::Anonymous,
    ] {
        let wrong = BucketStart { credentials, ..good.clone() };
        assert_eq!(fails(&wrong), Some(BucketFailureKind::Denied), "{:?}", wrong.credentials);
    }
    let untrusted = BucketStart { ca_pem: String::new(), ..good.clone() };
    assert_eq!(fails(&untrusted), Some(BucketFailureKind::BadCertificate));
    // It signs with whatever region the request says: that is right, not a failure.
    assert_eq!(fails(&BucketStart { region: "elsewhere-1".to_owned(), ..good.clone() }), None);

    two_writers(&server, &BucketStart { conditional_writes: true, ..good });

    // What changes on its way is refused by its sum, and sent again.
    let proxy = Proxy::new(&server, None);
    let mounted = Mounted::new(&start(&server, &proxy.endpoint));
    let body = "0123456789".repeat(50_000);
    proxy.set(Fault::Tampered, 1);
    fs::write(mounted.join("sent"), &body).unwrap();
    assert!(server.get("sent") == Some(body));
    assert!(mounted.status().retries >= 1, "{:?}", mounted.status());
}

/// With conditions, of small files and of those that go in parts: radosgw of this age takes no condition for those.
fn two_writers(server: &S3, asked: &BucketStart) {
    let mounted = Mounted::new(asked);
    let large = vec![b'm'; 17 << 20];
    for (name, mine, there) in [
        ("small", &b"mine"[..], Some("base")),
        ("small-new", b"mine", None),
        ("large", &large, Some("base")),
        ("large-new", &large, None),
    ] {
        if let Some(there) = there {
            server.put(name, there);
        }
        let mut file =
            File::options().write(true).create(true).truncate(true).open(mounted.join(name)).unwrap();
        file.write_all(mine).unwrap();
        server.put(name, "theirs");
        assert_eq!(errno(file.sync_all()), libc::ESTALE, "{name}");
        drop(file);
        assert_eq!(server.get(name).as_deref(), Some("theirs"), "{name}");
        // The control: with nobody else, it goes.
        let name = format!("{name}-alone");
        fs::write(mounted.join(&name), mine).unwrap();
        let size = server.try_call("head_object", &json!({"Bucket": "photos", "Key": name}));
        assert_eq!(size["ok"]["ContentLength"], mine.len(), "{name}");
    }
}

#[test]
fn a_sandbox_has_a_bucket_over_tls_when_the_operator_trusts_its_server() {
    let authority = Authority::new();
    let server = server!(&authority);
    let config = |network: &str| {
        format!("[network]\nopen = [\"127.0.0.0/8\"]\n{network}[preview]\nlisten = \"off\"\n")
    };
    let trusts = format!("ca_file = \"{}\"\n", authority.path().display());
    let daemon = Daemon::configured(&config(&trusts));
    server.put("greeting", "hello\n");
    let id = daemon.sandbox();
    let path = format!("/v1/sandboxes/{id}/mounts");
    let mounted = daemon.request("POST", &path, Some(&server.mount("/data")));
    assert_eq!(mounted.status, 201, "{}\n{}", String::from_utf8_lossy(&mounted.body), daemon.log());
    assert_eq!(
        daemon.shell(&id, "cd /data && cat greeting && echo more >> greeting && ls"),
        "hello\ngreeting\n"
    );
    assert_eq!(server.get("greeting").as_deref(), Some("hello\nmore\n"));
    daemon.shell(&id, "head -c 20000001 /dev/zero > /data/large && cmp -n 20000001 /dev/zero /data/large");
    let gone = daemon.request("DELETE", &format!("{path}/m1"), None);
    assert_eq!((gone.status, &gone.json()["lost_count"]), (200, &json!(0)));

    let other = Daemon::configured(&config(""));
    let id = other.sandbox();
    let refused = other.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(&server.mount("/data")));
    assert_eq!(refused.json()["code"], "BUCKET_BAD_CERTIFICATE");
}
