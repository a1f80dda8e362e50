//! TLS that the policy opens.

use std::io::Write;

use serde_json::{Value, json};

use super::{SECRET, bearer, policy, python, sandbox, set, start};
use crate::harness::tls::{Authority, Log, serve};
use crate::harness::world::{OTHER, SERVER, World};
use crate::harness::{Daemon, assert_error, host, id};

/// Clients that know nothing of the gateway.
const CLIENTS: [(&str, &str); 6] = [
    ("curl", "curl -sS https://ok.test/curl"),
    (
        "python",
        "python3 -c \"import urllib.request as u; print(u.urlopen('https://ok.test/python').read())\"",
    ),
    (
        "requests",
        "python3 -c \"from pip._vendor import requests; print(requests.get('https://ok.test/requests').text)\"",
    ),
    ("pip", "pip3 download --no-deps --disable-pip-version-check -i https://ok.test/pip/ nothing; true"),
    ("node", "node -e \"require('https').get('https://ok.test/node', r => r.pipe(process.stdout))\""),
    ("fetch", "node -e \"fetch('https://ok.test/fetch').then(r => r.text()).then(console.log)\""),
];

fn arrives(daemon: &Daemon, id: &str, seen: &Log) {
    for (name, line) in CLIENTS {
        let result = daemon.run(id, json!({"shell": line, "timeout_ms": 60_000}));
        let asked = seen.take();
        let one = asked.iter().find(|one| one.line.contains(&format!("/{name}")));
        let one = one.unwrap_or_else(|| panic!("{name}: {result}, {asked:?}"));
        assert_eq!(one.header("authorization"), format!("Bearer {SECRET}"), "{name}");
        if name != "pip" {
            assert!(
                result["stdout"].as_str().unwrap().contains(&format!("hello ok.test /{name}")),
                "{result}"
            );
        }
    }
    let out = daemon.shell(id, "git ls-remote https://ok.test/repo");
    assert!(out.contains("refs/heads/main"), "{out}");
    assert!(seen.take().iter().all(|one| one.header("authorization") == format!("Bearer {SECRET}")));
}

#[test]
fn curl_python_node_and_git_reach_a_host_whose_tls_is_opened() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test", "other.test"], true));
    let daemon = start(&world, &authority);
    let network = json!({"hosts": [bearer()], "intercept": ["ok.test"], "allow": ["https://other.test"]});
    let id = sandbox(&daemon, &network);
    arrives(&daemon, &id, &seen);
    // What is not opened is what it was: the server's own certificate, which nobody inside trusts.
    let script = "
import ssl
for name in ('ok.test', 'other.test'):
    c = ssl._create_unverified_context().wrap_socket(connect(name, 443), server_hostname=name)
    print(name, c.version(), b'Stockade' in c.getpeercert(True))
";
    let out = python(&daemon, &id, script);
    assert_eq!(out, "ok.test TLSv1.3 True\nother.test TLSv1.3 False\n");
    let failed = daemon.run(&id, json!({"shell": "curl -sS https://other.test/"}));
    assert_eq!(failed["exit_code"], 60, "{failed}");
    // No key, inside or in an answer.
    let out =
        daemon.shell(&id, "grep -rls 'PRIVATE KEY' /etc /tmp /root /workspace /run; env | grep -i key; true");
    assert_eq!(out, "");
    assert_eq!(policy(&daemon, &id)["intercept"], json!(["ok.test"]));
    // One that is opened while it runs, and after that everything begins anew.
    let live = daemon.sandbox();
    set(&daemon, &live, &network);
    arrives(&daemon, &live, &seen);
    let mut daemon = daemon;
    daemon.kill_all();
    daemon.spawn();
    arrives(&daemon, &live, &seen);
    let again = |id: &str| daemon.shell(id, "sha256sum < /etc/stockade/ca.crt");
    let (one, other) = (again(&id), again(&live));
    assert_ne!(one, other);
    set(&daemon, &live, &json!({"mode": "all", "intercept": ["*"]}));
    assert_eq!(again(&live), other);
}

