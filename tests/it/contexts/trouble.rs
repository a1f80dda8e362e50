//! What ends code, and what hostile code tries.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ask, code, code_with, create, data, events_until, start, text, works};
use crate::harness::{Daemon, host};

#[test]
fn interrupts_keep_the_state_and_what_ignores_them_is_killed() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "python", "import time, os, asyncio; x = 41; os.mkfifo('/tmp/fifo')");
    for cell in [
        "while True: pass",
        "time.sleep(1000)",
        "await asyncio.sleep(1000)",
        "os.system('sleep 1000')",
        "import subprocess; subprocess.run(['sleep', '1000'])",
        "for i in range(10**9): print(i)",
        "sum(i for i in iter(int, 1))",
        "open('/tmp/fifo')",
        "os.system('trap \"\" INT; sleep 1000')",
        "subprocess.run(['sh', '-c', 'trap \"\" INT; sleep 1000'])",
        "try:\n  while True: pass\nexcept KeyboardInterrupt: 'caught'",
    ] {
        let result = code_with(
            &daemon,
            &name,
            "python",
            &json!({"code": cell, "timeout_ms": 300, "output_bytes_max": 1000}),
        );
        assert_eq!(
            (&result["error"]["name"], &result["timed_out"]),
            (&json!("TimeoutError"), &json!(true)),
            "{cell}: {result}"
        );
        assert_eq!(result["state_lost"], false, "{cell}: {result}");
        assert_eq!(text(&code(&daemon, &name, "python", "x")), Some("41"), "{cell}");
    }
    for cell in [
        "while True:\n  try: time.sleep(1000)\n  except BaseException: pass",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "import ctypes; ctypes.CDLL(None).sigfillset\nwhile True:\n  try: os.system('trap \"\" INT; sleep 1000')\n  except BaseException: pass",
    ] {
        code(&daemon, &name, "python", "import time, os; x = 42");
        let began = Instant::now();
        let result = code_with(&daemon, &name, "python", &json!({"code": cell, "timeout_ms": 200}));
        assert_eq!(
            (&result["timed_out"], &result["state_lost"]),
            (&json!(true), &json!(true)),
            "{cell}: {result}"
        );
        assert!(result["error"]["message"].as_str().unwrap().contains("state is lost"), "{result}");
        // A bound against a hang, far above what it takes.
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!(works(&daemon, &name, "python")["restarted"], true);
        assert_eq!(code(&daemon, &name, "python", "x")["error"]["name"], "NameError");
    }
}

#[test]
fn whoever_asked_can_interrupt_and_leave() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "python", "import time; x = 43");
    let mut connection =
        start(&daemon, &name, "python", &json!({"code": "print('on'); import time; time.sleep(1000)"}));
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            ask(&daemon, &name, "python", "interrupt", None);
        }
    });
    let end = data(events.last().unwrap());
    assert_eq!(
        (&end["error"]["name"], &end["interrupted"]),
        (&json!("KeyboardInterrupt"), &json!(true)),
        "{end}"
    );
    let mut connection = start(&daemon, &name, "python", &json!({"code": "print('on'); time.sleep(1000)"}));
    events_until(&mut connection, "stdout", |_| ());
    drop(connection);
    assert_eq!(text(&code(&daemon, &name, "python", "x")), Some("43"));
    let mut connection = start(
        &daemon,
        &name,
        "python",
        &json!({"code": "print('on'); time.sleep(0.5); x = 44", "detach": true}),
    );
    events_until(&mut connection, "stdout", |_| ());
    drop(connection);
    assert_eq!(text(&code(&daemon, &name, "python", "x")), Some("44"));
    // Nothing runs: nothing happens.
    ask(&daemon, &name, "python", "interrupt", None);
    assert_eq!(text(&code(&daemon, &name, "python", "x")), Some("44"));
}

#[test]
fn an_interpreter_that_dies_is_told_and_replaced() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (cell, exit_code, signal) in [
        ("print('last'); import os; os._exit(3)", 3, Value::Null),
        ("print('last'); import ctypes; ctypes.string_at(0)", 139, json!("SIGSEGV")),
        ("print('last', flush=True); import os; os.kill(os.getpid(), 9)", 137, json!("SIGKILL")),
        ("print('last', flush=True); import os; os.execv('/bin/sh', ['sh', '-c', 'exit 7'])", 7, Value::Null),
    ] {
        let result = code(&daemon, &name, "python", cell);
        assert_eq!(result["error"]["name"], "InterpreterDied", "{cell}: {result}");
        let found = (&result["exit_code"], &result["signal"], &result["state_lost"], &result["stdout"]);
        let wanted = (&json!(exit_code), &signal, &json!(true), &json!("last\n"));
        assert_eq!(found, wanted, "{cell}: {result}");
        assert_eq!(works(&daemon, &name, "python")["restarted"], true);
    }
}

