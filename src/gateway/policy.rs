//! Decisions: what a policy says about a name, a connection, a request. Pure, so that a dry run is the same code.
//!
//! ```text
//! connect(address, port, pinned names) ─▶ Refused   whatever is said on it
//!                                      ├▶ Open      whatever is said on it
//!                                      └▶ Ask       decided by what is said on it: `said`
//! ```
//!
//! The order, and nothing is looked at twice: closed address, `deny`, mode `none`, `all`, `allow`, [`hosts`]. An empty
//! policy allows nothing; so does one that names only what does not exist.

use std::net::IpAddr;

use super::{address, hosts, rule};
use crate::wire::gateway::{Mode, Network, Policy, Protocol, Rule, Target};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1 without TLS.
    Http,
    /// TLS.
    Tls,
    /// Something else, or the server speaks first.
    Other,
}

impl Spoken {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Other => "other",
        }
    }
}

/// A connection, as far as it is known before a byte was read.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Where to, in canonical form.
    pub address: IpAddr,
    /// Which port.
    pub port: u16,
    /// For which names answers of ours gave the address.
    pub pinned: &'a [String],
    /// Whether the address is the host's own.
    pub hosts_own: bool,
}

/// A decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was decided.
    pub allowed: bool,
    /// The rule that made it.
    pub rule: String,
    /// The smallest change that would allow it.
    pub fix: Option<String>,
}

/// What can be said before a byte was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// It is refused.
    Refused(Verdict),
    /// It is allowed.
    Open(Verdict),
    /// What is said on it decides.
    Ask,
}

fn allowed(rule: impl Into<String>) -> Verdict {
    Verdict { allowed: true, rule: rule.into(), fix: None }
}

fn refused(rule: impl Into<String>, fix: Option<String>) -> Verdict {
    Verdict { allowed: false, rule: rule.into(), fix }
}

