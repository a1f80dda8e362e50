//! Interrupts of Python that come while something is cleaned up, and in code that would make something else of them.

use serde_json::{Value, json};

use super::data::of_image;
use super::{ask, code, data, events_until, start, text};
use crate::harness::{Daemon, skip};

/// Runs a cell that says when it is on, interrupts it then, and gives what was written and how it ended.
#[track_caller]
fn interrupted(daemon: &Daemon, name: &str, cell: &str) -> (String, Value) {
    let mut connection = start(daemon, name, "python", &json!({"code": cell}));
    let (mut asked, mut written) = (false, String::new());
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" || event.name == "stderr" {
            written.push_str(data(event)["data"].as_str().unwrap());
        }
        if event.name == "stdout" && !std::mem::replace(&mut asked, true) {
            ask(daemon, name, "python", "interrupt", None);
        }
    });
    (written, data(events.last().unwrap()))
}

/// The cell ends by the interrupt, and what earlier ones knew is known.
#[track_caller]
fn keeps_state(daemon: &Daemon, name: &str, cell: &str) -> (String, Value) {
    let (written, end) = interrupted(daemon, name, cell);
    assert_eq!(
        (&end["error"]["name"], &end["interrupted"], &end["state_lost"]),
        (&json!("KeyboardInterrupt"), &json!(true), &json!(false)),
        "{cell}: {written}: {end}"
    );
    assert_eq!(text(&code(daemon, name, "python", "x")), Some("41"), "{cell}");
    (written, end)
}

/// The lines of the traceback that name a place.
fn places(end: &Value) -> Vec<String> {
    let lines = end["error"]["traceback"].as_array().unwrap().iter().filter_map(Value::as_str);
    lines.filter(|line| line.trim_start().starts_with("File ")).map(str::to_owned).collect()
}

#[test]
fn what_is_cleaned_up_for_long_is_interrupted_again() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "python", "import time, os; from concurrent.futures import *; x = 41");
    for cell in [
        "try:\n  print('on'); time.sleep(1000)\nfinally:\n  time.sleep(1000)",
        "try:\n  print('on'); time.sleep(1000)\nfinally:\n  os.system('sleep 1000')",
        "with ThreadPoolExecutor(2) as pool:\n  print('on'); list(pool.map(time.sleep, [3] * 4))",
        "with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:\n  print('on'); [one.submit(time.sleep, 5) for one in (a, b)]; time.sleep(1000)",
        "with ProcessPoolExecutor(2) as pool:\n  begun = pool.map(time.sleep, [1000] * 4); print('on'); list(begun)",
    ] {
        keeps_state(&daemon, &name, cell);
    }
    // What ends by itself is left to end.
    let cell = "try:\n  print('on'); time.sleep(1000)\nfinally:\n  time.sleep(0.6); saved = True";
    keeps_state(&daemon, &name, cell);
    assert_eq!(text(&code(&daemon, &name, "python", "saved")), Some("True"));
    let body = json!({"code": "try:\n  time.sleep(1000)\nfinally:\n  time.sleep(1000)", "timeout_ms": 200});
    let result = super::code_with(&daemon, &name, "python", &body);
    assert_eq!(
        (&result["error"]["name"], &result["state_lost"]),
        (&json!("TimeoutError"), &json!(false)),
        "{result}"
    );
}

#[test]
fn whoever_asks_twice_does_not_wait_for_what_is_cleaned_up() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "python", "import time; x = 41");
    // Says so once more, and is interrupted once more, as soon as it has heard.
    let cell = "try:\n  print('on'); time.sleep(1000)\nfinally:\n  began = time.monotonic()\n  try: print('late'); time.sleep(1000)\n  finally: took = time.monotonic() - began";
    let mut connection = start(&daemon, &name, "python", &json!({"code": cell}));
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            ask(&daemon, &name, "python", "interrupt", None);
        }
    });
    assert_eq!(data(events.last().unwrap())["state_lost"], false, "{events:?}");
    let result = code(&daemon, &name, "python", "took");
    let took: f64 = text(&result).unwrap().parse().unwrap();
    assert!(took < 0.9, "{took} s");
}

