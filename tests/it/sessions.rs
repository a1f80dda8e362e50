//! Sessions: what lives on between commands, what does not, and what ends them.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Daemon, assert_error, host, output};

/// Runs a command in a session, whatever comes of it.
#[track_caller]
fn try_in(daemon: &Daemon, sandbox: &str, session: &str, command: &Value) -> Response {
    daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/sessions/{session}/commands"), Some(command))
}

/// Runs a command in a session and gives its result.
#[track_caller]
fn run_in(daemon: &Daemon, sandbox: &str, session: &str, command: &Value) -> Value {
    let answer = try_in(daemon, sandbox, session, command);
    assert_eq!(answer.status, 200, "{command}: {}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    answer.json()
}

/// Runs a script in the default session and gives what it wrote to stdout; nothing may go to stderr.
#[track_caller]
fn shell(daemon: &Daemon, sandbox: &str, script: &str) -> String {
    let result = run_in(daemon, sandbox, "default", &json!({"shell": script}));
    assert_eq!(result["stderr"], "", "{script}: {result}");
    result["stdout"].as_str().unwrap_or_else(|| panic!("{script}: {result}")).to_owned()
}

#[test]
fn what_a_shell_remembers_lives_on_between_commands() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    assert_eq!(
        shell(&daemon, &name, "cd /tmp; X=5; export Y=6; f() { echo \"f $1\"; }; alias g='echo alias'"),
        ""
    );
    assert_eq!(shell(&daemon, &name, "echo $PWD $X; sh -c 'echo $X$Y'; f 1; g"), "/tmp 5\n6\nf 1\nalias\n");
    assert_eq!(shell(&daemon, &name, "set -f; echo *; declare -a LIST=(a 'b c')"), "*\n");
    assert_eq!(shell(&daemon, &name, "echo *; set +f; echo ${#LIST[@]}; shopt -s extglob"), "*\n2\n");
    assert_eq!(shell(&daemon, &name, "shopt -q extglob && echo on; (exit 7)"), "on\n");
    assert_eq!(shell(&daemon, &name, "echo $?"), "7\n");
    assert_eq!(shell(&daemon, &name, "exec 7>/tmp/log; trap 'echo usr1' USR1"), "");
    assert_eq!(shell(&daemon, &name, "echo kept >&7; kill -USR1 $$; cat /tmp/log"), "usr1\nkept\n");
    assert_eq!(shell(&daemon, &name, "exec 7>&-; exec >/tmp/all"), "");
    assert_eq!(shell(&daemon, &name, "echo into the file"), "");
    assert_eq!(shell(&daemon, &name, "exec >/dev/stderr 2>&1").as_str(), "");
}

#[test]
fn output_is_byte_exact_and_apart() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result =
        run_in(&daemon, &name, "default", &json!({"shell": "printf 'no newline'; printf 'err' >&2"}));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("no newline"), &json!("err")), "{result}");
    let all: Vec<u8> = (0..=255).collect();
    let body = json!({"argv": ["cat"], "stdin_base64": BASE64.encode(&all)});
    let result = run_in(&daemon, &name, "default", &body);
    assert_eq!(result["stdout_encoding"], "base64");
    assert_eq!(output(&result, "stdout"), all);
    // More than the pipes hold, on both at once.
    let script =
        "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2; printf end";
    let result = run_in(&daemon, &name, "default", &json!({"shell": script}));
    let mut wanted = "x".repeat(3_000_000);
    wanted.push_str("end");
    assert!(
        result["stdout"] == wanted.as_str() && result["stderr"] == "y".repeat(3_000_000),
        "output changed"
    );
    let result = run_in(&daemon, &name, "default", &json!({"shell": script, "output_bytes_max": 10}));
    assert_eq!((&result["stdout"], &result["truncated"]["stdout"]), (&json!("xxxxxxxxxx"), &json!(true)));
    // Nothing of one command is in the next.
    for round in 0..50 {
        let script = format!("printf '%s' {round}; printf '%s' -{round} >&2");
        let result = run_in(&daemon, &name, "default", &json!({"shell": script}));
        let wanted = (json!(round.to_string()), json!(format!("-{round}")));
        assert_eq!((&result["stdout"], &result["stderr"]), (&wanted.0, &wanted.1), "{result}");
    }
}

