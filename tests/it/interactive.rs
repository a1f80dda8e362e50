//! `stockade shell` as a person sees it: driven by keys in tmux, read off its screen.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, PATIENCE, binary, host};

/// A tmux server of our own, with one window.
struct Screen {
    socket: String,
}

impl Screen {
    fn open(daemon: &Daemon) -> Self {
        let socket = daemon.directory().join("tmux").display().to_string();
        let screen = Self { socket };
        let path = format!("STOCKADE_SOCKET={}", daemon.socket().display());
        screen.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "90",
            "-y",
            "28",
            "-e",
            &path,
            "PS1='host$ ' exec bash --norc --noprofile",
        ]);
        screen.until("host$");
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn line(&self, text: &str) {
        self.keys(&["-l", text]);
        self.keys(&["Enter"]);
    }

    fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn until(&self, text: &str) {
        let start = Instant::now();
        while !self.shown().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} on the screen:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// What was seen is kept, and the person is told where.
#[track_caller]
fn assert_recorded(daemon: &Daemon, name: &str, screen: &Screen) {
    let kept = daemon.get(&format!("/v1/sandboxes/{name}/recordings"))["recordings"].clone();
    let id = kept[0]["id"].as_str().unwrap();
    screen.until(&format!("recording get {name} {id}"));
    let answer = daemon.request("GET", &format!("/v1/sandboxes/{name}/recordings/{id}"), None);
    assert!(String::from_utf8_lossy(&answer.body).contains("in> "), "{kept}");
}

#[test]
fn a_person_has_a_terminal_in_a_sandbox_and_gets_the_own_one_back() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let screen = Screen::open(&daemon);
    let shell = format!("{} shell {name}", binary().display());
    screen.line(&format!("stty -g > {0}/before; clear; {shell} --env 'PS1=in> ' -- bash --norc; echo code $?; stty -g > {0}/after", daemon.directory().display()));
    screen.until("in>");
    screen.line("stty size");
    screen.until("28 90");
    // Ctrl-C is the program's inside, and job control works.
    screen.line("sleep 1000");
    std::thread::sleep(Duration::from_millis(500));
    screen.keys(&["C-c"]);
    screen.line("echo rc=$?");
    screen.until("rc=130");
    screen.line("sleep 1000");
    std::thread::sleep(Duration::from_millis(500));
    screen.keys(&["C-z"]);
    screen.until("Stopped");
    screen.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    std::thread::sleep(Duration::from_millis(300));
    screen.line("clear; stty size");
    screen.until("30 100");
    // Programs that paint the whole screen.
    screen.line("vim -u NONE /tmp/note");
    screen.until("~");
    screen.keys(&["-l", "ihello from vim"]);
    screen.keys(&["Escape"]);
    screen.line(":wq");
    screen.until("in>");
    screen.line("clear; cat /tmp/note");
    screen.until("hello from vim");
    screen.line("top -d 1");
    screen.until("COMMAND");
    // While it begins it throws away what was typed.
    host::wait_for("top to end", || {
        screen.keys(&["q"]);
        std::thread::sleep(Duration::from_millis(200));
        screen.shown().contains("in>")
    });
    screen.keys(&["C-u"]);
    screen.line("clear; kill -KILL %1; disown -a; exit 7");
    screen.until("code 7");
    let modes = |name: &str| std::fs::read_to_string(daemon.directory().join(name)).unwrap();
    let start = Instant::now();
    while !daemon.directory().join("after").exists() || modes("after").is_empty() {
        assert!(start.elapsed() < PATIENCE, "the shell is not back");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(modes("before"), modes("after"));
    // Killed, it restores the terminal too, and the sandbox's terminal is closed.
    screen.line(&format!(
        "clear; {shell} --record --env 'PS1=in> ' -- bash --norc; echo code $?; stty -g > {}/killed",
        daemon.directory().display()
    ));
    // What was typed has the same words in it.
    host::wait_for("the prompt", || screen.shown().lines().any(|line| line.trim_end() == "in>"));
    let wanted = format!("{}\0shell\0{name}", binary().display());
    let runs = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(wanted.as_bytes()))
    };
    let pid = host::pids().into_iter().find(runs).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    screen.until("code 143");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(modes("before"), modes("killed"));
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}/terminals"))["terminals"], serde_json::json!([]));
    assert_recorded(&daemon, &name, &screen);
}

#[test]
fn a_terminal_is_left_and_found_again() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let screen = Screen::open(&daemon);
    let stockade = binary().display().to_string();
    screen.line(&format!(
        "clear; {stockade} shell {name} --name t --env 'PS1=in> ' -- bash --norc; echo code $?"
    ));
    host::wait_for("the prompt", || screen.shown().lines().any(|line| line.trim_end() == "in>"));
    screen.line("mark=$((40+2))");
    // A Ctrl-P alone arrives: the line before comes again.
    screen.keys(&["C-p"]);
    screen.keys(&["-l", "1"]);
    screen.until("mark=$((40+2))1");
    screen.keys(&["C-u"]);
    screen.keys(&["C-p"]);
    std::thread::sleep(Duration::from_millis(200));
    screen.keys(&["C-q"]);
    screen.until("code 0");
    assert!(screen.shown().contains(&format!("stockade terminal attach {name} t")), "{}", screen.shown());
    screen.line(&format!("clear; {stockade} terminal attach {name} t --detach-keys '~,.'; echo again $?"));
    host::wait_for("the prompt", || screen.shown().lines().any(|line| line.trim_end().ends_with("in>")));
    screen.line("echo found $mark");
    screen.until("found 42");
    screen.keys(&["-l", "~."]);
    screen.until("again 0");
    let there = daemon.get(&format!("/v1/sandboxes/{name}/terminals"))["terminals"].clone();
    assert_eq!((&there[0]["id"], &there[0]["running"]), (&serde_json::json!("t"), &serde_json::json!(true)));
}
