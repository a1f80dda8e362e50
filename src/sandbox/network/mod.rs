//! What may leave a sandbox, seen from serve: launch keeps the policy, the gateway keeps count.
//!
//! serve has no copy of its own that could differ. A dry run asks the gateway's own code what it would decide about
//! what was tried lately.
//!
//! Secrets pass through: they come with a policy, go into a sealed file in memory, and are read back from launch only
//! when a change keeps some of them. No index and no answer holds one.

mod hosts;
mod secrets;
mod trust;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::environment::EnvironmentChange;
use super::files::Files;
use super::launcher::{Launcher, launcher_error};
use super::{Caller, Sandbox, Sandboxes, State, command};
use crate::error::{Error, ErrorCode};
use crate::gateway::policy::{self, Spoken, Way};
use crate::gateway::rule;
use crate::id::SandboxId;
use crate::journal::feed::Kind;
use crate::limits;
use crate::sys::channel::Channel;
use crate::wire::gateway::Target;
use crate::wire::gateway::{Counters, Event, Limits, Mode, Network, Policy, Query, Rule, Subject, Told};
use crate::wire::launch::{Answer, Call};
pub use hosts::{AwsCredential, BasicCredential, HeaderCredential, NetworkHost};
pub use secrets::Egress;
pub(super) use secrets::{Beginning, begin};
pub(super) use trust::variables as trust_variables;

/// What may leave a sandbox, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkPolicy {
    /// What happens to what no rule names: `none`, nothing leaves; `allow`, what `allow` names leaves; `all`, whatever
    /// goes to a public address leaves. When absent `allow` if there are such rules, and `none` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Rules `[PROTOCOL://]WHOM[:PORTS]`: PROTOCOL is `tcp`, `http` or `https`; WHOM a name, `*.name`, an address or a
    /// range; PORTS like `443`, `8000-8100` or `80,443`. Addresses that are not public must be opened by an operator
    /// (`network.open`) as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["https://*.example.com", "10.1.2.0/24:5432"]))]
    pub allow: Vec<String>,
    /// The same. Wins over everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Hosts whose requests get a credential, go over TLS, or go to a handler. Each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<NetworkHost>,
    /// Names, like those of rules, whose TLS the gateway opens, so that it sees requests as it does those of plain HTTP;
    /// `*` is all. The sandbox gets a certificate authority of its own, and variables by which curl, Python, Node and
    /// git find it, in what is started from then on, unless they are set already. An image without certificates of its
    /// own trusts this one alone by them. HTTP/1.1 alone is spoken there, and clients that trust only what
    /// they bring refuse it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["api.example.com"]))]
    pub intercept: Vec<String>,
    /// How much of it.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "NetworkLimits::is_default")]
    pub limits: NetworkLimits,
}

/// How much may leave a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkLimits {
    /// Connections at the same time; 256 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4096)]
    pub connections: Option<u32>,
    /// New connections per second; 100 when absent. Ten seconds' worth may come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub connections_per_second: Option<u32>,
    /// Bytes per second, both directions together. No limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1024)]
    pub bytes_per_second: Option<u64>,
}

impl NetworkLimits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A sandbox's network.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// What may leave.
    pub policy: NetworkPolicy,
    /// What has left, and what has not, since the daemon was started.
    pub counters: Counters,
}

/// What a change changes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkChange {
    /// The policy afterwards.
    pub policy: NetworkPolicy,
    /// Whether it was only a question.
    pub dry_run: bool,
    /// What is new, as `allow RULE`, `deny RULE`, `mode MODE`, `host HOST …`, `credential HOST` for another one than
    /// before, or `intercept NAME`.
    pub added: Vec<String>,
    /// What is gone.
    pub removed: Vec<String>,
    /// What was tried lately and is decided otherwise now.
    pub affected: Vec<NetworkEffect>,
    /// What could not be done inside the sandbox so that its programs trust the authority of TLS that is opened. The
    /// policy is in force all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Something that was tried and is decided otherwise now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkEffect {
    /// About what.
    pub subject: Subject,
    /// `host:port`, a name, or an address.
    pub target: String,
    /// What it becomes.
    pub allowed: bool,
    /// By which rule.
    pub rule: String,
}

