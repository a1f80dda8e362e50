//! Versions, conditions and ranges (RFC 9110 §§8.8.3, 13, 14).

use std::ops::Range;

use axum::http::{HeaderMap, HeaderValue, header};

use crate::error::{Error, ErrorCode};
use crate::limits::ETAGS_MAX;
use crate::wire::worker::{Condition, Tag, Time};

/// The entity tag of a version. It is strong: a write that leaves size and all times to the nanosecond is none.
pub(super) fn etag(tag: &Tag) -> String {
    let time = |time: &Time| format!("{:x}.{:x}", time.seconds.cast_unsigned(), time.nanoseconds);
    format!("\"{:x}-{:x}-{}-{}\"", tag.inode, tag.size, time(&tag.mtime), time(&tag.ctime))
}

/// The version that a tag of ours stands for.
fn tag(etag: &str) -> Option<Tag> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let time = |text: &str| {
        let (seconds, nanoseconds) = text.split_once('.')?;
        Some(Time {
            seconds: number(seconds)?.cast_signed(),
            nanoseconds: u32::from_str_radix(nanoseconds, 16).ok()?,
        })
    };
    let mut parts = etag.strip_prefix('"')?.strip_suffix('"')?.split('-');
    let tag = Tag {
        inode: number(parts.next()?)?,
        size: number(parts.next()?)?,
        mtime: time(parts.next()?)?,
        ctime: time(parts.next()?)?,
    };
    parts.next().is_none().then_some(tag)
}

/// The tags of a header that lists them; `None` when it is `*`.
fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Option<Vec<String>>>, Error> {
    let mut found = Vec::new();
    let mut present = false;
    for value in headers.get_all(&name) {
        present = true;
        let text = value.to_str().map_err(|_| bad(name.as_str()))?;
        if text.trim() == "*" {
            return Ok(Some(None));
        }
        found.extend(text.split(',').map(|tag| tag.trim().to_owned()));
    }
    if found.len() > ETAGS_MAX {
        return Err(bad(name.as_str()));
    }
    Ok(present.then_some(Some(found)))
}

fn bad(header: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("the header {header} is not understood"))
        .hint("send the `etag` of an answer, or *")
        .context(serde_json::json!({"header": header}))
}

/// What a writer wants to be there.
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, Error> {
    match (tags(headers, header::IF_MATCH)?, tags(headers, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Any),
        (Some(None), None) => Ok(Condition::Present),
        // Tags that are not ours match nothing.
        (Some(Some(tags)), None) => Ok(Condition::OneOf(tags.iter().filter_map(|text| tag(text)).collect())),
        (None, Some(None)) => Ok(Condition::Absent),
        (None, Some(Some(_))) => Err(bad("if-none-match")),
        (Some(_), Some(_)) => Err(bad("if-match")),
    }
}

/// What a reader is answered because of the version that it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The content.
    Content,
    /// That it is the same.
    NotModified,
}

/// # Errors
/// `PRECONDITION_FAILED`.
pub(super) fn wanted(headers: &HeaderMap, etag: &str) -> Result<Wanted, Error> {
    if let Some(Some(tags)) = tags(headers, header::IF_MATCH)?
        && !tags.iter().any(|tag| tag == etag)
    {
        return Err(Error::new(ErrorCode::PreconditionFailed, "the file has changed")
            .hint("read it again for its `etag`"));
    }
    let same = match tags(headers, header::IF_NONE_MATCH)? {
        None => false,
        Some(None) => true,
        Some(Some(tags)) => tags.iter().any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag),
    };
    Ok(if same { Wanted::NotModified } else { Wanted::Content })
}