/// Cells that say when they are on, and how many places their tracebacks name at most, all of them in the cell.
#[track_caller]
fn name_no_others(daemon: &Daemon, name: &str, cells: &[(&str, usize)]) {
    for (cell, frames) in cells {
        let (written, end) = keeps_state(daemon, name, cell);
        let places = places(&end);
        assert!(places.iter().all(|place| place.contains("<cell ")), "{cell}: {places:?}");
        // It may come before the code is where it is to be, or between two statements.
        assert!(places.len() <= *frames, "{cell}: {places:?}");
        for word in ["stockade", "Exception ignored", "IPython/", "went on"] {
            assert!(!written.contains(word), "{cell}: {word}: {written}");
        }
    }
}

const ANYWHERE: [(&str, usize); 4] = [
    ("while True: print('on')", 1),
    ("class D:\n  def __del__(self):\n    for i in range(10**6): pass\nprint('on')\nwhile True: D()", 1),
    ("import os\nprint('on'); os.system('sleep 1000'); print('went on')", 1),
    ("def f(): os.system('sleep 1000; exit 1')\nprint('on')\nf()\nprint('went on')", 2),
];

#[test]
fn an_interrupt_ends_the_cell_wherever_it_comes() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "python", "x = 41");
    name_no_others(&daemon, &name, &ANYWHERE);
    // The status is that of the C library's.
    let cell = "import os\n[os.system('exit 3'), os.system('kill -9 $$'), os.system(b'true'), os.WEXITSTATUS(os.system('exit 9'))]";
    assert_eq!(text(&code(&daemon, &name, "python", cell)), Some("[768, 9, 0, 9]"));
    let Some(name) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    code(&daemon, &name, "python", "x = 41");
    name_no_others(&daemon, &name, &ANYWHERE);
    for cell in [
        "!echo on; sleep 1000",
        "%%bash\necho on; sleep 1000",
        "%%bash --no-raise-error\necho on; trap '' INT; sleep 1000",
        "print('on')\nlines = !sleep 1000\nprint('went on')",
        "print('on')\nlines = %sx sleep 1000",
    ] {
        let (written, _) = keeps_state(&daemon, &name, cell);
        assert!(!written.contains("went on"), "{cell}: {written}");
    }
    // What is no interrupt fails as before, and what a shell is given is looked for where it is written.
    let result = code(&daemon, &name, "python", "%%bash\nexit 3");
    assert_eq!(result["error"]["name"], "CalledProcessError", "{result}");
    let cell = "y = 4\ndef f():\n  z = 5\n  found = !echo {z} $y\n  return found\nf()";
    assert_eq!(text(&code(&daemon, &name, "python", cell)), Some("['5 4']"));
}

#[test]
fn an_interrupt_is_not_for_what_the_next_run_starts() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (language, waits, next) in [
        (
            "javascript",
            "const cp = require('child_process'); await new Promise(r => cp.spawn('sleep', ['30']).on('exit', r))",
            "cp.spawnSync('sleep', ['0.03']).signal",
        ),
        (
            "python",
            "import asyncio, subprocess\nproc = await asyncio.create_subprocess_shell('sleep 30')\nawait proc.wait()",
            "subprocess.run(['sleep', '.03']).returncode or None",
        ),
    ] {
        for _ in 0..30 {
            let result =
                super::code_with(&daemon, &name, language, &json!({"code": waits, "timeout_ms": 50}));
            assert_eq!(result["timed_out"], true, "{language}: {result}");
            let result = code(&daemon, &name, language, next);
            let died = text(&result).is_some_and(|text| text != "null");
            assert!(!died && result["error"] == Value::Null, "{language}: {result}");
        }
    }
}

#[test]
fn an_interrupt_of_what_waits_names_its_line() {
    let daemon = Daemon::start();
    let hosts = daemon.sandbox();
    for name in std::iter::once(hosts).chain(of_image(&daemon, "python")) {
        code(&daemon, &name, "python", "import asyncio; x = 41");
        for (cell, line) in [
            ("1\nprint('on')\nawait asyncio.sleep(1000)", 3),
            ("print('on')\nawait asyncio.gather(asyncio.sleep(1000), asyncio.sleep(999))", 2),
            ("async def f():\n  print('on')\n  await asyncio.sleep(1000)\nawait f()", 3),
            ("task = asyncio.create_task(asyncio.sleep(1000))\nprint('on')\n\nawait task", 4),
        ] {
            let (_, end) = keeps_state(&daemon, &name, cell);
            assert_eq!(end["error"]["line"], line, "{cell}: {end}");
            let wanted = format!("line {line}, in ");
            assert!(places(&end).iter().any(|place| place.contains(&wanted)), "{cell}: {end}");
        }
    }
}

