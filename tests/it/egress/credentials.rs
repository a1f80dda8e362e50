//! Credentials that stay outside, and plain HTTP that becomes TLS.

use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{PRELUDE, SECRET, bearer, policy, python, sandbox, set, start};
use crate::harness::tls::{Authority, Seen, serve, serve_plain};
use crate::harness::world::{OTHER, SERVER, World};
use crate::harness::{Daemon, assert_error, host, host_command};

/// Whether the memory of a process holds these bytes.
fn memory_holds(pid: i32, wanted: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter(|line| line.contains(" r") && !line.contains("[v")).any(|line| {
        let (first, last) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let parse = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(parse(last) - parse(first)).unwrap()];
        // What cannot be read, like a guard, holds nothing.
        memory.read_exact_at(&mut bytes, parse(first)).is_ok()
            && memchr::memmem::find(&bytes, wanted).is_some()
    })
}

#[test]
fn a_credential_is_added_outside_and_found_nowhere_inside() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test", "other.test"], true));
    let daemon = start(&world, &authority);
    let network = json!({"allow": ["other.test:80"], "hosts": [bearer()]});
    let id = sandbox(&daemon, &network);
    let out = python(
        &daemon,
        &id,
        "print(ask(connect('ok.test'), '/1', headers='Authorization: mine\\r\\nAUTHORIZATION: mine\\r\\n\
         Connection: authorization\\r\\nX-Other: kept\\r\\n'))",
    );
    assert!(out.starts_with("HTTP/1.1 200") && out.contains("hello ok.test /1"), "{out}");
    let one = seen.one();
    assert_eq!(one.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!((one.header("host"), one.header("x-other")), ("ok.test".to_owned(), "kept".to_owned()));
    // Wherever a process could look.
    let script = format!(
        r"
wanted = {:?}[::-1].encode()
found = []
for root in ('/proc', '/etc', '/root', '/tmp', '/workspace', '/run', '/dev/shm', '/var'):
    for directory, names, files in os.walk(root):
        for file in files:
            path = os.path.join(directory, file)
            if path.startswith('/proc/') and file not in ('environ', 'cmdline', 'mounts', 'maps', 'stat'): continue
            try:
                with open(path, 'rb') as f:
                    if wanted in f.read(4 << 20): found.append(path)
            except OSError: pass
print(found, [name for name, value in os.environb.items() if wanted in value])
os.makedirs('/tmp/control', exist_ok=True); open('/tmp/control/file', 'wb').write(wanted)
print(any(wanted in open(os.path.join(d, f), 'rb').read() for d, _, fs in os.walk('/tmp') for f in fs))
",
        SECRET.chars().rev().collect::<String>()
    );
    assert_eq!(python(&daemon, &id, &script), "[] []\nTrue\n");
    nowhere_outside(&daemon, &id);
}

/// Looks for the secret in what the daemon says and keeps. The gateway holds it: that is the control.
fn nowhere_outside(daemon: &Daemon, id: &str) {
    for path in [
        format!("/v1/sandboxes/{id}/network"),
        format!("/v1/sandboxes/{id}/network/events"),
        format!("/v1/sandboxes/{id}"),
        format!("/v1/sandboxes/{id}/env"),
        "/v1/sandboxes".to_owned(),
    ] {
        assert!(!daemon.get(&path).to_string().contains(SECRET), "{path}");
    }
    assert!(!daemon.log().contains(SECRET));
    let gateway = daemon.role_pid("stockade-gateway").unwrap();
    assert!(memory_holds(gateway, SECRET.as_bytes()));
    let agent = daemon.get(&format!("/v1/sandboxes/{id}"))["pid"].as_i64().unwrap();
    // Agents begin as copies of the launcher: this one, and those to come.
    for pid in [daemon.launch_pid(), i32::try_from(agent).unwrap()] {
        assert!(!memory_holds(pid, SECRET.as_bytes()), "{pid}");
    }
    for pid in [daemon.launch_pid(), daemon.serve_pid(), gateway] {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(memchr::memmem::find(&text, SECRET.as_bytes()).is_none(), "{file} of {pid}");
        }
    }
    let mut holders = Vec::new();
    let mut directories = vec![daemon.runtime_dir(), daemon.state_dir().join("work")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file()
                && memchr::memmem::find(&std::fs::read(entry.path()).unwrap(), SECRET.as_bytes()).is_some()
            {
                let metadata = entry.metadata().unwrap();
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
                holders.push(entry.path());
            }
        }
    }
    assert_eq!(holders, [daemon.runtime_dir().join("sandboxes").join(id).join("secrets")]);
}

