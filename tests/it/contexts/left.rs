//! What earlier runs have left behind: loops that would keep the next one from beginning, and output that is theirs.

use std::time::Duration;

use serde_json::{Value, json};

use super::data::of_image;
use super::{code, code_with, data, events_until, start, text, works};
use crate::harness::{Daemon, host, skip};

#[test]
fn a_loop_that_was_left_behind_does_not_keep_the_next_run() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (language, keep, look, left) in [
        (
            "javascript",
            "const kept = 6",
            "kept",
            [
                "setTimeout(() => { for (;;); }, 20); 1",
                "setImmediate(() => { for (;;) { try { while (true); } catch {} } }); 1",
                "(async () => { await new Promise(r => setTimeout(r, 20)); while (true); })(); 1",
            ],
        ),
        (
            "python",
            "kept = 6; import asyncio",
            "kept",
            [
                "async def spin():\n  await asyncio.sleep(0.02)\n  while True: pass\nleft = asyncio.create_task(spin()); 1",
                "async def spin():\n  await asyncio.sleep(0.02)\n  __import__('time').sleep(1000)\nleft = asyncio.create_task(spin()); 1",
                "async def tell():\n  while True: await asyncio.sleep(0)\nleft = asyncio.create_task(tell()); 1",
            ],
        ),
    ] {
        code(&daemon, &name, language, keep);
        for cell in left {
            assert_eq!(text(&code(&daemon, &name, language, cell)), Some("1"), "{cell}");
            std::thread::sleep(Duration::from_millis(200));
            let result = code_with(&daemon, &name, language, &json!({"code": look, "timeout_ms": 60_000}));
            assert_eq!((text(&result), &result["error"]), (Some("6"), &Value::Null), "{cell}: {result}");
            assert_eq!(result["restarted"], false, "{cell}: {result}");
            // Whoever has lost something is told; tasks that let others run have not.
            let told =
                format!("{}{}", result["stderr"].as_str().unwrap(), result["background"].as_str().unwrap());
            let lost = !cell.contains("tell");
            assert_eq!(told.contains("an earlier cell has left running"), lost, "{cell}: {result}");
            code(&daemon, &name, language, if language == "python" { "left.cancel();" } else { "" });
            assert_eq!(code(&daemon, &name, language, look)["stderr"], "", "{cell}");
        }
    }
    // A run that only takes long is left alone by the looks.
    for (language, cell) in [
        ("javascript", "const end = Date.now() + 1500; while (Date.now() < end); 7"),
        ("python", "left = asyncio.create_task(asyncio.sleep(0.1))\nimport time; time.sleep(1.5); 7"),
        ("python", "import time; time.sleep(1.5); 7"),
    ] {
        let result = code(&daemon, &name, language, cell);
        assert_eq!((text(&result), &result["stderr"]), (Some("7"), &json!("")), "{cell}: {result}");
    }
}

/// Output and displays of the run, and of what earlier ones have left behind.
fn apart(events: &[crate::harness::http::Event]) -> (String, String) {
    let (mut own, mut left) = (String::new(), String::new());
    for event in events {
        let data = data(event);
        let said = match event.name.as_str() {
            "stdout" | "stderr" => data["data"].as_str().unwrap().to_owned(),
            "display" => format!("<{}>", data["data"]["text/plain"].as_str().unwrap()),
            _ => continue,
        };
        if data["background"] == true { &mut left } else { &mut own }.push_str(&said);
    }
    (own, left)
}

#[track_caller]
fn follow(daemon: &Daemon, name: &str, language: &str, cell: &str) -> (String, String) {
    let mut connection = start(daemon, name, language, &json!({"code": cell}));
    apart(&events_until(&mut connection, "end", |_| ()))
}

