//! Names for sandboxes: asked of the host's name servers, if the policy lets the name be asked for.
//!
//! ```text
//! question ─▶ policy::name ─ refused ─▶ REFUSED
//!                │
//!                ▼ the host's name servers
//!             answer ─ without closed addresses ─▶ pins: address → this name ─▶ the sandbox
//! ```
//!
//! - An alias does not open what its own name would not: only the name that was asked for is pinned. `deny` is looked at
//!   for aliases too.
//! - Answers that lead to closed addresses only are refused: a name cannot be turned to the inside (rebinding).
//! - Records that carry addresses or keys of their own (`HTTPS`, `SVCB`) have no answer: clients then ask for
//!   addresses, and say their name in clear.
//! - The host of a handler has an address of ours, whatever others say about it.
//! - Nothing is remembered from one question to the next, so that no sandbox learns what others ask for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::audit::About;
use super::member::Member;
use super::policy::{self, Verdict};
use super::{Gateway, GatewayError, address, hosts, rule};
use crate::wire::gateway::{Policy, Subject};

/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// Bytes of an answer over a datagram that a client can always take (RFC 1035 §4.2.1), and that pass through every
/// network (DNS Flag Day 2020).
const DATAGRAM: std::ops::RangeInclusive<u16> = 512..=1232;

/// How long a connection with questions may be idle.
const IDLE: Duration = Duration::from_secs(10);

/// How long a name server may take, and how often one is asked.
const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;

/// How long, in seconds, the address of a handler's host is good for: a change of the policy may be soon.
const INVENTED_TTL: u32 = 30;

/// How questions come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Datagram,
    Stream,
}

/// Whom the host asks.
#[derive(Debug)]
pub(super) struct Servers(ResolverConfig);

/// The configured name servers, or those of the host's resolv.conf.
pub(super) fn servers(configured: &[SocketAddr]) -> Result<Servers, GatewayError> {
    let config = if configured.is_empty() {
        let (config, _) = hickory_resolver::system_conf::read_system_conf()
            .map_err(|error| GatewayError::Names(error.to_string()))?;
        // Its search list is for the host's own names.
        config.name_servers().to_vec()
    } else {
        let server = |address: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        };
        configured.iter().map(server).collect()
    };
    Ok(Servers(ResolverConfig::from_name_servers(config)))
}

/// The host's name servers.
pub(super) struct Names(TokioResolver);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    pub(super) fn new(Servers(config): Servers) -> Result<Self, GatewayError> {
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = 0;
        // The host's own names are none of a sandbox's business.
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.edns0 = true;
        let resolver = builder.build().map_err(|error| GatewayError::Names(error.to_string()))?;
        Ok(Self(resolver))
    }

    /// The addresses of a host, for what the daemon itself connects to; none when there are none.
    pub(super) async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let found = self.0.lookup_ip(host).await;
        found.map(|found| found.iter().collect()).unwrap_or_default()
    }
}

/// Answers questions on a connection, one after the other.
pub(super) async fn stream(gateway: &Arc<Gateway>, member: &Arc<Member>, mut stream: TcpStream) {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            Ok::<_, std::io::Error>(question)
        };
        let Ok(Ok(question)) = tokio::time::timeout(IDLE, read).await else { return };
        // As many at once as by datagrams; these wait.
        let Ok(_permit) = member.questions.acquire().await else { return };
        let Some(answer) = answer(gateway, member, &question, Over::Stream).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// The answer to a question; `None` for what is none.
pub(super) async fn answer(
    gateway: &Gateway,
    member: &Member,
    question: &[u8],
    over: Over,
) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    member.audit.names_asked.fetch_add(1, Ordering::Relaxed);
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&question.metadata);
    answer.metadata.recursion_available = true;
    answer.metadata.authentic_data = false;
    answer.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(*DATAGRAM.end());
        answer.set_edns(edns);
    }
    match (&question.queries[..], question.metadata.op_code) {
        ([query], OpCode::Query) if query.query_class() == DNSClass::IN => {
            resolve(gateway, member, query, &mut answer).await;
        }
        _ => answer.metadata.response_code = ResponseCode::NotImp,
    }
    let bytes = answer.to_vec().ok()?;
    let most = match over {
        Over::Stream => usize::from(u16::MAX),
        Over::Datagram => {
            let offered = question.edns.as_ref().map_or(*DATAGRAM.start(), Edns::max_payload);
            usize::from(offered.clamp(*DATAGRAM.start(), *DATAGRAM.end()))
        }
    };
    // Too long: the client asks again over a stream.
    if bytes.len() > most { answer.truncate().to_vec().ok() } else { Some(bytes) }
}

