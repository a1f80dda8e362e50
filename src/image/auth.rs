//! What a registry asks for with 401, and what it is given (RFC 9110 §11, RFC 6750, distribution token
//! specification).
//!
//! A token server is named by the registry, so it is not trusted with more than the registry is: credentials go
//! only to a server of the registry's own domain, and nothing goes over plain HTTP unless the registry itself is
//! spoken to so. Where the request ends up is the dialer's part.

use base64::Engine as _;
use hyper::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use crate::wire::fetch::Credentials;

/// Why a challenge cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// No scheme that we speak.
    #[error("the registry asks for neither Bearer nor Basic credentials")]
    Scheme,
    /// No credentials to answer with.
    #[error("the registry wants credentials")]
    Missing,
    /// A token server that is no URL, or is reached without TLS.
    #[error("the registry names the token server '{0}', which must be an https URL")]
    Realm(String),
    /// Credentials would go to somebody else.
    #[error("the registry '{registry}' sends credentials to '{realm}', another domain")]
    ForeignRealm {
        /// Who asks.
        registry: String,
        /// Who would get them.
        realm: String,
    },
    /// The token server's answer.
    #[error("the token server's answer is not a token")]
    Token,
    /// Not fit for a header.
    #[error("the credentials contain characters that cannot be sent")]
    Unsendable,
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }
}

/// How to go on after a 401.
#[derive(Debug)]
pub(super) enum Step {
    /// Send the request again with this.
    Retry(HeaderValue),
    /// Get a token there first, with this if anything.
    Token(Url, Option<HeaderValue>),
}

/// Decides how to answer the challenges.
pub(super) fn answer(
    headers: &[&str],
    registry: &Url,
    (repository, actions): (&str, &str),
    credentials: &Credentials,
) -> Result<Step, AuthError> {
    let challenges: Vec<_> = headers.iter().flat_map(|header| parse(header)).collect();
    if let Credentials::Token(token) = credentials {
        return Ok(Step::Retry(bearer(token)?));
    }
    let basic = match credentials {
        Credentials::Basic { username, password } => Some(basic(username, password)?),
        _ => None,
    };
    if let Some(challenge) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
        let realm = realm(challenge, registry, (repository, actions))?;
        if basic.is_some() && !same_domain(&realm, registry) {
            let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();
            return Err(AuthError::ForeignRealm { registry: host(registry), realm: host(&realm) });
        }
        return Ok(Step::Token(realm, basic));
    }
    if challenges.iter().any(|challenge| challenge.scheme == "basic") {
        return basic.map(Step::Retry).ok_or(AuthError::Missing);
    }
    Err(AuthError::Scheme)
}

/// The token server's URL with what the token is for.
fn realm(
    challenge: &Challenge,
    registry: &Url,
    (repository, actions): (&str, &str),
) -> Result<Url, AuthError> {
    let text = challenge.parameter("realm").unwrap_or_default();
    let refuse = || AuthError::Realm(text.chars().take(256).collect());
    let mut url = Url::parse(text).map_err(|_| refuse())?;
    let plain = url.scheme() == "http" && registry.scheme() == "http";
    if !(url.scheme() == "https" || plain) || url.host_str().is_none() || !url.username().is_empty() {
        return Err(refuse());
    }
    let scope = challenge.parameter("scope").map(str::to_owned);
    let scope = scope.unwrap_or_else(|| format!("repository:{repository}:{actions}"));
    let mut query = url.query_pairs_mut();
    if let Some(service) = challenge.parameter("service") {
        query.append_pair("service", service);
    }
    query.append_pair("scope", &scope);
    drop(query);
    Ok(url)
}

