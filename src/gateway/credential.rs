//! What is added to a request on its way out, so that the sandbox never has it.
//!
//! | kind | |
//! |---|---|
//! | header | one header; whatever the sandbox sent under that name, or one that servers take for it, goes |
//! | basic | the same, as `authorization` (RFC 7617) |
//! | AWS | Signature Version 4, in place of the sandbox's own with a placeholder key |
//!
//! For AWS: S3 takes bodies that are not signed, over TLS. For any other service a body that comes without its sum is
//! read whole first, up to a bound. Signed are the host, the content's type and what begins with `x-amz-`.
//!
//! Which request gets what is decided elsewhere; nothing here looks at where it goes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Uri};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::{Context, SignRequest as _};
use sha2::{Digest as _, Sha256};

use super::bodies::{Places, Sent};
use super::trouble::Trouble;
use crate::hops;
use crate::id::Digest;
use crate::wire::gateway::{Credential, Kind};

const CONTENT_SUM: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKENS: [HeaderName; 2] =
    [HeaderName::from_static("x-amz-security-token"), HeaderName::from_static("x-amz-s3session-token")];
const UNSIGNED: HeaderValue = HeaderValue::from_static("UNSIGNED-PAYLOAD");

/// Adds a credential. `host` is whom it is for, for people.
pub(super) async fn add(
    request: Request<Incoming>,
    host: &str,
    kind: &Kind,
    secret: &Credential,
    places: Places,
) -> Result<Request<Sent>, Trouble> {
    let (mut parts, body) = request.into_parts();
    match (kind, secret) {
        (Kind::Header(name), Credential::Header(value)) => {
            let name = HeaderName::from_bytes(name.as_bytes());
            let name = name.map_err(|_| Trouble::bad_credential(host, "its name is none of a header"))?;
            set(&mut parts.headers, &name, value, host)?;
        }
        (Kind::Basic, Credential::Basic { username, password }) => {
            let value = format!("Basic {}", BASE64.encode(format!("{username}:{password}")));
            set(&mut parts.headers, &header::AUTHORIZATION, &value, host)?;
        }
        (
            Kind::Aws { region, service },
            Credential::Aws { access_key_id, secret_access_key, session_token },
        ) => {
            let key = reqsign_aws_v4::Credential {
                access_key_id: access_key_id.clone(),
                secret_access_key: secret_access_key.clone(),
                session_token: session_token.clone(),
                expires_in: None,
            };
            let body = sum(&mut parts, body, service, places).await?;
            sign(&mut parts, region, service, &key)
                .await
                .map_err(|why| Trouble::bad_credential(host, &why))?;
            return Ok(Request::from_parts(parts, body));
        }
        _ => return Err(Trouble::no_credential(host)),
    }
    Ok(Request::from_parts(parts, Sent::passed(body)))
}

/// Sets a header in the place of all that a server could take for it.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str, host: &str) -> Result<(), Trouble> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Trouble::bad_credential(host, "its value is none of a header"))?;
    value.set_sensitive(true);
    let alike: Vec<HeaderName> =
        headers.keys().filter(|one| hops::same(one.as_str(), name.as_str())).cloned().collect();
    for one in alike {
        headers.remove(one);
    }
    headers.insert(name.clone(), value);
    Ok(())
}

/// Says what the body's sum is, or that it is not signed.
async fn sum(parts: &mut Parts, body: Incoming, service: &str, places: Places) -> Result<Sent, Trouble> {
    if let Some(said) = parts.headers.get(&CONTENT_SUM) {
        return if said.as_bytes().starts_with(b"STREAMING-AWS4-") {
            Err(Trouble::signed_chunks())
        } else {
            Ok(Sent::passed(body))
        };
    }
    if service.starts_with("s3") {
        parts.headers.insert(CONTENT_SUM, UNSIGNED);
        return Ok(Sent::passed(body));
    }
    let body = Sent::read(body, places).await?;
    // Its length is known now.
    parts.headers.remove(header::TRANSFER_ENCODING);
    let digest = Digest::from_bytes(Sha256::digest(body.bytes()).into()).hex();
    if let Ok(value) = HeaderValue::from_str(&digest) {
        parts.headers.insert(CONTENT_SUM, value);
    }
    Ok(body)
}

async fn sign(
    parts: &mut Parts,
    region: &str,
    service: &str,
    key: &reqsign_aws_v4::Credential,
) -> Result<(), String> {
    for name in TOKENS.iter().chain([&header::AUTHORIZATION, &DATE]) {
        parts.headers.remove(name);
    }
    let wire = parts.uri.clone();
    parts.uri = signed_uri(parts, service)?;
    // What somebody on the way may change is not signed.
    let all = std::mem::take(&mut parts.headers);
    let (mut signed, mut rest) = (HeaderMap::new(), HeaderMap::new());
    for (name, value) in &all {
        let is_signed = [header::HOST, header::CONTENT_TYPE].contains(name)
            || name.as_str() == "content-md5"
            || name.as_str().starts_with("x-amz-");
        if is_signed { &mut signed } else { &mut rest }.append(name, value.clone());
    }
    parts.headers = signed;
    let signer = RequestSigner::new(service, region);
    let result = signer.sign_request(&Context::new(), parts, Some(key), None).await;
    parts.uri = wire;
    parts.headers.extend(rest);
    result.map_err(|error| error.to_string())
}

/// The address that is signed: a path is escaped once for S3, and once more for everybody else.
fn signed_uri(parts: &Parts, service: &str) -> Result<Uri, String> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = parts.uri.path();
    let path = if service.starts_with("s3") { path.to_owned() } else { path.replace('%', "%25") };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("https://{host}{path}{query}").parse().map_err(|_| "the request has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method("GET").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("request").into_parts().0
    }

    #[test]
    fn whatever_a_server_takes_for_the_header_is_replaced() {
        let mut parts = parts("/", &[("x-api-key", "mine"), ("x_api_key", "mine"), ("x-api-key2", "other")]);
        set(&mut parts.headers, &HeaderName::from_static("x-api-key"), "real", "h").expect("set");
        let text = format!("{:?}", parts.headers);
        assert!(!text.contains("mine") && text.contains("other") && text.contains("Sensitive"), "{text}");
        assert!(set(&mut parts.headers, &HeaderName::from_static("a"), "x\r\nb: c", "h").is_err());
    }

    #[tokio::test]
    async fn a_request_is_signed_anew_and_goes_where_it_went() {
        let key = reqsign_aws_v4::Credential {
            access_key_id: "AKID".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: Some("token".to_owned()),
            expires_in: None,
        };
        let mut parts = parts(
            "/a%20b?x=1",
            &[
                ("host", "s3.test"),
                ("authorization", "AWS4-HMAC-SHA256 Credential=placeholder"),
                ("x-amz-security-token", "placeholder"),
                ("x-amz-date", "19700101T000000Z"),
                ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
                ("user-agent", "me"),
            ],
        );
        sign(&mut parts, "here", "s3", &key).await.expect("signed");
        let said = parts.headers[header::AUTHORIZATION].to_str().expect("text");
        assert!(said.contains("Credential=AKID/") && said.contains("/here/s3/aws4_request"), "{said}");
        assert!(
            said.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"),
            "{said}"
        );
        assert_eq!(parts.uri, "/a%20b?x=1");
        assert_eq!(parts.headers["user-agent"], "me");
        assert_eq!(parts.headers["x-amz-security-token"], "token");
        assert_ne!(parts.headers["x-amz-date"], "19700101T000000Z");
        assert_eq!(parts.headers.get_all(header::AUTHORIZATION).iter().count(), 1);
    }
}
