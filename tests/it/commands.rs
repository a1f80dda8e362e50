//! Commands: what they are given, what comes back, and how they end.

use std::io::Read as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;

use crate::harness::http::{Connection, Event};
use crate::harness::image::Image;
use crate::harness::{Daemon, assert_error, decode, host, id, output, probe, skip};

#[test]
fn exit_codes_are_those_of_a_shell() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (line, code) in
        [("true", 0), ("false", 1), ("exit 7", 7), ("exit 255", 255), ("no-such-program", 127)]
    {
        let result = daemon.run(&name, json!({"shell": line}));
        assert_eq!(
            (&result["exit_code"], &result["signal"]),
            (&json!(code), &Value::Null),
            "{line}: {result}"
        );
    }
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("USR1", 10)] {
        let result =
            daemon.run(&name, json!({"argv": ["/bin/sh", "-c", format!("kill -{signal} $$; sleep 5")]}));
        assert_eq!(result["exit_code"], 128 + number, "{result}");
        assert_eq!(result["signal"], format!("SIG{signal}"), "{result}");
    }
    assert_error(&daemon.try_run(&name, &json!({"argv": ["no-such-program"]})), 422, "COMMAND_NOT_IN_IMAGE");
    assert_error(&daemon.try_run(&name, &json!({"argv": ["/no/such/file"]})), 422, "COMMAND_NOT_IN_IMAGE");
    assert_error(&daemon.try_run(&name, &json!({"argv": ["/etc/passwd"]})), 422, "COMMAND_NOT_EXECUTABLE");
    assert_error(&daemon.try_run(&name, &json!({"argv": ["/usr"]})), 422, "COMMAND_NOT_EXECUTABLE");
}

#[test]
fn output_is_byte_exact() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result = daemon.run(&name, json!({"shell": "printf 'no newline'; printf 'err' >&2"}));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("no newline"), &json!("err")), "{result}");
    assert_eq!(result["stdout_encoding"], "utf-8");
    let all: Vec<u8> = (0..=255).collect();
    let result = daemon.run(&name, json!({"argv": ["cat"], "stdin_base64": BASE64.encode(&all)}));
    assert_eq!(result["stdout_encoding"], "base64");
    assert_eq!(output(&result, "stdout"), all);
    // Text that a boundary between two reads would cut in a character.
    let text = "€ürø".repeat(50_000);
    let result = daemon.run(&name, json!({"argv": ["cat"], "stdin": text}));
    assert_eq!(result["stdout_encoding"], "utf-8");
    assert!(output(&result, "stdout") == text.as_bytes(), "a large text changed on the way");
    let result = daemon.run(&name, json!({"argv": ["true"]}));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!(""), &json!("")));
    assert_eq!(result["truncated"], json!({"stdout": false, "stderr": false}));
}

#[test]
fn output_beyond_the_bound_is_cut_and_said_so() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let line = "head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2";
    let result = daemon.run(&name, json!({"shell": line, "output_bytes_max": 1000}));
    assert_eq!(result["stdout"], "x".repeat(1000));
    assert_eq!(result["truncated"], json!({"stdout": true, "stderr": false}));
    // Cut, not closed: the command ran to its end.
    assert_eq!((&result["exit_code"], &result["stderr"]), (&json!(0), &json!("end\n")));
}

#[test]
fn stdin_is_given_whole_and_then_ends() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    assert_eq!(daemon.run(&name, json!({"argv": ["cat"], "stdin": "a\nb"}))["stdout"], "a\nb");
    // Without stdin the command reads end of file at once and does not hang, however it opens it.
    assert_eq!(daemon.shell(&name, "cat; cat /dev/stdin; cat </proc/self/fd/0; echo end"), "end\n");
    let written = daemon.run(&name, json!({"shell": "echo x >/proc/self/fd/0; cat /dev/stdin", "user": "0"}));
    assert_eq!(written["stdout"], "", "nobody can write to it: {written}");
    assert_eq!(daemon.run(&name, json!({"argv": ["cat"]}))["stdout"], "");
    // A command that does not read its input ends all the same.
    let result = daemon.run(&name, json!({"argv": ["true"], "stdin": "x".repeat(1_000_000)}));
    assert_eq!(result["exit_code"], 0);
}

