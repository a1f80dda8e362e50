//! bash as a context, and all languages from the command line.

use serde_json::{Value, json};

use super::data::of_image;
use super::{ask, code, code_with, create, data, events_until, start};
use crate::harness::{Daemon, assert_error, skip};

/// A script that has taken bash's place is ended, and that the state went with it is said.
#[track_caller]
fn replaced(daemon: &Daemon, name: &str) {
    let run = |text: &str| code(daemon, name, "bash", text);
    assert_eq!(run("yes | head -c 100000; K=1")["error"], Value::Null);
    let mut connection = start(daemon, name, "bash", &json!({"code": "echo on; exec sleep 1000"}));
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            ask(daemon, name, "bash", "interrupt", None);
        }
    });
    let end = data(events.last().unwrap());
    assert_eq!(
        (&end["error"]["name"], &end["state_lost"]),
        (&json!("KeyboardInterrupt"), &json!(true)),
        "{end}"
    );
    let result = run("echo [$K]; X=5");
    assert_eq!((&result["stdout"], &result["restarted"]), (&json!("[]\n"), &json!(true)), "{result}");
    let result = code_with(daemon, name, "bash", &json!({"code": "exec sleep 1000", "timeout_ms": 200}));
    assert_eq!(
        (&result["error"]["name"], &result["timed_out"], &result["state_lost"]),
        (&json!("TimeoutError"), &json!(true), &json!(true)),
        "{result}"
    );
    // What an interrupted script has written is not the next one's.
    let mut connection = start(daemon, name, "bash", &json!({"code": "yes"}));
    let mut asked = false;
    events_until(&mut connection, "end", |event| {
        if event.name == "stdout" && !std::mem::replace(&mut asked, true) {
            ask(daemon, name, "bash", "interrupt", None);
        }
    });
    let result = run("echo next");
    assert_eq!((&result["stdout"], &result["background"]), (&json!("next\n"), &json!("")), "{result}");
}

#[test]
fn bash_keeps_its_state_and_has_the_events_of_a_run() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |text: &str| code(&daemon, &name, "bash", text);
    assert_eq!(run("cd /tmp; X=5; f() { echo \"f $1\"; }")["error"], Value::Null);
    let result = run("echo $PWD $X; f 1; echo err >&2");
    assert_eq!(
        (&result["stdout"], &result["stderr"]),
        (&json!("/tmp 5\nf 1\n"), &json!("err\n")),
        "{result}"
    );
    assert_eq!((&result["execution_count"], &result["state_lost"]), (&json!(2), &json!(false)));
    let result = run("(exit 7)");
    assert_eq!(
        (&result["error"]["name"], &result["exit_code"]),
        (&json!("ExitStatus"), &json!(7)),
        "{result}"
    );
    let result =
        code_with(&daemon, &name, "bash", &json!({"code": "while :; do :; done", "timeout_ms": 200}));
    assert_eq!(
        (&result["error"]["name"], &result["timed_out"]),
        (&json!("TimeoutError"), &json!(true)),
        "{result}"
    );
    let mut connection = start(&daemon, &name, "bash", &json!({"code": "echo on; sleep 1000"}));
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            ask(&daemon, &name, "bash", "interrupt", None);
        }
    });
    assert_eq!(data(events.last().unwrap())["interrupted"], true);
    assert_eq!(run("echo $X")["stdout"], "5\n");
    replaced(&daemon, &name);
    let result = run("echo last; exit 3");
    assert!(result["error"]["message"].as_str().unwrap().starts_with("bash exited"), "{result}");
    assert_eq!(
        (&result["error"]["name"], &result["exit_code"]),
        (&json!("InterpreterDied"), &json!(3)),
        "{result}"
    );
    assert_eq!((&result["state_lost"], &result["stdout"]), (&json!(true), &json!("last\n")), "{result}");
    assert_eq!(run("echo $X.")["stdout"], ".\n");
    syntax(&daemon, &name);
    let result = code_with(
        &daemon,
        &name,
        "bash",
        &json!({"code": "head -c 5000000 /dev/zero | tr '\\0' y", "output_bytes_max": 3, "env": {"A": "1"}, "cwd": "/usr"}),
    );
    assert_eq!((&result["stdout"], &result["stdout_bytes"]), (&json!("yyy"), &json!(5_000_000)));
    let context =
        create(&daemon, &name, &json!({"language": "bash", "id": "mine", "cwd": "/usr", "env": {"B": "2"}}));
    assert_eq!(code(&daemon, &name, &context, "echo $PWD $B")["stdout"], "/usr 2\n");
    let path = format!("/v1/sandboxes/{name}/contexts/{context}");
    assert_eq!(daemon.request("POST", &format!("{path}/restart"), None).status, 200);
    assert_eq!(daemon.request("DELETE", &path, None).status, 204);
    let sessions = daemon.get(&format!("/v1/sandboxes/{name}/sessions"));
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
    let answer = daemon.request(
        "POST",
        &format!("/v1/sandboxes/{name}/contexts"),
        Some(&json!({"language": "bash", "id": "python"})),
    );
    assert_error(&answer, 400, "INVALID_ID");
}