/// Decisions about a sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NetworkEvents {
    /// The oldest first.
    pub events: Vec<Event>,
    /// What to give as `after` for those that follow.
    pub next: u64,
}

fn refuse(field: &str, rule: impl std::fmt::Display, fix: &'static str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("{field} {rule}"))
        .hint(fix)
        .context(serde_json::json!({ "field": field }))
}

/// Parses a policy, once and for all.
///
/// # Errors
/// `INVALID_REQUEST` names the rule.
pub fn parse_policy(wanted: &NetworkPolicy) -> Result<Egress, Error> {
    let texts = wanted.allow.iter().chain(&wanted.deny).chain(&wanted.intercept);
    let bytes: usize = texts.map(String::len).sum();
    if bytes > limits::POLICY_BYTES_MAX {
        let most = limits::POLICY_BYTES_MAX;
        return Err(refuse(
            "network",
            format!("has rules of {bytes} bytes, at most {most}"),
            "use `*` or ranges",
        ));
    }
    let allow = rules("network.allow", &wanted.allow)?;
    let deny = rules("network.deny", &wanted.deny)?;
    let (hosts, given) = hosts::parse(&wanted.hosts)?;
    let intercept = intercepted(&wanted.intercept)?;
    let something = !allow.is_empty() || !hosts.is_empty() || !intercept.is_empty();
    let mode = wanted.mode.unwrap_or(if something { Mode::Allow } else { Mode::None });
    if mode == Mode::None && something {
        return Err(refuse(
            "network.mode",
            "is `none`, and there are rules in `allow`, `hosts` or `intercept`",
            "leave the mode out, or the rules",
        ));
    }
    let limits = parse_limits(wanted.limits)?;
    Ok(Egress { policy: Policy { mode, allow, deny, limits, hosts, intercept }, secrets: given })
}

/// Names whose TLS is opened.
fn intercepted(texts: &[String]) -> Result<Vec<String>, Error> {
    let most = limits::EGRESS_HOSTS_MAX;
    if texts.len() > most {
        return Err(refuse("network.intercept", format!("has more than {most} names"), "use `*`"));
    }
    let parse = |(index, text): (usize, &String)| {
        let parsed = rule::parse(text).ok().filter(|rule| rule.ports.is_empty() && rule.text == *text);
        match parsed.map(|rule| rule.target) {
            Some(Target::Anything) => Ok("*".to_owned()),
            Some(Target::Domain(name)) => Ok(name),
            _ => Err(refuse(
                &format!("network.intercept[{index}]"),
                "is not a name",
                "write a name in lower case, *.name or *, without protocol and ports",
            )),
        }
    };
    texts.iter().enumerate().map(parse).collect()
}

fn parse_limits(given: NetworkLimits) -> Result<Limits, Error> {
    let within = |field: &str, value: Option<u32>, most: u32, default: u32| match value {
        Some(value) if !(1..=most).contains(&value) => {
            Err(refuse(field, format!("must be between 1 and {most}"), "leave it out for the default"))
        }
        value => Ok(value.unwrap_or(default)),
    };
    if given.bytes_per_second.is_some_and(|rate| !(1024..=limits::SIZE_MAX).contains(&rate)) {
        return Err(refuse(
            "network.limits.bytes_per_second",
            "must be at least 1024",
            "leave it out for no limit",
        ));
    }
    Ok(Limits {
        connections: within(
            "network.limits.connections",
            given.connections,
            limits::EGRESS_CONNECTIONS_MAX,
            limits::EGRESS_CONNECTIONS_DEFAULT,
        )?,
        connections_per_second: within(
            "network.limits.connections_per_second",
            given.connections_per_second,
            limits::EGRESS_RATE_MAX,
            limits::EGRESS_RATE_DEFAULT,
        )?,
        bytes_per_second: given.bytes_per_second.unwrap_or(0),
    })
}