#[test]
fn codes_syntax_and_options_are_those_of_bash() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (script, code, says) in [
        ("true", 0, ""),
        ("false", 1, ""),
        ("return 9", 9, ""),
        ("no-such-program", 127, "bash: no-such-program: command not found\n"),
        ("/etc/passwd", 126, "bash: /etc/passwd: Permission denied\n"),
        ("sh -c 'kill -9 $$'; echo $? >&2; (exit 3)", 3, "137\n"),
        ("echo 'unclosed", 2, "unexpected EOF"),
        ("if true; then", 2, "syntax error"),
        ("set -u; echo $nothing", 1, "nothing: unbound variable"),
        ("set +u; : ${nothing:?message}", 1, "message"),
        ("break", 0, ""),
        ("continue 3", 0, ""),
        ("printf 'a\\n' | grep b", 1, ""),
        ("cat <<'END'\n$x\nEND", 0, ""),
        ("echo trailing \\", 0, ""),
    ] {
        let result = run_in(&daemon, &name, "default", &json!({"shell": script}));
        let said = result["stderr"].as_str().unwrap();
        if !script.starts_with("break") && !script.starts_with("continue") {
            assert_eq!(result["exit_code"], code, "{script}: {result}");
        }
        assert!(if says.is_empty() { true } else { said.contains(says) }, "{script}: {result}");
    }
    // Options live on, and nothing of ours is traced or fatal.
    let result = run_in(&daemon, &name, "default", &json!({"shell": "set -x"}));
    assert_eq!(result["stderr"], "");
    let result = run_in(&daemon, &name, "default", &json!({"shell": "PS4='+ '; echo a"}));
    let traced = result["stderr"]
        .as_str()
        .unwrap()
        .lines()
        .all(|line| line.ends_with("echo a") || line.ends_with("PS4='+ '"));
    assert!(traced && result["stdout"] == "a\n", "{result}");
    run_in(&daemon, &name, "default", &json!({"shell": "set +x"}));
    shell(&daemon, &name, "set -e; KEPT=1");
    // Statuses that `set -e` does not mind in a script do not end the session either.
    let result = run_in(&daemon, &name, "default", &json!({"shell": "[[ a == b ]] && echo x"}));
    assert_eq!(result["exit_code"], 1, "{result}");
    assert_eq!(shell(&daemon, &name, "echo $KEPT; ! true"), "1\n");
    let answer = try_in(&daemon, &name, "default", &json!({"shell": "echo before; false; echo after"}));
    assert_error(&answer, 410, "SESSION_ENDED");
    assert_eq!(answer.json()["context"]["stdout"], "before\n");
    assert_eq!(shell(&daemon, &name, "echo \"$KEPT.$-\" | tr -d hiB"), ".\n");
}

#[test]
fn a_shell_that_exits_is_said_so_and_started_afresh() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let made = json!({"id": "work", "cwd": "/usr", "env": {"GIVEN": "1"}});
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{name}/sessions"), Some(&made));
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    let before = answer.json()["pid"].as_i64().unwrap();
    for (script, code) in [
        ("cd /tmp; X=1; echo out; echo err >&2; exit 7", 7),
        ("kill -KILL $$", 137),
        ("exec sh -c 'echo out; exit 3'", 3),
    ] {
        let answer = try_in(&daemon, &name, "work", &json!({"shell": script}));
        assert_error(&answer, 410, "SESSION_ENDED");
        let error = answer.json();
        assert_eq!(error["context"]["exit_code"], code, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("shell exited") && message.contains(&format!("exit code: {code}")),
            "{message}"
        );
        if code != 137 {
            assert_eq!(error["context"]["stdout"], "out\n", "{error}");
        }
        let result = run_in(&daemon, &name, "work", &json!({"shell": "echo $PWD.$X.$GIVEN"}));
        assert_eq!(result["stdout"], "/usr..1\n", "{result}");
    }
    let session = daemon.get(&format!("/v1/sandboxes/{name}/sessions/work"));
    assert_ne!(session["pid"].as_i64().unwrap(), before);
}

