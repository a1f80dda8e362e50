//! Host names of previews: the only reader of the header `host`.
//!
//! `{port}-{sandbox}-{token}.{base}`: neither a port nor a token holds a `-`, so the first and the last one separate
//! the parts. What does not read exactly so is no preview. The port after the name is not looked at: what is forwarded
//! to this listener from elsewhere has another one.

use crate::error::{Error, ErrorCode};
use crate::id::{PreviewToken, SandboxId};

/// Bytes of a label (RFC 1035 §2.3.4). The parts' own bounds add up to it.
const LABEL_BYTES_MAX: usize = 63;

/// Bytes of a name in text (RFC 1035 §3.1: 255 octets on the wire).
const NAME_BYTES_MAX: usize = 253;

/// The part that all addresses of previews have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    scheme: &'static str,
    /// Lower-case.
    host: String,
    port: Option<u16>,
}

/// Why a URL cannot be the base of previews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "preview.url must be http:// or https:// with a host name, not an IP address, and perhaps a port, and no more"
)]
pub struct BadBase;

/// What the host name of a preview says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) port: u16,
    pub(super) sandbox: SandboxId,
    pub(super) token: PreviewToken,
}

impl Base {
    /// Parses a URL of scheme, host and port.
    ///
    /// # Errors
    /// When it is something else, or too long to have labels put before it.
    pub fn parse(url: &str) -> Result<Self, BadBase> {
        let (scheme, rest) = url.split_once("://").ok_or(BadBase)?;
        let scheme = ["http", "https"].into_iter().find(|known| *known == scheme).ok_or(BadBase)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, Some(number(port).ok_or(BadBase)?)),
            None => (rest, None),
        };
        let host = host.to_ascii_lowercase();
        let labels = || host.split('.');
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name =
            labels().all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(allowed));
        let is_address =
            labels().next_back().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_name || is_address || host.len() + 1 + LABEL_BYTES_MAX > NAME_BYTES_MAX {
            return Err(BadBase);
        }
        Ok(Self { scheme, host, port })
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The base as it was given.
    pub(crate) fn url(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}/", self.scheme, self.host)
    }

    /// The URL of a preview.
    pub(crate) fn url_of(&self, port: u16, sandbox: &SandboxId, token: &str) -> String {
        let after = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{port}-{sandbox}-{token}.{}{after}/", self.scheme, self.host)
    }

    /// What the value of a header `host` addresses.
    pub(super) fn address(&self, host: &str) -> Result<Address, Error> {
        let foreign =
            || Error::new(ErrorCode::PreviewHostUnknown, "no previews are served under this host name");
        let name = match host.split_once(':') {
            Some((name, port)) if port.is_empty() || number(port).is_some() => name,
            Some(_) => return Err(foreign()),
            None => host,
        };
        let name = name.to_ascii_lowercase();
        let label = name.strip_suffix(&self.host).and_then(|rest| rest.strip_suffix('.'));
        let label = label.filter(|label| !label.contains('.')).ok_or_else(foreign)?;
        parse_label(label)
            .ok_or_else(|| Error::new(ErrorCode::InvalidToken, "this is not the address of a preview"))
    }
}

fn parse_label(label: &str) -> Option<Address> {
    if label.len() > LABEL_BYTES_MAX {
        return None;
    }
    let (port, rest) = label.split_once('-')?;
    let (sandbox, token) = rest.rsplit_once('-')?;
    Some(Address {
        port: number(port)?,
        sandbox: SandboxId::parse(sandbox).ok()?,
        token: PreviewToken::parse(token).ok()?,
    })
}

