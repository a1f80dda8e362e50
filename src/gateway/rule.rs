//! The text of a rule: `[PROTOCOL://]WHOM[:PORTS]`, parsed once into a type.
//!
//! | part | |
//! |---|---|
//! | PROTOCOL | `tcp` (anything, as when absent), `http` (without TLS), `https` (TLS) |
//! | WHOM | a name, `*.name` (every name below it, not itself), a name with `*` in a label, `*`; an address, a range like `10.0.0.0/8`; IPv6 in brackets when ports follow |
//! | PORTS | `443`, `8000-8100`, `80,443`; without it every port, of `http` 80 and of `https` 443 |
//!
//! Names are compared in one form only, [`name`]'s: lower case, no final dot, ASCII. What a browser would take for an
//! address (`0x7f.1`, `2130706433`) is neither a name nor an address here.

use std::net::{IpAddr, Ipv6Addr};

use crate::limits::RULE_BYTES_MAX;
use crate::wire::gateway::{Network, Protocol, Rule, Target};

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRule(String);

fn bad(why: impl Into<String>) -> BadRule {
    BadRule(why.into())
}

/// Parses a rule.
///
/// # Errors
/// Says which part is wrong.
pub fn parse(text: &str) -> Result<Rule, BadRule> {
    if text.is_empty() || text.len() > RULE_BYTES_MAX {
        return Err(bad(format!("a rule has 1 to {RULE_BYTES_MAX} bytes")));
    }
    if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(bad("a rule has no spaces and no control characters"));
    }
    let (protocol, rest) = match text.split_once("://") {
        None => (Protocol::Any, text),
        Some(("tcp", rest)) => (Protocol::Any, rest),
        Some(("http", rest)) => (Protocol::Http, rest),
        Some(("https", rest)) => (Protocol::Tls, rest),
        Some((other, _)) => return Err(bad(format!("the protocol is tcp, http or https, not {other:?}"))),
    };
    let (whom, ports) = split(rest)?;
    let ports = match (ports, protocol) {
        (Some(ports), _) => parse_ports(ports)?,
        (None, Protocol::Any) => Vec::new(),
        (None, Protocol::Http) => vec![(80, 80)],
        (None, Protocol::Tls) => vec![(443, 443)],
    };
    let target = target(whom)?;
    let text = show(protocol, &target, &ports);
    Ok(Rule { text, protocol, target, ports })
}

/// Whom, and the ports if there are some.
fn split(text: &str) -> Result<(&str, Option<&str>), BadRule> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?;
        if !inside.contains(':') {
            return Err(bad("only an IPv6 address stands in brackets"));
        }
        return match after.strip_prefix(':') {
            Some(ports) => Ok((inside, Some(ports))),
            None if after.is_empty() => Ok((inside, None)),
            None => Err(bad("after the bracket comes :PORTS, or nothing")),
        };
    }
    match text.matches(':').count() {
        0 => Ok((text, None)),
        1 => Ok(text.split_once(':').map_or((text, None), |(whom, ports)| (whom, Some(ports)))),
        // An IPv6 address without brackets, so without ports.
        _ => Ok((text, None)),
    }
}

fn parse_ports(text: &str) -> Result<Vec<(u16, u16)>, BadRule> {
    let port = |text: &str| -> Result<u16, BadRule> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten().filter(|port| *port != 0);
        number.ok_or_else(|| bad(format!("a port is a number from 1 to 65535, not {text:?}")))
    };
    text.split(',')
        .map(|part| match part.split_once('-') {
            None => port(part).map(|port| (port, port)),
            Some((first, last)) => match (port(first)?, port(last)?) {
                (first, last) if first <= last => Ok((first, last)),
                _ => Err(bad(format!("the range of ports {part} is empty"))),
            },
        })
        .collect()
}

fn target(text: &str) -> Result<Target, BadRule> {
    if text == "*" {
        return Ok(Target::Anything);
    }
    if let Some(network) = network(text)? {
        return Ok(Target::Network(network));
    }
    let ascii;
    let text = if text.is_ascii() {
        text
    } else {
        // IDNA, as browsers do it.
        let parsed = url::Host::parse(text).map_err(|_| bad(format!("{text:?} is not a name")))?;
        ascii = parsed.to_string();
        &ascii
    };
    let bare = text.replace('*', "x");
    name(&bare).ok_or_else(|| bad(format!("{text:?} is neither a name nor an address")))?;
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.split('.').skip(1).any(|label| label == "*") {
        return Err(bad("`*` alone stands only for the first part of a name"));
    }
    Ok(Target::Domain(text))
}

/// A range of addresses, a single one included; `None` for what does not look like one.
///
/// # Errors
/// When it looks like one and is none.
pub fn network(text: &str) -> Result<Option<Network>, BadRule> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return match prefix {
            Some(_) => Err(bad(format!("{text:?} is not a range of addresses"))),
            None => Ok(None),
        };
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|bits| *bits <= most && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| bad(format!("the length of {text:?} is a number from 0 to {most}")))?,
    };
    let mut network = Network { address, prefix };
    // What is compared with it has its IPv4 form as well.
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
        && prefix >= 96
    {
        network = Network { address: v4.into(), prefix: prefix - 96 };
    }
    network.address = masked(network.address, network.prefix);
    Ok(Some(network))
}

/// The address with nothing behind its first bits.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

