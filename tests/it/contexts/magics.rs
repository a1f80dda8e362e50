//! Magics of IPython's that show errors and cells, by what ours shows of these.

use serde_json::{Value, json};

use super::data::of_image;
use super::{code, text};
use crate::harness::{Daemon, skip};

/// The traceback of a cell that fails.
#[track_caller]
fn traceback(daemon: &Daemon, name: &str, cell: &str) -> String {
    let result = code(daemon, name, "python", cell);
    let lines = result["error"]["traceback"].as_array().unwrap();
    lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn errors_and_cells_are_shown_as_magics_ask() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    let run = |cell: &str| code(&daemon, &name, "python", cell);
    run("def f(a):\n  return 1 / a");
    run("%xmode Minimal");
    assert_eq!(traceback(&daemon, &name, "f(0)"), "ZeroDivisionError: division by zero");
    run("%xmode Verbose");
    let shown = traceback(&daemon, &name, "b = 0\nf(b)");
    assert!(shown.contains("a = 0") && shown.contains("b = 0") && !shown.contains('\u{1b}'), "{shown}");
    // None of what is between the cell and what fails is the user's.
    for (cell, word) in [
        ("input()", "nobody answers"),
        ("import asyncio\nasync def g():\n  await asyncio.sleep(0)\n  f(0)\nawait g()", "in g()"),
        ("try:\n  input()\nexcept Exception as error:\n  raise ValueError(2) from error", "direct cause"),
        ("try:\n  f(0)\nexcept Exception:\n  input()", "During handling"),
        ("%run /tmp/none.py", "not found"),
    ] {
        let shown = traceback(&daemon, &name, cell);
        assert!(shown.contains(word) && !shown.contains("stockade"), "{cell}: {shown}");
        assert!(!shown.contains("site-packages") && !shown.contains("/IPython/"), "{cell}: {shown}");
    }
    run("%xmode Plain");
    assert!(traceback(&daemon, &name, "f(0)").starts_with("Traceback (most recent call last):"));

    daemon.put(&name, "/tmp/fails.py", b"def g():\n    return 1 / 0\n\ng()\n");
    let result = run("%run /tmp/fails.py");
    let said = result["stderr"].as_str().unwrap();
    for word in ["/tmp/fails.py\", line 4, in <module>", "line 2, in g", "ZeroDivisionError"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("IPython") && !said.contains("stockade"), "{said}");
    assert_eq!((&result["error"], text(&run("g.__name__"))), (&Value::Null, Some("'g'")));

    // What is said about a display is a dictionary, or nothing.
    let result =
        run("display(1, metadata=5); display({'text/plain': 'x'}, raw=True, metadata='abc', transient=[1])");
    assert_eq!((&result["error"], &result["results"][1]["metadata"]), (&Value::Null, &json!({})), "{result}");

    run("%reset -f");
    run("sum([1])");
    assert_eq!(run("%history -l 1")["stdout"], json!("sum([1])\n"));
    let found = run("%history -g sum")["stdout"].as_str().unwrap().to_owned();
    assert!(found.lines().any(|line| line.ends_with(": sum([1])")), "{found}");
}
