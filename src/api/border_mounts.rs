//! What the values of a request may be that is about mounts.

use std::time::Duration;

use super::border::{refuse, text, within};
use super::extract::Query;
use super::schema::mounts::{AddMount, MountCredentials};
use crate::error::Error;
use crate::limits;
use crate::sandbox::{BucketSpec, CredentialSource, MountRequest, MountSpec, What};
use crate::wire::bucket::{Addressing, Credentials, Endpoint, Scheme};

const REGION_DEFAULT: &str = "us-east-1";

/// Whose buckets have host names of their own.
const AMAZON: &str = ".amazonaws.com";

/// An absolute path in its one form, not the root.
fn absolute(field: &str, path: &str) -> Result<String, Error> {
    text(field, path, limits::PATH_BYTES_MAX - 1)?;
    let bad = |why| Err(refuse(field, why, "name a directory by its absolute path, without `.` and `..`"));
    if !path.starts_with('/') {
        return bad("must be absolute");
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.iter().any(|part| matches!(*part, "." | "..")) {
        true => bad("must not contain `.` or `..`"),
        false if parts.is_empty() => bad("must not be the root"),
        false if parts.iter().any(|part| part.len() > 255) => bad("has a part of more than 255 bytes"),
        false if parts.len() > limits::CWD_DEPTH_MAX => bad("has too many parts"),
        false => Ok(format!("/{}", parts.join("/"))),
    }
}

/// A part of a path that is one name.
fn name(field: &str, value: &str) -> Result<(), Error> {
    text(field, value, limits::BUCKET_BYTES_MAX)?;
    let fine = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if value.is_empty() || matches!(value, "." | "..") || !value.chars().all(fine) {
        return Err(refuse(field, "must be letters, digits, '.', '-' and '_'", "give the name alone"));
    }
    Ok(())
}

fn mode(field: &str, value: Option<&str>, default: u32) -> Result<u32, Error> {
    let Some(value) = value else { return Ok(default) };
    let octal = value.len() == 3 && value.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    u32::from_str_radix(value, 8)
        .ok()
        .filter(|_| octal)
        .ok_or_else(|| refuse(field, "must be three octal digits", "write 644 or 755"))
}

fn id(field: &str, value: Option<u32>, default: u32) -> Result<u32, Error> {
    let most = u64::from(limits::IDS_PER_SANDBOX - 1);
    let value = within(field, value.map(u64::from), 0, most)?;
    Ok(value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default))
}

/// Mounts of a sandbox to make.
pub(super) fn mounts(wanted: Vec<AddMount>) -> Result<Vec<MountRequest>, Error> {
    let most = limits::MOUNTS_MAX as usize;
    if wanted.len() > most {
        return Err(refuse("mounts", format!("has more than {most}"), "mount what is above them instead"));
    }
    let numbered = wanted.into_iter().enumerate();
    numbered
        .map(|(index, wanted)| {
            mount(wanted).map_err(|error| {
                let field = error.context.as_ref().and_then(|context| context["field"].as_str());
                let field = format!("mounts[{index}].{}", field.unwrap_or("path"));
                error.context(serde_json::json!({ "field": field }))
            })
        })
        .collect()
}

/// A mount to make, if its values are sane.
pub(super) fn mount(wanted: AddMount) -> Result<MountRequest, Error> {
    let path = absolute("path", &wanted.path)?;
    let uid = id("uid", wanted.uid, 0)?;
    let gid = id("gid", wanted.gid, uid)?;
    let read_only = wanted.read_only;
    let directory = wanted.endpoint.as_deref().and_then(|endpoint| endpoint.strip_prefix("file://"));
    let (what, credentials) = match directory {
        Some(directory) => (local(directory, &wanted)?, None),
        None => bucket(wanted)?,
    };
    Ok(MountRequest { spec: MountSpec { path, what, read_only, uid, gid }, credentials })
}

/// A directory of the host.
fn local(directory: &str, wanted: &AddMount) -> Result<What, Error> {
    let for_buckets = [
        ("region", wanted.region.is_some()),
        ("addressing", wanted.addressing.is_some()),
        ("credentials", wanted.credentials.is_some()),
        ("file_mode", wanted.file_mode.is_some()),
        ("dir_mode", wanted.dir_mode.is_some()),
        ("cache_bytes", wanted.cache_bytes.is_some()),
        ("attribute_ttl_ms", wanted.attribute_ttl_ms.is_some()),
        ("conditional_writes", wanted.conditional_writes),
    ];
    if let Some((field, _)) = for_buckets.iter().find(|(_, given)| *given) {
        return Err(refuse(field, "is for buckets, and the endpoint is a directory", "leave it out"));
    }
    let mut path = absolute("endpoint", directory)?;
    if let Some(bucket) = &wanted.bucket {
        name("bucket", bucket)?;
        path = format!("{path}/{bucket}");
    }
    if let Some(prefix) = wanted.prefix.as_deref().filter(|prefix| !prefix.trim_matches('/').is_empty()) {
        path.push_str(&absolute("prefix", &format!("/{prefix}"))?);
    }
    Ok(What::Directory { path })
}