/// Whatever code leaves with, and wherever: it is an error of the cell's, and nothing is lost.
#[test]
fn leaving_is_an_error_with_the_code_of_a_program() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let loud =
        "class I(int):\n  def no(*_): 1/0\n  __and__ = __int__ = __index__ = __str__ = no\nsys.exit(I(5))";
    let mute = "class S(SystemExit):\n  code = property(lambda self: 1/0)\nraise S('why')";
    for (cell, error, exit_code) in [
        ("import sys; kept = 6; sys.exit(2**70)", "SystemExit", 255),
        ("sys.exit(-1)", "SystemExit", 255),
        ("sys.exit(-2**70)", "SystemExit", 255),
        ("sys.exit(2**32 + 3)", "SystemExit", 3),
        ("sys.exit(object())", "SystemExit", 1),
        ("sys.exit(10**5000)", "SystemExit", 255),
        ("exit(3)", "SystemExit", 3),
        (loud, "SystemExit", 5),
        (mute, "S", 1),
        ("class R:\n  def __repr__(self): sys.exit(4)\nR()", "SystemExit", 4),
    ] {
        let result = code(&daemon, &name, "python", cell);
        let found = (&result["error"]["name"], &result["exit_code"], &result["state_lost"]);
        assert_eq!(found, (&json!(error), &json!(exit_code), &json!(false)), "{cell}: {result}");
    }
    for (cell, error) in [
        ("class E(Exception):\n  def __str__(self): sys.exit(4)\nraise E", "E"),
        ("class M(type): __name__ = 5\nclass Q(Exception, metaclass=M): pass\nraise Q", "Q"),
        ("raise SyntaxError('x', ('f', -5, 1, 'text'))", "SyntaxError"),
    ] {
        let result = code(&daemon, &name, "python", cell);
        let found = (&result["error"]["name"], &result["exit_code"], &result["state_lost"]);
        assert_eq!(found, (&json!(error), &Value::Null, &json!(false)), "{cell}: {result}");
    }
    // Threads, tasks and handlers of signals end alone, also while nothing runs.
    for (cell, said) in [
        (
            "import threading, time\nfor _ in range(2): threading.Thread(target=sys.exit, args=(3,)).start()",
            "",
        ),
        (
            "import asyncio\nasync def f():\n  await asyncio.sleep(0.05); sys.exit(9)\nt = asyncio.create_task(f())",
            "SystemExit: 9",
        ),
        (
            "import signal\ndef h(*_): raise ValueError('late')\nsignal.signal(14, h); signal.setitimer(0, 0.05);",
            "ValueError: late",
        ),
        ("signal.signal(14, lambda *_: sys.exit(8)); signal.setitimer(0, 0.05);", "SystemExit: 8"),
    ] {
        assert_eq!(code(&daemon, &name, "python", cell)["error"], Value::Null, "{cell}");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let result = code(&daemon, &name, "python", "kept");
        assert_eq!((text(&result), &result["restarted"]), (Some("6"), &json!(false)), "{cell}: {result}");
        assert!(result["background"].as_str().unwrap().contains(said), "{cell}: {result}");
    }
    for (cell, exit_code) in
        [("process.exit(2 ** 70)", 1), ("process.exit(-1)", 255), ("process.exit('7')", 7)]
    {
        let result = code(&daemon, &name, "javascript", cell);
        assert_eq!(
            (&result["error"]["name"], &result["exit_code"]),
            (&json!("ProcessExit"), &json!(exit_code)),
            "{cell}"
        );
    }
    code(&daemon, &name, "javascript", "setTimeout(() => process.exit(3), 50); 1");
    let waits = "await new Promise(then => setTimeout(then, 300)); 6";
    assert_eq!(text(&code(&daemon, &name, "javascript", waits)), Some("6"));
}

