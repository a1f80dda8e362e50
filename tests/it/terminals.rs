//! Terminals: what a program on one sees, what viewers see, and what neither can do to the other.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::harness::{Daemon, PATIENCE, assert_error, host};

/// Somebody who looks at a terminal.
pub(crate) struct Viewer {
    socket: WebSocket<UnixStream>,
    pub(crate) seen: Vec<u8>,
    events: Vec<Value>,
}

impl Viewer {
    #[track_caller]
    pub(crate) fn attach(daemon: &Daemon, sandbox: &str, terminal: &str, query: &str) -> Self {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let url = format!("ws://stockade/v1/sandboxes/{sandbox}/terminals/{terminal}/attach{query}");
        let (socket, _) = tungstenite::client(url.into_client_request().unwrap(), stream).unwrap();
        let mut viewer = Self { socket, seen: Vec::new(), events: Vec::new() };
        while viewer.events.is_empty() {
            viewer.look();
        }
        assert_eq!(viewer.events[0]["event"], "attached");
        viewer
    }

    /// Takes one frame. False at the end.
    #[track_caller]
    fn look(&mut self) -> bool {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.seen.extend_from_slice(&bytes),
            Ok(Message::Text(text)) => self.events.push(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return false,
            Ok(_) => {}
            Err(error) => panic!("{error}; seen so far: {}", String::from_utf8_lossy(&self.seen)),
        }
        true
    }

