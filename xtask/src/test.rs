//! `cargo xtask test`: every test of the workspace, with the set-up that they need.
//!
//! What the tests skip is listed at the end, then the runner's own last line. With nextest the tests run side by
//! side, each in a process of its own (`.config/nextest.toml`); without it the end-to-end tests run one by one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{clients, images, process};

/// Programs that tests use, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 34] = [
    ("age", "age"),
    ("apt-get", "apt"),
    ("bwrap", "bubblewrap"),
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("ceph", "ceph-common"),
    ("ceph-mon", "ceph-mon"),
    ("ceph-osd", "ceph-osd"),
    ("chromium-headless-shell", "chromium-headless-shell"),
    ("curl", "curl"),
    ("docker-registry", "docker-registry"),
    ("fio", "fio"),
    ("gcc", "gcc"),
    ("go", "golang-go"),
    ("htpasswd", "apache2-utils"),
    ("ip", "iproute2"),
    ("jq", "jq"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("newuidmap", "uidmap"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("pip3", "python3-pip"),
    ("python3", "python3"),
    ("radosgw", "radosgw"),
    ("rsync", "rsync"),
    ("setpriv", "util-linux"),
    ("skopeo", "skopeo"),
    ("tmux", "tmux"),
    ("top", "procps"),
    ("umoci", "umoci"),
    ("vim", "vim"),
    // Comes with the module that it is made of.
    ("wscat", "node-ws"),
];

/// Runs the tests; arguments go to the runner (for example a filter).
///
/// # Errors
/// When the set-up or a test fails.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    process::need(&PROGRAMS)?;
    // Fetched here, so that no test waits for the network. Without network the test of that image is skipped.
    let fixture = process::root().join("tests/fixtures/third-party/Cargo.toml");
    let target = ["--target", "x86_64-unknown-linux-gnu"];
    let fetched = process::run(
        process::cargo().args(["fetch", "--quiet", "--locked", "--manifest-path"]).arg(fixture).args(target),
    );
    if let Err(error) = fetched {
        eprintln!("the third-party image will be skipped: {error:#}");
    }
    build_beside_set_up()?;
    let skips = process::target().join("skipped-tests");
    match fs::remove_file(&skips) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::create_dir_all(process::target())?;
    // A rough-and-ready root shell may have a umask that hides the socket's directory from the other users.
    let mut summary = Vec::new();
    let mut passed = true;
    for mut command in runners(arguments) {
        let (success, last) = follow(command.env("STOCKADE_TEST_SKIPS", &skips))?;
        passed &= success;
        summary.extend(last);
    }
    let mut lines: Vec<String> =
        fs::read_to_string(&skips).unwrap_or_default().lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    if !lines.is_empty() {
        println!("\n{}", lines.join("\n"));
    }
    for line in &summary {
        println!("{line}");
    }
    if !passed {
        bail!("tests failed");
    }
    Ok(())
}

/// Builds the tests, and meanwhile what they need beside that, which mostly waits for the network.
fn build_beside_set_up() -> Result<()> {
    let (clients, images, built) = std::thread::scope(|scope| {
        let clients = scope.spawn(clients::prepare);
        // cargo does one thing at a time: this is the shorter one.
        let builder = images::builder();
        let images = scope.spawn(|| builder?.map_or(Ok(()), images::prepare));
        let runner: &[&str] = if has_nextest() { &["nextest", "run"] } else { &["test"] };
        let built = process::run(process::cargo().args(runner).args(["--no-run", "--workspace", "--locked"]));
        (clients.join(), images.join(), built)
    });
    for (what, done) in [("the clients", clients), ("code in our images", images)] {
        if let Err(error) = done.unwrap_or_else(|_| bail!("the set-up has panicked")) {
            eprintln!("the tests of {what} will be skipped: {error:#}");
        }
    }
    built
}

fn has_nextest() -> bool {
    let nextest = Command::new("cargo-nextest").arg("--version").stdout(Stdio::null()).status();
    nextest.is_ok_and(|status| status.success())
}

fn runners(arguments: &[String]) -> Vec<Command> {
    if has_nextest() {
        let mut command = process::cargo();
        command.args(["nextest", "run", "--workspace", "--locked"]).args(arguments);
        return vec![command];
    }
    let mut units = process::cargo();
    units.args(["test", "--workspace", "--locked", "--lib", "--bins"]).args(arguments);
    let mut end_to_end = process::cargo();
    end_to_end.args(["test", "--locked", "--test", "it"]).args(arguments).args(["--", "--test-threads=1"]);
    vec![units, end_to_end]
}

/// Runs a command, shows its output as it comes, and gives the lines of it that sum up.
fn follow(command: &mut Command) -> Result<(bool, Vec<String>)> {
    // One pipe for both streams, or their lines would be out of order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    // The command holds the writing end until it is given others.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut summary = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        println!("{line}");
        if line.trim_start().starts_with("Summary [") || line.starts_with("test result:") {
            summary.push(line);
        }
    }
    Ok((child.wait()?.success(), summary))
}
