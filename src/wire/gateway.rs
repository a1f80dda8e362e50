//! launch ⇄ gateway ⇄ serve: what may leave a sandbox, and what did.
//!
//! ```text
//! launch ─ GatewayStart ─▶ gateway         once
//!        ─ Control + sockets ─▶            a sandbox, its policy, its end, a connection to serve
//!        ◀─ Word ─                         a change is in force; a handler is wanted
//! serve  ─ Query ─▶ gateway ─ Told ─▶      counters and decisions, over that connection
//! ```
//!
//! launch keeps policies and duplicates of the sockets, because it outlives a gateway; it looks into neither.
//!
//! [`Secrets`] go another way: serve writes them into a sealed file in memory, launch copies that in the kernel and
//! passes a descriptor on. They are never in launch's own memory, which every agent begins as a copy of.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::SandboxId;
use crate::wire::mount::Server;

/// What may leave a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What happens to what no rule names.
    pub mode: Mode,
    /// Looked at under [`Mode::Allow`], and for addresses that only an operator opens.
    pub allow: Vec<Rule>,
    /// Wins over everything.
    pub deny: Vec<Rule>,
    /// How much of it.
    pub limits: Limits,
    /// Hosts for which more is done than to let requests pass.
    pub hosts: Vec<Host>,
    /// Names whose TLS is opened: lower case, `*` as described in `gateway::rule`.
    pub intercept: Vec<String>,
}

/// What is done with requests for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, whole and in the one form of names.
    pub name: String,
    /// They leave over verified TLS, whether or not they come so.
    pub upgrade: bool,
    /// What they are given on the way out. The secret itself is in [`Secrets`].
    pub credential: Option<Kind>,
    /// They go to the socket of this name in the operator's directory, and nowhere else.
    pub handler: Option<String>,
}

/// What is known of a credential without being one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A header of this name.
    Header(String),
    /// `authorization: Basic …` (RFC 7617).
    Basic,
    /// AWS Signature Version 4.
    Aws {
        /// As in the scope of signatures.
        region: String,
        /// The same.
        service: String,
    },
}

/// A credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// The value of the header.
    Header(String),
    /// User and password.
    Basic {
        /// Without a colon.
        username: String,
        /// Anything.
        password: String,
    },
    /// A key of AWS, or of somebody who signs alike.
    Aws {
        /// Its name.
        access_key_id: String,
        /// Itself.
        secret_access_key: String,
        /// For keys that end.
        session_token: Option<String>,
    },
}

/// What the gateway knows of a sandbox and the sandbox does not.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// By the host's name.
    pub credentials: BTreeMap<String, Credential>,
    /// For TLS that is opened.
    pub authority: Option<AuthorityKey>,
}

/// A certificate authority that one sandbox trusts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityKey {
    /// DER.
    pub certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub key: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityKey(…)")
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} …)", self.credentials.len())
    }
}

/// What happens to what no rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing leaves.
    #[default]
    None,
    /// What `allow` names leaves.
    Allow,
    /// Whatever goes to a public address leaves.
    All,
}

/// One line of a policy, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// As it is shown.
    pub text: String,
    /// What must be spoken.
    pub protocol: Protocol,
    /// Whom to.
    pub target: Target,
    /// First and last port of ranges; none is every port.
    pub ports: Vec<(u16, u16)>,
}

/// What a rule wants to be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Anything over TCP.
    Any,
    /// HTTP/1 without TLS.
    Http,
    /// TLS.
    Tls,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Everybody.
    Anything,
    /// Names like this: lower case, `*` as described in `gateway::rule`.
    Domain(String),
    /// Addresses.
    Network(Network),
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Network {
    /// The first.
    pub address: IpAddr,
    /// Leading bits that all have in common.
    pub prefix: u8,
}

/// How much may leave a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: u32,
    /// New connections per second, on average; ten seconds' worth may come at once.
    pub connections_per_second: u32,
    /// Bytes per second in both directions together; 0 is no limit.
    pub bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: crate::limits::EGRESS_CONNECTIONS_DEFAULT,
            connections_per_second: crate::limits::EGRESS_RATE_DEFAULT,
            bytes_per_second: 0,
        }
    }
}

