//! The configuration file: TOML, every key optional, flags win over it. The only reader of it.
//!
//! ```toml
//! runtime_dir = "/run/stockade"
//! state_dir = "/var/lib/stockade"
//! socket = "/run/stockade/stockade.sock"
//! socket_group = 999            # gid that may connect, beside root; its members own what they create
//! operator_group = 998          # gid whose members see everybody's sandboxes
//! ids_first = 536870912         # first of 536,879,120 host ids, used by nothing else
//! require_limits = true         # refuse to start when a default limit cannot be enforced
//! log = "info"
//!
//! [defaults]                    # for sandboxes that do not say; 0 is "no limit"
//! memory_bytes = 2147483648
//! pids = 512
//! tmpfs_bytes = 536870912
//!
//! [quotas]                      # for each user but root; what is not named is as much as there is
//! sandboxes = 100               # whatever their state
//! memory_bytes = 8589934592     # limits of those that run, added up; each must have one then
//! cpus = 4.0                    # the same
//! disk_bytes = 10737418240      # limits of all of them
//! snapshots = 50                # of all files, and of directories
//! snapshot_bytes = 21474836480  # what they take on the disk
//! image_bytes = 21474836480     # layers of images that they have named, each once, compressed
//!
//! [quotas.users.1000]           # for one uid; what is not named is as above, and for root as much as there is
//! sandboxes = 1000              # more than anybody needs is as good as none
//!
//! [network]                     # what leaves sandboxes
//! open = ["10.1.2.0/24"]        # addresses that are not public, or the host's own, and that policies may name
//! resolvers = ["10.1.2.3"]      # name servers for sandboxes, IP or IP:PORT; those of /etc/resolv.conf when absent
//! ca_file = "/etc/ssl/own.pem"  # certificates that the gateway trusts beside the host's
//! handlers = "/run/handlers"    # sockets that policies may name; `handlers` below runtime_dir when absent
//!
//! [mounts]                      # what sandboxes may mount, beside buckets whose credentials come with the request
//! directories = ["/srv/data"]   # directories of the host, and all below them, as mounted when the daemon starts
//! credentials_file = "/etc/stockade/credentials" # profiles for buckets, in the form of ~/.aws/credentials
//! environment = true            # AWS_ACCESS_KEY_ID and its kin of the daemon's environment may be used too
//!
//! [preview]                     # exposed ports, for browsers; nothing else is served there
//! listen = "127.0.0.1:7080"     # TCP address, or "off"
//! url = "http://localhost:7080" # what browsers see of it: https://preview.example.com behind a TLS proxy
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::wire::gateway;
use crate::wire::launch::{Quota, Quotas};

/// Where a configuration file is looked for when none is named.
pub const PATH_DEFAULT: &str = "/etc/stockade/config.toml";

/// Where everybody looks for the daemon.
pub const SOCKET_DEFAULT: &str = "/run/stockade/stockade.sock";

/// Where previews are served unless something else is said: for browsers on this host.
pub const PREVIEW_LISTEN_DEFAULT: &str = "127.0.0.1:7080";

/// The configuration after defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Sockets and running state.
    pub runtime_dir: PathBuf,
    /// Images and sandboxes' files.
    pub state_dir: PathBuf,
    /// The API's socket; below `runtime_dir` when absent.
    pub socket: Option<PathBuf>,
    /// Group that may connect, beside root.
    pub socket_group: Option<u32>,
    /// Group whose members see and control everything.
    pub operator_group: Option<u32>,
    /// First host id of the daemon's range.
    pub ids_first: u32,
    /// Refuse to start when a default limit cannot be enforced.
    pub require_limits: bool,
    /// Log filter.
    pub log: String,
    /// Log as JSON lines.
    pub log_json: bool,
    /// Limits of sandboxes that do not say.
    pub defaults: Defaults,
    /// How much users may have.
    pub quotas: QuotasConfig,
    /// What leaves sandboxes.
    pub network: Network,
    /// What sandboxes may mount.
    pub mounts: Mounts,
    /// Exposed ports, for browsers.
    pub preview: PreviewConfig,
}

/// How much users may have: everybody, and some by their uid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotasConfig {
    /// See [`QuotaConfig`].
    pub sandboxes: Option<u64>,
    /// See [`QuotaConfig`].
    pub memory_bytes: Option<u64>,
    /// See [`QuotaConfig`].
    pub cpus: Option<f64>,
    /// See [`QuotaConfig`].
    pub disk_bytes: Option<u64>,
    /// See [`QuotaConfig`].
    pub snapshots: Option<u64>,
    /// See [`QuotaConfig`].
    pub snapshot_bytes: Option<u64>,
    /// See [`QuotaConfig`].
    pub image_bytes: Option<u64>,
    /// By uid; TOML has only text for keys.
    pub users: BTreeMap<String, QuotaConfig>,
}

