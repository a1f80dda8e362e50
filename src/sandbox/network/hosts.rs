//! Hosts of a policy as text: credentials come in here and do not go out again.

use std::fmt;

use hyper::header::HeaderName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refuse;
use crate::error::Error;
use crate::gateway::rule;
use crate::limits;
use crate::wire::gateway::{Credential, Host, Kind, Secrets};

/// A host for whose requests the gateway does more than to let them pass.
///
/// It needs no rule in `allow`: requests to `http://HOST/` are allowed by it, and to `https://HOST/` if `intercept`
/// names it. `deny` wins all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkHost {
    /// Its name, without `*`.
    #[schema(example = "api.example.com")]
    pub host: String,
    /// Requests to `http://HOST/` leave over verified TLS, to port 443; those to another port, to that port. On by
    /// itself with a credential.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub upgrade: bool,
    /// A header that is added. One of the same name that the sandbox sends is replaced.
    #[serde(deserialize_with = "crate::sandbox::some_object", skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderCredential>,
    /// A name and a password that are added (RFC 7617).
    #[serde(deserialize_with = "crate::sandbox::some_object", skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicCredential>,
    /// A signature of AWS that is added (Signature Version 4), in the place of one that the sandbox made.
    #[serde(deserialize_with = "crate::sandbox::some_object", skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsCredential>,
    /// Requests go to the Unix socket of this name in the operator's directory (`network.handlers`), over HTTP/1.1, and
    /// nowhere else; the host need not exist. `x-stockade-sandbox` and `x-stockade-original-url` say where they began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "stub.sock")]
    pub handler: Option<String>,
}

impl NetworkHost {
    /// Whether it is about this name, however both are written.
    pub fn is_of(&self, name: &str) -> bool {
        match (rule::name(&self.host), rule::name(name)) {
            (Some(one), Some(other)) => one == other,
            _ => self.host == name,
        }
    }

    /// Whether it says that something is added to requests.
    pub fn has_credential(&self) -> bool {
        self.header.is_some() || self.basic.is_some() || self.aws.is_some()
    }
}

/// A header whose value the sandbox does not see.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderCredential {
    /// Its name.
    #[schema(example = "authorization")]
    pub name: String,
    /// Its value. Never shown again; a change of the policy that leaves it out keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Bearer …")]
    pub value: Option<String>,
}

/// A name and a password that the sandbox does not see.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BasicCredential {
    /// Never shown again; a change that leaves both out keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A key of AWS that the sandbox does not see.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AwsCredential {
    /// The region in whose name requests are signed.
    #[schema(example = "eu-central-1")]
    pub region: String,
    /// The service. `s3` takes bodies of any length; of others a body of more than 1 MiB needs its
    /// `x-amz-content-sha256`.
    #[schema(example = "s3")]
    pub service: String,
    /// Never shown again; a change that leaves key and secret out keeps them, and the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
    /// For keys that end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
}

macro_rules! without_secrets {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
without_secrets!(HeaderCredential, BasicCredential, AwsCredential);

/// Headers that say for whom a request is, or how long: not credentials.
const NOT_CREDENTIALS: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// The hosts, and what of them is secret.
pub(super) fn parse(wanted: &[NetworkHost]) -> Result<(Vec<Host>, Secrets), Error> {
    if wanted.len() > limits::EGRESS_HOSTS_MAX {
        let most = limits::EGRESS_HOSTS_MAX;
        let rule = format!("has {} entries, at most {most}", wanted.len());
        return Err(refuse("network.hosts", rule, "name those that need a credential or a handler"));
    }
    let (mut hosts, mut secrets) = (Vec::<Host>::new(), Secrets::default());
    for (index, one) in wanted.iter().enumerate() {
        let field = format!("network.hosts[{index}]");
        let (host, credential) = parse_one(one, &field).map_err(|error| named(error, &one.host))?;
        if hosts.iter().any(|other| other.name == host.name) {
            let rule = format!("is {} once more", host.name);
            return Err(refuse(&field, rule, "give each host one entry with all that is to be done"));
        }
        secrets.credentials.extend(credential.map(|credential| (host.name.clone(), credential)));
        hosts.push(host);
    }
    Ok((hosts, secrets))
}

/// Says of which host an error is: who adds to a list does not see its numbers.
fn named(mut error: Error, host: &str) -> Error {
    if let Some(host) = rule::name(host) {
        error.message = format!("{} (host {host})", error.message).into();
    }
    error
}

fn parse_one(one: &NetworkHost, field: &str) -> Result<(Host, Option<Credential>), Error> {
    let name = rule::name(&one.host).ok_or_else(|| {
        refuse(&format!("{field}.host"), "is not a name", "write a whole name, like api.example.com")
    })?;
    let given = [one.header.is_some(), one.basic.is_some(), one.aws.is_some()];
    let credentials = given.into_iter().filter(|given| *given).count();
    let fix = "give one of header, basic and aws, or upgrade, or a handler";
    if credentials > 1 || one.handler.is_some() && (credentials > 0 || one.upgrade) {
        return Err(refuse(field, "says more than one thing to do with a request", fix));
    }
    if credentials == 0 && one.handler.is_none() && !one.upgrade {
        return Err(refuse(field, "says nothing to do with a request", fix));
    }
    if let Some(handler) = &one.handler {
        check_socket(handler, &format!("{field}.handler"))?;
    }
    let (kind, credential) = match (&one.header, &one.basic, &one.aws) {
        (Some(header), ..) => parse_header(header, &format!("{field}.header"))?,
        (_, Some(basic), _) => parse_basic(basic, &format!("{field}.basic"))?,
        (.., Some(aws)) => parse_aws(aws, &format!("{field}.aws"))?,
        _ => {
            return Ok((
                Host { name, upgrade: one.upgrade, credential: None, handler: one.handler.clone() },
                None,
            ));
        }
    };
    Ok((Host { name, upgrade: true, credential: Some(kind), handler: None }, credential))
}

/// A socket's name: that of one entry of a directory.
fn check_socket(name: &str, field: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.') {
        return Ok(());
    }
    Err(refuse(
        field,
        "is not a socket's name of letters, digits, '-', '_' and '.'",
        "an operator puts the socket into the directory of handlers; name it without the directory",
    ))
}

