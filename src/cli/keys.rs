//! Keys that are ours and not the program's: a sequence that leaves a terminal.

use std::str::FromStr;

/// The longest sequence.
const KEYS_MAX: usize = 8;

/// Keys that mean something together, as bytes of a terminal; none is never typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence(Vec<u8>);

impl FromStr for Sequence {
    type Err = String;

    /// As docker has it: `ctrl-p,ctrl-q`, `~,.`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write letters or ctrl-LETTER with commas between them, like ctrl-p,ctrl-q".to_owned();
        let key = |word: &str| match *word.as_bytes() {
            [letter] if letter.is_ascii_graphic() => Ok(letter),
            // What Ctrl makes of a letter: its lower five bits.
            [.., letter @ (b'a'..=b'z' | b'@'..=b'_')]
                if word.strip_prefix("ctrl-").is_some_and(|rest| rest.len() == 1) =>
            {
                Ok(letter & 0x1f)
            }
            _ => Err(wrong()),
        };
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys = text.split(',').map(key).collect::<Result<Vec<u8>, String>>()?;
        if keys.len() > KEYS_MAX { Err(wrong()) } else { Ok(Self(keys)) }
    }
}

/// Looks for a sequence in what is typed.
#[derive(Debug)]
pub(super) struct Watched {
    sequence: Vec<u8>,
    /// The beginning of the sequence, held back until it is known whether the rest comes.
    held: Vec<u8>,
}

impl Watched {
    pub(super) fn new(Sequence(sequence): Sequence) -> Self {
        Self { sequence, held: Vec::new() }
    }

    /// What of these bytes, and of those held back, goes on to the program; and whether the sequence was whole, behind
    /// which nothing goes on.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.held.push(byte);
            while !self.sequence.starts_with(&self.held) {
                passed.push(self.held.remove(0));
            }
            if !self.held.is_empty() && self.held == self.sequence {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(text: &str) -> Sequence {
        text.parse().expect("a sequence")
    }

    #[test]
    fn keys_are_written_as_docker_has_them() {
        for (text, keys) in [("ctrl-p,ctrl-q", &[16, 17][..]), ("~,.", b"~."), ("ctrl-[", &[27]), ("", b"")] {
            assert_eq!(sequence(text), Sequence(keys.to_vec()), "{text}");
        }
        for text in [",", "ctrl-", "ctrl-pp", "xctrl-p", "ä", "ab", "ctrl-1", "a,a,a,a,a,a,a,a,a"] {
            assert!(text.parse::<Sequence>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_but_the_sequence_goes_on_however_it_is_cut() {
        for (keys, typed, passed, whole) in [
            ("ctrl-p,ctrl-q", "a\x10b", "a\x10b", false),
            ("ctrl-p,ctrl-q", "a\x10\x10\x11b", "a\x10", true),
            ("a,a,b", "aaab", "a", true),
            ("a,b,a,c", "ababac", "ab", true),
            ("", "\x10\x11", "\x10\x11", false),
        ] {
            for cut in 0..=typed.len() {
                let mut watched = Watched::new(sequence(keys));
                let (mut found, mut end) = watched.typed(&typed.as_bytes()[..cut]);
                if !end {
                    let (more, ended) = watched.typed(&typed.as_bytes()[cut..]);
                    found.extend(more);
                    end = ended;
                }
                assert_eq!((&*found, end), (passed.as_bytes(), whole), "{keys} {typed:?} {cut}");
            }
        }
        let mut watched = Watched::new(sequence("ctrl-p,ctrl-q"));
        assert_eq!(watched.typed(b"\x10"), (Vec::new(), false), "it may be the beginning");
    }
}