fn rules(field: &str, texts: &[String]) -> Result<Vec<Rule>, Error> {
    if texts.len() > limits::POLICY_RULES_MAX {
        let most = limits::POLICY_RULES_MAX;
        return Err(refuse(field, format!("has {} rules, at most {most}", texts.len()), "use `*` or ranges"));
    }
    let parse = |(index, text): (usize, &String)| {
        rule::parse(text).map_err(|why| {
            refuse(
                &format!("{field}[{index}]"),
                format!("is no rule: {why}"),
                "write [PROTOCOL://]WHOM[:PORTS], like https://*.example.com or 10.1.2.0/24:5432",
            )
        })
    };
    texts.iter().enumerate().map(parse).collect()
}

/// A policy as text.
fn show(policy: &Policy) -> NetworkPolicy {
    let texts = |rules: &[Rule]| rules.iter().map(|rule| rule.text.clone()).collect();
    let default = Limits::default();
    let unlike = |value: u32, default: u32| (value != default).then_some(value);
    NetworkPolicy {
        mode: Some(policy.mode),
        allow: texts(&policy.allow),
        deny: texts(&policy.deny),
        hosts: policy.hosts.iter().map(hosts::show).collect(),
        intercept: policy.intercept.clone(),
        limits: NetworkLimits {
            connections: unlike(policy.limits.connections, default.connections),
            connections_per_second: unlike(
                policy.limits.connections_per_second,
                default.connections_per_second,
            ),
            bytes_per_second: (policy.limits.bytes_per_second != 0).then_some(policy.limits.bytes_per_second),
        },
    }
}

/// The connection to the gateway, opened when it is needed.
#[derive(Debug, Default)]
pub(super) struct Peer(Mutex<Option<Channel>>);

impl Peer {
    /// What the gateway says of a sandbox; nothing when none runs.
    async fn ask(&self, launcher: &Launcher, query: &Query) -> Told {
        let mut channel = self.0.lock().await;
        // Twice: the first may have been to a gateway that has died since.
        for _ in 0..2 {
            if channel.is_none() {
                let Ok((_, mut fds)) = launcher.call(Call::Gateway, &[]).await else { break };
                *channel = fds.pop().and_then(|fd| Channel::new(fd).ok());
            }
            // Taken while it is used: a caller that goes away leaves no answer behind for the next one.
            let Some(used) = channel.take() else { break };
            let asked = async {
                used.send(query, &[]).await?;
                used.receive::<Told>().await
            };
            if let Ok((told, _)) = asked.await {
                *channel = Some(used);
                return told;
            }
        }
        Told::default()
    }
}

impl Sandboxes {
    /// What may leave a sandbox, and what has.
    ///
    /// # Errors
    /// As [`get`](Self::get), and when the sandbox has ended.
    pub async fn network(&self, caller: &Caller, id: &SandboxId) -> Result<NetworkView, Error> {
        let sandbox = self.get(caller, id)?;
        let policy = match sandbox.state() {
            State::Running | State::Paused => self.policy(id).await?.0,
            State::Stopped | State::Dead => sandbox.changing().network.clone().unwrap_or_default(),
        };
        let told = self.told(id, 0, 0).await;
        Ok(NetworkView { policy: show(&policy), counters: told.counters })
    }

    pub(super) async fn policy(&self, id: &SandboxId) -> Result<(Policy, Option<OwnedFd>), Error> {
        match self.0.launcher.call(Call::Network { id: id.clone(), policy: None }, &[]).await {
            Ok((Answer::Network(policy), mut fds)) => Ok((*policy, fds.pop())),
            Ok(_) => Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(error) => Err(launcher_error(error)),
        }
    }

    pub(super) async fn told(&self, id: &SandboxId, after: u64, limit: u32) -> Told {
        self.0.gateway.ask(&self.0.launcher, &Query { id: id.clone(), after, limit }).await
    }

