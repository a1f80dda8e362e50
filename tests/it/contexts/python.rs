//! Python without IPython, as the host has it: the semantics of cells. With IPython the same table must hold.

use serde_json::{Value, json};

use super::{ask, code, code_with, create, data, events_until, start, text, try_code, works};
use crate::harness::{Daemon, assert_error};

/// What cells give in any Python context.
#[track_caller]
pub(crate) fn semantics(daemon: &Daemon, name: &str) {
    values(daemon, name);
    errors(daemon, name);
    // A traceback opens no file that a descriptor has become: this one would be waited for without end.
    code(daemon, name, "python", "import os; ends = os.pipe(); [os.dup2(ends[0], fd) for fd in (21, 22)];");
    errors(daemon, name);
    let trace = code(daemon, name, "python", "def f(n):\n  return 1/n\nf(0)")["error"]["traceback"].clone();
    let lines: Vec<&str> = trace.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(lines.first(), Some(&"Traceback (most recent call last):"));
    assert_eq!(lines.last(), Some(&"ZeroDivisionError: division by zero"));
    // Both frames of the cell's with their lines and what is written there, and not one that is ours.
    let frames: Vec<&str> = lines.iter().filter(|line| line.contains("File ")).copied().collect();
    assert_eq!(frames.len(), 2, "{lines:?}");
    for (frame, place) in frames.iter().zip(["line 3, in <module>", "line 2, in f"]) {
        assert!(frame.contains("File \"<cell ") && frame.contains(place), "{lines:?}");
    }
    for written in ["f(0)", "return 1/n"] {
        assert!(lines.iter().any(|line| line.trim() == written), "{lines:?}");
    }
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
    let both =
        "import subprocess; print('A'); subprocess.run(['sh','-c','echo out; echo err >&2']); print('B')";
    let result = code(daemon, name, "python", both);
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("A\nout\nB\n"), &json!("err\n")), "{result}");
    assert_eq!(text(&code(daemon, name, "python", "x")), Some("41"), "state is kept over all of that");
}

#[track_caller]
fn values(daemon: &Daemon, name: &str) {
    let run = |text: &str| code(daemon, name, "python", text);
    for (cell, value, count) in [("x=41", None, 1), ("x+1", Some("42"), 2), ("_", Some("42"), 3)] {
        let result = run(cell);
        assert_eq!((text(&result), result["execution_count"].as_u64()), (value, Some(count)), "{result}");
    }
    for (cell, stdout, value) in [
        ("x+1;", "", None),
        ("None", "", None),
        ("print('a'); print('b'); 'c'", "a\nb\n", Some("'c'")),
        ("# only a comment", "", None),
        ("", "", None),
        ("'a;b'", "", Some("'a;b'")),
        ("(1,\n 2)", "", Some("(1, 2)")),
        ("import asyncio\nasync def m():\n  await asyncio.sleep(0); return 7\nawait m()", "", Some("7")),
        ("asyncio.run(m())", "", Some("7")),
        ("task = asyncio.create_task(asyncio.sleep(0.01, result=5))", "", None),
        ("await task", "", Some("5")),
        ("[i async for i in (lambda: agen())()]\n", "", None),
        (
            "import os, subprocess; print('A'); subprocess.run(['sh','-c','echo out; echo err >&2']); os.system('echo sys'); print('B')",
            "A\nout\nsys\nB\n",
            None,
        ),
        ("subprocess.run(['cat']).returncode", "", Some("0")),
        ("__name__", "", Some("'__main__'")),
        ("import pickle\nclass K: pass\ntype(pickle.loads(pickle.dumps(K()))).__name__", "", Some("'K'")),
        (
            "import multiprocessing as mp\nwith mp.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, -2]))",
            "[1, 2]\n",
            None,
        ),
        (
            "import ctypes; ctypes.CDLL(None).puts(b'from C'); ctypes.CDLL(None).fflush(None);",
            "from C\n",
            None,
        ),
        (
            "import threading\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()",
            "thread\n",
            None,
        ),
        (
            "import sys; [len(sys.argv), __import__('os').path.isdir(sys.path[0] or '.')]",
            "",
            Some("[1, True]"),
        ),
    ] {
        let result = run(cell);
        if !cell.starts_with("[i async") {
            assert_eq!(result["error"], Value::Null, "{cell}: {result}");
        }
        assert_eq!((result["stdout"].as_str(), text(&result)), (Some(stdout), value), "{cell}: {result}");
    }
}