/// Fills an answer.
async fn resolve(gateway: &Gateway, member: &Member, query: &Query, answer: &mut Message) {
    let policy = member.policy();
    let asked = query.name().to_ascii();
    let Some(name) = rule::name(&asked) else {
        let verdict = refused("not a host's name", None);
        record(member, &shown(&asked), &verdict);
        answer.metadata.response_code = ResponseCode::Refused;
        return;
    };
    let verdict = policy::name(&policy, &name);
    record(member, &name, &verdict);
    if !verdict.allowed {
        answer.metadata.response_code = ResponseCode::Refused;
        return;
    }
    if hosts::find(&policy, &name).is_some_and(|host| host.handler.is_some()) {
        // Whether or not it exists: nobody else is asked.
        if query.query_type() == RecordType::A {
            let address = RData::A(hosts::address(&name).into());
            answer.add_answer(Record::from_rdata(query.name().clone(), INVENTED_TTL, address));
        }
        return;
    }
    if !is_passed_on(query.query_type()) {
        return;
    }
    let mut whole = query.name().clone();
    whole.set_fqdn(true);
    match gateway.names.0.lookup(whole, query.query_type()).await {
        Ok(found) => match admissible(gateway, &policy, &name, found.answers()) {
            Ok(records) => {
                for record in &records {
                    if let Some(address) = address_of(&record.data) {
                        member.pin(address, &name, Duration::from_secs(u64::from(record.ttl)));
                    }
                }
                answer.add_answers(records);
            }
            Err(verdict) => {
                self::record(member, &name, &verdict);
                answer.metadata.response_code = ResponseCode::Refused;
            }
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            answer.metadata.response_code = none.response_code;
            if let Some(soa) = none.soa {
                answer.add_authority((*soa).into_record_of_rdata());
            }
        }
        Err(error) => {
            tracing::debug!(id = %member.id, name, %error, "cannot resolve");
            member.audit.fail(about(&name), format!("allowed, and failed: cannot resolve: {error}"));
            answer.metadata.response_code = ResponseCode::ServFail;
        }
    }
}

/// Kinds of records that are answered; others have no answer, and their names exist.
fn is_passed_on(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::A
            | RecordType::AAAA
            | RecordType::CNAME
            | RecordType::MX
            | RecordType::TXT
            | RecordType::SRV
            | RecordType::NS
            | RecordType::SOA
            | RecordType::CAA
            | RecordType::NAPTR
    )
}

fn address_of(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(address::canonical(IpAddr::V6(address.0))),
        _ => None,
    }
}

/// The records of an answer without those that lead to closed addresses.
fn admissible(
    gateway: &Gateway,
    policy: &Policy,
    name: &str,
    records: &[Record],
) -> Result<Vec<Record>, Verdict> {
    for record in records {
        if let RData::CNAME(alias) = &record.data
            && let Some(alias) = rule::name(&alias.0.to_ascii())
            && let Some(verdict) = policy::denied_name(policy, &alias)
        {
            return Err(verdict);
        }
    }
    let open = &gateway.start.open;
    let hosts_own = |address| {
        address::is_hosts_own(address) && !open.iter().any(|network| rule::contains(network, address))
    };
    let closed = |record: &&Record| {
        address_of(&record.data)
            .is_some_and(|address| !policy::may_answer(address, open) || hosts_own(address))
    };
    let kept: Vec<Record> = records.iter().filter(|record| !closed(record)).cloned().collect();
    if let Some(one) = records.iter().find(closed)
        && !kept.iter().any(|record| address_of(&record.data).is_some())
        && let Some(address) = address_of(&one.data)
    {
        let fix = format!("an operator opens it: network.open = [\"{address}\"] in the configuration");
        return Err(refused(&format!("{name} leads to {address}, which is closed"), Some(fix)));
    }
    Ok(kept)
}

fn refused(rule: &str, fix: Option<String>) -> Verdict {
    Verdict { allowed: false, rule: rule.to_owned(), fix }
}

fn record(member: &Member, host: &str, verdict: &Verdict) {
    member.audit.record(about(host), verdict);
}

fn about(host: &str) -> About<'_> {
    About { subject: Subject::Name, host: Some(host), address: None, port: None, protocol: "dns" }
}

/// What was asked for and is no name, for people: short and without what could upset a terminal.
fn shown(asked: &str) -> String {
    asked.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::super::audit::Audit;
    use super::super::known::Known;
    use super::*;
    use crate::id::SandboxId;
    use crate::wire::gateway::Mode;
    use hickory_resolver::proto::rr::Name;

    fn gateway() -> Gateway {
        // Nobody answers there.
        let servers = servers(&["127.0.0.1:9".parse().expect("address")]).expect("servers");
        Gateway::for_tests(Names::new(servers).expect("names"))
    }

    fn record(name: &str, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(name).expect("name"), 60, data)
    }

    #[tokio::test]
    async fn answers_that_lead_inside_are_refused_and_mixed_ones_are_cleaned() {
        let gateway = gateway();
        let a = |address: [u8; 4]| record("x.test.", RData::A(std::net::Ipv4Addr::from(address).into()));
        let policy = Policy { mode: Mode::All, ..Policy::default() };
        for inside in [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254], [0, 0, 0, 0]] {
            assert!(admissible(&gateway, &policy, "x.test", &[a(inside)]).is_err(), "{inside:?}");
        }
        let mixed = admissible(&gateway, &policy, "x.test", &[a([10, 0, 0, 1]), a([9, 9, 9, 9])]);
        assert_eq!(mixed.expect("one is left").len(), 1);
        let wrapped = std::net::Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]);
        let wrapped = record("x.test.", RData::AAAA(wrapped.into()));
        assert!(admissible(&gateway, &policy, "x.test", &[wrapped]).is_err());
    }

    #[tokio::test]
    async fn nonsense_is_not_answered_and_nothing_is_allowed_by_default() {
        let gateway = gateway();
        let member = Member::new(
            SandboxId::parse("a").expect("id"),
            Policy::default(),
            Known::default(),
            Audit::default(),
        );
        for nonsense in [&b""[..], b"\0", &[0xff; 40]] {
            assert!(answer(&gateway, &member, nonsense, Over::Datagram).await.is_none());
        }
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("x.test.").expect("name"), RecordType::A));
        let bytes = question.to_vec().expect("bytes");
        let answer = answer(&gateway, &member, &bytes, Over::Datagram).await.expect("answer");
        let answer = Message::from_vec(&answer).expect("message");
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert_eq!(member.audit.counters().denied, 1);
    }
}