#[test]
fn environment_and_cwd_come_from_image_sandbox_and_command_in_this_order() {
    let daemon = Daemon::start();
    let name = id(&daemon.create(json!({"env": {"A": "sandbox", "B": "sandbox"}, "cwd": "/tmp"})));
    let result = daemon.run(
        &name,
        json!({"argv": ["/bin/sh", "-c", "echo $A $B $C; pwd"], "env": {"B": "command", "C": "a b\"c'$d"}}),
    );
    assert_eq!(result["stdout"], "sandbox command a b\"c'$d\n/tmp\n");
    assert_eq!(daemon.run(&name, json!({"argv": ["pwd"], "cwd": "/usr/bin"}))["stdout"], "/usr/bin\n");
    let seen = daemon.shell(&name, "env");
    assert!(seen.contains("PATH="), "{seen}");
    for word in ["CARGO", "STOCKADE", "NOTIFY_SOCKET", "LISTEN_"] {
        assert!(!seen.contains(word), "the daemon's environment shows: {seen}");
    }
}

#[test]
fn argv_reaches_the_program_as_it_is() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let words = ["", "a b", "$HOME", "'", "\"", "\\", "*", "ü", "-n", "new\nline"];
    let mut argv = vec!["/bin/sh", "-c", "for w; do printf '[%s]' \"$w\"; done", "sh"];
    argv.extend(words);
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(daemon.run(&name, json!({"argv": argv}))["stdout"], expected);
}

#[test]
fn users_are_found_in_the_sandbox_by_name_and_number() {
    let daemon = Daemon::start();
    let Some(image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
    daemon.import("users:1", &image.layout_tar("1"));
    let name = id(&daemon.create(json!({"image": "users:1"})));
    let whoami = |user: &str| {
        let result = daemon
            .run(&name, json!({"argv": ["/bin/sh", "-c", "echo $(id -u):$(id -g):$(id -G)"], "user": user}));
        result["stdout"].as_str().unwrap().trim().to_owned()
    };
    assert_eq!(whoami("root"), "0:0:0");
    assert_eq!(whoami("alice"), "1000:1000:1000 2000");
    assert_eq!(whoami("1000"), "1000:1000:1000 2000");
    assert_eq!(whoami("alice:crew").split(':').take(2).collect::<Vec<_>>(), ["1000", "2000"]);
    assert_eq!(whoami("12345").split(':').next(), Some("12345"));
    assert_eq!(whoami("12345:54321").split(':').take(2).collect::<Vec<_>>(), ["12345", "54321"]);
    for stranger in ["bob", "alice:nobodies", "bob:0"] {
        let answer = daemon.try_run(&name, &json!({"argv": ["id"], "user": stranger}));
        assert_error(&answer, 422, "USER_NOT_FOUND");
    }
    for wrong in ["65536", "4294967295", "99999999999999999999", "", "-1", "a:b:c"] {
        let answer = daemon.try_run(&name, &json!({"argv": ["id"], "user": wrong}));
        assert!(matches!(answer.status, 400 | 422), "{wrong}: {}", String::from_utf8_lossy(&answer.body));
    }
}

#[test]
fn usage_and_duration_are_measured() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result =
        daemon.run(&name, json!({"shell": "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 0.2"}));
    let duration = result["duration_ms"].as_f64().unwrap();
    assert!((200.0..20_000.0).contains(&duration), "{result}");
    assert!(result["usage"]["user_us"].as_u64().unwrap() > 1_000, "{result}");
    assert!(result["usage"]["resident_max_kib"].as_u64().unwrap() > 100, "{result}");
}

/// Runs a command that must time out, and checks that it took about as long as it may.
#[track_caller]
fn time_out(daemon: &Daemon, name: &str, mut command: Value) -> Value {
    command["timeout_ms"] = json!(500);
    let start = Instant::now();
    let result = daemon.run(name, command);
    let took = start.elapsed();
    assert_eq!(result["timed_out"], true, "{result}");
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}: {result}");
    result
}

