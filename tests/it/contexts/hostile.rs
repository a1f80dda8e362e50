//! Code that breaks what it runs in: its streams, its representations, the process that contexts are forked from.

use serde_json::{Value, json};

use super::trouble::CHANNEL;
use super::{code, code_with, create, events_until, start, text, try_code, works};
use crate::harness::{Daemon, host};

#[test]
fn streams_and_representations_that_are_broken_are_mended() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "python", cell);
    for cell in [
        "import sys; sys.stdout.close()",
        "import os; os.close(1); os.close(2)",
        "import sys, io; sys.stdout = io.StringIO(); sys.stdout.close()",
        "import sys; sys.stdout = sys.__stdout__ = None",
    ] {
        assert_eq!(run(cell)["error"], Value::Null, "{cell}");
        let result = run("import os, sys; print('out'); sys.stderr.write('err\\n'); os.system('echo sub');");
        assert_eq!(
            (&result["stdout"], &result["stderr"]),
            (&json!("out\nsub\n"), &json!("err\n")),
            "{cell}: {result}"
        );
    }
    // One that it has put there itself stays.
    run("import io, sys; kept = sys.stdout; sys.stdout = io.StringIO()");
    assert_eq!(run("print('hidden')")["stdout"], "");
    assert_eq!(text(&run("shown = sys.stdout.getvalue(); sys.stdout = kept; shown")), Some("'hidden\\n'"));
    let result = run("import sys; sys.stdout.buffer.write(b'\\xff\\xfe'); sys.stdout.flush()");
    assert_eq!(
        (&result["stdout"], &result["stdout_encoding"]),
        (&json!("//4="), &json!("base64")),
        "{result}"
    );
    for (cell, stderr) in [
        (
            "class A:\n  def _repr_html_(self): raise ValueError('h')\n  def __repr__(self): return 'fine'\nA()",
            "ValueError: h",
        ),
        (
            "class A:\n  def _repr_mimebundle_(self, **k): raise ValueError('m')\n  def __repr__(self): return 'fine'\nA()",
            "ValueError: m",
        ),
    ] {
        let result = run(cell);
        assert_eq!((text(&result), &result["error"]), (Some("fine"), &Value::Null), "{cell}: {result}");
        assert!(result["stderr"].as_str().unwrap().contains(stderr), "{cell}: {result}");
    }
    let result = run(
        "class M:\n  def _repr_mimebundle_(self, **k): return {'a/b': object, 5: 'x', 'text/plain': 'm'}\nM()",
    );
    assert_eq!((text(&result), &result["results"][0]["data"]["5"]), (Some("m"), &json!("x")), "{result}");
    let result = run("class R:\n  def __repr__(self): return 'x' * 50_000_000\nR()");
    assert_eq!(result["results"][0]["truncated"], json!(["text/plain"]));
    // Errors of threads, and what runs when the process ends.
    let result = run("import threading\nt = threading.Thread(target=lambda: 1/0); t.start(); t.join()");
    assert!(result["stderr"].as_str().unwrap().contains("ZeroDivisionError"), "{result}");
    run("import atexit; atexit.register(print, 'at exit');");
    let result =
        run("import asyncio; asyncio.new_event_loop().run_until_complete(asyncio.sleep(0, 'other loop'))");
    assert_eq!(text(&result), Some("'other loop'"), "{result}");
    works(&daemon, &name, "python");
}

/// A daemon's process holds the output, prints and outlives its cell, and then its context does not.
#[test]
fn what_is_left_running_holds_nobody() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let left = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(0.2); print('left behind', flush=True); time.sleep(1000)\n  os._exit(0)\nos.wait(); print('done')";
    let result = code(&daemon, &name, "python", left);
    assert_eq!((&result["stdout"], &result["error"]), (&json!("done\n"), &Value::Null), "{result}");
    let mut background = String::new();
    host::wait_for("what was left behind to print", || {
        let result = code(&daemon, &name, "python", "1+1");
        // Whose it is depends on whether a run is on when it comes.
        for stream in ["background", "stdout"] {
            background.push_str(result[stream].as_str().unwrap());
        }
        background == "left behind\n"
    });
    // A fork of the code's own has no part in the protocol: it ends with the cell, as a program does.
    for (ends, status, stderr) in
        [("pass", 0, ""), ("raise SystemExit(7)", 7, ""), ("1/0", 1, "ZeroDivisionError")]
    {
        let cell = format!(
            "import os\npid = os.fork()\nif pid == 0:\n  {ends}\nelse:\n  print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
        );
        let result = code(&daemon, &name, "python", &cell);
        assert_eq!(
            (&result["stdout"], &result["error"]),
            (&json!(format!("{status}\n")), &Value::Null),
            "{ends}: {result}"
        );
        let told = result["stderr"].as_str().unwrap();
        assert!(told.contains(stderr) && told.is_empty() == stderr.is_empty(), "{ends}: {result}");
    }
    let answer = daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/python"), None);
    assert_eq!(answer.status, 204);
    let pythons = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '^context$' || true";
    assert_eq!(daemon.shell(&name, pythons), "0\n");
}