    /// Looks until this is to be seen.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let start = Instant::now();
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            // Pings come all the time, so that reading does not time out.
            assert!(start.elapsed() < PATIENCE, "no {text:?}: {}", String::from_utf8_lossy(&self.seen));
            assert!(self.look(), "ended without {text:?}: {}", String::from_utf8_lossy(&self.seen));
        }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).unwrap();
    }

    pub(crate) fn say(&mut self, control: &Value) {
        self.socket.send(Message::text(control.to_string())).unwrap();
    }

    /// Looks until the end and gives the exit code.
    #[track_caller]
    pub(crate) fn end(&mut self) -> i64 {
        let start = Instant::now();
        while self.look() {
            assert!(start.elapsed() < PATIENCE, "no end: {}", String::from_utf8_lossy(&self.seen));
        }
        let last = self.events.last().unwrap();
        assert_eq!(last["event"], "exit", "{last}");
        last["exit_code"].as_i64().unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

#[track_caller]
pub(crate) fn open(daemon: &Daemon, sandbox: &str, spec: &Value) -> String {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/terminals"), Some(spec));
    assert_eq!(answer.status, 201, "{spec}: {}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn view(daemon: &Daemon, sandbox: &str, terminal: &str) -> Value {
    daemon.get(&format!("/v1/sandboxes/{sandbox}/terminals/{terminal}"))
}

#[test]
fn a_program_has_a_terminal_of_its_own_and_a_viewer_types_into_it() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let script = "tty; stty size; echo $TERM; trap 'stty size; echo resized' WINCH; while read line; do echo got $line; done; exit 3";
    let spec = json!({"id": "t", "argv": ["bash", "-c", script], "rows": 30, "columns": 99});
    assert_eq!(open(&daemon, &name, &spec), "t");
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.until("xterm-256color");
    assert!(viewer.text().contains("/dev/pts/0\r\n30 99\r\n"), "{}", viewer.text());
    viewer.type_in("hällo\r");
    viewer.until("got hällo\r\n");
    viewer.say(&json!({"resize": {"rows": 40, "columns": 120}}));
    viewer.type_in("\r");
    viewer.until("resized");
    // Bash forgets a signal that comes while it runs the trap for the same signal.
    viewer.until("got\r\n");
    assert!(viewer.text().contains("40 120\r\n"), "{}", viewer.text());
    let path = format!("/v1/sandboxes/{name}/terminals/t/resize");
    assert_eq!(daemon.request("POST", &path, Some(&json!({"rows": 50, "columns": 60}))).status, 204);
    assert_error(
        &daemon.request("POST", &path, Some(&json!({"rows": 0, "columns": 60}))),
        400,
        "INVALID_REQUEST",
    );
    viewer.type_in("\r");
    viewer.until("50 60\r\n");
    let seen = view(&daemon, &name, "t");
    assert_eq!(
        (&seen["rows"], &seen["running"], &seen["viewers"]),
        (&json!(50), &json!(true), &json!(1)),
        "{seen}"
    );
    // End of input as a person gives it.
    viewer.type_in("\x04");
    assert_eq!(viewer.end(), 3);
    let seen = view(&daemon, &name, "t");
    assert_eq!((&seen["running"], &seen["exit_code"]), (&json!(false), &json!(3)), "{seen}");
    assert_eq!(seen["cursor_next"], viewer.seen.len());
    assert_error(
        &daemon.request("POST", &path, Some(&json!({"rows": 1, "columns": 1}))),
        409,
        "TERMINAL_ENDED",
    );
    // What was written is there for whoever comes later, exactly.
    let mut later = Viewer::attach(&daemon, &name, "t", "");
    assert_eq!(later.end(), 3);
    assert_eq!(later.seen, viewer.seen);
    let mut part = Viewer::attach(&daemon, &name, "t", "?cursor=10");
    part.end();
    assert_eq!(part.seen, &viewer.seen[10..]);
}

#[test]
fn signals_and_control_characters_reach_whom_they_are_meant_for() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    open(&daemon, &name, &json!({"id": "t", "env": {"PS1": "$ "}, "argv": ["bash", "--norc"]}));
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.until("$ ");
    // Ctrl-C ends the program in the foreground and not the shell.
    viewer.type_in("sleep 1000\r");
    viewer.until("sleep 1000\r\n");
    std::thread::sleep(Duration::from_millis(200));
    viewer.type_in("\x03");
    viewer.type_in("echo code $?\r");
    viewer.until("code 130\r\n");
    // Job control: Ctrl-Z stops it, fg goes on.
    viewer.type_in("cat\r");
    std::thread::sleep(Duration::from_millis(200));
    viewer.type_in("\x1a");
    viewer.until("Stopped");
    viewer.type_in("jobs; fg\r");
    // Until then bash has the terminal, and its keys mean something else.
    std::thread::sleep(Duration::from_millis(500));
    viewer.type_in("once\r");
    viewer.until("once\r\nonce\r\n");
    viewer.type_in("\x04");
    let path = format!("/v1/sandboxes/{name}/terminals/t/signal");
    assert_error(&daemon.request("POST", &path, Some(&json!({"signal": "NONE"}))), 400, "INVALID_REQUEST");
    viewer.type_in("trap 'echo usr1' USR1; PS1='% '\r");
    viewer.until("% ");
    viewer.say(&json!({"signal": "USR1"}));
    // A shell that waits for a line does so first.
    std::thread::sleep(Duration::from_millis(300));
    viewer.type_in("\r");
    viewer.until("\rusr1\r\n");
    assert_eq!(daemon.request("POST", &path, Some(&json!({"signal": "SIGHUP"}))).status, 204);
    assert_eq!(viewer.end(), 129);
}

#[test]
fn a_terminal_outlives_its_viewers_and_has_many() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    open(&daemon, &name, &json!({"id": "t", "argv": ["cat"]}));
    let mut first = Viewer::attach(&daemon, &name, "t", "");
    let mut second = Viewer::attach(&daemon, &name, "t", "");
    assert_eq!(view(&daemon, &name, "t")["viewers"], 2);
    first.type_in("from the first\r");
    for viewer in [&mut first, &mut second] {
        viewer.until("from the first\r\nfrom the first\r\n");
    }
    second.type_in("from the second\r");
    for viewer in [&mut first, &mut second] {
        viewer.until("from the second\r\nfrom the second\r\n");
    }
    // One leaves in order, the other vanishes.
    let cursor = first.seen.len();
    first.socket.close(None).unwrap();
    drop(first);
    drop(second);
    let start = Instant::now();
    while view(&daemon, &name, "t")["viewers"] != 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "a viewer that left is counted");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(view(&daemon, &name, "t")["running"], true);
    let mut third = Viewer::attach(&daemon, &name, "t", &format!("?cursor={cursor}"));
    assert_eq!(third.events[0]["cursor"], cursor);
    third.type_in("again\r");
    third.until("again\r\nagain\r\n");
    assert_eq!(third.seen, b"again\r\nagain\r\n");
    assert_eq!(daemon.request("DELETE", &format!("/v1/sandboxes/{name}/terminals/t"), None).status, 204);
    assert_eq!(third.end(), 137);
    assert_error(
        &daemon.request("GET", &format!("/v1/sandboxes/{name}/terminals/t"), None),
        404,
        "TERMINAL_NOT_FOUND",
    );
    assert_eq!(daemon.shell(&name, "ps -eo args | grep -c '[c]at$' || true").trim(), "0");
}