#[test]
fn a_timeout_kills_the_whole_tree_whatever_it_does_to_stay() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let name = id(&sandbox);
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    daemon.run(&name, json!({"argv": ["true"]}));
    let before = host::processes_in("pid", namespace).len();
    probe::install(&daemon, &name);
    let result = time_out(&daemon, &name, json!({"shell": "echo before; sleep 600"}));
    assert_eq!((&result["stdout"], &result["signal"]), (&json!("before\n"), &json!("SIGKILL")), "{result}");
    time_out(&daemon, &name, json!({"argv": [probe::PATH, "stubborn"]}));
    time_out(
        &daemon,
        &name,
        json!({"shell": "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 600"}),
    );
    // The first process ends at once, what it left behind holds neither terminal nor parent.
    time_out(&daemon, &name, json!({"shell": format!("{} daemonize; sleep 600", probe::PATH)}));
    host::wait_for("everything that the commands started to be gone", || {
        host::processes_in("pid", namespace).len() <= before
    });
    assert_eq!(daemon.shell(&name, "echo alive"), "alive\n");
}

#[test]
fn a_process_is_seen_and_killed_from_another_command() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for user in ["0", "1000"] {
        let run = |line: &str| daemon.run(&name, json!({"shell": line, "user": user}));
        let (mut connection, head) = stream(&daemon, &name, &json!({"argv": ["sleep", "601"], "user": user}));
        let mut body = connection.body(&head);
        let pid = data(&body.next_event().unwrap().unwrap())["pid"].as_i64().unwrap();
        let line = format!("tr '\\0' ' ' < /proc/{pid}/cmdline");
        host::wait_for("the program to be executed", || run(&line)["stdout"] == "sleep 601 ");
        assert!(run("ls /proc")["stdout"].as_str().unwrap().lines().any(|entry| entry == pid.to_string()));
        assert_eq!(run(&format!("kill {pid}"))["exit_code"], 0, "user {user}");
        let exit = body.next_event().unwrap().unwrap();
        assert_eq!((exit.name.as_str(), &data(&exit)["signal"]), ("exit", &json!("SIGTERM")), "user {user}");
    }
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let name = id(&sandbox);
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    daemon.run(&name, json!({"argv": ["true"]}));
    let before = host::processes_in("pid", namespace).len();
    let line = "trap '' TERM HUP; sleep 602 & setsid sleep 602 & (setsid sleep 602 &) ; echo left";
    let start = Instant::now();
    assert_eq!(daemon.run(&name, json!({"shell": line}))["stdout"], "left\n");
    assert!(start.elapsed() < Duration::from_secs(5), "waited for what was left behind");
    assert!(host::processes_in("pid", namespace).len() <= before);
}

#[test]
fn commands_of_one_sandbox_run_side_by_side() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || {
                let result = daemon.run(name, json!({"shell": format!("sleep 1; echo {number}")}));
                assert_eq!(result["stdout"], format!("{number}\n"));
            });
        }
    });
    assert!(start.elapsed() < Duration::from_secs(4), "one after the other: {:?}", start.elapsed());
}

/// Starts a command whose events are streamed; gives the connection and the headers.
fn stream(daemon: &Daemon, name: &str, command: &Value) -> (Connection, crate::harness::http::Head) {
    let mut connection = daemon.connect();
    let headers = [("Content-Type", "application/json"), ("Accept", "text/event-stream")];
    connection
        .send("POST", &format!("/v1/sandboxes/{name}/commands"), &headers, command.to_string().as_bytes())
        .unwrap();
    let head = connection.receive_head().unwrap();
    (connection, head)
}

fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).unwrap_or_else(|error| panic!("{error}: {event:?}"))
}