/// What bash cannot read has a line.
fn syntax(daemon: &Daemon, name: &str) {
    for (cell, status, line) in [
        ("echo a\nif then\nfi", 2, json!(2)),
        ("echo \"unclosed", 2, json!(1)),
        ("f() {\n", 2, json!(2)),
        ("echo 'bash: line 9: syntax error' >&2; exit_status() { return 3; }; exit_status", 3, Value::Null),
        ("echo a\nnowhere", 127, Value::Null),
    ] {
        let result = code(daemon, name, "bash", cell);
        assert_eq!(
            (&result["error"]["name"], &result["exit_code"], &result["error"]["line"]),
            (&json!("ExitStatus"), &json!(status), &line),
            "{cell}: {result}"
        );
        assert!(!result["stderr"].as_str().unwrap().contains("/proc/self"), "{cell}: {result}");
    }
    let result = code(daemon, name, "bash", "echo first >&2\nif then");
    let said = result["stderr"].as_str().unwrap();
    assert!(said.starts_with("first\nbash: line 2: syntax error"), "{said}");
}

#[test]
fn memory_that_bash_uses_up_is_a_typed_error() {
    let daemon = Daemon::start();
    let name = crate::harness::id(&daemon.create(json!({"resources": {"memory_bytes": 100 << 20}})));
    let run = |text: &str| code(&daemon, &name, "bash", text);
    let result = run("a=x; while :; do a=$a$a; done");
    if result["error"]["name"] != "OutOfMemory" && result["signal"] == Value::Null {
        skip!("cgroup-v2", "the kernel refused memory before its limit killed for it");
    }
    let found = (&result["error"]["name"], &result["oom_killed"], &result["state_lost"]);
    assert_eq!(found, (&json!("OutOfMemory"), &json!(true), &json!(true)), "{result}");
    // A program of its is the script's failure: bash goes on.
    let result = run("X=5; head -c 300M /dev/zero | tail");
    let found = (&result["error"]["name"], &result["oom_killed"], &result["state_lost"]);
    assert_eq!(found, (&json!("ExitStatus"), &json!(true), &json!(false)), "{result}");
    assert_eq!((&result["restarted"], &run("echo $X")["stdout"]), (&json!(true), &json!("5\n")));
}