#[test]
fn a_terminal_in_a_session_begins_where_the_session_is() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let command = json!({"shell": "mkdir -p '/tmp/a b'; cd '/tmp/a b'; export E=$'two\\nlines' F='ä x'; G=hidden; unset PATH; export PATH=/usr/bin:/bin; exec >/dev/null"});
    let answer =
        daemon.request("POST", &format!("/v1/sandboxes/{name}/sessions/default/commands"), Some(&command));
    assert_eq!(answer.status, 200);
    let script = "echo \"$PWD|$E|$F|$G|$H|$TERM|$PATH\"";
    open(
        &daemon,
        &name,
        &json!({"id": "t", "argv": ["sh", "-c", script], "session": "default", "env": {"H": "own", "TERM": "vt100"}}),
    );
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.end();
    assert_eq!(viewer.text(), "/tmp/a b|two\r\nlines|ä x||own|vt100|/usr/bin:/bin\r\n");
    open(&daemon, &name, &json!({"id": "u", "session": "default", "cwd": "/usr"}));
    let mut viewer = Viewer::attach(&daemon, &name, "u", "");
    viewer.type_in("pwd; echo $E; exit\r");
    viewer.end();
    assert!(viewer.text().contains("/usr\r\n") && viewer.text().contains("two lines"), "{}", viewer.text());
    let path = format!("/v1/sandboxes/{name}/terminals");
    for (body, status, code) in [
        (json!({"session": "none"}), 404, "SESSION_NOT_FOUND"),
        (json!({"id": "t"}), 409, "TERMINAL_EXISTS"),
        (json!({"argv": ["no-such-program"]}), 422, "COMMAND_NOT_IN_IMAGE"),
        (json!({"argv": ["/etc/passwd"]}), 422, "COMMAND_NOT_EXECUTABLE"),
        (json!({"cwd": "/no/such"}), 422, "INVALID_CWD"),
        (json!({"user": "nosuchuser"}), 422, "USER_NOT_FOUND"),
        (json!({"id": "a/b"}), 400, "INVALID_ID"),
        (json!({"columns": 100_000}), 400, "INVALID_REQUEST"),
    ] {
        assert_error(&daemon.request("POST", &path, Some(&body)), status, code);
    }
    let ids: Vec<String> = daemon.get(&path)["terminals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, ["t", "u"]);
}

