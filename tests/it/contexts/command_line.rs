//! `stockade context`, and what `run-code` makes of code that ends itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{code, text};
use crate::harness::{Daemon, binary, host, skip};

/// What a command line prints, and its exit code.
fn cli(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = daemon.cli(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn contexts_are_made_and_deleted_from_the_command_line() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |words: &[&str]| cli(&daemon, &[&["context"], words].concat());
    let made = run(&[
        "create",
        &name,
        "--id",
        "analysis",
        "--cwd",
        "/tmp",
        "--env",
        "STAGE=test",
        "--timeout",
        "300ms",
    ]);
    assert_eq!(made, (Some(0), "analysis\n".to_owned(), String::new()));
    let (status, _, stderr) = run(&["create", &name, "--id", "analysis"]);
    assert!(status == Some(125) && stderr.contains("analysis"), "{stderr}");
    let (status, id, _) = run(&["create", &name, "--lang", "bash"]);
    assert_eq!((status, id.lines().count()), (Some(0), 1));

    let file = daemon.directory().join("cell");
    let cell = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let words = ["run-code", "--sandbox", &name, "--context", "analysis", file.to_str().unwrap()];
        cli(&daemon, &words)
    };
    let found = cell("import os; x = 41; [os.getcwd(), os.environ['STAGE']]");
    assert_eq!(found, (Some(0), "['/tmp', 'test']\n".to_owned(), String::new()));
    for (lang, context) in [("bash", "analysis"), ("bash", "python")] {
        let file = file.to_str().unwrap();
        let words = ["run-code", "--sandbox", &name, "--lang", lang, "--context", context, file];
        let (status, _, stderr) = cli(&daemon, &words);
        assert!(status == Some(125) && stderr.contains("python"), "{status:?}: {stderr}");
    }
    assert_eq!(cell("while True: pass").0, Some(1), "its time was up");
    assert_eq!(cell("x").1, "41\n");

    let (_, shown, _) = run(&["ls", &name]);
    let row = shown.lines().find(|line| line.starts_with("analysis ")).unwrap();
    assert!(row.contains("python") && row.contains("idle") && row.contains(" 3 "), "{shown}");
    assert!(shown.starts_with("ID ") && shown.contains(id.trim()), "{shown}");
    let (_, shown, _) = cli(&daemon, &["--json", "context", "list", &name]);
    let list: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(list["contexts"].as_array().unwrap().len(), 2, "{list}");
    let (_, shown, _) = run(&["get", &name, "analysis"]);
    let view: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&view["language"], &view["timeout_ms"]), (&"python".into(), &300.into()), "{view}");

    assert_eq!(run(&["interrupt", &name, "analysis"]).0, Some(0), "nothing runs, and nothing happens");
    assert_eq!(run(&["restart", &name, "analysis"]), (Some(0), "analysis\n".to_owned(), String::new()));
    assert!(cell("x").2.contains("NameError"));
    let (status, stdout, stderr) = run(&["delete", &name, "nothing", "analysis"]);
    assert_eq!((status, stdout.as_str()), (Some(125), "analysis\n"), "{stderr}");
    assert!(stderr.contains("nothing"), "{stderr}");
    assert_eq!(run(&["get", &name, "analysis"]).0, Some(125));
    let (status, _, stderr) = cli(&daemon, &["run-code", "--sandbox", &name, file.to_str().unwrap()]);
    assert!(status == Some(125) && stderr.contains("--lang"), "{stderr}");
}

#[test]
fn code_that_ends_itself_says_what_its_language_would() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let file = daemon.directory().join("cell");
    for (language, cell, status, said) in [
        ("python", "import sys; sys.exit(3)", 3, ""),
        ("python", "sys.exit('3')", 1, "3\n"),
        ("python", "sys.exit('in words')", 1, "in words\n"),
        ("python", "sys.exit((1, 2))", 1, "(1, 2)\n"),
        ("python", "sys.exit(True)", 1, ""),
        ("python", "sys.exit(259)", 3, ""),
        ("python", "sys.exit(None)", 0, ""),
        ("javascript", "process.exit(5)", 5, ""),
        ("javascript", "process.exitCode = 6; process.exit()", 6, ""),
    ] {
        std::fs::write(&file, cell).unwrap();
        let words = ["run-code", "--lang", language, "--sandbox", &name, file.to_str().unwrap()];
        assert_eq!(cli(&daemon, &words), (Some(status), String::new(), said.to_owned()), "{cell}");
    }
    let result = code(&daemon, &name, "python", "sys.exit('3')");
    assert_eq!((&result["exit_code"], &result["stderr"]), (&1.into(), &"3\n".into()), "{result}");
    let found = (&result["error"]["message"], &result["state_lost"]);
    assert_eq!(found, (&"3".into(), &false.into()), "{result}");
    assert_eq!(code(&daemon, &name, "python", "sys.exit(3)")["exit_code"], 3);
    assert_eq!(text(&code(&daemon, &name, "python", "6 * 7")), Some("42"));
    // Where IPython is, too.
    let Some(name) = super::data::of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    let result = code(&daemon, &name, "python", "import sys; sys.exit('3')");
    assert_eq!((&result["exit_code"], &result["stderr"]), (&1.into(), &"3\n".into()), "{result}");
}

/// As a program that is piped into `head`, and as `stockade exec`.
#[test]
fn code_ends_when_nobody_reads_what_it_prints() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let file = daemon.directory().join("cell");
    std::fs::write(&file, "import time\nwhile True: print('x'); time.sleep(0.01)").unwrap();
    for json in [false, true] {
        let mut command = Command::new(binary())
            .args(json.then_some("--json"))
            .args(["run-code", "--lang", "python", "--sandbox", &name, file.to_str().unwrap()])
            .env("STOCKADE_SOCKET", daemon.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(command.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line == "x\n" || json && line.contains("started"), "{line}");
        host::wait_for("the command to end", || command.try_wait().unwrap().is_some());
        assert_eq!(command.wait().unwrap().code(), Some(128 + 13));
        assert_eq!(text(&code(&daemon, &name, "python", "6 * 7")), Some("42"), "the run has ended as well");
    }
}