#[test]
fn a_credential_goes_to_no_other_host() {
    let (world, authority) = (World::new(), Authority::new());
    let config = authority.server(&["ok.test"], true);
    let seen = serve(&world, &format!("{SERVER}:443"), Arc::clone(&config));
    let clear = serve_plain(&world, &format!("{SERVER}:8080"));
    let elsewhere = serve_plain(&world, &format!("{OTHER}:8080"));
    let daemon = start(&world, &authority);
    let allow = ["other.test:8080", "evil.test:8080", "*:9999", "ok.test:8080"];
    let id = sandbox(&daemon, &json!({"allow": allow, "hosts": [bearer()]}));
    let out = python(
        &daemon,
        &id,
        &format!(
            r#"
print('first', ask(connect('ok.test'), '/to/http://other.test:8080/').split('\r\n')[0])
# Where the answer sends it, by hand and by a client that follows.
print('redirect', ask(connect('other.test', 8080), '/redirected', host='other.test:8080').split('\r\n')[0])
import urllib.request
print(urllib.request.urlopen('http://ok.test/to/http://evil.test:8080/followed').read())
# Another host on the connection of this one, and the other way round.
s = connect('ok.test')
print('one', ask(s).split('\r\n')[0]); print('two', ask(s, '/second', host='other.test').split('\r\n')[0])
# The name, said to an address that is not its.
print('lie', ask(connect('{OTHER}'), '/lie', host='ok.test').split('\r\n')[0])
print('lie', ask(connect('evil.test', 8080), '/lie', host='ok.test:8080').split('\r\n')[0])
print('none', ask(connect('evil.test', 8080), '/none', host='evil.test:8080').split('\r\n')[0])
# What would send it back.
for method in ('TRACE', 'trace', 'TRACK'): print('trace', ask(connect('ok.test'), method=method).split('\r\n')[0])
# In clear, to a port where the server speaks no TLS.
print('clear', ask(connect('ok.test', 8080), '/clear', host='ok.test:8080').split('\r\n')[0])
"#
        ),
    );
    let says =
        |what: &str, status: &str| assert!(out.contains(&format!("{what} HTTP/1.1 {status}")), "{out}");
    says("first", "302");
    says("redirect", "200");
    assert!(out.contains("hello evil.test:8080 /followed"), "{out}");
    says("one", "200");
    says("two", "403");
    assert_eq!(out.matches("lie HTTP/1.1 403").count(), 2, "{out}");
    says("none", "200");
    assert_eq!(out.matches("trace HTTP/1.1 405").count(), 3, "{out}");
    says("clear", "502");
    let at_ok = seen.take();
    let all = |request: &Seen| request.header("authorization") == format!("Bearer {SECRET}");
    assert!(at_ok.len() == 3 && at_ok.iter().all(all), "{at_ok:?}");
    let others: Vec<Seen> = clear.take().into_iter().chain(elsewhere.take()).collect();
    let lines: Vec<&str> = others.iter().map(|one| one.line.as_str()).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(!format!("{others:?}").contains(SECRET) && !lines.iter().any(|line| line.contains("clear")));
}