/// Frames without end are no output without end: the reader's pace is the writer's.
#[test]
fn a_flood_of_frames_fills_nothing() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let before = host::resident_kib(daemon.serve_pid());
    let flood = "while True: display('x' * 1_000_000)";
    let stalled = start(&daemon, &name, "python", &json!({"code": flood, "timeout_ms": 1500}));
    works(&daemon, &name, &create(&daemon, &name, &json!({})));
    let result = code_with(&daemon, &name, "python", &json!({"code": flood, "timeout_ms": 1500}));
    assert_eq!(result["timed_out"], true, "{}", result["error"]);
    assert!(result["results"].as_array().unwrap().len() <= 1000);
    drop(stalled);
    works(&daemon, &name, "python");
    let grown = host::resident_kib(daemon.serve_pid()).saturating_sub(before);
    assert!(grown < 128 << 10, "serve has grown by {grown} KiB");
}

/// A zygote that is the workload's: it comes from a module that every Python of the sandbox loads.
const ZYGOTE: &str = r"
import os
if b'zygote' in open('/proc/self/cmdline', 'rb').read().split(b'\0'):
    import json, socket, struct, time
    mode = open('/tmp/evil/mode').read().strip()
    control, requests = socket.socket(fileno=20), socket.socket(fileno=22)
    def say(to, **frame):
        body = json.dumps(frame).encode()
        to.sendall(struct.pack('<I', len(body)) + body)
    say(control, t='ready', run=0)
    while True:
        _, fds, _, _ = socket.recv_fds(requests, 16, 8)
        if len(fds) != 4: os._exit(0)
        with open('/tmp/evil/log', 'a') as log: log.write(mode + '\n')
        ours, witness = socket.socket(fileno=fds[0]), fds[3]
        if mode == 'itself': os.write(witness, b'a')
        elif mode == 'nobody': pass
        elif mode == 'its-own-child' and os.fork() == 0: os.write(witness, b'a'); time.sleep(1000)
        elif mode == 'dead':
            child = os.fork()
            if child == 0:
                if os.fork() == 0: os.write(witness, b'a')
                os._exit(0)
            os.waitpid(child, 0); time.sleep(0.3)
        elif mode == 'stranger':
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect('/tmp/evil/stranger'); socket.send_fds(stranger, [b'w'], [witness]); stranger.recv(1)
        elif mode == 'garbage': ours.sendall(b'\xff' * 64)
        say(ours, t='forked', run=0)
";

/// Another command of the sandbox, which attests that it is the new context.
const STRANGER: &str = r"
import os, socket
with socket.socket(socket.AF_UNIX) as server:
    server.bind('/tmp/evil/stranger'); server.listen()
    print('ready', flush=True)
    while True:
        client, _ = server.accept()
        _, fds, _, _ = socket.recv_fds(client, 1, 1)
        os.write(fds[0], b'a'); client.send(b'k')
";

#[test]
fn a_zygote_that_lies_about_whom_it_has_forked_is_not_believed() {
    let daemon = Daemon::start();
    for mode in ["itself", "nobody", "its-own-child", "dead", "stranger", "garbage"] {
        let name = daemon.sandbox();
        daemon.shell(&name, "mkdir /tmp/evil");
        daemon.put(&name, "/tmp/evil/sitecustomize.py", ZYGOTE.as_bytes());
        daemon.put(&name, "/tmp/evil/stranger.py", STRANGER.as_bytes());
        daemon.put(&name, "/tmp/evil/mode", mode.as_bytes());
        let stranger = json!({"argv": ["/usr/bin/python3", "/tmp/evil/stranger.py"]});
        let _stranger = daemon.start_command(&name, &stranger, true);
        let spec = json!({"id": "victim", "env": {"PYTHONPATH": "/tmp/evil"}});
        create(&daemon, &name, &spec);
        assert_eq!(daemon.shell(&name, "sort -u /tmp/evil/log"), format!("{mode}\n"), "the attack was made");
        works(&daemon, &name, "victim");
        let parent =
            code(&daemon, &name, "victim", "import os; open('/proc/self/cmdline').read().split(chr(0))[3]");
        assert_eq!(text(&parent), Some("'context'"), "{mode}: one that was started without the zygote");
        // Whoever attested is still what it was: it does not end with the context.
        let answer = daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/victim"), None);
        assert_eq!(answer.status, 204, "{mode}");
        let left =
            daemon.shell(&name, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]tranger.py' || true");
        assert_eq!(left, "1\n", "{mode}: the stranger");
        daemon.destroy(&name);
    }
    // The same sandbox with a zygote that is ours: that is whose child a context is.
    let name = daemon.sandbox();
    works(&daemon, &name, "python");
    let forked = code(&daemon, &name, "python", "open('/proc/self/cmdline').read().split(chr(0))[3]");
    assert_eq!(text(&forked), Some("'zygote'"), "{forked}");
}