/// What can stand in a header.
fn text(field: &str, value: &str) -> Result<(), Error> {
    let most = limits::CREDENTIAL_BYTES_MAX;
    if value.len() > most || value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        let rule = format!("must be at most {most} bytes without control characters");
        return Err(refuse(field, rule, "give the credential itself, without a line's end"));
    }
    Ok(())
}

type Parsed = Result<(Kind, Option<Credential>), Error>;

fn parse_header(given: &HeaderCredential, field: &str) -> Parsed {
    let name = HeaderName::from_bytes(given.name.as_bytes()).ok().filter(|name| name.as_str().len() <= 128);
    let name = name.filter(|name| !NOT_CREDENTIALS.contains(&name.as_str())).ok_or_else(|| {
        refuse(
            &format!("{field}.name"),
            "is not a header's name for a credential",
            "write one like authorization",
        )
    })?;
    let value = given.value.clone();
    if let Some(value) = &value {
        text(&format!("{field}.value"), value)?;
        if value.trim().is_empty() {
            return Err(refuse(&format!("{field}.value"), "is empty", "give the credential"));
        }
    }
    Ok((Kind::Header(name.as_str().to_owned()), value.map(Credential::Header)))
}

fn parse_basic(given: &BasicCredential, field: &str) -> Parsed {
    let credential = match (&given.username, &given.password) {
        (Some(username), Some(password)) => {
            for (part, value) in [("username", username), ("password", password)] {
                text(&format!("{field}.{part}"), value)?;
            }
            if username.contains(':') {
                return Err(refuse(
                    &format!("{field}.username"),
                    "holds a colon",
                    "RFC 7617 has no room for it",
                ));
            }
            Some(Credential::Basic { username: username.clone(), password: password.clone() })
        }
        (None, None) => None,
        _ => {
            return Err(refuse(field, "has only one of username and password", "give both, or an empty one"));
        }
    };
    Ok((Kind::Basic, credential))
}

fn parse_aws(given: &AwsCredential, field: &str) -> Parsed {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    for (part, value) in [("region", &given.region), ("service", &given.service)] {
        if !(1..=64).contains(&value.len()) || !value.bytes().all(good) {
            let rule = "must be letters, digits and '-'";
            return Err(refuse(&format!("{field}.{part}"), rule, "write them like eu-central-1 and s3"));
        }
    }
    let credential = match (&given.access_key_id, &given.secret_access_key) {
        (Some(id), Some(secret)) => {
            let token = given.session_token.as_ref();
            for (part, value) in
                [("access_key_id", Some(id)), ("secret_access_key", Some(secret)), ("session_token", token)]
            {
                text(&format!("{field}.{part}"), value.map_or("", String::as_str))?;
            }
            Some(Credential::Aws {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: token.cloned(),
            })
        }
        (None, None) if given.session_token.is_none() => None,
        _ => {
            let rule = "has only a part of the key";
            return Err(refuse(field, rule, "give access_key_id and secret_access_key"));
        }
    };
    Ok((Kind::Aws { region: given.region.clone(), service: given.service.clone() }, credential))
}

/// A host without its secrets.
pub(super) fn show(host: &Host) -> NetworkHost {
    let mut shown =
        NetworkHost { host: host.name.clone(), handler: host.handler.clone(), ..NetworkHost::default() };
    match &host.credential {
        None => shown.upgrade = host.upgrade,
        Some(Kind::Header(name)) => {
            shown.header = Some(HeaderCredential { name: name.clone(), value: None });
        }
        Some(Kind::Basic) => shown.basic = Some(BasicCredential::default()),
        Some(Kind::Aws { region, service }) => {
            let (region, service) = (region.clone(), service.clone());
            shown.aws = Some(AwsCredential { region, service, ..AwsCredential::default() });
        }
    }
    shown
}

