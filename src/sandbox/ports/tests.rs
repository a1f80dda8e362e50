//! Tokens through all that can become of them.

use super::*;

fn life(number: u8) -> String {
    format!("2026-01-0{number}T00:00:00Z")
}

fn id() -> SandboxId {
    SandboxId::parse("a-b").expect("id")
}

fn token(text: &str) -> PreviewToken {
    PreviewToken::parse(text).expect("token")
}

fn spec(port: u16, token: Option<&str>) -> PortSpec {
    PortSpec { port, name: None, token: token.map(self::token), wait: Duration::ZERO }
}

fn code<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

#[test]
fn a_token_is_good_for_one_port_until_it_is_rotated_or_revoked() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("work/ports.json");
    let ports = Ports::new(path.clone(), life(7));
    let (first, new) = ports.expose(spec(80, None)).expect("expose");
    assert!(new && first.token.len() == PREVIEW_TOKEN_BYTES_MAX, "{first:?}");
    let (_, over) = ports.check(true, 80, &token(&first.token)).expect("good");
    assert_eq!(code(ports.check(true, 81, &token(&first.token))), Some(ErrorCode::InvalidToken));
    assert_eq!(code(ports.check(true, 80, &token("guess"))), Some(ErrorCode::InvalidToken));

    // Another daemon knows it too.
    let again = Ports::new(path, life(7));
    assert_eq!(again.list(), std::slice::from_ref(&first));
    assert!(again.check(true, 80, &token(&first.token)).is_ok());

    // The same token again changes nothing for those who use it.
    let (kept, new) = ports.expose(spec(80, Some(&first.token))).expect("expose");
    assert!(!new && kept.token == first.token && !over.is_cancelled());
    let (second, new) = ports.expose(spec(80, None)).expect("expose");
    assert!(!new && second.token != first.token && over.is_cancelled());
    assert_eq!(code(ports.check(true, 80, &token(&first.token))), Some(ErrorCode::InvalidToken));
    let (_, over) = ports.check(true, 80, &token(&second.token)).expect("good");
    ports.revoke(80).expect("revoke");
    assert!(over.is_cancelled());
    assert_eq!(code(ports.check(true, 80, &token(&second.token))), Some(ErrorCode::InvalidToken));
    assert_eq!(code(ports.revoke(80)), Some(ErrorCode::PortNotExposed));
}

#[test]
fn a_token_of_a_former_life_is_stale_and_not_unknown() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ports.json");
    Ports::new(path.clone(), life(7)).expose(spec(80, Some("one"))).expect("expose");
    let ports = Ports::new(path, life(8));
    assert_eq!(code(ports.check(true, 80, &token("one"))), Some(ErrorCode::StalePreviewUrl));
    assert_eq!(code(ports.check(true, 80, &token("two"))), Some(ErrorCode::InvalidToken));
    assert!(ports.list().is_empty());
    ports.expose(spec(80, Some("one"))).expect("expose");
    assert!(ports.check(true, 80, &token("one")).is_ok());
    assert_eq!(code(ports.check(false, 80, &token("one"))), Some(ErrorCode::StalePreviewUrl));
}

#[test]
fn tokens_of_destroyed_sandboxes_are_remembered_across_a_restart_and_bounded() {
    let directory = tempfile::tempdir().expect("directory");
    let former = Former::open(directory.path());
    let ports = Ports::new(directory.path().join("ports.json"), life(7));
    ports.expose(spec(80, Some("one"))).expect("expose");
    let (_, over) = ports.check(true, 80, &token("one")).expect("good");
    ports.end(&id(), &former);
    assert!(over.is_cancelled());
    let former = Former::open(directory.path());
    assert!(former.has(&id(), 80, &token("one")));
    assert!(!former.has(&id(), 80, &token("two")) && !former.has(&id(), 81, &token("one")));
    let many = token("many");
    let id = id();
    for _ in 0..2 {
        former.add((1..=1000).map(|port| (&id, port, &many)));
    }
    assert!(!former.has(&id, 80, &token("one")));
    assert_eq!(former.count(), crate::limits::FORMER_TOKENS_MAX);
}

#[test]
fn a_sandbox_exposes_a_bounded_number_of_ports() {
    let directory = tempfile::tempdir().expect("directory");
    let ports = Ports::new(directory.path().join("ports.json"), life(7));
    let most = u16::try_from(EXPOSED_PORTS_MAX).expect("fits");
    for port in 1..=most {
        ports.expose(spec(port, Some("t"))).expect("expose");
    }
    assert_eq!(code(ports.expose(spec(most + 1, None))), Some(ErrorCode::CapacityExhausted));
    ports.expose(spec(most, None)).expect("one that is there can be given another token");
}