#[test]
fn credentials_outlive_processes_and_changes_that_leave_them_out() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let mut daemon = start(&world, &authority);
    let id = sandbox(&daemon, &json!({"hosts": [bearer()]}));
    let works = |daemon: &Daemon, after: &str| {
        assert!(python(daemon, &id, "print(ask(connect('ok.test')))").contains("hello"), "after {after}");
        assert_eq!(seen.one().header("authorization"), format!("Bearer {SECRET}"), "after {after}");
    };
    works(&daemon, "nothing");
    kill(Pid::from_raw(daemon.role_pid("stockade-gateway").unwrap()), Signal::SIGKILL).unwrap();
    works(&daemon, "the gateway was killed");
    kill(Pid::from_raw(daemon.serve_pid()), Signal::SIGKILL).unwrap();
    daemon.wait_until_healthy();
    works(&daemon, "serve was killed");
    let gateway = daemon.role_pid("stockade-gateway").unwrap();
    daemon.kill_all();
    host::wait_for("the gateway to end with launch", || !host::alive(gateway));
    daemon.spawn();
    works(&daemon, "all were killed");
    // As it was shown, with something else in it.
    let mut shown = policy(&daemon, &id);
    assert_eq!(shown["hosts"], json!([{"host": "ok.test", "header": {"name": "authorization"}}]));
    shown["allow"] = json!(["evil.test"]);
    let change = set(&daemon, &id, &shown);
    assert_eq!((&change["added"], &change["removed"]), (&json!(["allow evil.test"]), &json!([])));
    works(&daemon, "a change");
    let path = format!("/v1/sandboxes/{id}/network");
    for other in [
        json!([{"host": "evil.test", "header": {"name": "authorization"}}]),
        json!([{"host": "ok.test", "header": {"name": "x-api-key"}}]),
        json!([{"host": "ok.test", "basic": {}}]),
    ] {
        let answer = daemon.request("PUT", &path, Some(&json!({"hosts": other})));
        let body = assert_error(&answer, 400, "INVALID_REQUEST");
        assert_eq!(body["context"]["field"], "network.hosts[0]", "{body}");
    }
    let answer = daemon.request(
        "POST",
        "/v1/sandboxes",
        Some(&json!({"network": {"hosts": [{"host": "ok.test", "basic": {}}]}})),
    );
    assert_error(&answer, 400, "INVALID_REQUEST");
    works(&daemon, "changes that were refused");
    // Another value, at once; and then none.
    let other = json!({"host": "ok.test", "header": {"name": "authorization", "value": "another"}});
    let change = set(&daemon, &id, &json!({"allow": ["evil.test"], "hosts": [other]}));
    assert_eq!(change["added"], json!(["credential ok.test"]));
    assert!(python(&daemon, &id, "print(ask(connect('ok.test')))").contains("hello"));
    assert_eq!(seen.one().header("authorization"), "another");
    set(&daemon, &id, &json!({"hosts": [{"host": "ok.test", "upgrade": true}]}));
    assert!(python(&daemon, &id, "print(ask(connect('ok.test')))").contains("hello"));
    assert_eq!(seen.one().header("authorization"), "");
    assert!(!daemon.runtime_dir().join("sandboxes").join(&id).join("secrets").exists());
}

/// Signs a request as AWS documents it, with nothing of ours.
const SIGNER: &str = r#"
import hashlib, hmac, json, sys, urllib.parse
r = json.load(sys.stdin)
said = r['headers']['authorization']
fields = dict(part.strip().split('=', 1) for part in said.removeprefix('AWS4-HMAC-SHA256 ').split(','))
key_id, date, region, service, end = fields['Credential'].split('/')
path, _, query = r['path'].partition('?')
if service != 's3': path = urllib.parse.quote(path, safe='/-_.~')
quote = lambda text: urllib.parse.quote(text, safe='-_.~')
pairs = sorted((quote(k), quote(v)) for k, v in urllib.parse.parse_qsl(query, keep_blank_values=True))
names = fields['SignedHeaders'].split(';')
canonical = '\n'.join([r['method'], path, '&'.join(f'{k}={v}' for k, v in pairs),
    ''.join(f'{n}:{r["headers"][n].strip()}\n' for n in names), ';'.join(names), r['headers']['x-amz-content-sha256']])
text = '\n'.join(['AWS4-HMAC-SHA256', r['headers']['x-amz-date'], '/'.join([date, region, service, end]),
    hashlib.sha256(canonical.encode()).hexdigest()])
key = ('AWS4' + r['secret']).encode()
for part in (date, region, service, end): key = hmac.digest(key, part.encode(), 'sha256')
wanted = hmac.new(key, text.encode(), 'sha256').hexdigest()
assert 'host' in names
print(key_id, region, service, wanted == fields['Signature'])
"#;

fn verify(seen: &Seen) -> String {
    let mut parts = seen.line.split(' ');
    let headers: serde_json::Map<String, Value> =
        seen.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let request = json!({
        "method": parts.next(), "path": parts.next(), "headers": headers, "secret": SECRET,
    });
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", SIGNER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), &request).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{request}");
    text
}

