//! Starts the daemon, speaks to it, and looks for what it leaves behind.

pub mod docker;
pub mod host;
pub mod http;
pub mod image;
pub mod previews;
pub mod probe;
pub mod recorder;
pub mod registry;
pub mod s3;
pub mod tls;
pub mod tracer;
pub mod world;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use http::{Connection, Response};

/// How long a daemon may take to answer after its start, and to end after SIGTERM. Generous: the test machine may
/// be an emulator.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Leaves the test, saying what the host lacks; see [`skipped`].
macro_rules! skip {
    ($feature:literal, $($why:tt)+) => {{
        $crate::harness::skipped($feature, &format!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// Records a skip. Fails the test when `STOCKADE_TEST_REQUIRE=all` and this kind of host does not explain it.
#[track_caller]
pub fn skipped(feature: &str, why: &str) {
    use std::io::Write as _;
    let line = format!("SKIPPED for want of {feature}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("STOCKADE_TEST_SKIPS") {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    let required = std::env::var("STOCKADE_TEST_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required || host::explains(feature), "not allowed to skip here: {line}");
}

/// The binary under test. The VM's copy of the tests is told by the environment where it is.
pub fn binary() -> PathBuf {
    std::env::var_os("STOCKADE_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_stockade")), PathBuf::from)
}

/// A directory that every user can pass through, on a disk.
pub fn scratch() -> TempDir {
    let directory = tempfile::Builder::new().prefix("stockade-it-").tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A running daemon with directories of its own.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    directory: TempDir,
    arguments: Vec<String>,
    /// The network namespace that it runs in, if not ours.
    namespace: Option<PathBuf>,
    /// What it finds in its environment beside ours, from its next start on.
    pub environment: Vec<(&'static str, String)>,
    /// Every sandbox that was ever created, for the search afterwards.
    created: Mutex<Vec<Value>>,
}

impl Daemon {
    /// Starts a daemon with the defaults.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a daemon with more arguments.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Self {
        Self::begin(scratch(), None, arguments)
    }

    /// Starts a daemon with a configuration. Where previews are served must be in it.
    #[track_caller]
    pub fn configured(config: &str) -> Self {
        let directory = scratch();
        let path = directory.path().join("config.toml");
        fs::write(&path, config).unwrap();
        let path = path.to_str().unwrap().to_owned();
        Self::begin(directory, None, &["--config", &path])
    }

    /// Starts a daemon in a network namespace, with a configuration.
    #[track_caller]
    pub fn within(namespace: &Path, config: &str) -> Self {
        let directory = scratch();
        let path = directory.path().join("config.toml");
        fs::write(&path, config).unwrap();
        let path = path.to_str().unwrap().to_owned();
        Self::begin(directory, Some(namespace), &["--config", &path])
    }

    #[track_caller]
    fn begin(directory: TempDir, namespace: Option<&Path>, arguments: &[&str]) -> Self {
        let mut daemon = Self {
            child: None,
            directory,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            namespace: namespace.map(Path::to_owned),
            environment: Vec::new(),
            created: Mutex::default(),
        };
        daemon.spawn();
        daemon
    }

    /// The command line that starts it.
    pub fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(binary()),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(binary());
                command
            }
        };
        command.arg("serve");
        command.arg("--runtime-dir").arg(self.runtime_dir()).arg("--state-dir").arg(self.state_dir());
        command.args(&self.arguments);
        let said = |argument: &String| argument == "--preview-listen" || argument == "--config";
        if self.namespace.is_some() || !self.arguments.iter().any(said) {
            // The default port is one for the whole host.
            command.args(["--preview-listen", "off"]);
        }
        command.stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it (again), and waits until it answers.
    #[track_caller]
    pub fn spawn(&mut self) {
        let log = File::options().append(true).create(true).open(self.log_path()).unwrap();
        let mut command = self.command();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.wait_until_healthy();
    }

    /// Waits until the daemon answers.
    #[track_caller]
    pub fn wait_until_healthy(&mut self) {
        let start = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(&self.socket())
                && let Ok(answer) = connection.request("GET", "/v1/healthz", &[], b"")
                && answer.status == 200
            {
                return;
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the daemon ended at its start ({status}):\n{}", self.log());
            }
            assert!(start.elapsed() < PATIENCE, "the daemon does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.runtime_dir().join("stockade.sock")
    }

    /// Control groups of this daemon's sandboxes whose names begin so.
    pub fn cgroups(&self, name: &str) -> Vec<PathBuf> {
        // The daemon names its groups after its runtime directory, so that two of them do not meet.
        let group = stockade::runtime::launch::group_name(&self.runtime_dir());
        host::cgroups_named(&group, name)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What the daemon wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The first process: role `launch`.
    pub fn launch_pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// The pid of role `serve`.
    #[track_caller]
    pub fn serve_pid(&self) -> i32 {
        self.role_pid("stockade-serve").unwrap_or_else(|| panic!("no serve process:\n{}", self.log()))
    }

    /// The pid of a child of launch whose name is that role's.
    pub fn role_pid(&self, role: &str) -> Option<i32> {
        host::children(self.launch_pid()).into_iter().find(|&pid| host::argument_zero(pid) == role)
    }

    pub fn connect(&self) -> Connection {
        Connection::open(&self.socket()).unwrap()
    }

    /// Sends a request and gives back the whole answer.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let text = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, &[("Content-Type", "application/json")], text.as_bytes())
    }

    /// The same with headers and bytes.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.connect()
            .request(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, None);
        assert_eq!(answer.status, 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Creates a sandbox that must come into being.
    #[track_caller]
    pub fn create(&self, spec: Value) -> Value {
        let answer = self.request("POST", "/v1/sandboxes", Some(&spec));
        assert_eq!(
            answer.status,
            201,
            "create {spec}: {}\n{}",
            String::from_utf8_lossy(&answer.body),
            self.log()
        );
        let sandbox = answer.json();
        self.created.lock().unwrap().push(sandbox.clone());
        sandbox
    }

    /// Creates a sandbox from the host's own files and gives its id.
    #[track_caller]
    pub fn sandbox(&self) -> String {
        id(&self.create(json!({})))
    }

    #[track_caller]
    pub fn destroy(&self, id: &str) {
        let answer = self.request("DELETE", &format!("/v1/sandboxes/{id}"), None);
        assert_eq!(answer.status, 204, "destroy {id}: {}", String::from_utf8_lossy(&answer.body));
    }

    /// Runs a command, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, id: &str, command: &Value) -> Response {
        self.request("POST", &format!("/v1/sandboxes/{id}/commands"), Some(command))
    }

    /// Runs a command that must start.
    #[track_caller]
    pub fn run(&self, id: &str, command: Value) -> Value {
        let answer = self.try_run(id, &command);
        assert_eq!(
            answer.status,
            200,
            "run {command}: {}\n{}",
            String::from_utf8_lossy(&answer.body),
            self.log()
        );
        answer.json()
    }

    /// Starts a command that goes on after this returns, until the connection that is given back closes. Waits for
    /// its first output, or only for its start when `output` is false.
    #[track_caller]
    pub fn start_command(&self, id: &str, command: &Value, output: bool) -> Connection {
        let mut connection = self.connect();
        let headers = [("Content-Type", "application/json"), ("Accept", "text/event-stream")];
        let path = format!("/v1/sandboxes/{id}/commands");
        connection.send("POST", &path, &headers, command.to_string().as_bytes()).unwrap();
        let head = connection.receive_head().unwrap();
        assert_eq!(head.status, 200, "{command}");
        let mut body = connection.body(&head);
        for wanted in [Some("started"), output.then_some("stdout")].into_iter().flatten() {
            let event = body.next_event().unwrap().unwrap();
            assert_eq!(event.name, wanted, "{command}: {event:?}");
        }
        connection
    }

    /// Runs a shell line that must succeed, and gives its output.
    #[track_caller]
    pub fn shell(&self, id: &str, line: &str) -> String {
        let result = self.run(id, json!({"shell": line}));
        assert_eq!(result["exit_code"], 0, "{line}: {result}");
        result["stdout"].as_str().unwrap().to_owned()
    }

    /// Writes a file into a sandbox through a command's standard input.
    #[track_caller]
    pub fn put(&self, id: &str, path: &str, bytes: &[u8]) {
        let line = format!("cat > {path} && chmod 755 {path}");
        let result = self.run(id, json!({"shell": line, "user": "0", "stdin_base64": BASE64.encode(bytes)}));
        assert_eq!(result["exit_code"], 0, "put {path}: {result}");
    }

    /// Does something in the network of a sandbox, with threads and sockets of the test's own: what bytes leave is then
    /// up to the test alone. They are as much under the sandbox's rules as its own processes are.
    pub fn in_network_of<T: Send>(&self, id: &str, work: impl FnOnce() -> T + Send) -> T {
        let pid = self.get(&format!("/v1/sandboxes/{id}"))["pid"].as_i64().unwrap();
        host::in_network(Path::new(&format!("/proc/{pid}/ns/net")), work)
    }

    /// The ids of the sandboxes that the daemon lists.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        self.get("/v1/sandboxes")["sandboxes"].as_array().unwrap().iter().map(id).collect()
    }

    /// Imports an image and gives what the API says of it.
    #[track_caller]
    pub fn import(&self, reference: &str, tar: &[u8]) -> Value {
        let answer = self.try_import(reference, tar);
        assert_eq!(
            answer.status,
            200,
            "import {reference}: {}\n{}",
            String::from_utf8_lossy(&answer.body),
            self.log()
        );
        let answer = answer.json();
        let images = answer["images"].as_array().unwrap();
        assert_eq!(images.len(), 1, "{answer}");
        images[0].clone()
    }

    /// The unpacked layers in the store.
    pub fn layers(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.state_dir().join("layers")) else { return 0 };
        // What begins with a dot is on its way in or out.
        entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
    }

    /// Imports an image, whatever comes of it.
    #[track_caller]
    pub fn try_import(&self, reference: &str, tar: &[u8]) -> Response {
        let path = format!("/v1/images/import?reference={}", escape(reference));
        self.send("POST", &path, &[("Content-Type", "application/x-tar")], tar)
    }

    /// The command line client, spoken to this daemon.
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(binary())
            .args(arguments)
            .env("STOCKADE_SOCKET", self.socket())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Kills the first process and serve together, as a crash of the whole service would.
    pub fn kill_all(&mut self) {
        let serve = self.serve_pid();
        kill(Pid::from_raw(self.launch_pid()), Signal::SIGKILL).unwrap();
        // serve may have ended of itself by now, because launch is gone.
        let _ = kill(Pid::from_raw(serve), Signal::SIGKILL);
        self.bury(serve);
    }

    /// Waits for the end of a first process that was killed, and of its serve.
    pub fn bury(&mut self, serve: i32) {
        self.child.take().unwrap().wait().unwrap();
        host::wait_for("serve to be gone", || !host::alive(serve));
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the daemon does not end after SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What is left of sandboxes that should be gone: processes, cgroups, mounts and files.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for sandbox in self.created.lock().unwrap().iter() {
            let name = id(sandbox);
            if let Some(namespace) = sandbox["isolation"]["namespaces"]["pid"].as_u64() {
                // The kernel gives numbers of namespaces again, to somebody else's as well.
                let group = stockade::runtime::launch::group_name(&self.runtime_dir());
                let mut pids = host::processes_in("pid", namespace);
                pids.retain(|pid| host::is_in_cgroup(*pid, &group));
                if !pids.is_empty() {
                    found.push(format!("processes of {name}: {pids:?}"));
                }
            }
            found.extend(self.cgroups(&name).into_iter().map(|path| format!("cgroup {}", path.display())));
            for parent in [self.runtime_dir(), self.state_dir()] {
                let path = parent.join("sandboxes").join(&name);
                if path.exists() {
                    found.push(format!("directory {}", path.display()));
                }
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
        if self.child.is_none() {
            return;
        }
        let request = |method: &str, path: &str| {
            Connection::open(&self.socket())
                .and_then(|mut connection| connection.request(method, path, &[], b""))
        };
        // Also those that were made by forks and by the daemon's own command line: they would outlive the test.
        let listed = request("GET", "/v1/sandboxes").ok();
        let listed = listed.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
        let mut ids: Vec<String> = self.created.lock().unwrap().iter().map(id).collect();
        ids.extend(listed.iter().filter_map(|all| all["sandboxes"].as_array()).flatten().map(id));
        for id in ids {
            let _ = request("DELETE", &format!("/v1/sandboxes/{id}"));
        }
        if failed {
            if let Some(mut child) = self.child.take() {
                let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM);
                std::thread::sleep(Duration::from_millis(500));
                let _ = child.kill();
                let _ = child.wait();
            }
            return;
        }
        let status = self.stop();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
        host::wait_until_none("leftovers of sandboxes", || self.leftovers());
        let path = self.directory.path().display().to_string();
        host::wait_until_none("mounts left behind", || host::mounts_under(&path));
    }
}

