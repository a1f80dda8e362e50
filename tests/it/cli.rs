//! The command line: what a person types.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::image::Image;
use crate::harness::{Daemon, binary, scratch, skip};

fn text(output: &Output) -> (Option<i32>, String, String) {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), lossy(&output.stdout), lossy(&output.stderr))
}

/// Runs without a daemon: no socket is there.
fn alone(arguments: &[&str]) -> Output {
    let directory = scratch();
    Command::new(binary())
        .args(arguments)
        .env("STOCKADE_SOCKET", directory.path().join("none.sock"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn run_works_without_a_daemon() {
    let directory = scratch();
    // No socket given and none at the default place: run starts a private daemon for itself.
    let output = Command::new(binary())
        .args(["run", "--", "python3", "-c", "print(6*7)"])
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, out, err) = text(&output);
    assert_eq!((code, &*out), (Some(0), "42\n"), "{err}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn run_gives_back_output_and_exit_code() {
    let daemon = Daemon::start();
    let check = |arguments: &[&str], code: i32, out: &str, err: &str| {
        let output = daemon.cli(arguments);
        assert_eq!(text(&output), (Some(code), out.to_owned(), err.to_owned()), "{arguments:?}");
    };
    check(&["run", "--", "sh", "-c", "printf out; printf err >&2; exit 3"], 3, "out", "err");
    check(&["run", "--", "sh", "-c", "kill -9 $$"], 137, "", "");
    check(
        &["run", "--env", "A=b c", "--cwd", "/usr", "--", "sh", "-c", "echo $A; pwd"],
        0,
        "b c\n/usr\n",
        "",
    );
    check(&["run", "--user", "1000", "--", "id", "-u"], 0, "1000\n", "");
    for (arguments, code) in [
        (&["run", "--", "no-such-program"][..], 127),
        (&["run", "--", "/etc/passwd"], 126),
        (&["run", "--image", "no-such-image", "--", "true"], 125),
        (&["exec", "no-such-sandbox", "--", "true"], 125),
    ] {
        let (found, out, err) = text(&daemon.cli(arguments));
        assert_eq!((found, &*out), (Some(code), ""), "{arguments:?}: {err}");
        assert!(!err.is_empty(), "{arguments:?} says nothing");
    }
    assert_eq!(daemon.ids(), [""; 0], "run leaves its sandbox behind");
}

#[test]
fn run_passes_standard_input_through() {
    let daemon = Daemon::start();
    let mut child = Command::new(binary())
        .args(["run", "--", "sha256sum"])
        .env("STOCKADE_SOCKET", daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let digest = crate::harness::image::sha256(&bytes);
    assert_eq!(text(&output).1, format!("{}  -\n", &digest["sha256:".len()..]));
}

#[test]
fn run_that_is_interrupted_leaves_no_sandbox() {
    let daemon = Daemon::start();
    let mut child = Command::new(binary())
        .args(["run", "--", "sleep", "609"])
        .env("STOCKADE_SOCKET", daemon.socket())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    crate::harness::host::wait_for("the sandbox to appear", || !daemon.ids().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(200));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    crate::harness::host::wait_for("the sandbox to go", || daemon.ids().is_empty());
}

#[test]
fn a_sandbox_is_created_entered_listed_and_removed() {
    let daemon = Daemon::start();
    let (code, out, err) = text(&daemon.cli(&["create", "--id", "box", "--label", "team=blue"]));
    assert_eq!((code, out.trim()), (Some(0), "box"), "{err}");
    let (code, out, err) = text(&daemon.cli(&["exec", "box", "--", "sh", "-c", "echo inside; exit 5"]));
    assert_eq!((code, &*out), (Some(5), "inside\n"), "{err}");
    let (code, out, _) = text(&daemon.cli(&["ps"]));
    assert!(code == Some(0) && out.contains("box"), "{out}");
    let (_, out, _) = text(&daemon.cli(&["--json", "inspect", "box"]));
    let inspected: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(inspected, daemon.get("/v1/sandboxes/box"));
    let (_, out, _) = text(&daemon.cli(&["--json", "ps"]));
    assert!(serde_json::from_str::<Value>(&out).is_ok(), "{out}");
    assert_eq!(text(&daemon.cli(&["rm", "box"])).0, Some(0));
    assert_eq!(daemon.ids(), [""; 0]);
    let (code, _, err) = text(&daemon.cli(&["rm", "box"]));
    assert!(code == Some(125) && err.contains("box"), "{code:?} {err}");
}

/// Runs with these bytes as input.
fn with_input(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .env("STOCKADE_SOCKET", daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_session_is_given_input_and_ends_as_its_line_did() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let output =
        with_input(&daemon, &["session", "run", &name, "--stdin", "--", "read word; cat"], b"one\ntwo\xff\n");
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), b"two\xff\n".as_slice()));
    assert_eq!(text(&daemon.cli(&["session", "run", &name, "--", "echo $word"])).1, "one\n");
    // Without it an input that never ends is not waited for.
    let mut child = Command::new(binary())
        .args(["session", "run", &name, "--", "cat; echo $word"])
        .env("STOCKADE_SOCKET", daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let open = child.stdin.take();
    assert_eq!(text(&child.wait_with_output().unwrap()).1, "one\n");
    drop(open);
    let (code, out, err) = text(&daemon.cli(&["session", "run", &name, "--", "echo last; exit 5"]));
    assert_eq!((code, &*out), (Some(5), "last\n"), "{err}");
    assert!(err.contains("the session's shell exited"), "{err}");
    assert_eq!(text(&daemon.cli(&["session", "run", &name, "--", "echo \"[$word]\""])).1, "[]\n");
}

#[test]
fn terminals_are_listed_shown_signalled_and_closed() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let opened = daemon.request(
        "POST",
        &format!("/v1/sandboxes/{name}/terminals"),
        Some(&json!({"id": "t", "argv": ["sleep", "600"]})),
    );
    assert_eq!(opened.status, 201, "{}", String::from_utf8_lossy(&opened.body));
    let (code, out, err) = text(&daemon.cli(&["terminal", "ls", &name]));
    assert!(
        code == Some(0) && out.contains("running") && out.contains("80x24") && out.contains("sleep 600"),
        "{out}{err}"
    );
    assert_eq!(text(&daemon.cli(&["terminal", "ls", &name, "-q"])).1, "t\n");
    let (_, out, _) = text(&daemon.cli(&["terminal", "inspect", &name, "t"]));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["id"], "t");
    assert_eq!(text(&daemon.cli(&["terminal", "signal", &name, "t", "TERM"])).0, Some(0));
    crate::harness::host::wait_for("the program to end", || {
        text(&daemon.cli(&["terminal", "ls", &name])).1.contains("exited 143")
    });
    let (code, _, err) = text(&daemon.cli(&["terminal", "attach", &name, "t"]));
    assert!(code == Some(125) && err.contains("needs a terminal"), "{err}");
    assert_eq!(
        text(&daemon.cli(&["terminal", "close", &name, "t"])),
        (Some(0), "t\n".to_owned(), String::new())
    );
    let (code, _, err) = text(&daemon.cli(&["terminal", "close", &name, "t"]));
    assert!(code == Some(125) && err.contains("stockade terminal ls"), "{err}");
}

#[test]
fn a_signal_leaves_no_draft_of_a_file() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let directory = scratch();
    let left = || std::fs::read_dir(directory.path()).unwrap().count();
    let from = format!("{name}:/workspace/large");
    let file = directory.path().join("file").display().to_string();
    daemon.shell(&name, "head -c 100M /dev/urandom > /workspace/noise");
    let (_, out, err) = text(&daemon.cli(&["snapshot", "create", &name, "--path", "/workspace"]));
    let snapshot = out.trim();
    assert!(!snapshot.is_empty(), "{err}");
    daemon.shell(&name, "truncate -s 20G /workspace/large");
    // Both take longer than it takes to be interrupted.
    for (arguments, signal) in [
        (&["snapshot", "export", snapshot, &file][..], nix::sys::signal::Signal::SIGTERM),
        (&["cp", &from, &file], nix::sys::signal::Signal::SIGINT),
    ] {
        let mut child = Command::new(binary())
            .args(arguments)
            .env("STOCKADE_SOCKET", daemon.socket())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        crate::harness::host::wait_for("the draft", || left() == 1);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal as i32), "{arguments:?}");
        assert_eq!(left(), 0, "{arguments:?}");
    }
}

