//! Queries whose values are bytes: a path in a query is percent-encoded, whatever its bytes are.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode;
use serde_json::json;

use super::schema::PathText;
use crate::api::error::Refused;
use crate::error::{Error, ErrorCode};
use crate::limits::{PATTERN_BYTES_MAX, QUERY_PAIRS_MAX};

/// The pairs of a query that no reader has taken yet.
#[derive(Debug)]
pub(crate) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        let pairs: Vec<_> = pairs.take(QUERY_PAIRS_MAX + 1).collect();
        if pairs.len() > QUERY_PAIRS_MAX {
            return Err(Error::new(ErrorCode::InvalidRequest, "the query has too many parameters")
                .hint("see this route in GET /v1/openapi.json")
                .into());
        }
        Ok(Self(pairs))
    }
}

/// As `application/x-www-form-urlencoded` has it: `+` is a space.
fn decode(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

pub(in crate::api) fn refuse(field: &str, rule: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("{field} {rule}"))
        .hint("see this route in GET /v1/openapi.json")
        .context(json!({"field": field}))
}

impl Query {
    /// Takes a parameter that may be there once.
    pub(in crate::api) fn take(&mut self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let position = self.0.iter().position(|(name, _)| name == key.as_bytes());
        // In order: what is left may be a list, and its order may name something (a cursor is for one list of globs).
        let value = position.map(|position| self.0.remove(position).1);
        if self.0.iter().any(|(name, _)| name == key.as_bytes()) {
            return Err(refuse(key, "is there twice"));
        }
        Ok(value)
    }

    /// Takes one that may be there any number of times.
    pub(in crate::api) fn all(&mut self, key: &str) -> Result<Vec<String>, Error> {
        let pairs = std::mem::take(&mut self.0).into_iter();
        let (wanted, rest): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| name == key.as_bytes());
        self.0 = rest;
        wanted.into_iter().map(|(_, value)| text(key, value)).collect()
    }

    pub(in crate::api) fn path(&mut self) -> Result<Vec<u8>, Error> {
        self.take("path")?.ok_or_else(|| refuse("path", "is missing"))
    }

    pub(in crate::api) fn text(&mut self, key: &str) -> Result<Option<String>, Error> {
        self.take(key)?.map(|value| text(key, value)).transpose()
    }

    /// `true`, `1` or nothing after the name is yes.
    pub(in crate::api) fn flag(&mut self, key: &str) -> Result<bool, Error> {
        match self.take(key)?.as_deref() {
            None | Some(b"false" | b"0") => Ok(false),
            Some(b"" | b"true" | b"1") => Ok(true),
            Some(_) => Err(refuse(key, "is neither `true` nor `false`")),
        }
    }

    /// Takes one that is a number.
    pub(in crate::api) fn number(&mut self, key: &str) -> Result<Option<u64>, Error> {
        let parse = |text: String| text.parse().map_err(|_| refuse(key, "must be a number"));
        self.text(key)?.map(parse).transpose()
    }

    pub(in crate::api) fn limit(&mut self, default: u32, most: u32) -> Result<u32, Error> {
        let Some(value) = self.text("limit")? else { return Ok(default) };
        limit(value.parse().ok(), most)
    }

    /// Nothing may be left.
    pub(in crate::api) fn end(self) -> Result<(), Error> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => {
                let key = String::from_utf8_lossy(key);
                Err(Error::new(ErrorCode::InvalidRequest, format!("unknown query parameter {key:?}"))
                    .hint("see this route in GET /v1/openapi.json")
                    .context(json!({"field": key})))
            }
        }
    }
}

fn text(key: &str, value: Vec<u8>) -> Result<String, Error> {
    match String::from_utf8(value) {
        Ok(text) if text.len() <= PATTERN_BYTES_MAX => Ok(text),
        Ok(_) => Err(refuse(key, "is too long")),
        Err(_) => Err(refuse(key, "is not UTF-8")),
    }
}

/// A number of entries from 1 to `most`.
pub(in crate::api) fn limit(value: Option<u32>, most: u32) -> Result<u32, Error> {
    value
        .filter(|&limit| (1..=most).contains(&limit))
        .ok_or_else(|| refuse("limit", &format!("is not a number from 1 to {most}")))
}

/// Octal permissions.
pub(in crate::api) fn mode(field: &str, text: &str, most: u32) -> Result<u32, Error> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| digits && mode <= most);
    mode.ok_or_else(|| refuse(field, &format!("is not an octal number up to {most:o}, like \"644\"")))
}

/// The bytes of a path in a body.
pub(in crate::api) fn bytes(field: &str, path: &PathText) -> Result<Vec<u8>, Error> {
    path.bytes().ok_or_else(|| refuse(field, "is not valid base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn query(text: &str) -> Query {
        let request = axum::http::Request::builder().uri(format!("/x?{text}")).body(()).expect("request");
        let (mut parts, ()) = request.into_parts();
        Query::from_request_parts(&mut parts, &()).await.expect("query")
    }

    #[tokio::test]
    async fn a_path_keeps_its_bytes() {
        let mut query = query("path=%2Fa%FF%0A+b&recursive&hidden=false").await;
        assert_eq!(query.path().expect("path"), b"/a\xff\n b");
        assert_eq!(
            (query.flag("recursive").expect("flag"), query.flag("hidden").expect("flag")),
            (true, false)
        );
        query.end().expect("nothing is left");
    }

    #[tokio::test]
    async fn a_list_keeps_its_order_whatever_is_taken_before_it() {
        let mut query = query("path=a&exclude=1&exclude=2&exclude=3&cursor=x").await;
        assert_eq!(query.path().expect("path"), b"a");
        assert_eq!(query.all("exclude").expect("list"), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn what_is_unknown_or_twice_is_refused() {
        assert!(query("path=a&path=b").await.path().is_err());
        assert!(query("").await.path().is_err());
        assert!(query("x=1").await.end().is_err());
        assert!(query("r=maybe").await.flag("r").is_err());
        assert!(query("limit=0").await.limit(1, 10).is_err());
        assert!(query("limit=11").await.limit(1, 10).is_err());
        assert_eq!(query("limit=10").await.limit(1, 10).expect("limit"), 10);
    }

    #[test]
    fn modes_are_octal() {
        for (text, value) in
            [("644", Some(0o644)), ("0755", Some(0o755)), ("8", None), ("1000", None), ("+7", None)]
        {
            assert_eq!(mode("mode", text, 0o777).ok(), value, "{text}");
        }
    }
}
