//! `network`: what may leave a sandbox, and what did.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::Method;

use super::client::{Client, json as answer, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::quantity::{self, Pair, Size};
use super::show;
use crate::limits::{CREDENTIAL_BYTES_MAX, EGRESS_SECRETS_BYTES_MAX};
use crate::sandbox::{
    HeaderCredential, NetworkChange, NetworkEvents, NetworkHost, NetworkLimits, NetworkPolicy, NetworkView,
};
use crate::wire::gateway::{Event, Mode, Subject};

/// How often a followed log is asked for.
const FOLLOW: Duration = Duration::from_millis(300);

/// What `network --help` adds.
pub const HELP: &str = r#"A rule is [PROTOCOL://]WHOM[:PORTS]: tcp, http or https; a name, *.name, an address or a range; 443, 8000-8100 or 80,443.
Addresses that are not public must also be opened by an operator, in the daemon's configuration. UDP other than DNS never leaves.

Credentials come from files, never from the command line, and are not shown again: --bearer HOST=FILE has a token, --hosts FILE
entries like those of the API: [{"host": "api.example.com", "header": {"name": "x-api-key", "value": "…"}}].

Examples:
  stockade network show work
  stockade network set work --allow https://*.example.com --allow 'packages.example.org:80'
  stockade network set work --add --allow index.example.org:443 --dry-run
  stockade network set work --mode all --deny '*.example.net' --rate 10m
  stockade network set work --add --bearer api.example.com=/run/secrets/token   # for http://api.example.com inside
  stockade network set work --add --intercept api.example.com                   # and for https://
  stockade network set work --add --handler stub.internal=stub.sock
  stockade network log work --denied"#;

/// What can be done with a sandbox's network.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Show what may leave, and count what did.
    Show {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
    },
    /// Let something else leave. Without --add the policy is replaced whole: rules, hosts and limits that are not given
    /// again are gone.
    Set(Box<Set>),
    /// Show the decisions, with the rule that made each and what would allow it.
    Log {
        /// The sandbox.
        #[arg(value_name = "SANDBOX")]
        sandbox: String,
        /// Only what was refused.
        #[arg(long)]
        denied: bool,
        /// Go on with those to come.
        #[arg(long, short)]
        follow: bool,
    },
}

/// What may leave, on a command line.
#[derive(Args, Debug, Default)]
pub struct Rules {
    /// What happens to what no rule names [default: allow with --allow, none without].
    #[arg(
        long = "network",
        visible_alias = "mode",
        value_enum,
        value_name = "MODE",
        help_heading = "Network"
    )]
    pub mode: Option<Wanted>,
    /// Let this leave. May be repeated.
    #[arg(long, visible_alias = "allow-domain", value_name = "RULE", help_heading = "Network")]
    pub allow: Vec<String>,
    /// Never let this leave, whatever is allowed. May be repeated.
    #[arg(long, value_name = "RULE", help_heading = "Network")]
    pub deny: Vec<String>,
    /// Let plain HTTP to this host leave over verified TLS. May be repeated.
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    pub upgrade: Vec<String>,
    /// Give requests to this host the token in a file, as `authorization: Bearer`, outside of the sandbox. May be
    /// repeated.
    #[arg(long, value_name = "HOST=FILE", value_parser = quantity::pair, help_heading = "Network")]
    pub bearer: Vec<Pair>,
    /// Hosts with other credentials, as the API has them, from a JSON file. May be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub hosts: Vec<PathBuf>,
    /// Send requests to this host to a socket in the operator's directory of handlers. May be repeated.
    #[arg(long, value_name = "HOST=SOCKET", value_parser = quantity::pair, help_heading = "Network")]
    pub handler: Vec<Pair>,
    /// Open the TLS of this name, *.name or *, with a certificate authority that the sandbox trusts. May be repeated.
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub intercept: Vec<String>,
}

/// Arguments of `network set`.
#[derive(Args, Debug)]
pub struct Set {
    /// The sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
    /// The rules.
    #[command(flatten)]
    pub rules: Rules,
    /// Connections at the same time [default: 256].
    #[arg(long, value_name = "N", help_heading = "Network")]
    pub connections: Option<u32>,
    /// New connections per second [default: 100].
    #[arg(long, value_name = "N", help_heading = "Network")]
    pub connections_per_second: Option<u32>,
    /// Bytes per second: 512k, 10m [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Network")]
    pub rate: Option<Size>,
    /// Keep what the policy says, and add to it.
    #[arg(long)]
    pub add: bool,
    /// Only say what would change.
    #[arg(long)]
    pub dry_run: bool,
}

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Nothing leaves.
    None,
    /// What --allow names leaves.
    Allow,
    /// Whatever goes to a public address leaves.
    All,
}