/// A port as everybody writes it: no sign, no leading zero.
pub(crate) fn number(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Base {
        Base::parse("http://localhost:7080").expect("base")
    }

    fn code(host: &str) -> Option<ErrorCode> {
        base().address(host).err().map(|error| error.code)
    }

    #[test]
    fn a_base_is_scheme_host_and_port() {
        for (url, of) in [
            ("http://localhost:7080", "http://80-a-t.localhost:7080/"),
            ("https://Preview.Example.com/", "https://80-a-t.preview.example.com/"),
        ] {
            let base = Base::parse(url).expect(url);
            assert_eq!(base.url_of(80, &SandboxId::parse("a").expect("id"), "t"), of);
            assert_eq!(Base::parse(&base.url()), Ok(base));
        }
        let long = format!("http://{}com", "a.".repeat(100));
        for bad in [
            "localhost:7080",
            "ftp://a",
            "HTTP://a",
            "http://",
            "http://127.0.0.1:7080",
            "http://[::1]:7080",
            "http://a:0",
            "http://a:70800",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a..b",
            "http://a_b",
            "http://*.a",
            &long,
        ] {
            assert_eq!(Base::parse(bad), Err(BadBase), "{bad}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_nothing() {
        for good in [
            "8000-my-box-abc_1.localhost:7080",
            "8000-my-box-abc_1.localhost",
            "8000-MY-box-ABC_1.LocalHost:9",
            "8000-my-box-abc_1.localhost:",
        ] {
            let address = base().address(good).expect(good);
            assert_eq!(
                (address.port, address.sandbox.as_str(), address.token.as_str()),
                (8000, "my-box", "abc_1")
            );
        }
        for (foreign, why) in [
            ("localhost:7080", "no label"),
            ("evil.example", "another name"),
            ("8000-a-t.localhost.evil.example", "the base in the middle"),
            ("8000-a-t.evillocalhost", "a name that ends like the base"),
            ("x.8000-a-t.localhost", "two labels"),
            ("8000-a-t.localhost.", "a root label"),
            ("8000-a-t.localhost:80:80", "two ports"),
            ("8000-a-t.localhost:x", "a port that is none"),
            ("8000-a-t.localhost:-1", "a port that is none"),
            ("8000-a-t.localhost@evil.example", "a user"),
            ("evil.example@8000-a-t.localhost.x", "a user"),
            ("127.0.0.1:7080", "an address"),
            ("[::1]:7080", "an address"),
            ("[::ffff:7f00:1]", "an address"),
            ("", "nothing"),
            (".", "a dot"),
        ] {
            assert_eq!(code(foreign), Some(ErrorCode::PreviewHostUnknown), "{foreign}: {why}");
        }
        for (wrong, why) in [
            (".localhost", "an empty label"),
            ("8000.localhost", "a port alone"),
            ("8000-a.localhost", "no token"),
            ("0-a-t.localhost", "port 0"),
            ("08000-a-t.localhost", "a leading zero"),
            ("+8000-a-t.localhost", "a sign"),
            ("65536-a-t.localhost", "a port beyond 16 bits"),
            ("8000--t.localhost", "no sandbox"),
            ("8000-a-.localhost", "an empty token"),
            ("8000-a b-t.localhost", "a blank"),
            ("8000-a%2fb-t.localhost", "an escape"),
            ("8000-a/b-t.localhost", "a path"),
            ("8000-admin-t.localhost", "a reserved id"),
            ("8000-a-tokenthatistoolong.localhost", "a long token"),
            ("u@8000-a-t.localhost", "a user"),
            ("8000-a\u{0}-t.localhost", "a NUL"),
            ("8000-ä-t.localhost", "not ASCII"),
        ] {
            assert_eq!(code(wrong), Some(ErrorCode::InvalidToken), "{wrong}: {why}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_exposed_is_found_by_its_own_url(
            port in 1..=u16::MAX,
            id in "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
            token in "[a-z0-9_]{1,16}",
        ) {
            let Ok(sandbox) = SandboxId::parse(&id) else { return Ok(()) };
            let url = base().url_of(port, &sandbox, &token);
            let host = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).expect("a URL");
            prop_assert!(host.split('.').next().is_some_and(|label| label.len() <= LABEL_BYTES_MAX));
            let found = base().address(host).expect("an address");
            prop_assert_eq!((found.port, found.sandbox, found.token.as_str()), (port, sandbox, token.as_str()));
        }

        #[test]
        fn no_host_makes_it_fail(host in "\\PC*") {
            let _ = base().address(&host);
            let _ = base().address(&format!("{host}.localhost:7080"));
        }
    }
}
