//! Keys for buckets from a Security Token Service, for a web identity: `AssumeRoleWithWebIdentity` of AWS STS (API version
//! 2011-06-15), which others speak too. The request is not signed: the token says who asks.

use std::fs::File;
use std::io::Read as _;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::image::http::{HttpClient, HttpError, whole_body};
use crate::wire::bucket::Credentials;
use crate::wire::fetch::IdentityJob;

/// Characters of a token, by the service's own bound.
const TOKEN_BYTES_MAX: u64 = 20_000;

/// Bytes of an answer. Session tokens have no bound of their own; two kilobytes are usual.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The service's URL is none.
    #[error("'{0}' is no URL of a service")]
    Address(String),
    /// The token cannot be read, or is none.
    #[error("the token: {0}")]
    Token(String),
    /// The service does not want to.
    #[error("{host} refuses: {why}")]
    Refused {
        /// Who.
        host: String,
        /// The service's own words, or a status.
        why: String,
    },
    /// The service cannot now.
    #[error("{0} answers {1}")]
    Unable(String, StatusCode),
    /// It answers something else.
    #[error("{0} does not answer as a Security Token Service does")]
    Protocol(String),
}

/// A Security Token Service.
#[derive(Debug)]
pub(super) struct Sts {
    client: HttpClient,
    url: Url,
    host: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(rename = "AssumeRoleWithWebIdentityResult")]
    result: Assumed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: Keys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: jiff::Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    error: RefusalError,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RefusalError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Sts {
    /// Prepares to speak to the service; see [`HttpClient::new`] for when.
    pub(super) fn new(job: &IdentityJob) -> Result<Self, IdentityError> {
        let url = Url::parse(&job.endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| IdentityError::Address(job.endpoint.clone()))?;
        let ca_pem = Some(job.ca_pem.as_str()).filter(|pem| !pem.is_empty());
        let host = url.host_str().unwrap_or_default().to_owned();
        Ok(Self { client: HttpClient::new(&url, ca_pem)?, url, host })
    }

    /// Trades the token for keys.
    pub(super) async fn keys(self, job: &IdentityJob, token: File) -> Result<Credentials, IdentityError> {
        let mut text = String::new();
        // One byte more tells a token that is too long from one that is not.
        token
            .take(TOKEN_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|error| IdentityError::Token(error.to_string()))?;
        if text.len() as u64 > TOKEN_BYTES_MAX {
            return Err(IdentityError::Token(format!("is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &job.role_arn)
            .append_pair("RoleSessionName", &job.session_name)
            .append_pair("WebIdentityToken", text.trim())
            .finish();
        let request = Request::post(self.url.as_str())
            .header(header::HOST, self.url.authority())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| IdentityError::Address(job.endpoint.clone()))?;
        let response = self.client.send(request).await?;
        let status = response.status();
        let answer = whole_body(&self.host, response.into_body(), ANSWER_BYTES_MAX).await?;
        read(&self.host, status, &String::from_utf8_lossy(&answer))
    }
}

/// What an answer says. Redirects are refused: a token goes to whom the operator named.
fn read(host: &str, status: StatusCode, text: &str) -> Result<Credentials, IdentityError> {
    let protocol = || IdentityError::Protocol(host.to_owned());
    if status.is_server_error() {
        return Err(IdentityError::Unable(host.to_owned(), status));
    }
    if status != StatusCode::OK {
        let refusal = quick_xml::de::from_str::<Refusal>(text).map(|refusal| refusal.error);
        let said = refusal.ok().filter(|error| !error.code.is_empty());
        let why =
            said.map_or_else(|| status.to_string(), |error| format!("{}: {}", error.code, error.message));
        return Err(IdentityError::Refused { host: host.to_owned(), why });
    }
    let keys = quick_xml::de::from_str::<Answer>(text).map_err(|_| protocol())?.result.credentials;
    let fine = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if ![&keys.access_key_id, &keys.secret_access_key, &keys.session_token].into_iter().all(|text| fine(text))
    {
        return Err(protocol());
    }
    Ok(Credentials::Keys {
        access_key_id: keys.access_key_id,
        secret_access_key: keys.secret_access_key,
        session_token: Some(keys.session_token),
        expires_ms: Some(u64::try_from(keys.expiration.as_millisecond()).map_err(|_| protocol())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
        <AssumeRoleWithWebIdentityResult><Audience>x</Audience><Credentials><SessionToken>T</SessionToken>
        <SecretAccessKey>S</SecretAccessKey><Expiration>2026-11-29T20:00:00Z</Expiration><AccessKeyId>A</AccessKeyId>
        </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

    #[test]
    fn keys_come_with_their_end() {
        let keys = Credentials::Keys {
            access_key_id: "A".into(),
            secret_access_key: "S".into(),
            session_token: Some("T".into()),
            expires_ms: Some(1_795_982_400_000),
        };
        assert_eq!(read("h", StatusCode::OK, GOOD).expect("good"), keys);
    }

    #[test]
    fn refusals_are_told_in_their_own_words_and_the_rest_is_no_answer() {
        let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>over</Message></Error></ErrorResponse>";
        let said = |status, text: &str| read("h", status, text).expect_err("bad").to_string();
        assert_eq!(said(StatusCode::BAD_REQUEST, refused), "h refuses: ExpiredToken: over");
        assert_eq!(said(StatusCode::FOUND, "moved"), "h refuses: 302 Found");
        assert_eq!(said(StatusCode::BAD_GATEWAY, refused), "h answers 502 Bad Gateway");
        for text in [
            "",
            "<a>",
            "<html/>",
            &GOOD.replace("<AccessKeyId>A", "<AccessKeyId>"),
            &GOOD.replace(">S<", ">S\n\u{7}<"),
        ] {
            assert!(said(StatusCode::OK, text).contains("does not answer"), "{text}");
        }
    }
}
