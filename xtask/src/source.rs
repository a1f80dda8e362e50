//! Rust files, split into code and comments by a scanner that knows strings, characters and comments.
//!
//! Why not syn: a parser of the whole language for questions about words and lines, and it drops comments.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::output;

/// A source file, line by line.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: PathBuf,
    /// Each line's code, with the contents of strings, characters and comments left out.
    pub(crate) code: Vec<String>,
    /// Each line's comment text.
    pub(crate) comments: Vec<String>,
}

/// Files that git tracks, or would if they were added, except removed ones.
pub(crate) fn tracked() -> Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    let listing = output(git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let paths = listing.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(paths.filter(|path| path.is_file()).collect())
}

/// All Rust files of the workspace.
pub(crate) fn rust_files() -> Result<Vec<Source>> {
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    tracked()?.into_iter().filter(rust).map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Result<Source> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(split(path, &text))
}

enum State {
    Code,
    LineComment,
    /// How deep block comments are nested.
    BlockComment(u32),
    /// What ends the string.
    String(String),
}

/// Splits a file. Quotes of strings and characters stay in the code, what is between them does not.
pub(crate) fn split(path: &Path, text: &str) -> Source {
    let mut source = Source { path: path.to_owned(), ..Source::default() };
    let mut state = State::Code;
    for line in text.lines() {
        let (mut code, mut comment) = (String::new(), String::new());
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let mut length = first.len_utf8();
            match &mut state {
                State::Code => {
                    (length, state) = scan_code(rest, &code, length);
                    if matches!(state, State::Code | State::String(_)) {
                        let literal = first == '\'' && length > 1;
                        code.push_str(if literal { "''" } else { &rest[..length] });
                    }
                }
                State::LineComment => comment.push(first),
                State::BlockComment(depth) => {
                    comment.push(first);
                    if rest.starts_with("/*") {
                        (*depth, length) = (*depth + 1, 2);
                    } else if rest.starts_with("*/") {
                        (*depth, length) = (*depth - 1, 2);
                        if *depth == 0 {
                            state = State::Code;
                        }
                    }
                }
                State::String(end) => {
                    if rest.starts_with(end.as_str()) {
                        code.push_str(end);
                        length = end.len();
                        state = State::Code;
                    } else if end == "\"" && rest.starts_with('\\') {
                        length += rest.chars().nth(1).map_or(0, char::len_utf8);
                    }
                }
            }
            rest = &rest[length..];
        }
        if matches!(state, State::LineComment) {
            state = State::Code;
        }
        source.code.push(code);
        source.comments.push(comment);
    }
    source
}

/// What starts at the beginning of `rest`: how many bytes it takes and the state behind it.
fn scan_code(rest: &str, before: &str, length: usize) -> (usize, State) {
    let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return (2, State::LineComment);
    }
    if rest.starts_with("/*") {
        return (2, State::BlockComment(1));
    }
    if rest.starts_with('"') {
        return (1, State::String("\"".to_owned()));
    }
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'));
    if let (Some(raw), false) = (raw, in_word) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let opening = rest.len() - raw.len() + hashes + 1;
            return (opening, State::String(format!("\"{}", "#".repeat(hashes))));
        }
    }
    (character(rest).unwrap_or(length), State::Code)
}

/// The length of the character literal at the beginning of `rest`; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        let escape = inside.chars().nth(1)?.len_utf8();
        return inside[1 + escape..].find('\'').map(|end| 1 + 1 + escape + end + 1);
    }
    inside[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_characters_and_comments_are_not_code() {
        let text =
            "let a = \"x // y\\\"{\"; // note {\nlet b = r#\"\"{\"#; /* {\n{ */ let c = '{'; fn f<'a>() {}";
        let source = split(Path::new("x.rs"), text);
        assert_eq!(source.code[0], "let a = \"\"; ");
        assert_eq!(source.comments[0], " note {");
        assert_eq!(source.code[1], "let b = r#\"\"#; ");
        assert_eq!(source.code[2], " let c = ''; fn f<'a>() {}");
    }
}
