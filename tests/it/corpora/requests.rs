//! Requests that two readers could understand differently (request smuggling): what arrives is what one reader
//! understood, written anew, or nothing.

use super::{Way, bytes};
use crate::harness::recorder::{Request, Seen, judge};

/// What is sent, and what of it may arrive: method, target and body, one after the other.
type Case = (&'static str, &'static str, &'static [&'static str]);

/// `{h}` is the header `host`, `{host}` its value, `{s}` a request that must not be seen, `{n}` its length, `{x}` the
/// same in hexadecimal, `{n5}` five more.
const CASES: &[Case] = &[
    (
        "CL.TE",
        "POST /a HTTP/1.1\r\n{h}Content-Length: {n5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{s}",
        &["POST /a "],
    ),
    (
        "TE.CL",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{x}\r\n{s}\r\n0\r\n\r\n",
        &["POST /a {s}"],
    ),
    (
        "TE.CL, more behind",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n{s}",
        &["POST /a "],
    ),
    ("CL.CL", "POST /a HTTP/1.1\r\n{h}Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{s}", &[]),
    (
        "CL.CL, larger first",
        "POST /a HTTP/1.1\r\n{h}Content-Length: {n}\r\nContent-Length: 0\r\n\r\n{s}",
        &[],
    ),
    (
        "CL.CL alike",
        "POST /a HTTP/1.1\r\n{h}Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        &["POST /a ab"],
    ),
    ("CL list", "POST /a HTTP/1.1\r\n{h}Content-Length: 0, {n}\r\n\r\n{s}", &[]),
    ("CL list alike", "POST /a HTTP/1.1\r\n{h}Content-Length: 2, 2\r\n\r\nab{s}", &[]),
    ("CL plus", "POST /a HTTP/1.1\r\n{h}Content-Length: +{n}\r\n\r\n{s}", &[]),
    ("CL minus", "POST /a HTTP/1.1\r\n{h}Content-Length: -1\r\n\r\n{s}", &[]),
    ("CL minus nothing", "POST /a HTTP/1.1\r\n{h}Content-Length: -0\r\n\r\n{s}", &[]),
    ("CL hexadecimal", "POST /a HTTP/1.1\r\n{h}Content-Length: 0x{x}\r\n\r\n{s}", &[]),
    ("CL octal is decimal", "POST /a HTTP/1.1\r\n{h}Content-Length: 002\r\n\r\nab", &["POST /a ab"]),
    ("CL fraction", "POST /a HTTP/1.1\r\n{h}Content-Length: {n}.0\r\n\r\n{s}", &[]),
    ("CL exponent", "POST /a HTTP/1.1\r\n{h}Content-Length: 1e1\r\n\r\n{s}", &[]),
    ("CL underscore", "POST /a HTTP/1.1\r\n{h}Content-Length: 1_0\r\n\r\n{s}", &[]),
    ("CL blank inside", "POST /a HTTP/1.1\r\n{h}Content-Length: 1 0\r\n\r\n{s}", &[]),
    ("CL empty", "POST /a HTTP/1.1\r\n{h}Content-Length: \r\n\r\n{s}", &[]),
    ("CL beyond 64 bits", "POST /a HTTP/1.1\r\n{h}Content-Length: 18446744073709551616\r\n\r\n{s}", &[]),
    ("CL the largest", "POST /a HTTP/1.1\r\n{h}Content-Length: 18446744073709551615\r\n\r\n{s}", &[]),
    ("CL in a form feed", "POST /a HTTP/1.1\r\n{h}Content-Length:\u{c}{n}\r\n\r\n{s}", &[]),
    ("CL with blank before colon", "POST /a HTTP/1.1\r\n{h}Content-Length : {n}\r\n\r\n{s}", &[]),
    ("CL with tab before colon", "POST /a HTTP/1.1\r\n{h}Content-Length\t: {n}\r\n\r\n{s}", &[]),
    ("CL with a NUL in its name", "POST /a HTTP/1.1\r\n{h}Content\0-Length: {n}\r\n\r\n{s}", &[]),
    ("CL with underscore", "GET /a HTTP/1.1\r\n{h}Content_Length: {n}\r\n\r\n", &["GET /a "]),
    ("CL of GET", "GET /a HTTP/1.1\r\n{h}Content-Length: {n}\r\n\r\n{s}", &["GET /a {s}"]),
    (
        "CL named by Connection",
        "POST /a HTTP/1.1\r\n{h}Connection: content-length\r\nContent-Length: {n}\r\n\r\n{s}",
        &["POST /a {s}"],
    ),
    (
        "TE named by Connection",
        "POST /a HTTP/1.1\r\n{h}Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n{x}\r\n{s}\r\n0\r\n\r\n",
        &["POST /a {s}"],
    ),
    ("Host named by Connection", "GET /a HTTP/1.1\r\n{h}Connection: host\r\n\r\n", &["GET /a "]),
    (
        "TE xchunked",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: xchunked\r\nContent-Length: {n}\r\n\r\n{s}",
        &[],
    ),
    ("TE chunkedx", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n{s}", &[]),
    (
        "TE identity",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: identity\r\nContent-Length: {n}\r\n\r\n{s}",
        &[],
    ),
    (
        "TE chunked, identity",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE twice, chunked first",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE twice, chunked last",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE chunked twice",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    ("TE gzip, chunked", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{s}", &[]),
    (
        "TE in capitals",
        "POST /a HTTP/1.1\r\n{h}TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        &["POST /a ab"],
    ),
    ("TE quoted", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{s}", &[]),
    ("TE with a parameter", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n{s}", &[]),
    ("TE with a comma", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n{s}", &[]),
    ("TE empty", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: \r\nContent-Length: {n}\r\n\r\n{s}", &[]),
    (
        "TE behind a vertical tab",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE behind a tab",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding:\tchunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        &["POST /a ab"],
    ),
    (
        "TE before a no-break space",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\u{a0}\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE with blank before colon",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE behind a blank",
        "POST /a HTTP/1.1\r\n{h} Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n\r\n{s}",
        &[],
    ),
    (
        "TE in HTTP/1.0",
        "POST /a HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE in a value behind CR",
        "POST /a HTTP/1.1\r\n{h}X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "TE of GET",
        "GET /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        &["GET /a ab"],
    ),
    ("TE with underscore", "GET /a HTTP/1.1\r\n{h}Transfer_Encoding: chunked\r\n\r\n", &["GET /a "]),
    ("folded value", "POST /a HTTP/1.1\r\n{h}X: a\r\n Content-Length: {n}\r\n\r\n{s}", &[]),
    ("folded TE", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{s}", &[]),
    ("folded first line", "POST /a HTTP/1.1\r\n X: y\r\n{h}\r\n", &[]),
    ("no name", "POST /a HTTP/1.1\r\n{h}: x\r\nContent-Length: 0\r\n\r\n", &[]),
    ("no colon", "POST /a HTTP/1.1\r\n{h}Content-Length\r\n\r\n", &[]),
    ("a NUL in a value", "POST /a HTTP/1.1\r\n{h}X: a\0b\r\n\r\n", &[]),
    ("a bare CR in a value", "POST /a HTTP/1.1\r\n{h}X: a\rContent-Length: {n}\r\n\r\n{s}", &[]),
    ("a head that ends CR CR", "POST /a HTTP/1.1\r\n{h}\r\r{s}", &[]),
    ("lines that end in LF", "POST /a HTTP/1.1\n{h}Content-Length: 2\n\nab", &["POST /a ab"]),
    ("one line that ends in LF", "POST /a HTTP/1.1\r\n{h}X: a\nContent-Length: 2\r\n\r\nab", &["POST /a ab"]),
    (
        "a head that ends in LF LF",
        "GET /a HTTP/1.1\r\n{h}\nGET /b HTTP/1.1\r\n{h}\r\n",
        &["GET /a ", "GET /b "],
    ),
    (
        "chunk: extension",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2;x=y;z=\"w\"\r\nab\r\n0;e\r\n\r\n",
        &["POST /a ab"],
    ),
    (
        "chunk: extension with LF",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2;\nab\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "chunk: extension with CR",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2;a\rb\r\nab\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "chunk: size ends in LF",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "chunk: data ends in LF",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2\r\nab\n0\r\n\r\n{s}",
        &[],
    ),
    (
        "chunk: data ends otherwise",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n{s}",
        &[],
    ),
    ("chunk: sign", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{s}", &[]),
    ("chunk: minus", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{s}", &[]),
    ("chunk: 0x", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{s}", &[]),
    (
        "chunk: blank before size",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n{s}",
        &[],
    ),
    ("chunk: no size", "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n{s}", &[]),
    (
        "chunk: overflow",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{s}",
        &[],
    ),
    (
        "chunk: leading zeros",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0002\r\nab\r\n000\r\n\r\n",
        &["POST /a ab"],
    ),
    (
        "chunk: capital digits",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        &["POST /a 0123456789"],
    ),
    (
        "trailers: forbidden",
        "POST /a HTTP/1.1\r\n{h}Trailer: Host, X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nHost: evil.test:8080\r\nTransfer-Encoding: chunked\r\nContent-Length: {n}\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\nAuthorization: x\r\n\r\n",
        &["POST /a ab"],
    ),
    (
        "trailers: a request in them",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n{s}",
        &[],
    ),
    (
        "trailers: folded",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n{s}",
        &[],
    ),
    (
        "trailers: a line feed",
        "POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n{s}",
        &["POST /a "],
    ),
    ("HTTP/0.9", "GET /smuggled\r\n\r\n", &[]),
    ("HTTP/1.2", "GET /smuggled HTTP/1.2\r\n{h}\r\n", &[]),
    ("HTTP/2.0", "GET /smuggled HTTP/2.0\r\n{h}\r\n", &[]),
    ("HTTP/1.10", "GET /smuggled HTTP/1.10\r\n{h}\r\n", &[]),
    ("http/1.1", "GET /smuggled http/1.1\r\n{h}\r\n", &[]),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", &[]),
    ("two versions", "GET /a HTTP/1.1 HTTP/1.1\r\n{h}\r\n{s}", &[]),
    ("a line feed in the target", "GET /a\nX HTTP/1.1\r\n{h}\r\n", &[]),
    ("a tab for a blank", "GET\t/smuggled\tHTTP/1.1\r\n{h}\r\n", &[]),
    ("a NUL in the target", "GET /smuggled\0 HTTP/1.1\r\n{h}\r\n", &[]),
    ("a method that is none", "G(T /smuggled HTTP/1.1\r\n{h}\r\n", &[]),
    ("no host", "GET /smuggled HTTP/1.1\r\n\r\n", &[]),
    ("two hosts", "GET /smuggled HTTP/1.1\r\n{h}{h}\r\n", &[]),
    ("another host first", "GET /smuggled HTTP/1.1\r\nHost: evil.test:8080\r\n{h}\r\n", &[]),
    ("another host in the target", "GET http://evil.test:8080/smuggled HTTP/1.1\r\n{h}\r\n", &[]),
    (
        "the host in the target alone",
        "GET http://{host}/smuggled HTTP/1.1\r\nHost: evil.test:8080\r\n\r\n",
        &[],
    ),
    ("absolute and alike", "GET http://{host}/a HTTP/1.1\r\n{h}\r\n", &["GET /a "]),
    ("CONNECT", "CONNECT evil.test:8080 HTTP/1.1\r\nHost: evil.test:8080\r\n\r\n{s}", &[]),
    ("CONNECT to the host itself", "CONNECT {host} HTTP/1.1\r\n{h}\r\n{s}", &[]),
    (
        "TRACE with a body",
        "TRACE /smuggled HTTP/1.1\r\nHost: evil.test:8080\r\nContent-Length: 2\r\n\r\nab",
        &[],
    ),
    (
        "h2c, and a body that is a request",
        "GET /a HTTP/1.1\r\n{h}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: {n}\r\n\r\n{s}",
        &["GET /a {s}"],
    ),
    (
        "h2c, and the preface behind it",
        "GET /a HTTP/1.1\r\n{h}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &["GET /a "],
    ),
    (
        "websocket, and a request behind it",
        "GET /a HTTP/1.1\r\n{h}Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil.test:8080\r\n\r\n",
        &["GET /a "],
    ),
    ("expect", "POST /a HTTP/1.1\r\n{h}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab", &["POST /a ab"]),
    (
        "expect, and no body",
        "GET /a HTTP/1.1\r\n{h}Expect: 100-continue\r\n\r\nGET /b HTTP/1.1\r\n{h}\r\n",
        &["GET /a ", "GET /b "],
    ),
    (
        "two, one behind the other",
        "GET /a HTTP/1.1\r\n{h}\r\nPOST /b HTTP/1.1\r\n{h}Content-Length: 2\r\n\r\nab",
        &["GET /a ", "POST /b ab"],
    ),
    (
        "empty lines between",
        "\r\n\r\nGET /a HTTP/1.1\r\n{h}\r\n\r\n\r\nGET /b HTTP/1.1\r\n{h}\r\n",
        &["GET /a ", "GET /b "],
    ),
    (
        "one behind a close",
        "GET /a HTTP/1.1\r\n{h}Connection: close\r\n\r\nGET /smuggled HTTP/1.1\r\n{h}\r\n",
        &["GET /a "],
    ),
    ("one behind HTTP/1.0", "GET /a HTTP/1.0\r\n{h}\r\nGET /smuggled HTTP/1.1\r\n{h}\r\n", &["GET /a "]),
    ("garbage behind it", "GET /a HTTP/1.1\r\n{h}\r\n\u{1}\u{2}\u{3}\u{4}/smuggled\r\n\r\n", &["GET /a "]),
    ("half a request behind it", "GET /a HTTP/1.1\r\n{h}\r\nGET /smuggled HTTP/1.1\r\nHost:", &["GET /a "]),
];

/// Cases that no server takes for HTTP: for the gateway they are another protocol, which its policy allows here.
const NO_HTTP: [&str; 1] = ["a NUL in the target"];

fn shown(seen: &Seen) -> String {
    match seen {
        Ok(Request { line, body, .. }) => format!("{line} {}", String::from_utf8_lossy(body)),
        Err(why) => format!("! {why}"),
    }
}

/// What is the same for every request that arrives.
fn check_words(name: &str, host: &str, seen: &Seen) {
    let Ok(request) = seen else { return };
    assert_eq!(request.headers["host"], host, "{name}");
    // What is about the connection or the body's end ends with it; behind a body nothing is said.
    for hop in ["te", "trailer", "upgrade", "http2-settings", "expect"] {
        let websocket = hop == "upgrade" && request.headers.contains_key("sec-websocket-key");
        assert!(websocket || !request.headers.contains_key(hop), "{name}: {request:?}");
    }
    assert_eq!(request.trailers, [""; 0], "{name}");
    assert!(!format!("{:?}", request.headers).contains("6.6.6.6"), "{name}: {request:?}");
}

fn check(way: &Way, skipped: &[&str]) {
    // Another host: where the gateway does not let this sandbox go, and where no preview is.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: evil.test:8080\r\n\r\n";
    let n = smuggled.len();
    let fill = |text: &str| {
        text.replace("{h}", &format!("Host: {}\r\n", way.host))
            .replace("{host}", &way.host)
            .replace("{s}", smuggled)
            .replace("{n5}", &(n + 5).to_string())
            .replace("{n}", &n.to_string())
            .replace("{x}", &format!("{n:x}"))
    };
    let mut hostile = 0;
    for (name, template, passes) in CASES.iter().filter(|(name, ..)| !skipped.contains(name)) {
        let sent = bytes(&fill(template));
        let codes = way.send(&sent, passes.len().max(1));
        let seen = way.recorder.take();
        let arrived: Vec<_> = seen.iter().map(shown).collect();
        let wanted: Vec<_> = passes.iter().map(|one| fill(one)).collect();
        // What is passed on as it comes may have begun before it turned out to be nothing; so may that of the case before,
        // whose answer did not wait for it.
        let cut = wanted.is_empty() && arrived.iter().all(|one| one.starts_with("! cut in its"));
        assert!(arrived == wanted || cut, "{name}: {arrived:?} arrived, not {wanted:?} ({codes:?})");
        for one in &seen {
            check_words(name, &way.host, one);
        }
        assert_eq!(codes.iter().filter(|code| **code == 200).count(), wanted.len(), "{name}: {codes:?}");
        // Without a proxy the same reader sees something else, if the case is not there to show what is good.
        let control = judge(&sent);
        let odd = |seen: &Seen| seen.as_ref().map_or(true, |one| one.line.contains("smuggled"));
        let trailers = |seen: &Seen| seen.as_ref().is_ok_and(|one| !one.trailers.is_empty());
        if control.iter().any(|seen| odd(seen) || trailers(seen)) {
            hostile += 1;
        } else {
            let control: Vec<_> = control.iter().map(shown).collect();
            assert_eq!(control, wanted, "{name}: neither hostile nor passed on");
        }
    }
    assert!(hostile > 75, "{hostile} of {} cases are hostile", CASES.len());
}

#[test]
fn previews_pass_on_requests_as_they_understood_them() {
    check(&Way::preview(), &[]);
}

#[test]
fn the_gateway_passes_on_requests_as_it_understood_them() {
    check(&Way::gateway(), &NO_HTTP);
}

#[test]
fn a_long_first_line_is_a_request_to_the_gateway_as_well() {
    let way = Way::gateway();
    let long = "a".repeat(9000);
    for (host, wanted) in [("ok.test:8080", 1), ("evil.test:8080", 0)] {
        let sent = format!("GET /{long} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let codes = way.send(sent.as_bytes(), 1);
        let seen = way.recorder.take();
        assert_eq!(seen.iter().filter(|seen| seen.is_ok()).count(), wanted, "{host}: {codes:?}");
        assert_eq!(codes, [if wanted == 1 { 200 } else { 403 }], "{host}");
    }
}

#[test]
fn codings_and_bodies_of_get_arrive_as_they_are_sent_or_not_at_all() {
    let way = Way::gateway();
    let host = format!("Host: {}\r\n", way.host);
    // A body that is not said to have an end of its own would have been lost.
    let sent = format!("GET /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(way.send(sent.as_bytes(), 1), [200]);
    let seen = way.recorder.take();
    assert_eq!(seen.iter().map(shown).collect::<Vec<_>>(), ["GET /a abc"]);
    assert_eq!(seen[0].as_ref().unwrap().headers["transfer-encoding"], "chunked");
    // Compressed, and then not said to be.
    let sent = sent.replace("chunked", "gzip, chunked");
    assert_eq!((way.send(sent.as_bytes(), 1), way.recorder.take()), (vec![400], Vec::new()));
}