#[test]
fn a_timeout_ends_the_command_and_not_the_session() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    shell(
        &daemon,
        &name,
        "cd /usr; V=7; f() { while :; do :; done; }; g() { local i; while :; do f; done; }; set -u",
    );
    for script in [
        "sleep 1000",
        "while :; do :; done",
        "g; echo not reached",
        "while :; do g; done",
        "trap '' INT TERM HUP; sh -c 'trap \"\" TERM INT; sleep 1000'",
        "setsid -f sleep 1000; sleep 1000 & wait",
        "while :; do sleep 0.01; done",
        "x=$(while :; do :; done)",
        "set -e; g",
        "eval 'eval \"g\"'",
        "read x < <(sleep 1000)",
        "yes",
        "yes | cat > /dev/null",
        "r() { r; }; r",
        "b() { b | b & }; b; while :; do wait; done",
    ] {
        let start = Instant::now();
        let body = json!({"shell": script, "timeout_ms": 200, "output_bytes_max": 100});
        let result = run_in(&daemon, &name, "default", &body);
        assert_eq!(
            (&result["timed_out"], &result["exit_code"]),
            (&json!(true), &json!(137)),
            "{script}: {result}"
        );
        assert!(start.elapsed() < Duration::from_secs(15), "{script}: {:?}", start.elapsed());
        assert_eq!(
            shell(&daemon, &name, "echo $PWD $V; set +e; type f | head -n 1"),
            "/usr 7\nf is a function\n",
            "{script}"
        );
        let left = daemon.shell(&name, "ps -eo args 2>/dev/null | grep -c '[s]leep 1000\\|[y]es$' || true");
        assert_eq!(left.trim(), "0", "{script}");
    }
    // What does not come back to bash ends the session, and is said so.
    let body = json!({"shell": "while read -r x; do :; done < /dev/zero", "timeout_ms": 200});
    assert_error(&try_in(&daemon, &name, "default", &body), 410, "SESSION_ENDED");
    assert_eq!(shell(&daemon, &name, "echo ${V-fresh}"), "fresh\n");
}

#[test]
fn a_client_that_leaves_interrupts_its_command() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    shell(&daemon, &name, "V=7");
    for accept in ["application/json", "text/event-stream"] {
        let mut connection = daemon.connect();
        let headers = [("Content-Type", "application/json"), ("Accept", accept)];
        let path = format!("/v1/sandboxes/{name}/sessions/default/commands");
        connection.send("POST", &path, &headers, br#"{"shell":"echo begun; sleep 1000"}"#).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        drop(connection);
        let start = Instant::now();
        assert_eq!(shell(&daemon, &name, "echo $V"), "7\n", "{accept}");
        assert!(start.elapsed() < Duration::from_secs(5), "{accept}");
    }
    let daemon_pid = daemon.serve_pid();
    assert!(host::alive(daemon_pid));
}

#[test]
fn commands_of_one_session_queue_and_sessions_run_side_by_side() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for session in ["a", "b"] {
        let answer =
            daemon.request("POST", &format!("/v1/sandboxes/{name}/sessions"), Some(&json!({"id": session})));
        assert_eq!(answer.status, 201);
    }
    let taken = daemon.request("POST", &format!("/v1/sandboxes/{name}/sessions"), Some(&json!({"id": "a"})));
    assert_error(&taken, 409, "SESSION_EXISTS");
    shell(&daemon, &name, "mkdir -p /tmp/q");
    std::thread::scope(|scope| {
        for round in 0..8 {
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || {
                // Two at once would see each other's mark.
                let script = format!("mkdir /tmp/q/mark && sleep 0.05 && rmdir /tmp/q/mark; N=$((N+1)); echo {round} >> /tmp/q/order");
                let result = run_in(daemon, name, "a", &json!({"shell": script}));
                assert_eq!((&result["exit_code"], &result["stderr"]), (&json!(0), &json!("")), "{result}");
            });
        }
    });
    assert_eq!(
        run_in(&daemon, &name, "a", &json!({"shell": "echo $N; wc -l < /tmp/q/order"}))["stdout"],
        "8\n8\n"
    );
    // Each waits for the other: only side by side do both end.
    std::thread::scope(|scope| {
        for (session, mine, other) in [("a", "1", "2"), ("b", "2", "1")] {
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || {
                let script = format!(
                    "touch /tmp/q/{mine}; until [ -e /tmp/q/{other} ]; do sleep 0.01; done; echo met"
                );
                let body = json!({"shell": script, "timeout_ms": 20_000});
                assert_eq!(run_in(daemon, name, session, &body)["stdout"], "met\n");
            });
        }
    });
    let listed = daemon.get(&format!("/v1/sandboxes/{name}/sessions"));
    let ids: Vec<_> =
        listed["sessions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "default"]);
}

