//! Names of images, parsed once: `[registry/]repository[:tag][@digest]`, and platforms.
//!
//! The short forms are Docker's: "busybox" is "docker.io/library/busybox:latest". What is before the first slash
//! is a registry when it has a dot or a colon or is "localhost". A reference with a digest names those bytes and no
//! others; its tag, if it has one too, is a comment.

use std::borrow::Cow;
use std::fmt;

use oci_spec::distribution::{ParseError, Reference as Parsed};

use crate::id::Digest;
use crate::wire::fetch::Platform;

/// Bytes of a reference: a host name of 255, a repository of 255, a tag of 128, a digest of 71, and separators.
const REFERENCE_BYTES_MAX: usize = 768;

/// The name of an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    parsed: Parsed,
    digest: Option<Digest>,
}

/// Why a string is not a [`Reference`] or a platform.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Not by the grammar of the distribution specification.
    #[error("image reference '{text}': {why}")]
    Syntax {
        /// What was given, shortened.
        text: String,
        /// The parser's reason.
        why: ParseError,
    },
    /// Longer than any can be.
    #[error("image reference is longer than {REFERENCE_BYTES_MAX} bytes")]
    TooLong,
    /// A digest other than SHA-256.
    #[error("image reference '{0}': the digest must be sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// Not `os/architecture[/variant]`.
    #[error(
        "platform '{0}' is not os/architecture or os/architecture/variant in lower-case letters and digits"
    )]
    Platform(String),
}

impl Reference {
    /// Parses a reference and completes it as Docker does.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(InvalidReference::TooLong);
        }
        let parsed = Parsed::try_from(with_small_host(text).as_ref())
            .map_err(|why| InvalidReference::Syntax { text: text.chars().take(128).collect(), why })?;
        let digest = match parsed.digest() {
            None => None,
            Some(digest) => {
                Some(Digest::parse(digest).map_err(|_| InvalidReference::Digest(text.to_owned()))?)
            }
        };
        Ok(Self { parsed, digest })
    }

    /// The registry as the user knows it: "docker.io", "localhost:5000".
    pub fn registry(&self) -> &str {
        self.parsed.registry()
    }

    /// Where that registry answers, host and perhaps port. Only Docker's is elsewhere than its name says.
    pub fn endpoint(&self) -> &str {
        match self.parsed.registry() {
            "docker.io" => "registry-1.docker.io",
            registry => registry,
        }
    }

    /// The repository: "library/busybox".
    pub fn repository(&self) -> &str {
        self.parsed.repository()
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn tag_or_digest(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.parsed.tag().unwrap_or("latest").to_owned(),
        }
    }

    /// The digest that the manifest, or index, must have.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed.fmt(f)
    }
}

/// The same with the registry in small letters: names of hosts that differ in nothing else are one (RFC 4343).
fn with_small_host(text: &str) -> Cow<'_, str> {
    match text.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host.eq_ignore_ascii_case("localhost") => {
            Cow::Owned(format!("{}/{rest}", host.to_ascii_lowercase()))
        }
        _ => Cow::Borrowed(text),
    }
}

/// The platform that sandboxes of this host run.
pub fn host_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    };
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
}

/// Parses `os/architecture[/variant]`.
///
/// # Errors
/// When it has another form.
pub fn parse_platform(text: &str) -> Result<Platform, InvalidReference> {
    let invalid = || InvalidReference::Platform(text.chars().take(64).collect());
    let part = |part: &str| {
        let valid = !part.is_empty()
            && part.len() <= 32
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if valid { Ok(part.to_owned()) } else { Err(invalid()) }
    };
    let mut parts = text.split('/');
    let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else { return Err(invalid()) };
    let variant = parts.next().map(part).transpose()?;
    if parts.next().is_some() {
        return Err(invalid());
    }
    Ok(Platform { os: part(os)?, architecture: part(architecture)?, variant })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_what_they_mean_to_docker() {
        for (text, full, endpoint) in [
            ("busybox", "docker.io/library/busybox:latest", "registry-1.docker.io"),
            ("index.docker.io/busybox:1", "docker.io/library/busybox:1", "registry-1.docker.io"),
            ("user/tool:v1", "docker.io/user/tool:v1", "registry-1.docker.io"),
            ("localhost/tool", "localhost/tool:latest", "localhost"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io"),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.endpoint(), endpoint);
        }
    }

    #[test]
    fn hosts_are_the_same_in_large_letters() {
        for text in ["DOCKER.io/a/b:Tag", "docker.IO/a/b:Tag"] {
            assert_eq!(Reference::parse(text).expect(text).to_string(), "docker.io/a/b:Tag");
        }
        let local = Reference::parse("LocalHost:5000/a").expect("reference");
        assert_eq!(local.registry(), "localhost:5000");
    }

    #[test]
    fn a_digest_decides_over_a_tag() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let reference = Reference::parse(&format!("ghcr.io/a/b:tag@{digest}")).expect("reference");
        assert_eq!(reference.tag_or_digest(), digest);
        assert_eq!(reference.digest(), Digest::parse(&digest).ok());
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        let sha512 = format!("a@sha512:{}", "0".repeat(128));
        let upper = format!("a@sha256:{}", "AB".repeat(32));
        let long = "a".repeat(1000);
        for bad in [
            "",
            "A",
            "a b",
            "a/../b",
            "/a",
            "a:",
            "a@sha256:00",
            &sha512,
            &upper,
            &long,
            "a\0b",
            "http://a/b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn platforms_have_two_or_three_parts() {
        let platform = parse_platform("linux/arm/v7").expect("platform");
        assert_eq!((&*platform.architecture, platform.variant.as_deref()), ("arm", Some("v7")));
        for bad in
            ["", "linux", "linux/", "/amd64", "linux/amd64/", "linux/a/b/c", "Linux/amd64", "linux/a b"]
        {
            assert!(parse_platform(bad).is_err(), "{bad:?}");
        }
    }
}
