//! Workers that do as they should, and workers that lie.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use rustix::fs::{Mode, OFlags};

use super::{Files, Held, Opened, WriteSpec};
use crate::error::{Error, ErrorCode};
use crate::sandbox::agent::Agent;
use crate::sys::channel::Channel;
use crate::sys::socket;
use crate::wire;
use crate::wire::agent::{Event, Name, Request as AgentRequest, User, VERSION};
use crate::wire::worker::{
    Answer, Call, Condition, End, Entry, Failure, Kind, List, Reply, Request, Stat, Tag, Time, Watch,
};

/// What a worker of this test does with its socket.
type Inside = Arc<dyn Fn(OwnedFd) + Send + Sync>;

/// Files whose workers are threads.
fn files(inside: Inside) -> Files {
    let (ours, theirs) = socket::pair().expect("pair");
    let agent = Agent::start(ours, 1).expect("agent");
    tokio::spawn(async move {
        let channel = Channel::new(theirs).expect("channel");
        let hello = Event::Hello { version: VERSION, commands: Vec::new() };
        channel.send(&hello, &[]).await.expect("hello");
        while let Ok((request, mut fds)) = channel.receive::<AgentRequest>().await {
            if let AgentRequest::Exec(exec) = request {
                let started = Event::Started { command: exec.command, pid: 1 };
                channel.send(&started, &[]).await.expect("started");
                let (inside, socket) = (Arc::clone(&inside), fds.pop().expect("socket"));
                std::thread::spawn(move || inside(socket));
            }
        }
    });
    let user = User { user: Name::Id(0), group: None };
    Held::default().of(agent, user, "/".to_owned(), crate::sandbox::lifecycle::Activity::new().hold())
}

/// One that answers every request with this, whatever was asked.
fn liar(answer: impl Fn(u64) -> (Reply, Vec<OwnedFd>) + Send + Sync + 'static) -> Files {
    files(Arc::new(move |socket| {
        let mut buffer = vec![0; 1 << 17];
        while let Ok(received) = socket::receive(&socket, &mut buffer)
            && received.length > 0
        {
            let request: Request = wire::decode(&buffer[..received.length]).expect("request");
            let (reply, fds) = answer(request.number);
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            // serve closes its end as soon as it knows better.
            let _ = socket::send(&socket, &wire::encode(&reply).expect("frame"), &fds);
        }
    }))
}

fn stat() -> Stat {
    let time = Time::default();
    let tag = Tag { inode: 1, size: u64::MAX, mtime: time, ctime: time };
    Stat { kind: Kind::File, mode: 0, uid: 0, gid: 0, links: 1, tag, target: None, text: None }
}

fn spec(path: &str) -> WriteSpec {
    WriteSpec {
        path: path.as_bytes().to_vec(),
        mode: None,
        owner: None,
        parents: false,
        condition: Condition::Any,
    }
}

fn body(bytes: &[u8]) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + use<> {
    stream::iter([Ok(bytes::Bytes::copy_from_slice(bytes))])
}

/// One that opens this for whatever it is asked.
fn opener(path: std::path::PathBuf) -> Files {
    liar(move |number| {
        let fd = rustix::fs::open(&path, OFlags::RDONLY, Mode::empty()).expect("open");
        (Reply { number, result: Ok(Answer::Content(stat())) }, vec![fd])
    })
}

#[tokio::test]
async fn one_worker_does_what_comes_one_after_another() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a");
    std::fs::write(&path, [7; 1000]).expect("write");
    let files = opener(path);
    for _ in 0..20 {
        let Opened::File { tag, file } = files.open(b"/a".to_vec()).await.expect("open") else {
            panic!("not direct")
        };
        // Not what the worker claims.
        assert_eq!(tag.size, 1000);
        let read: Vec<_> = file.read(10, 5).into_stream().try_collect().await.expect("read");
        assert_eq!(read.concat(), [7; 5]);
    }
    assert_eq!(files.workers.free(), crate::limits::WORKERS_PER_SANDBOX_MAX - 1);
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a");
    std::fs::write(&path, vec![1; 1_000_000]).expect("write");
    let Opened::File { tag, file } = opener(path.clone()).open(b"/a".to_vec()).await.expect("open") else {
        panic!("not direct")
    };
    let mut stream = std::pin::pin!(file.read(0, tag.size).into_stream());
    assert!(stream.next().await.expect("first").is_ok());
    std::fs::write(path, b"short").expect("truncate");
    assert!(stream.any(async |item| item.is_err()).await);
}

/// What is sent in place of a regular file.
const STRANGERS: [&str; 6] =
    ["nothing", "a device", "a directory", "a pipe", "a socket that lingers", "two files"];

fn stranger(name: &str) -> Vec<OwnedFd> {
    let open = |path: &str| rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).expect("open");
    match name {
        "a device" => vec![open("/dev/zero")],
        "a directory" => vec![open("/")],
        "a pipe" => vec![rustix::pipe::pipe().expect("pipe").0],
        "a socket that lingers" => vec![lingering().into()],
        "two files" => vec![open("/etc/passwd"), open("/etc/passwd")],
        _ => Vec::new(),
    }
}

/// A connection whose end would be waited for a minute: nobody takes its bytes.
fn lingering() -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let stream = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(60))).expect("linger");
    stream.set_nonblocking(true).expect("set");
    while (&stream).write(&[0; 65_536]).is_ok() {}
    stream.set_nonblocking(false).expect("set");
    std::mem::forget(listener.accept().expect("accept"));
    stream
}