    /// Decisions about a sandbox after one of them.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn network_events(
        &self,
        caller: &Caller,
        id: &SandboxId,
        after: u64,
        limit: u32,
    ) -> Result<NetworkEvents, Error> {
        self.get(caller, id)?;
        let events = self.told(id, after, limit).await.events;
        let next = events.last().map_or(after, |event| event.seq);
        Ok(NetworkEvents { events, next })
    }

    /// Lets something else leave a sandbox. In force when this returns: what it does not allow any more has ended.
    ///
    /// # Errors
    /// As [`network`](Self::network), and when the host cannot lead a sandbox's connections to the gateway.
    pub async fn set_network(
        &self,
        caller: &Caller,
        id: &SandboxId,
        wanted: Egress,
        dry_run: bool,
    ) -> Result<NetworkChange, Error> {
        // One change after the other: each keeps what the one before has left.
        let (sandbox, turn) = self.turn(caller, id).await?;
        let (before, file) = self.policy(id).await?;
        let known = file.map(secrets::read).transpose()?.unwrap_or_default();
        let Egress { policy, secrets: mut given } = wanted;
        hosts::keep(&policy.hosts, &mut given, (&before.hosts, &known))?;
        given.authority = known.authority.clone();
        let mut events = Vec::new();
        loop {
            let after = events.last().map_or(0, |event: &Event| event.seq);
            let told = self.told(id, after, limits::EGRESS_ANSWER_MAX).await;
            if told.events.is_empty() || events.len() >= limits::EGRESS_EVENTS_MAX {
                break;
            }
            events.extend(told.events);
        }
        let mut change = change(&before, &policy, &self.0.settings.open_networks, &events, dry_run);
        change.added.extend(hosts::others(&policy.hosts, &given, (&before.hosts, &known)));
        if dry_run || (policy == before && given == known) {
            return Ok(change);
        }
        let opens = !policy.intercept.is_empty();
        let certificate = opens.then(|| secrets::authorize(id, &mut given)).transpose()?;
        let file = secrets::sealed(&given)?;
        let call = Call::Network { id: id.clone(), policy: Some(Box::new(policy.clone())) };
        self.0.launcher.call(call, file.as_slice()).await.map_err(launcher_error)?;
        self.keep_network(&sandbox, policy)?;
        let said = serde_json::json!({"added": change.added, "removed": change.removed});
        sandbox.voice.say(Kind::NetworkChanged, said);
        drop(turn);
        // In force before the sandbox has a say: its root could keep the files from being written, or make it slow.
        let is_first = before.intercept.is_empty() || known.authority != given.authority;
        match certificate {
            Some(certificate) if is_first => change.warnings = sandbox.introduce(&certificate).await,
            None if !before.intercept.is_empty() => change.warnings = sandbox.take_leave().await,
            _ => {}
        }
        Ok(change)
    }

    /// Lets the programs of a sandbox that begins to run again, or begins as a fork, trust its own authority. Its files
    /// are those of a snapshot, of another sandbox, or what its programs have left. What stands in the way is theirs as
    /// well, and keeps nobody from beginning.
    pub(super) async fn trust_anew(&self, sandbox: &Sandbox, fork: bool) {
        let opens = |policy: &Policy| !policy.intercept.is_empty();
        if !sandbox.facts.plan.network.as_ref().is_some_and(opens) {
            return;
        }
        let trusted = async {
            let certificate = self.certificate(&sandbox.facts.id, fork).await?;
            sandbox.trust(&certificate).await
        };
        let outcome = tokio::time::timeout(super::TRY_USER, trusted).await;
        if !matches!(outcome, Ok(Ok(()))) {
            tracing::warn!(id = %sandbox.facts.id, ?outcome, "the authority was not put into the sandbox");
        }
    }

    /// The certificate of the authority that a sandbox has. A fork comes with its parent's, and gets its own.
    async fn certificate(&self, id: &SandboxId, fork: bool) -> Result<Vec<u8>, Error> {
        let (policy, file) = self.policy(id).await?;
        let mut known = file.map(secrets::read).transpose()?.unwrap_or_default();
        let has = known.authority.is_some() && !fork;
        if fork {
            known.authority = None;
        }
        let certificate = secrets::authorize(id, &mut known)?;
        if !has {
            let file = secrets::sealed(&known)?;
            let call = Call::Network { id: id.clone(), policy: Some(Box::new(policy)) };
            self.0.launcher.call(call, file.as_slice()).await.map_err(launcher_error)?;
        }
        Ok(certificate)
    }

    /// Writes down what a sandbox may reach when it is woken.
    fn keep_network(&self, sandbox: &Arc<Sandbox>, policy: Policy) -> Result<(), Error> {
        // One that is being stopped takes it from launch.
        self.change(sandbox, |changing| changing.network = Some(policy)).map(|_| ())
    }
}