#[test]
fn values_of_one_command_do_not_stick() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let body = json!({"shell": "echo $A $B $PWD; sh -c 'echo $A'; pwd -P", "env": {"A": "it's\n\"x\" $HOME", "B": "2"}, "cwd": "/usr"});
    let result = run_in(&daemon, &name, "default", &body);
    assert_eq!(result["stdout"], "it's \"x\" $HOME 2 /usr\nit's \"x\" $HOME\n/usr\n", "{result}");
    assert_eq!(shell(&daemon, &name, "echo ${A-unset} $PWD"), "unset /workspace\n");
    let answer = try_in(&daemon, &name, "default", &json!({"shell": "true", "cwd": "/no/such"}));
    assert_error(&answer, 422, "INVALID_CWD");
    let answer = try_in(&daemon, &name, "default", &json!({"shell": "true", "env": {"A-B": ""}}));
    assert_error(&answer, 400, "INVALID_REQUEST");
    let answer = try_in(&daemon, &name, "default", &json!({"shell": "true", "user": "1000"}));
    assert_error(&answer, 400, "INVALID_REQUEST");
    // argv is a command of that bash: quoting is kept, builtins and functions are found.
    let result = run_in(&daemon, &name, "default", &json!({"argv": ["cd", "/tmp"]}));
    assert_eq!(result["exit_code"], 0);
    let result =
        run_in(&daemon, &name, "default", &json!({"argv": ["printf", "%s|", "a b", "$PWD", "'\n", ""]}));
    assert_eq!(result["stdout"], "a b|$PWD|'\n||", "{result}");
    // stdin is empty unless given, and ends.
    assert_eq!(shell(&daemon, &name, "pwd; cat; wc -c"), "/tmp\n0\n");
    let result =
        run_in(&daemon, &name, "default", &json!({"shell": "read a; echo \"$a\"; cat", "stdin": "1\n2\n3"}));
    assert_eq!(result["stdout"], "1\n2\n3", "{result}");
    assert_eq!(shell(&daemon, &name, "cat"), "");
    let large = "x".repeat(4 << 20);
    let result = run_in(&daemon, &name, "default", &json!({"shell": "wc -c", "stdin": large}));
    assert_eq!(result["stdout"], "4194304\n");
    // A script longer than any argument may be.
    let script = format!("echo begin; : {}\necho end", "y".repeat(3 << 20));
    assert_eq!(shell(&daemon, &name, &script), "begin\nend\n");
}

#[test]
fn what_is_ours_is_not_inherited_and_cannot_be_taken_for_a_result() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // A program has its three streams, and the directory that it reads.
    assert_eq!(shell(&daemon, &name, "ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ");
    assert_eq!(shell(&daemon, &name, "sh -c 'ls /proc/$$/fd' | tr '\\n' ' '"), "0 1 2 ");
    // What the shell itself writes to our socket is no result: it cannot know what this one is called.
    let script = "for fd in 249 250 251 252 20 21 22; do echo 'abc 0 hiB' >&$fd; echo '0000000000000000 0 hiB' >&$fd; done 2>/dev/null; sleep 0.2; echo real; (exit 5)";
    let result = run_in(&daemon, &name, "default", &json!({"shell": script}));
    assert_eq!((&result["stdout"], &result["exit_code"]), (&json!("real\n"), &json!(5)), "{result}");
    assert_eq!(shell(&daemon, &name, "echo still"), "still\n");
    // A shell that closes it has nothing to say any more; the session is ended and not stuck.
    let body = json!({"shell": "exec 250>&- 251<&- 252<&-; sleep 0.1", "timeout_ms": 10_000});
    let answer = try_in(&daemon, &name, "default", &body);
    assert_error(&answer, 410, "SESSION_ENDED");
    assert_eq!(shell(&daemon, &name, "echo again"), "again\n");
}