#[test]
fn each_request_in_opened_tls_is_decided_on() {
    let (world, authority, stranger) = (World::new(), Authority::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test", "other.test"], true));
    let strange = serve(&world, &format!("{OTHER}:443"), stranger.server(&["evil.test"], true));
    world.serve(&format!("{SERVER}:8443"), |mut stream| {
        let _ = stream.write_all(b"no TLS");
    });
    let daemon = start(&world, &authority);
    let allow = ["https://other.test", "https://evil.test", "ok.test:8443"];
    let id = sandbox(&daemon, &json!({"allow": allow, "hosts": [bearer()], "intercept": ["*"]}));
    let out = python(
        &daemon,
        &id,
        &format!(
            r#"
import ssl
def secure(name, port=443, where=None):
    return ssl.create_default_context().wrap_socket(connect(where or name, port), server_hostname=name)
def first(*args, **named): return ask(*args, **named).replace('\r\n', ' ')
s = secure('ok.test'); print('a', first(s, '/a')); print('b', first(s, '/b', host='other.test'))
print('c', first(secure('ok.test'), '/c', host='ok.test:8443'))
print('d', first(secure('other.test'), '/d', host='other.test'))
print('e', first(secure('evil.test'), host='evil.test'))
print('f', first(secure('ok.test', 8443), host='ok.test:8443'))
# Allowed, and not at that address.
for name, where in (('ok.test', '{OTHER}'), ('absent.test', '{SERVER}')):
    try: secure(name, where=where); print('reached')
    except ssl.SSLError as e: print('g', e.reason)
# Without a name there is nothing to open.
c = ssl._create_unverified_context()
try: c.wrap_socket(connect('ok.test', 443)); print('reached')
except ssl.SSLError as e: print('h', e.reason)
print('i', first(secure('ok.test'), method='TRACE'))
s = secure('ok.test'); s.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'); print('j', s.recv(1000))
"#
        ),
    );
    let says = |what: &str, texts: &[&str]| {
        let line = out.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{what}: {out}"));
        assert!(texts.iter().all(|text| line.contains(text)), "{what} does not say {texts:?}: {out}");
    };
    assert!(!out.contains("reached"), "{out}");
    says("a", &["200", "hello ok.test /a"]);
    says("b", &["421"]);
    says("c", &["400"]);
    says("d", &["200", "hello other.test /d"]);
    let why = |event: &Value, why: &str| event["rule"].as_str().unwrap().starts_with(why);
    let failure = |event: &Value| event["host"] == "evil.test" && why(event, "allowed, and failed: no TLS");
    assert!(events(&daemon, &id).iter().any(failure), "{:?}", events(&daemon, &id));
    says("e", &["502", "UPSTREAM_CERTIFICATE"]);
    says("f", &["502", "UPSTREAM_TLS"]);
    assert_eq!(out.matches("g TLSV1_ALERT_ACCESS_DENIED").count(), 2, "{out}");
    says("h", &["TLSV1_ALERT_ACCESS_DENIED"]);
    says("i", &["405"]);
    // Another protocol in it is none: the end, at once.
    says("j", &["b''"]);
    assert!(strange.take().is_empty());
    let asked = seen.take();
    let lines: Vec<(String, bool)> =
        asked.iter().map(|one| (one.line.clone(), one.header("authorization").contains(SECRET))).collect();
    assert_eq!(lines, [("GET /a HTTP/1.1".to_owned(), true), ("GET /d HTTP/1.1".to_owned(), false)]);
    let events = daemon.get(&format!("/v1/sandboxes/{id}/network/events"));
    let opened = |event: &&Value| event["protocol"] == "https" && event["host"] == "ok.test";
    let one = events["events"].as_array().unwrap().iter().find(opened).unwrap();
    assert_eq!((&one["allowed"], &one["rule"]), (&json!(true), &json!("host ok.test")));
    // A change ends what it does not allow.
    set(&daemon, &id, &json!({"mode": "all", "deny": ["ok.test"], "intercept": ["*"]}));
    let out = python(&daemon, &id, "print(ask(connect('other.test'), host='ok.test'))");
    assert!(out.contains("deny ok.test"), "{out}");
}

/// The decisions about a sandbox.
fn events(daemon: &Daemon, id: &str) -> Vec<Value> {
    daemon.get(&format!("/v1/sandboxes/{id}/network/events"))["events"].as_array().unwrap().clone()
}

#[test]
fn what_is_opened_cannot_be_passed_by_and_what_fails_is_in_the_log() {
    let (world, authority) = (World::new(), Authority::new());
    let names = ["ok.test", "other.test", "evil.test"];
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&names, true));
    serve(&world, &format!("{OTHER}:443"), authority.server(&names, true));
    let daemon = start(&world, &authority);
    let id = sandbox(&daemon, &json!({"mode": "all", "intercept": ["ok.test"]}));
    let out = python(
        &daemon,
        &id,
        r#"
import ssl
def secure(where, name, trust=False):
    context = ssl.create_default_context() if trust else ssl._create_unverified_context()
    return context.wrap_socket(connect(where, 443), server_hostname=name)
def outcome(*args, **named):
    try: return b'Stockade' in secure(*args, **named).getpeercert(True)
    except ssl.SSLError as e: return e.reason
address = socket.gethostbyname('ok.test')
print(outcome(address, 'ok.test', trust=True), outcome(address, 'evil.test'), outcome(address, None))
# Both live there, and both were asked for.
socket.gethostbyname('other.test'); print(outcome(address, 'other.test'), outcome('evil.test', 'evil.test'))
print(ask(secure(address, 'ok.test'), host='other.test').replace('\r\n', ' '))
c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
try: c.wrap_socket(connect(address, 443), server_hostname='ok.test'); print('trusted')
except ssl.SSLError as e: print(e.reason)
"#,
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "True TLSV1_ALERT_ACCESS_DENIED TLSV1_ALERT_ACCESS_DENIED", "{out}");
    assert_eq!(lines[1], "False False", "{out}");
    assert!(lines[2].starts_with("HTTP/1.1 421") && lines[2].contains("connect to other.test"), "{out}");
    assert_eq!(out.lines().last(), Some("CERTIFICATE_VERIFY_FAILED"), "{out}");
    assert!(seen.take().is_empty());
    // The alert of the last one is behind its end.
    let wanted = |event: &Value| {
        event["rule"].as_str().unwrap().starts_with("intercept ok.test: no TLS with the sandbox")
    };
    host::wait_for("the failure to be in the log", || events(&daemon, &id).iter().any(wanted));
    let failed = events(&daemon, &id).into_iter().find(wanted).unwrap();
    assert_eq!(
        (&failed["host"], &failed["allowed"], &failed["protocol"]),
        (&json!("ok.test"), &json!(false), &json!("tls"))
    );
    assert!(failed["fix"].as_str().unwrap().contains("/etc/stockade/ca.crt"), "{failed}");
    let misled = |event: &Value| event["host"] == "other.test" && event["protocol"] == "https";
    assert!(events(&daemon, &id).iter().any(misled));
}