/// How much one user may have; what is absent is what everybody may have, for root as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// Sandboxes, whatever their state.
    pub sandboxes: Option<u64>,
    /// Bytes: limits on memory of those that run, added up.
    pub memory_bytes: Option<u64>,
    /// Processors: limits of those that run, added up.
    pub cpus: Option<f64>,
    /// Bytes: limits on disk space of all of them, added up.
    pub disk_bytes: Option<u64>,
    /// Snapshots.
    pub snapshots: Option<u64>,
    /// Bytes: what they take on the disk.
    pub snapshot_bytes: Option<u64>,
    /// Bytes: layers of images that they have named, each once, compressed as they came.
    pub image_bytes: Option<u64>,
}

impl QuotasConfig {
    /// The quotas.
    ///
    /// # Errors
    /// When a key of `users` is no uid, or a number of processors makes no sense.
    pub fn parsed(&self) -> Result<Quotas, ConfigError> {
        let Self { sandboxes, memory_bytes, cpus, disk_bytes, snapshots, snapshot_bytes, image_bytes, users } =
            self.clone();
        let everybody =
            QuotaConfig { sandboxes, memory_bytes, cpus, disk_bytes, snapshots, snapshot_bytes, image_bytes };
        let everybody = everybody.parsed()?;
        let user = |(uid, quota): (String, QuotaConfig)| {
            let number = uid.parse().map_err(|_| ConfigError::Quota(format!("users.{uid} is not a uid")))?;
            let quota = quota.parsed()?;
            // Root is not everybody.
            Ok((number, if number == 0 { quota } else { quota.or(&everybody) }))
        };
        let users = users.into_iter().map(user).collect::<Result<_, ConfigError>>()?;
        Ok(Quotas { everybody, users })
    }
}

impl QuotaConfig {
    fn parsed(self) -> Result<Quota, ConfigError> {
        let bad = || ConfigError::Quota("cpus must be a number of processors, like 1.5".to_owned());
        let millis = |cpus: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and a million thousandths, after the check"
            )]
            let millis = (cpus * 1000.0).round() as u64;
            (0.0..=f64::from(limits::CPUS_MAX)).contains(&cpus).then_some(millis).ok_or_else(bad)
        };
        Ok(Quota {
            sandboxes: self.sandboxes,
            memory_bytes: self.memory_bytes,
            cpu_millis: self.cpus.map(millis).transpose()?,
            disk_bytes: self.disk_bytes,
            snapshots: self.snapshots,
            snapshot_bytes: self.snapshot_bytes,
            image_bytes: self.image_bytes,
        })
    }
}

/// What sandboxes may mount, beside buckets whose credentials come with the request. Every client of the API may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mounts {
    /// Directories of the host, and all below them.
    pub directories: Vec<PathBuf>,
    /// A file of profiles with credentials for buckets, in the form of `~/.aws/credentials`; read whenever a mount needs
    /// it.
    pub credentials_file: Option<PathBuf>,
    /// Whether the credentials in the daemon's environment may be used: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`, or `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub environment: bool,
}

/// What leaves sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Addresses and ranges that are not public, or the host's own, and that policies may name all the same.
    pub open: Vec<String>,
    /// Name servers for sandboxes, at port 53 if none is given.
    #[serde(deserialize_with = "resolvers")]
    pub resolvers: Vec<SocketAddr>,
    /// Certificates, in PEM, that the gateway trusts beside the host's when it speaks TLS for a sandbox.
    pub ca_file: Option<PathBuf>,
    /// Directory of the sockets that policies may name as handlers.
    pub handlers: Option<PathBuf>,
}

impl Network {
    /// What is in `ca_file`; nothing without one.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or holds no certificate, or one that nobody could trust.
    pub fn ca_pem(&self) -> Result<String, ConfigError> {
        let Some(path) = &self.ca_file else { return Ok(String::new()) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let bad = |why| ConfigError::Certificates { path: path.clone(), why };
        if text.len() > limits::CA_BYTES_MAX {
            return Err(bad(format!("it has more than {} bytes", limits::CA_BYTES_MAX)));
        }
        match trust(&mut RootCertStore::empty(), &text) {
            Ok(0) => Err(bad("it holds none".to_owned())),
            Ok(_) => Ok(text),
            Err(why) => Err(bad(why)),
        }
    }

    /// The ranges in `open`; [`Config::validate`] has refused what is none.
    pub fn open_networks(&self) -> Vec<gateway::Network> {
        self.open.iter().filter_map(|text| network(text)).collect()
    }
}

/// Adds certificates in PEM to those that are trusted, and says how many they were.
///
/// # Errors
/// In words, when one is none.
pub fn trust(roots: &mut RootCertStore, pem: &str) -> Result<usize, String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        count += 1;
    }
    Ok(count)
}

