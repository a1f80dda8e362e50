//! A certificate authority for each sandbox whose TLS is opened: it alone trusts it, and the key never enters it.
//!
//! Certificates are made for the name that TLS says, when it is said, after the policy has allowed it. They share one
//! key, which lives as long as the gateway knows the sandbox. They are short-lived; the authority lives as long as its
//! sandbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider as provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};

use super::rule;
use crate::id::SandboxId;
use crate::limits::LEAVES_MAX;
use crate::wire::gateway::AuthorityKey;

/// Clocks of guests and hosts differ.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// How long an authority is good for: longer than a sandbox lives.
const AUTHORITY: Duration = Duration::from_secs(3650 * 24 * 3600);

/// How long a certificate is good for, and after how long another is made.
const LEAF: Duration = Duration::from_secs(7 * 24 * 3600);
const RENEWED: Duration = Duration::from_secs(24 * 3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Making certificates.
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// Using them.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No random numbers.
    #[error("no random numbers")]
    Random,
}

/// Makes an authority for a sandbox.
///
/// # Errors
/// Without random numbers.
pub fn generate(sandbox: &SandboxId) -> Result<AuthorityKey, AuthorityError> {
    let key = KeyPair::generate()?;
    let certificate = params(sandbox)?.self_signed(&key)?;
    Ok(AuthorityKey { certificate: certificate.der().to_vec(), key: key.serialize_der() })
}

/// A certificate as files have it (RFC 7468).
pub fn pem(certificate: &[u8]) -> String {
    let text = BASE64.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// What the authority says of itself: the same whenever it is asked, because certificates refer to it.
fn params(sandbox: &SandboxId) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Stockade");
    params.distinguished_name.push(DnType::CommonName, format!("sandbox {sandbox}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, AUTHORITY)?;
    Ok(params)
}

fn valid(params: &mut CertificateParams, long: Duration) -> Result<(), AuthorityError> {
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + long).into());
    // One authority gives no number twice.
    let mut number = [0; 16];
    provider().secure_random.fill(&mut number).map_err(|_| AuthorityError::Random)?;
    // Positive, and not shorter than it looks.
    number[0] = number[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&number));
    Ok(())
}

/// How TLS of a sandbox with this authority is answered.
pub(super) fn server(sandbox: &SandboxId, key: &AuthorityKey) -> Result<Arc<ServerConfig>, AuthorityError> {
    let signing = KeyPair::try_from(key.key.as_slice())?;
    let own = KeyPair::generate()?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let leaves = Leaves {
        issuer: Issuer::new(params(sandbox)?, signing),
        signing: rustls::crypto::ring::sign::any_supported_type(&der)?,
        key: own,
        known: Mutex::default(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(leaves));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nothing is kept of a connection that is over.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    known: Mutex<HashMap<String, (Instant, Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaves")
    }
}

impl Leaves {
    fn of(&self, name: String) -> Result<Arc<CertifiedKey>, AuthorityError> {
        // Inserts and removals: valid after any panic.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, leaf)) = known.get(&name)
            && made.elapsed() < RENEWED
        {
            return Ok(Arc::clone(leaf));
        }
        let leaf = Arc::new(self.make(&name)?);
        if known.len() >= LEAVES_MAX
            && let Some(oldest) =
                known.iter().min_by_key(|(_, (made, _))| *made).map(|(name, _)| name.clone())
        {
            known.remove(&oldest);
        }
        known.insert(name, (Instant::now(), Arc::clone(&leaf)));
        Ok(leaf)
    }

    fn make(&self, name: &str) -> Result<CertifiedKey, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // A common name has at most 64 letters; who checks looks at the other one.
        params.distinguished_name.push(DnType::CommonName, name.get(..64).unwrap_or(name));
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, LEAF)?;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], Arc::clone(&self.signing)))
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = rule::name(hello.server_name()?)?;
        match self.of(name) {
            Ok(leaf) => Some(leaf),
            Err(error) => {
                tracing::error!(%error, "cannot make a certificate");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_good_for_their_name_alone_and_the_authority_is_the_same_again() {
        let id = SandboxId::parse("a").expect("id");
        let authority = generate(&id).expect("authority");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.clone().into()).expect("a root");
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Arc::new(client);
        // As after a restart of the gateway: from the key alone.
        for _ in 0..2 {
            let config = server(&id, &authority).expect("server");
            for (said, wanted, good) in [("a.test", "a.test", true), ("a.test", "b.test", false)] {
                let mut server = rustls::ServerConnection::new(Arc::clone(&config)).expect("server");
                let name = rustls::pki_types::ServerName::try_from(said).expect("name");
                let mut client = rustls::ClientConnection::new(Arc::clone(&client), name).expect("client");
                let mut bytes = Vec::new();
                client.write_tls(&mut bytes).expect("hello");
                server.read_tls(&mut bytes.as_slice()).expect("read");
                server.process_new_packets().expect("hello");
                bytes.clear();
                server.write_tls(&mut bytes).expect("answer");
                client.read_tls(&mut bytes.as_slice()).expect("read");
                assert!(client.process_new_packets().is_ok(), "{said}");
                let leaf = client.peer_certificates().expect("certificates")[0].clone();
                let parsed = rustls::server::ParsedCertificate::try_from(&leaf).expect("certificate");
                let wanted = rustls::pki_types::ServerName::try_from(wanted).expect("name");
                assert_eq!(rustls::client::verify_server_name(&parsed, &wanted).is_ok(), good);
            }
        }
        assert!(pem(&authority.certificate).starts_with("-----BEGIN CERTIFICATE-----\nMII"));
    }

    #[test]
    fn certificates_are_remembered_and_not_without_bound() {
        let id = SandboxId::parse("a").expect("id");
        let key = KeyPair::generate().expect("key");
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let leaves = Leaves {
            issuer: Issuer::new(params(&id).expect("params"), KeyPair::generate().expect("key")),
            signing: rustls::crypto::ring::sign::any_supported_type(&der).expect("key"),
            key,
            known: Mutex::default(),
        };
        let first = leaves.of("a.test".to_owned()).expect("leaf");
        assert!(Arc::ptr_eq(&first, &leaves.of("a.test".to_owned()).expect("again")));
        for number in 0..2 * LEAVES_MAX {
            leaves.of(format!("{number}.test")).expect("leaf");
        }
        assert_eq!(leaves.known.lock().expect("lock").len(), LEAVES_MAX);
    }
}