impl Sandbox {
    /// Lets its programs trust an authority.
    pub(super) async fn trust(&self, certificate: &[u8]) -> Result<(), Error> {
        trust::install(&self.files_of_root()?, certificate).await
    }

    fn files_of_root(&self) -> Result<Files, Error> {
        let agent = self.agent().ok_or_else(|| command::dead(super::agent::Gone))?;
        let root = super::spec::user("0")?;
        Ok(self.files.of(Arc::clone(agent), root, "/".to_owned(), self.hold()))
    }
}

impl Sandbox {
    /// The same while it runs: what the owner has set stays. Gives what was not done, in words.
    async fn introduce(&self, certificate: &[u8]) -> Vec<String> {
        if let Err(error) = self.trust(certificate).await {
            let fix = "take the names out of intercept and set them again when it can be written";
            return vec![format!("the authority was not put into the sandbox: {}; {fix}", error.message)];
        }
        let there = self.environment();
        let (mut set, mut warnings) = (trust::variables(), Vec::new());
        set.retain(|name, file| {
            if there.get(name).is_some_and(|value| value != file) {
                warnings.push(format!(
                    "{name} is set already: what goes by it trusts the authority only with {file}"
                ));
            }
            !there.contains_key(name)
        });
        if let Err(error) = self.change_environment(EnvironmentChange { set, ..Default::default() }) {
            warnings.push(format!("the variables for the authority were not set: {}", error.message));
        }
        warnings
    }

    /// When no TLS is opened any more: takes away what led programs to the authority, and leaves the owner's. Gives what
    /// was not done, in words.
    async fn take_leave(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let there = self.environment();
        let ours = trust::variables().into_iter().filter(|(name, file)| there.get(name) == Some(file));
        let unset = ours.map(|(name, _)| name).collect();
        if let Err(error) = self.change_environment(EnvironmentChange { unset, ..Default::default() }) {
            warnings.push(format!("the variables for the authority were not unset: {}", error.message));
        }
        let removed = async { trust::remove(&self.files_of_root()?).await };
        if let Err(error) = removed.await {
            warnings.push(format!("the authority's files were not removed: {}", error.message));
        }
        warnings
    }
}

/// What differs, and what that means for what was tried.
fn change(
    before: &Policy,
    after: &Policy,
    open: &[Network],
    events: &[Event],
    dry_run: bool,
) -> NetworkChange {
    let (was, becomes) = (lines(before), lines(after));
    let without = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let mut affected: Vec<NetworkEffect> = Vec::new();
    for event in events {
        let (verdict, target) = again(after, open, event);
        // Whatever the event says: the policy may have been changed since.
        let (old, _) = again(before, open, event);
        if verdict.allowed != old.allowed
            && !affected.iter().any(|one| one.target == target && one.subject == event.subject)
        {
            affected.push(NetworkEffect {
                subject: event.subject,
                target,
                allowed: verdict.allowed,
                rule: verdict.rule,
            });
        }
    }
    NetworkChange {
        policy: show(after),
        dry_run,
        added: without(&becomes, &was),
        removed: without(&was, &becomes),
        affected,
        warnings: Vec::new(),
    }
}

/// What a policy decides about something that was tried.
fn again(policy: &Policy, open: &[Network], event: &Event) -> (policy::Verdict, String) {
    let host = event.host.as_deref();
    let (Some(address), Some(port)) = (event.address, event.port) else {
        let name = host.unwrap_or_default();
        return (policy::name(policy, name), name.to_owned());
    };
    let pinned: Vec<String> = host.map(str::to_owned).into_iter().collect();
    // serve does not ask the host's kernel: an address of the host's own is known by the rule that refused it.
    let hosts_own = event.rule.ends_with("(the host's own)");
    let way = Way { address, port, pinned: &pinned, hosts_own };
    let (spoken, name) = match event.protocol.as_str() {
        "http" => (Spoken::Http, host),
        "tls" | "https" => (Spoken::Tls, host),
        _ => (Spoken::Other, None),
    };
    let target = match (host, address) {
        (Some(host), _) => format!("{host}:{port}"),
        (None, address) => std::net::SocketAddr::new(address, port).to_string(),
    };
    (policy::said(policy, open, &way, spoken, name), target)
}