/// Name servers: `10.1.2.3`, `10.1.2.3:53`.
fn resolvers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let parse = |text: String| {
        let bare = || text.parse().map(|address: IpAddr| SocketAddr::new(address, 53));
        text.parse().or_else(|_| bare()).map_err(|_| {
            serde::de::Error::custom(format!(
                "network.resolvers holds {text:?}: write IP or IP:PORT, like 10.1.2.3:53 or [fd00::53]:53"
            ))
        })
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

/// An address or a range: `10.1.2.3`, `10.0.0.0/8`.
fn network(text: &str) -> Option<gateway::Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (most, bits) = match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address)) << 96),
        IpAddr::V6(address) => (128, u128::from(address)),
    };
    let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= most))?;
    // Bits behind the range are a mistake: which one was meant?
    let behind = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (bits & behind == 0).then_some(gateway::Network { address, prefix })
}

/// Where exposed ports can be reached by browsers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreviewConfig {
    /// TCP address, or `off`. [`PREVIEW_LISTEN_DEFAULT`] when absent, if it is free.
    pub listen: Option<String>,
    /// Scheme, host and port that browsers see; `localhost` and the port of `listen` when absent.
    pub url: Option<String>,
}

impl PreviewConfig {
    /// Where to listen; `None` for nowhere.
    ///
    /// # Errors
    /// When it is neither an address nor `off`.
    pub fn address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        match self.listen.as_deref().unwrap_or(PREVIEW_LISTEN_DEFAULT) {
            "off" => Ok(None),
            text => text.parse().map(Some).map_err(|_| ConfigError::Listen(text.to_owned())),
        }
    }
}

/// Limits of sandboxes that do not say; 0 is "no limit".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes of /dev/shm.
    pub tmpfs_bytes: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            memory_bytes: limits::MEMORY_BYTES_DEFAULT,
            pids: limits::PIDS_DEFAULT,
            tmpfs_bytes: limits::TMPFS_BYTES_DEFAULT,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/stockade".into(),
            state_dir: "/var/lib/stockade".into(),
            socket: None,
            socket_group: None,
            operator_group: None,
            ids_first: 1 << 29,
            require_limits: false,
            log: "info".to_owned(),
            log_json: false,
            defaults: Defaults::default(),
            quotas: QuotasConfig::default(),
            network: Network::default(),
            mounts: Mounts::default(),
            preview: PreviewConfig::default(),
        }
    }
}

/// Why the configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, has a key that does not exist, or a value of another type.
    #[error("{path} is not a configuration: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A path is relative: it would mean another place for every role.
    #[error("{key} must be an absolute path, not {path}")]
    Relative {
        /// Which key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// An entry of `network.open` is neither an address nor a range.
    #[error("network.open holds {0:?}, which is neither an address nor a range like 10.1.2.0/24")]
    Open(String),
    /// `network.ca_file` cannot be used.
    #[error("{path} must hold certificates in PEM: {why}")]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// How much users may have.
    #[error("quotas: {0}")]
    Quota(String),
    /// Where previews are served.
    #[error("preview.listen must be an address like {PREVIEW_LISTEN_DEFAULT}, or \"off\", not {0:?}")]
    Listen(String),
}

impl Config {
    /// Reads the named file, or the default one if it is there.
    ///
    /// # Errors
    /// When a file is there, or was named, and cannot be used.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(PATH_DEFAULT));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// The directory of handlers.
    pub fn handlers(&self) -> PathBuf {
        self.network.handlers.clone().unwrap_or_else(|| self.runtime_dir.join("handlers"))
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.runtime_dir.join("stockade.sock"))
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (key, path) in [
            ("runtime_dir", &self.runtime_dir),
            ("state_dir", &self.state_dir),
            ("socket", &self.socket()),
            ("network.handlers", &self.handlers()),
        ] {
            if !path.is_absolute() {
                return Err(ConfigError::Relative { key, path: path.clone() });
            }
        }
        let files = self.mounts.credentials_file.iter().map(|path| ("mounts.credentials_file", path));
        let directories = self.mounts.directories.iter().map(|path| ("mounts.directories", path));
        if let Some((key, path)) = files.chain(directories).find(|(_, path)| !path.is_absolute()) {
            return Err(ConfigError::Relative { key, path: path.clone() });
        }
        if let Some(bad) = self.network.open.iter().find(|text| network(text).is_none()) {
            return Err(ConfigError::Open(bad.clone()));
        }
        self.quotas.parsed()?;
        self.preview.address().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_a_misspelt_key_is_an_error() {
        let path = Path::new("x");
        assert_eq!(Config::parse("", path).expect("empty"), Config::default());
        let parsed = Config::parse("[defaults]\npids = 9\n", path).expect("partial");
        assert_eq!((parsed.defaults.pids, parsed.defaults.memory_bytes), (9, limits::MEMORY_BYTES_DEFAULT));
        for bad in ["sokcet = '/x'", "ids_first = -1", "require_limits = 1", "[defaults]\nmemory = 1"] {
            assert!(matches!(Config::parse(bad, path), Err(ConfigError::Parse { .. })), "{bad}");
        }
    }

