//! bash as a context, and all languages from the command line.

use serde_json::{Value, json};

use super::data::of_image;
use super::{ask, code, code_with, create, data, events_until, start};
use crate::harness::{Daemon, assert_error, skip};

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
    let result = run("echo last; exit 3");
    assert_eq!(
        (&result["error"]["name"], &result["exit_code"]),
        (&json!("InterpreterDied"), &json!(3)),
        "{result}"
    );
    assert_eq!((&result["state_lost"], &result["stdout"]), (&json!(true), &json!("last\n")), "{result}");
    assert_eq!(run("echo $X.")["stdout"], ".\n");
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

#[test]
fn the_command_line_prints_text_and_saves_the_rest() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let file = daemon.directory().join("cell");
    let out = daemon.directory().join("out");
    let run = |lang: &str, text: &str, json: bool| {
        std::fs::write(&file, text).unwrap();
        let mut arguments = if json { vec!["--json"] } else { Vec::new() };
        arguments.extend(["run-code", "--lang", lang, "--sandbox", &name, "--output", out.to_str().unwrap()]);
        arguments.push(file.to_str().unwrap());
        let output = daemon.cli(&arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(
        run("python", "x = 41; print('hi'); x + 1", false),
        (Some(0), "hi\n42\n".to_owned(), String::new())
    );
    assert_eq!(run("typescript", "const a: number = 1; a", false).1, "1\n");
    assert_eq!(run("bash", "echo $0; exit 0", false).0, Some(1), "its shell has ended");
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
    // A sandbox of its own, which is gone afterwards.
    std::fs::write(&file, "6 * 7").unwrap();
    let output = daemon.cli(&["run-code", "--lang", "javascript", file.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{output:?}");
    assert_eq!(daemon.ids(), std::slice::from_ref(&name));
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
