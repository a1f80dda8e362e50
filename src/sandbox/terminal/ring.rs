//! The last of a terminal's output, by position.

use std::collections::VecDeque;

use crate::limits::TERMINAL_REPLAY_BYTES;

/// The newest bytes, at most [`TERMINAL_REPLAY_BYTES`]. A position is the number of bytes before it since the terminal
/// was opened.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

/// What follows a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position of its first byte; later than what was asked for when that is gone.
    pub from: u64,
    /// The bytes; none when there are no newer ones.
    pub bytes: Vec<u8>,
}

impl Ring {
    /// An empty one, whose first byte will have this position.
    pub(super) fn at(position: u64) -> Self {
        Self { bytes: VecDeque::new(), end: position }
    }

    /// Position of the next byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Position of the oldest byte.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Adds bytes; the oldest make room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(TERMINAL_REPLAY_BYTES)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(TERMINAL_REPLAY_BYTES);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// What follows a position, at most so many bytes.
    pub(super) fn after(&self, position: u64, bytes_max: usize) -> Piece {
        let from = position.clamp(self.start(), self.end);
        let skipped = usize::try_from(from - self.start()).unwrap_or(self.bytes.len());
        let end = self.bytes.len().min(skipped.saturating_add(bytes_max));
        let (first, second) = self.bytes.as_slices();
        let cut = first.len();
        let mut bytes = Vec::with_capacity(end - skipped);
        bytes.extend_from_slice(&first[skipped.min(cut)..end.min(cut)]);
        bytes.extend_from_slice(&second[skipped.max(cut) - cut..end.max(cut) - cut]);
        Piece { from, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_gives_back_exactly_the_newest_bytes() {
        let mut ring = Ring::at(1000);
        let mut all = Vec::new();
        let mut state = 7_u32;
        for round in 0..300 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let piece: Vec<u8> = (0..state >> 20).map(|index| (index % 251) as u8).collect();
            ring.push(&piece);
            all.extend_from_slice(&piece);
            let start = usize::try_from(ring.start() - 1000).expect("small");
            assert_eq!(all.len() - start, all.len().min(TERMINAL_REPLAY_BYTES), "round {round}");
            assert_eq!(ring.after(0, usize::MAX), Piece { from: ring.start(), bytes: all[start..].to_vec() });
            let middle = start + (all.len() - start) / 3;
            let wanted = &all[middle..all.len().min(middle + 100)];
            assert_eq!(ring.after(1000 + middle as u64, 100).bytes, wanted);
        }
        assert_eq!(ring.after(u64::MAX, 10), Piece { from: ring.end(), bytes: Vec::new() });
    }

    #[test]
    fn a_piece_larger_than_the_ring_leaves_its_end() {
        let mut ring = Ring::at(0);
        ring.push(b"before");
        let large: Vec<u8> = (0..=240).cycle().take(TERMINAL_REPLAY_BYTES + 9).collect();
        ring.push(&large);
        assert_eq!((ring.start(), ring.end()), (15, 15 + TERMINAL_REPLAY_BYTES as u64));
        assert_eq!(ring.after(0, 3).bytes, &large[9..12]);
    }
}