#[test]
fn events_arrive_while_the_command_runs_and_end_with_its_exit() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let line = "echo first; sleep 1; printf '\\377'; echo wrong >&2; exit 3";
    let (mut connection, head) = stream(&daemon, &name, &json!({"shell": line}));
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let mut body = connection.body(&head);
    let start = Instant::now();
    let started = body.next_event().unwrap().unwrap();
    assert_eq!(started.name, "started");
    assert!(data(&started)["id"].is_string() && data(&started)["pid"].as_i64().unwrap() > 1, "{started:?}");
    let first = body.next_event().unwrap().unwrap();
    assert_eq!((first.name.as_str(), &data(&first)["data"]), ("stdout", &json!("first\n")));
    assert!(start.elapsed() < Duration::from_millis(900), "the first output came late");
    let (mut out, mut err, mut ids) = (Vec::new(), Vec::new(), vec![started.id, first.id]);
    let exit = loop {
        let event = body.next_event().unwrap().unwrap();
        let value = data(&event);
        ids.push(event.id.clone());
        let bytes = || decode(value["data"].as_str().unwrap(), value["encoding"].as_str().unwrap());
        match event.name.as_str() {
            "stdout" => out.extend(bytes()),
            "stderr" => err.extend(bytes()),
            "exit" => break value,
            other => panic!("unexpected event {other}: {value}"),
        }
    };
    assert_eq!((out.as_slice(), err.as_slice()), (&b"\xff"[..], &b"wrong\n"[..]));
    assert_eq!((&exit["exit_code"], &exit["timed_out"]), (&json!(3), &json!(false)));
    assert!(body.next_event().unwrap().is_none(), "events after the exit");
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert!(distinct.len() == ids.len() && ids.iter().all(Option::is_some), "ids: {ids:?}");
}

#[test]
fn a_streamed_command_that_cannot_start_is_an_ordinary_error() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let (mut connection, head) = stream(&daemon, &name, &json!({"argv": ["no-such-program"]}));
    let mut text = String::new();
    if head.status == 200 {
        let mut body = connection.body(&head);
        let mut event = body.next_event().unwrap().unwrap();
        if event.name == "started" {
            event = body.next_event().unwrap().unwrap();
        }
        assert_eq!((event.name.as_str(), &data(&event)["code"]), ("error", &json!("COMMAND_NOT_IN_IMAGE")));
    } else {
        connection.body(&head).read_to_string(&mut text).unwrap();
        assert!(head.status == 422 && text.contains("COMMAND_NOT_IN_IMAGE"), "{} {text}", head.status);
    }
}

#[test]
fn a_large_stream_is_complete_and_in_order() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let (mut connection, head) = stream(&daemon, &name, &json!({"argv": ["seq", "1", "400000"]}));
    let mut body = connection.body(&head);
    let mut out = Vec::new();
    while let Some(event) = body.next_event().unwrap() {
        if event.name == "stdout" {
            let value = data(&event);
            out.extend(decode(value["data"].as_str().unwrap(), value["encoding"].as_str().unwrap()));
        }
    }
    let expected: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    assert!(out == expected.as_bytes(), "{} bytes instead of {}", out.len(), expected.len());
}

#[test]
fn a_reader_that_stalls_blocks_the_command_and_not_the_daemon() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let serve = daemon.serve_pid();
    let streams: Vec<_> =
        (0..4).map(|_| stream(&daemon, &name, &json!({"argv": ["yes", "a line of some length"]}))).collect();
    // Nobody reads now. Buffers fill, then the commands must stand still.
    std::thread::sleep(Duration::from_secs(1));
    let before = host::resident_kib(serve);
    std::thread::sleep(Duration::from_secs(2));
    let after = host::resident_kib(serve);
    assert!(after < before + 4096, "serve grew from {before} to {after} KiB while nobody read");
    assert_eq!(daemon.shell(&name, "echo others go on"), "others go on\n");
    let running = daemon.get(&format!("/v1/sandboxes/{name}/commands"));
    assert_eq!(running.as_array().or(running["commands"].as_array()).unwrap().len(), 4, "{running}");
    drop(streams);
    host::wait_for("vanished readers' commands to end", || {
        let running = daemon.get(&format!("/v1/sandboxes/{name}/commands"));
        running.as_array().or(running["commands"].as_array()).unwrap().is_empty()
    });
}