#[test]
fn a_sandbox_has_no_say_in_its_policy_and_its_owner_keeps_his_variables() {
    let world = World::new();
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let opened = json!({"mode": "all", "intercept": ["ok.test"]});
    let env = |id: &str| daemon.get(&format!("/v1/sandboxes/{id}/env"))["env"].clone();
    // Its root does not let the certificate in.
    let id = daemon.sandbox();
    daemon.shell(&id, "rm -rf /etc/stockade; echo > /etc/stockade");
    let change = set(&daemon, &id, &opened);
    assert!(change["warnings"][0].as_str().unwrap().contains("was not put into the sandbox"), "{change}");
    assert_eq!(policy(&daemon, &id), opened);
    assert_eq!(env(&id)["SSL_CERT_FILE"], Value::Null);
    let mut other = opened.clone();
    other["deny"] = json!(["evil.test"]);
    assert_eq!(set(&daemon, &id, &other)["warnings"], Value::Null);
    assert_eq!(policy(&daemon, &id), other);
    set(&daemon, &id, &json!({}));
    daemon.shell(&id, "rm /etc/stockade");
    assert_eq!(set(&daemon, &id, &opened)["warnings"], Value::Null);
    assert_eq!(env(&id)["SSL_CERT_FILE"], "/etc/stockade/ca-bundle.crt");
    // What the owner has set stays, at the first change and at each after it.
    let id = daemon.sandbox();
    let own = |name: &str, value: &str| {
        let body = json!({"set": {name: value}});
        let answer = daemon.request("PATCH", &format!("/v1/sandboxes/{id}/env"), Some(&body));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    };
    own("SSL_CERT_FILE", "/own");
    let change = set(&daemon, &id, &opened);
    assert!(change["warnings"][0].as_str().unwrap().starts_with("SSL_CERT_FILE is set already"), "{change}");
    own("PIP_CERT", "/own");
    set(&daemon, &id, &other);
    let env = env(&id);
    assert_eq!((&env["SSL_CERT_FILE"], &env["PIP_CERT"]), (&json!("/own"), &json!("/own")));
    assert_eq!(env["CURL_CA_BUNDLE"], "/etc/stockade/ca-bundle.crt");
}

