//! What the preview listener passes on, beside nginx as a proxy for the same server.
//!
//! The server is an nginx that answers six bytes: one in a sandbox behind us, one on the host behind the rival. The proxy
//! has the first processor for itself, server and client (wrk) share the second. Both proxies keep their connections and
//! say the same about where a request came from.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Daemon, Place, Report, Running, http, met, ms, quantile};
use crate::process::{self, output, run};

const PROGRAMS: [(&str, &str); 4] =
    [("nginx", "nginx-light"), ("wrk", "wrk"), ("taskset", "util-linux"), ("python3", "python3")];

/// Connections of the client.
const CONNECTIONS: &str = "32";

/// Requests, one after the other, for latency; and those that are not counted.
const SAMPLES: usize = 2000;
const WARM: usize = 200;

const SERVER: &str = "location / { return 200 \"hello\\n\"; }";

/// Measures all rows.
pub(super) fn previews(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    process::need(&PROGRAMS)?;
    let directory = PathBuf::from(place.path("previews"));
    fs::create_dir_all(&directory)?;
    let mut running = Running(Vec::new());
    let (direct, rival) = (free_port()?, free_port()?);
    running.0.push(nginx(
        &directory,
        "server",
        &format!("server {{ listen 127.0.0.1:{direct}; {SERVER} }}"),
        1,
    )?);
    running.0.push(nginx(&directory, "proxy", &proxy(rival, direct), 0)?);
    let mut daemon = Daemon::start(place)?;
    let host = in_sandbox(&mut daemon)?;
    let ours = host.rsplit_once(':').context("no port")?.1.parse()?;
    pin(&daemon)?;
    wait_for(direct)?;
    wait_for(rival)?;
    let (mut stockade, mut nginx_rate) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        nginx_rate.push(rate(rival, "localhost")?);
        stockade.push(rate(ours, &host)?);
    }
    report.title("previews", "what | stockade | nginx as proxy | target");
    let (stockade, nginx_rate) = (median(stockade), median(nginx_rate));
    let ratio = stockade / nginx_rate;
    report.row(&[
        format!("requests per second, {CONNECTIONS} connections that are kept"),
        format!("{stockade:.0}"),
        format!("{nginx_rate:.0}"),
        format!("{ratio:.2} × (at least 0.6) {}", met(ratio >= 0.6)),
    ]);
    let base = latency(direct, "localhost")?;
    let added = |port, host: &str| Ok::<_, anyhow::Error>(ms(latency(port, host)?) - ms(base));
    let (by_us, by_nginx) = (added(ours, &host)?, added(rival, "localhost")?);
    report.row(&[
        "latency added, p50".to_owned(),
        format!("{by_us:.3} ms"),
        format!("{by_nginx:.3} ms"),
        format!("at most 0.2 ms {}", met(by_us <= 0.2)),
    ]);
    let echo = free_port()?;
    running.0.push(python(echo)?);
    wait_for(echo)?;
    let base = websocket(echo, "localhost")?;
    let by_us = ms(websocket(ours, &host.replacen("8000-", "8001-", 1))?) - ms(base);
    report.row(&[
        "WebSocket echo added, p50".to_owned(),
        format!("{by_us:.3} ms"),
        String::new(),
        format!("at most 0.3 ms {}", met(by_us <= 0.3)),
    ]);
    report.note(
        "One processor for the proxy, one for server and client together. Added is the difference to the same server \
         on the host without a proxy.",
    );
    daemon.call("DELETE", "/v1/sandboxes/previews", b"", 204)?;
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("nobody listens on port {port}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A whole configuration, of one process, with every file in this directory.
fn configuration(directory: &str, http: &str) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {directory}/{kind};"))
        .concat();
    format!(
        "daemon off; master_process off; worker_processes 1; user root; pid {directory}/pid; error_log stderr crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; {temporary} {http} }}\n"
    )
}

fn nginx(directory: &Path, name: &str, http: &str, processor: usize) -> Result<Child> {
    let own = directory.join(name);
    fs::create_dir_all(&own)?;
    let path = own.join("nginx.conf");
    fs::write(&path, configuration(&own.display().to_string(), http))?;
    Command::new("taskset")
        .args(["-c", &processor.to_string(), "nginx", "-e", "stderr", "-p"])
        .arg(&own)
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start nginx")
}

