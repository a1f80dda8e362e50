//! Images by pull: from Debian's docker-registry on loopback, and from a registry that misbehaves on purpose.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::docker::Registry;
use crate::harness::http::Response;
use crate::harness::image::{Blob, Image, Meta, Tar};
use crate::harness::registry::{Behaviour, Fake};
use crate::harness::{Daemon, assert_error, host, host_command, id, skip};

fn pull(daemon: &Daemon, request: &Value) -> Response {
    daemon.request("POST", "/v1/images/pull", Some(request))
}

#[track_caller]
fn pulled(daemon: &Daemon, request: &Value) -> Value {
    let answer = pull(daemon, request);
    assert_eq!(answer.status, 200, "{}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    answer.json()
}

/// The busybox image and a registry, or the end of the test.
macro_rules! registry_or_skip {
    ($more:expr) => {{
        let Some(image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
        if Command::new("skopeo").arg("--version").output().is_err() {
            skip!("skopeo", "skopeo is not installed");
        }
        let Some(registry) = Registry::start($more) else {
            skip!("registry", "docker-registry is not installed")
        };
        (image, registry)
    }};
}

#[test]
fn an_image_is_pulled_by_tag_and_by_digest_and_runs() {
    let (image, registry) = registry_or_skip!("");
    registry.push(&image, "tools/busybox:v1", &[]);
    let daemon = Daemon::start();
    let by_tag = format!("{}/tools/busybox:v1", registry.address);
    let first = pulled(&daemon, &json!({"reference": by_tag, "plain_http": true}));
    let digest = first["digest"].as_str().unwrap();
    assert_eq!(digest, image.blobs()[0].digest());
    let name = id(&daemon.create(json!({"image": by_tag})));
    assert_eq!(daemon.shell(&name, "echo pulled"), "pulled\n");
    let by_digest = format!("{}/tools/busybox@{digest}", registry.address);
    let second = pulled(&daemon, &json!({"reference": by_digest, "plain_http": true}));
    assert_eq!(second["digest"], digest);
    let name = id(&daemon.create(json!({"image": by_digest})));
    assert_eq!(daemon.shell(&name, "echo pulled"), "pulled\n");
    let missing = |reference: String| pull(&daemon, &json!({"reference": reference, "plain_http": true}));
    assert_error(&missing(format!("{}/tools/busybox:v2", registry.address)), 404, "REGISTRY_NOT_FOUND");
    assert_error(&missing(format!("{}/nothing:v1", registry.address)), 404, "REGISTRY_NOT_FOUND");
    let absent = format!("{}/tools/busybox@sha256:{}", registry.address, "0".repeat(64));
    assert_error(&missing(absent), 404, "REGISTRY_NOT_FOUND");
}

#[test]
fn a_platform_is_chosen_from_an_index() {
    let (image, registry) = registry_or_skip!("");
    let mut other = image.clone();
    other.architecture = "arm64".to_owned();
    registry.push(&image, "multi:amd64", &[]);
    registry.push(&other, "multi:arm64", &[]);
    let entry = |image: &Image| {
        let mut descriptor = image.blobs()[0].descriptor();
        descriptor["platform"] = json!({"os": "linux", "architecture": image.architecture});
        descriptor
    };
    let index = json!({"schemaVersion": 2, "mediaType": crate::harness::image::INDEX, "manifests": [entry(&other), entry(&image)]});
    let url = format!("http://{}/v2/multi/manifests/all", registry.address);
    let kind = format!("Content-Type: {}", crate::harness::image::INDEX);
    host_command("curl", &["-sfS", "-X", "PUT", "-H", &kind, "-d", &index.to_string(), &url]);
    let daemon = Daemon::start();
    let reference = format!("{}/multi:all", registry.address);
    let ours = pulled(&daemon, &json!({"reference": reference, "plain_http": true}));
    assert_eq!(
        (&ours["platform"]["architecture"], &ours["digest"]),
        (&json!("amd64"), &json!(image.blobs()[0].digest()))
    );
    let theirs =
        pulled(&daemon, &json!({"reference": reference, "plain_http": true, "platform": "linux/arm64"}));
    assert_eq!(theirs["platform"]["architecture"], "arm64");
    let none = pull(&daemon, &json!({"reference": reference, "plain_http": true, "platform": "linux/s390x"}));
    assert_error(&none, 404, "PLATFORM_NOT_FOUND");
}

#[test]
fn tls_and_basic_authentication_are_spoken() {
    let (image, registry) = registry_or_skip!(
        "  tls: {certificate: ROOT/tls.pem, key: ROOT/tls.key}\nauth: {htpasswd: {realm: test, path: ROOT/htpasswd}}\n"
    );
    registry.push(&image, "private:v1", &["--dest-creds", "user:secret"]);
    let authority = fs::read_to_string(registry.path().join("ca.pem")).unwrap();
    let reference = format!("{}/private:v1", registry.address);
    let daemon = Daemon::start();
    let image = pulled(
        &daemon,
        &json!({"reference": reference, "ca_pem": authority, "username": "user", "password": "secret"}),
    );
    assert!(image["digest"].is_string());
    let wrong = json!({"reference": reference, "ca_pem": authority, "username": "user", "password": "wrong"});
    assert_error(&pull(&daemon, &wrong), 422, "REGISTRY_DENIED");
    assert_error(
        &pull(&daemon, &json!({"reference": reference, "ca_pem": authority})),
        422,
        "REGISTRY_DENIED",
    );
    // A certificate of nobody's is not believed, and neither is the absence of one.
    let stranger = json!({"reference": reference, "username": "user", "password": "secret"});
    let answer = pull(&daemon, &stranger);
    assert_eq!(answer.json()["code"], "REGISTRY_UNREACHABLE", "{}", String::from_utf8_lossy(&answer.body));
    let plain = json!({"reference": reference, "plain_http": true, "username": "user", "password": "secret"});
    assert_ne!(pull(&daemon, &plain).status, 200, "credentials went out in the clear and worked");
    assert!(!daemon.log().contains("secret"), "a password is in the log");
}

#[test]
fn pulls_of_one_image_at_once_do_the_work_once() {
    let daemon = Daemon::start();
    let registry =
        Fake::start(image(), Behaviour { chunk_delay: Duration::from_millis(20), ..Behaviour::default() });
    let reference = registry.reference("shared:v1");
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| pulled(&daemon, &json!({"reference": reference, "plain_http": true}))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer["digest"] == answers[0]["digest"]));
    for (path, count) in registry.requests().iter().filter(|(path, _)| path.contains("/blobs/")) {
        assert_eq!(*count, 1, "{path} was fetched {count} times");
    }
    // A second image that shares its blobs downloads none of them.
    pulled(&daemon, &json!({"reference": registry.reference("other:v1"), "plain_http": true}));
    let blobs: u32 =
        registry.requests().iter().filter(|(path, _)| path.contains("/other/blobs/")).map(|(_, n)| n).sum();
    assert_eq!(blobs, 0, "{:?}", registry.requests());
}