#[test]
fn a_buffered_flood_does_not_bloat_the_daemon() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    daemon.run(&name, json!({"argv": ["true"]}));
    let serve = daemon.serve_pid();
    let before = host::resident_kib(serve);
    let result = daemon.run(&name, json!({"argv": ["yes"], "timeout_ms": 1500, "output_bytes_max": 4096}));
    assert_eq!((&result["timed_out"], &result["truncated"]["stdout"]), (&json!(true), &json!(true)));
    let after = host::resident_kib(serve);
    assert!(after < before + 8192, "serve grew from {before} to {after} KiB");
}

#[test]
fn a_client_that_goes_away_takes_its_command_with_it() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let name = id(&sandbox);
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    daemon.run(&name, json!({"argv": ["true"]}));
    let before = host::processes_in("pid", namespace).len();
    let path = format!("/v1/sandboxes/{name}/commands");
    for accept in ["application/json", "text/event-stream"] {
        let mut connection = daemon.connect();
        let headers = [("Content-Type", "application/json"), ("Accept", accept)];
        connection.send("POST", &path, &headers, br#"{"shell":"sleep 602 & sleep 602"}"#).unwrap();
        host::wait_for("the command to start", || host::processes_in("pid", namespace).len() > before);
        drop(connection);
        host::wait_for("the command to end with its client", || {
            host::processes_in("pid", namespace).len() <= before
        });
    }
}

#[test]
fn a_running_command_is_listed_and_takes_any_signal() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let line = "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut connection, head) = stream(&daemon, &name, &json!({"argv": ["/bin/sh", "-c", line]}));
    let mut body = connection.body(&head);
    let command = data(&body.next_event().unwrap().unwrap())["id"].as_str().unwrap().to_owned();
    let ready = body.next_event().unwrap().unwrap();
    assert_eq!(data(&ready)["data"], "ready\n");
    let path = format!("/v1/sandboxes/{name}/commands");
    let listed = daemon.get(&path);
    let listed = listed.as_array().or(listed["commands"].as_array()).unwrap().clone();
    assert_eq!((listed.len(), id(&listed[0])), (1, command.clone()), "{listed:?}");
    assert_eq!(listed[0]["argv"][0], "/bin/sh");
    let signal = |signal: Value| {
        daemon.request("POST", &format!("{path}/{command}/signal"), Some(&json!({"signal": signal})))
    };
    assert_eq!(signal(json!("SIGUSR1")).status, 204);
    assert_eq!(data(&body.next_event().unwrap().unwrap())["data"], "got USR1\n");
    assert_eq!(signal(json!(0)).status / 100, 4);
    assert_eq!(signal(json!("SIGNONSENSE")).status / 100, 4);
    assert_eq!(signal(json!(15)).status, 204);
    let mut exit = Value::Null;
    while let Some(event) = body.next_event().unwrap() {
        if event.name == "exit" {
            exit = data(&event);
        }
    }
    assert_eq!(exit["exit_code"], 5, "{exit}");
    assert_error(&signal(json!("SIGTERM")), 404, "COMMAND_NOT_FOUND");
}

type Socket = tungstenite::WebSocket<std::os::unix::net::UnixStream>;

fn attach(daemon: &Daemon, name: &str) -> Socket {
    let request = format!("ws://stockade/v1/sandboxes/{name}/commands/attach").into_client_request().unwrap();
    let stream = daemon.connect().into_stream();
    tungstenite::client(request, stream).unwrap_or_else(|error| panic!("{error}\n{}", daemon.log())).0
}

