//! The catalog against a launch that runs the real fetch and unpack roles, as threads, and a registry that is a
//! few lines of HTTP.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Catalog, PullSpec};
use crate::error::ErrorCode;
use crate::id::Digest;
use crate::image::fixture::{Fixture, Tar, digest};
use crate::image::store::Store;
use crate::image::{fetch, unpack};
use crate::limits::FRAME_BYTES_MAX;
use crate::sandbox::Caller;
use crate::sandbox::launcher::Launcher;
use crate::sys::socket;
use crate::wire;
use crate::wire::fetch::Credentials;
use crate::wire::launch::{Answer, Call, Failure, FailureKind, Quota, Quotas, Reply, Request};
use crate::wire::unpack::{UnpackFailureKind, UnpackJob, UnpackReply};

/// Who asks for everything here.
const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 0, operator: true };

/// launch as far as images need it, counting what it is asked.
#[derive(Debug, Default)]
struct Launch {
    layers: PathBuf,
    unpacked: AtomicUsize,
    fetches: AtomicUsize,
}

impl Launch {
    fn serve(self: Arc<Self>, control: OwnedFd) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        while let Ok(received) = socket::receive(&control, &mut buffer)
            && received.length > 0
        {
            let Request { number, call } = wire::decode(&buffer[..received.length]).expect("request");
            let (this, control) = (Arc::clone(&self), control.try_clone().expect("duplicate"));
            std::thread::spawn(move || {
                let (result, fd) = this.answer(call, received.fds);
                let reply = wire::encode(&Reply { number, result }).expect("encode");
                let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
                let _ = socket::send(&control, &reply, &fds);
            });
        }
    }

    fn answer(&self, call: Call, fds: Vec<OwnedFd>) -> (Result<Answer, Failure>, Option<OwnedFd>) {
        match call {
            Call::Fetch => {
                self.fetches.fetch_add(1, Ordering::Relaxed);
                let (ours, theirs) = socket::pair().expect("socketpair");
                std::thread::spawn(move || fetch::run(theirs));
                (Ok(Answer::Connected), Some(ours))
            }
            Call::Unpack(job) => (self.unpack(job, fds), None),
            Call::Layers { after } => {
                let mut layers = self.list();
                layers.sort_unstable();
                layers.retain(|layer| Some(*layer) > after);
                (Ok(Answer::Layers(layers)), None)
            }
            Call::RemoveLayers { diff_ids } => {
                for layer in &diff_ids {
                    std::fs::remove_dir_all(self.layers.join(layer.hex())).expect("remove");
                }
                (Ok(Answer::Removed(diff_ids)), None)
            }
            other => panic!("images need no {other:?}"),
        }
    }

    fn unpack(&self, job: UnpackJob, fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        self.unpacked.fetch_add(1, Ordering::Relaxed);
        let [blob, progress]: [OwnedFd; 2] = fds.try_into().expect("two descriptors");
        let target = self.layers.join(job.diff_id.hex());
        std::fs::create_dir(&target).expect("each layer is unpacked once");
        let directory = std::fs::File::open(&target).expect("open");
        let (ours, theirs) = socket::pair().expect("socketpair");
        socket::send(
            &ours,
            &wire::encode(&job).expect("encode"),
            &[blob.as_fd(), directory.as_fd(), progress.as_fd()],
        )
        .expect("send");
        drop(progress);
        std::thread::spawn(move || unpack::run(theirs));
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let received = socket::receive(&ours, &mut buffer).expect("receive");
            match wire::decode(&buffer[..received.length]).expect("reply") {
                UnpackReply::Opaque(_) => {}
                UnpackReply::Done(report) => {
                    let sync = wire::encode(&wire::unpack::UnpackRequest::Sync).expect("encode");
                    socket::send(&ours, &sync, &[]).expect("send");
                    let received = socket::receive(&ours, &mut buffer).expect("receive");
                    assert_eq!(wire::decode(&buffer[..received.length]), Ok(UnpackReply::Synced));
                    return Ok(Answer::Unpacked(report.stats));
                }
                UnpackReply::Synced => panic!("synced before it is done"),
                UnpackReply::Failed(failure) => {
                    std::fs::remove_dir_all(&target).expect("remove");
                    assert_eq!(failure.kind, UnpackFailureKind::Invalid, "{failure}");
                    let kind = FailureKind::LayerInvalid;
                    return Err(Failure { kind, what: "unpack".to_owned(), detail: failure.detail });
                }
            }
        }
    }

    fn list(&self) -> Vec<Digest> {
        let entries = std::fs::read_dir(&self.layers).expect("list");
        let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("name"));
        names.map(|name| Digest::parse(&format!("sha256:{name}")).expect("digest")).collect()
    }
}