#[track_caller]
fn errors(daemon: &Daemon, name: &str) {
    let run = |text: &str| code(daemon, name, "python", text);
    for (cell, error, message, line) in [
        ("def f(n):\n  return 1/n\nf(0)", "ZeroDivisionError", "division by zero", json!(2)),
        ("def f(:\n  pass", "SyntaxError", "invalid syntax (<cell", json!(1)),
        ("  x=1\n y=2", "IndentationError", "unindent", json!(2)),
        ("raise Exception", "Exception", "", json!(1)),
        ("import sys; sys.exit(3)", "SystemExit", "3", json!(1)),
        ("exit()", "SystemExit", "0", json!(1)),
        ("input('? ')", "EOFError", "nobody answers", json!(1)),
        ("import getpass; getpass.getpass()", "EOFError", "nobody answers", json!(1)),
        ("def r(): r()\nr()", "RecursionError", "maximum recursion", json!(1)),
    ] {
        let result = run(cell);
        let found = &result["error"];
        assert_eq!(found["name"], error, "{cell}: {result}");
        let said = found["message"].as_str().unwrap();
        // IPython looks at the first indentation itself.
        if error != "IndentationError" {
            assert!(said.starts_with(message), "{cell}: {said}");
            assert_eq!(found["line"], line, "{cell}: {result}");
        }
        assert_eq!((&result["stdout"], &result["stderr"]), (&json!(""), &json!("")), "{cell}: {result}");
        let lines: Vec<&str> =
            found["traceback"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(lines.iter().all(|line| !line.contains("stockade") && !line.contains('\u{1b}')), "{lines:?}");
        assert!(lines.len() < 200, "{}", lines.len());
        works(daemon, name, "python");
    }
}

/// A sandbox whose Python has no IPython, also on a host that has it.
fn without_ipython(daemon: &Daemon) -> String {
    let view = daemon.create(json!({"env": {"PYTHONPATH": "/tmp/plain"}}));
    let name = view["id"].as_str().unwrap().to_owned();
    daemon.shell(&name, "mkdir /tmp/plain && echo 'raise ImportError' > /tmp/plain/IPython.py");
    name
}

#[test]
fn cells_share_their_state_and_their_output_is_exact() {
    let daemon = Daemon::start();
    let name = without_ipython(&daemon);
    semantics(&daemon, &name);
    // What prints, prints where it should, in order with what is shown.
    let class = "class R:\n  def __repr__(self): return 'r'\n  def _repr_html_(self): return '<b>'\n\
                 print('1'); display(R()); print('2'); R()";
    let mut connection = start(&daemon, &name, "python", &json!({"code": class}));
    let events = events_until(&mut connection, "end", |_| ());
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["started", "stdout", "display", "stdout", "result", "end"]);
    assert_eq!(data(&events[1])["data"], "1\n");
    assert_eq!(data(&events[2])["data"], json!({"text/plain": "r", "text/html": "<b>"}));
    // A broken representation is told, and is not the cell's failure.
    let result = code(&daemon, &name, "python", "class B:\n  def __repr__(self): 1/0\nB()");
    let told = result["stderr"].as_str().unwrap();
    assert!(told.contains("ZeroDivisionError") && !told.contains("<stockade>"), "{result}");
    assert_eq!(result["results"], json!([]), "{result}");
    assert_eq!(result["error"], Value::Null, "{result}");
    let result = code(&daemon, &name, "python", "x = 1\n!pip install numpy");
    assert!(result["error"]["message"].as_str().unwrap().contains("need IPython"), "{result}");
    let result = code(&daemon, &name, "python", "class E(Exception):\n  def __str__(self): 1/0\nraise E");
    assert_eq!(result["error"]["message"], "<the error has no text>", "{result}");
    plain_values(&daemon, &name);
    // Text that is none, and values that JSON does not know.
    let result = code(&daemon, &name, "python", "print('\\ud800'); '\\ud800'");
    assert!(result["stdout"].as_str().unwrap().contains("ud800"), "{result}");
    let result = code(
        &daemon,
        &name,
        "python",
        "class J:\n  def _repr_json_(self): return {1: float('nan'), 'a': object}\nJ()",
    );
    assert_eq!(result["results"][0]["data"]["application/json"]["1"], Value::Null, "{result}");
}

