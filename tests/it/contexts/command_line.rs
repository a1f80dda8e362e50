//! What `run-code` makes of code that ends itself.

use super::{code, text};
use crate::harness::{Daemon, skip};

/// What a command line prints, and its exit code.
fn cli(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = daemon.cli(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
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