/// What the gateway is told when launch starts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStart {
    /// Addresses that are not public and that policies may name all the same.
    pub open: Vec<Network>,
    /// Name servers; those of the host's resolv.conf when empty.
    pub resolvers: Vec<SocketAddr>,
    /// Certificates to trust beside the host's, in PEM.
    pub ca_pem: String,
    /// Log filter.
    pub log: String,
    /// Log as JSON lines.
    pub log_json: bool,
}

/// What launch tells the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Control {
    /// A sandbox with its sockets, two or three of them: streams, datagrams of questions, and streams of IPv6.
    Open {
        /// Which.
        id: SandboxId,
        /// What may leave it.
        policy: Box<Policy>,
        /// Whether the first descriptor, before the sockets, is the file with its [`Secrets`].
        secrets: bool,
        /// Whether the next one is the file in memory with what gateways before have decided.
        kept: bool,
    },
    /// Another policy for a sandbox, with one descriptor if there are [`Secrets`]. To be answered by
    /// [`Word::Installed`].
    Change {
        /// Which.
        id: SandboxId,
        /// What may leave it.
        policy: Box<Policy>,
        /// For the answer.
        number: u64,
    },
    /// A sandbox is gone.
    Close {
        /// Which.
        id: SandboxId,
    },
    /// A connection to serve; comes with one descriptor.
    Peer,
    /// A socket on which a bucket's worker asks for connections to this server, and to nobody else: each byte is answered
    /// by [`bucket::Dialled`](super::bucket::Dialled), with the connection if there is one. Comes with one descriptor.
    Reach(Server),
}

/// What the gateway tells launch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    /// A change is in force.
    Installed {
        /// As in [`Control::Change`].
        number: u64,
    },
    /// A connection to a handler is wanted. Comes with the socket on which the answer is awaited: one [`Dialled`],
    /// with the connection if there is one.
    Handler {
        /// The sandbox whose policy names it.
        id: SandboxId,
        /// The host that it is for.
        host: String,
    },
}

/// How connecting to a handler went.
pub type Dialled = Result<(), String>;

/// What serve asks the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    /// Which sandbox.
    pub id: SandboxId,
    /// Events after this one.
    pub after: u64,
    /// So many of them at most.
    pub limit: u32,
}

/// What the gateway answers, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Since the daemon led the sandbox to a gateway.
    pub counters: Counters,
    /// The oldest first.
    pub events: Vec<Event>,
}

/// What has left a sandbox, and what has not, since the daemon was started or the sandbox got a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Connections that are open.
    pub connections_open: u64,
    /// Connections and requests that a rule allowed.
    pub allowed: u64,
    /// Connections, requests and questions for names that were refused.
    pub denied: u64,
    /// What was allowed and came to nothing: connections that nobody accepted, or with whom TLS could not be agreed on,
    /// and questions for names that no name server has answered. Each is in the log, with the reason.
    pub failed: u64,
    /// Connections refused because there were too many, or too many at once. They are reset, and are in the log.
    pub limited: u64,
    /// Questions for names.
    pub names_asked: u64,
    /// Bytes out of the sandbox.
    pub bytes_sent: u64,
    /// Bytes into it.
    pub bytes_received: u64,
}

/// What a decision was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A question for a name.
    Name,
    /// A connection.
    Connection,
    /// A request of HTTP on a connection.
    Request,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number; later ones are larger.
    pub seq: u64,
    /// When it was made last, in milliseconds since 1970.
    pub time_ms: u64,
    /// How often in a row the very same decision was made.
    pub count: u64,
    /// About what.
    pub subject: Subject,
    /// What was decided.
    pub allowed: bool,
    /// The name, if one is known.
    pub host: Option<String>,
    /// The address, if there is one.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The port, if there is one.
    pub port: Option<u16>,
    /// What was spoken, as far as it was looked at: `http`, `https` in TLS that was opened, `tls`, `other` or `dns`.
    pub protocol: String,
    /// The rule that made it.
    pub rule: String,
    /// The smallest change of the policy that would allow it.
    pub fix: Option<String>,
}
