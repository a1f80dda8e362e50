//! `cargo xtask bench`: what Stockade costs, beside what the kernel asks for and what others take.
//!
//! One round measures every contestant once, in turn, so that what disturbs the host disturbs all of them alike; the
//! table shows medians. The floor is a resident C program (`bench/floor.c`) that makes the same namespaces and
//! overlay; whole programs are timed by a static one that uses vfork, so that our own size does not count. Stockade is
//! measured at the socket by one client over one connection. The table goes to stdout and to `BENCHMARKS.md`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::process::{self, cargo, output, run, target};

#[path = "../../../tests/it/harness/http.rs"]
#[expect(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod http;

mod code;
mod disk;
mod files;
mod gateway;
mod lasting;
mod memory;
mod mounts;
mod previews;
mod processes;
mod rest;
mod sdk;
mod snapshots;
mod unpack;

const PROGRAMS: [(&str, &str); 8] = [
    ("gcc", "gcc"),
    ("busybox", "busybox-static"),
    ("bwrap", "bubblewrap"),
    ("crun", "crun"),
    ("umoci", "umoci"),
    ("skopeo", "skopeo"),
    ("unshare", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Rounds of create → /bin/true → destroy, and of commands.
const ROUNDS: usize = 60;
const COMMANDS: usize = 1000;

/// Between two measurements: long enough for cleanup_net and RCU to finish what the last one left.
const PAUSE: Duration = Duration::from_millis(15);

/// A connection that was not used for so long is not used again: half of what the daemon bears.
const IDLE: Duration = Duration::from_secs(5);

/// Names another binary to measure than a fresh release build.
const BINARY: &str = "STOCKADE_BENCH_BINARY";

/// Limits of the second row; the floor and crun set the same.
const MEMORY_BYTES: u64 = 256 << 20;
const PIDS: u64 = 256;
const DISK_BYTES: u64 = 64 << 20;

/// Measures and writes the table. `--quick` takes a tenth of the rounds and leaves BENCHMARKS.md alone; words are names
/// of parts: create, commands, idle, files, processes, lasting, code, rest, snapshots, previews, sdk, gateway, unpack, mounts.
///
/// # Errors
/// When something cannot be built or a contestant fails.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|word| word == "--quick");
    let parts: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    process::need(&PROGRAMS)?;
    if std::env::var_os(BINARY).is_none() {
        eprintln!("building what is measured: minutes, the first time");
        run(cargo().args(["build", "--release", "--locked", "--quiet"]))?;
    }
    let floor = target().join("bench-floor");
    run(Command::new("gcc")
        .args(["-O2", "-static", "-o"])
        .arg(&floor)
        .arg(process::root().join("xtask/bench/floor.c")))?;
    let place = Place::new(floor)?;
    let mut report = Report::new()?;
    let shrink = if quick { 10 } else { 1 };
    if wanted("create") {
        create(&place, &mut report, ROUNDS / shrink)?;
    }
    if wanted("commands") {
        commands(&place, &mut report, COMMANDS / shrink)?;
    }
    if wanted("idle") {
        memory::idle(&place, &mut report, 200 / shrink)?;
    }
    if wanted("files") {
        files::files(&place, &mut report, if quick { 1 } else { 5 })?;
    }
    if wanted("processes") {
        processes::processes(&place, &mut report, Duration::from_secs(if quick { 3 } else { 10 }))?;
    }
    if wanted("lasting") {
        lasting::lasting(&place, &mut report, COMMANDS / shrink)?;
    }
    if wanted("code") {
        code::code(&place, &mut report, if quick { 3 } else { 20 }, code::RUNS / shrink)?;
    }
    if wanted("rest") {
        rest::rest(&place, &mut report, ROUNDS / shrink, 1000 / shrink)?;
    }
    if wanted("snapshots") {
        snapshots::snapshots(&place, &mut report, if quick { 1 } else { 3 }, (1 << 30) / shrink as u64)?;
    }
    if wanted("previews") {
        previews::previews(&place, &mut report, if quick { 1 } else { 5 })?;
    }
    if wanted("sdk") {
        sdk::sdk(&place, &mut report, if quick { 1 } else { 7 })?;
    }
    if wanted("gateway") {
        gateway::gateway(&place, &mut report, if quick { 1 } else { 7 }, 1000 / shrink)?;
    }
    if wanted("unpack") {
        // Each round writes a gigabyte three times.
        unpack::unpack(&place, &mut report, if quick { 1 } else { 3 })?;
    }
    if wanted("mounts") {
        mounts::mounts(&place, &mut report, if quick { 1 } else { 3 }, shrink)?;
    }
    if !quick && parts.is_empty() {
        fs::write(process::root().join("BENCHMARKS.md"), &report.text)?;
    }
    Ok(())
}

/// Directories and programs of one run; removed at its end.
struct Place {
    /// On a file system of its own.
    directory: PathBuf,
    floor: PathBuf,
    _disk: disk::Disk,
}

impl Place {
    fn new(floor: PathBuf) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("stockade-bench-{}", std::process::id()));
        let disk = disk::Disk::mount(&directory, 4)?;
        for name in ["bin", "proc", "dev", "sys", "tmp", "etc", "root", "workspace"] {
            fs::create_dir_all(directory.join("rootfs").join(name))?;
        }
        fs::create_dir_all(directory.join("state"))?;
        fs::copy("/bin/busybox", directory.join("rootfs/bin/busybox"))?;
        fs::hard_link(directory.join("rootfs/bin/busybox"), directory.join("rootfs/bin/true"))?;
        fs::hard_link(directory.join("rootfs/bin/busybox"), directory.join("rootfs/bin/sh"))?;
        fs::write(directory.join("rootfs/etc/passwd"), "root:x:0:0::/root:/bin/sh\n")?;
        Ok(Self { directory, floor, _disk: disk })
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// A daemon with the image `bench:1` made of the rootfs.
struct Daemon {
    child: Child,
    connection: http::Connection,
    /// When that was asked for last.
    used: Instant,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    fn start(place: &Place) -> Result<Self> {
        Self::start_on(&place.directory)
    }

    /// With its state under `disk`.
    fn start_on(disk: &Path) -> Result<Self> {
        Self::start_in(disk, None)
    }

    /// In this network namespace.
    fn start_in(disk: &Path, namespace: Option<&Path>) -> Result<Self> {
        Self::start_with(disk, namespace, &[])
    }

    /// And with further arguments.
    fn start_with(disk: &Path, namespace: Option<&Path>, arguments: &[&OsStr]) -> Result<Self> {
        let name = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
        let runtime = disk::on_tmpfs(&format!("stockade-bench-{name}"))?;
        let log = disk.join(format!("log-{name}"));
        let state = disk.join(format!("state-{name}"));
        let binary = std::env::var_os(BINARY)
            .map_or_else(|| target().join("x86_64-unknown-linux-gnu/release/stockade"), PathBuf::from);
        let mut command = match namespace {
            Some(path) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", path.display())).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let mut child = command
            .args(["serve", "--preview-listen", "127.0.0.1:0"])
            .args(arguments)
            .arg("--runtime-dir")
            .arg(&runtime)
            .arg("--state-dir")
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let socket = runtime.join("stockade.sock");
        let start = Instant::now();
        let connection = loop {
            if let Ok(mut connection) = http::Connection::open(&socket)
                && connection.request("GET", "/v1/healthz", &[], b"").is_ok()
            {
                break connection;
            }
            if start.elapsed() > Duration::from_secs(10) || child.try_wait()?.is_some() {
                let _ = child.kill();
                bail!("the daemon does not start:\n{}", fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Ok(Self { child, connection, used: Instant::now(), socket, log })
    }

    fn import(&mut self, place: &Place) -> Result<()> {
        let (layout, tar) = (place.path("layout"), place.path("layout.tar"));
        if !Path::new(&tar).exists() {
            let tag = format!("{layout}:1");
            let layer = place.path("layer.tar");
            run(Command::new("tar").args([
                "-C",
                &place.path("rootfs"),
                "--owner=0",
                "--group=0",
                "-cf",
                &layer,
                ".",
            ]))?;
            run(Command::new("umoci").args(["init", "--layout", &layout]))?;
            run(Command::new("umoci").args(["new", "--image", &tag]))?;
            run(Command::new("umoci").args(["raw", "add-layer", "--image", &tag, &layer]))?;
            run(Command::new("tar").args(["-C", &layout, "-cf", &tar, "."]))?;
        }
        self.call("POST", "/v1/images/import?reference=bench%3A1", &fs::read(tar)?, 200)?;
        Ok(())
    }

    /// The connection, or another one after something that took long: the daemon closes those that are idle.
    fn connection(&mut self) -> Result<&mut http::Connection> {
        if self.used.elapsed() > IDLE {
            self.connection = http::Connection::open(&self.socket)?;
        }
        self.used = Instant::now();
        Ok(&mut self.connection)
    }

    fn call(&mut self, method: &str, path: &str, body: &[u8], status: u16) -> Result<Vec<u8>> {
        let headers = [("Content-Type", "application/json")];
        let answer = self.connection()?.request(method, path, &headers, body)?;
        if answer.status != status {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{method} {path}: {} {}\n{log}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer.body)
    }

    /// The process of a role.
    fn role(&self, name: &str) -> Result<u32> {
        memory::descendants(self.child.id())
            .into_iter()
            .find(|pid| {
                fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(name.as_bytes()))
            })
            .with_context(|| format!("no process {name}"))
    }

    /// create → /bin/true → destroy.
    fn cycle(&mut self, number: usize, resources: &Value) -> Result<Duration> {
        let spec =
            json!({"id": format!("bench-{number}"), "image": "bench:1", "resources": resources}).to_string();
        let start = Instant::now();
        self.call("POST", "/v1/sandboxes", spec.as_bytes(), 201)?;
        let result = self.call(
            "POST",
            &format!("/v1/sandboxes/bench-{number}/commands"),
            br#"{"argv":["/bin/true"]}"#,
            200,
        )?;
        self.call("DELETE", &format!("/v1/sandboxes/bench-{number}"), b"", 204)?;
        let took = start.elapsed();
        let result: Value = serde_json::from_slice(&result)?;
        if result["exit_code"] != 0 {
            bail!("/bin/true gives {result}");
        }
        Ok(took)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGTERM by the shell's builtin: std has no other signal than SIGKILL.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let _ = self.child.wait();
        // The directory of the socket, which is not on the disk that goes with the measurement.
        let _ = self.socket.parent().map(fs::remove_dir_all);
    }
}

/// Programs of this measurement, ended with it.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A resident stopwatch: `floor.c` in one of its modes.
struct Stopwatch {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Stopwatch {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    fn once(&mut self) -> Result<Duration> {
        self.stdin.write_all(b"\n")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let nanoseconds = line.trim().parse().context("the stopwatch stopped; see its message above")?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of the table, and what is known about the host.
struct Report {
    text: String,
}

impl Report {
    fn new() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let version = |program: &str| {
            output(Command::new(program).arg("--version"))
                .map(|text| text.lines().next().unwrap_or_default().to_owned())
        };
        let (bwrap, crun) = (version("bwrap")?, version("crun")?);
        let (umoci, skopeo) = (version("umoci")?, version("skopeo")?);
        let text = format!(
            "# Benchmarks\n\n{}Written by `cargo xtask bench`: medians of interleaved rounds in one run, release build. How each number is\n\
             made is in `xtask/src/bench/`; the floor is `xtask/bench/floor.c`.\n\n\
             Host: Linux {}, {count} × {}. Rivals: {bwrap}, {crun}, {umoci}, {skopeo}.\n",
            disturbance()?,
            kernel.trim(),
            model.trim_start_matches([' ', '\t', ':']),
        );
        print!("{text}");
        Ok(Self { text })
    }

    fn title(&mut self, title: &str, columns: &str) {
        let rule = columns.split('|').map(|_| " --- ").collect::<Vec<_>>().join("|");
        self.say(&format!("\n## {title}\n\n| {columns} |\n|{rule}|\n"));
    }

    fn row(&mut self, cells: &[String]) {
        self.say(&format!("| {} |\n", cells.join(" | ")));
    }

    fn note(&mut self, text: &str) {
        self.say(&format!("\n{text}\n"));
    }

    /// At once: a part that fails does not take with it what the others have measured.
    fn say(&mut self, text: &str) {
        print!("{text}");
        self.text.push_str(text);
    }
}

/// A warning when other work takes the processors: then the numbers say little.
fn disturbance() -> Result<String> {
    let busy = || -> Result<(u64, u64)> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // The fourth and fifth are idle and waiting for a disk (proc(5)).
        let idle = ticks.get(3).unwrap_or(&0) + ticks.get(4).unwrap_or(&0);
        Ok((ticks.iter().sum::<u64>() - idle, ticks.iter().sum()))
    };
    let (before, start) = busy()?;
    std::thread::sleep(Duration::from_secs(2));
    let (after, end) = busy()?;
    let percent = (after - before) * 100 / (end - start).max(1);
    Ok(if percent > 10 {
        format!("**Disturbed: other work took {percent} % of the processors when this run began.**\n\n")
    } else {
        String::new()
    })
}

/// The value below which this part of the measurements lies.
fn quantile(samples: &[Duration], part: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let index = ((sorted.len() as f64) * part) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What is said of a target.
fn met(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// `ratio, target, met or missed`, as cells.
fn verdict(ratio: f64, target: f64) -> String {
    format!("{ratio:.2} (at most {target}) {}", met(ratio <= target))
}

/// Whether this host's controllers are on v2.
fn unified() -> bool {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|text| text.contains("memory"))
}

fn tmpfs(destination: &str, bytes: u64) -> Value {
    let size = format!("size={bytes}");
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", size]})
}

/// A bundle for crun, with or without limits.
fn bundle(place: &Place, limits: bool) -> Result<String> {
    let bundle = place.path(if limits { "bundle-limits" } else { "bundle" });
    fs::create_dir_all(&bundle)?;
    let kinds = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"];
    let mut mounts =
        vec![json!({"destination": "/proc", "type": "proc", "source": "proc"}), tmpfs("/dev", 64 << 10)];
    mounts.extend(limits.then(|| tmpfs("/tmp", DISK_BYTES)));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let resources = if limits {
        json!({"memory": {"limit": MEMORY_BYTES}, "pids": {"limit": PIDS}, "cpu": {"quota": 100_000, "period": 100_000}})
    } else {
        json!({})
    };
    let spec = json!({
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true},
        "root": {"path": place.path("rootfs"), "readonly": true},
        "mounts": mounts,
        "linux": {
            "namespaces": kinds.iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>(),
            "uidMappings": map, "gidMappings": map, "resources": resources,
        },
    });
    fs::write(format!("{bundle}/config.json"), spec.to_string())?;
    Ok(bundle)
}

/// crun in a mount namespace of its own: Debian's refuses a hybrid host unless the cgroup2 mount is out of sight. It gives
/// its streams to the container's root (fchown(2)): what it says is a file's, and not the terminal or /dev/null of whoever
/// measures.
fn crun(place: &Place, limits: bool) -> Result<Stopwatch> {
    let hide = if unified() { "true" } else { "umount /sys/fs/cgroup/unified" };
    let manager = if limits { "cgroupfs" } else { "disabled" };
    let line = format!(
        "{hide}; exec {} spawn /usr/bin/crun --root {} --cgroup-manager={manager} run --bundle {} bench-{{}} 2>> {}",
        place.floor.display(),
        place.path("crun"),
        bundle(place, limits)?,
        place.path("crun.log"),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", &line]);
    Stopwatch::start(command)
}

fn floor_create(place: &Place, limits: bool) -> Result<Stopwatch> {
    let mut command = Command::new(&place.floor);
    command.args(["create", &place.path("rootfs"), &place.path("state")]);
    if limits {
        command.arg(if unified() { "v2" } else { "v1" });
    }
    Stopwatch::start(command)
}

fn bwrap(place: &Place) -> Result<Stopwatch> {
    let mut command = Command::new(&place.floor);
    command.args(["spawn", "/usr/bin/bwrap", "--unshare-all", "--ro-bind", &place.path("rootfs"), "/"]);
    command.args(["--proc", "/proc", "--dev", "/dev", "/bin/true"]);
    Stopwatch::start(command)
}

fn create(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    report.title(
        "create → /bin/true → destroy",
        "limits | contestant | p50 ms | p90 ms | stockade ÷ it (target)",
    );
    let mut number = 0;
    for limits in [false, true] {
        let resources = if limits {
            json!({"memory_bytes": MEMORY_BYTES, "pids": PIDS, "cpus": 1.0, "disk_bytes": DISK_BYTES})
        } else {
            json!({"memory_bytes": 0, "pids": 0})
        };
        let mut rivals = vec![("floor", 2.0, floor_create(place, limits)?)];
        if !limits {
            rivals.push(("bwrap --unshare-all", 1.1, bwrap(place)?));
        }
        rivals.push(("crun run", 0.7, crun(place, limits)?));
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Duration>> = rivals.iter().map(|_| Vec::new()).collect();
        // The first rounds warm caches and are not counted.
        for round in 0..rounds + 3 {
            number += 1;
            let took = daemon.cycle(number, &resources)?;
            std::thread::sleep(PAUSE);
            let counted = round >= 3;
            ours.extend(counted.then_some(took));
            for ((_, _, rival), samples) in rivals.iter_mut().zip(&mut theirs) {
                let took = rival.once()?;
                std::thread::sleep(PAUSE);
                samples.extend(counted.then_some(took));
            }
        }
        let limits = if limits { "memory, pids, cpu, disk" } else { "none" };
        let cells = |name: &str, samples: &[Duration], verdict: String| {
            let (p50, p90) = (ms(quantile(samples, 0.5)), ms(quantile(samples, 0.9)));
            [limits.to_owned(), name.to_owned(), format!("{p50:.2}"), format!("{p90:.2}"), verdict]
        };
        report.row(&cells("**stockade**", &ours, String::new()));
        for ((name, most, _), samples) in rivals.iter().zip(&theirs) {
            let ratio = ms(quantile(&ours, 0.5)) / ms(quantile(samples, 0.5));
            report.row(&cells(name, samples, verdict(ratio, *most)));
        }
    }
    report.note(
        "Stockade is measured at its socket: three requests over one connection. bwrap and crun are whole programs, as\n\
         they are used; the floor is one resident process that makes the same namespaces, overlay and /proc, and in the\n\
         second half the same cgroups and a tmpfs of limited size under its overlay, with nothing else: no agent, no\n\
         seccomp, no Landlock, no readback, no second user namespace. crun has no limit for a root file system, so it\n\
         mounts a tmpfs of that size. All files lie on a fresh ext4.",
    );
    Ok(())
}

fn commands(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    daemon.call("POST", "/v1/sandboxes", br#"{"id":"bench","image":"bench:1"}"#, 201)?;
    let mut command = Command::new(&place.floor);
    command.args(["fork", &place.path("rootfs/bin/true")]);
    let mut host = Stopwatch::start(command)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds + 20 {
        let start = Instant::now();
        daemon.call("POST", "/v1/sandboxes/bench/commands", br#"{"argv":["/bin/true"]}"#, 200)?;
        let took = start.elapsed();
        let floor = host.once()?;
        if round >= 20 {
            ours.push(took);
            theirs.push(floor);
        }
    }
    report.title("one command in a running sandbox", "contestant | p50 ms | p90 ms | p99 ms | target");
    let cells = |name: &str, samples: &[Duration], target: String| {
        let at = |part| format!("{:.3}", ms(quantile(samples, part)));
        [name.to_owned(), at(0.5), at(0.9), at(0.99), target]
    };
    let most = ms(quantile(&theirs, 0.5)) * 1.5 + 0.3;
    let met = met(ms(quantile(&ours, 0.5)) <= most);
    report.row(&cells("**stockade**, through the socket", &ours, format!("at most {most:.3} {met}")));
    report.row(&cells("fork + exec + wait on the host", &theirs, String::new()));
    report.note("The same static program on both sides. The target is 1.5 × the host's median + 0.3 ms.");
    daemon.call("DELETE", "/v1/sandboxes/bench", b"", 204)?;
    Ok(())
}
