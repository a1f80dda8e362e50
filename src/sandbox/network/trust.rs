//! The sandbox's side of TLS that is opened: its authority's certificate, and the variables by which programs find it.
//!
//! | program | variable | file |
//! |---|---|---|
//! | OpenSSL, Python, Go | `SSL_CERT_FILE` | bundle |
//! | curl | `CURL_CA_BUNDLE` | bundle |
//! | Python's requests, pip | `REQUESTS_CA_BUNDLE`, `PIP_CERT` | bundle |
//! | git | `GIT_SSL_CAINFO` | bundle |
//! | AWS, cargo | `AWS_CA_BUNDLE`, `CARGO_HTTP_CAINFO` | bundle |
//! | Node.js | `NODE_EXTRA_CA_CERTS` | the certificate alone, which Node adds to its own |
//!
//! The bundle is the image's own, if it has one, and the certificate: hosts whose TLS is not opened stay trusted. It is
//! made when TLS is opened first, of what the image has then. An image without certificates trusts nobody else by it:
//! what the host trusts is not what the image's maker chose to. Programs that bring their own, like pip, then reach
//! only hosts whose TLS is opened, unless their variable says something else.
//!
//! Why not the image's own file: what is made of the sandbox's files would carry the trust elsewhere, and it could not be
//! taken away again. These are written whenever a sandbox begins to run, because its files may be those of a snapshot
//! or of another sandbox, and go when nothing is opened any more.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;

use crate::error::{Error, ErrorCode};
use crate::gateway::authority;
use crate::sandbox::files::{Files, Opened, WriteSpec};
use crate::wire::worker::Condition;

const DIRECTORY: &str = "/etc/stockade";
const CERTIFICATE: &str = "/etc/stockade/ca.crt";
const BUNDLE: &str = "/etc/stockade/ca-bundle.crt";

/// Where images have theirs: Debian and Alpine, Red Hat, SUSE, Alpine's OpenSSL.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Bytes of a bundle that are taken over: Debian's has 220 KiB.
const BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The variables.
pub(in crate::sandbox) fn variables() -> BTreeMap<String, String> {
    let bundle = [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "GIT_SSL_CAINFO",
        "AWS_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
    ];
    let mut all: BTreeMap<_, _> = bundle.map(|name| (name.to_owned(), BUNDLE.to_owned())).into();
    all.insert("NODE_EXTRA_CA_CERTS".to_owned(), CERTIFICATE.to_owned());
    all
}

/// Writes the files.
///
/// # Errors
/// When the sandbox has ended, or its disk is full.
pub(super) async fn install(files: &Files, certificate: &[u8]) -> Result<(), Error> {
    let pem = authority::pem(certificate);
    let mut bundle = own_bundle(files).await;
    if !bundle.is_empty() && !bundle.ends_with(b"\n") {
        bundle.push(b'\n');
    }
    bundle.extend_from_slice(pem.as_bytes());
    for (path, bytes) in [(CERTIFICATE, Bytes::from(pem)), (BUNDLE, bundle.into())] {
        let spec = WriteSpec {
            path: path.into(),
            mode: Some(0o644),
            owner: None,
            parents: true,
            condition: Condition::Any,
        };
        let body = futures_util::stream::iter([Ok::<_, Infallible>(bytes)]);
        files.write(spec, body).await?;
    }
    Ok(())
}

/// Removes the files, and their directory if nothing else is in it.
///
/// # Errors
/// When the sandbox has ended, or keeps them.
pub(super) async fn remove(files: &Files) -> Result<(), Error> {
    for path in [CERTIFICATE, BUNDLE] {
        match files.remove(path.into(), false).await {
            Err(error) if error.code == ErrorCode::NotDirectory => return Ok(()),
            Err(error) if error.code != ErrorCode::FileNotFound => return Err(error),
            _ => {}
        }
    }
    // With something of the owner's in it, it stays.
    let _ = files.remove(DIRECTORY.into(), false).await;
    Ok(())
}

/// What the image trusts; nothing when it says nothing.
async fn own_bundle(files: &Files) -> Vec<u8> {
    for path in BUNDLES {
        let Ok(Opened::File { file, .. }) = files.open(path.into()).await else { continue };
        let mut reader = file.read(0, BUNDLE_BYTES_MAX);
        let mut bytes = Vec::new();
        while let Some(Ok(piece)) = reader.next().await {
            bytes.extend_from_slice(&piece);
        }
        if !bytes.is_empty() {
            return bytes;
        }
    }
    Vec::new()
}