/// What JSON can carry is that too, and what it cannot is text alone.
pub(crate) fn plain_values(daemon: &Daemon, name: &str) {
    for (cell, value) in [
        ("{'a': [1, 2.5, None, True], 'b': {'c': 'ä'}}", json!({"a": [1, 2.5, null, true], "b": {"c": "ä"}})),
        // It has no word for these, and null would say something else.
        ("[float('nan'), 1]", Value::Null),
        ("{'a': [float('inf')]}", Value::Null),
        ("{1: 2}", json!({"1": 2})),
        ("[]", json!([])),
        ("[object()]", Value::Null),
        ("l = []; l.append(l); l", Value::Null),
        ("{(1, 2): 3}", Value::Null),
        ("(1, 2)", Value::Null),
        ("'text'", Value::Null),
        ("5", Value::Null),
    ] {
        let result = code(daemon, name, "python", cell);
        assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{cell}: {result}");
        assert_eq!(result["results"][0]["data"]["application/json"], value, "{cell}: {result}");
        assert!(text(&result).is_some(), "{cell}: {result}");
    }
    for large in ["['x' * 1000] * 10_000", "list(range(2_000_000))", "[[0] * 600_000] * 2"] {
        let shown = code(daemon, name, "python", &format!("{large}\n"))["results"][0].clone();
        assert_eq!(shown["data"]["application/json"], Value::Null, "{large}");
        let truncated = shown["truncated"].as_array().unwrap();
        assert!(truncated.contains(&json!("application/json")), "{large}: {truncated:?}");
    }
}

#[test]
fn a_run_has_its_own_directory_environment_and_time() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |body: Value| code_with(&daemon, &name, "python", &body);
    let odd = "b'a\"r\n$x";
    let result = run(json!({"code": "import os; os.environ['FOO']", "env": {"FOO": odd}}));
    assert_eq!(text(&result), Some("'b\\'a\"r\\n$x'"), "{result}");
    assert_eq!(text(&run(json!({"code": "os.environ.get('FOO')"}))), None);
    assert_eq!(text(&run(json!({"code": "os.getcwd()", "cwd": "/tmp"}))), Some("'/tmp'"));
    assert_eq!(text(&run(json!({"code": "os.getcwd()"}))), Some("'/workspace'"));
    assert_eq!(run(json!({"code": "1", "cwd": "/nowhere"}))["error"]["name"], "FileNotFoundError");
    let context = create(&daemon, &name, &json!({"cwd": "/usr", "env": {"A": "1"}, "timeout_ms": 300}));
    let result =
        code(&daemon, &name, &context, "import os; [os.getcwd(), os.environ['A'], os.environ['PATH'] != '']");
    assert_eq!(text(&result), Some("['/usr', '1', True]"), "{result}");
    let result = code(&daemon, &name, &context, "while True: pass");
    assert_eq!(
        (&result["error"]["name"], &result["timed_out"]),
        (&json!("TimeoutError"), &json!(true)),
        "{result}"
    );
    for wrong in [json!({}), json!({"code": null}), json!({"stdin": true})] {
        let error = assert_error(&try_code(&daemon, &name, "python", &wrong), 400, "INVALID_REQUEST");
        assert_eq!(error["context"]["field"], "code", "{wrong}: {error}");
    }
    let answer =
        daemon.request("POST", &format!("/v1/sandboxes/{name}/contexts"), Some(&json!({"cwd": "/nowhere"})));
    assert_error(&answer, 422, "INVALID_CWD");
    let answer = daemon.request(
        "POST",
        &format!("/v1/sandboxes/{name}/contexts"),
        Some(&json!({"user": "nobody-here"})),
    );
    assert_error(&answer, 422, "USER_NOT_FOUND");
    let other = create(&daemon, &name, &json!({"user": "12345", "cwd": "/tmp"}));
    assert_eq!(text(&code(&daemon, &name, &other, "import os; os.getuid()")), Some("12345"));
    users(&daemon, &name);
}

/// Each user's contexts are forked, by turns, and what they are forked from stays.
#[track_caller]
fn users(daemon: &Daemon, name: &str) {
    let zygotes = || -> Vec<u32> {
        let found = daemon.shell(name, "grep -lzx zygote /proc/[0-9]*/cmdline | cut -d/ -f3");
        found.lines().map(|pid| pid.parse().unwrap()).collect()
    };
    // The first that there was is no context: those are forked from it.
    let first = *zygotes().iter().min().unwrap();
    for round in 0..2 {
        for user in ["12345", "23456", "0"] {
            let context = create(daemon, name, &json!({"user": user}));
            let seen = code(
                daemon,
                name,
                &context,
                "import os; [str(os.getuid()), open('/proc/self/cmdline').read().split(chr(0))[3]]",
            );
            assert_eq!(text(&seen), Some(&*format!("['{user}', 'zygote']")), "{round}: {seen}");
            assert_eq!(
                daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/{context}"), None).status,
                204
            );
        }
    }
    assert!(zygotes().contains(&first), "{first}: {:?}", zygotes());
}