#[test]
fn scripts_use_what_descriptors_they_like() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let open = "for fd in {3..22}; do eval \"exec $fd>/tmp/file$fd\"; echo $fd >&$fd; done; exec {own}>/tmp/own; K=1";
    assert_eq!(shell(&daemon, &name, open), "");
    let read = "for fd in {3..22}; do echo more >&$fd; done; echo own >&$own; cat /tmp/file{3,10,11,12,20,22} /tmp/own";
    let wanted = ["3", "10", "11", "12", "20", "22"].map(|fd| format!("{fd}\nmore\n")).concat();
    assert_eq!(shell(&daemon, &name, read), format!("{wanted}own\n"));
    assert_eq!(
        shell(&daemon, &name, "for fd in {3..22}; do eval \"exec $fd>&-\"; done; exec {own}>&-; echo $K"),
        "1\n"
    );
    // Ours are still no program's, and a script that leaves our loop loses them no more than before.
    assert_eq!(shell(&daemon, &name, "sh -c 'ls /proc/$$/fd' | tr '\\n' ' '; break"), "0 1 2 ");
    assert_eq!(shell(&daemon, &name, "exec 10>/tmp/ten; echo ten >&10; cat /tmp/ten"), "ten\n");
    assert_eq!(shell(&daemon, &name, "sh -c 'ls /proc/$$/fd' | tr '\\n' ' '"), "0 1 10 2 ");
    // Daemons close all that they find: then the shell is lost, and said to be.
    let body = json!({"shell": "for fd in {3..255}; do eval \"exec $fd>&-\"; done", "timeout_ms": 10_000});
    assert_error(&try_in(&daemon, &name, "default", &body), 410, "SESSION_ENDED");
    assert_eq!(shell(&daemon, &name, "echo ${K-fresh}"), "fresh\n");
    for script in ["exec 251<&-", "exec 252<&-"] {
        shell(&daemon, &name, script);
        let answer = try_in(&daemon, &name, "default", &json!({"shell": "echo", "timeout_ms": 10_000}));
        assert_error(&answer, 410, "SESSION_ENDED");
        assert_eq!(shell(&daemon, &name, "echo again"), "again\n");
    }
}

#[test]
fn jobs_in_the_background_neither_stand_still_nor_speak_into_the_next_result() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // Far more than a pipe holds, written while no command runs, by something that would die of a broken pipe.
    let script = "(sleep 0.2; head -c 1000000 /dev/zero | tr '\\0' z; echo done > /tmp/done) & disown";
    assert_eq!(shell(&daemon, &name, script), "");
    let start = Instant::now();
    while daemon.run(&name, json!({"argv": ["test", "-e", "/tmp/done"]}))["exit_code"] != 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "the job stands still");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(shell(&daemon, &name, "echo clean"), "clean\n");
    assert_eq!(shell(&daemon, &name, "sleep 1000 & echo $! > /tmp/pid"), "");
    assert_eq!(shell(&daemon, &name, "kill -0 $(cat /tmp/pid) && echo lives; jobs | wc -l"), "lives\n1\n");
}