/// The part of the content that is asked for, if one part is. Several ranges, and units that are not bytes, are
/// ignored, as RFC 9110 §14.2 allows.
///
/// # Errors
/// `RANGE_NOT_SATISFIABLE`.
pub(super) fn range(headers: &HeaderMap, size: u64, etag: &str) -> Result<Option<Range<u64>>, Error> {
    let if_range = headers.get(header::IF_RANGE).map(HeaderValue::as_bytes);
    if if_range.is_some_and(|tag| tag != etag.as_bytes()) {
        return Ok(None);
    }
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Ok(None);
    }
    // More digits than fit are beyond every file.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let found = match (first, last) {
        ("", "") => return Ok(None),
        ("", length) => size.saturating_sub(number(length))..size,
        (first, "") => number(first)..size,
        (first, last) if number(last) < number(first) => return Ok(None),
        (first, last) => number(first)..number(last).saturating_add(1).min(size),
    };
    if found.start >= found.end {
        return Err(Error::new(ErrorCode::RangeNotSatisfiable, "the range lies behind the end of the file")
            .hint("the header `content-range` has the file's size")
            .context(serde_json::json!({"size": size})));
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("value"))).collect()
    }

    fn example() -> Tag {
        Tag {
            inode: 7,
            size: 1 << 40,
            mtime: Time { seconds: -5, nanoseconds: 999_999_999 },
            ctime: Time { seconds: 1_700_000_000, nanoseconds: 0 },
        }
    }

    #[test]
    fn a_tag_is_read_as_it_is_written() {
        assert_eq!(tag(&etag(&example())), Some(example()));
        for bad in ["", "\"\"", "*", "\"1-2-3-4\"", "W/\"1\"", "\"1-2-3.4-5.6-7\""] {
            assert_eq!(tag(bad), None, "{bad}");
        }
    }

    #[test]
    fn writers_say_what_must_be_there() {
        let etag = etag(&example());
        let of = |pairs: &[_]| condition(&headers(pairs));
        assert_eq!(of(&[]).expect("none"), Condition::Any);
        assert_eq!(of(&[(header::IF_MATCH, "*")]).expect("any"), Condition::Present);
        assert_eq!(of(&[(header::IF_NONE_MATCH, "*")]).expect("none"), Condition::Absent);
        assert_eq!(of(&[(header::IF_MATCH, &etag)]).expect("tag"), Condition::OneOf(vec![example()]));
        assert_eq!(of(&[(header::IF_MATCH, "\"x\"")]).expect("foreign"), Condition::OneOf(Vec::new()));
        assert!(of(&[(header::IF_NONE_MATCH, &etag)]).is_err());
        assert!(of(&[(header::IF_NONE_MATCH, "*"), (header::IF_MATCH, "*")]).is_err());
    }

    #[test]
    fn readers_get_what_they_do_not_have() {
        let of = |name: header::HeaderName, value: &str| wanted(&headers(&[(name, value)]), "\"a\"");
        assert_eq!(of(header::IF_NONE_MATCH, "\"b\", W/\"a\"").expect("same"), Wanted::NotModified);
        assert_eq!(of(header::IF_NONE_MATCH, "\"b\"").expect("other"), Wanted::Content);
        assert_eq!(of(header::IF_MATCH, "\"b\", \"a\"").expect("same"), Wanted::Content);
        assert!(of(header::IF_MATCH, "\"b\"").is_err());
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let of = |text: &str, size| range(&headers(&[(header::RANGE, text)]), size, "\"a\"").map_err(|_| ());
        assert_eq!(of("bytes=0-0", 10), Ok(Some(0..1)));
        assert_eq!(of("bytes=3-", 10), Ok(Some(3..10)));
        assert_eq!(of("bytes=-4", 10), Ok(Some(6..10)));
        assert_eq!(of("bytes=-40", 10), Ok(Some(0..10)));
        assert_eq!(of("bytes=5-99999999999999999999999", 10), Ok(Some(5..10)));
        for ignored in ["bytes=5-4", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=+1-2"] {
            assert_eq!(of(ignored, 10), Ok(None), "{ignored}");
        }
        for refused in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(refused, 10), Err(()), "{refused}");
        }
        assert_eq!(of("bytes=0-0", 0), Err(()));
        let mut other = headers(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, "\"b\"")]);
        assert_eq!(range(&other, 10, "\"a\"").ok(), Some(None));
        other.insert(header::IF_RANGE, "\"a\"".parse().expect("value"));
        assert_eq!(range(&other, 10, "\"a\"").ok(), Some(Some(0..1)));
    }
}