#[test]
fn a_viewer_that_lags_misses_output_is_told_so_and_holds_nobody_up() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // Numbered lines: what is missing can be told from what is there.
    let script = "stty -opost; read go; seq -f %015.0f 1 500000; echo end; read x";
    open(&daemon, &name, &json!({"id": "t", "argv": ["sh", "-c", script]}));
    let mut slow = Viewer::attach(&daemon, &name, "t", "");
    let mut quick = Viewer::attach(&daemon, &name, "t", "");
    quick.type_in("\r");
    quick.until("end\n");
    let numbers = |seen: &[u8]| {
        let text = String::from_utf8_lossy(seen);
        text.lines().filter(|line| line.len() == 15 && !line.contains('\r')).count()
    };
    // 8 MB in all: far more than the ring and the sockets hold.
    slow.until("end\n");
    let missed: u64 = slow
        .events
        .iter()
        .filter(|event| event["event"] == "skipped")
        .map(|event| event["bytes"].as_u64().unwrap())
        .sum();
    assert!(missed > 1 << 20, "a viewer that did not read for a while missed only {missed} bytes");
    let total = view(&daemon, &name, "t")["cursor_next"].as_u64().unwrap();
    assert_eq!(slow.seen.len() as u64 + missed, total);
    assert!(numbers(&slow.seen) < 500_000);
    // Whoever keeps up misses nothing, or is told.
    let missed: u64 = quick
        .events
        .iter()
        .filter(|event| event["event"] == "skipped")
        .map(|event| event["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(quick.seen.len() as u64 + missed, total);
    // The last 256 KiB at least are there for a newcomer.
    let late = view(&daemon, &name, "t");
    let kept = late["cursor_next"].as_u64().unwrap() - late["cursor_first"].as_u64().unwrap();
    assert_eq!(kept, 256 * 1024);
    let mut late = Viewer::attach(&daemon, &name, "t", "?cursor=0");
    late.until("end\n");
    assert_eq!(late.events[0]["cursor"], total - kept);
    assert_eq!(late.seen, &quick.seen[quick.seen.len() - late.seen.len()..]);
}

#[test]
fn a_flood_without_a_reader_costs_the_daemon_no_memory() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    open(&daemon, &name, &json!({"id": "warm", "argv": ["true"]}));
    let before = host::resident_kib(daemon.serve_pid());
    for number in 0..4 {
        open(&daemon, &name, &json!({"id": format!("y{number}"), "argv": ["yes", "a line of a flood"]}));
    }
    // One with a viewer that reads nothing, one with a socket that is half closed.
    let stalled = Viewer::attach(&daemon, &name, "y0", "");
    let half = Viewer::attach(&daemon, &name, "y1", "");
    half.socket.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let grown = host::resident_kib(daemon.serve_pid()) - before;
    assert!(grown < 8 * 1024, "the daemon grew by {grown} KiB");
    // It still answers at once, and the terminals go on.
    let start = Instant::now();
    let first = view(&daemon, &name, "y2")["cursor_next"].as_u64().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    std::thread::sleep(Duration::from_millis(200));
    assert!(view(&daemon, &name, "y2")["cursor_next"].as_u64().unwrap() > first);
    drop((stalled, half));
    for number in 0..4 {
        let path = format!("/v1/sandboxes/{name}/terminals/y{number}");
        assert_eq!(daemon.request("DELETE", &path, None).status, 204);
    }
}

#[test]
fn a_huge_paste_that_nobody_reads_and_a_storm_of_sizes_harm_nobody() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    open(
        &daemon,
        &name,
        &json!({"id": "t", "argv": ["sh", "-c", "stty raw -echo; echo ready; sleep 2; head -c 4000000 | wc -c"]}),
    );
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.until("ready");
    let mut paster = Viewer::attach(&daemon, &name, "t", "");
    let pasting = std::thread::spawn(move || {
        for _ in 0..63 {
            paster.type_in(&"x".repeat(64_000));
        }
        paster
    });
    for round in 0..500 {
        viewer.say(&json!({"resize": {"rows": 1 + round % 100, "columns": 1 + round % 200}}));
    }
    // It is taken once somebody reads it, all of it.
    viewer.until("4000000");
    drop(pasting.join().unwrap());
    // Typing into a terminal whose program has ended neither fails nor keeps the daemon busy.
    let mut late = Viewer::attach(&daemon, &name, "t", "");
    // It may be told of the end, and be closed, before it is done.
    let _ = late.socket.send(Message::binary(vec![b'x'; 200_000]));
    drop(late);
    // A viewer that talks nonsense is put out, and only that one.
    open(&daemon, &name, &json!({"id": "u", "argv": ["cat"]}));
    let mut other = Viewer::attach(&daemon, &name, "u", "");
    for nonsense in
        ["{}x", "[]", r#"{"resize":{"rows":0,"columns":1}}"#, r#"{"unknown":1}"#, r#"{"signal":"NONE"}"#]
    {
        let mut rude = Viewer::attach(&daemon, &name, "u", "");
        rude.socket.send(Message::text(nonsense.to_owned())).unwrap();
        let mut rest = [0; 64];
        while rude.socket.get_mut().read(&mut rest).unwrap_or(0) > 0 {}
    }
    other.type_in("still\r");
    other.until("still\r\nstill\r\n");
}

