//! House rules that rustfmt and clippy do not know.

use anyhow::Result;

use crate::check::Problems;
use crate::source::{self, Source};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 700;
/// Characters of a proof.
const PROOF_CHARACTERS_MIN: usize = 15;

/// Words that say nothing about the thing they name.
const BANNED: [&str; 10] =
    ["util", "utils", "helper", "helpers", "common", "misc", "manager", "service", "handler", "processor"];

/// Marks of unfinished work. In halves, so that this file passes.
const UNFINISHED: [&str; 6] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), "todo!(", "unimplemented!(", "dbg!("];

/// Sizes, names, SAFETY notes, unfinished work, non-ASCII code.
pub(crate) fn problems() -> Result<Problems> {
    let mut problems = Problems::new();
    for source in source::rust_files()? {
        let found = of_file(&source);
        problems.extend(
            found.into_iter().map(|(line, what)| format!("{}:{}: {what}", source.path.display(), line + 1)),
        );
    }
    Ok(problems)
}

/// What is wrong in a file: the line, from 0, and the words.
pub(crate) fn of_file(source: &Source) -> Found {
    let mut found = Found::new();
    sizes(source, &mut found);
    names(source, &mut found);
    safety(source, &mut found);
    words(source, &mut found);
    found
}

type Found = Vec<(usize, String)>;

fn sizes(source: &Source, found: &mut Found) {
    if source.code.len() > FILE_LINES_MAX {
        found.push((0, format!("{} lines, at most {FILE_LINES_MAX}", source.code.len())));
    }
    for (start, line) in source.code.iter().enumerate() {
        let Some(name) = defined(line, "fn") else { continue };
        let (mut depth, mut opened) = (0_i32, false);
        for (length, line) in source.code[start..].iter().enumerate() {
            if !opened && line.trim_end().ends_with(';') {
                break;
            }
            depth += balance(line);
            opened |= line.contains('{');
            if opened && depth <= 0 {
                if length + 1 > FUNCTION_LINES_MAX {
                    found.push((
                        start,
                        format!("{name} has {} lines, at most {FUNCTION_LINES_MAX}", length + 1),
                    ));
                }
                break;
            }
        }
    }
}

fn balance(line: &str) -> i32 {
    line.chars().map(|c| i32::from(c == '{') - i32::from(c == '}')).sum()
}

fn names(source: &Source, found: &mut Found) {
    let file = source.path.with_extension("");
    let parts = file.iter().map(|part| (0, part.to_string_lossy().into_owned()));
    let kinds = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "union"];
    let lines = source.code.iter().enumerate();
    let defined = lines
        .flat_map(|(index, line)| kinds.iter().filter_map(move |kind| Some((index, defined(line, kind)?))));
    for (index, name) in parts.chain(defined) {
        if let Some(word) = words_of(&name).into_iter().find(|word| BANNED.contains(&word.as_str())) {
            found.push((index, format!("{name}: \"{word}\" says nothing about what it is")));
        }
    }
}

/// The name that a line defines with this keyword.
fn defined(line: &str, keyword: &str) -> Option<String> {
    let position = line.find(&format!("{keyword} "))?;
    if line[..position].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '*' | ':')) {
        return None;
    }
    let rest = &line[position + keyword.len() + 1..];
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// `load_HTTPService` → load, http, service; close enough for a list of words.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous = '_';
    for character in name.chars() {
        let starts = character == '_' || (character.is_uppercase() && !previous.is_uppercase());
        if starts {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), character.is_alphanumeric()) {
            word.extend(character.to_lowercase());
        }
        previous = character;
    }
    words
}

fn safety(source: &Source, found: &mut Found) {
    for (index, line) in source.code.iter().enumerate() {
        if !(line.contains("unsafe {") || line.contains("unsafe impl")) {
            continue;
        }
        let above = source.comments[..index].iter().rev().zip(source.code[..index].iter().rev());
        let note: Vec<&str> = above
            .take_while(|(comment, code)| !comment.is_empty() || !code.trim_end().ends_with([';', '}']))
            .take(20)
            .map(|(comment, _)| comment.trim())
            .collect();
        let text = note.into_iter().rev().collect::<Vec<_>>().join(" ");
        let proof = text.rsplit_once("SAFETY:").map(|(_, proof)| proof.trim());
        if proof.is_none_or(|proof| proof.len() < PROOF_CHARACTERS_MIN) {
            found.push((index, "unsafe without a `// SAFETY:` note that proves it".to_owned()));
        }
    }
}

fn words(source: &Source, found: &mut Found) {
    for (index, (code, comment)) in source.code.iter().zip(&source.comments).enumerate() {
        for word in UNFINISHED.iter().filter(|word| code.contains(*word) || comment.contains(*word)) {
            found.push((index, format!("{word}: unfinished work")));
        }
        if code.contains("#[allow(") || code.contains("#![allow(") && !source.path.starts_with("src/sys") {
            found.push((index, "an exception is #[expect(lint, reason = \"...\")]".to_owned()));
        }
        if let Some(character) = code.chars().find(|character| !character.is_ascii()) {
            found.push((index, format!("{character:?} in code")));
        }
    }
}