#[test]
fn nothing_of_a_run_comes_after_its_end() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let cell = "import threading, time\ndef talk():\n  for i in range(30): print('thread', i); time.sleep(0.01)\nthreading.Thread(target=talk).start(); print('cell')";
    let mut connection = start(&daemon, &name, "python", &json!({"code": cell}));
    let head = connection.receive_head().unwrap();
    let mut body = connection.body(&head);
    let mut names = Vec::new();
    while let Some(event) = body.next_event().unwrap() {
        names.push(event.name);
    }
    assert_eq!(
        (names.last().map(String::as_str), names.iter().filter(|name| *name == "end").count()),
        (Some("end"), 1),
        "{names:?}"
    );
    // Two runs at once on one stream of output: what the thread writes while the next one runs is the next one's.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let result = code(&daemon, &name, "python", "2");
    assert!(result["background"].as_str().unwrap().ends_with("thread 29\n"), "{result}");
    assert_eq!(result["stdout"], "", "{result}");
    let mut connection = start(&daemon, &name, "python", &json!({"code": "1/0"}));
    let events = events_until(&mut connection, "end", |_| ());
    assert_eq!(events.iter().filter(|event| event.name == "end").count(), 1);
    assert_eq!(try_code(&daemon, &name, "python", &json!({"code": ""})).status, 200);
}

/// Frames with changed bytes, from inside: whatever comes of the run, the next one is right.
const FUZZ: &str = r#"
import random
r = random.Random(SEED)
frames = [dict(t='display', run=run, data={'text/plain': 'x', 'image/png': 'aGk='}, metadata={}, seq=1),
          dict(t='result', run=run, data={'a/b': [1, {'c': None}]}, truncated=['a/b']), dict(t='clear', run=run, wait=True),
          dict(t='input', run=run, prompt='?', password=True), dict(t='interrupted', run=run),
          dict(t='done', run=run, count=3, error=dict(name='E', message='m', line=1), modules=['pandas'])]
body = bytearray(json.dumps(r.choice(frames)).encode())
for _ in range(r.randrange(4)):
    at = r.randrange(len(body))
    what = r.randrange(3)
    if what == 0: body[at] = r.randrange(256)
    elif what == 1: del body[at:at + r.randrange(9)]
    else: body[at:at] = bytes(r.randrange(256) for _ in range(r.randrange(9)))
length = len(body) if r.randrange(3) else r.choice([0, 1, len(body) + 3, 1 << 23, (1 << 32) - 1])
raw(struct.pack('<I', length) + bytes(body))
"#;

#[test]
fn no_frame_that_code_makes_up_hurts_the_next_run() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let quiet = create(&daemon, &name, &json!({}));
    code(&daemon, &name, &quiet, "kept = 1");
    let mut ends = std::collections::BTreeMap::new();
    for seed in 0..60 {
        let cell = format!("{CHANNEL}{}", FUZZ.replace("SEED", &seed.to_string()));
        let result = code_with(&daemon, &name, "python", &json!({"code": cell, "timeout_ms": 2000}));
        *ends.entry(result["error"]["name"].to_string()).or_insert(0) += 1;
        // What a made-up end leaves behind is over when the interpreter answers the next run.
        let mut last = Value::Null;
        host::wait_for("the next run to be right", || {
            last = code_with(&daemon, &name, "python", &json!({"code": "1+1", "timeout_ms": 2000}));
            text(&last) == Some("2") && last["error"] == Value::Null
        });
    }
    // The beginning of a frame that does not come, in a run that may take as long as it likes.
    let part = format!("{CHANNEL}raw(b'\\x00')");
    let result = code(&daemon, &name, "python", &part);
    assert_eq!(result["error"]["name"], "InterpreterDied", "{result}");
    assert_eq!(text(&code(&daemon, &name, "python", "1+1")), Some("2"));
    // Both kinds were met: frames that are refused, and frames that are not.
    assert!(ends["null"] > 5 && ends["\"InterpreterDied\""] > 5, "{ends:?}");
    assert_eq!(text(&code(&daemon, &name, &quiet, "kept")), Some("1"));
}
