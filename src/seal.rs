//! Encryption of what leaves the host, in the format of age (age-encryption.org/v1), to one X25519 recipient.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 <ephemeral share>        file key, wrapped for whoever has the recipient's identity
//! <wrapped file key>
//! --- <MAC>                          of all above, by a key from the file key
//! nonce ‖ chunks of 64 KiB           ChaCha20-Poly1305, numbered, the last one marked: none can be lost, moved or cut off
//! ```
//! So that `age -d` opens it, without us. The daemon needs the public half alone to seal.
//!
//! Why not the crate `age`: it brings 78 others, among them translations, scrypt and post-quantum drafts, into a program that
//! holds privilege. What is here is the framing; the ciphers are those of `ring`, which TLS brought, and `x25519-dalek`.
//! Debian's `age` and this module open each other's files in the tests.

use std::io::{self, BufRead, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bech32::primitives::decode::CheckedHrpstring;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};
use x25519_dalek::{PublicKey, StaticSecret};

const VERSION: &str = "age-encryption.org/v1";

/// Bytes of a chunk's plain text.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of a chunk's tag.
const TAG_BYTES: usize = 16;

/// Bytes of the key that the rest hangs on, and of the payload's nonce.
const FILE_KEY_BYTES: usize = 16;

/// Bytes of a header that is read: some hundred recipients.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Why something does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not begin as such a file does.
    #[error("it is not encrypted as age does, or its header is broken")]
    Header,
    /// For somebody else.
    #[error("it is not encrypted to this identity")]
    Stranger,
    /// It could not be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
}

/// Who can open what is sealed: a public key, `age1…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(PublicKey);

/// What opens it: `AGE-SECRET-KEY-1…`. Not printed.
#[derive(Clone)]
pub struct Identity(StaticSecret);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

fn key(text: &str, kind: &str) -> Option<[u8; 32]> {
    let checked = CheckedHrpstring::new::<bech32::Bech32>(text).ok()?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    if checked.hrp().to_lowercase() == kind { bytes.try_into().ok() } else { None }
}

impl Recipient {
    /// Reads one. `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        key(text, "age").map(|bytes| Self(bytes.into()))
    }
}

impl Identity {
    /// Reads one. `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        key(text, "age-secret-key-").map(|bytes| Self(bytes.into()))
    }
}

/// Bytes of a key from others (RFC 5869).
fn derived(salt: &[u8], from: &[u8], info: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    let info = [info];
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(from);
    // Of a length that HKDF has.
    if let Ok(expanded) = pseudorandom.expand(&info, hkdf::HKDF_SHA256) {
        let _ = expanded.fill(&mut bytes);
    }
    bytes
}

fn cipher(key: [u8; 32]) -> io::Result<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, &key).map(LessSafeKey::new).map_err(|_| broken("no key"))
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn random<const LENGTH: usize>() -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(bytes)
}

/// The key that a file key is wrapped with.
fn wrap(shared: &[u8], share: &[u8], recipient: &PublicKey) -> [u8; 32] {
    derived(&[share, recipient.as_bytes()].concat(), shared, b"age-encryption.org/v1/X25519")
}

fn mac(file_key: &[u8], header: &[u8]) -> hmac::Tag {
    let key = derived(&[], file_key, b"header");
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), header)
}

/// Numbers chunks, and marks the last one.
#[derive(Debug, Default)]
struct Counter(u64);

impl Counter {
    fn next(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.0.to_be_bytes());
        nonce[11] = u8::from(last);
        self.0 += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what is written to it. Without [`finish`](Self::finish) the end is missing, and whoever opens it is told.
#[derive(Debug)]
pub struct Sealer<W> {
    out: W,
    key: LessSafeKey,
    counter: Counter,
    chunk: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// As writing does; when the recipient's key is one that shares nothing.
    pub fn new(mut out: W, recipient: &Recipient) -> io::Result<Self> {
        let file_key = random::<FILE_KEY_BYTES>()?;
        let secret = StaticSecret::from(random::<32>()?);
        let share = PublicKey::from(&secret);
        let shared = secret.diffie_hellman(&recipient.0);
        if !shared.was_contributory() {
            return Err(broken("a recipient that everybody can be"));
        }
        let mut wrapped = file_key.to_vec();
        let key = cipher(wrap(shared.as_bytes(), share.as_bytes(), &recipient.0))?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut wrapped)
            .map_err(|_| broken("no wrapped key"))?;
        let text = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let header = format!("{VERSION}\n-> X25519 {}\n{}\n---", text(share.as_bytes()), text(&wrapped));
        let sum = text(mac(&file_key, header.as_bytes()).as_ref());
        let nonce = random::<FILE_KEY_BYTES>()?;
        out.write_all(format!("{header} {sum}\n").as_bytes())?;
        out.write_all(&nonce)?;
        let key = cipher(derived(&nonce, &file_key, b"payload"))?;
        Ok(Self { out, key, counter: Counter::default(), chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES) })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.counter.next(last);
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk)
            .map_err(|_| broken("a chunk that cannot be sealed"))?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the last chunk.
    ///
    /// # Errors
    /// As writing does.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only when more comes is it known that a full one is not the last.
        if self.chunk.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Opens what it reads.
