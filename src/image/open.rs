//! What a stranger has sealed or compressed, made plain: decrypted by age, unpacked by gzip or zstd.
//!
//! In a process of its own, as everything of a stranger's is; what comes out is still his.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::rc::Rc;

use bytes::Bytes;

use crate::image::decompress::{self, detect};
use crate::image::documents::END_BYTES;
use crate::limits::{LAYER_BYTES_FREE, LAYER_BYTES_MAX, LAYER_RATIO_MAX};
use crate::seal::{self, Identity, Opener};
use crate::tar::{ReadError, Source, TarError, TarReader};
use crate::wire::fetch::OpenJob;

/// Why it stays closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Not encrypted, or not for this identity.
    #[error(transparent)]
    Sealed(#[from] seal::OpenError),
    /// Encrypted, and nobody has said so.
    #[error("it is encrypted by age, and no identity was given")]
    NoIdentity,
    /// The identity.
    #[error("the identity is not one of age (AGE-SECRET-KEY-1…)")]
    Identity,
    /// Broken on the way, or by whoever compressed it.
    #[error("cannot read the archive: {0}")]
    Read(#[from] std::io::Error),
    /// What comes out is no tar.
    #[error("it is no tar: {0}")]
    Tar(#[from] TarError),
    /// The end is missing.
    #[error("it is no tar, or cut short: it does not end with two blocks of zeros")]
    Endless,
    /// More than is believed.
    #[error("unpacks to more than {LAYER_BYTES_MAX} bytes, or {LAYER_RATIO_MAX} times its size")]
    Bomb,
}

/// Bytes that tell what something is.
const HEAD_BYTES: u64 = 16;

/// Whether something that begins so is encrypted by age.
pub(super) fn is_sealed(start: &[u8]) -> bool {
    start.starts_with(b"age-encryption.o")
}

/// Bytes handed on at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Counts what is read, for the ratio.
struct Counted<R>(R, Rc<Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.set(self.1.get() + count as u64);
        Ok(count)
    }
}

/// What is handed on, as it is looked at.
struct Passing<'a> {
    plain: Box<dyn Read + 'a>,
    to: File,
    packed: Rc<Cell<u64>>,
    total: u64,
    /// Zeros at the end of what was handed on.
    zeros: Rc<Cell<usize>>,
}

impl Source for Passing<'_> {
    type Error = OpenError;

    fn next(&mut self) -> Result<Option<Bytes>, OpenError> {
        let mut bytes = vec![0; CHUNK_BYTES];
        let count = self.plain.read(&mut bytes)?;
        bytes.truncate(count);
        self.total += count as u64;
        let bound = self.packed.get().saturating_mul(LAYER_RATIO_MAX).max(LAYER_BYTES_FREE);
        if self.total > bound.min(LAYER_BYTES_MAX) {
            return Err(OpenError::Bomb);
        }
        self.to.write_all(&bytes)?;
        let last = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros.set(if last == count { self.zeros.get() + count } else { last });
        Ok((count > 0).then(|| bytes.into()))
    }
}

/// Makes `from` plain in `to`: as it is under its seal, or a tar, whatever it is compressed with. `open` is told when the
/// key fits. A tar is read on its way, so that nobody keeps one that is none.
pub(super) fn run(from: File, mut to: File, job: &OpenJob, opened: impl FnOnce()) -> Result<(), OpenError> {
    let packed = Rc::new(Cell::new(0));
    let from = BufReader::with_capacity(CHUNK_BYTES, Counted(from, Rc::clone(&packed)));
    let mut plain: Box<dyn Read> = match &job.identity {
        None => Box::new(from),
        Some(identity) => {
            let identity = Identity::parse(identity).ok_or(OpenError::Identity)?;
            Box::new(Opener::new(from, &identity)?)
        }
    };
    opened();
    if !job.inflate {
        std::io::copy(&mut plain, &mut to)?;
        return Ok(());
    }
    let zeros = Rc::new(Cell::new(0));
    let plain = inflated(plain)?;
    let mut reader = TarReader::new(Passing { plain, to, packed, total: 0, zeros: Rc::clone(&zeros) });
    while reader.next_entry()?.is_some() {}
    reader.drain()?;
    if zeros.get() < END_BYTES { Err(OpenError::Endless) } else { Ok(()) }
}

impl From<ReadError<OpenError>> for OpenError {
    fn from(error: ReadError<OpenError>) -> Self {
        match error {
            ReadError::Tar(error) => Self::Tar(error),
            ReadError::Source(error) => error,
        }
    }
}

fn inflated(mut plain: Box<dyn Read>) -> Result<Box<dyn Read>, OpenError> {
    let mut start = Vec::new();
    plain.by_ref().take(HEAD_BYTES).read_to_end(&mut start)?;
    if is_sealed(&start) {
        return Err(OpenError::NoIdentity);
    }
    let compression = detect(&start);
    Ok(decompress::reader(std::io::Cursor::new(start).chain(plain), compression)?)
}