#[test]
fn what_threads_and_tasks_write_is_their_runs() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let follow = |cell: &str| follow(&daemon, &name, "python", cell);
    // Each writes when the next run tells it to, so that both write while that goes on.
    let thread = "import threading, sys, asyncio, contextvars, time\ngo, gone = threading.Event(), threading.Event()\n\
                  def late():\n  go.wait(); print('thread', 1); sys.stderr.write('err\\n'); display('shown'); gone.set()\n\
                  threading.Thread(target=late).start(); print('cell')";
    assert_eq!(follow(thread), ("cell\n".to_owned(), String::new()));
    assert_eq!(
        follow("print('mine'); go.set(); gone.wait(); print('mine too')"),
        ("mine\nmine too\n".to_owned(), "thread 1\nerr\n<'shown'>".to_owned())
    );
    let task = "async def later():\n  await asyncio.sleep(0.05); print('task')\nleft = asyncio.create_task(later()); 1";
    assert_eq!(follow(task).1, "");
    assert_eq!(follow("await left; print('mine')"), ("mine\n".to_owned(), "task\n".to_owned()));
    // A thread that begins in a thread is the same run's; one of a pool is whoever's work it does.
    let nested = "go.clear(); gone.clear()\ndef outer():\n  go.wait(); threading.Thread(target=lambda: (print('nested'), gone.set())).start()\n\
                  threading.Thread(target=outer).start()";
    follow(nested);
    assert_eq!(follow("go.set(); gone.wait(); print('mine')"), ("mine\n".to_owned(), "nested\n".to_owned()));
    let pool = "from concurrent.futures import ThreadPoolExecutor\nfrom multiprocessing.pool import ThreadPool\n\
                pool, other = ThreadPoolExecutor(1), ThreadPool(1)\nfor one in (pool.map, other.map): list(one(print, ['first']))";
    assert_eq!(follow(pool), ("first\nfirst\n".to_owned(), String::new()));
    let again = "for one in (pool.map, other.map): list(one(print, ['second']))";
    assert_eq!(follow(again), ("second\nsecond\n".to_owned(), String::new()));
    // What is written while no run is on comes with the next one; half a line is whole when its run is asked for it.
    follow("threading.Thread(target=lambda: (time.sleep(0.1), print('idle'), print('end', end=''))).start()");
    std::thread::sleep(Duration::from_millis(300));
    let result = code(&daemon, &name, "python", "print('mine')");
    assert_eq!(
        (&result["stdout"], &result["background"]),
        (&json!("mine\n"), &json!("idle\nend")),
        "{result}"
    );
    let result = code_with(
        &daemon,
        &name,
        "python",
        &json!({"code": "go.clear(); gone.clear()\ndef flood():\n  go.wait()\n  for _ in range(400): print('x' * 999)\n  gone.set()\n\
                threading.Thread(target=flood).start()"}),
    );
    assert_eq!(result["error"], Value::Null, "{result}");
    let result = code(&daemon, &name, "python", "go.set(); gone.wait(); 1");
    assert_eq!(result["background"].as_str().unwrap().len(), 128 * 1024);
    assert_eq!((&result["truncated"]["background"], &result["stdout"]), (&json!(true), &json!("")));
    works(&daemon, &name, "python");
}

#[test]
fn what_timers_and_promises_write_is_their_runs() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "node") else {
        skip!("built-image", "target/images/node is not there");
    };
    let follow = |cell: &str| follow(&daemon, &name, "javascript", cell);
    let left = "let go; const told = new Promise(r => go = r);\n\
                (async () => { await told; console.log('promise'); setTimeout(() => { console.error('timer'); display(5); }, 10) })(); 1";
    assert_eq!(follow(left).1, "");
    assert_eq!(
        follow("console.log('mine'); go(); await new Promise(r => setTimeout(r, 200)); console.log('too')"),
        ("mine\ntoo\n".to_owned(), "promise\ntimer\n<5>".to_owned())
    );
    // Shown while no run is on, it comes with the next one, which is not kept by it.
    follow("setTimeout(() => display(7), 50)");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(follow("console.log('mine')"), ("mine\n".to_owned(), "<7>".to_owned()));
    follow("setInterval(() => display(8), 1).unref()");
    for _ in 0..20 {
        let result = code(&daemon, &name, "javascript", "1 + 1");
        assert_eq!(text(&result), Some("2"), "{result}");
    }
}

/// serve begins a run before the interpreter has heard of it: what is written until then is not its.
#[test]
fn what_is_written_while_a_run_is_about_to_begin_is_not_its() {
    let daemon = Daemon::start();
    let hosts = daemon.sandbox();
    let spins = "import threading, time\ndef late():\n  time.sleep(0.05)\n  for n in range(20000): print('x', n)\n\
                 threading.Thread(target=late).start(); 1";
    let look = "time.sleep(0.3); 5";
    let mut cells = vec![(hosts, "python", spins.to_owned(), look)];
    let nodes = of_image(&daemon, "node");
    for callbacks in [5_000, 50_000] {
        let cell =
            format!("for (let n = 0; n < {callbacks}; n++) setTimeout(() => console.log('x ' + n), 1); 1");
        let waits = "await new Promise(r => setTimeout(r, 50)); 5";
        cells.extend(nodes.clone().map(|node| (node, "javascript", cell, waits)));
    }
    for (name, language, cell, look) in cells {
        code(&daemon, &name, language, &cell);
        if language == "python" {
            std::thread::sleep(Duration::from_millis(80));
        }
        let result = code_with(&daemon, &name, language, &json!({"code": look, "timeout_ms": 12_000}));
        assert_eq!((text(&result), &result["error"]), (Some("5"), &Value::Null), "{cell}: {result}");
        let told = (&result["stdout"], &result["stderr"]);
        assert_eq!(told, (&json!(""), &json!("")), "{cell}: {result}");
        let background = result["background"].as_str().unwrap();
        assert!(
            background.contains("x 0\n") && !background.contains("KeyboardInterrupt"),
            "{cell}: {background}"
        );
        works(&daemon, &name, language);
    }
}