/// The id of a sandbox or a command.
#[track_caller]
pub fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned()
}

/// Percent-encodes everything that is not unreserved (RFC 3986 §2.3).
pub fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The bytes of a stream of a command's result.
#[track_caller]
pub fn output(result: &Value, stream: &str) -> Vec<u8> {
    let text = result[stream].as_str().unwrap_or_else(|| panic!("no {stream} in {result}"));
    decode(text, result[format!("{stream}_encoding")].as_str().unwrap_or("utf-8"))
}

/// Text in the encoding that the API names beside it.
#[track_caller]
pub fn decode(text: &str, encoding: &str) -> Vec<u8> {
    match encoding {
        "utf-8" => text.as_bytes().to_vec(),
        "base64" => BASE64.decode(text).unwrap(),
        other => panic!("unknown encoding {other}"),
    }
}

/// Checks that an answer is an error in the form that the API promises, and gives its body.
#[track_caller]
pub fn assert_error(answer: &Response, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "no message: {body}");
    let request = body["request_id"].as_str().unwrap_or_default();
    assert!(!request.is_empty(), "no request_id: {body}");
    assert_eq!(answer.header("x-request-id"), Some(request), "the header differs: {body}");
    body
}

/// Runs a program of the host that must succeed, and gives its output.
#[track_caller]
pub fn host_command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
