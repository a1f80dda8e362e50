//! SHA-256 sums in the spelling that locks and OCI descriptors use.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Lower-case hexadecimal of a finished sum.
pub(crate) fn spell(sum: &[u8]) -> String {
    sum.iter().fold(String::with_capacity(sum.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The sum of bytes in memory.
pub(crate) fn hex(bytes: &[u8]) -> String {
    spell(&Sha256::digest(bytes))
}

/// The sum of a file.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if count == 0 {
            return Ok(spell(&sum.finalize()));
        }
        sum.update(&buffer[..count]);
    }
}