fn lines(policy: &Policy) -> Vec<String> {
    let mode = match policy.mode {
        Mode::None => "none",
        Mode::Allow => "allow",
        Mode::All => "all",
    };
    let Limits { connections, connections_per_second, bytes_per_second } = policy.limits;
    let mut lines = vec![
        format!("mode {mode}"),
        format!("limits.connections {connections}"),
        format!("limits.connections_per_second {connections_per_second}"),
        format!("limits.bytes_per_second {bytes_per_second}"),
    ];
    lines.extend(policy.allow.iter().map(|rule| format!("allow {}", rule.text)));
    lines.extend(policy.deny.iter().map(|rule| format!("deny {}", rule.text)));
    lines.extend(policy.hosts.iter().map(hosts::line));
    lines.extend(policy.intercept.iter().map(|name| format!("intercept {name}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Policy, Error> {
        parse_policy(&serde_json::from_str(text).expect("JSON")).map(|egress| egress.policy)
    }

    #[test]
    fn an_empty_policy_is_none_and_contradictions_are_refused() {
        assert_eq!(parsed("{}").expect("empty").mode, Mode::None);
        assert_eq!(parsed(r#"{"allow": ["a.test"]}"#).expect("list").mode, Mode::Allow);
        let host = parsed(r#"{"hosts": [{"host": "a.test", "upgrade": true}], "intercept": ["*"]}"#);
        assert_eq!(host.expect("host").mode, Mode::Allow);
        for bad in [
            r#"{"mode": "none", "allow": ["a.test"]}"#,
            r#"{"mode": "none", "hosts": [{"host": "a.test", "upgrade": true}]}"#,
            r#"{"mode": "all", "intercept": ["a.test:443"]}"#,
            r#"{"mode": "all", "intercept": ["9.9.9.9"]}"#,
            r#"{"allow": ["a b"]}"#,
            r#"{"limits": {"connections": 0}}"#,
            r#"{"limits": {"bytes_per_second": 1}}"#,
        ] {
            assert_eq!(parsed(bad).expect_err(bad).code, ErrorCode::InvalidRequest);
        }
        for unknown in [r#"{"allowed": []}"#, r#"{"mode": "some"}"#, r#"{"limits": {"x": 1}}"#] {
            assert!(serde_json::from_str::<NetworkPolicy>(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn what_is_shown_is_taken_and_means_the_same() {
        let policy = parsed(
            r#"{"mode": "all", "allow": ["HTTPS://x"], "deny": ["*.b.test:80"], "limits": {"connections": 7}}"#,
        );
        // Protocols are lower case.
        assert!(policy.is_err());
        let policy =
            parsed(r#"{"mode": "all", "allow": ["https://X.test"], "deny": ["*.b.test:80"], "limits": {"connections": 7}}"#)
                .expect("good");
        assert_eq!(parse_policy(&show(&policy)).expect("again").policy, policy);
    }

    #[test]
    fn a_change_says_what_it_would_decide_otherwise() {
        let before = parsed(r#"{"allow": ["a.test:443"]}"#).expect("before");
        let after = parsed(r#"{"allow": ["b.test"]}"#).expect("after");
        let event = |host: &str, protocol: &str| Event {
            seq: 1,
            time_ms: 0,
            count: 1,
            subject: Subject::Connection,
            allowed: true,
            host: Some(host.to_owned()),
            address: Some([9, 9, 9, 9].into()),
            port: Some(443),
            protocol: protocol.to_owned(),
            rule: String::new(),
            fix: None,
        };
        let events =
            [event("a.test", "tls"), event("b.test", "tls"), event("a.test", "tls"), event("c.test", "tls")];
        let change = change(&before, &after, &[], &events, true);
        let affected: Vec<_> = change.affected.iter().map(|one| (one.target.as_str(), one.allowed)).collect();
        assert_eq!(affected, [("a.test:443", false), ("b.test:443", true)]);
        assert_eq!(
            (&change.added[..], &change.removed[..]),
            (&["allow b.test".to_owned()][..], &["allow a.test:443".to_owned()][..])
        );
    }
}