#[test]
fn passwords_and_signatures_of_aws_are_added() {
    let (world, authority) = (World::new(), Authority::new());
    world.name("db.test", &[OTHER]);
    let names = ["ok.test", "other.test", "db.test"];
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&names, true));
    let db = serve(&world, &format!("{OTHER}:443"), authority.server(&names, true));
    let daemon = start(&world, &authority);
    let aws = |host: &str, service: &str| {
        json!({"host": host, "aws": {"region": "eu-test-1", "service": service, "access_key_id": "AKREAL",
            "secret_access_key": SECRET, "session_token": "t0ken"}})
    };
    let basic = json!({"host": "other.test", "basic": {"username": "me", "password": SECRET}});
    let id = sandbox(&daemon, &json!({"hosts": [basic, aws("ok.test", "s3"), aws("db.test", "dynamodb")]}));
    let script = r#"
print(ask(connect('other.test'), host='other.test', headers='Authorization: Basic bWluZQ==\r\n').split('\r\n')[0])
placeholder = 'Authorization: AWS4-HMAC-SHA256 Credential=placeholder\r\nx-amz-date: 19700101T000000Z\r\n' \
    'x-amz-security-token: placeholder\r\n'
print(ask(connect('ok.test'), '/a%20b/c?list-type=2&prefix=x%2Fy', headers=placeholder).split('\r\n')[0])
s = connect('ok.test')
s.sendall(b'PUT /large HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 3000000\r\n\r\n' + bytes(3000000)); print(head(s).split('\r\n')[0])
def post(size, more='', path='/t%20x'):
    s = connect('db.test')
    s.sendall(f'POST {path} HTTP/1.1\r\nHost: db.test\r\nX-Amz-Target: T.Query\r\nContent-Type: application/x-amz-json-1.0\r\n'
        f'{more}Content-Length: {size}\r\n\r\n'.encode() + b'x' * size)
    print(head(s).split('\r\n')[0])
post(7); post(0); post(2 << 20)
post(2 << 20, 'x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n')
post(7, 'x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n')
"#;
    let out = python(&daemon, &id, script);
    let statuses: Vec<&str> = out.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(statuses, ["200", "200", "200", "200", "200", "413", "200", "400"], "{out}");
    let at_ok = seen.take();
    use base64::Engine as _;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("me:{SECRET}"));
    assert_eq!(at_ok[0].header("authorization"), format!("Basic {login}"));
    for one in &at_ok[1..] {
        assert_eq!(verify(one), "AKREAL eu-test-1 s3 True\n", "{one:?}");
        assert_eq!(one.header("x-amz-security-token"), "t0ken");
    }
    assert_eq!(at_ok[2].body.len(), 3_000_000);
    let at_db = db.take();
    assert_eq!(at_db.len(), 3, "{:?}", at_db.iter().map(|one| &one.line).collect::<Vec<_>>());
    for one in &at_db {
        assert_eq!(verify(one), "AKREAL eu-test-1 dynamodb True\n", "{:?}", one.headers);
    }
    assert_eq!((at_db[0].body.as_slice(), at_db[1].body.len()), (&b"xxxxxxx"[..], 0));
    // The control: a signature over something else is none.
    let mut other = at_db[0].clone();
    other.line = other.line.replace("/t", "/u");
    assert_eq!(verify(&other), "AKREAL eu-test-1 dynamodb False\n");
}

#[test]
fn plain_http_leaves_over_tls_streamed_both_ways() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    serve(&world, &format!("{SERVER}:8443"), authority.server(&["ok.test"], true));
    let daemon = start(&world, &authority);
    let id = sandbox(
        &daemon,
        &json!({"allow": ["ok.test:8443"], "hosts": [{"host": "ok.test", "upgrade": true}]}),
    );
    let out = python(
        &daemon,
        &id,
        r#"
s = connect('ok.test')
s.sendall(b'POST /mirror HTTP/1.1\r\nHost: ok.test:80\r\nTransfer-Encoding: chunked\r\n\r\n')
text = head(s); print(text.split('\r\n')[0])
rest = text.partition('\r\n\r\n')[2].encode()
# Each piece is back before the next is sent.
for piece in (b'one', b'two', b'x' * 70000):
    s.sendall(b'%x\r\n%s\r\n' % (len(piece), piece))
    while rest.count(b'x') < piece.count(b'x') or piece[:3] not in rest: rest += s.recv(1 << 20)
    rest = b''
s.sendall(b'0\r\n\r\n')
while not rest.endswith(b'0\r\n\r\n'): rest += s.recv(65536)
print('mirrored')
# The same connection, and where the server sends its clients.
print(ask(s, '/to/https://ok.test/next').split('Location: ')[-1].split('location: ')[-1].split('\r\n')[0])
s = connect('ok.test')
s.sendall(b'GET /switch HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
print(head(s).split('\r\n')[0]); s.sendall(b'anything\n'); print(s.recv(100))
print(ask(connect('ok.test', 8443), host='ok.test:8443').rpartition('\r\n')[2])
print('address', ask(connect('ok.test', 8443), host='ok.test:443').split('\r\n')[0])
"#,
    );
    assert!(out.contains("mirrored\nhttp://ok.test/next\nHTTP/1.1 101"), "{out}");
    assert!(out.contains("b'anything\\n'\nhello ok.test:8443 /"), "{out}");
    assert!(out.contains("address HTTP/1.1 400"), "{out}");
    assert_eq!(seen.take()[0].header("host"), "ok.test");
}