/// Whether an address is in a range.
pub fn contains(network: &Network, address: IpAddr) -> bool {
    network.address.is_ipv4() == address.is_ipv4() && masked(address, network.prefix) == network.address
}

/// A name in the form in which names are compared: lower case, without a final dot. `None` for what is no host name, and
/// for what some programs would take for an address.
pub fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > 253 {
        return None;
    }
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if !text.split('.').all(good) {
        return None;
    }
    // The last part of an address in any spelling is a number (WHATWG URL, "ends in a number").
    let last = text.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (!number).then(|| text.to_ascii_lowercase())
}

/// Whether a name, in [`name`]'s form, is like a pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    if let Some(above) = pattern.strip_prefix("*.") {
        // Every name below, however deep.
        let labels = above.split('.').count();
        let mut parts = name.split('.').rev();
        let tail: Vec<&str> = parts.by_ref().take(labels).collect();
        return parts.next().is_some() && same(above, tail.into_iter().rev());
    }
    same(pattern, name.split('.'))
}

fn same<'a>(pattern: &str, name: impl Iterator<Item = &'a str>) -> bool {
    let mut patterns = pattern.split('.');
    let mut names = name;
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if label_matches(pattern, label) => {}
            _ => return false,
        }
    }
}

/// `*` stands for any letters of one label. Linear: after each `*` the first place that fits is as good as any other.
fn label_matches(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| label.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// A network as text.
pub fn show_network(network: &Network) -> String {
    let most = if network.address.is_ipv4() { 32 } else { 128 };
    if network.prefix == most {
        network.address.to_string()
    } else {
        format!("{}/{}", network.address, network.prefix)
    }
}

fn show(protocol: Protocol, target: &Target, ports: &[(u16, u16)]) -> String {
    let implied = match protocol {
        Protocol::Any => ports.is_empty(),
        Protocol::Http => ports == [(80, 80)],
        Protocol::Tls => ports == [(443, 443)],
    };
    let mut text = match protocol {
        Protocol::Any => String::new(),
        Protocol::Http => "http://".to_owned(),
        Protocol::Tls => "https://".to_owned(),
    };
    match target {
        Target::Anything => text.push('*'),
        Target::Domain(name) => text.push_str(name),
        Target::Network(network) if network.address.is_ipv6() && !implied => {
            text.push_str(&format!("[{}]", show_network(network)));
        }
        Target::Network(network) => text.push_str(&show_network(network)),
    }
    if !implied {
        let ports = ports.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        text.push(':');
        text.push_str(&ports.collect::<Vec<_>>().join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_shown_in_one_form() {
        for (text, shown) in [
            ("Example.COM.", "example.com"),
            ("*.example.com:443", "*.example.com:443"),
            ("https://example.com", "https://example.com"),
            ("https://example.com:443,8443", "https://example.com:443,8443"),
            ("http://*:8000-8010", "http://*:8000-8010"),
            ("tcp://10.1.2.3/8:5432", "10.0.0.0/8:5432"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("api-*.example.com", "api-*.example.com"),
            ("*", "*"),
        ] {
            let rule = parse(text).expect(text);
            assert_eq!(rule.text, shown);
            assert_eq!(parse(&rule.text), Ok(rule), "{text}");
        }
    }

    #[test]
    fn what_means_two_things_is_refused() {
        for bad in [
            "",
            " ",
            "a b",
            "ftp://example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+1",
            "example.com:2-1",
            "http://",
            "0x7f.1",
            "2130706433",
            "1.2.3",
            "127.1",
            "0177.0.0.1",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "x/8",
            "[10.0.0.1]:80",
            "[::1",
            "[::1]80",
            "a..b",
            ".a",
            "user@example.com",
            "example.com/path",
            "a.*.com",
            "evil\0.ok.com",
            "a.0x1",
            "-",
            "%41.com",
        ] {
            let parsed = parse(bad);
            assert!(parsed.is_err() || bad == "-", "{bad:?}: {parsed:?}");
        }
    }

    #[test]
    fn a_star_stands_for_names_below_and_letters_of_a_label() {
        assert!(matches("*.a.com", "x.a.com") && matches("*.a.com", "y.x.a.com"));
        assert!(
            !matches("*.a.com", "a.com") && !matches("*.a.com", "xa.com") && !matches("a.com", "x.a.com")
        );
        assert!(matches("api-*.a.com", "api-1.a.com") && !matches("api-*.a.com", "api-1.x.a.com"));
        assert!(
            matches("a*b*c.d", "aXbYbc.d") && !matches("a*b*c.d", "aXc.d") && !matches("ab*ba.d", "aba.d")
        );
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let network = |text| super::network(text).expect("good").expect("network");
        let ten = network("10.0.0.0/8");
        assert!(contains(&ten, [10, 255, 0, 1].into()) && !contains(&ten, [11, 0, 0, 1].into()));
        assert!(contains(&network("0.0.0.0/0"), [1, 2, 3, 4].into()));
        assert!(!contains(&network("::/0"), [1, 2, 3, 4].into()));
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_parser_and_what_it_takes_it_shows_the_same(text in ".{0,40}") {
            if let Ok(rule) = parse(&text) {
                prop_assert_eq!(parse(&rule.text), Ok(rule));
            }
        }

        #[test]
        fn a_pattern_without_a_star_matches_itself_alone(a in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}", b in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}") {
            prop_assert_eq!(matches(&a, &b), a == b);
        }
    }
}