#[tokio::test]
async fn what_is_no_file_is_not_read_and_not_waited_for() {
    for name in STRANGERS {
        let files =
            liar(move |number| (Reply { number, result: Ok(Answer::Content(stat())) }, stranger(name)));
        let start = Instant::now();
        let error = files.open(b"/a".to_vec()).await.map(|_| ()).expect_err(name);
        assert_eq!(error.code, ErrorCode::FilesUnavailable, "{name}");
        let error = files.write(spec("/a"), body(b"x")).await.map(|_| ()).expect_err(name);
        assert_eq!(error.code, ErrorCode::FilesUnavailable, "{name}");
        assert_eq!(
            files.dial(80).await.map(|_| ()).expect_err(name).code,
            ErrorCode::FilesUnavailable,
            "{name}"
        );
        assert!(start.elapsed() < Duration::from_secs(20), "{name} took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn files_of_procfs_are_not_read_by_serve() {
    // Reading it would ask for this process's rights.
    let Opened::File { file, .. } =
        opener("/proc/self/environ".into()).open(b"/a".to_vec()).await.expect("open")
    else {
        panic!("not direct")
    };
    assert!(file.read(0, 100).next().await.expect("one item").is_err());
}

/// A list of one, as the worker answers it.
async fn list(files: &Files) -> Result<usize, Error> {
    let list =
        List { path: b"/".to_vec(), recursive: false, hidden: false, glob: None, after: None, limit: 1 };
    files.list(list).await.map(|page| page.items.len())
}

#[tokio::test]
async fn answers_that_were_not_asked_for_end_the_worker() {
    let entry = || Entry { path: b"x".to_vec(), stat: stat() };
    let of =
        |result: fn() -> Answer| liar(move |number| (Reply { number, result: Ok(result()) }, Vec::new()));
    assert_eq!(list(&of(|| Answer::End(End::default()))).await.expect("empty"), 0);
    for bad in [
        of(|| Answer::Done),
        of(|| Answer::Entries(Vec::new())),
        of(|| Answer::Matches(Vec::new())),
        liar(move |number| {
            (Reply { number, result: Ok(Answer::Entries(vec![entry(), entry()])) }, Vec::new())
        }),
        liar(|number| (Reply { number: number + 1, result: Ok(Answer::End(End::default())) }, Vec::new())),
    ] {
        let result = tokio::time::timeout(Duration::from_millis(300), list(&bad)).await;
        match result {
            // It waits for the next part that never comes: that is the client's own time.
            Err(_) => {}
            Ok(result) => assert_eq!(result.expect_err("not an answer").code, ErrorCode::FilesUnavailable),
        }
    }
    let junk = files(Arc::new(|socket| {
        let mut buffer = vec![0; 1 << 17];
        let _ = socket::receive(&socket, &mut buffer);
        let _ = socket::send(&socket, &[0xff; 1000], &[]);
    }));
    assert_eq!(list(&junk).await.expect_err("junk").code, ErrorCode::FilesUnavailable);
}

#[tokio::test]
async fn a_worker_that_hangs_holds_up_nobody_else() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let files = liar(move |number| {
        if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(20));
        }
        (Reply { number, result: Ok(Answer::Stat(stat())) }, Vec::new())
    });
    let hanging = tokio::spawn({
        let files = files.clone();
        async move { files.stat(b"/".to_vec(), true, false).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stat = tokio::time::timeout(Duration::from_secs(5), files.stat(b"/".to_vec(), true, false)).await;
    assert_eq!(stat.expect("at once").expect("stat").kind, Kind::File);
    hanging.abort();
}

#[tokio::test]
async fn a_watch_that_ends_while_it_is_asked_something_leaves_no_answer_for_the_next() {
    let files = files(Arc::new(|socket| {
        let mut buffer = vec![0; 1 << 17];
        while let Ok(received) = socket::receive(&socket, &mut buffer)
            && received.length > 0
        {
            let Request { number, call } = wire::decode(&buffer[..received.length]).expect("request");
            let replies = match call {
                // The directory vanished first; then the question is taken for a request, which it is not.
                Call::Synchronise => vec![Ok(Answer::Done), Err(Failure::Errno(71))],
                _ => vec![Ok(Answer::Armed)],
            };
            for result in replies {
                let reply = wire::encode(&Reply { number, result }).expect("frame");
                // serve closes its end as soon as it knows better.
                let _ = socket::send(&socket, &reply, &[]);
            }
        }
    }));
    let watch = Watch { path: b"/".to_vec(), recursive: false, include: Vec::new(), exclude: Vec::new() };
    for _ in 0..10 {
        files.changed(watch.clone(), None).await.expect("changed");
    }
}

#[tokio::test]
async fn an_upload_in_many_pieces_some_of_them_empty_arrives_whole() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a");
    let draft = path.clone();
    let files = liar(move |number| {
        if number > 1 {
            return (Reply { number, result: Ok(Answer::Stat(stat())) }, Vec::new());
        }
        let flags = OFlags::CREATE | OFlags::RDWR;
        let fd = rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR).expect("open");
        (Reply { number, result: Ok(Answer::Draft { name: None, present: None }) }, vec![fd])
    });
    let pieces = [vec![Vec::new(); 300], vec![vec![7]; 300], vec![vec![8; 100_000]; 50]].concat();
    let sent = pieces.concat();
    let body = stream::iter(pieces.into_iter().map(|piece| std::io::Result::Ok(piece.into())));
    files.write(spec("/a"), body).await.expect("written");
    assert!(std::fs::read(path).expect("read") == sent);
}