fn bucket(wanted: AddMount) -> Result<(What, Option<Credentials>), Error> {
    let bucket = wanted.bucket.ok_or_else(|| refuse("bucket", "is missing", "name the bucket"))?;
    name("bucket", &bucket)?;
    let region = wanted.region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
    name("region", &region)?;
    let url = wanted.endpoint.unwrap_or_else(|| format!("https://s3.{region}{AMAZON}"));
    let endpoint = endpoint(&url)?;
    let addressing = match wanted.addressing.as_deref() {
        // A bucket with dots has a name that no certificate is for.
        None if endpoint.host.ends_with(AMAZON) && !bucket.contains('.') => Addressing::Host,
        None | Some("path") => Addressing::Path,
        Some("host") => Addressing::Host,
        Some(_) => return Err(refuse("addressing", "must be `path` or `host`", "leave it out")),
    };
    let (credentials, given) = credentials(wanted.credentials)?;
    let least = 16 << 20;
    let cache = within("cache_bytes", wanted.cache_bytes, least, limits::BUCKET_CACHE_BYTES_MAX)?;
    let ttl = within("attribute_ttl_ms", wanted.attribute_ttl_ms, 0, limits::TIMEOUT_MS_MAX)?;
    let spec = BucketSpec {
        bucket,
        prefix: prefix(wanted.prefix.as_deref().unwrap_or_default())?,
        endpoint,
        region,
        addressing,
        credentials,
        file_mode: mode("file_mode", wanted.file_mode.as_deref(), 0o644)?,
        dir_mode: mode("dir_mode", wanted.dir_mode.as_deref(), 0o755)?,
        cache_bytes: cache.unwrap_or(limits::BUCKET_CACHE_BYTES),
        attribute_ttl_ms: ttl.unwrap_or(limits::BUCKET_TTL_MS),
        conditional_writes: wanted.conditional_writes,
    };
    Ok((What::Bucket(Box::new(spec)), given))
}

/// Whole parts of keys, with a slash at the end.
fn prefix(given: &str) -> Result<String, Error> {
    text("prefix", given, limits::KEY_BYTES_MAX)?;
    // Cloudflare's begin with one.
    let parts = given.trim_matches('/');
    if parts.is_empty() {
        return Ok(String::new());
    }
    if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(refuse("prefix", "has an empty part, `.` or `..`", "write it like `a/b`"));
    }
    Ok(format!("{parts}/"))
}

fn endpoint(url: &str) -> Result<Endpoint, Error> {
    let bad =
        |rule: &str| refuse("endpoint", rule, "write https://host[:port], http://… or file:///directory");
    text("endpoint", url, limits::PATH_BYTES_MAX)?;
    let parsed: axum::http::Uri = url.parse().map_err(|_| bad("is no URL"))?;
    let (scheme, usual) = match parsed.scheme_str() {
        Some("https") => (Scheme::Https, 443),
        Some("http") => (Scheme::Http, 80),
        _ => return Err(bad("must be https, http or file")),
    };
    let authority = parsed.authority().ok_or_else(|| bad("names no host"))?;
    if authority.as_str().contains('@') || parsed.query().is_some() {
        return Err(bad("must have neither user nor query"));
    }
    let path = parsed.path().trim_end_matches('/');
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(bad("must not contain `.` or `..`"));
    }
    Ok(Endpoint {
        scheme,
        host: authority.host().to_ascii_lowercase(),
        port: authority.port_u16().unwrap_or(usual),
        path: path.to_owned(),
    })
}

fn credentials(given: Option<MountCredentials>) -> Result<(CredentialSource, Option<Credentials>), Error> {
    let Some(given) = given else { return Ok((CredentialSource::Environment, None)) };
    let bad = |rule: &str| {
        Err(refuse("credentials", rule, "give access_key_id and secret_access_key, or one of the others"))
    };
    let MountCredentials { access_key_id, secret_access_key, session_token, profile, environment, anonymous } =
        given;
    let key = access_key_id.is_some() || secret_access_key.is_some() || session_token.is_some();
    if [key, profile.is_some(), environment, anonymous].iter().filter(|one| **one).count() != 1 {
        return bad("must be a key, a profile, the environment or anonymous, and one of them");
    }
    if let Some(profile) = profile {
        name("credentials.profile", &profile)?;
        return Ok((CredentialSource::Profile(profile), None));
    }
    match (access_key_id, secret_access_key) {
        _ if environment => Ok((CredentialSource::Environment, None)),
        _ if anonymous => Ok((CredentialSource::Anonymous, None)),
        (Some(access_key_id), Some(secret_access_key)) => {
            for part in [Some(&access_key_id), Some(&secret_access_key), session_token.as_ref()] {
                let part = part.map_or("x", String::as_str);
                let sane = part.len() <= limits::CREDENTIAL_BYTES_MAX
                    && part.bytes().all(|byte| byte.is_ascii_graphic());
                if part.is_empty() || !sane {
                    return bad("are empty, too long, or hold what no key does");
                }
            }
            let keys =
                Credentials::Keys { access_key_id, secret_access_key, session_token, expires_ms: None };
            Ok((CredentialSource::Request, Some(keys)))
        }
        _ => bad("lack access_key_id or secret_access_key"),
    }
}