#[test]
fn images_are_imported_and_listed() {
    let Some(image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
    let daemon = Daemon::start();
    let directory = scratch();
    let tar = directory.path().join("image.tar");
    std::fs::write(&tar, image.layout_tar("1")).unwrap();
    let (code, _, err) = text(&daemon.cli(&["import", &tar.display().to_string(), "--reference", "tools:1"]));
    assert_eq!(code, Some(0), "{err}");
    let (_, out, _) = text(&daemon.cli(&["images"]));
    assert!(out.contains("tools:1") && out.contains("host"), "{out}");
    let (_, out, _) = text(&daemon.cli(&["images", "-q"]));
    assert_eq!(out.lines().collect::<Vec<_>>(), ["host", "docker.io/library/tools:1"]);
    let refused = daemon.cli(&["import", &tar.display().to_string(), "--reference", "host"]);
    let (code, _, err) = text(&refused);
    assert!(code == Some(125) && err.contains("host:latest"), "{err}");
    let (code, out, err) = text(&daemon.cli(&["run", "--image", "tools:1", "--", "busybox", "echo", "hi"]));
    assert_eq!((code, &*out), (Some(0), "hi\n"), "{err}");
}

#[test]
fn an_archive_whose_only_name_is_a_tag_is_named_by_its_digest() {
    let Some(image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
    let daemon = Daemon::start();
    let directory = scratch();
    for (name, expected) in [("latest", "sha256:"), ("team/tool:1", "docker.io/team/tool:1")] {
        let tar = directory.path().join("image.tar");
        std::fs::write(&tar, image.layout_tar(name)).unwrap();
        let (code, out, err) = text(&daemon.cli(&["import", &tar.display().to_string()]));
        assert!(code == Some(0) && out.starts_with(expected), "{name}: {out}{err}");
    }
}

#[test]
fn run_without_a_command_runs_the_images_own() {
    let Some(mut image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
    let daemon = Daemon::start();
    daemon.import("bare:1", &image.layout_tar("1"));
    image.config["Entrypoint"] = json!(["/bin/busybox", "echo"]);
    image.config["Cmd"] = json!(["from", "the image"]);
    daemon.import("own:1", &image.layout_tar("1"));
    let (code, out, err) = text(&daemon.cli(&["run", "--image", "own:1"]));
    assert_eq!((code, &*out), (Some(0), "from the image\n"), "{err}");
    for image in ["bare:1", "host"] {
        let (code, _, err) = text(&daemon.cli(&["run", "--image", image]));
        assert!(code == Some(125) && err.contains("command"), "{image}: {code:?} {err}");
    }
    assert_eq!(daemon.ids(), [""; 0]);
}

#[test]
fn people_are_told_of_flags_and_commands_and_programs_of_fields() {
    let daemon = Daemon::start();
    for (line, word, not) in [
        (&["create", "--memory", "1k"][..], "--memory", "memory_bytes"),
        (&["create", "--cwd", "x"], "--cwd", "field"),
        (&["create", "--image", "nothing"], "stockade pull", "/v1/"),
        (&["create", "--io-read", "1"], "--io-read", "per_second"),
    ] {
        let (code, _, err) = text(&daemon.cli(line));
        assert!(code == Some(125) && err.contains(word) && !err.contains(not), "{line:?}: {err}");
    }
    let (_, _, err) = text(&daemon.cli(&["--json", "create", "--memory", "1k"]));
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!(error["context"]["field"], "resources.memory_bytes", "{error}");
}

#[test]
fn mistakes_are_json_for_programs_and_said_once() {
    for line in [&["--json", "runn"][..], &["ps", "--json", "--what"], &["rm", "--json"]] {
        let (code, out, err) = text(&alone(line));
        assert_eq!((code, &*out), (Some(125), ""), "{line:?}");
        let error: Value = serde_json::from_str(&err).unwrap_or_else(|_| panic!("{line:?}: {err}"));
        assert_eq!(error["code"], "INVALID_ARGUMENTS", "{error}");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("stockade")), "{error}");
    }
    let (code, _, err) = text(&alone(&["exec", "a", "--what", "--", "--json"]));
    assert!(code == Some(125) && serde_json::from_str::<Value>(&err).is_err(), "{err}");
    let directory = scratch();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "nothing = 1\n").unwrap();
    let (code, _, err) = text(&alone(&["serve", "--config", &config.display().to_string()]));
    assert_eq!(
        (code, err.matches("nothing").count(), err.matches("unknown field").count()),
        (Some(125), 2, 1),
        "{err}"
    );
}