#[test]
fn a_server_that_is_not_who_it_should_be_gets_nothing() {
    let (world, authority, stranger) = (World::new(), Authority::new(), Authority::new());
    let cases = [
        ("strange.test", "9.9.9.21", stranger.server(&["strange.test"], true), "UPSTREAM_CERTIFICATE"),
        ("wrong.test", "9.9.9.22", authority.server(&["ok.test"], true), "UPSTREAM_CERTIFICATE"),
        ("expired.test", "9.9.9.23", authority.server(&["expired.test"], false), "UPSTREAM_CERTIFICATE"),
    ];
    let mut logs = Vec::new();
    let host = |name: &str| json!({"host": name, "header": {"name": "x-key", "value": SECRET}});
    let mut hosts = vec![host("clear.test"), host("absent.test"), host("good.test")];
    for (name, address, config, _) in &cases {
        world.address(address);
        world.name(name, &[address]);
        logs.push(serve(&world, &format!("{address}:443"), Arc::clone(config)));
        hosts.push(host(name));
    }
    for (name, address) in
        [("clear.test", "9.9.9.24"), ("absent.test", "9.9.9.25"), ("good.test", "9.9.9.26")]
    {
        world.address(address);
        world.name(name, &[address]);
    }
    logs.push(serve_plain(&world, "9.9.9.24:443"));
    let good = serve(&world, "9.9.9.26:443", authority.server(&["good.test"], true));
    let daemon = start(&world, &authority);
    let id = sandbox(&daemon, &json!({"hosts": hosts}));
    let others = [("clear.test", "UPSTREAM_TLS"), ("absent.test", "UNREACHABLE")];
    for (name, code) in cases.iter().map(|(name, _, _, code)| (*name, *code)).chain(others) {
        let out = python(&daemon, &id, &format!("print(ask(connect('{name}'), host='{name}'))"));
        assert!(out.starts_with("HTTP/1.1 502") && out.contains(code), "{name}: {out}");
        assert!(!out.contains(SECRET), "{out}");
    }
    assert!(python(&daemon, &id, "print(ask(connect('good.test'), host='good.test'))").contains("hello"));
    assert_eq!(good.one().header("x-key"), SECRET);
    for log in logs {
        assert!(log.take().is_empty());
    }
}

#[test]
fn deny_and_closed_addresses_win_over_a_host_of_the_policy() {
    let (world, authority) = (World::new(), Authority::new());
    world.name("inside.test", &["10.9.9.9"]);
    let seen = serve(&world, "0.0.0.0:443", authority.server(&["ok.test", "inside.test"], true));
    let daemon = start(&world, &authority);
    let hosts = json!([bearer(), {"host": "inside.test", "upgrade": true}]);
    let id = sandbox(&daemon, &json!({"hosts": hosts, "deny": ["https://ok.test"]}));
    let out = python(&daemon, &id, "print(ask(connect('ok.test')))");
    assert!(out.starts_with("HTTP/1.1 403") && out.contains("deny https://ok.test"), "{out}");
    let script = "
for name, host in (('inside.test', 'inside.test'), ('10.9.9.9', 'inside.test')):
    try: print(ask(connect(name), host=host).split('\\r\\n')[0])
    except OSError as e: print(type(e).__name__)";
    assert_eq!(
        python(&daemon, &id, script),
        "gaierror\nHTTP/1.1 403 Forbidden by the network policy of the sandbox\n"
    );
    assert!(seen.take().is_empty());
    set(&daemon, &id, &json!({"hosts": [bearer()]}));
    assert!(python(&daemon, &id, "print(ask(connect('ok.test')))").contains("hello"));
}

