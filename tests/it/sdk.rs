//! The clients of `sdk/`, the description of the API, and `docs/api.md`, against the real daemon.
//!
//! `cargo xtask test` builds the packages and installs them into prefixes of their own (`xtask/src/clients.rs`); what is
//! used here is that, and not the sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::image::Image;
use crate::harness::s3::S3;
use crate::harness::{Daemon, skip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the clients are installed.
struct Clients {
    base: PathBuf,
}

impl Clients {
    fn find() -> Option<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(ROOT).join("target"), PathBuf::from);
        let base = target.join("clients");
        base.join("ready").exists().then_some(Self { base })
    }

    fn node(&self) -> PathBuf {
        std::fs::read_to_string(self.base.join("node")).unwrap().into()
    }

    /// Node, in the project that has the package.
    fn typescript(&self) -> Command {
        let mut command = Command::new(self.node());
        command.current_dir(self.base.join("typescript"));
        command
    }

    /// Python, where it sees the wheel, what that depends on, and the tools.
    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("python3");
        let path = [self.base.join("python"), self.base.join("tools")];
        command.args(arguments).env("PYTHONPATH", std::env::join_paths(path).unwrap());
        // Neither bytecode nor what somebody has installed for themselves.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
        command.current_dir(self.base.join("source/python"));
        command
    }
}

macro_rules! clients {
    () => {
        match Clients::find() {
            Some(clients) => clients,
            None => skip!("registries", "the clients were not built: cargo xtask test says why"),
        }
    };
}

/// A daemon with previews.
fn daemon() -> Daemon {
    Daemon::with(&["--preview-listen", "127.0.0.1:0"])
}

/// The same, and a directory that sandboxes may mount.
fn daemon_with_directory() -> (Daemon, tempfile::TempDir) {
    let shared = crate::harness::scratch();
    std::fs::create_dir_all(shared.path().join("bucket/in")).unwrap();
    std::fs::write(shared.path().join("greeting"), "hello\n").unwrap();
    std::fs::write(shared.path().join("bucket/in/greeting"), "deeper\n").unwrap();
    let config = format!(
        "[mounts]\ndirectories = [{:?}]\n[network]\nopen = [\"127.0.0.0/8\"]\n[preview]\nlisten = \"127.0.0.1:0\"\n",
        shared.path()
    );
    (Daemon::configured(&config), shared)
}

/// An S3 server, which the tools of the clients' tests have, and how a client's tests are told of it.
fn s3() -> (S3, String) {
    let server = S3::start().expect("moto is one of the tools");
    let told = json!({
        "endpoint": server.endpoint,
        "accessKeyId": server.access_key_id,
        "secretAccessKey": server.secret_access_key,
    });
    (server, told.to_string())
}