#[derive(Debug)]
pub struct Opener<R> {
    from: R,
    key: LessSafeKey,
    counter: Counter,
    /// Read ahead: one sealed chunk, and a byte that says whether it is the last.
    sealed: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    over: bool,
}

impl<R: BufRead> Opener<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is none, or for somebody else.
    pub fn new(mut from: R, identity: &Identity) -> Result<Self, OpenError> {
        let header = Header::read(&mut from)?;
        let file_key = header.shares.iter().find_map(|(share, wrapped)| unwrap(identity, share, wrapped));
        let file_key = file_key.ok_or(OpenError::Stranger)?;
        let key = derived(&[], &file_key, b"header");
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &header.text, &header.mac)
            .map_err(|_| OpenError::Header)?;
        let mut nonce = [0; FILE_KEY_BYTES];
        from.read_exact(&mut nonce)?;
        let key = cipher(derived(&nonce, &file_key, b"payload"))?;
        let (sealed, plain) = (Vec::new(), Vec::new());
        Ok(Self { from, key, counter: Counter::default(), sealed, plain, at: 0, over: false })
    }

    /// The next chunk. It is the last when nothing is behind it.
    fn open(&mut self) -> io::Result<()> {
        let wanted = (CHUNK_BYTES + TAG_BYTES + 1).saturating_sub(self.sealed.len());
        self.from.by_ref().take(wanted as u64).read_to_end(&mut self.sealed)?;
        let last = self.sealed.len() <= CHUNK_BYTES + TAG_BYTES;
        let ahead = if last { Vec::new() } else { self.sealed.split_off(CHUNK_BYTES + TAG_BYTES) };
        let first = self.counter.0 == 0;
        let nonce = self.counter.next(last);
        let mut chunk = std::mem::replace(&mut self.sealed, ahead);
        let plain = self.key.open_in_place(nonce, Aad::empty(), &mut chunk);
        let length = plain.map_err(|_| broken("it was cut short, or changed"))?.len();
        if length == 0 && !first {
            return Err(broken("an empty chunk"));
        }
        chunk.truncate(length);
        (self.plain, self.at, self.over) = (chunk, 0, last);
        Ok(())
    }
}

impl<R: BufRead> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() {
            if self.over {
                return Ok(0);
            }
            self.open()?;
        }
        let count = buffer.len().min(self.plain.len() - self.at);
        buffer[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn unwrap(identity: &Identity, share: &[u8; 32], wrapped: &[u8]) -> Option<[u8; FILE_KEY_BYTES]> {
    let shared = identity.0.diffie_hellman(&PublicKey::from(*share));
    if !shared.was_contributory() {
        return None;
    }
    let key = cipher(wrap(shared.as_bytes(), share, &PublicKey::from(&identity.0))).ok()?;
    let mut wrapped = wrapped.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    key.open_in_place(nonce, Aad::empty(), &mut wrapped).ok().and_then(|plain| (&*plain).try_into().ok())
}

/// A header as it was read.
struct Header {
    /// Shares of X25519, and the file key wrapped for each.
    shares: Vec<([u8; 32], Vec<u8>)>,
    /// What the MAC is of.
    text: Vec<u8>,
    mac: Vec<u8>,
}

impl Header {
    fn read(from: &mut impl BufRead) -> Result<Self, OpenError> {
        let mut from = from.take(HEADER_BYTES_MAX as u64);
        let mut text = line(&mut from)?;
        if text != format!("{VERSION}\n") {
            return Err(OpenError::Header);
        }
        let mut shares = Vec::new();
        loop {
            let head = line(&mut from)?;
            if let Some(mac) = head.strip_prefix("--- ") {
                text.push_str("---");
                return Ok(Self {
                    shares,
                    text: text.into_bytes(),
                    mac: decoded(mac.trim_end_matches('\n'))?,
                });
            }
            let arguments = head.strip_prefix("-> ").ok_or(OpenError::Header)?.trim_end_matches('\n');
            text.push_str(&head);
            let mut body = String::new();
            loop {
                // A full line has another one behind it, which may be empty.
                let more = line(&mut from)?;
                text.push_str(&more);
                body.push_str(more.trim_end_matches('\n'));
                if more.len() <= 64 {
                    break;
                }
            }
            // Those of other kinds are for others.
            if let Some(share) = arguments.strip_prefix("X25519 ") {
                let share = decoded(share)?.try_into().map_err(|_| OpenError::Header)?;
                shares.push((share, decoded(&body)?));
            }
        }
    }
}

fn line(from: &mut impl BufRead) -> Result<String, OpenError> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(_) if line.ends_with('\n') => Ok(line),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error.into()),
        _ => Err(OpenError::Header),
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, OpenError> {
    STANDARD_NO_PAD.decode(text).map_err(|_| OpenError::Header)
}