impl From<Wanted> for Mode {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::None => Self::None,
            Wanted::Allow => Self::Allow,
            Wanted::All => Self::All,
        }
    }
}

impl Rules {
    /// The policy that is asked for, if one is. Reads the files that it names.
    pub(super) fn policy(self) -> Result<Option<NetworkPolicy>, Failure> {
        let hosts = self.wanted_hosts()?;
        let asked = self.mode.is_some()
            || ![&self.allow, &self.deny, &self.intercept].iter().all(|rules| rules.is_empty())
            || !hosts.is_empty();
        Ok(asked.then(|| NetworkPolicy {
            mode: self.mode.map(Mode::from),
            allow: self.allow,
            deny: self.deny,
            hosts,
            intercept: self.intercept,
            limits: NetworkLimits::default(),
        }))
    }

    fn wanted_hosts(&self) -> Result<Vec<NetworkHost>, Failure> {
        let mut hosts = Vec::new();
        for path in &self.hosts {
            let text = read(path, EGRESS_SECRETS_BYTES_MAX)?;
            // Where, and not what: the file holds secrets.
            let listed: Vec<NetworkHost> = serde_json::from_str(&text).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                Failure::Usage(format!("{} is no list of hosts: see {place}", path.display()))
            })?;
            hosts.extend(listed);
        }
        for (host, path) in &self.bearer {
            let text = read(Path::new(path), CREDENTIAL_BYTES_MAX)?;
            let token = text.trim();
            if token.is_empty() {
                return Err(Failure::Usage(format!("{path} holds no token")));
            }
            let value = Some(format!("Bearer {token}"));
            let header = Some(HeaderCredential { name: "authorization".to_owned(), value });
            hosts.push(NetworkHost { host: host.clone(), header, ..NetworkHost::default() });
        }
        for (host, socket) in &self.handler {
            let handler = Some(socket.clone());
            hosts.push(NetworkHost { host: host.clone(), handler, ..NetworkHost::default() });
        }
        for host in &self.upgrade {
            hosts.push(NetworkHost { host: host.clone(), upgrade: true, ..NetworkHost::default() });
        }
        Ok(hosts)
    }
}