#[test]
fn doctor_examines_the_directories_that_are_named() {
    let (_, out, _) = text(&alone(&["--json", "doctor", "--runtime-dir", "/proc/x", "--state-dir", "/tmp"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let runtime = findings.iter().find(|finding| finding["name"] == "runtime directory").unwrap();
    assert_eq!(runtime["status"], "degraded", "/proc is no place for it: {runtime}");
}

#[test]
fn doctor_says_what_is_there_and_what_is_missing() {
    let (code, out, err) = text(&alone(&["doctor"]));
    assert!(code.is_some_and(|code| code <= 1), "{code:?} {err}");
    for word in ["landlock", "seccomp", "cgroup", "overlay", "user"] {
        assert!(out.to_lowercase().contains(word), "{word} is missing in:\n{out}");
    }
    let (_, out, _) = text(&alone(&["--json", "doctor"]));
    assert!(serde_json::from_str::<Value>(&out).is_ok(), "{out}");
}

#[test]
fn help_teaches_and_mistakes_are_explained() {
    let (code, out, _) = text(&alone(&["--help"]));
    assert_eq!(code, Some(0));
    for verb in
        ["serve", "run", "create", "exec", "ps", "inspect", "rm", "images", "pull", "import", "doctor"]
    {
        assert!(out.contains(verb), "{verb} is missing in:\n{out}");
        let (code, text, _) = text(&alone(&[verb, "--help"]));
        assert!(code == Some(0) && text.len() > 100, "{verb} --help says: {text}");
    }
    let (code, _, err) = text(&alone(&["ps"]));
    assert!(code == Some(125) && err.contains("stockade serve"), "no word on how to start a daemon: {err}");
    let (code, _, err) = text(&alone(&["runn"]));
    assert!(matches!(code, Some(2 | 125)) && err.contains("run"), "{code:?} {err}");
}