#[test]
fn nothing_types_into_a_terminal_but_its_viewers() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // TIOCSTI (0x5412), also with a high bit that a careless filter does not see, and TIOCLINUX (0x541c).
    let program = "import ctypes,os,sys\nlibc=ctypes.CDLL(None,use_errno=True)\n\
        for request in (0x5412,0x100005412,0x541c):\n\
        \x20 r=libc.syscall(16,0,ctypes.c_ulong(request),b'x')\n\
        \x20 print(hex(request),r,ctypes.get_errno(),flush=True)\n";
    open(&daemon, &name, &json!({"id": "t", "argv": ["python3", "-c", program]}));
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.end();
    assert_eq!(viewer.text().matches(" -1 ").count(), 3, "{}", viewer.text());
    // A terminal of one sandbox is no file of another, nor of the host.
    open(&daemon, &name, &json!({"id": "u", "argv": ["sleep", "100"]}));
    let other = daemon.sandbox();
    assert_eq!(daemon.shell(&other, "ls /dev/pts").trim(), "ptmx");
    assert_error(
        &daemon.request("GET", &format!("/v1/sandboxes/{other}/terminals/u"), None),
        404,
        "TERMINAL_NOT_FOUND",
    );
    // Descriptors do not pile up.
    let count = || std::fs::read_dir(format!("/proc/{}/fd", daemon.serve_pid())).unwrap().count();
    let before = count();
    for round in 0..40 {
        let id = format!("r{round}");
        open(&daemon, &name, &json!({"id": id, "argv": ["cat"]}));
        assert_eq!(
            daemon.request("DELETE", &format!("/v1/sandboxes/{name}/terminals/{id}"), None).status,
            204
        );
    }
    assert!(count() <= before + 2, "{before} became {}", count());
}

#[test]
fn terminals_that_have_ended_leave_room_for_others() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // More than a sandbox has pseudoterminals.
    for number in 0..70 {
        let id = format!("t{number}");
        open(&daemon, &name, &json!({"id": id, "argv": ["echo", "seen"]}));
        host::wait_for("it to end", || view(&daemon, &name, &id)["running"] == false);
    }
    let mut late = Viewer::attach(&daemon, &name, "t69", "");
    assert_eq!(late.end(), 0);
    assert_eq!(late.text(), "seen\r\n");
    // Those that run have them, and it is said what can be done.
    let path = format!("/v1/sandboxes/{name}/terminals");
    let refused = (0..200).find_map(|_| {
        let answer = daemon.request("POST", &path, Some(&json!({"argv": ["sleep", "1000"]})));
        (answer.status != 201).then_some(answer)
    });
    assert_error(&refused.expect("a sandbox has as many as it wants"), 503, "CAPACITY_EXHAUSTED");
}

#[test]
fn a_viewer_is_told_what_was_wrong_with_what_it_said() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    open(&daemon, &name, &json!({"id": "t", "argv": ["sleep", "1000"]}));
    for bad in ["not json", r#"{"bad":1}"#, r#"{"signal":"FOO"}"#] {
        let mut viewer = Viewer::attach(&daemon, &name, "t", "");
        viewer.socket.send(Message::text(bad)).unwrap();
        let closed = loop {
            let message = viewer.socket.read().unwrap_or_else(|error| panic!("{bad}: {error}"));
            if let Message::Close(frame) = message {
                break frame.expect("a reason");
            }
        };
        assert_eq!(u16::from(closed.code), 1008, "{bad}: {closed:?}");
        assert!(closed.reason.starts_with("INVALID_REQUEST: "), "{bad}: {closed:?}");
    }
    // A position that nobody can have got to is another terminal's.
    let path = format!("/v1/sandboxes/{name}/terminals/t/attach?cursor=1000");
    let handshake = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    assert_error(&daemon.send("GET", &path, &handshake, b""), 416, "RANGE_NOT_SATISFIABLE");
}