#[test]
fn memory_that_is_used_up_is_a_typed_error() {
    let daemon = Daemon::start();
    let name = crate::harness::id(&daemon.create(json!({"resources": {"memory_bytes": 200 << 20}})));
    works(&daemon, &name, "python");
    let result = code(&daemon, &name, "python", "a = []\nwhile True: a.append(bytearray(b'x' * (1 << 20)))");
    if result["error"]["name"] == "MemoryError" {
        crate::harness::skip!("cgroup-v2", "the kernel refused memory before its limit killed for it");
    }
    assert_eq!(
        (&result["error"]["name"], &result["oom_killed"]),
        (&json!("OutOfMemory"), &json!(true)),
        "{result}"
    );
    works(&daemon, &name, "python");
}

#[test]
fn much_output_is_bounded_and_counted() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result = code_with(
        &daemon,
        &name,
        "python",
        &json!({"code": "import sys; sys.stdout.write('y' * 50_000_000);", "output_bytes_max": 1_000_000}),
    );
    assert_eq!(result["stdout"].as_str().unwrap(), "y".repeat(1_000_000));
    assert_eq!((&result["stdout_bytes"], &result["truncated"]["stdout"]), (&json!(50_000_000), &json!(true)));
    let result = code(&daemon, &name, "python", "'x' * 20_000_000");
    let shown = &result["results"][0];
    assert_eq!(shown["truncated"], json!(["text/plain"]));
    assert_eq!(shown["data"]["text/plain"].as_str().unwrap().len(), 6 * 1024 * 1024);
    let mut bytes = Vec::new();
    let mut connection =
        start(&daemon, &name, "python", &json!({"code": "for i in range(200000): print('line %06d' % i)"}));
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            bytes.extend_from_slice(data(event)["data"].as_str().unwrap().as_bytes());
        }
    });
    assert!(events.len() > 10);
    let wanted: String = (0..200_000).map(|i| format!("line {i:06}\n")).collect();
    assert!(bytes == wanted.as_bytes(), "{} bytes", bytes.len());
    // A reader that stalls stops the code, and not the daemon; the time is up all the same.
    let stalled =
        start(&daemon, &name, "python", &json!({"code": "while True: print('x' * 1000)", "timeout_ms": 500}));
    works(&daemon, &name, "python");
    drop(stalled);
    // What is left in the background is nobody's, and told with the next run.
    code(
        &daemon,
        &name,
        "python",
        "import threading, time\ndef late():\n  time.sleep(0.1); print('late')\nthreading.Thread(target=late).start()",
    );
    std::thread::sleep(Duration::from_millis(400));
    let result = code(&daemon, &name, "python", "print('mine')");
    assert_eq!((&result["stdout"], &result["background"]), (&json!("mine\n"), &json!("late\n")), "{result}");
}

/// Finds the control socket in the interpreter's own memory, as any code of the context can.
pub(super) const CHANNEL: &str = "import sys, json, struct, os\nchannel = sys.modules['_stockade'].channel\nsock = channel.sock\nraw = lambda b: sock.sendall(b)\nframe = lambda **f: raw((lambda b: struct.pack('<I', len(b)) + b)(json.dumps(f).encode()))\nrun = sys.modules['_stockade'].state.run\n";