/// Between runs 64 KiB of each stream are kept.
#[test]
fn it_is_said_that_more_was_written_between_runs_than_is_kept() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (language, cell, look) in [
        ("python", "import threading, time\nthreading.Timer(0.1, lambda: print('x' * 100_000)).start()", "1"),
        ("python", "__import__('subprocess').Popen('sleep 0.1; yes | head -c 100000', shell=True);", "1"),
        ("javascript", "setTimeout(() => console.log('x'.repeat(100_000)), 100); 1", "1"),
        ("bash", "(sleep 0.1; yes | head -c 100000) &", ":"),
    ] {
        code(&daemon, &name, language, cell);
        std::thread::sleep(Duration::from_millis(700));
        let result = code(&daemon, &name, language, look);
        assert_eq!(result["truncated"]["background"], true, "{cell}: {result}");
        assert_eq!(result["background"].as_str().unwrap().len(), 64 * 1024, "{cell}");
        let result = code(&daemon, &name, language, look);
        assert_eq!(
            (&result["truncated"]["background"], &result["background"]),
            (&json!(false), &json!("")),
            "{cell}"
        );
    }
}

#[test]
fn what_an_earlier_cell_left_fails_alone() {
    let daemon = Daemon::start();
    let hosts = daemon.sandbox();
    for name in std::iter::once(hosts).chain(of_image(&daemon, "node")) {
        for left in [
            "setTimeout(() => { throw new Error('tm') }, 50); 1",
            "setTimeout(() => new (require('events'))().emit('error', new Error('tm')), 50); 1",
            "require('child_process').spawn('sleep', ['0.05']).on('exit', () => { throw new Error('tm') }); 1",
        ] {
            let result = code(&daemon, &name, "javascript", left);
            assert_eq!(text(&result), Some("1"), "{left}: {result}");
            let cell = "await new Promise(r => setTimeout(r, 400)); console.log('mine'); 'alive'";
            let result = code(&daemon, &name, "javascript", cell);
            assert_eq!((text(&result), &result["error"]), (Some("alive"), &Value::Null), "{left}: {result}");
            assert_eq!((&result["stdout"], &result["stderr"]), (&json!("mine\n"), &json!("")), "{left}");
            assert!(result["background"].as_str().unwrap().starts_with("Uncaught: Error: tm"), "{result}");
        }
        // What the run itself has begun is its own failure.
        let own = "setTimeout(() => { throw new Error('own') }, 50); await new Promise(() => {})";
        assert_eq!(code(&daemon, &name, "javascript", own)["error"]["message"], "own");
        works(&daemon, &name, "javascript");
    }
}

#[test]
fn what_c_code_prints_is_there_in_order_and_at_the_end() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result = code(
        &daemon,
        &name,
        "python",
        "import ctypes; c = ctypes.CDLL(None); print('a'); c.puts(b'b'); print('c'); c.printf(b'no end of a line');",
    );
    assert_eq!(result["stdout"], "a\nb\nc\nno end of a line", "{result}");
    let result = works(&daemon, &name, "python");
    assert_eq!(result["background"], "", "{result}");
}

#[test]
fn jobs_of_bash_are_told_with_the_next_run() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "bash", cell);
    let result = run("(sleep 0.1; echo late; echo err >&2) & echo now");
    assert_eq!((&result["stdout"], &result["background"]), (&json!("now\n"), &json!("")), "{result}");
    let mut told = String::new();
    host::wait_for("the job to write", || {
        let result = run(":");
        // As on a terminal, it is the run's that is on when it comes.
        for stream in ["background", "stdout", "stderr"] {
            told += result[stream].as_str().unwrap();
        }
        told.contains("late\n") && told.contains("err\n")
    });
    assert_eq!(told.len(), "late\nerr\n".len(), "each once");
    run("(sleep 0.1; echo idle) &");
    std::thread::sleep(Duration::from_millis(500));
    let result = run("echo me");
    assert_eq!((&result["background"], &result["stdout"]), (&json!("idle\n"), &json!("me\n")), "{result}");
    // Not all of what has no end.
    run("yes | head -c 1000000 &");
    std::thread::sleep(Duration::from_millis(500));
    let kept = run("echo me")["background"].as_str().unwrap().len();
    assert!((64 * 1024..512 * 1024).contains(&kept), "{kept}");
}