fn port_fits(rule: &Rule, port: u16) -> bool {
    rule.ports.is_empty() || rule.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

fn protocol_fits(rule: &Rule, spoken: Spoken) -> bool {
    match rule.protocol {
        Protocol::Any => true,
        Protocol::Http => spoken == Spoken::Http,
        Protocol::Tls => spoken == Spoken::Tls,
    }
}

/// Whether a rule is about this address, whatever its name.
fn address_fits(rule: &Rule, address: IpAddr) -> bool {
    match &rule.target {
        Target::Anything => true,
        Target::Domain(_) => false,
        Target::Network(network) => rule::contains(network, address),
    }
}

fn name_fits(rule: &Rule, name: &str) -> bool {
    match &rule.target {
        Target::Anything => true,
        Target::Domain(pattern) => rule::matches(pattern, name),
        Target::Network(_) => false,
    }
}

/// How a network that only an operator opens is refused.
fn closed(way: &Way<'_>, open: &[Network]) -> Option<Verdict> {
    let why = if way.hosts_own { Some("the host's own") } else { address::closed(way.address) }?;
    if open.iter().any(|network| rule::contains(network, way.address)) {
        return None;
    }
    let fix = format!("an operator opens it: network.open = [\"{}\"] in the configuration", way.address);
    Some(refused(format!("closed: {} ({why})", way.address), Some(fix)))
}

/// Whether an answer may give this address for a name: not one that could not be connected to in any case.
pub fn may_answer(address: IpAddr, open: &[Network]) -> bool {
    let way = Way { address, port: 0, pinned: &[], hosts_own: false };
    closed(&way, open).is_none()
}

/// Whether something of the daemon's own may be connected to this address: what every sandbox could be allowed to reach.
pub fn may_reach(address: IpAddr, open: &[Network]) -> bool {
    let way = Way { address, port: 0, pinned: &[], hosts_own: super::address::is_hosts_own(address) };
    closed(&way, open).is_none()
}

/// Whether a name may be asked for. Prefixes of services (`_http._tcp.`) go with the name behind them.
pub fn name(policy: &Policy, name: &str) -> Verdict {
    let bare = bare(name);
    if let Some(verdict) = denied_name(policy, bare) {
        return verdict;
    }
    match policy.mode {
        Mode::None => refused("mode none", Some(format!("allow {bare}"))),
        Mode::All => allowed("mode all"),
        Mode::Allow => match policy.allow.iter().find(|rule| name_fits(rule, bare)) {
            Some(rule) => allowed(format!("allow {}", rule.text)),
            None if hosts::find(policy, name).is_some() => allowed(format!("host {name}")),
            None => refused("no rule allows it", Some(format!("allow {bare}"))),
        },
    }
}

/// The rule that denies a name, or an alias of a name that was asked for, if there is one.
pub fn denied_name(policy: &Policy, alias: &str) -> Option<Verdict> {
    let denied = policy.deny.iter().find(|rule| {
        // A rule about some ports or protocols leaves the others.
        rule.ports.is_empty() && rule.protocol == Protocol::Any && name_fits(rule, alias)
    });
    denied.map(denied_by)
}

/// A name without the prefixes of services (RFC 2782).
fn bare(name: &str) -> &str {
    let mut bare = name;
    while let Some((label, rest)) = bare.split_once('.')
        && label.starts_with('_')
    {
        bare = rest;
    }
    bare
}

/// What can be said of a connection before a byte was read.
pub fn connect(policy: &Policy, open: &[Network], way: &Way<'_>) -> First {
    if hosts::leads_to_socket(policy, way.address) {
        return First::Ask;
    }
    if let Some(verdict) = closed(way, open) {
        return First::Refused(verdict);
    }
    let deny = || policy.deny.iter().filter(|rule| port_fits(rule, way.port));
    if let Some(rule) = deny().find(|rule| rule.protocol == Protocol::Any && address_fits(rule, way.address))
    {
        return First::Refused(denied_by(rule));
    }
    let public = !way.hosts_own && address::closed(way.address).is_none();
    let names_matter = !policy.intercept.is_empty()
        || !policy.hosts.is_empty()
        || deny().any(|rule| {
            matches!(rule.target, Target::Domain(_))
                || (rule.protocol != Protocol::Any && address_fits(rule, way.address))
        });
    let by_address = policy.allow.iter().find(|rule| {
        port_fits(rule, way.port) && address_fits(rule, way.address) && rule.protocol == Protocol::Any
    });
    let verdict = match policy.mode {
        Mode::None => return First::Refused(refused("mode none", Some(fix(way, None)))),
        Mode::All if public => Some(allowed("mode all")),
        Mode::All | Mode::Allow => by_address.map(|rule| allowed(format!("allow {}", rule.text))),
    };
    match verdict {
        Some(verdict) if !names_matter => First::Open(verdict),
        Some(_) => First::Ask,
        None if could_be_said(policy, way) => First::Ask,
        None => First::Refused(said(policy, open, way, Spoken::Other, None)),
    }
}

/// Whether some word would open the connection.
fn could_be_said(policy: &Policy, way: &Way<'_>) -> bool {
    policy.allow.iter().any(|rule| {
        port_fits(rule, way.port)
            && (address_fits(rule, way.address) || way.pinned.iter().any(|name| name_fits(rule, name)))
    }) || way.pinned.iter().any(|name| hosts::find(policy, name).is_some())
}

fn denied_by(rule: &Rule) -> Verdict {
    refused(format!("deny {}", rule.text), Some(format!("remove {} from deny", rule.text)))
}

/// The rule to add.
fn fix(way: &Way<'_>, name: Option<&str>) -> String {
    match (name.or(way.pinned.first().map(String::as_str)), way.address) {
        (Some(name), _) => format!("allow {name}:{}", way.port),
        (None, IpAddr::V4(address)) => format!("allow {address}:{}", way.port),
        (None, IpAddr::V6(address)) => format!("allow [{address}]:{}", way.port),
    }
}

/// The rule that denies what is said, if there is one.
fn denied(policy: &Policy, way: &Way<'_>, spoken: Spoken, name: Option<&str>) -> Option<Verdict> {
    let fits = |rule: &&Rule| port_fits(rule, way.port) && protocol_fits(rule, spoken);
    let rule = policy.deny.iter().filter(fits).find(|rule| {
        address_fits(rule, way.address)
            || match name {
                Some(name) => name_fits(rule, name),
                None => way.pinned.iter().any(|name| name_fits(rule, name)),
            }
    });
    rule.map(denied_by)
}

/// Decides on what is said to a handler's host.
fn handled(policy: &Policy, way: &Way<'_>, spoken: Spoken, name: &str) -> Verdict {
    if let Some(verdict) = denied(policy, way, spoken, Some(name)) {
        return verdict;
    }
    match (policy.mode, spoken) {
        (Mode::None, _) => refused("mode none", Some(fix(way, Some(name)))),
        (_, Spoken::Http) => allowed(format!("host {name}")),
        (_, Spoken::Tls) if hosts::is_opened(policy, name) => allowed(format!("host {name}")),
        _ => refused(
            format!("the handler of {name} takes HTTP"),
            Some(format!("ask for http://{name}, or add {name} to intercept")),
        ),
    }
}

/// How what would pass by a host of the policy, or by the opening of TLS, is refused.
fn passes_by(policy: &Policy, way: &Way<'_>, spoken: Spoken, name: Option<&str>) -> Option<Verdict> {
    if let Some(host) = hosts::misled(policy, way, name) {
        let rule = format!("{} was said to an address that is not its own", host.name);
        return Some(refused(rule, Some("connect by the name, without a resolver of its own".to_owned())));
    }
    let rule = hosts::evades(policy, way, name).filter(|_| spoken == Spoken::Tls)?;
    Some(refused(rule, Some("connect by the name, and say it".to_owned())))
}

fn nothing_leaves(way: &Way<'_>, spoken: Spoken, name: Option<&str>) -> Verdict {
    // What is asked for by its address is not allowed by its name.
    let by_address = name.is_none() && spoken != Spoken::Other;
    let address = || format!("allow {}:{}", rule_address(way.address), way.port);
    refused("mode none", Some(if by_address { address() } else { fix(way, name) }))
}

/// Decides on a connection or a request by what is spoken and which name was said: the SNI of TLS, the Host of HTTP.
pub fn said(policy: &Policy, open: &[Network], way: &Way<'_>, spoken: Spoken, name: Option<&str>) -> Verdict {
    let host = hosts::meant(policy, way, name);
    if let Some(host) = host.filter(|host| host.handler.is_some()) {
        return handled(policy, way, spoken, &host.name);
    }
    if let Some(verdict) = closed(way, open) {
        return verdict;
    }
    let refusal = denied(policy, way, spoken, name).or_else(|| passes_by(policy, way, spoken, name));
    if let Some(verdict) = refusal {
        return verdict;
    }
    // Plain inside, and TLS on its way: neither may be denied.
    if let Some(host) = host
        && spoken == Spoken::Http
        && host.is_upgraded()
    {
        let outside = Way { port: hosts::port_outside(way.port), ..*way };
        if let Some(verdict) = denied(policy, &outside, Spoken::Tls, name) {
            return verdict;
        }
    }
    let fits = |rule: &&Rule| port_fits(rule, way.port) && protocol_fits(rule, spoken);
    let public = !way.hosts_own && address::closed(way.address).is_none();
    match policy.mode {
        Mode::None => return nothing_leaves(way, spoken, name),
        Mode::All if public => return allowed("mode all"),
        Mode::All | Mode::Allow => {}
    }
    let rules = || policy.allow.iter().filter(fits);
    if let Some(rule) = rules().find(|rule| address_fits(rule, way.address)) {
        return allowed(format!("allow {}", rule.text));
    }
    if let Some(host) = host.filter(|host| hosts::allows(policy, host, spoken, way.port)) {
        return allowed(format!("host {}", host.name));
    }
    // From here on the name decides, and only one for which we gave this very address.
    let pinned = |name: &str| way.pinned.iter().any(|pinned| pinned == name);
    match (name, spoken) {
        (Some(name), _) if !pinned(name) => {
            let by_name = rules().any(|rule| name_fits(rule, name));
            let rule = match (by_name, way.pinned.first()) {
                (_, Some(other)) => format!("{name} was said to the address of {other}"),
                (true, None) => format!("no answer of the gateway gave {} for {name}", way.address),
                (false, None) => "no rule allows it".to_owned(),
            };
            let fix = match (by_name, way.pinned.is_empty()) {
                (true, _) => "connect by the name, without a resolver of its own".to_owned(),
                (false, true) => fix(way, None),
                (false, false) => fix(way, Some(name)),
            };
            refused(rule, Some(fix))
        }
        (Some(name), _) => match rules().find(|rule| name_fits(rule, name)) {
            Some(rule) => allowed(format!("allow {}", rule.text)),
            None => refused("no rule allows it", Some(fix(way, Some(name)))),
        },
        (None, Spoken::Other) => {
            match rules().find(|rule| way.pinned.iter().any(|name| name_fits(rule, name))) {
                Some(rule) => allowed(format!("allow {}", rule.text)),
                None => refused("no rule allows it", Some(fix(way, None))),
            }
        }
        (None, _) if way.pinned.is_empty() => refused("no rule allows it", Some(fix(way, None))),
        (None, Spoken::Http | Spoken::Tls) => refused(
            "the connection says no name",
            Some(format!("allow {}:{}", rule_address(way.address), way.port)),
        ),
    }
}

fn rule_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: Mode, allow: &[&str], deny: &[&str]) -> Policy {
        let rules = |texts: &[&str]| texts.iter().map(|text| rule::parse(text).expect(text)).collect();
        Policy { mode, allow: rules(allow), deny: rules(deny), ..Policy::default() }
    }

    const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9));

    /// The decision on a connection to a public address that was given for `ok.test`.
    fn decide(policy: &Policy, port: u16, spoken: Spoken, said: Option<&str>) -> bool {
        let pinned = ["ok.test".to_owned()];
        let way = Way { address: PUBLIC, port, pinned: &pinned, hosts_own: false };
        let last = super::said(policy, &[], &way, spoken, said).allowed;
        match connect(policy, &[], &way) {
            First::Refused(_) => assert!(!last, "refused at first and allowed at last"),
            First::Open(_) => assert!(last, "open at first and refused at last"),
            First::Ask => {}
        }
        last
    }

    #[test]
    fn what_is_asked_for_by_its_address_is_to_be_allowed_by_its_address() {
        let pinned = ["ok.test".to_owned()];
        let way = Way { address: PUBLIC, port: 80, pinned: &pinned, hosts_own: false };
        let fix = |name| said(&Policy::default(), &[], &way, Spoken::Http, name).fix;
        assert_eq!(fix(None).as_deref(), Some("allow 9.9.9.9:80"));
        assert_eq!(fix(Some("ok.test")).as_deref(), Some("allow ok.test:80"));
    }

    #[test]
    fn nothing_leaves_without_a_rule() {
        for policy in [Policy::default(), policy(Mode::None, &[], &[]), policy(Mode::Allow, &[], &[])] {
            assert!(!decide(&policy, 443, Spoken::Tls, Some("ok.test")));
            assert!(!name(&policy, "ok.test").allowed);
        }
    }

    #[test]
    fn a_name_opens_its_address_and_no_other_name() {
        let policy = policy(Mode::Allow, &["ok.test:443", "other.test"], &[]);
        assert!(decide(&policy, 443, Spoken::Tls, Some("ok.test")));
        assert!(decide(&policy, 443, Spoken::Other, None));
        assert!(!decide(&policy, 80, Spoken::Http, Some("ok.test")));
        // Allowed, but not here.
        assert!(!decide(&policy, 443, Spoken::Tls, Some("other.test")));
        assert!(!decide(&policy, 443, Spoken::Tls, Some("evil.test")));
        assert!(!decide(&policy, 443, Spoken::Tls, None));
    }

    #[test]
    fn deny_wins_over_everything() {
        for deny in ["ok.test", "9.9.9.0/24", "*", "https://ok.test", "*:443"] {
            let all = policy(Mode::All, &["ok.test", "9.9.9.9"], &[deny]);
            assert!(!decide(&all, 443, Spoken::Tls, Some("ok.test")), "{deny}");
        }
        let all = policy(Mode::All, &[], &["evil.test"]);
        assert!(!decide(&all, 443, Spoken::Tls, Some("evil.test")));
        assert!(decide(&all, 443, Spoken::Tls, Some("good.test")));
        assert!(decide(&policy(Mode::All, &[], &["*:25"]), 443, Spoken::Other, None));
    }

    #[test]
    fn protocols_are_what_they_say() {
        let policy = policy(Mode::Allow, &["https://ok.test", "http://9.9.9.9:8080"], &[]);
        assert!(decide(&policy, 443, Spoken::Tls, Some("ok.test")));
        assert!(!decide(&policy, 443, Spoken::Other, None));
        assert!(decide(&policy, 8080, Spoken::Http, Some("whatever.test")));
        assert!(!decide(&policy, 8080, Spoken::Tls, None));
    }

    #[test]
    fn closed_addresses_need_an_operator_and_a_rule() {
        let policy = policy(Mode::All, &["10.0.0.0/8"], &[]);
        let way = Way { address: [10, 0, 0, 1].into(), port: 80, pinned: &[], hosts_own: false };
        let open = [rule::network("10.0.0.1").expect("good").expect("network")];
        assert!(matches!(connect(&policy, &[], &way), First::Refused(_)));
        assert!(matches!(connect(&policy, &open, &way), First::Open(_)));
        let without = Policy { allow: Vec::new(), ..policy.clone() };
        assert!(matches!(connect(&without, &open, &way), First::Refused(_)));
        // A public address that the host itself has.
        let own = Way { address: PUBLIC, hosts_own: true, ..way };
        assert!(matches!(connect(&policy, &[], &own), First::Refused(_)));
    }

    #[test]
    fn hosts_of_the_policy_are_looked_into_and_opened_for_what_they_are_there_for() {
        let host = |name: &str, handler: Option<&str>| crate::wire::gateway::Host {
            name: name.to_owned(),
            upgrade: true,
            credential: None,
            handler: handler.map(str::to_owned),
        };
        let mut with = policy(Mode::Allow, &[], &[]);
        with.hosts = vec![host("ok.test", None)];
        assert!(name(&with, "ok.test").allowed && !name(&with, "x.ok.test").allowed);
        assert!(decide(&with, 80, Spoken::Http, Some("ok.test")));
        assert!(
            !decide(&with, 80, Spoken::Other, None) && !decide(&with, 8080, Spoken::Http, Some("ok.test"))
        );
        assert!(!decide(&with, 443, Spoken::Tls, Some("ok.test")));
        with.intercept = vec!["*.test".to_owned()];
        assert!(decide(&with, 443, Spoken::Tls, Some("ok.test")));
        for denied in ["https://ok.test", "http://ok.test", "*:443"] {
            with.deny = vec![rule::parse(denied).expect("rule")];
            assert!(!decide(&with, 80, Spoken::Http, Some("ok.test")), "{denied}");
        }
        // Whatever else would let it pass unseen.
        let mut all = policy(Mode::All, &[], &[]);
        all.hosts = with.hosts.clone();
        let pinned = ["ok.test".to_owned()];
        let way = Way { address: PUBLIC, port: 80, pinned: &pinned, hosts_own: false };
        assert_eq!(connect(&all, &[], &way), First::Ask);
        // And at no address of somebody else's.
        for pinned in [&[][..], &["other.test".to_owned()]] {
            let away = Way { pinned, ..way };
            for (policy, spoken) in [(&all, Spoken::Http), (&all, Spoken::Tls)] {
                assert_eq!(connect(policy, &[], &away), First::Ask);
                assert!(!said(policy, &[], &away, spoken, Some("ok.test")).allowed, "{pinned:?} {spoken:?}");
                assert!(
                    said(policy, &[], &away, spoken, Some("other.test")).allowed,
                    "{pinned:?} {spoken:?}"
                );
            }
        }
        // A handler is at its own address and nowhere else.
        all.hosts = vec![host("stub.internal", Some("stub"))];
        let stub =
            Way { address: hosts::address("stub.internal").into(), port: 80, pinned: &[], hosts_own: false };
        assert_eq!(connect(&all, &[], &stub), First::Ask);
        assert!(said(&all, &[], &stub, Spoken::Http, Some("stub.internal")).allowed);
        assert!(!said(&all, &[], &stub, Spoken::Tls, Some("stub.internal")).allowed);
        assert!(!said(&all, &[], &stub, Spoken::Http, Some("other.test")).allowed);
        assert!(!said(&all, &[], &stub, Spoken::Other, None).allowed);
        assert!(!said(&all, &[], &way, Spoken::Http, Some("stub.internal")).allowed);
        all.deny = vec![rule::parse("stub.internal").expect("rule")];
        assert!(!said(&all, &[], &stub, Spoken::Http, Some("stub.internal")).allowed);
    }

    #[test]
    fn what_is_opened_is_not_evaded_by_another_name_or_none() {
        let all = Policy { intercept: vec!["ok.test".to_owned()], ..policy(Mode::All, &["9.9.9.9"], &[]) };
        let tls = |policy: &Policy, pinned: &[&str], name: Option<&str>| {
            let pinned: Vec<String> = pinned.iter().map(|&name| name.to_owned()).collect();
            let way = Way { address: PUBLIC, port: 443, pinned: &pinned, hosts_own: false };
            said(policy, &[], &way, Spoken::Tls, name).allowed
        };
        assert!(tls(&all, &["ok.test"], Some("ok.test")));
        assert!(!tls(&all, &["ok.test"], Some("other.test")) && !tls(&all, &["ok.test"], None));
        // Both live there, and both were asked for.
        assert!(tls(&all, &["ok.test", "other.test"], Some("other.test")));
        assert!(tls(&all, &["other.test"], None) && tls(&all, &[], Some("other.test")));
        let every = Policy { intercept: vec!["*".to_owned()], ..all };
        assert!(!tls(&every, &[], None) && tls(&every, &["ok.test"], Some("other.test")));
    }

    #[test]
    fn a_name_is_asked_for_with_its_services() {
        let policy = policy(Mode::Allow, &["deb.test:80"], &["bad.deb.test"]);
        assert!(name(&policy, "deb.test").allowed && name(&policy, "_http._tcp.deb.test").allowed);
        assert!(!name(&policy, "x.deb.test").allowed && !name(&policy, "_x.bad.deb.test").allowed);
        assert_eq!(name(&policy, "x.test").fix.as_deref(), Some("allow x.test"));
    }
}