#[cfg(test)]
mod tests {
    use super::*;

    // From `age-keygen`, for this test alone.
    const IDENTITY: &str = "AGE-SECRET-KEY-16TQS4YND69LXWL4HGT4VNQAZS948UQKF9T8N9HFLHMMATXWR3YXQG7XQ0Q";
    const RECIPIENT: &str = "age1grem75kgxxswhnr2gf3xnt7xee4jzj63e2am60dhwmnvxareyfsscpjt2p";

    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let recipient = Recipient::parse(RECIPIENT).expect("recipient");
        let mut sealer = Sealer::new(Vec::new(), &recipient).expect("sealer");
        sealer.write_all(bytes).expect("write");
        sealer.finish().expect("finish")
    }

    fn opened(sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let identity = Identity::parse(IDENTITY).expect("identity");
        let mut plain = Vec::new();
        Opener::new(sealed, &identity)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// With the program that the format is from; without it the other tests must do.
    fn age(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        use std::process::{Command, Stdio};
        let (from, to) = (Stdio::piped(), Stdio::piped());
        let mut child = Command::new("age").args(arguments).stdin(from).stdout(to).spawn().ok()?;
        let mut stdin = child.stdin.take()?;
        let input = input.to_vec();
        let feed = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("age");
        feed.join().expect("feed").expect("write");
        assert!(output.status.success());
        Some(output.stdout)
    }

    #[test]
    fn age_opens_what_is_sealed_here_and_the_other_way_round() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("identity");
        std::fs::write(&path, IDENTITY).expect("write");
        let path = path.to_str().expect("path");
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..251).cycle().take(length).collect();
            assert_eq!(opened(&sealed(&bytes)).expect("opened"), bytes);
            if let Some(theirs) = age(&["-d", "-i", path], &sealed(&bytes)) {
                assert_eq!(theirs, bytes, "{length}");
                let theirs = age(&["-r", RECIPIENT], &bytes).expect("age");
                assert_eq!(opened(&theirs).expect("opened"), bytes, "{length}");
            }
        }
    }

    #[test]
    fn what_is_cut_changed_or_moved_does_not_open() {
        let bytes = vec![7; 2 * CHUNK_BYTES + 100];
        let whole = sealed(&bytes);
        let payload = whole.len() - (bytes.len() + 3 * TAG_BYTES);
        for end in [0, 10, payload - 20, payload, payload + CHUNK_BYTES + TAG_BYTES, whole.len() - 1] {
            assert!(opened(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in [0, 30, 60, 120, payload - 3, payload + 5, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(opened(&changed).is_err(), "changed at {at}");
        }
        let mut moved = whole.clone();
        let (one, two) = (payload, payload + CHUNK_BYTES + TAG_BYTES);
        moved.copy_within(two..two + CHUNK_BYTES + TAG_BYTES, one);
        assert!(opened(&moved).is_err());
        let more = [whole.as_slice(), b"x"].concat();
        assert!(opened(&more).is_err(), "something behind the end");
    }

    #[test]
    fn strangers_and_keys_that_are_none_are_refused() {
        let stranger = Identity(StaticSecret::from([9; 32]));
        assert!(matches!(Opener::new(&*sealed(b"x"), &stranger), Err(OpenError::Stranger)));
        for text in
            ["", "age1", RECIPIENT.trim_end_matches('0'), IDENTITY, "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqq"]
        {
            assert_eq!(Recipient::parse(text).is_some(), text == RECIPIENT, "{text}");
        }
        assert!(Identity::parse(RECIPIENT).is_none());
        let nobody = Recipient(PublicKey::from([0; 32]));
        assert!(Sealer::new(Vec::new(), &nobody).is_err());
        // A header without an end is not read for ever.
        let endless = [VERSION.as_bytes(), b"\n-> x\n", &b"A\n-> x\n".repeat(100_000)].concat();
        assert!(matches!(Opener::new(&*endless, &stranger), Err(OpenError::Header)));
    }
}