/// Runs code as a file with `run-code`: its exit code, its output and what it says beside that.
fn run_file(
    daemon: &Daemon,
    name: &str,
    (lang, text): (&str, &str),
    json: bool,
) -> (Option<i32>, String, String) {
    let (file, out) = (daemon.directory().join("cell"), daemon.directory().join("out"));
    std::fs::write(&file, text).unwrap();
    let mut arguments = if json { vec!["--json"] } else { Vec::new() };
    arguments.extend(["run-code", "--lang", lang, "--sandbox", name, "--output", out.to_str().unwrap()]);
    arguments.push(file.to_str().unwrap());
    let output = daemon.cli(&arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_line_exits_as_the_code_does() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |lang: &str, text: &str, json: bool| run_file(&daemon, &name, (lang, text), json);
    run("python", "x = 41", false);
    for (language, cell) in [
        ("bash", "echo $0; exit 0"),
        ("python", "import sys; print('on'); sys.exit()"),
        ("python", "print('on'); exit(0)"),
        ("javascript", "console.log('on'); process.exit(0)"),
        ("typescript", "console.log('on'); process.exit()"),
    ] {
        let (status, stdout, stderr) = run(language, cell, false);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{cell}");
        assert!(!stdout.is_empty(), "{cell}");
    }
    for (language, cell, wanted) in [
        ("python", "import sys; sys.exit(3)", 3),
        ("python", "import os; os._exit(4)", 4),
        ("python", "import sys; sys.exit(-1)", 255),
        ("python", "import sys; sys.exit('in words')", 1),
        ("javascript", "process.exit(5)", 5),
    ] {
        assert_eq!(run(language, cell, false).0, Some(wanted), "{cell}");
    }
    assert_eq!(run("python", "x = 41", false).0, Some(0), "its interpreter has ended");
    for cell in ["exit 7", "(exit 7)", "true; exit $((5 + 2))"] {
        assert_eq!(run("bash", cell, false).0, Some(7), "{cell}");
    }
    assert_eq!(run("bash", "kill -9 $$", false).0, Some(137));
}

#[test]
fn the_command_line_prints_text_and_saves_the_rest() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let file = daemon.directory().join("cell");
    let out = daemon.directory().join("out");
    let run = |lang: &str, text: &str, json: bool| run_file(&daemon, &name, (lang, text), json);
    assert_eq!(
        run("python", "x = 41; print('hi'); x + 1", false),
        (Some(0), "hi\n42\n".to_owned(), String::new())
    );
    assert_eq!(run("typescript", "const a: number = 1; a", false).1, "1\n");
    let (status, stdout, stderr) = run("python", "1/0", false);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("ZeroDivisionError: division by zero"), "{stderr}");
    let shown =
        "class R:\n  def _repr_html_(self): return '<b>'\n  def _repr_png_(self): return b'\\x89PNG'\nR()";
    for _ in 0..2 {
        let (status, _, stderr) = run("python", shown, false);
        assert_eq!((status, stderr.matches("saved ").count()), (Some(0), 2), "{stderr}");
    }
    assert_eq!(std::fs::read(out.join("result-1.png")).unwrap(), b"\x89PNG");
    assert_eq!(std::fs::read_to_string(out.join("result-1-1.html")).unwrap(), "<b>");
    let (_, stdout, _) = run("python", "x", true);
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["started", "result", "end"]);
    // What has no text is not lost, and a value is not saved beside its text.
    let (_, stdout, stderr) = run("javascript", "display.json({a: 1}); ({b: 2})", false);
    assert_eq!((stdout.as_str(), stderr.matches("saved ").count()), ("{ b: 2 }\n", 1), "{stderr}");
    assert_eq!(std::fs::read_to_string(out.join("result-1.json")).unwrap(), "{\"a\":1}");
    // A sandbox of its own, which is gone afterwards.
    std::fs::write(&file, "6 * 7").unwrap();
    let output = daemon.cli(&["run-code", "--lang", "javascript", file.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{output:?}");
    assert_eq!(daemon.ids(), std::slice::from_ref(&name));
    answers(&daemon, &name);
    let Some(_) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    std::fs::write(&file, "import matplotlib.pyplot as plt; plt.plot([1, 2]);").unwrap();
    let plots = daemon.directory().join("plots");
    let output = daemon.cli(&[
        "run-code",
        "--lang",
        "python",
        "--image",
        "python",
        "--output",
        plots.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{output:?}");
    assert!(plots.join("result-1.png").exists() && plots.join("result-1.chart.json").exists());
}

/// Lines of ours answer code that asks, when the code is in a file.
fn answers(daemon: &Daemon, name: &str) {
    let file = daemon.directory().join("asks");
    let run = |text: &str, from_stdin: bool, input: &str| {
        std::fs::write(&file, text).unwrap();
        let named = if from_stdin { "-" } else { file.to_str().unwrap() };
        let mut child = std::process::Command::new(crate::harness::binary())
            .args(["run-code", "--lang", "python", "--sandbox", name, named])
            .env("STOCKADE_SOCKET", daemon.socket())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let written = if from_stdin { text } else { input };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), written.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let cell = "a = input('first? '); import sys; b = sys.stdin.readline(); print([a, b, sys.stdin.read()])";
    let answered = run(cell, false, "one\ntwo\nthree\nfour");
    assert_eq!(
        answered,
        (Some(0), "first? ['one', 'two\\n', 'three\\nfour\\n']\n".to_owned(), String::new())
    );
    let secret = "import getpass; getpass.getpass('secret? ')";
    assert_eq!(run(secret, false, "s3\n").1, "secret? 's3'\n");
    let (status, _, stderr) = run("input()", false, "");
    assert_eq!((status, stderr.contains("EOFError")), (Some(1), true), "{stderr}");
    let (status, _, stderr) = run("input()", true, "");
    assert_eq!((status, stderr.contains("EOFError")), (Some(1), true), "the code came from there: {stderr}");
    let (_, _, stderr) = run("def f():\n  1/0\nf()", false, "");
    let last = "ZeroDivisionError: division by zero";
    assert!(stderr.lines().any(|line| line == last) && !stderr.contains("\\n"), "{stderr}");
}

#[test]
fn an_interrupt_of_the_command_line_is_one_of_the_code() {
    let daemon = Daemon::start();
    let file = daemon.directory().join("cell");
    std::fs::write(&file, "print('on', flush=True); import time; time.sleep(1000)").unwrap();
    let mut child = std::process::Command::new(crate::harness::binary())
        .args(["run-code", "--lang", "python", file.to_str().unwrap()])
        .env("STOCKADE_SOCKET", daemon.socket())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"on\n");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("KeyboardInterrupt"), "{output:?}");
    assert!(daemon.ids().is_empty(), "its sandbox is gone with it");
}