/// Reads messages until the last event; gives what came on stdout, on stderr, and that event.
fn drain(socket: &mut Socket) -> (Vec<u8>, Vec<u8>, Value) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) => match bytes[0] {
                1 => out.extend(&bytes[1..]),
                2 => err.extend(&bytes[1..]),
                other => panic!("stream {other}"),
            },
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                if event["event"] != "started" {
                    return (out, err, event);
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn stdin(bytes: &[u8]) -> Message {
    let mut message = vec![0];
    message.extend_from_slice(bytes);
    Message::binary(message)
}

#[test]
fn a_websocket_carries_input_output_and_signals() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let mut socket = attach(&daemon, &name);
    socket.send(Message::text(json!({"shell": "cat; echo bye >&2; exit 4"}).to_string())).unwrap();
    let all: Vec<u8> = (0..=255).collect();
    socket.send(stdin(&all)).unwrap();
    socket.send(stdin(&all)).unwrap();
    socket.send(stdin(b"")).unwrap();
    let (out, err, exit) = drain(&mut socket);
    assert_eq!((out, err), ([all.clone(), all].concat(), b"bye\n".to_vec()));
    assert_eq!((&exit["event"], &exit["exit_code"]), (&json!("exit"), &json!(4)), "{exit}");

    let mut socket = attach(&daemon, &name);
    let line = "trap 'echo stopped; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    socket.send(Message::text(json!({"argv": ["/bin/sh", "-c", line]}).to_string())).unwrap();
    loop {
        if let Message::Binary(bytes) = socket.read().unwrap() {
            assert_eq!(&bytes[1..], b"ready\n");
            break;
        }
    }
    socket.send(Message::text(json!({"signal": "SIGINT"}).to_string())).unwrap();
    let (out, _, exit) = drain(&mut socket);
    assert_eq!((out.as_slice(), &exit["exit_code"]), (&b"stopped\n"[..], &json!(9)), "{exit}");

    let mut socket = attach(&daemon, &name);
    socket.send(Message::text(json!({"argv": ["no-such-program"]}).to_string())).unwrap();
    let (_, _, error) = drain(&mut socket);
    assert_eq!(
        (&error["event"], &error["code"]),
        (&json!("error"), &json!("COMMAND_NOT_IN_IMAGE")),
        "{error}"
    );
}

#[test]
fn a_websocket_that_closes_takes_its_command_with_it() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let name = id(&sandbox);
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    daemon.run(&name, json!({"argv": ["true"]}));
    let before = host::processes_in("pid", namespace).len();
    let mut socket = attach(&daemon, &name);
    socket.send(Message::text(json!({"shell": "sleep 603 & sleep 603"}).to_string())).unwrap();
    host::wait_for("the command to start", || host::processes_in("pid", namespace).len() > before);
    drop(socket);
    host::wait_for("the command to end with its client", || {
        host::processes_in("pid", namespace).len() <= before
    });
}

#[test]
fn a_command_sees_its_three_streams_and_no_other_descriptor() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let listing = "for fd in /proc/self/fd/*; do readlink $fd; done; true";
    // `sh` may hold one for its own script; the probe of a shell's glob is the directory itself.
    let result = daemon.run(
        &name,
        json!({"argv": ["python3", "-c", "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"]}),
    );
    assert_eq!(result["stdout"], "[0, 1, 2, 3]\n", "3 is the listing itself: {result}");
    let targets = daemon.shell(&name, listing);
    for line in targets.lines() {
        let fine =
            line.starts_with("pipe:[") || line.starts_with("/memfd:input") || line.starts_with("/proc/");
        assert!(fine, "a command holds {line}");
    }
}

#[test]
fn a_client_that_has_finished_writing_is_answered_and_one_that_leaves_then_is_noticed() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let half_closed = |shell: &str| {
        let mut connection = daemon.connect();
        let path = format!("/v1/sandboxes/{name}/commands");
        let body = json!({"shell": shell}).to_string();
        connection.send("POST", &path, &[("Content-Type", "application/json")], body.as_bytes()).unwrap();
        connection.finish_sending().unwrap();
        connection
    };
    let answer = half_closed("sleep 1; echo answered").receive().unwrap();
    assert_eq!((answer.status, &answer.json()["stdout"]), (200, &json!("answered\n")));
    assert_eq!(daemon.shell(&name, "echo $LANG"), "C.UTF-8\n", "text is no ASCII");
    let leaves = half_closed("sleep 4242");
    let count = || daemon.shell(&name, "ps -eo args | grep -c '[s]leep 4242' || true").trim() == "0";
    host::wait_for("the command to begin", || !count());
    drop(leaves);
    host::wait_for("the command of a client that left to end", count);
}