/// A store, a launch, a catalog.
struct House {
    state: tempfile::TempDir,
    launch: Arc<Launch>,
    catalog: Catalog,
}

impl House {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("directory");
        std::fs::create_dir(state.path().join("layers")).expect("mkdir");
        let (launch, catalog) = open(state.path());
        Self { state, launch, catalog }
    }

    /// As after a restart of everything.
    fn reopen(&mut self) {
        (self.launch, self.catalog) = open(self.state.path());
    }

    async fn import(&self, name: &str, archive: &[u8]) -> Result<Vec<super::Image>, crate::error::Error> {
        self.catalog.import(&ROOT, Some(name.to_owned()), archive, None).await
    }

    fn blobs(&self) -> usize {
        std::fs::read_dir(self.state.path().join("blobs/sha256")).expect("list").count()
    }
}

fn open(state: &Path) -> (Arc<Launch>, Catalog) {
    let launch = Arc::new(Launch { layers: state.join("layers"), ..Launch::default() });
    let (ours, theirs) = socket::pair().expect("socketpair");
    let serving = Arc::clone(&launch);
    std::thread::spawn(move || serving.serve(theirs));
    let (launcher, _gone) = Launcher::start(ours).expect("launcher");
    (launch, Catalog::new(Store::open(state).expect("store"), launcher, quotas()))
}

/// For whoever is no root: room for two of the layers below, and not for three.
fn quotas() -> Quotas {
    let everybody = Quota { image_bytes: Some(5 * size_of_layer("one") / 2), ..Quota::default() };
    Quotas { everybody, ..Quotas::default() }
}

/// As it comes.
fn size_of_layer(content: &str) -> u64 {
    Fixture::new(&[layer(content)]).layers[0].len() as u64
}

fn layer(content: &str) -> Vec<u8> {
    Tar::default().directory("etc").file("etc/content", content.as_bytes()).finish()
}

fn code<T: std::fmt::Debug>(result: Result<T, crate::error::Error>) -> ErrorCode {
    result.expect_err("must fail").code
}

#[tokio::test]
async fn an_imported_image_can_be_resolved_and_its_layers_are_there() {
    let house = House::new();
    let fixture = Fixture::new(&[layer("one"), layer("two"), layer("one")]);
    for archive in [fixture.layout(None), crate::image::fixture::gzip(&fixture.layout(Some("other:name")))] {
        let images = house.import("demo:1", &archive).await.expect("import");
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].reference, "docker.io/library/demo:1");
        assert_eq!(images[0].digest, digest(&fixture.manifest));
        assert_eq!(images[0].layers.len(), 3);
        assert_eq!(images[0].config.working_dir, "/work");
    }
    assert_eq!(house.launch.unpacked.load(Ordering::Relaxed), 2, "a layer is unpacked once");
    assert_eq!(house.blobs(), 2, "manifest and configuration stay, layers do not");
    let resolved = house.catalog.resolve("demo:1").expect("resolve");
    assert_eq!(
        resolved.layers,
        [digest(&layer("two")), digest(&layer("one"))],
        "overlayfs takes a layer once"
    );
    for diff_id in &resolved.layers {
        assert!(house.launch.layers.join(diff_id.hex()).join("etc/content").exists());
    }
    assert_eq!(code(house.catalog.resolve("demo:2")), ErrorCode::ImageNotFound);
    assert_eq!(code(house.catalog.resolve("De Mo")), ErrorCode::InvalidReference);
}

