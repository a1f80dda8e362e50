//! What of contexts is there after their daemon has ended, and after their sandbox has rested.

use serde_json::{Value, json};

use super::data::of_image;
use super::{code, create, text};
use crate::harness::{Daemon, assert_error, host, skip};

#[test]
fn contexts_are_there_after_a_crash_and_say_that_their_state_is_lost() {
    let mut daemon = Daemon::start();
    let name = daemon.sandbox();
    create(&daemon, &name, &json!({"id": "mine", "cwd": "/usr", "env": {"A": "1"}, "timeout_ms": 60_000}));
    create(&daemon, &name, &json!({"id": "shell", "language": "bash"}));
    create(&daemon, &name, &json!({"id": "gone"}));
    code(&daemon, &name, "mine", "x = 41");
    code(&daemon, &name, "shell", "X=41");
    code(&daemon, &name, "python", "x = 41");
    assert_eq!(daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/gone"), None).status, 204);
    let list = |daemon: &Daemon| {
        let list = daemon.get(&format!("/v1/sandboxes/{name}/contexts"));
        let all = list["contexts"].as_array().unwrap().clone();
        all.iter()
            .map(|one| (one["id"].clone(), one["created_at"].clone(), one["env"].clone()))
            .collect::<Vec<_>>()
    };
    let before = list(&daemon);
    assert_eq!(before.len(), 3, "{before:?}");
    // A crash of serve alone, which the first process starts anew.
    let serve = daemon.serve_pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(serve), nix::sys::signal::Signal::SIGKILL).unwrap();
    host::wait_for("another serve", || daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve));
    daemon.wait_until_healthy();
    assert_eq!(list(&daemon), before);
    let view = daemon.get(&format!("/v1/sandboxes/{name}/contexts/mine"));
    assert_eq!(
        (&view["pid"], &view["execution_count"], &view["timeout_ms"]),
        (&Value::Null, &json!(0), &json!(60_000)),
        "{view}"
    );
    let result = code(&daemon, &name, "mine", "import os; [os.getcwd(), os.environ['A'], 'x' in globals()]");
    assert_eq!(
        (text(&result), &result["restarted"]),
        (Some("['/usr', '1', False]"), &json!(true)),
        "{result}"
    );
    assert_eq!(code(&daemon, &name, "mine", "1")["restarted"], false);
    for context in ["shell", "python"] {
        let result =
            code(&daemon, &name, context, if context == "shell" { "echo $X." } else { "'x' in globals()" });
        assert_eq!(result["restarted"], true, "{result}");
        assert!(result["stdout"] == ".\n" || text(&result) == Some("False"), "{result}");
    }
    let again =
        daemon.request("POST", &format!("/v1/sandboxes/{name}/contexts"), Some(&json!({"id": "mine"})));
    assert_error(&again, 409, "CONTEXT_EXISTS");
    // And so after a rest.
    assert_eq!(daemon.request("POST", &format!("/v1/sandboxes/{name}/stop"), None).status, 200);
    assert_eq!(list(&daemon), before);
    let result = code(&daemon, &name, "mine", "1+1");
    assert_eq!((text(&result), &result["restarted"]), (Some("2"), &json!(true)), "{result}");
    assert_eq!(daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/shell"), None).status, 204);
    assert_eq!(list(&daemon).len(), 2);
}

#[test]
fn a_context_of_a_user_without_a_home_leaves_nothing_behind() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    // Its home is not there.
    let context = create(&daemon, &name, &json!({"user": "nobody"}));
    for cell in ["import matplotlib", "import matplotlib.pyplot as plt; plt.plot([1, 2]);", "%cd /tmp", "1+1"]
    {
        let result = code(&daemon, &name, &context, cell);
        assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{cell}: {result}");
    }
    let path = format!("/v1/sandboxes/{name}/contexts/{context}");
    assert_eq!(daemon.request("DELETE", &path, None).status, 204);
    let left = code(&daemon, &name, "bash", "ls -A /tmp");
    assert_eq!(left["stdout"], json!(""), "{left}");
}

/// Cells are numbered from 1 in each interpreter, those with an error too.
#[test]
fn numbers_begin_anew_with_the_interpreter() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (language, wrong, end) in [
        ("python", "1 +", "import os; os._exit(3)"),
        ("javascript", "let = ;", "process.kill(process.pid, 'SIGKILL'); while (true);"),
        ("typescript", "const x: = 1", "process.kill(process.pid, 'SIGKILL'); while (true);"),
        ("bash", "if", "exit 3"),
    ] {
        let path = format!("/v1/sandboxes/{name}/contexts/{language}");
        let run = |cell: &str| code(&daemon, &name, language, cell)["execution_count"].clone();
        assert_eq!([run(":"), run(wrong)], [json!(1), json!(2)], "{language}");
        let last = code(&daemon, &name, language, end);
        assert_eq!((&last["execution_count"], &last["state_lost"]), (&Value::Null, &json!(true)), "{last}");
        host::wait_for("no number", || daemon.get(&path)["execution_count"] == 0);
        assert_eq!([run(":"), run(":")], [json!(1), json!(2)], "{language}: after its end");
        let restarted = daemon.request("POST", &format!("{path}/restart"), None).json();
        assert_eq!(restarted["execution_count"], 0, "{restarted}");
        assert_eq!((&daemon.get(&path)["execution_count"], run(":")), (&json!(0), json!(1)), "{language}");
    }
    let error = code(&daemon, &name, "typescript", "1\nconst x: = 1")["error"].clone();
    let place = error["traceback"][0].as_str().unwrap();
    assert!(place.starts_with("cell-2.ts:2:"), "{error}");
}
