//! Keys to names and back.
//!
//! A key is a path when each of its components is a name that a directory can hold. What is not stays in the bucket and
//! is not shown: `a//b`, `/a`, `a/../b`, a component of more than 255 bytes. Where an object `a` and objects below `a/`
//! exist, the directory is shown: otherwise what is in it could not be reached.
//!
//! No key and no name ever becomes the name of a file on the host.

use crate::limits::NAME_BYTES_MAX;
use crate::sys::Errno;

/// Bytes of a key, with the slash of a directory.
const KEY_BYTES_MAX: usize = 1024;

/// Whether a component of a key is a name that can be shown.
pub(super) fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\0'])
}

/// The key of a name in a directory, whose own key ends with a slash, or is the mount's prefix.
pub(super) fn key(directory: &str, name: &str) -> Result<String, Errno> {
    if name.len() > NAME_BYTES_MAX || directory.len() + name.len() + 1 > KEY_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    if !is_name(name) {
        return Err(Errno::INVAL);
    }
    Ok(format!("{directory}{name}"))
}

/// A number for programs, the same each time for the same place: names are listed without being looked up.
pub(super) fn number(directory: u64, name: &str) -> u64 {
    // FNV-1a: nothing but chance is asked of it. 0 and 1 have meanings of their own.
    let bytes = directory.to_ne_bytes();
    let hash = bytes.iter().chain(name.as_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_not_shown() {
        for name in ["", ".", "..", "a/b", "a\0", &"x".repeat(256)] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["a", "...", " ", "\n", "\u{202e}", &"x".repeat(255)] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn keys_are_bounded() {
        assert_eq!(key("d/", "n").as_deref(), Ok("d/n"));
        assert_eq!(key("d/", ".."), Err(Errno::INVAL));
        assert_eq!(key("d/", &"x".repeat(256)), Err(Errno::NAMETOOLONG));
        assert_eq!(key(&"d/".repeat(500), &"x".repeat(100)), Err(Errno::NAMETOOLONG));
    }
}