#[test]
fn trust_follows_the_sandbox_whatever_its_files_are_and_goes_with_interception() {
    let (world, authority) = (World::new(), Authority::new());
    let _seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let daemon = start(&world, &authority);
    let network = json!({"allow": ["https://ok.test"], "intercept": ["ok.test"]});
    let reaches = |id: &str| daemon.shell(id, CLIENTS[1].1).contains("hello ok.test /python");
    let certificate = |id: &str| daemon.shell(id, "cat /etc/stockade/ca.crt");
    let post = |path: &str, body: &Value| {
        let answer = daemon.request("POST", path, Some(body));
        assert!(matches!(answer.status, 200..=202), "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    };
    let parent = id(&daemon.create(json!({"network": network})));
    assert!(reaches(&parent));
    // A fork has an authority of its own.
    post(&format!("/v1/sandboxes/{parent}/fork"), &json!({"ids": ["child"]}));
    assert!(reaches("child") && reaches(&parent));
    assert_ne!(certificate("child"), certificate(&parent));
    let own = certificate("child");
    // The files of another sandbox, and none.
    let kept = post(&format!("/v1/sandboxes/{parent}/snapshots"), &json!({}));
    let kept = kept["id"].as_str().unwrap();
    post("/v1/sandboxes/child/restore", &json!({"snapshot": kept}));
    assert!(reaches("child"));
    assert_eq!(certificate("child"), own);
    daemon.shell("child", "rm -rf /etc/stockade");
    post("/v1/sandboxes/child/stop", &json!({}));
    assert!(reaches("child"));
    // Nothing is opened any more: what is started from now on is led to no authority.
    let change = set(&daemon, "child", &json!({"allow": ["https://ok.test"]}));
    assert_eq!(change["warnings"], Value::Null, "{change}");
    let left = daemon.shell("child", "env | grep stockade; ls -d /etc/stockade 2>&1; true");
    assert!(left.contains("No such file") && !left.contains("ca-bundle"), "{left}");
    let plain = id(&daemon.create(json!({"snapshot": kept})));
    assert_eq!(daemon.shell(&plain, "env | grep /etc/stockade; true"), "");
}

#[test]
fn names_to_open_are_checked() {
    let daemon = Daemon::start();
    for bad in ["ok.test:443", "https://ok.test", "9.9.9.9", "OK.test", "a b"] {
        let answer = daemon.request(
            "POST",
            "/v1/sandboxes",
            Some(&json!({"network": {"mode": "all", "intercept": ["*.test", bad]}})),
        );
        let body = assert_error(&answer, 400, "INVALID_REQUEST");
        assert_eq!(body["context"]["field"], "network.intercept[1]", "{body}");
    }
}