/// Programs of an earlier run go on after a later one was ended; what that has started itself does not. One of them
/// ends when a program ends that it has started.
#[test]
fn programs_of_earlier_runs_outlive_the_end_of_a_later_one() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let count = |what: &str| {
        let list = daemon.shell(&name, "ps -eo args 2>/dev/null || true");
        list.lines().filter(|line| line.trim() == what).count()
    };
    // The loop is there twice before its next program has its own name.
    let living =
        || (count("sleep 4321"), count("sh -c while sleep 0.02; do :; done").min(1), count("sleep 1234"));
    for (language, first, later, deaf) in [
        (
            "python",
            "import subprocess as s, sys\nfor own in (False, True): s.Popen(['sleep', '4321'], start_new_session=own)\n\
             s.Popen(['sh', '-c', 'while sleep 0.02; do :; done']); kept = 6",
            "print('on'); s.Popen(['sleep', '1234'], start_new_session=True); s.run(['sleep', '1234'])",
            "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nwhile True: pass",
        ),
        (
            "javascript",
            "const {spawn, spawnSync} = require('child_process'), kept = 6; for (const detached of [false, true]) \
             spawn('sleep', ['4321'], {detached, stdio: 'ignore'}); spawn('sh', ['-c', 'while sleep 0.02; do :; done'])",
            "console.log('on'); spawn('sleep', ['1234'], {detached: true, stdio: 'ignore'}); spawnSync('sleep', ['1234'])",
            "process.kill(process.pid, 'SIGSTOP'); while (true);",
        ),
        (
            "bash",
            "sleep 4321 & setsid -f sleep 4321; sh -c 'while sleep 0.02; do :; done' & kept=6",
            "echo on; setsid -f sleep 1234; sleep 1234",
            "while read -r x; do :; done < /dev/zero",
        ),
    ] {
        code(&daemon, &name, language, first);
        assert_eq!(living(), (2, 1, 0), "{language}");
        let result = code_with(&daemon, &name, language, &json!({"code": later, "timeout_ms": 300}));
        assert_eq!((&result["timed_out"], &result["state_lost"]), (&json!(true), &json!(false)), "{result}");
        assert_eq!(living(), (2, 1, 0), "{language}: after a timeout");
        let mut connection = start(&daemon, &name, language, &json!({"code": later}));
        events_until(&mut connection, "end", |event| {
            if event.name == "stdout" {
                std::thread::sleep(Duration::from_millis(100));
                super::ask(&daemon, &name, language, "interrupt", None);
            }
        });
        assert_eq!(living(), (2, 1, 0), "{language}: after an interrupt");
        // Only what ends the interpreter ends them.
        let result = code_with(&daemon, &name, language, &json!({"code": deaf, "timeout_ms": 300}));
        assert_eq!(result["state_lost"], true, "{language}: {result}");
        assert_eq!(living(), (0, 0, 0), "{language}: after a kill");
    }
}

/// The time of a run is that of what it has started as well, whatever that does about SIGINT.
#[test]
fn programs_that_ignore_interrupts_end_with_their_runs_time() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let living = |what: &str| {
        let list = daemon.shell(&name, "ps -eo args 2>/dev/null || true");
        list.lines().filter(|line| line.trim() == what).count()
    };
    for (language, first, later) in [
        (
            "python",
            "import subprocess as s; s.Popen(['sleep', '4321']); kept = 6",
            "s.Popen('trap \"\" INT; exec sleep 1234', shell=True, start_new_session=True)\nwhile True: pass",
        ),
        (
            "javascript",
            "const {spawn} = require('child_process'), kept = 6; spawn('sleep', ['4321'], {stdio: 'ignore'})",
            "spawn('sh', ['-c', 'trap \"\" INT; exec sleep 1234'], {stdio: 'ignore'}); await new Promise(() => {})",
        ),
        ("bash", "sleep 4321 & kept=6", "(trap '' INT; exec sleep 1234) & sleep 1000"),
    ] {
        code(&daemon, &name, language, first);
        let result = code_with(&daemon, &name, language, &json!({"code": later, "timeout_ms": 500}));
        assert_eq!((&result["timed_out"], &result["state_lost"]), (&json!(true), &json!(false)), "{result}");
        host::wait_for("the run's program to end", || living("sleep 1234") == 0);
        assert_eq!(living("sleep 4321"), 1, "{language}: earlier ones stay");
        let path = format!("/v1/sandboxes/{name}/contexts/{language}/restart");
        assert_eq!(daemon.request("POST", &path, None).status, 200);
        host::wait_for("the earlier ones to end", || living("sleep 4321") == 0);
    }
}