#[test]
fn a_change_that_fails_is_none() {
    let world = World::new();
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let id = daemon.sandbox();
    let launch = daemon.launch_pid();
    // Writing the record takes one descriptor, leading the sandbox to the gateway more.
    let open: Vec<i32> = std::fs::read_dir(format!("/proc/{launch}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let free = (0..).find(|number| !open.contains(number)).unwrap();
    let limit = |soft: &str| {
        host_command("prlimit", &["--pid", &launch.to_string(), &format!("--nofile={soft}:")]);
    };
    let limits = std::fs::read_to_string(format!("/proc/{launch}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let before = line.split_whitespace().nth(3).unwrap();
    limit(&(free + 1).to_string());
    let path = format!("/v1/sandboxes/{id}/network");
    let answer = daemon.request("PUT", &path, Some(&json!({"allow": ["ok.test"]})));
    assert_error(&answer, 503, "CAPACITY_EXHAUSTED");
    limit(before);
    assert_eq!(policy(&daemon, &id), json!({"mode": "none"}));
    let record = std::fs::read(daemon.runtime_dir().join("sandboxes").join(&id).join("record")).unwrap();
    assert!(memchr::memmem::find(&record, b"ok.test").is_none());
    // And it can be made after all.
    set(&daemon, &id, &json!({"allow": ["ok.test"]}));
    assert_eq!(policy(&daemon, &id)["allow"], json!(["ok.test"]));
}

#[test]
fn people_give_credentials_in_files() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let daemon = start(&world, &authority);
    let file = |name: &str, text: &str| {
        let path = daemon.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let says = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let token = format!("ok.test={}", file("token", &format!("{SECRET}\n")));
    let get = "import urllib.request as u; print(u.urlopen('http://ok.test/').read())";
    let out = says(&["run", "--bearer", &token, "--", "python3", "-c", get]);
    assert!(out.contains("hello ok.test"), "{out}");
    assert_eq!(seen.one().header("authorization"), format!("Bearer {SECRET}"));
    says(&["create", "--id", "net", "--upgrade", "ok.test"]);
    let hosts = json!([{"host": "ok.test", "header": {"name": "x-key", "value": SECRET}}]).to_string();
    let out = says(&["network", "set", "net", "--add", "--hosts", &file("hosts", &hosts)]);
    assert_eq!(out, "- host ok.test upgrade\n+ host ok.test header x-key\n");
    says(&["network", "set", "net", "--add", "--allow", "evil.test"]);
    assert!(says(&["exec", "net", "--", "python3", "-c", get]).contains("hello"));
    assert_eq!(seen.one().header("x-key"), SECRET);
    let out = says(&["network", "show", "net"]);
    assert!(
        out.contains("host   ok.test: gets the header x-key, over TLS") && !out.contains(SECRET),
        "{out}"
    );
    let out = says(&[
        "network",
        "set",
        "net",
        "--add",
        "--intercept",
        "ok.test",
        "--handler",
        "stub.internal=stub",
    ]);
    assert_eq!(out, "+ host stub.internal handler stub\n+ intercept ok.test\n");
    let out = says(&["exec", "net", "--", "curl", "-sS", "https://ok.test/"]);
    assert!(out.contains("hello") && seen.one().header("x-key") == SECRET, "{out}");
    let out = says(&["network", "show", "net"]);
    assert!(out.contains("goes to the handler stub\n") && out.contains("opens  TLS of ok.test\n"), "{out}");
    let bad = file("bad", &format!("[{{\"host\": \"ok.test\", \"header\": \"{SECRET}\"}}]"));
    let output = daemon.cli(&["network", "set", "net", "--hosts", &bad]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("is no list of hosts"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    // An upgrade keeps the credential that implies it, and a host is the same however it is written.
    let out = says(&["network", "set", "net", "--add", "--upgrade", "OK.test"]);
    assert_eq!(out, "nothing changes\n");
    says(&["rm", "net"]);
    // Once more: the sandbox is there, and its credentials stay what they were.
    says(&["create", "--id", "net", "--bearer", &token]);
    let other = format!("ok.test={}", file("other", "another"));
    let output = daemon.cli(&["create", "--id", "net", "--bearer", &other]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("with the credentials that it had"), "{text}");
    says(&["rm", "net"]);
}

#[test]
fn a_host_of_the_policy_is_at_its_own_address_alone_whatever_else_is_open() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let secure = serve(&world, &format!("{OTHER}:443"), authority.server(&["evil.test"], true));
    let clear = serve_plain(&world, &format!("{OTHER}:8080"));
    let daemon = start(&world, &authority);
    let script = format!(
        r#"
import ssl
# As a resolver of its own would have it, before and after the name was asked for.
for _ in range(2):
    print('clear', ask(connect('{OTHER}', 8080), '/lie', host='ok.test:8080').replace('\r\n', ' '))
    try: ssl._create_unverified_context().wrap_socket(connect('{OTHER}', 443), server_hostname='ok.test'); print('reached')
    except ssl.SSLError as e: print('tls', e.reason)
    print('good', ask(connect('ok.test')).split('\r\n')[0])
print('other', ask(connect('{OTHER}', 8080), '/other', host='evil.test:8080').split('\r\n')[0])
s = ssl._create_unverified_context().wrap_socket(connect('{OTHER}', 443), server_hostname='evil.test')
print('secure', ask(s, '/other', host='evil.test').split('\r\n')[0])
"#
    );
    for mut network in [json!({"mode": "all"}), json!({"allow": [OTHER]})] {
        network["hosts"] = json!([bearer()]);
        let id = sandbox(&daemon, &network);
        let out = python(&daemon, &id, &script);
        assert_eq!(out.matches("clear HTTP/1.1 403").count(), 2, "{network}: {out}");
        assert_eq!(out.matches("tls TLSV1_ALERT_ACCESS_DENIED").count(), 2, "{network}: {out}");
        assert_eq!(out.matches("good HTTP/1.1 200").count(), 2, "{network}: {out}");
        assert!(out.contains("connect by the name") && !out.contains("reached"), "{network}: {out}");
        assert!(
            out.contains("other HTTP/1.1 200") && out.contains("secure HTTP/1.1 200"),
            "{network}: {out}"
        );
        for log in [&clear, &secure] {
            assert_eq!(log.one().line, "GET /other HTTP/1.1");
        }
        assert_eq!(seen.take().len(), 2);
    }
}

#[test]
fn what_was_agreed_on_with_a_credential_ends_with_it() {
    let (world, authority) = (World::new(), Authority::new());
    serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let daemon = start(&world, &authority);
    let script = format!(
        r#"{PRELUDE}
import time
s = connect('ok.test')
s.sendall(b'GET /switch HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'); head(s)
part = True
while part:
    try: s.sendall(b'anything\n'); part = s.recv(100)
    except OSError: part = b''
    print(part, flush=True); time.sleep(0.05)
"#
    );
    let upgrade = json!([{"host": "ok.test", "upgrade": true}]);
    let other = json!([{"host": "ok.test", "header": {"name": "authorization", "value": "another"}}]);
    for change in [upgrade, other] {
        let id = sandbox(&daemon, &json!({"hosts": [bearer()]}));
        let processes = format!("/v1/sandboxes/{id}/processes");
        let body = json!({"id": "switch", "argv": ["python3", "-c", script]});
        assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
        let wait_for = |text: &str| {
            let wanted = json!({"for": {"log": {"text": text}}, "timeout_ms": 20_000});
            let answer = daemon.request("POST", &format!("{processes}/switch/wait"), Some(&wanted));
            assert_eq!(answer.status, 200, "{change} {text}: {}", String::from_utf8_lossy(&answer.body));
        };
        wait_for("b'anything");
        // A change that leaves it what it is does not end it.
        let same = json!([{"host": "ok.test", "header": {"name": "authorization"}}]);
        set(&daemon, &id, &json!({"hosts": same, "deny": ["evil.test"]}));
        let counters = &daemon.get(&format!("/v1/sandboxes/{id}/network"))["counters"];
        assert_eq!(counters["connections_open"], 1, "{counters}");
        set(&daemon, &id, &json!({"hosts": change}));
        wait_for("b''");
    }
}
