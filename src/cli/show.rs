//! What people see.
//!
//! Names, labels and messages come from other users, images and registries. Before they reach a terminal,
//! everything that could steer it is escaped: control characters (ECMA-48) and the marks that turn the
//! direction of text (CVE-2021-42574).

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use super::failure::Failure;
use crate::api::files::schema::PathText;

/// Text that a terminal shows as it is.
pub(super) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_steering) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_steering(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Bytes that a terminal shows: what is no UTF-8 as `\xff`, and nothing that steers it.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&safe(chunk.valid()));
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Bytes from elsewhere on their way to stdout: for programs as they are, for people as a terminal shows them.
pub(super) fn bytes(bytes: &[u8]) -> Vec<u8> {
    if io::stdout().is_terminal() { escaped(bytes).into_bytes() } else { bytes.to_vec() }
}

/// The same of a path.
pub(super) fn path(path: &PathText) -> Vec<u8> {
    bytes(&path.bytes().unwrap_or_default())
}

/// Writes to stdout. A reader that has enough is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same of what need not be text.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Failure::Local { what: "cannot write to stdout".to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// Writes a value to stdout as JSON that people can read too.
pub(super) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::NotOurs)?;
    print(&(text + "\n"))
}

/// Says something to people on stderr.
pub(super) fn say(text: &str) {
    // There is nobody to tell that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", safe(text));
}

/// Columns as wide as their widest cell, two spaces apart.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| safe(cell)).collect()).collect();
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heads: Vec<Cow<'_, str>> = heads.iter().map(|head| Cow::Borrowed(*head)).collect();
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// The first twelve digits of a digest: enough for people.
pub(super) fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_steers_the_terminal() {
        for (text, shown) in [
            ("plain ä 🦀", "plain ä 🦀"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
        ] {
            assert_eq!(safe(text), shown);
        }
    }

    #[test]
    fn names_that_are_no_text_are_shown_with_all_that_they_are() {
        assert_eq!(escaped(b"a\xff\xfe\xc3\xa4\x1b\n"), "a\\xff\\xfe\u{e4}\\u{1b}\\n");
    }

    #[test]
    fn a_table_lines_up() {
        let rows = [vec!["a".to_owned(), "x\n".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "B"], &rows), "ID      B\na       x\\n\nlonger\n");
    }

    #[test]
    fn digests_are_short_for_people() {
        assert_eq!(short(&format!("sha256:{}", "ab".repeat(32))), "abababababab");
        assert_eq!(short("x"), "x");
    }
}
