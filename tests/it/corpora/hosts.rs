//! Names of hosts that two readers could understand differently.

use super::{Way, bytes};
use crate::harness::recorder::judge;

/// Whether a request that names its host so arrives: at a preview, and at the server behind the gateway.
type Case = (&'static str, bool, bool);

/// `{n}` is the right name, `{p}` the right port, `{r}` the name without its first letter. Letters are bytes.
const VALUES: &[Case] = &[
    ("{n}:{p}", true, true),
    ("{n}", true, true),
    ("  {n}:{p} \t", true, true),
    ("{N}:{p}", true, true),
    // Behind a forwarder a preview has another port; to the gateway the port is the one that was connected to.
    ("{n}:1", true, false),
    ("{n}:", true, false),
    // A resolver's spelling of a whole name, which certificates and the gateway know, and no browser makes of a preview.
    ("{n}.:{p}", false, true),
    ("{n}.", false, true),
    ("{n}..:{p}", false, false),
    ("{n}.:{p}.", false, false),
    (".{n}:{p}", false, false),
    ("", false, false),
    (".", false, false),
    ("-", false, false),
    (":{p}", false, false),
    (":", false, false),
    ("*", false, false),
    ("*.{n}", false, false),
    ("*.test:{p}", false, false),
    ("{n}:0", false, false),
    ("{n}:65536", false, false),
    ("{n}:4295{p}", false, false),
    ("{n}:-{p}", false, false),
    ("{n}:+{p}", false, false),
    ("{n}: {p}", false, false),
    ("{n} :{p}", false, false),
    ("{n}:{p}x", false, false),
    ("{n}:x", false, false),
    ("{n}:http", false, false),
    ("{n}:0x1f90", false, false),
    ("{n}:{p}:{p}", false, false),
    ("{n}::{p}", false, false),
    ("{n}:{p}/", false, false),
    ("{n}:{p}.evil.test", false, false),
    ("{n}:\u{b2}", false, false),
    ("user@{n}:{p}", false, false),
    ("user:word@{n}:{p}", false, false),
    ("@{n}:{p}", false, false),
    ("{n}:{p}@evil.test", false, false),
    ("{n}@evil.test:{p}", false, false),
    ("evil.test:{p}@{n}", false, false),
    ("evil.test#@{n}:{p}", false, false),
    ("evil.test\\@{n}:{p}", false, false),
    ("evil.test/@{n}:{p}", false, false),
    ("evil.test?{n}:{p}", false, false),
    ("{n}/../evil.test", false, false),
    ("{n}\\evil.test", false, false),
    ("{n}?x", false, false),
    ("{n}#x", false, false),
    ("http://{n}:{p}", false, false),
    ("//{n}:{p}", false, false),
    ("{n}, evil.test", false, false),
    ("{n},{n}", false, false),
    ("evil.test, {n}", false, false),
    ("{n} evil.test", false, false),
    ("evil.test {n}", false, false),
    ("{n}\tevil.test", false, false),
    ("{n};{n}", false, false),
    ("{n}&x", false, false),
    ("\"{n}\"", false, false),
    ("<{n}>", false, false),
    ("({n})", false, false),
    ("[{n}]:{p}", false, false),
    ("{n}]", false, false),
    ("%{n}", false, false),
    ("{n}%00", false, false),
    ("{n}%00.evil.test", false, false),
    ("{n}%2eevil.test", false, false),
    ("{n}%20", false, false),
    ("{n}%0d%0aHost:evil.test", false, false),
    ("{n}%3a{p}", false, false),
    ("%6f{r}", false, false),
    ("%38{r}", false, false),
    ("{n}\0", false, false),
    ("{n}\0.evil.test", false, false),
    ("evil.test\0{n}", false, false),
    ("{n}\u{1}", false, false),
    ("{n}\u{7f}", false, false),
    ("{n}\u{b}", false, false),
    ("{n}\u{ff}", false, false),
    ("{n}\u{ad}", false, false),
    ("{n}\u{a0}", false, false),
    // UTF-8: a soft hyphen, a full stop of another script, a wide letter, a Kelvin sign, a joiner, a BOM.
    ("{n}\u{c2}\u{ad}", false, false),
    ("ok\u{e3}\u{80}\u{82}test:{p}", false, false),
    ("{n}\u{e3}\u{80}\u{82}evil", false, false),
    ("\u{ef}\u{bd}\u{8f}{r}", false, false),
    ("o\u{e2}\u{84}\u{aa}.test:{p}", false, false),
    ("8000-box-t0\u{e2}\u{84}\u{aa}en.localhost", false, false),
    ("{n}\u{e2}\u{80}\u{8d}", false, false),
    ("\u{ef}\u{bb}\u{bf}{n}", false, false),
    ("xn--{n}", false, false),
    ("xn--k-0da.test:{p}", false, false),
    ("xn--.test", false, false),
    ("_{n}", false, false),
    ("o_k.test:{p}", false, false),
    ("-{n}", false, false),
    ("0{n}", false, false),
    ("evil.{n}", false, false),
    ("evil{n}", false, false),
    ("evil-{n}", false, false),
    ("{n}evil", false, false),
    ("{n}.evil.test", false, false),
    ("{r}", false, false),
    ("{long}.{n}", false, false),
    ("{long}{n}", false, false),
    ("{labels}{n}", false, false),
    ("localhost", false, false),
    ("localhost:{p}", false, false),
    ("test", false, false),
    ("stockade", false, false),
    ("127.0.0.1:{p}", false, false),
    ("127.1:{p}", false, false),
    ("0x7f.1", false, false),
    ("0177.0.0.1", false, false),
    ("2130706433", false, false),
    ("0", false, false),
    ("9.9.9.9:{p}", false, false),
    ("9.9.9.10:{p}", false, false),
    ("::1", false, false),
    ("[::1]", false, false),
    ("[::1]:{p}", false, false),
    ("[::1", false, false),
    ("[::ffff:127.0.0.1]:{p}", false, false),
    ("[::ffff:9.9.9.9]:{p}", false, false),
    ("[::ffff:9.9.9.9%25lo]:{p}", false, false),
    ("[fe80::1%25lo]:{p}", false, false),
    ("[fe80::1%lo]:{p}", false, false),
    ("[v1.{n}]:{p}", false, false),
    ("[]", false, false),
];

/// The same of whole heads, without the first line's end.
const HEADS: &[Case] = &[
    ("GET /a HTTP/1.1\r\nHOST: {n}:{p}", true, true),
    ("GET /a HTTP/1.1\r\nhOsT:{n}:{p}", true, true),
    ("GET /a HTTP/1.1\r\nHost: {n}:{p}\r\nX-Host: evil.test", true, true),
    ("GET //evil.test/a HTTP/1.1\r\nHost: {n}:{p}", true, true),
    ("GET /\\evil.test HTTP/1.1\r\nHost: {n}:{p}", true, true),
    ("GET /@evil.test HTTP/1.1\r\nHost: {n}:{p}", true, true),
    ("GET http://{n}:{p}/a HTTP/1.1\r\nHost: {n}:{p}", true, true),
    ("GET HTTP://{N}:{p}/a HTTP/1.1\r\nHost: {n}:{p}", true, true),
    ("OPTIONS * HTTP/1.1\r\nHost: {n}:{p}", true, true),
    ("GET /a HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: evil.test\r\nX-Host: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: evil.test\r\nX-Original-Host: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: evil.test\r\nForwarded: host={n}", false, false),
    ("GET /a HTTP/1.1\r\nX-Forwarded-Host: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\n:authority: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: {n}:{p}\r\n:authority: evil.test", false, false),
    ("GET /a HTTP/1.1\r\nHost: {n}:{p}\r\nHost: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: {n}:{p}\r\nhost: evil.test", false, false),
    ("GET /a HTTP/1.1\r\nHost: evil.test\r\nHost: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: {n}:{p}\r\nHost:", false, false),
    ("GET /a HTTP/1.1\r\nHost : {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\n Host: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: {n}\r\n .evil.test", false, false),
    ("GET /a HTTP/1.1\r\nHost:\r\n {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost\0: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost: evil.test\rHost: {n}:{p}", false, false),
    ("GET /a HTTP/1.1\r\nHost_: {n}:{p}", false, false),
    ("GET /a HTTP/1.0", false, false),
    ("GET http://evil.test/a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET http://{n}:{p}/a HTTP/1.1\r\nHost: evil.test", false, false),
    ("GET http://{n}:{p}@evil.test/a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET http://evil.test@{n}:{p}/a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET http://{n}:{p}.evil.test/a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET http:///a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET http:/{n}:{p}/a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET evil.test:80 HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET evil.test HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET @evil.test/a HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET \\evil.test HTTP/1.1\r\nHost: {n}:{p}", false, false),
    ("GET ftp://{n}:{p}/a HTTP/1.1\r\nHost: evil.test", false, false),
];

fn check(way: &Way, arrives: impl Fn(&Case) -> bool) {
    let (name, port) = way.host.rsplit_once(':').unwrap();
    let fill = |text: &str| {
        text.replace("{n}", name)
            .replace("{N}", &name.to_uppercase())
            .replace("{p}", port)
            .replace("{r}", &name[1..])
            .replace("{long}", &"a".repeat(64))
            .replace("{labels}", &"a.".repeat(130))
    };
    let values = VALUES.iter().map(|case| (format!("GET /a HTTP/1.1\r\nHost: {}", case.0), case));
    let heads = HEADS.iter().map(|case| (case.0.to_owned(), case));
    let mut refused = 0;
    for (head, case) in values.chain(heads) {
        let sent = bytes(&format!("{}\r\nConnection: close\r\n\r\n", fill(&head)));
        let codes = way.send(&sent, 1);
        let seen = way.recorder.take();
        let arrived = seen.iter().filter(|seen| seen.is_ok()).count();
        if arrives(case) {
            assert_eq!((arrived, seen.len(), &*codes), (1, 1, &[200][..]), "{head:?}: {seen:?}");
            // Written anew, it is what a strict reader reads, and it names the host that was asked for.
            let host = &seen[0].as_ref().unwrap().headers["host"];
            let plain = host.to_ascii_lowercase();
            let plain = plain.split(':').next().unwrap().trim_end_matches('.');
            assert_eq!(plain, name, "{head:?}");
        } else {
            assert!(seen.is_empty(), "{head:?}: {seen:?}");
            assert!(matches!(codes[..], [400 | 403 | 404 | 421]), "{head:?}: {codes:?}");
            refused += 1;
        }
    }
    assert!(refused > 130, "{refused}");
    // The one who would have seen them is there, and would have: most are requests to anybody but a proxy.
    let control = VALUES.iter().filter(|case| {
        let sent = bytes(&format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", fill(case.0)));
        judge(&sent).iter().all(Result::is_ok)
    });
    assert!(control.count() > 100);
}

#[test]
fn a_preview_is_reached_by_its_own_name_alone() {
    check(&Way::preview(), |case| case.1);
}

#[test]
fn the_gateway_knows_a_name_in_one_form_alone() {
    check(&Way::gateway(), |case| case.2);
}