#[test]
fn input_is_answered_by_whoever_reads_the_events() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let body = json!({"code": "n = input('name? '); print('hi', n); import sys; sys.stdin.readline()", "stdin": true});
    let mut connection = start(&daemon, &name, "python", &body);
    let mut asked = 0;
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "input" {
            asked += 1;
            let context = daemon.get(&format!("/v1/sandboxes/{name}/contexts/python"));
            assert_eq!(context["input"]["prompt"], if asked == 1 { "name? " } else { "" });
            let answer = if asked == 1 { json!({"value": "Bob"}) } else { json!({"eof": true}) };
            ask(&daemon, &name, "python", "input", Some(&answer));
        }
    });
    assert_eq!(asked, 2);
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["started", "input", "stdout", "input", "result", "end"], "{events:?}");
    assert_eq!(
        (&data(&events[2])["data"], &data(&events[4])["data"]["text/plain"]),
        (&json!("hi Bob\n"), &json!("''"))
    );
    let answer = daemon.request(
        "POST",
        &format!("/v1/sandboxes/{name}/contexts/python/input"),
        Some(&json!({"value": "late"})),
    );
    assert_error(&answer, 409, "INPUT_NOT_WANTED");
    // Code that waits for an answer can be interrupted.
    let result =
        code_with(&daemon, &name, "python", &json!({"code": "input()", "stdin": true, "timeout_ms": 200}));
    assert_eq!(
        (&result["error"]["name"], &result["state_lost"]),
        (&json!("TimeoutError"), &json!(false)),
        "{result}"
    );
    assert_eq!(text(&code(&daemon, &name, "python", "n")), Some("'Bob'"));
}

#[test]
fn contexts_are_apart_and_listed_and_leave_nothing() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let (a, b) = (create(&daemon, &name, &json!({"id": "a"})), create(&daemon, &name, &json!({})));
    code(&daemon, &name, &a, "s = 1");
    assert_eq!(code(&daemon, &name, &b, "s")["error"]["name"], "NameError");
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{name}/contexts"), Some(&json!({"id": "a"})));
    assert_error(&answer, 409, "CONTEXT_EXISTS");
    let list = daemon.get(&format!("/v1/sandboxes/{name}/contexts"));
    assert_eq!(list["contexts"].as_array().unwrap().len(), 2, "{list}");
    code(
        &daemon,
        &name,
        &a,
        "import subprocess; subprocess.Popen(['sh', '-c', 'setsid sleep 1000 & sleep 1000'])",
    );
    let delete = |context: &str| {
        let answer = daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/{context}"), None);
        assert_eq!(answer.status, 204);
    };
    delete(&a);
    assert_error(&try_code(&daemon, &name, &a, &json!({"code": "1"})), 404, "CONTEXT_NOT_FOUND");
    assert_eq!(
        daemon.shell(&name, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]leep 1000' || true"),
        "0\n"
    );
    // Many, one after another and at once, and nothing of one is in another.
    for round in 0..50 {
        let context = create(&daemon, &name, &json!({}));
        let seen =
            code(&daemon, &name, &context, &format!("found = 'mark' in globals(); mark = {round}; found"));
        assert_eq!(text(&seen), Some("False"), "{seen}");
        if round % 2 == 0 {
            delete(&context);
        }
    }
    let list = daemon.get(&format!("/v1/sandboxes/{name}/contexts"));
    assert_eq!(list["contexts"].as_array().unwrap().len(), 26);
    // Two at once on one context wait for each other, in order; two contexts do not.
    std::thread::scope(|scope| {
        let slow =
            scope.spawn(|| code(&daemon, &name, &b, "import time; time.sleep(0.4); order = ['first']"));
        std::thread::sleep(std::time::Duration::from_millis(150));
        let next = scope.spawn(|| code(&daemon, &name, &b, "order.append('second'); order"));
        assert_eq!(slow.join().unwrap()["error"], Value::Null);
        assert_eq!(text(&next.join().unwrap()), Some("['first', 'second']"));
    });
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{name}/contexts/{b}/restart"), None);
    assert_eq!(answer.status, 200);
    assert_eq!(code(&daemon, &name, &b, "order")["error"]["name"], "NameError");
    for context in daemon.get(&format!("/v1/sandboxes/{name}/contexts"))["contexts"].as_array().unwrap() {
        delete(context["id"].as_str().unwrap());
    }
    // Only the zygote is left, and what it has forked for the next context; the sandbox takes them along.
    let left = daemon.shell(&name, "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '^[z]ygote$'");
    assert!(left == "1\n" || left == "2\n", "{left}");
    daemon.destroy(&name);
}