/// Runs a program that must succeed, and gives its output.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Nothing is left of what a client made.
#[track_caller]
fn assert_clean(daemon: &Daemon) {
    assert_eq!(daemon.ids(), Vec::<String>::new(), "the client left sandboxes behind");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources(directory: &str) -> String {
    let entries = std::fs::read_dir(Path::new(ROOT).join(directory)).unwrap().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| !path.ends_with("api.ts"));
    files.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

#[test]
fn the_clients_do_not_drift_from_the_api() {
    succeed(Command::new("node").args(["sdk/generate.mjs", "--check"]).current_dir(ROOT));
    succeed(Command::new("python3").args(["sdk/python/generate_sync.py", "--check"]).current_dir(ROOT));
    let api: Value = serde_json::from_str(&read("tests/openapi.json")).unwrap();
    let typescript = sources("sdk/typescript/src");
    let python = sources("sdk/python/src/stockade_sandbox/_async");
    let methods =
        api["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let mut seen = 0;
    for operation in methods.map(|method| method["operationId"].as_str().unwrap()) {
        seen += 1;
        // These are upgrades, and any method: they are named by their paths.
        if ["attachCommand", "attachTerminal", "connectToPort", "proxyToPort"].contains(&operation) {
            continue;
        }
        assert!(
            typescript.contains(&format!("'{operation}'")),
            "the client for TypeScript has no {operation}"
        );
        assert!(python.contains(&format!("\"{operation}\"")), "the client for Python has no {operation}");
    }
    assert!(seen > 60, "only {seen} operations");
    for path in ["/commands/attach", "/attach", "/connect", "/proxy"] {
        assert!(typescript.contains(path) && python.contains(path), "a client has no {path}");
    }
}

#[test]
fn the_client_for_typescript_does_what_it_says() {
    let clients = clients!();
    let (daemon, shared) = daemon_with_directory();
    // Strict types first: the tests and examples are programs of a user.
    succeed(clients.typescript().args(["node_modules/typescript/bin/tsc", "-p", "test/tsconfig.json"]));
    let tests = std::fs::read_dir(clients.base.join("typescript/built/test")).unwrap().flatten();
    let tests = tests.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(".test.js"));
    let mut node = clients.typescript();
    node.args(["--test", "--test-reporter=spec", "--test-concurrency=2", "--test-timeout=240000"]);
    if let Some(image) = Image::busybox() {
        daemon.import("busybox:1", &image.layout_tar("1"));
        node.env("STOCKADE_TEST_IMAGE", "busybox:1");
    }
    let python = import_python(&daemon);
    if python {
        node.env("STOCKADE_TEST_PYTHON", "python");
    }
    let (_server, told) = s3();
    node.env("STOCKADE_SOCKET", daemon.socket()).env("STOCKADE_TEST_DIRECTORY", shared.path());
    node.env("STOCKADE_TEST_S3", told);
    let text = succeed(node.args(tests));
    assert!(text.contains("✔ exec has the result"), "{text}");
    assert_eq!(text.contains("✔ a code context"), python, "{text}");
    assert_clean(&daemon);
    if !python {
        skip!("built-image", "target/images/python is not there, which the examples are for");
    }
}

#[test]
fn programs_for_the_cloudflare_sdk_are_programs_for_ours() {
    let clients = clients!();
    let project = clients.base.join("typescript");
    assert!(
        project.join("node_modules/@cloudflare/sandbox/dist/index.d.ts").exists(),
        "nothing to compare with"
    );
    succeed(clients.typescript().args(["node_modules/typescript/bin/tsc", "-p", "test/parity"]));
}

/// Imports our own image with Python's libraries, if it was built.
fn import_python(daemon: &Daemon) -> bool {
    let layout = Path::new(ROOT).join("target/images/python");
    let there = layout.join("index.json").exists();
    if there {
        let output = daemon.cli(&["import", &layout.to_string_lossy(), "--reference", "python"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    there
}

#[test]
fn the_client_for_python_does_what_it_says() {
    let clients = clients!();
    let (daemon, shared) = daemon_with_directory();
    let mut pytest = clients.python(&["-m", "pytest"]);
    pytest.args(["-q", "-p", "no:cacheprovider", "--import-mode=prepend", "tests"]);
    let (_server, told) = s3();
    pytest.env("STOCKADE_TEST_DIRECTORY", shared.path()).env("STOCKADE_TEST_S3", told);
    let text = succeed(pytest.env("STOCKADE_SOCKET", daemon.socket()));
    assert!(text.contains(" passed"), "{text}");
    assert_clean(&daemon);
}

/// What a document has between fences of this kind.
fn blocks<'text>(text: &'text str, kind: &str) -> Vec<&'text str> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .filter(|(own, _)| *own == kind)
        .map(|(_, body)| body)
        .collect()
}

/// Lines without what is another one each time.
fn steady(text: &str) -> Vec<&str> {
    let other = |line: &&str| !line.contains("duration:") && !line.contains("timestamp:");
    text.trim().lines().filter(other).collect()
}

#[test]
fn the_readme_of_the_client_for_typescript_does_what_it_prints() {
    let clients = clients!();
    let daemon = daemon();
    let text = read("sdk/typescript/README.md");
    let program =
        blocks(&text, "ts")[0].replace("/run/stockade/stockade.sock", &daemon.socket().to_string_lossy());
    let file = clients.base.join("typescript/readme.mjs");
    std::fs::write(&file, program).unwrap();
    let told = succeed(clients.typescript().arg(&file));
    assert_eq!(steady(&told), steady(blocks(&text, "")[0]));
    assert_clean(&daemon);
    // Whoever installs the package alone has `ws` and not its types, and may want all types checked.
    let types = clients.base.join("typescript/node_modules/@stockade/sandbox/dist");
    let entries = std::fs::read_dir(types).unwrap().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.to_string_lossy().ends_with(".d.ts")) {
        let names_ws = std::fs::read_to_string(&path).unwrap().contains("'ws'");
        let own = path.ends_with("sockets.d.ts");
        assert!(own || !names_ws, "{} needs the types of ws", path.display());
    }
}

#[test]
fn the_readme_of_the_client_for_python_does_what_it_prints() {
    let clients = clients!();
    let (daemon, shared) = daemon_with_directory();
    std::fs::write(shared.path().join("data.csv"), "40\n2\n").unwrap();
    let (server, _) = s3();
    let text = read("sdk/python/README.md");
    let programs = blocks(&text, "python");
    let run = |program: &str| {
        let mut python = clients.python(&["-c", program]);
        succeed(python.current_dir(shared.path()).env("STOCKADE_SOCKET", daemon.socket()))
    };
    assert_eq!(steady(&run(programs[0])), steady(blocks(&text, "")[0]));
    let image = import_python(&daemon);
    let chart = if image {
        programs[1].replace("sandbox.code.run(", "cell = sandbox.code.run(")
    } else {
        String::new()
    };
    let made = if image {
        "cell._repr_mimebundle_()['image/png'][:4]"
    } else {
        "'iVBO'; sandbox = Sandbox.create()"
    };
    let mount = programs[3]
        .replacen('…', &server.access_key_id, 1)
        .replacen('…', &server.secret_access_key, 1)
        .replace("https://s3.example.com", &server.endpoint);
    let import = "from stockade_sandbox import Sandbox\n";
    let told = run(&format!("{import}{chart}\nshown = {made}\n{}\n{mount}\nprint(shown)", programs[2]));
    for line in ["42", "1 in /tmp", "stderr", "localhost:", "iVBO"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let told = run(programs[4]);
    assert_eq!(told, "you asked for https://api.internal/x\n");
    assert_clean(&daemon);
    if !image {
        skip!("built-image", "target/images/python is not there, which the chart is for");
    }
}

#[test]
fn the_client_for_python_is_typed() {
    let clients = clients!();
    let cache = crate::harness::scratch();
    let mut mypy = clients.python(&["-m", "mypy"]);
    mypy.args(["--strict", "--cache-dir", &cache.path().to_string_lossy()]);
    // From another directory, so that the package is the installed one.
    let tests = clients.base.join("source/python/tests/test_async.py");
    mypy.args(["-p", "stockade_sandbox"]).current_dir(cache.path());
    let text = succeed(&mut mypy);
    assert!(text.contains("no issues found"), "{text}");
    let mut mypy = clients.python(&["-m", "mypy"]);
    mypy.args(["--strict", "--cache-dir", &cache.path().to_string_lossy()]);
    succeed(mypy.arg(tests.with_file_name("test_processes.py")).arg(tests));
}

#[test]
fn the_description_of_the_api_is_valid() {
    let clients = clients!();
    let file = Path::new(ROOT).join("tests/openapi.json");
    let text = succeed(clients.python(&["-m", "openapi_spec_validator"]).arg(file));
    assert!(text.contains("OK"), "{text}");
}

#[test]
fn each_line_of_the_document_does_what_it_says() {
    let daemon = daemon();
    let text = read("docs/api.md");
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut lines = blocks.flat_map(str::lines);
    let function = lines.next().expect("a first line");
    assert!(function.starts_with("api() {"), "{function}");
    let mut ran = 0;
    for line in lines {
        let (_, promised) =
            line.rsplit_once("      # ").unwrap_or_else(|| panic!("{line}: promises nothing"));
        let script = format!("{function}\n{line}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("STOCKADE_SOCKET", daemon.socket())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(promised.trim()), "{line}: {text}");
        ran += 1;
    }
    assert!(ran >= 20, "only {ran} lines");
    assert_clean(&daemon);
}

#[test]
fn a_shell_and_a_program_in_go_need_no_client() {
    let daemon = daemon();
    let line = "print(6*7); import sys; print('oops', file=sys.stderr); sys.exit(3)";
    let directory = crate::harness::scratch();
    let binary = directory.path().join("stockade-go");
    let examples = Path::new(ROOT).join("docs/examples");
    let mut programs = vec![examples.join("stockade.sh")];
    if Path::new("/usr/bin/go").exists() {
        let mut go = Command::new("go");
        go.arg("build").arg("-o").arg(&binary).arg(examples.join("stockade.go"));
        succeed(go.env("GOCACHE", directory.path()).env("GOFLAGS", "-mod=mod").env("GOPROXY", "off"));
        programs.push(binary);
    }
    for name in ["stockade.sh", "stockade.go"] {
        let text = read(&format!("docs/examples/{name}"));
        let code =
            text.split_once("\n)\n").map_or(text.as_str(), |(_, behind_the_imports)| behind_the_imports);
        let lines =
            code.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with(['#', '/']));
        assert!(lines.count() <= 20, "{name} is to have twenty lines");
        assert!(text.contains("/run/stockade/stockade.sock"), "{name} is to find the daemon untold");
    }
    for program in &programs {
        let mut command = Command::new(program);
        let output = command
            .args(["python3", "-c", line])
            .env("STOCKADE_SOCKET", daemon.socket())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice());
        assert_eq!(told, (Some(3), &b"42\n"[..], &b"oops\n"[..]), "{}", program.display());
    }
    assert_clean(&daemon);
    if programs.len() == 1 {
        skip!("userland", "go is not installed");
    }
}

#[test]
fn requests_made_from_the_description_find_nothing() {
    let clients = clients!();
    let daemon = daemon();
    daemon.create(json!({"id": "fuzz", "resources": {"memory_bytes": 1_u64 << 28, "pids": 64}}));
    let mut schemathesis = clients.python(&["tests/fuzz.py"]);
    let text = succeed(schemathesis.env("STOCKADE_SOCKET", daemon.socket()));
    assert!(text.contains(" passed"), "{text}");
    // Whatever was asked, the daemon goes on and knows what it has.
    assert_eq!(daemon.get("/v1/healthz")["status"], "ok");
    assert!(daemon.ids().contains(&"fuzz".to_owned()), "what most of it was about has ended meanwhile");
    for id in daemon.ids() {
        daemon.destroy(&id);
    }
}