#[test]
fn progress_is_streamed() {
    let daemon = Daemon::start();
    let registry =
        Fake::start(image(), Behaviour { chunk_delay: Duration::from_millis(10), ..Behaviour::default() });
    let mut connection = daemon.connect();
    let body = json!({"reference": registry.reference("shared:v1"), "plain_http": true}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", "text/event-stream")];
    connection.send("POST", "/v1/images/pull", &headers, body.as_bytes()).unwrap();
    let head = connection.receive_head().unwrap();
    let mut body = connection.body(&head);
    let (mut phases, mut last) = (std::collections::BTreeSet::new(), None);
    while let Some(event) = body.next_event().unwrap() {
        let value: Value = serde_json::from_str(&event.data).unwrap();
        if event.name == "progress" {
            phases.insert(value["phase"].as_str().unwrap().to_owned());
            let (done, total) =
                (value["done_bytes"].as_u64().unwrap_or(0), value["total_bytes"].as_u64().unwrap_or(0));
            assert!(total == 0 || done <= total, "{value}");
        }
        last = Some((event.name, value));
    }
    let (name, value) = last.unwrap();
    assert!(name == "image" && value["digest"].is_string(), "{name} {value}");
    for phase in ["download", "unpack"] {
        assert!(phases.contains(phase), "{phases:?}");
    }
}

#[test]
fn tokens_are_fetched_and_stay_with_their_registry() {
    let daemon = Daemon::start();
    let elsewhere = Fake::start(image(), Behaviour::default());
    let registry = Fake::start(
        image(),
        Behaviour {
            token: Some("s3cr3t-token".to_owned()),
            redirect_blobs_to: Some(elsewhere.address.clone()),
            ..Behaviour::default()
        },
    );
    let request = json!({"reference": registry.reference("private:v1"), "plain_http": true, "username": "user", "password": "secret"});
    pulled(&daemon, &request);
    assert!(registry.requests().keys().any(|path| path.starts_with("/token?")), "{:?}", registry.requests());
    let seen = elsewhere.authorizations();
    assert!(seen.is_empty(), "credentials went to another host: {seen:?}");
    assert!(
        elsewhere.requests().keys().any(|path| path.contains("/blobs/")),
        "the redirect was not followed"
    );
    let refused =
        Fake::start(image(), Behaviour { token: Some("x".to_owned()), deny: true, ..Behaviour::default() });
    let answer = pull(&daemon, &json!({"reference": refused.reference("private:v1"), "plain_http": true}));
    assert_error(&answer, 422, "REGISTRY_DENIED");
}

#[test]
fn a_download_that_breaks_is_resumed_and_errors_are_retried() {
    let daemon = Daemon::start();
    let registry =
        Fake::start(image(), Behaviour { cut_after: Some(100_000), fail_first: 2, ..Behaviour::default() });
    let pulled = pulled(&daemon, &json!({"reference": registry.reference("shared:v1"), "plain_http": true}));
    assert!(pulled["digest"].is_string());
    assert!(registry.ranges() > 0, "nothing was resumed: everything was fetched again");
}

#[test]
fn bytes_that_do_not_match_their_digest_are_refused() {
    for behaviour in [
        Behaviour { corrupt: true, ..Behaviour::default() },
        Behaviour { wrong_manifest: true, ..Behaviour::default() },
    ] {
        let daemon = Daemon::start();
        let registry = Fake::start(image(), behaviour);
        let digest = registry.image[0].digest();
        let reference = format!("{}/shared@{digest}", registry.address);
        let answer = pull(&daemon, &json!({"reference": reference, "plain_http": true}));
        assert_error(&answer, 422, "IMAGE_INVALID");
        assert_eq!(daemon.get("/v1/images")["images"], json!([]));
        host::wait_for("refused bytes to be gone", || daemon.layers() == 0);
    }
}

#[test]
fn plain_http_is_for_loopback_and_strangers_are_unreachable() {
    let daemon = Daemon::start();
    let answer = pull(&daemon, &json!({"reference": "registry.invalid/x:1", "plain_http": true}));
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(matches!(&*code, "INVALID_REQUEST" | "REGISTRY_UNREACHABLE"), "{code}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let answer = pull(&daemon, &json!({"reference": format!("{closed}/x:1"), "plain_http": true}));
    assert_eq!(answer.json()["code"], "REGISTRY_UNREACHABLE", "{}", String::from_utf8_lossy(&answer.body));
    for wrong in ["", "UPPER/x", "a b", "x@sha256:zz", "x:\u{0}"] {
        let answer = pull(&daemon, &json!({"reference": wrong}));
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        assert!(
            answer.status == 400 && matches!(&*code, "INVALID_REFERENCE" | "INVALID_REQUEST"),
            "{wrong}: {code}"
        );
    }
}

#[test]
fn a_client_that_goes_away_does_not_take_the_pull_of_another_with_it() {
    let daemon = Daemon::start();
    let registry =
        Fake::start(image(), Behaviour { chunk_delay: Duration::from_millis(30), ..Behaviour::default() });
    let request = json!({"reference": registry.reference("shared:v1"), "plain_http": true});
    let mut first = daemon.connect();
    first
        .send(
            "POST",
            "/v1/images/pull",
            &[("Content-Type", "application/json")],
            request.to_string().as_bytes(),
        )
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| pulled(&daemon, &request));
        std::thread::sleep(Duration::from_millis(100));
        drop(first);
        assert!(second.join().unwrap()["digest"].is_string());
    });
}

/// An image with one layer of a few hundred kilobytes that do not compress.
fn image() -> Vec<Blob> {
    let noise: Vec<u8> =
        (0..150_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let one = Tar::new().file("noise", Meta::FILE, &noise).finish();
    let two = Tar::new().file("two", Meta::FILE, &noise[..300_000]).finish();
    Image::new(vec![one, two]).blobs()
}

#[test]
fn the_fake_registry_keeps_its_promises() {
    // The control of the tests above: what they rely on is true of the registry itself.
    let registry = Fake::start(image(), Behaviour::default());
    let mut stream = TcpStream::connect(&registry.address).unwrap();
    write!(stream, "GET /v2/x/blobs/{} HTTP/1.1\r\nRange: bytes=10-\r\n\r\n", registry.image[2].digest())
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 206 ") && answer.ends_with(&registry.image[2].bytes[10..]));
}