/// One line about a host, for changes.
pub(super) fn line(host: &Host) -> String {
    let what = match (&host.credential, &host.handler) {
        (_, Some(handler)) => format!("handler {handler}"),
        (Some(Kind::Header(name)), _) => format!("header {name}"),
        (Some(Kind::Basic), _) => "basic".to_owned(),
        (Some(Kind::Aws { region, service }), _) => format!("aws {region} {service}"),
        (None, None) => "upgrade".to_owned(),
    };
    format!("host {} {what}", host.name)
}

/// Lines about hosts that look the same and have another credential.
pub(super) fn others<'a>(
    hosts: &'a [Host],
    wanted: &'a Secrets,
    before: (&'a [Host], &'a Secrets),
) -> impl Iterator<Item = String> + 'a {
    let same = move |host: &&Host| before.0.contains(host);
    let other =
        move |host: &&Host| wanted.credentials.get(&host.name) != before.1.credentials.get(&host.name);
    hosts.iter().filter(same).filter(other).map(|host| format!("credential {}", host.name))
}

/// Takes over what a change leaves out from what is there.
///
/// # Errors
/// `INVALID_REQUEST` when nothing is there that could be kept.
pub(super) fn keep(hosts: &[Host], wanted: &mut Secrets, before: (&[Host], &Secrets)) -> Result<(), Error> {
    for (index, host) in hosts.iter().enumerate() {
        let Some(kind) = &host.credential else { continue };
        if wanted.credentials.contains_key(&host.name) {
            continue;
        }
        let same = before.0.iter().any(|old| old.name == host.name && old.credential.as_ref() == Some(kind));
        match before.1.credentials.get(&host.name).filter(|_| same) {
            Some(credential) => wanted.credentials.insert(host.name.clone(), credential.clone()),
            None => {
                let error = refuse(
                    &format!("network.hosts[{index}]"),
                    "comes without its secret, and none is known that it could keep",
                    "give the credential: value, username and password, or access_key_id and secret_access_key",
                );
                return Err(named(error, &host.name));
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Vec<Host>, Secrets), Error> {
        let hosts: Vec<NetworkHost> = serde_json::from_str(text).expect("JSON");
        parse(&hosts)
    }

    #[test]
    fn secrets_are_taken_and_neither_shown_nor_printed() {
        for text in [
            r#"[{"host": "A.test.", "header": {"name": "X-Key", "value": "hunter2"}}]"#,
            r#"[{"host": "a.test", "basic": {"username": "hunter2", "password": "hunter2"}}]"#,
            r#"[{"host": "a.test", "aws": {"region": "r", "service": "s3", "access_key_id": "hunter2",
                "secret_access_key": "hunter2", "session_token": "hunter2"}}]"#,
        ] {
            let given: Vec<NetworkHost> = serde_json::from_str(text).expect("JSON");
            let (hosts, secrets) = parse(&given).expect(text);
            assert_eq!((hosts[0].name.as_str(), hosts[0].is_upgraded()), ("a.test", true));
            assert_eq!(secrets.credentials.len(), 1);
            let shown = show(&hosts[0]);
            let all =
                format!("{given:?}{hosts:?}{secrets:?}{}", serde_json::to_string(&shown).expect("JSON"));
            assert!(!all.contains("hunter2"), "{all}");
            // What is shown can be sent back, and keeps what is there; elsewhere there is nothing to keep.
            let (again, mut kept) = parse(std::slice::from_ref(&shown)).expect("again");
            assert_eq!(again, hosts);
            assert!(keep(&again, &mut kept.clone(), (&[], &secrets)).is_err());
            keep(&again, &mut kept, (&hosts, &secrets)).expect("kept");
            assert_eq!(kept, secrets);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            r#"[{"host": "a.test"}]"#,
            r#"[{"host": "*.test", "upgrade": true}]"#,
            r#"[{"host": "9.9.9.9", "upgrade": true}]"#,
            r#"[{"host": "a.test", "upgrade": true}, {"host": "A.test", "upgrade": true}]"#,
            r#"[{"host": "a.test", "handler": "../x"}]"#,
            r#"[{"host": "a.test", "handler": "x", "upgrade": true}]"#,
            r#"[{"host": "a.test", "header": {"name": "host", "value": "x"}}]"#,
            r#"[{"host": "a.test", "header": {"name": "x", "value": "a\nb"}}]"#,
            r#"[{"host": "a.test", "header": {"name": "a b", "value": "x"}}]"#,
            r#"[{"host": "a.test", "basic": {"username": "a"}}]"#,
            r#"[{"host": "a.test", "basic": {"username": "a:b", "password": ""}}]"#,
            r#"[{"host": "a.test", "aws": {"region": "r", "service": "s3", "access_key_id": "a"}}]"#,
            r#"[{"host": "a.test", "aws": {"region": "r/x", "service": "s3"}}]"#,
            r#"[{"host": "a.test", "header": {"name": "x"}, "basic": {}}]"#,
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        for unknown in [r#"[{"host": "a", "x": 1}]"#, r#"[{"host": "a", "header": {"nam": "x"}}]"#] {
            assert!(serde_json::from_str::<Vec<NetworkHost>>(unknown).is_err(), "{unknown}");
        }
    }
}