#[test]
fn deleting_a_session_kills_what_it_started() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let path = format!("/v1/sandboxes/{name}/sessions");
    assert_eq!(daemon.request("POST", &path, Some(&json!({"id": "s"}))).status, 201);
    run_in(
        &daemon,
        &name,
        "s",
        &json!({"shell": "setsid -f sleep 4321; sleep 4321 & (trap '' TERM; sleep 4321) &"}),
    );
    let count = || daemon.shell(&name, "ps -eo args | grep -c '[s]leep 4321' || true").trim().to_owned();
    assert_eq!(count(), "3");
    std::thread::scope(|scope| {
        let running =
            scope.spawn(|| try_in(&daemon, &name, "s", &json!({"shell": "echo so far; sleep 100"})));
        std::thread::sleep(Duration::from_millis(200));
        let waiting = scope.spawn(|| try_in(&daemon, &name, "s", &json!({"shell": "echo"})));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(daemon.get(&format!("{path}/s"))["commands"], 2);
        assert_eq!(daemon.request("DELETE", &format!("{path}/s"), None).status, 204);
        // The one ran, and is not said not to have been there.
        for (command, output) in [(running, json!("so far\n")), (waiting, Value::Null)] {
            let answer = command.join().unwrap();
            assert_error(&answer, 410, "SESSION_ENDED");
            assert_eq!(answer.json()["context"]["stdout"], output, "{}", answer.json());
        }
    });
    assert_eq!(count(), "0");
    assert_error(&try_in(&daemon, &name, "s", &json!({"shell": "echo"})), 404, "SESSION_NOT_FOUND");
    assert_error(&daemon.request("DELETE", &format!("{path}/s"), None), 404, "SESSION_NOT_FOUND");
    assert_error(&daemon.request("GET", &format!("{path}/..%2f"), None), 404, "SESSION_NOT_FOUND");
}

#[test]
fn that_there_is_a_session_outlives_the_daemon() {
    let mut daemon = Daemon::start();
    let name = daemon.sandbox();
    let path = format!("/v1/sandboxes/{name}/sessions");
    for id in ["kept", "deleted"] {
        let spec = json!({"id": id, "cwd": "/tmp", "env": {"A": "1"}});
        assert_eq!(daemon.request("POST", &path, Some(&spec)).status, 201);
    }
    run_in(&daemon, &name, "kept", &json!({"shell": "cd /; B=2"}));
    assert_eq!(daemon.request("DELETE", &format!("{path}/deleted"), None).status, 204);
    let made = daemon.get(&format!("{path}/kept"));
    crate::processes::restart_serve(&mut daemon);
    let mut found = daemon.get(&format!("{path}/kept"));
    assert!(found["pid"].is_null(), "its shell ended with the daemon: {found}");
    found["pid"] = made["pid"].clone();
    assert_eq!(found, made);
    let result = run_in(&daemon, &name, "kept", &json!({"shell": "echo $PWD $A $B"}));
    assert_eq!(result["stdout"], "/tmp 1\n", "{result}");
    assert_error(&daemon.request("GET", &format!("{path}/deleted"), None), 404, "SESSION_NOT_FOUND");
    assert_error(&daemon.request("POST", &path, Some(&json!({"id": "kept"}))), 409, "SESSION_EXISTS");
}

#[test]
fn a_restricted_shell_ends_and_nobody_waits_for_it() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let answer = try_in(&daemon, &name, "default", &json!({"shell": "set -r", "timeout_ms": 10_000}));
    let error = assert_error(&answer, 410, "SESSION_ENDED");
    assert!(error["context"]["timed_out"].is_null(), "{error}");
    assert_eq!(shell(&daemon, &name, "echo again"), "again\n");
}

#[test]
fn a_session_needs_bash_and_says_so() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let made = json!({"id": "x", "env": {"PATH": "/no/such"}});
    let path = format!("/v1/sandboxes/{name}/sessions");
    let answer = daemon.request("POST", &path, Some(&made));
    assert_error(&answer, 422, "COMMAND_NOT_IN_IMAGE");
    assert!(answer.json()["message"].as_str().unwrap().contains("bash"));
    assert_error(&daemon.request("GET", &format!("{path}/x"), None), 404, "SESSION_NOT_FOUND");
    for (body, status, code) in [
        (json!({"cwd": "/no/such"}), 422, "INVALID_CWD"),
        (json!({"user": "nosuchuser"}), 422, "USER_NOT_FOUND"),
        (json!({"id": "a b"}), 400, "INVALID_ID"),
    ] {
        assert_error(&daemon.request("POST", &path, Some(&body)), status, code);
    }
    let made = daemon.request("POST", &path, Some(&json!({"id": "n", "user": "nobody"})));
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    let result = run_in(&daemon, &name, "n", &json!({"shell": "id -un; cat", "stdin": "x"}));
    assert_eq!(result["stdout"], "nobody\nx", "{result}");
}
