//! Names that nobody guesses.

use crate::id::SandboxId;

/// 12 characters: 60 bits, enough that nobody guesses one and no two meet.
pub(super) fn random_id() -> SandboxId {
    SandboxId::parse(&random_text::<12>())
        .unwrap_or_else(|_| unreachable!("the alphabet has only valid characters"))
}

/// Any number, so that no two that are counted on from such a one meet.
pub(super) fn random_number() -> u64 {
    let mut bytes = [0; 8];
    // As below.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// So many characters of `[a-z0-9]`, without those that people mistake for each other: 5 bits each.
pub(super) fn random_text<const LENGTH: usize>() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; LENGTH];
    // The kernel's generator never fails once it is seeded, and it is long before we start.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}
