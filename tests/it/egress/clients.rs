//! pip, apt, npm and git, as they are on this host, through the gateway: where they may go, and where not.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::set;
use crate::harness::tls::Authority;
use crate::harness::world::{OTHER, World};
use crate::harness::{Daemon, host, id, skip};

const SERVER: &str = include_str!("../../fixtures/clients/server.py");

const NAMES: [&str; 4] = ["pypi.test", "deb.test", "npm.test", "git.test"];

/// A package manager or git. `{base}` is what comes before the path; lines end with what came.
struct Client {
    name: &'static str,
    line: &'static str,
    /// What it asks for, at least.
    asks: &'static [&'static str],
}

const CLIENTS: [Client; 4] = [
    Client {
        name: "pypi.test",
        line: "pip3 install -vv --no-cache-dir --disable-pip-version-check --target /tmp/py --retries 0 --no-input \
               --trusted-host pypi.test:8080 --cert /tmp/ca -i {base}/simple/ probe-thing && \
               PYTHONPATH=/tmp/py python3 -c 'import probe_thing; print(probe_thing.SAYS)'",
        asks: &["GET /simple/probe-thing/", ".whl"],
    },
    Client {
        name: "deb.test",
        line: "mkdir -p /etc/apt/apt.conf.d /etc/apt/preferences.d /var/lib/apt/lists/partial /var/cache/apt/archives/partial \
               /var/log/apt /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers && \
               touch /var/lib/dpkg/status && echo 'deb [trusted=yes] {base}/apt ./' > /tmp/list && \
               apt='apt-get -q -o Dir::Etc::sourcelist=/tmp/list -o Dir::Etc::sourceparts=/dev/null \
               -o Acquire::https::CAInfo=/tmp/ca -o Acquire::Retries=0 -o APT::Sandbox::User=root \
               -o APT::Update::Error-Mode=any' && $apt update && \
               $apt install -y --no-install-recommends probe-thing && cat /opt/probe-thing/says",
        asks: &["GET /apt/./Release", "GET /apt/./Packages", "probe-thing_1.0_all.deb"],
    },
    Client {
        name: "npm.test",
        line: "mkdir -p /tmp/js && cd /tmp/js && npm install --no-audit --no-fund --no-update-notifier --fetch-retries 0 \
               --cache /tmp/npm-cache --cafile /tmp/ca --registry {base}/ probe-thing && \
               node -e \"console.log(require('probe-thing'))\"",
        asks: &["GET /probe-thing", "probe-thing-1.0.0.tgz"],
    },
    Client {
        name: "git.test",
        line: "rm -rf /tmp/clone && GIT_TERMINAL_PROMPT=0 git -c http.sslCAInfo=/tmp/ca clone {base}/git/thing.git /tmp/clone && \
               cat /tmp/clone/says",
        asks: &[
            "GET /git/thing.git/info/refs?service=git-upload-pack",
            "POST /git/thing.git/git-upload-pack",
        ],
    },
];