    #[test]
    fn a_file_of_certificates_holds_some_that_can_be_trusted() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let network = Network { ca_file: Some(file.path().to_owned()), ..Network::default() };
        let taken = |text: &str| {
            std::fs::write(file.path(), text).expect("write");
            network.ca_pem().is_ok()
        };
        let block =
            |inside: &str| format!("-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n");
        let key = rcgen::KeyPair::generate().expect("key");
        let made = rcgen::CertificateParams::default().self_signed(&key).expect("certificate");
        let good = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, made.der());
        assert!(taken(&block(&good)));
        // Text of which the gateway could make nothing, each time that it is started.
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----",
            &block("!!"),
            &block("AAAA"),
            &(block(&good) + &block("AAAA")),
        ] {
            assert!(!taken(bad), "{bad}");
        }
        assert!(!taken(&block(&good).repeat(1000)), "too large");
    }

    #[test]
    fn what_is_opened_is_a_range_and_nothing_else() {
        let open = |text: &str| Config {
            network: Network { open: vec![text.to_owned()], ..Network::default() },
            ..Config::default()
        };
        for good in ["10.0.0.0/8", "10.1.2.3", "127.0.0.1/32", "0.0.0.0/0", "fd00::/8", "::1"] {
            assert!(open(good).validate().is_ok(), "{good}");
            assert_eq!(open(good).network.open_networks().len(), 1);
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "fd00::1/8", "10.0.0.0/"] {
            assert!(matches!(open(bad).validate(), Err(ConfigError::Open(_))), "{bad}");
        }
    }

    #[test]
    fn quotas_are_everybodys_or_a_uids() {
        let of = |text: &str| Config::parse(text, Path::new("x")).map(|config| config.quotas.parsed());
        let text = "[quotas]\nsandboxes = 3\ncpus = 1.5\n[quotas.users.1000]\nmemory_bytes = 7\nsandboxes = 9\n\
                    [quotas.users.0]\nsnapshots = 1\n";
        let quotas = of(text).expect("parses").expect("valid");
        assert_eq!((quotas.everybody.sandboxes, quotas.everybody.cpu_millis), (Some(3), Some(1500)));
        // What a table does not name is everybody's, but for root.
        let one = &quotas.users[&1000];
        assert_eq!((one.memory_bytes, one.sandboxes, one.cpu_millis), (Some(7), Some(9), Some(1500)));
        assert_eq!((quotas.users[&0].sandboxes, quotas.users[&0].snapshots), (None, Some(1)));
        for bad in ["[quotas]\ncpus = -1.0", "[quotas.users.me]\nsandboxes = 1"] {
            assert!(matches!(of(bad), Ok(Err(ConfigError::Quota(_)))), "{bad}");
        }
    }

    #[test]
    fn previews_have_an_address_or_none() {
        let of = |text: &str| Config::parse(text, Path::new("x")).expect("parses").preview.address();
        let port = |text| of(text).expect("valid").map(|address| address.port());
        assert_eq!(port(""), Some(7080));
        assert_eq!(port("[preview]\nlisten = \"[::1]:1\""), Some(1));
        assert_eq!(port("[preview]\nlisten = \"off\""), None);
        for bad in ["7080", "localhost:7080", "127.0.0.1", ""] {
            let of_bad = of(&format!("[preview]\nlisten = \"{bad}\""));
            assert!(matches!(of_bad, Err(ConfigError::Listen(text)) if text == bad), "{bad}");
        }
    }

    #[test]
    fn a_relative_path_is_refused_by_name() {
        let config = Config { state_dir: "lib".into(), ..Config::default() };
        assert!(matches!(config.validate(), Err(ConfigError::Relative { key: "state_dir", .. })));
    }

    #[test]
    fn name_servers_are_addresses_with_or_without_a_port() {
        let read = |text: &str| toml::from_str::<Network>(&format!("resolvers = [{text}]"));
        let both = read(r#""10.1.2.3", "10.1.2.3:5353", "fd00::53""#).expect("addresses").resolvers;
        let texts: Vec<String> = both.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.1.2.3:53", "10.1.2.3:5353", "[fd00::53]:53"]);
        assert!(read(r#""resolver.test""#).expect_err("a name").to_string().contains("write IP or IP:PORT"));
    }
}
