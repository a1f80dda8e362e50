//! XML as S3 answers it, from whoever answers.
//!
//! Bounded before it is parsed, without a document type (no entities of one's own), and only the elements that are
//! wanted: everything else is skipped.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// Bytes of an answer: a thousand keys of 1 KiB, each byte escaped, fit twice.
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries that one page may have: what is asked for, and what S3 gives at most.
const ENTRIES_MAX: usize = 1000;

/// One page of keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::bucket) struct Page {
    /// Objects, in the order of their keys.
    pub(in crate::bucket) objects: Vec<Listed>,
    /// What was left out because it has the delimiter further on; each ends with it.
    pub(in crate::bucket) prefixes: Vec<String>,
    /// How to ask for the next page.
    pub(in crate::bucket) next: Option<String>,
}

/// An object in a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bucket) struct Listed {
    /// Its key.
    pub(in crate::bucket) key: String,
    /// Its entity tag, with its quotes.
    pub(in crate::bucket) etag: String,
    /// Its bytes.
    pub(in crate::bucket) size: u64,
    /// When it was written, in nanoseconds since 1970.
    pub(in crate::bucket) modified_ns: i128,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListResult {
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Contents>,
    #[serde(default)]
    common_prefixes: Vec<Shortened>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    #[serde(rename = "ETag", default)]
    etag: String,
    size: u64,
    last_modified: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shortened {
    prefix: String,
}

/// What says what an upload or copy became.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Made {
    /// Its entity tag.
    #[serde(rename = "ETag")]
    pub(super) etag: Option<String>,
    /// Its number, of an upload that has begun.
    pub(super) upload_id: Option<String>,
    /// Set when the answer is a refusal although its status is 200.
    pub(super) code: Option<String>,
}

/// An entity tag with its quotes, which some servers leave out in XML.
pub(super) fn quoted(etag: &str) -> String {
    if etag.is_empty() || etag.ends_with('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// Parses an answer.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let bad = |why: &str| Failure::Protocol(format!("XML: {}", why.chars().take(200).collect::<String>()));
    let text = std::str::from_utf8(body).map_err(|_| bad("it is not UTF-8"))?;
    if text.contains("<!DOCTYPE") {
        return Err(bad("it has a document type"));
    }
    quick_xml::de::from_str(text).map_err(|error| bad(&error.to_string()))
}

/// Parses a page of keys, of which each begins with `prefix`. Keys that do not, or are none, are left out.
pub(super) fn page(body: &[u8], prefix: &str) -> Result<Page, Failure> {
    let result: ListResult = parse(body)?;
    if result.contents.len() + result.common_prefixes.len() > ENTRIES_MAX {
        return Err(Failure::Protocol("a page of more keys than were asked for".to_owned()));
    }
    let escaped = result.encoding_type.as_deref() == Some("url");
    let decode = |text: String| -> Option<String> {
        let text = if escaped {
            percent_decode_str(&text.replace('+', " ")).decode_utf8().ok()?.into_owned()
        } else {
            text
        };
        text.starts_with(prefix).then_some(text)
    };
    let next = match (result.is_truncated, result.next_continuation_token) {
        (false, _) => None,
        (true, Some(token)) if !token.is_empty() => Some(token),
        (true, _) => return Err(Failure::Protocol("a page that goes on without saying where".to_owned())),
    };
    let objects = result.contents.into_iter().filter_map(|one| {
        let modified = one.last_modified.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let modified_ns = modified.map_or(0, jiff::Timestamp::as_nanosecond);
        Some(Listed { key: decode(one.key)?, etag: quoted(&one.etag), size: one.size, modified_ns })
    });
    let prefixes = result.common_prefixes.into_iter().filter_map(|one| decode(one.prefix));
    Ok(Page { objects: objects.collect(), prefixes: prefixes.collect(), next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(inner: &str) -> Vec<u8> {
        let head = r#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#;
        format!("{head}{inner}</ListBucketResult>").into_bytes()
    }

    #[test]
    fn a_page_is_read_whatever_the_order_and_the_unknown() {
        let inner = "<Name>b</Name><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <Contents><Key>d/a%2Bb+c%0A</Key><Size>7</Size><ETag>&quot;e&quot;</ETag>\
            <LastModified>2009-10-12T17:50:30.000Z</LastModified><Owner><ID>x</ID></Owner></Contents>\
            <CommonPrefixes><Prefix>d/e/</Prefix></CommonPrefixes>\
            <Contents><Key>d/z</Key><ETag>bare</ETag><Size>0</Size></Contents><NextContinuationToken>t</NextContinuationToken>";
        let page = page(&result(inner), "d/").expect("page");
        assert_eq!(page.objects[0].key, "d/a+b c\n");
        assert_eq!(page.objects[0].etag, "\"e\"");
        assert_eq!(page.objects[0].modified_ns, 1_255_369_830_000_000_000);
        assert_eq!((&*page.objects[1].key, &*page.objects[1].etag), ("d/z", "\"bare\""));
        assert_eq!(page.prefixes, ["d/e/"]);
        assert_eq!(page.next.as_deref(), Some("t"));
    }

    #[test]
    fn hostile_pages_are_refused_or_lose_what_is_wrong() {
        let entity =
            "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><ListBucketResult><Name>&a;</Name></ListBucketResult>";
        assert!(page(entity.as_bytes(), "").is_err(), "entities");
        let endless = result("<IsTruncated>true</IsTruncated>");
        assert!(page(&endless, "").is_err(), "a page without end");
        let many = "<Contents><Key>k</Key><Size>1</Size></Contents>".repeat(1001);
        assert!(page(&result(&many), "").is_err(), "too many");
        let foreign = result(
            "<EncodingType>url</EncodingType><Contents><Key>other/k</Key><Size>1</Size></Contents>\
             <Contents><Key>d/%FF</Key><Size>1</Size></Contents>",
        );
        assert!(
            page(&foreign, "d/").expect("page").objects.is_empty(),
            "keys beside the prefix, invalid UTF-8"
        );
        let negative = result("<Contents><Key>k</Key><Size>-1</Size></Contents>");
        assert!(page(&negative, "").is_err());
        assert!(page(b"<ListBucketResult>", "").is_err());
        assert!(page(b"\xff", "").is_err());
        let nested = result(&("<a>".repeat(100_000) + &"</a>".repeat(100_000)));
        assert!(page(&nested, "").is_ok(), "what is skipped costs no stack");
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = page(&bytes, "");
            let _ = page(&result(&String::from_utf8_lossy(&bytes)), "");
        }
    }
}