/// A file with secrets in it.
fn read(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    use std::io::Read as _;
    let failed = |source| Failure::Local { what: format!("cannot read {}", path.display()), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let count = file.take(bytes_max as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if count > bytes_max {
        return Err(Failure::Usage(format!("{} is larger than {bytes_max} bytes", path.display())));
    }
    Ok(text)
}

fn path(sandbox: &str) -> String {
    format!("/v1/sandboxes/{}/network", segment(sandbox))
}

/// `stockade network`.
pub(super) async fn network(daemon: Daemon, action: Action, json: bool) -> Result<u8, Failure> {
    let connection = daemon.running().await?;
    let client = &connection.client;
    match action {
        Action::Show { sandbox } => {
            let view: NetworkView = client.get(&path(&sandbox)).await?;
            if json {
                show::print_json(&view)?;
            } else {
                show::print(&described(&view))?;
            }
        }
        Action::Set(wanted) => set(client, *wanted, json).await?,
        Action::Log { sandbox, denied, follow } => log(client, &sandbox, denied, follow, json).await?,
    }
    Ok(0)
}

fn described(view: &NetworkView) -> String {
    let NetworkView { policy, counters } = view;
    let mut text = format!("mode   {}\n", mode(policy.mode));
    for (what, rules) in [("allow", &policy.allow), ("deny", &policy.deny)] {
        for rule in rules {
            text.push_str(&format!("{what:<6} {}\n", show::safe(rule)));
        }
    }
    for host in &policy.hosts {
        text.push_str(&format!("host   {}: {}\n", show::safe(&host.host), show::safe(&done_with(host))));
    }
    for name in &policy.intercept {
        text.push_str(&format!("opens  TLS of {}\n", show::safe(name)));
    }
    let NetworkLimits { connections, connections_per_second, bytes_per_second } = policy.limits;
    for (what, limit) in [
        ("connections", connections.map(u64::from)),
        ("connections per second", connections_per_second.map(u64::from)),
        ("bytes per second", bytes_per_second),
    ] {
        if let Some(limit) = limit {
            text.push_str(&format!("limit  {limit} {what}\n"));
        }
    }
    text.push_str(&format!(
        "\n{} open, {} allowed, {} denied, {} failed, {} over a limit, {} names asked\n{} sent, {} received\n",
        counters.connections_open,
        counters.allowed,
        counters.denied,
        counters.failed,
        counters.limited,
        counters.names_asked,
        show::size(counters.bytes_sent),
        show::size(counters.bytes_received),
    ));
    text
}

/// What is done with a host's requests.
fn done_with(host: &NetworkHost) -> String {
    match (&host.header, &host.basic, &host.aws, &host.handler) {
        (Some(header), ..) => format!("gets the header {}, over TLS", header.name),
        (_, Some(_), ..) => "gets a name and a password, over TLS".to_owned(),
        (_, _, Some(aws), _) => {
            format!("gets a signature of AWS for {} in {}, over TLS", aws.service, aws.region)
        }
        (.., Some(handler)) => format!("goes to the handler {handler}"),
        _ => "leaves over TLS".to_owned(),
    }
}

fn mode(mode: Option<Mode>) -> &'static str {
    match mode {
        Some(Mode::All) => "all: whatever goes to a public address leaves",
        Some(Mode::Allow) => "allow: what a rule names leaves",
        Some(Mode::None) | None => "none: nothing leaves",
    }
}

async fn set(client: &Client, wanted: Set, json: bool) -> Result<(), Failure> {
    let Set { sandbox, rules, connections, connections_per_second, rate, add, dry_run } = wanted;
    let mut policy = rules.policy()?.unwrap_or_default();
    each_once(&policy.hosts)?;
    policy.limits = NetworkLimits { connections, connections_per_second, bytes_per_second: rate };
    if add {
        policy = added(client.get::<NetworkView>(&path(&sandbox)).await?.policy, policy);
    }
    let query = if dry_run { "?dry_run=true" } else { "" };
    let path = format!("{}{query}", path(&sandbox));
    let change: NetworkChange =
        answer(client.request(Method::PUT, &path, Some(&policy), "application/json").await?).await?;
    for warning in &change.warnings {
        show::say(&format!("stockade: warning: {warning}"));
    }
    if json {
        return show::print_json(&change);
    }
    let mut text = String::new();
    for (sign, lines) in [('-', &change.removed), ('+', &change.added)] {
        for line in lines {
            text.push_str(&format!("{sign} {}\n", show::safe(line)));
        }
    }
    if text.is_empty() {
        text.push_str("nothing changes\n");
    }
    for effect in &change.affected {
        let becomes = if effect.allowed { "allowed" } else { "refused" };
        text.push_str(&format!(
            "{} becomes {becomes}: {}\n",
            show::safe(&effect.target),
            show::safe(&effect.rule)
        ));
    }
    show::print(&text)
}

/// Refuses two things to do with one host, of which `added` would keep the last alone.
fn each_once(hosts: &[NetworkHost]) -> Result<(), Failure> {
    for (index, host) in hosts.iter().enumerate() {
        if hosts[..index].iter().any(|other| other.is_of(&host.host)) {
            let rule = "give it once: a credential, --upgrade or --handler";
            return Err(Failure::Usage(format!("{} is named twice: {rule}", host.host)));
        }
    }
    Ok(())
}

/// A policy with more in it.
fn added(mut policy: NetworkPolicy, more: NetworkPolicy) -> NetworkPolicy {
    for host in more.hosts {
        let upgrades = host.upgrade && !host.has_credential() && host.handler.is_none();
        // One with a credential is upgraded as it is.
        if upgrades && policy.hosts.iter().any(|old| old.is_of(&host.host) && old.has_credential()) {
            continue;
        }
        policy.hosts.retain(|old| !old.is_of(&host.host));
        policy.hosts.push(host);
    }
    for (rules, new) in [
        (&mut policy.allow, more.allow),
        (&mut policy.deny, more.deny),
        (&mut policy.intercept, more.intercept),
    ] {
        for rule in new {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    policy.mode = match (more.mode, policy.mode) {
        (Some(mode), _) => Some(mode),
        // Something is allowed now.
        (None, Some(Mode::None)) if !policy.allow.is_empty() || !policy.hosts.is_empty() => Some(Mode::Allow),
        (None, mode) => mode,
    };
    let (limits, new) = (&mut policy.limits, more.limits);
    limits.connections = new.connections.or(limits.connections);
    limits.connections_per_second = new.connections_per_second.or(limits.connections_per_second);
    limits.bytes_per_second = new.bytes_per_second.or(limits.bytes_per_second);
    policy
}

async fn log(client: &Client, sandbox: &str, denied: bool, follow: bool, json: bool) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let page: NetworkEvents = client.get(&format!("{}/events?after={after}", path(sandbox))).await?;
        let last = page.next == after;
        after = page.next;
        for event in page.events.iter().filter(|event| !denied || !event.allowed) {
            if json {
                let line = serde_json::to_string(event).map_err(Failure::NotOurs)?;
                show::print(&(line + "\n"))?;
            } else {
                show::print(&line(event))?;
            }
        }
        match (last, follow) {
            (true, false) => return Ok(()),
            (true, true) => tokio::time::sleep(FOLLOW).await,
            (false, _) => {}
        }
    }
}

fn line(event: &Event) -> String {
    let seconds = i64::try_from(event.time_ms / 1000).unwrap_or_default();
    let time = jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string());
    let subject = match event.subject {
        Subject::Name => "name",
        Subject::Connection => "connection",
        Subject::Request => "request",
    };
    let decided = if event.allowed { "allowed" } else { "DENIED" };
    let port = event.port.map(|port| format!(":{port}")).unwrap_or_default();
    let target = match (&event.host, event.address) {
        (Some(host), Some(address)) => format!("{host}{port} ({address})"),
        (Some(host), None) => format!("{host}{port}"),
        (None, Some(IpAddr::V6(address))) if event.port.is_some() => format!("[{address}]{port}"),
        (None, Some(address)) => format!("{address}{port}"),
        (None, None) => "-".to_owned(),
    };
    let times = if event.count > 1 { format!(" ×{}", event.count) } else { String::new() };
    let fix = event.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
    let text = format!(
        "{time} {decided:<7} {subject:<10} {:<5} {target}{times}: {}{fix}",
        event.protocol, event.rule
    );
    format!("{}\n", show::safe(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_to_a_policy_opens_it_and_keeps_what_was_there() {
        let none =
            NetworkPolicy { mode: Some(Mode::None), deny: vec!["b".into()], ..NetworkPolicy::default() };
        let more =
            NetworkPolicy { allow: vec!["a".into()], deny: vec!["b".into()], ..NetworkPolicy::default() };
        let policy = added(none, more);
        assert_eq!(policy.mode, Some(Mode::Allow));
        assert_eq!((policy.allow, policy.deny), (vec!["a".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn a_host_that_is_added_takes_the_place_of_the_one_of_its_name_and_no_credential_is_lost() {
        let header = || Some(HeaderCredential { name: "authorization".to_owned(), value: None });
        let with =
            |hosts: &[NetworkHost]| NetworkPolicy { hosts: hosts.to_vec(), ..NetworkPolicy::default() };
        let shown = NetworkHost { host: "ok.test".to_owned(), header: header(), ..NetworkHost::default() };
        let same = NetworkHost { host: "OK.test.".to_owned(), ..shown.clone() };
        assert_eq!(
            added(with(std::slice::from_ref(&shown)), with(std::slice::from_ref(&same))).hosts,
            [same]
        );
        let upgrade = NetworkHost { host: "OK.test".to_owned(), upgrade: true, ..NetworkHost::default() };
        assert_eq!(
            added(with(std::slice::from_ref(&shown)), with(std::slice::from_ref(&upgrade))).hosts,
            [shown]
        );
        assert_eq!(added(with(&[]), with(std::slice::from_ref(&upgrade))).hosts, [upgrade]);
    }

    #[test]
    fn two_things_to_do_with_one_host_are_refused() {
        let rules = Rules {
            upgrade: vec!["ok.test".to_owned()],
            handler: vec![("OK.test.".to_owned(), "stub.sock".to_owned())],
            ..Rules::default()
        };
        let hosts = rules.policy().expect("rules").expect("a policy").hosts;
        assert!(each_once(&hosts).is_err());
        assert!(each_once(&hosts[..1]).is_ok());
    }

    #[test]
    fn an_empty_file_is_no_token() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let rules = |text: &str| {
            std::fs::write(file.path(), text).expect("write");
            let pair = ("ok.test".to_owned(), file.path().display().to_string());
            Rules { bearer: vec![pair], ..Rules::default() }.policy()
        };
        for empty in ["", "\n", " \t\r\n"] {
            assert!(rules(empty).is_err(), "{empty:?}");
        }
        let hosts = rules("token\n").expect("a token").expect("a policy").hosts;
        assert_eq!(hosts[0].header.as_ref().and_then(|header| header.value.as_deref()), Some("Bearer token"));
    }
}