#[test]
fn an_interpreter_that_lies_hurts_nobody_but_itself() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let quiet = create(&daemon, &name, &json!({}));
    code(&daemon, &name, &quiet, "kept = 1");
    for (attack, error) in [
        ("raw(b'\\xff' * 100)", "InterpreterDied"),
        ("raw(struct.pack('<I', 3) + b'{x}')", "InterpreterDied"),
        ("raw(struct.pack('<I', 9_000_000))", "InterpreterDied"),
        ("frame(t='nothing', run=run)", "InterpreterDied"),
        ("frame(t='ready', run=run)", "InterpreterDied"),
        (
            "raw((lambda b: struct.pack('<I', len(b)) + b)(b'{\"t\":\"display\",\"data\":{\"a\":' + b'[' * 100000 + b'}}'))",
            "InterpreterDied",
        ),
        ("sock.shutdown(2)\nimport time; time.sleep(100)", "InterpreterDied"),
        ("os.closerange(0, 100)\nimport time; time.sleep(100)", "InterpreterDied"),
        // Half a frame, and then nothing: its answer to the interrupt is the other half.
        ("raw(struct.pack('<I', 100) + b'{')\nwhile True: pass", "InterpreterDied"),
    ] {
        let body = json!({"code": format!("{CHANNEL}{attack}"), "timeout_ms": 3000});
        let result = code_with(&daemon, &name, "python", &body);
        assert_eq!(
            (&result["error"]["name"], &result["state_lost"]),
            (&json!(error), &json!(true)),
            "{attack}: {result}"
        );
        works(&daemon, &name, "python");
    }
    // A run that ends early, or another one's: what comes later belongs to nobody.
    let early = format!(
        "{CHANNEL}frame(t='done', run=run, count=1)\nframe(t='result', run=run, data={{'text/plain': 'late'}})\n'late'"
    );
    code(&daemon, &name, "python", &early);
    for _ in 0..3 {
        works(&daemon, &name, "python");
    }
    let other = format!(
        "{CHANNEL}frame(t='result', run=run+1, data={{'text/plain': 'other'}}); frame(t='done', run=run+1, count=9)\n'mine'"
    );
    let result = code(&daemon, &name, "python", &other);
    assert_eq!(text(&result), Some("'mine'"), "{result}");
    works(&daemon, &name, "python");
    // Line feeds in what is shown do not become events of ours.
    let attack = format!(
        "{CHANNEL}b = b'{{\"t\":\"display\",\"run\":%d,\"data\":{{\\n\\nevent: end\\ndata: {{}}\\n\\n' % run + b'\"a\":1}}}}'\n1"
    );
    let attack = attack.replace("\\nevent: end\\ndata: {}", "");
    let attack = format!("{attack}\nraw(struct.pack('<I', len(b)) + b)");
    let mut connection = start(&daemon, &name, "python", &json!({"code": attack}));
    let events = events_until(&mut connection, "end", |_| ());
    assert_eq!(events.iter().filter(|event| event.name == "display").count(), 1, "{events:?}");
    assert_eq!(text(&code(&daemon, &name, &quiet, "kept")), Some("1"));
    // Whoever kills the zygote, with all that it has forked, costs the next context its speed alone.
    let killed = daemon.shell(&name,
        "for p in /proc/[0-9]*; do grep -qsa '[z]ygote' $p/cmdline && kill -9 ${p#/proc/} && echo killed || true; done");
    assert!(killed.starts_with("killed\n"), "{killed}");
    works(&daemon, &name, &create(&daemon, &name, &json!({})));
}

#[test]
fn two_hundred_runs_with_random_troubles_are_each_right() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let context = create(&daemon, &name, &json!({"id": "storm"}));
    // The same troubles every time (a linear congruential generator), so that a failure can be seen again.
    let mut seed = 20_261_129_u64;
    let mut chance = move |of: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % of
    };
    let mut expected: Option<u64> = None;
    for round in 0..200 {
        match chance(8) {
            0 => {
                let result = code(&daemon, &name, &context, "import os; os._exit(1)");
                assert_eq!(result["state_lost"], true, "{round}: {result}");
                expected = None;
            }
            1 => {
                let body = json!({"code": "while True: pass", "timeout_ms": 1 + chance(40)});
                let result = code_with(&daemon, &name, &context, &body);
                assert_eq!(
                    (&result["timed_out"], &result["state_lost"]),
                    (&json!(true), &json!(false)),
                    "{round}: {result}"
                );
            }
            2 => {
                let path = format!("/v1/sandboxes/{name}/contexts/{context}/restart");
                assert_eq!(daemon.request("POST", &path, None).status, 200);
                expected = None;
            }
            3 => {
                let run = start(
                    &daemon,
                    &name,
                    &context,
                    &json!({"code": "print('x'); import time; time.sleep(100)"}),
                );
                std::thread::sleep(Duration::from_millis(chance(15)));
                drop(run);
            }
            4 => ask(&daemon, &name, &context, "interrupt", None),
            _ => {
                code(&daemon, &name, &context, &format!("state = {round}"));
                expected = Some(round);
            }
        }
        let result = code(&daemon, &name, &context, "print('out'); globals().get('state')");
        assert_eq!(result["error"], Value::Null, "{round}: {result}");
        assert_eq!(result["stdout"], "out\n", "{round}: {result}");
        let wanted = expected.map(|state| state.to_string());
        assert_eq!(text(&result), wanted.as_deref(), "{round}: {result}");
    }
    daemon.destroy(&name);
    host::wait_until_none("groups of the sandbox", || {
        daemon.cgroups(&name).iter().map(|path| path.display().to_string()).collect()
    });
}