#[tokio::test]
async fn an_image_in_use_stays_and_an_unused_layer_goes() {
    let mut house = House::new();
    let shared = layer("shared");
    let one = Fixture::new(&[shared.clone(), layer("one")]);
    let two = Fixture::new(&[shared.clone(), layer("two")]);
    house.import("one", &one.layout(None)).await.expect("import");
    house.import("two", &two.layout(None)).await.expect("import");
    let resolved = house.catalog.resolve("one").expect("resolve");
    assert_eq!(code(house.catalog.remove(&ROOT, "one").await), ErrorCode::ImageInUse);
    drop(resolved);
    house.catalog.remove(&ROOT, "one").await.expect("remove");
    assert_eq!(code(house.catalog.inspect("one")), ErrorCode::ImageNotFound);
    // Dropping the lease may have begun to collect: this one waits for it.
    house.catalog.collect().await.expect("collect");
    let mut left = house.launch.list();
    left.sort();
    let mut expected = vec![digest(&shared), digest(&layer("two"))];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(house.blobs(), 2);
    // A layer that is lost takes the image out of the index: it can be pulled again.
    std::fs::remove_dir_all(house.launch.layers.join(digest(&shared).hex())).expect("lose a layer");
    house.reopen();
    house.catalog.collect().await.expect("collect");
    assert_eq!(house.catalog.list(), []);
    assert_eq!(house.launch.list(), []);
}

#[tokio::test]
async fn an_image_replaced_by_its_name_leaves_no_layers() {
    let house = House::new();
    house.import("demo", &Fixture::new(&[layer("old")]).layout(None)).await.expect("import");
    let resolved = house.catalog.resolve("demo").expect("resolve");
    house.import("demo", &Fixture::new(&[layer("new")]).layout(None)).await.expect("import");
    assert_eq!(house.launch.list().len(), 2, "a sandbox is on the old one");
    drop(resolved);
    house.catalog.collect().await.expect("collect");
    assert_eq!(house.launch.list(), [digest(&layer("new"))]);
}

#[tokio::test]
async fn bad_archives_are_refused_and_leave_nothing() {
    let good = Fixture::new(&[layer("x")]);
    let mut other_layer = Fixture::new(&[layer("x")]);
    other_layer.layers[0] = crate::image::fixture::gzip(&layer("y"));
    let mut wrong_diff_id = Fixture::new(&[layer("x")]);
    let wrong = digest(b"wrong").to_string();
    let right = digest(&layer("x")).to_string();
    wrong_diff_id.config =
        String::from_utf8(wrong_diff_id.config).expect("text").replace(&right, &wrong).into_bytes();
    let digests = (digest(&good.config).to_string(), digest(&wrong_diff_id.config).to_string());
    let manifest = String::from_utf8(wrong_diff_id.manifest).expect("text").replace(&digests.0, &digests.1);
    wrong_diff_id.manifest = manifest.into_bytes();
    let mut flipped = good.layout(None);
    let blob = &good.layers[0];
    let at = flipped.windows(blob.len()).position(|window| window == blob).expect("the blob is in there");
    flipped[at + 20] ^= 1;
    let archive = good.layout(None);
    for (name, archive) in [
        ("empty", Vec::new()),
        ("text", b"not an archive".repeat(100)),
        ("cut", archive[..archive.len() / 2].to_vec()),
        ("flipped", flipped),
        ("another layer's bytes", other_layer.layout(None)),
        ("another diff-id", wrong_diff_id.layout(None)),
        ("a plain tar", Tar::default().file("hello", b"x").finish()),
    ] {
        // A new store each: bytes that are stored already are not read again.
        let house = House::new();
        assert_eq!(code(house.import("demo", &archive).await), ErrorCode::ImageInvalid, "{name}");
        assert_eq!((house.catalog.list(), house.launch.list()), (vec![], vec![]), "{name}");
        house.catalog.collect().await.expect("collect");
        assert_eq!(house.blobs(), 0, "{name}");
        house.import("demo", &good.layout(None)).await.expect("the good one, after the bad one");
    }
}