#[test]
fn what_the_code_does_itself_on_an_interrupt_is_done_once() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "python", "import asyncio, signal, time; x = 41");
    for (cell, said) in [
        ("before = signal.signal(signal.SIGINT, lambda *a: print('mine'))\ntime.sleep(0.7)", "mine\n"),
        ("signal.getsignal(signal.SIGINT)(2, None); time.sleep(0.7)", "mine\nmine\n"),
        (
            "signal.signal(signal.SIGINT, before)\nloop = asyncio.get_running_loop()\n\
             loop.add_signal_handler(signal.SIGINT, lambda: print('loop'))\nawait asyncio.sleep(0.7)\n\
             loop.remove_signal_handler(signal.SIGINT);",
            "loop\n",
        ),
    ] {
        let result = super::code_with(&daemon, &name, "python", &json!({"code": cell, "timeout_ms": 200}));
        assert_eq!((&result["stdout"], &result["state_lost"]), (&json!(said), &json!(false)), "{result}");
    }
    assert_eq!(text(&code(&daemon, &name, "python", "x")), Some("41"));
}

#[test]
fn an_interrupt_of_javascript_names_its_line() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "javascript", "function spin() {\n  for (;;);\n}");
    for (language, cell, line, frames) in [
        ("javascript", "1\n\nspin()", 2, json!(["    at spin (cell-1.js:2:3)", "    at cell-2.js:3:1"])),
        ("javascript", "try {\n  for (;;);\n} catch {}", 2, Value::Null),
        ("javascript", "await 1\nwhile (true);", 2, Value::Null),
        (
            "javascript",
            "setTimeout(() => {\n  while (true);\n}, 1)\nawait new Promise(() => {})",
            2,
            Value::Null,
        ),
        ("javascript", "1;\n/(a+)+b/.test('a'.repeat(40))", 2, Value::Null),
        ("javascript", "1\nfor (;;) JSON.stringify({a: 1})", 2, Value::Null),
        ("javascript", "Error.prepareStackTrace = () => { for (;;); }\nfor (;;);", 2, Value::Null),
        ("javascript", "delete Error.prepareStackTrace\n\nfor (;;);", 3, Value::Null),
        ("typescript", "interface P {\n  a: number\n}\nfor (;;);", 4, json!(["    at cell-1.ts:4:1"])),
    ] {
        let body = json!({"code": cell, "timeout_ms": 150});
        let result = super::code_with(&daemon, &name, language, &body);
        let error = &result["error"];
        assert_eq!(
            (&error["name"], &error["line"]),
            (&json!("TimeoutError"), &json!(line)),
            "{cell}: {result}"
        );
        assert_eq!(result["state_lost"], false, "{cell}: {result}");
        let lines = error["traceback"].as_array().unwrap();
        assert!(lines.iter().all(|line| !line.as_str().unwrap().contains("stdin")), "{cell}: {error}");
        if frames != Value::Null {
            assert_eq!(json!(lines[1..]), frames, "{cell}: {error}");
        }
    }
    // What waits is nowhere.
    let body = json!({"code": "await new Promise(() => {})", "timeout_ms": 100});
    assert_eq!(super::code_with(&daemon, &name, "javascript", &body)["error"]["line"], Value::Null);
}

#[test]
fn what_a_program_has_ended_with_outlives_an_interrupt() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // It ends as soon as it has interrupted, which it does when it is waited for.
    let program = "import subprocess\ncodes = set()\nfor _ in range(40):\n  \
        p = subprocess.Popen(['sh', '-c', 'sleep 0.02; kill -INT $PPID; exit 5'])\n  \
        try: p.wait()\n  except KeyboardInterrupt: pass\n  codes.add(p.wait())\ncodes";
    let fork = "import multiprocessing, os, signal, time\n\
        def child():\n  time.sleep(0.02); os.kill(os.getppid(), signal.SIGINT); os._exit(6)\n\
        codes = set()\nfor _ in range(40):\n  \
        p = multiprocessing.get_context('fork').Process(target=child); p.start()\n  \
        try: p.join()\n  except KeyboardInterrupt: pass\n  p.join(); codes.add(p.exitcode)\ncodes";
    for (cell, wanted) in [(program, "{5}"), (fork, "{6}")] {
        let result = code(&daemon, &name, "python", cell);
        assert_eq!(text(&result), Some(wanted), "{result}");
    }
}