fn proxy(listen: u16, to: u16) -> String {
    format!(
        "upstream server {{ server 127.0.0.1:{to}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{listen}; location / {{\n\
         proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Original-URL $scheme://$host$request_uri; proxy_set_header X-Sandbox-Name previews; }} }}"
    )
}

/// The same server in a sandbox on port 8000, and an echo on 8001. Gives the host name of the first.
fn in_sandbox(daemon: &mut Daemon) -> Result<String> {
    daemon.call("POST", "/v1/sandboxes", br#"{"id":"previews"}"#, 201)?;
    let server = format!("server {{ listen 127.0.0.1:8000; {SERVER} }}");
    for (name, text) in
        [("nginx.conf", configuration("/tmp", &server)), ("server.py", fs::read_to_string(echo_server())?)]
    {
        let path = format!("/v1/sandboxes/previews/files/content?path=/workspace/{name}");
        daemon.call("PUT", &path, text.as_bytes(), 200)?;
    }
    for argv in [
        json!(["taskset", "-c", "1", "nginx", "-e", "stderr", "-p", "/tmp", "-c", "/workspace/nginx.conf"]),
        json!(["taskset", "-c", "1", "python3", "/workspace/server.py", "8001"]),
    ] {
        let spec = json!({"argv": argv}).to_string();
        daemon.call("POST", "/v1/sandboxes/previews/processes", spec.as_bytes(), 201)?;
    }
    let mut host = String::new();
    for port in [8001, 8000] {
        let spec = json!({"port": port, "token": "bench", "wait_ms": 10_000}).to_string();
        let exposed = daemon.call("POST", "/v1/sandboxes/previews/ports", spec.as_bytes(), 201)?;
        let exposed: Value = serde_json::from_slice(&exposed)?;
        let url = exposed["url"].as_str().context("no previews")?;
        url.trim_start_matches("http://").trim_end_matches('/').clone_into(&mut host);
    }
    Ok(host)
}

fn echo_server() -> PathBuf {
    process::root().join("tests/fixtures/previews/server.py")
}

fn python(port: u16) -> Result<Child> {
    Command::new("taskset")
        .args(["-c", "1", "python3"])
        .arg(echo_server())
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the echo")
}

/// Puts all threads of serve on the first processor.
fn pin(daemon: &Daemon) -> Result<()> {
    let serve = daemon.role("stockade-serve")?;
    run(Command::new("taskset").args(["-a", "-p", "-c", "0", &serve.to_string()]).stdout(Stdio::null()))
}

/// Requests per second.
fn rate(port: u16, host: &str) -> Result<f64> {
    let text = output(
        Command::new("taskset")
            .args(["-c", "1", "wrk", "-t", "1", "-c", CONNECTIONS, "-d", "3", "-H"])
            .arg(format!("Host: {host}"))
            .arg(format!("http://127.0.0.1:{port}/")),
    )?;
    if text.contains("Non-2xx") {
        bail!("not every answer is a success:\n{text}");
    }
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    line.context("wrk says nothing")?.trim().parse().context("wrk says no number")
}

/// The median time of a request on a connection that is kept.
fn latency(port: u16, host: &str) -> Result<Duration> {
    let mut connection = http::Connection::connect(("127.0.0.1", port), host)?;
    let mut samples = Vec::new();
    for round in 0..SAMPLES + WARM {
        let start = Instant::now();
        let answer = connection.request("GET", "/", &[], b"")?;
        let took = start.elapsed();
        if answer.body != b"hello\n" {
            bail!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        if round >= WARM {
            samples.push(took);
        }
    }
    Ok(quantile(&samples, 0.5))
}

/// The median time of one byte there and back.
fn websocket(port: u16, host: &str) -> Result<Duration> {
    let mut connection = http::Connection::connect(("127.0.0.1", port), host)?;
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    connection.send("GET", "/ws", &headers, b"")?;
    let head = connection.receive_head()?;
    if head.status != 101 {
        bail!("the echo answers {}", head.status);
    }
    let mut stream = connection.into_stream();
    let mut samples = Vec::new();
    for round in 0..SAMPLES + WARM {
        let start = Instant::now();
        // One masked binary frame of one byte (RFC 6455 §5.2), with a mask of zeros.
        stream.write_all(&[0x82, 0x81, 0, 0, 0, 0, b'x'])?;
        let mut answer = [0; 3];
        stream.read_exact(&mut answer)?;
        if round >= WARM {
            samples.push(start.elapsed());
        }
    }
    Ok(quantile(&samples, 0.5))
}
