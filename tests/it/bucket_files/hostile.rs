//! Servers that are none, or mean harm.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use stockade::wire::bucket::{BucketFailureKind, BucketStart};

use super::mount::{Mounted, anonymous};
use super::{errno, fs};
use crate::harness::scratch;

type Answer = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;

/// A server that answers each method and target with what it is told to, and its endpoint.
fn server(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer: Answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    endpoint
}

fn serve(stream: TcpStream, answer: &Answer) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        let request = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let (method, target) = request.split_once(' ')?;
        let target = target.split(' ').next()?;
        writer.write_all(answer(method, target).as_bytes()).ok()?;
    }
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

const ABSENT: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

fn list(inner: &str) -> String {
    ok("", &format!("<ListBucketResult><EncodingType>url</EncodingType>{inner}</ListBucketResult>"))
}

fn object(key: &str) -> String {
    format!("<Contents><Key>{key}</Key><Size>3</Size><ETag>\"e\"</ETag></Contents>")
}

fn parameter<'a>(target: &'a str, name: &str) -> &'a str {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
}

#[test]
fn a_hundred_thousand_names_are_listed_in_pages_and_in_bounded_memory() {
    let endpoint = server(|method, target| {
        if method != "GET" {
            return ABSENT.to_owned();
        }
        let page: u32 = parameter(target, "continuation-token").parse().unwrap_or(0);
        let mut inner = String::new();
        for index in page * 1000..(page + 1) * 1000 {
            // Half of them are directories.
            if index % 2 == 0 {
                inner += &object(&format!("k{index:06}"));
            } else {
                write!(inner, "<CommonPrefixes><Prefix>k{index:06}/</Prefix></CommonPrefixes>").unwrap();
            }
        }
        if page < 99 {
            write!(inner, "<IsTruncated>true</IsTruncated>").unwrap();
            write!(inner, "<NextContinuationToken>{}</NextContinuationToken>", page + 1).unwrap();
        }
        list(&inner)
    });
    let mounted = Mounted::new(&anonymous(&endpoint));
    assert_eq!(mounted.shell("ls -U | wc -l; ls -U | sort -u | wc -l"), "100000\n100000\n");
    assert!(mounted.peak_kib() < 96 << 10, "{} KiB", mounted.peak_kib());
}

#[test]
fn keys_that_are_no_paths_are_not_shown() {
    let long = "n".repeat(256);
    let endpoint = server(move |method, target| {
        if method != "GET" || parameter(target, "max-keys") != "1000" {
            return if method == "GET" { list("") } else { ABSENT.to_owned() };
        }
        let keys = ["good", "..", ".", "%2Flead", "a%00b", "%FF", &long, "also%20good"];
        let prefixes = ["%2F", "..%2F", ".%2F", "dir%2F"];
        let objects: String = keys.map(object).concat();
        let prefixes =
            prefixes.map(|prefix| format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"));
        list(&(objects + &prefixes.concat()))
    });
    let mounted = Mounted::new(&anonymous(&endpoint));
    assert_eq!(mounted.shell("ls -A -U | sort"), "also good\ndir\ngood\n");
}

#[test]
fn lists_that_do_not_end_or_mean_nothing_are_errors() {
    for inner in [
        "<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>",
        "<IsTruncated>true</IsTruncated>",
        "<Contents>",
    ] {
        let inner = inner.to_owned();
        let endpoint = server(move |_, target| match parameter(target, "max-keys") {
            "1" => list(""),
            _ => list(&inner),
        });
        let mounted = Mounted::new(&anonymous(&endpoint));
        assert!(!mounted.try_shell("ls -A").status.success());
    }
}

#[test]
fn nobody_is_followed_to_another_host() {
    let fails = |answer: &str| {
        let answer = answer.to_owned();
        let endpoint = server(move |_, _| answer.clone());
        Mounted::try_new(&anonymous(&endpoint), &scratch()).err().unwrap()
    };
    let moved =
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(fails(moved).kind, BucketFailureKind::Redirected);
    let region = "HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\ncontent-length: 0\r\n\r\n";
    let expected = Some("eu-west-1".to_owned());
    assert_eq!(fails(region).kind, BucketFailureKind::WrongRegion { expected });
    assert_eq!(fails("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").kind, BucketFailureKind::Protocol);
    let many = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", 9 << 20, "x".repeat(9 << 20));
    assert_eq!(fails(&many).kind, BucketFailureKind::Protocol);
}

#[test]
fn what_is_not_the_range_that_was_asked_for_is_an_error() {
    for (headers, body) in [
        ("etag: \"other\"\r\ncontent-range: bytes 0-2/3\r\n", "abc"),
        ("etag: \"e\"\r\ncontent-range: bytes 1-3/4\r\n", "abc"),
        ("etag: \"e\"\r\ncontent-range: bytes 0-2/3\r\n", "ab"),
        ("etag: \"e\"\r\ncontent-range: bytes 0-2/3\r\n", "abcd"),
    ] {
        let range =
            format!("HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
        let endpoint = server(move |method, target| match method {
            "HEAD" if target.ends_with("/file") => {
                "HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 3\r\n\r\n".to_owned()
            }
            "GET" if target.contains('?') => list(""),
            "GET" => range.clone(),
            _ => ABSENT.to_owned(),
        });
        let start = BucketStart { attribute_ttl_ms: 60_000, ..anonymous(&endpoint) };
        let mounted = Mounted::new(&start);
        let said = errno(fs::read(mounted.join("file")));
        assert!([libc::EIO, libc::ESTALE].contains(&said), "{said}");
    }
}
