//! What leaves a sandbox through the gateway, beside a connection without it, beside the least that a proxy can do, and
//! beside slirp4netns.
//!
//! ```text
//! near namespace: daemon and gateway, direct client, proxy, slirp4netns ── veth ── far namespace: server
//! ```
//!
//! Server and client are one C program (`bench/net.c`). The direct client connects from the near namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Daemon, Place, Report, Running, memory, met, ms, quantile};
use crate::process::{self, output, run, target};

const PROGRAMS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("slirp4netns", "slirp4netns"), ("nsenter", "util-linux"), ("gcc", "gcc")];

const NEAR: &str = "9.9.8.1";
const FAR: &str = "9.9.8.2";
/// The proxy of the near namespace.
const PROXY: &str = "127.0.0.1";
const PORT: &str = "9000";

/// Connections, one after the other, whose median is one sample.
const CONNECTIONS: &str = "300";

/// What is downloaded at once.
const BYTES: u64 = 1 << 30;

/// The two namespaces and what runs in them, until this is dropped.
struct World {
    near: String,
    far: String,
    running: Running,
}

impl World {
    fn new(net: &Path) -> Result<Self> {
        let name = |what: &str| format!("st-bench-{}-{what}", std::process::id());
        let mut this = Self { near: name("near"), far: name("far"), running: Running(Vec::new()) };
        let Self { near, far, .. } = &this;
        for line in [
            format!("netns add {near}"),
            format!("netns add {far}"),
            format!("link add out netns {near} type veth peer name in netns {far}"),
            format!("-n {near} link set lo up"),
            format!("-n {near} addr add {NEAR}/24 dev out"),
            format!("-n {near} link set out up"),
            format!("-n {far} addr add {FAR}/24 dev in"),
            format!("-n {far} link set in up"),
            format!("-n {near} route add default via {FAR}"),
        ] {
            run(Command::new("ip").args(line.split_whitespace()))?;
        }
        let mut server = within(&this.far, net);
        this.running.0.push(server.args(["serve", FAR, PORT]).stdin(Stdio::null()).spawn()?);
        let mut proxy = within(&this.near, net);
        this.running.0.push(proxy.args(["proxy", FAR, PORT]).stdin(Stdio::null()).spawn()?);
        for address in [FAR, PROXY] {
            until_it_answers(address, |words| this.near(net, words))?;
        }
        Ok(this)
    }

    fn near(&self, net: &Path, words: &[&str]) -> Result<Duration> {
        nanoseconds(&output(within(&self.near, net).args(words).stderr(Stdio::null()))?)
    }