#[tokio::test]
async fn an_import_that_is_given_up_leaves_nothing_behind() {
    let house = House::new();
    let archive = Fixture::new(&[incompressible(1), incompressible(2)]).layout(None);
    let (mut sender, receiver) = tokio::io::duplex(archive.len());
    sender.write_all(&archive[..archive.len() - 100_000]).await.expect("room for all");
    {
        let mut import = Box::pin(house.catalog.import(&ROOT, None, receiver, None));
        let began = std::time::Instant::now();
        while house.blobs() < 2 {
            assert!(began.elapsed() < Duration::from_secs(20), "nothing is stored");
            tokio::select! {
                result = &mut import => panic!("ended early: {result:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
    let began = std::time::Instant::now();
    while house.blobs() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{} blobs stay", house.blobs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(house.launch.list(), []);
}

#[tokio::test]
async fn docker_archives_are_imported_by_their_tags() {
    let house = House::new();
    let fixture = Fixture::new(&[layer("one"), layer("two")]);
    let manifest = br#"[{"Config":"config.json","RepoTags":["demo:1","demo:2"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let archive = |second: &[u8]| {
        Tar::default()
            .file("a/layer.tar", &layer("one"))
            .file("c/layer.tar", second)
            .symlink("b/layer.tar", "../c/layer.tar")
            .file("config.json", &fixture.config)
            .file("manifest.json", manifest)
            .finish()
    };
    let images = house.catalog.import(&ROOT, None, &archive(&layer("two"))[..], None).await.expect("import");
    let names: Vec<_> = images.iter().map(|image| &*image.reference).collect();
    assert_eq!(names, ["docker.io/library/demo:1", "docker.io/library/demo:2"]);
    assert_eq!(house.launch.unpacked.load(Ordering::Relaxed), 2);
    let renamed = house.import("other", &archive(&layer("two"))).await.expect("import");
    assert_eq!(renamed[0].reference, "docker.io/library/other:latest");
    let changed = house.catalog.import(&ROOT, None, &archive(&layer("three"))[..], None).await;
    assert_eq!(code(changed), ErrorCode::ImageInvalid, "the tar is not the one of the configuration");
    // Two names of one image: taking one away leaves the other, even in use.
    let _lease = house.catalog.resolve("demo:1").expect("resolve");
    house.catalog.remove(&ROOT, "demo:2").await.expect("remove");
}

/// What a mock registry does beside answering.
#[derive(Debug, Default)]
struct Habits {
    /// Close the connection after so many bytes of a blob, while this lasts.
    cut: Mutex<Vec<usize>>,
    /// Answer this status first, while it lasts.
    failures: Mutex<Vec<u16>>,
    /// Ask for this password.
    password: Option<&'static str>,
    /// Redirect blobs there.
    redirect: Option<String>,
    /// Wait before answering a manifest.
    delay: Duration,
}

/// A registry of one image, on loopback.
struct Mock {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Mock {
    async fn start(fixture: &Fixture, habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let mut content: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for blob in fixture.layers.iter().chain([&fixture.config]) {
            content.insert(format!("/v2/demo/blobs/{}", digest(blob)), blob.clone());
        }
        content.insert("/v2/demo/manifests/latest".to_owned(), fixture.manifest.clone());
        content.insert(format!("/v2/demo/manifests/{}", digest(&fixture.manifest)), fixture.manifest.clone());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = Arc::new((content, habits, Arc::clone(&seen), address.clone()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { answer(stream, &shared).await });
            }
        });
        Self { address, seen }
    }

    fn spec(&self) -> PullSpec {
        PullSpec {
            reference: format!("{}/demo", self.address),
            platform: None,
            credentials: Credentials::Anonymous,
            plain_http: true,
            ca_pem: None,
        }
    }

    fn requests(&self, what: &str) -> usize {
        self.seen.lock().expect("lock").iter().filter(|line| line.contains(what)).count()
    }
}

type Shared = (BTreeMap<String, Vec<u8>>, Habits, Arc<Mutex<Vec<String>>>, String);

async fn answer(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    let (content, habits, seen, address) = shared;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let request = String::from_utf8(request).ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    let headers: HashMap<_, _> = request
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_lowercase(), value))
        .collect();
    seen.lock().ok()?.push(format!("{path} {:?}", headers.get("authorization")));
    let reply = |status: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let failure = habits.failures.lock().ok()?.pop();
    let mut out = if let Some(status) = failure {
        reply(&format!("{status} Trouble"), "retry-after: 0\r\n", b"")
    } else if path.starts_with("/token") {
        let expected = "Basic dXNlcjpwYXNzd29yZA==";
        if headers.get("authorization") == Some(&expected) {
            reply("200 OK", "", br#"{"token":"good"}"#)
        } else {
            reply("401 Unauthorized", "", b"")
        }
    } else if habits.password.is_some() && headers.get("authorization") != Some(&"Bearer good") {
        let challenge =
            format!("www-authenticate: Bearer realm=\"http://{address}/token\",service=\"mock\"\r\n");
        reply("401 Unauthorized", &challenge, b"")
    } else if let (Some(elsewhere), true) = (&habits.redirect, path.contains("/blobs/")) {
        reply("307 Temporary Redirect", &format!("location: {elsewhere}{path}\r\n"), b"")
    } else if let Some(body) = content.get(&path) {
        if path.contains("/manifests/") {
            tokio::time::sleep(habits.delay).await;
        }
        let range = headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match range {
            None => reply("200 OK", "", body),
            Some(start) => {
                let range: usize = start;
                let total = body.len();
                reply(
                    "206 Partial Content",
                    &format!("content-range: bytes {range}-{}/{total}\r\n", total - 1),
                    &body[range..],
                )
            }
        }
    } else {
        reply("404 Not Found", "", b"")
    };
    if path.contains("/blobs/")
        && out.len() > 1000
        && let Some(cut) = habits.cut.lock().ok()?.pop()
    {
        out.truncate(cut);
    }
    stream.write_all(&out).await.ok()
}

fn incompressible(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    Tar::default().file("noise", &noise.take(200_000).collect::<Vec<_>>()).finish()
}

#[tokio::test]
async fn concurrent_pulls_of_one_image_do_the_work_once() {
    let house = House::new();
    let fixture = Fixture::new(&[layer("one"), layer("two")]);
    let mock = Mock::start(&fixture, Habits { delay: Duration::from_millis(200), ..Habits::default() }).await;
    let catalog = house.catalog.clone();
    let leaving = tokio::spawn({
        let (catalog, spec) = (catalog.clone(), mock.spec());
        async move { catalog.pull(&ROOT, spec, None).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let others = futures_util::future::join_all((0..4).map(|_| catalog.pull(&ROOT, mock.spec(), None)));
    let leave = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        leaving.abort();
    };
    for result in tokio::join!(others, leave).0 {
        assert_eq!(result.expect("pull").digest, digest(&fixture.manifest));
    }
    assert_eq!(house.launch.fetches.load(Ordering::Relaxed), 1);
    assert_eq!(mock.requests("/manifests/"), 1);
    assert_eq!(house.launch.unpacked.load(Ordering::Relaxed), 2);
    // Again: the layers are here, so only manifest and perhaps configuration are asked for.
    catalog.pull(&ROOT, mock.spec(), None).await.expect("pull");
    assert_eq!(mock.requests(&digest(&fixture.layers[0]).to_string()), 1);
}

#[tokio::test]
async fn images_that_share_a_layer_unpack_it_once_at_the_same_time() {
    let house = House::new();
    let one = Fixture::new(&[incompressible(1), layer("one")]);
    let two = Fixture::new(&[incompressible(1), layer("two")]);
    let mocks = (Mock::start(&one, Habits::default()).await, Mock::start(&two, Habits::default()).await);
    let pulls =
        (house.catalog.pull(&ROOT, mocks.0.spec(), None), house.catalog.pull(&ROOT, mocks.1.spec(), None));
    let (first, second) = tokio::join!(pulls.0, pulls.1);
    first.expect("first");
    second.expect("second");
    assert_eq!(house.launch.unpacked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let house = House::new();
    let fixture = Fixture::new(&[incompressible(2)]);
    let habits = Habits {
        cut: Mutex::new(vec![50_000, 100_000]),
        failures: Mutex::new(vec![503, 429]),
        ..Habits::default()
    };
    let mock = Mock::start(&fixture, habits).await;
    house.catalog.pull(&ROOT, mock.spec(), None).await.expect("pull");
    assert_eq!(mock.requests(&digest(&fixture.layers[0]).to_string()), 3);
}

#[tokio::test]
async fn credentials_are_exchanged_for_a_token_and_wrong_ones_refused() {
    let house = House::new();
    let fixture = Fixture::new(&[layer("x")]);
    let mock = Mock::start(&fixture, Habits { password: Some("password"), ..Habits::default() }).await;
    assert_eq!(code(house.catalog.pull(&ROOT, mock.spec(), None).await), ErrorCode::RegistryDenied);
    let basic =
        |password: &str| Credentials::Basic { username: "user".to_owned(), password: password.to_owned() };
    let wrong = PullSpec { credentials: basic("wrong"), ..mock.spec() };
    assert_eq!(code(house.catalog.pull(&ROOT, wrong, None).await), ErrorCode::RegistryDenied);
    let right = PullSpec { credentials: basic("password"), ..mock.spec() };
    house.catalog.pull(&ROOT, right, None).await.expect("pull");
}

#[tokio::test]
async fn a_redirect_to_another_host_goes_without_credentials() {
    let house = House::new();
    let fixture = Fixture::new(&[layer("x")]);
    let elsewhere = Mock::start(&fixture, Habits::default()).await;
    let redirect = Some(format!("http://{}", elsewhere.address));
    let mock =
        Mock::start(&fixture, Habits { password: Some("password"), redirect, ..Habits::default() }).await;
    let credentials = Credentials::Basic { username: "user".to_owned(), password: "password".to_owned() };
    house.catalog.pull(&ROOT, PullSpec { credentials, ..mock.spec() }, None).await.expect("pull");
    assert_eq!(elsewhere.requests("None"), 2, "configuration and layer");
    assert_eq!(elsewhere.requests("Some"), 0, "{:?}", elsewhere.seen);
}

#[tokio::test]
async fn a_registry_cannot_send_us_in_circles_or_to_metadata_services() {
    let house = House::new();
    let fixture = Fixture::new(&[layer("x")]);
    for place in ["http://169.254.169.254/latest", "file:///etc", "http://0.0.0.0:1", ""] {
        let mock =
            Mock::start(&fixture, Habits { redirect: Some(place.to_owned()), ..Habits::default() }).await;
        assert_eq!(
            code(house.catalog.pull(&ROOT, mock.spec(), None).await),
            ErrorCode::RegistryUnreachable,
            "{place}"
        );
        assert!(mock.requests("/blobs/") <= 6, "{place}");
    }
}

#[tokio::test]
async fn what_a_registry_lacks_or_gets_wrong_has_its_own_code() {
    let house = House::new();
    let mut fixture = Fixture::new(&[layer("x")]);
    let mock = Mock::start(&fixture, Habits::default()).await;
    let named = |reference: String| PullSpec { reference, ..mock.spec() };
    let missing = named(format!("{}/other", mock.address));
    assert_eq!(code(house.catalog.pull(&ROOT, missing, None).await), ErrorCode::RegistryNotFound);
    let pinned = named(format!("{}/demo@{}", mock.address, digest(b"another")));
    assert_eq!(code(house.catalog.pull(&ROOT, pinned, None).await), ErrorCode::RegistryNotFound);
    let arm = PullSpec { platform: Some("linux/s390x".to_owned()), ..mock.spec() };
    assert_eq!(code(house.catalog.pull(&ROOT, arm, None).await), ErrorCode::PlatformNotFound);
    assert_eq!(
        code(house.catalog.pull(&ROOT, named("UPPER".to_owned()), None).await),
        ErrorCode::InvalidReference
    );
    let nobody = named("127.0.0.1:1/demo".to_owned());
    assert_eq!(code(house.catalog.pull(&ROOT, nobody, None).await), ErrorCode::RegistryUnreachable);
    let pinned = named(format!("{}/demo@{}", mock.address, digest(&fixture.manifest)));
    house.catalog.pull(&ROOT, pinned, None).await.expect("by digest");
    // Other bytes under the same name.
    let size = fixture.layers[0].len();
    let manifest = String::from_utf8(fixture.manifest.clone()).expect("text");
    fixture.manifest =
        manifest.replace(&format!("\"size\":{size}"), &format!("\"size\":{}", size - 1)).into_bytes();
    house
        .catalog
        .remove(&ROOT, &format!("{}/demo@{}", mock.address, digest(manifest.as_bytes())))
        .await
        .expect("remove");
    // The pull before may be collecting still; a layer that is here is not asked for.
    house.catalog.collect().await.expect("collect");
    let lying = Mock::start(&fixture, Habits::default()).await;
    assert_eq!(code(house.catalog.pull(&ROOT, lying.spec(), None).await), ErrorCode::ImageInvalid);
    assert_eq!(house.launch.list(), []);
}

#[tokio::test]
async fn images_are_counted_by_layer_for_whoever_has_named_them() {
    let house = House::new();
    let user = Caller { uid: 7, gid: 7, pid: 0, operator: false };
    let import = async |name: &str, layers: &[&str]| {
        let layers: Vec<_> = layers.iter().map(|content| layer(content)).collect();
        let archive = Fixture::new(&layers).layout(None);
        house.catalog.import(&user, Some(name.to_owned()), archive.as_slice(), None).await
    };
    import("mine:1", &["one", "two"]).await.expect("room for two");
    let used = house.catalog.image_bytes(7);
    assert_eq!(used, size_of_layer("one") + size_of_layer("two"));
    import("mine:2", &["two", "one"]).await.expect("the same layers");
    assert_eq!(house.catalog.image_bytes(7), used);
    let refused = import("mine:3", &["one", "three"]).await.expect_err("a third layer");
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
    let context = refused.context.expect("numbers");
    assert_eq!((&context["field"], &context["used"]), (&"image_bytes".into(), &used.into()));
    // What an image has in the place of another of its name counts in its place.
    house.catalog.remove(&user, "mine:2").await.expect("remove");
    import("mine:1", &["one", "three"]).await.expect("in the place of another");
    assert_eq!(house.launch.list().len(), 2);
    house.import("root:1", &Fixture::new(&[layer("four"), layer("five")]).layout(None)).await.expect("root");
    assert_eq!(house.catalog.image_bytes(7), size_of_layer("one") + size_of_layer("three"));
    // A pull is refused before a layer is downloaded.
    let fixture = Fixture::new(&[layer("six")]);
    let (mock, mock_digest) =
        (Mock::start(&fixture, Habits::default()).await, digest(&fixture.layers[0]).to_string());
    assert_eq!(code(house.catalog.pull(&user, mock.spec(), None).await), ErrorCode::QuotaExceeded);
    assert_eq!(mock.requests(&mock_digest), 0);
}
