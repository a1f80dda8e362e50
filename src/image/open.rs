//! What a stranger has sealed or compressed, made plain: decrypted by age, unpacked by gzip or zstd.
//!
//! In a process of its own, as everything of a stranger's is; what comes out is still his.

use std::fs::File;
use std::io::{BufReader, Read, Write};

use crate::image::decompress::{self, detect};
use crate::limits::{LAYER_BYTES_FREE, LAYER_BYTES_MAX, LAYER_RATIO_MAX};
use crate::seal::{self, Identity, Opener};
use crate::wire::fetch::OpenJob;

/// Why it stays closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Not encrypted, or not for this identity.
    #[error(transparent)]
    Sealed(#[from] seal::OpenError),
    /// The identity.
    #[error("the identity is not one of age (AGE-SECRET-KEY-1…)")]
    Identity,
    /// Broken on the way, or by whoever compressed it.
    #[error("cannot read the archive: {0}")]
    Read(#[from] std::io::Error),
    /// More than is believed.
    #[error("unpacks to more than {LAYER_BYTES_MAX} bytes, or {LAYER_RATIO_MAX} times its size")]
    Bomb,
}

/// Bytes handed on at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Counts what is read, for the ratio.
struct Counted<R>(R, std::rc::Rc<std::cell::Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.set(self.1.get() + count as u64);
        Ok(count)
    }
}

/// Makes `from` plain in `to`. `open` is told when the key fits.
pub(super) fn run(from: File, mut to: File, job: &OpenJob, opened: impl FnOnce()) -> Result<(), OpenError> {
    let packed = std::rc::Rc::new(std::cell::Cell::new(0));
    let from = BufReader::with_capacity(CHUNK_BYTES, Counted(from, std::rc::Rc::clone(&packed)));
    let plain: Box<dyn Read> = match &job.identity {
        None => Box::new(from),
        Some(identity) => {
            let identity = Identity::parse(identity).ok_or(OpenError::Identity)?;
            Box::new(Opener::new(from, &identity)?)
        }
    };
    opened();
    let mut plain: Box<dyn Read> = if job.inflate { inflated(plain)? } else { plain };
    let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0_u64);
    loop {
        let count = plain.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        total += count as u64;
        let bound = packed.get().saturating_mul(LAYER_RATIO_MAX).max(LAYER_BYTES_FREE);
        if job.inflate && total > bound.min(LAYER_BYTES_MAX) {
            return Err(OpenError::Bomb);
        }
        to.write_all(&buffer[..count])?;
    }
}

fn inflated(mut plain: Box<dyn Read>) -> std::io::Result<Box<dyn Read>> {
    let mut start = Vec::new();
    plain.by_ref().take(4).read_to_end(&mut start)?;
    let compression = detect(&start);
    decompress::reader(std::io::Cursor::new(start).chain(plain), compression)
}