/// Whether two hosts belong together: equal, or below one domain that can be registered.
///
/// Without the public suffix list the domain is guessed: the last two labels, or three where the second is short
/// and the first a country's ("co.uk"). The guess can only be too wide for suffixes such as "github.io".
fn same_domain(one: &Url, other: &Url) -> bool {
    let (Some(one), Some(other)) = (one.host_str(), other.host_str()) else { return false };
    if one == other {
        return true;
    }
    if [one, other].iter().any(|host| host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok()) {
        return false;
    }
    match (domain(one), domain(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn domain(host: &str) -> Option<&str> {
    let labels: Vec<_> = host.trim_end_matches('.').rsplit('.').collect();
    let count = match labels.as_slice() {
        [top, second, ..] if top.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    };
    if labels.len() < count {
        return None;
    }
    let length: usize = labels.iter().take(count).map(|label| label.len() + 1).sum();
    host.trim_end_matches('.').get(host.trim_end_matches('.').len() + 1 - length..)
}

/// Parses a header: `scheme key=value, key="quoted \" value", scheme …`. What makes no sense ends the reading.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        let token = token.to_ascii_lowercase();
        let after = after.trim_start_matches([' ', '\t']);
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = parse_value(value.trim_start_matches([' ', '\t']));
            let Some(challenge) = challenges.last_mut() else { return challenges };
            challenge.parameters.push((token, value));
            rest = after;
        } else {
            challenges.push(Challenge { scheme: token, parameters: Vec::new() });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[position + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The header that a token server's answer allows to send.
pub(super) fn token(body: &[u8]) -> Result<HeaderValue, AuthError> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| AuthError::Token)?;
    let token =
        answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or(AuthError::Token)?;
    bearer(&token)
}

fn bearer(token: &str) -> Result<HeaderValue, AuthError> {
    sensitive(format!("Bearer {token}"))
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, AuthError> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    sensitive(format!("Basic {encoded}"))
}

fn sensitive(text: String) -> Result<HeaderValue, AuthError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| AuthError::Unsendable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    fn password() -> Credentials {
        Credentials::Basic { username: "user".to_owned(), password: "secret".to_owned() }
    }

    #[test]
    fn a_challenge_may_be_quoted_and_have_company() {
        let challenges =
            parse(r#"Basic realm="a, b", Bearer realm="https://t/x",service=s,scope="a:b:\"c\"""#);
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].parameter("realm"), Some("a, b"));
        assert_eq!(challenges[1].parameter("realm"), Some("https://t/x"));
        assert_eq!(challenges[1].parameter("service"), Some("s"));
        assert_eq!(challenges[1].parameter("scope"), Some("a:b:\"c\""));
    }

    #[test]
    fn docker_hub_is_answered_at_its_token_server() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        let registry = url("https://registry-1.docker.io/");
        let step = answer(&[header], &registry, ("library/busybox", "pull"), &password()).expect("step");
        let Step::Token(realm, Some(_)) = step else { panic!("a token is wanted: {step:?}") };
        assert_eq!(
            realm.as_str(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fbusybox%3Apull"
        );
    }

    #[test]
    fn credentials_stay_within_the_domain_of_the_registry() {
        let registry = url("https://registry.example.com/");
        for (realm, trusted) in [
            ("https://registry.example.com/token", true),
            ("https://auth.example.com/token", true),
            ("https://example.com/token", true),
            ("https://evil-example.com/token", false),
            ("https://registry.example.com.evil.org/token", false),
            ("https://10.0.0.1/token", false),
            ("https://169.254.169.254/latest", false),
        ] {
            let header = format!("Bearer realm=\"{realm}\"");
            let answered = answer(&[&header], &registry, ("a", "pull"), &password());
            assert_eq!(answered.is_ok(), trusted, "{realm}: {answered:?}");
        }
        // Countries' registries sell the third label.
        let british = url("https://registry.example.co.uk/");
        assert!(
            answer(&[r#"Bearer realm="https://evil.co.uk/""#], &british, ("a", "pull"), &password()).is_err()
        );
    }

    #[test]
    fn a_token_server_without_tls_is_refused_unless_the_registry_has_none() {
        let header = r#"Bearer realm="http://registry.example.com/token""#;
        let secure =
            answer(&[header], &url("https://registry.example.com/"), ("a", "pull"), &Credentials::Anonymous);
        assert!(matches!(secure, Err(AuthError::Realm(_))), "{secure:?}");
        let plain =
            answer(&[header], &url("http://registry.example.com/"), ("a", "pull"), &Credentials::Anonymous);
        assert!(plain.is_ok(), "{plain:?}");
        for realm in
            ["file:///etc/passwd", "", "gopher://registry.example.com/", "https://user@registry.example.com/"]
        {
            let header = format!("Bearer realm=\"{realm}\"");
            let refused = answer(
                &[&header],
                &url("https://registry.example.com/"),
                ("a", "pull"),
                &Credentials::Anonymous,
            );
            assert!(matches!(refused, Err(AuthError::Realm(_))), "{realm}: {refused:?}");
        }
    }

    #[test]
    fn tokens_cannot_smuggle_headers() {
        assert!(token(br#"{"token":"a\r\nX: y"}"#).is_err());
        assert!(token(br#"{"access_token":"abc"}"#).is_ok());
        assert!(token(br#"{"token":""}"#).is_err());
    }
}
