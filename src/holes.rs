//! Files that are laid out from archives: what is zeros there takes no room here.
//!
//! A hole reads as zeros, so whoever unpacks cannot tell whether the file had one where it was packed, and need not.

use std::os::fd::BorrowedFd;

use crate::sys::Errno;

/// What file systems give room by: a hole is whole ones of these.
const BLOCK_BYTES: usize = 4096;

const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Writes a new file in order, and leaves out its blocks of zeros.
pub(crate) struct Holes<'a> {
    file: BorrowedFd<'a>,
    position: u64,
    /// Where what was written ends.
    end: u64,
}

impl<'a> Holes<'a> {
    /// Into an empty file that nobody else writes.
    pub(crate) fn new(file: BorrowedFd<'a>) -> Self {
        Self { file, position: 0, end: 0 }
    }

    /// Goes on further behind: in between is nothing.
    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Writes what comes next.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let (length, zeros) = run(bytes, self.position);
            let (head, rest) = bytes.split_at(length);
            if !zeros {
                self.write_all(head)?;
                self.end = self.position + length as u64;
            }
            self.position += length as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8]) -> Result<(), Errno> {
        let mut at = self.position;
        while !bytes.is_empty() {
            let count = rustix::io::retry_on_intr(|| rustix::io::pwrite(self.file, bytes, at))?;
            bytes = bytes.get(count..).unwrap_or_default();
            at += count as u64;
        }
        Ok(())
    }

    /// Gives the file its length, which may lie behind what was written.
    pub(crate) fn finish(self, size: u64) -> Result<(), Errno> {
        if self.end == size { Ok(()) } else { rustix::fs::ftruncate(self.file, size) }
    }
}

/// How much of this is of one kind, up to the end of a block of the file, and whether that is zeros.
///
/// A part of a block at either end counts as one: what was left out of a block that gets content elsewhere is zeros too.
fn run(bytes: &[u8], position: u64) -> (usize, bool) {
    let begun = usize::try_from(position % BLOCK_BYTES as u64).unwrap_or_default();
    let (mut length, mut kind) = (0, None);
    while length < bytes.len() {
        let room = BLOCK_BYTES - (begun + length) % BLOCK_BYTES;
        let block = &bytes[length..bytes.len().min(length + room)];
        let zeros = *block == ZEROS[..block.len()];
        if *kind.get_or_insert(zeros) != zeros {
            break;
        }
        length += block.len();
    }
    (length, kind == Some(true))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_take_no_room_and_everything_reads_as_it_was() {
        let mut content = vec![0; 3 << 20];
        content[5000..5010].fill(7);
        content[1 << 20..(1 << 20) + 70_000].fill(8);
        // As chunks come from an archive: in pieces that begin anywhere.
        for chunk in [1, 511, 4096, 65_000] {
            let mut file = tempfile::tempfile().expect("file");
            let mut holes = Holes::new(file.as_fd());
            content.chunks(chunk).for_each(|bytes| holes.write(bytes).expect("written"));
            holes.finish(content.len() as u64).expect("finished");
            let mut read = Vec::new();
            file.read_to_end(&mut read).expect("read");
            assert!(read == content, "chunks of {chunk} bytes");
            let room = file.metadata().expect("metadata").blocks() * 512;
            assert!(room <= 128 * 1024, "{room} bytes in chunks of {chunk}");
        }
    }
}
