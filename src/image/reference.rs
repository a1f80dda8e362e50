//! Names of images, parsed once: `[registry/]repository[:tag][@digest]`, and platforms.
//!
//! The grammar is that of the distribution specification ("Pulling manifests") and of Docker's short forms: "busybox" is
//! "docker.io/library/busybox:latest". What is before the first slash is a registry when it has a dot or a colon or is
//! "localhost". A reference with a digest names those bytes and no others; its tag, if it has one too, is a comment.
//!
//! Not by `oci-spec`'s parser: that is a regular expression of which the daemon would keep 9 MiB.

use std::fmt;

use crate::id::Digest;
use crate::wire::fetch::Platform;

/// Bytes of a reference: a host name of 255, a repository of 255, a tag of 128, a digest of 71, and separators.
const REFERENCE_BYTES_MAX: usize = 768;

/// Bytes of a repository's name.
const REPOSITORY_BYTES_MAX: usize = 255;

/// Bytes of a tag.
const TAG_BYTES_MAX: usize = 128;

/// What a tag is when none is named.
const TAG_DEFAULT: &str = "latest";

/// Docker's registry, by its name.
const DOCKER: &str = "docker.io";

/// The name of an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    /// Absent when only a digest was named.
    tag: Option<String>,
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
        /// The part that is wrong, and its rule.
        why: &'static str,
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
        let wrong = |why| InvalidReference::Syntax { text: text.chars().take(128).collect(), why };
        let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
        let slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
            None => (rest, None),
        };
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) {
            return Err(wrong("a registry is a host name or an address, and perhaps a port"));
        }
        if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_path_component) {
            return Err(wrong(
                "a repository is lower-case letters and digits with single dots, one or two underscores or dashes \
                 between them, and slashes",
            ));
        }
        if !tag.is_none_or(is_tag) {
            return Err(wrong(
                "a tag is up to 128 letters, digits, underscores, dots and dashes, with neither of the last two first",
            ));
        }
        let digest = digest.map(Digest::parse).transpose();
        let digest = digest.map_err(|_| InvalidReference::Digest(text.to_owned()))?;
        let tag = tag.or(digest.is_none().then_some(TAG_DEFAULT)).map(str::to_owned);
        Ok(Self { registry, repository, tag, digest })
    }

    /// The registry as the user knows it: "docker.io", "localhost:5000".
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where that registry answers, host and perhaps port. Only Docker's is elsewhere than its name says.
    pub fn endpoint(&self) -> &str {
        if self.registry == DOCKER { "registry-1.docker.io" } else { &self.registry }
    }

    /// The repository: "library/busybox".
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn tag_or_digest(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.as_deref().unwrap_or(TAG_DEFAULT).to_owned(),
        }
    }

    /// The digest that the manifest, or index, must have.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// The registry, in small letters because names of hosts that differ in nothing else are one (RFC 4343), and the repository.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host.eq_ignore_ascii_case("localhost") => {
            (host.to_ascii_lowercase(), rest)
        }
        _ => (DOCKER.to_owned(), name),
    };
    let is_docker = registry == DOCKER || registry == "index.docker.io";
    if is_docker && !repository.is_empty() && !repository.contains('/') {
        return (DOCKER.to_owned(), format!("library/{repository}"));
    }
    (if is_docker { DOCKER.to_owned() } else { registry }, repository.to_owned())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs of letters and digits, with separators between them.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |byte: &char| matches!(byte, 'a'..='z' | '0'..='9');
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let mut rest = text;
    loop {
        let run = rest.chars().take_while(is_alphanumeric).count();
        let after = &rest[run..];
        if run == 0 || after.is_empty() {
            return run > 0;
        }
        let separator = after.find(|char| is_alphanumeric(&char)).unwrap_or(after.len());
        if !is_separator(&after[..separator]) {
            return false;
        }
        rest = &after[separator..];
    }
}

fn is_tag(text: &str) -> bool {
    text.len() <= TAG_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
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
            ("docker.io/user/tool", "docker.io/user/tool:latest", "registry-1.docker.io"),
            ("localhost:5000", "docker.io/library/localhost:5000", "registry-1.docker.io"),
            ("a/b_c/d__e/f---g/h.i:_1.2-3", "docker.io/a/b_c/d__e/f---g/h.i:_1.2-3", "registry-1.docker.io"),
            ("a-b.c:80/d", "a-b.c:80/d:latest", "a-b.c:80"),
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
            "a//b",
            "a/",
            "a.b/",
            "-a.b/c",
            "a.b:/c",
            "a.b:x/c",
            "a.b:1:2/c",
            "a..b",
            "a._b",
            "a___b",
            "_a",
            "a-",
            "A/b",
            "a:b:c",
            "a:-b",
            "a:.b",
            "a:ä",
            "ä",
            "a@",
            "a:b@c@d",
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