    /// A namespace whose only way out is slirp4netns in the near one. Gives the process that holds it.
    fn slirp(&mut self) -> Result<u32> {
        let mut holder = Command::new("unshare");
        let holder = holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn()?;
        let pid = holder.id();
        self.running.0.push(holder);
        // Its namespace is its own after unshare has done its work.
        let (own, start) = (fs::read_link("/proc/self/ns/net")?, Instant::now());
        while fs::read_link(format!("/proc/{pid}/ns/net"))? == own {
            if start.elapsed() > Duration::from_secs(5) {
                bail!("unshare makes no network namespace");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut slirp = within(&self.near, Path::new("slirp4netns"));
        slirp.args(["--configure", "--mtu=65520", &pid.to_string(), "tap0"]);
        slirp.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running.0.push(slirp.spawn()?);
        Ok(pid)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn within(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

fn until_it_answers(address: &str, mut measure: impl FnMut(&[&str]) -> Result<Duration>) -> Result<()> {
    let start = Instant::now();
    while measure(&["download", address, PORT, "1"]).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("nobody answers on {address}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn nanoseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_nanos(text.trim().parse().context("no time was said")?))
}

/// Medians of one contestant.
#[derive(Default)]
struct Samples {
    first: Vec<Duration>,
    bulk: Vec<Duration>,
}

impl Samples {
    fn add(&mut self, at: &str, mut measure: impl FnMut(&[&str]) -> Result<Duration>) -> Result<()> {
        self.first.push(measure(&["connect", at, PORT, CONNECTIONS])?);
        self.bulk.push(measure(&["download", at, PORT, &BYTES.to_string()])?);
        Ok(())
    }

    fn first(&self) -> f64 {
        ms(quantile(&self.first, 0.5))
    }

    /// MiB/s.
    fn rate(&self) -> f64 {
        (BYTES >> 20) as f64 / quantile(&self.bulk, 0.5).as_secs_f64()
    }
}

/// Measures all rows, the last of them with so many sandboxes.
pub(super) fn gateway(place: &Place, report: &mut Report, rounds: usize, sandboxes: usize) -> Result<()> {
    process::need(&PROGRAMS)?;
    let net = target().join("bench-net");
    let source = process::root().join("xtask/bench/net.c");
    run(Command::new("gcc").args(["-O2", "-static", "-o"]).arg(&net).arg(source))?;
    let mut world = World::new(&net)?;
    let mut daemon =
        Daemon::start_in(&place.directory, Some(&PathBuf::from("/run/netns").join(&world.near)))?;
    let rule = format!("tcp://{FAR}:{PORT}");
    daemon.sandbox("gateway", &rule)?;
    let path = "/v1/sandboxes/gateway/files/content?path=/workspace/net&mode=755";
    daemon.call("PUT", path, &fs::read(&net)?, 200)?;
    let slirp = world.slirp()?.to_string();
    let mut through_slirp = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        nanoseconds(&output(command.args(["--target", &slirp, "--net"]).arg(&net).args(words))?)
    };
    until_it_answers(FAR, &mut through_slirp)?;
    let mut all: [Samples; 4] = Default::default();
    let [direct, proxy, ours, theirs] = &mut all;
    for _ in 0..rounds {
        direct.add(FAR, |words| world.near(&net, words))?;
        proxy.add(PROXY, |words| world.near(&net, words))?;
        ours.add(FAR, |words| daemon.client(words))?;
        theirs.add(FAR, &mut through_slirp)?;
    }
    rows(report, &all);
    drop(world);
    many(place, report, sandboxes)
}

fn rows(report: &mut Report, [direct, proxy, ours, theirs]: &[Samples; 4]) {
    report.title("gateway", "what | stockade | without | splice proxy | slirp4netns | target");
    let added = ours.first() - direct.first();
    report.row(&[
        "a new connection until its first byte, p50".to_owned(),
        format!("{:.3} ms", ours.first()),
        format!("{:.3} ms", direct.first()),
        format!("{:.3} ms", proxy.first()),
        format!("{:.3} ms", theirs.first()),
        format!("{added:.3} ms added (at most 0.5) {}", met(added <= 0.5)),
    ]);
    let (ratio, rival) = (ours.rate() / direct.rate(), ours.rate() / theirs.rate());
    report.row(&[
        "download of 1 GiB".to_owned(),
        format!("{:.0} MiB/s", ours.rate()),
        format!("{:.0} MiB/s", direct.rate()),
        format!("{:.0} MiB/s", proxy.rate()),
        format!("{:.0} MiB/s", theirs.rate()),
        format!(
            "{ratio:.2} × without (at least 0.7) {}, {rival:.1} × slirp4netns (more than 1) {}",
            met(ratio >= 0.7),
            met(rival > 1.0)
        ),
    ]);
}

/// The gateway's memory with so many sandboxes that have a policy.
fn many(place: &Place, report: &mut Report, sandboxes: usize) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.import(place)?;
    for number in 0..sandboxes {
        daemon.sandbox(&format!("gateway-{number}"), "https://*.example.org")?;
    }
    let gateway = daemon.role("stockade-gateway")?;
    let kib = memory::pss(gateway);
    let own = memory::rollup(gateway, "Anonymous:");
    let mib = kib as f64 / 1024.0;
    report.row(&[
        format!("memory for {sandboxes} sandboxes with policies, PSS"),
        format!("{mib:.1} MiB, {:.1} of them its own", own as f64 / 1024.0),
        String::new(),
        String::new(),
        String::new(),
        format!("at most 30 MiB {}", met(mib <= 30.0)),
    ]);
    report.note(
        "Client and server are one C program, in two network namespaces with a veth between them; the gateway, the proxy\n\
         and slirp4netns (MTU 65520) run in the client's. The proxy is the least that passing bytes on costs: one C\n\
         thread that splices and decides nothing. Each median of first bytes is one of medians of 300 connections.",
    );
    for number in 0..sandboxes {
        daemon.call("DELETE", &format!("/v1/sandboxes/gateway-{number}"), b"", 204)?;
    }
    Ok(())
}

impl Daemon {
    /// One of the host's own programs, with a rule.
    fn sandbox(&mut self, id: &str, rule: &str) -> Result<()> {
        let spec = json!({"id": id, "network": {"allow": [rule]}}).to_string();
        self.call("POST", "/v1/sandboxes", spec.as_bytes(), 201).map(|_| ())
    }

    /// The client of `bench/net.c` in the sandbox.
    fn client(&mut self, words: &[&str]) -> Result<Duration> {
        let argv: Vec<&str> = [&["/workspace/net"], words].concat();
        let spec = json!({"argv": argv}).to_string();
        let result = self.call("POST", "/v1/sandboxes/gateway/commands", spec.as_bytes(), 200)?;
        let result: Value = serde_json::from_slice(&result)?;
        if result["exit_code"] != 0 {
            bail!("{words:?} gives {result}");
        }
        nanoseconds(result["stdout"].as_str().unwrap_or_default())
    }
}