/// How long unmounting may wait for uploads.
pub(super) fn unmount(Query(pairs): Query) -> Result<Duration, Error> {
    let mut wait = Duration::from_millis(limits::UNMOUNT_MS);
    for (key, value) in pairs {
        if key != "timeout_ms" {
            return Err(Query::unknown(&key, "unmounting may be given `timeout_ms`"));
        }
        let number = value.parse().map_err(|_| {
            refuse("timeout_ms", "must be a number of milliseconds", "leave it out for a minute")
        })?;
        let number = within("timeout_ms", Some(number), 0, limits::UNMOUNT_MS_MAX)?;
        wait = Duration::from_millis(number.unwrap_or_default());
    }
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::extract::parse;

    fn of(body: &str) -> Result<MountRequest, Error> {
        mount(parse(body.as_bytes()).expect("well-formed"))
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_field() {
        let with = |rest: &str| format!(r#"{{"path":"/d","bucket":"b",{rest}}}"#);
        let mut bodies: Vec<(String, &str)> =
            [("", "path"), ("data", "path"), ("/", "path"), ("/a/../b", "path")]
                .map(|(path, field)| (format!(r#"{{"path":"{path}","bucket":"b"}}"#), field))
                .into();
        bodies.push((r#"{"path":"/d"}"#.into(), "bucket"));
        bodies.push((r#"{"path":"/d","bucket":"../x"}"#.into(), "bucket"));
        for (rest, field) in [
            (r#""endpoint":"ftp://x""#, "endpoint"),
            (r#""endpoint":"https://u:p@x""#, "endpoint"),
            (r#""endpoint":"https://x/?a""#, "endpoint"),
            (r#""endpoint":"file://etc""#, "endpoint"),
            (r#""endpoint":"file:///a/../b""#, "endpoint"),
            (r#""endpoint":"file:///a","region":"r""#, "region"),
            (r#""endpoint":"file:///a","prefix":"../..""#, "prefix"),
            (r#""addressing":"both""#, "addressing"),
            (r#""prefix":"a//b""#, "prefix"),
            (r#""uid":65536"#, "uid"),
            (r#""file_mode":"0644""#, "file_mode"),
            (r#""cache_bytes":1"#, "cache_bytes"),
            (r#""credentials":{}"#, "credentials"),
            (r#""credentials":{"access_key_id":"a"}"#, "credentials"),
            (r#""credentials":{"anonymous":true,"profile":"p"}"#, "credentials"),
            (r#""credentials":{"access_key_id":"a","secret_access_key":"b\nc"}"#, "credentials"),
        ] {
            bodies.push((with(rest), field));
        }
        for (body, field) in bodies {
            let refusal = of(&body).expect_err(&body);
            assert_eq!(refusal.context.expect("a context")["field"], field, "{body}");
        }
    }

    #[test]
    fn paths_prefixes_and_endpoints_have_one_form() {
        let request = of(r#"{"path":"//a//b/","bucket":"b","prefix":"/p/q/"}"#).expect("good");
        assert_eq!(request.spec.path, "/a/b");
        let What::Bucket(bucket) = request.spec.what else { panic!("a bucket") };
        assert_eq!((bucket.prefix.as_str(), bucket.addressing), ("p/q/", Addressing::Host));
        assert_eq!(
            (bucket.endpoint.host.as_str(), bucket.endpoint.port),
            ("s3.us-east-1.amazonaws.com", 443)
        );
        let local =
            of(r#"{"path":"/d","endpoint":"file:///srv//data/","bucket":"b","prefix":"c"}"#).expect("good");
        assert_eq!(local.spec.what, What::Directory { path: "/srv/data/b/c".to_owned() });
    }

    #[test]
    fn nothing_that_is_kept_or_printed_holds_a_credential() {
        let body =
            r#"{"path":"/d","bucket":"b","credentials":{"access_key_id":"a","secret_access_key":"hush"}}"#;
        let request = of(body).expect("good");
        assert!(request.credentials.is_some());
        assert!(!serde_json::to_string(&request).expect("json").contains("hush"));
        let parsed: AddMount = parse(body.as_bytes()).expect("well-formed");
        assert!(!format!("{request:?}{parsed:?}").contains("hush"));
    }
}
