//! Names parsed once at the border and trusted afterwards.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::limits;

/// The name of a sandbox: 1–40 of `[a-z0-9-]`, neither starting nor ending with `-`, not reserved.
///
/// 40 is what leaves room in one 63-byte DNS label for `{port}-{id}-{token}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

/// Names that would collide with host names of a preview domain; Cloudflare's Sandbox SDK refuses the same.
const RESERVED_IDS: [&str; 7] = ["www", "api", "admin", "root", "system", "cloudflare", "workers"];

/// Why a string is not a [`SandboxId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Empty or too long.
    #[error("must have 1 to {} characters", limits::SANDBOX_ID_BYTES_MAX)]
    Length,
    /// Something other than a–z, 0–9 and `-`.
    #[error("may hold only a-z, 0-9 and '-'")]
    Character,
    /// A `-` at either end.
    #[error("may neither start nor end with '-'")]
    Hyphen,
    /// One of the reserved names.
    #[error("is a reserved name")]
    Reserved,
}

impl SandboxId {
    /// Parses an id.
    ///
    /// # Errors
    /// Says which rule the string breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() || text.len() > limits::SANDBOX_ID_BYTES_MAX {
            return Err(InvalidId::Length);
        }
        if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(InvalidId::Character);
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidId::Hyphen);
        }
        if RESERVED_IDS.contains(&text) {
            return Err(InvalidId::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

/// The name of a snapshot: 1–40 of `[a-z0-9-]`, beginning and ending with a letter or digit.
///
/// It is a file's name and a symlink's target, and short enough for an inode to hold (ext4: 59 bytes).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

/// Why a string is not a [`SnapshotId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have 1 to {} characters of a-z, 0-9 and '-', the first and last not '-'",
    limits::SANDBOX_ID_BYTES_MAX
)]
pub struct InvalidSnapshotId;

impl SnapshotId {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidSnapshotId> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = (1..=limits::SANDBOX_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidSnapshotId)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = InvalidSnapshotId;

    fn try_from(text: String) -> Result<Self, InvalidSnapshotId> {
        Self::parse(&text)
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

/// What makes the address of a preview hard to guess: 1–16 of `[a-z0-9_]`, without the `-` that separates the parts of
/// its label.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PreviewToken(String);

/// Why a string is not a [`PreviewToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {} characters of a-z, 0-9 and '_'", limits::PREVIEW_TOKEN_BYTES_MAX)]
pub struct InvalidPreviewToken;

impl PreviewToken {
    /// Parses a token.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidPreviewToken> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if (1..=limits::PREVIEW_TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidPreviewToken)
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether they are the same, in a time that says nothing of where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.padded().ct_eq(&other.padded()).into()
    }

    /// With NULs, which no token holds, up to one length.
    fn padded(&self) -> [u8; limits::PREVIEW_TOKEN_BYTES_MAX] {
        let mut padded = [0; limits::PREVIEW_TOKEN_BYTES_MAX];
        padded.iter_mut().zip(self.0.bytes()).for_each(|(place, byte)| *place = byte);
        padded
    }
}

/// A secret: not for logs.
impl fmt::Debug for PreviewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreviewToken")
    }
}

impl TryFrom<String> for PreviewToken {
    type Error = InvalidPreviewToken;

    fn try_from(text: String) -> Result<Self, InvalidPreviewToken> {
        Self::parse(&text)
    }
}

impl From<PreviewToken> for String {
    fn from(token: PreviewToken) -> Self {
        token.0
    }
}

/// The name of a session or terminal within its sandbox: 1 to 64 of `[A-Za-z0-9._-]`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemId(String);

/// Why a string is not an [`ItemId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have 1 to {} characters of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit",
    limits::ITEM_ID_BYTES_MAX
)]
pub struct InvalidItemId;

impl ItemId {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidItemId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if begins && text.len() <= limits::ITEM_ID_BYTES_MAX && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidItemId)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ItemId {
    type Error = InvalidItemId;

    fn try_from(text: String) -> Result<Self, InvalidItemId> {
        Self::parse(&text)
    }
}

impl From<ItemId> for String {
    fn from(id: ItemId) -> Self {
        id.0
    }
}

/// A SHA-256 digest, the only algorithm that images are accepted with.
///
/// Written `sha256:` and 64 lower-case hexadecimal digits (OCI image specification, descriptor.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a string is not a [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not sha256: and 64 lower-case hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses `sha256:…`.
    ///
    /// # Errors
    /// When the algorithm is another, or the length or a digit is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix("sha256:").ok_or(InvalidDigest)?.as_bytes();
        let mut bytes = [0; 32];
        if hex.len() != 2 * bytes.len() {
            return Err(InvalidDigest);
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }

    /// The 64 digits without the algorithm: the name of a file in the store.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidDigest),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_ids_are_what_a_dns_label_can_carry() {
        for good in ["a", "0", "a-b", "user-123", &"x".repeat(40)] {
            assert_eq!(SandboxId::parse(good).map(String::from), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", InvalidId::Length),
            (&*"x".repeat(41), InvalidId::Length),
            ("A", InvalidId::Character),
            ("a_b", InvalidId::Character),
            ("a/b", InvalidId::Character),
            ("a\0b", InvalidId::Character),
            ("ä", InvalidId::Character),
            ("-a", InvalidId::Hyphen),
            ("a-", InvalidId::Hyphen),
            ("..", InvalidId::Character),
            ("admin", InvalidId::Reserved),
        ] {
            assert_eq!(SandboxId::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn tokens_are_compared_whole() {
        let token = |text: &str| PreviewToken::parse(text).expect("a token");
        assert!(token("abc_1").matches(&token("abc_1")));
        for other in ["abc_2", "abc_", "abc_11", "xbc_1"] {
            assert!(!token("abc_1").matches(&token(other)), "{other}");
        }
        for bad in ["", "A", "a-b", "a.b", "a\0", &"a".repeat(17)] {
            assert_eq!(PreviewToken::parse(bad), Err(InvalidPreviewToken), "{bad:?}");
        }
        assert_eq!(format!("{:?}", token("secret")), "PreviewToken");
    }

    #[test]
    fn digests_survive_a_round_trip_and_nothing_else_does() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(Digest::parse(&text).map(|digest| digest.to_string()), Ok(text.clone()));
        for bad in [&text[1..], &text[..70], &text.to_uppercase(), "sha512:00", &format!("{text}0")] {
            assert_eq!(Digest::parse(bad), Err(InvalidDigest), "{bad:?}");
        }
    }
}