/// The server of all of them, until it is dropped.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(world: &World, authority: &Authority) -> Self {
        let directory = crate::harness::scratch();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("server.py"), SERVER).unwrap();
        authority.write(&NAMES, directory.path());
        std::fs::create_dir(path("all")).unwrap();
        let mut child = world
            .command("/usr/bin/python3")
            .args([path("server.py"), path("all"), path("certificate"), path("key")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Self { child, directory }
    }

    /// What it was asked since.
    fn asked(&self) -> String {
        let log = self.directory.path().join("all/log");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(log, "").unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(world: &World) -> Daemon {
    for name in NAMES {
        world.name(name, &[OTHER]);
    }
    Daemon::within(&world.host(), &world.config(""))
}

/// A sandbox with these clients, which trust the authority.
fn inside(daemon: &Daemon, authority: &Path, network: &Value) -> String {
    let sandbox = id(&daemon.create(json!({"network": network, "resources": {"memory_bytes": 1_u64 << 30}})));
    daemon.put(&sandbox, "/tmp/ca", &std::fs::read(authority).unwrap());
    sandbox
}

/// Runs a client to its own end; gives its code and all that it says.
fn run(daemon: &Daemon, sandbox: &str, client: &Client, scheme: &str) -> (i64, String) {
    let base = match scheme {
        "http" => format!("http://{}:8080", client.name),
        _ => format!("https://{}", client.name),
    };
    let line = format!("{{ {}; }} 2>&1", client.line.replace("{base}", &base));
    let command = json!({"shell": line, "user": "0", "timeout_ms": 240_000});
    let result = daemon.run(sandbox, command);
    assert_eq!(result["timed_out"], false, "{}: {result}", client.name);
    (result["exit_code"].as_i64().unwrap(), result["stdout"].as_str().unwrap().to_owned())
}

macro_rules! clients_or_skip {
    () => {
        for tool in ["pip3", "npm", "git", "apt-get", "dpkg-deb"] {
            if !host::has_tool(tool) {
                skip!("userland", "{tool} is not installed");
            }
        }
    };
}

#[test]
fn package_managers_and_git_reach_what_a_policy_names() {
    clients_or_skip!();
    let (world, authority) = (World::new(), Authority::new());
    let server = Server::start(&world, &authority);
    let daemon = start(&world);
    for scheme in ["http", "https"] {
        let id = inside(&daemon, authority.path(), &json!({"allow": NAMES}));
        for client in &CLIENTS {
            let (code, said) = run(&daemon, &id, client, scheme);
            assert!(code == 0 && said.ends_with("came through\n"), "{} over {scheme}: {said}", client.name);
            let asked = server.asked();
            for one in client.asks {
                let found = asked.lines().any(|line| line.starts_with(scheme) && line.contains(one));
                assert!(found, "{} over {scheme} did not ask for {one}: {asked}", client.name);
            }
        }
        daemon.destroy(&id);
    }
}

#[test]
fn package_managers_and_git_are_told_by_which_rule_they_are_refused() {
    clients_or_skip!();
    let (world, authority) = (World::new(), Authority::new());
    let server = Server::start(&world, &authority);
    let daemon = start(&world);
    let network = json!({"allow": NAMES, "deny": ["*:8080", "https://*.test"]});
    let id = inside(&daemon, authority.path(), &network);
    let denied = |name: &str, rule: &str| {
        let events = daemon.get(&format!("/v1/sandboxes/{id}/network/events"));
        let events = events["events"].as_array().unwrap();
        let found =
            events.iter().any(|one| one["host"] == name && one["allowed"] == false && one["rule"] == rule);
        assert!(found, "{name}, {rule}: {events:?}");
    };
    for client in &CLIENTS {
        // Names lead somewhere; what is asked for there is refused, and the client shows by whom.
        let (code, said) = run(&daemon, &id, client, "http");
        assert!(code != 0 && said.contains("403"), "{}: {said}", client.name);
        assert!(said.contains("network policy"), "{}: {said}", client.name);
        denied(client.name, "deny *:8080");
        let (code, said) = run(&daemon, &id, client, "https");
        let words = said.to_lowercase().replace('_', " ");
        let alert = ["access denied", "access was denied", "alert has been received"]
            .iter()
            .any(|text| words.contains(text));
        assert!(code != 0 && alert, "{}: {said}", client.name);
        denied(client.name, "deny https://*.test");
    }
    // No name is known at all, and the log says why.
    set(&daemon, &id, &json!({"allow": ["ok.test"]}));
    for client in &CLIENTS {
        let (code, said) = run(&daemon, &id, client, "http");
        assert_ne!(code, 0, "{}: {said}", client.name);
        denied(client.name, "no rule allows it");
    }
    assert_eq!(server.asked(), "");
    // The same sandbox, allowed.
    set(&daemon, &id, &json!({"allow": NAMES}));
    let (code, said) = run(&daemon, &id, &CLIENTS[3], "http");
    assert!(code == 0 && !server.asked().is_empty(), "{said}");
}
