//! What README and the help texts show can be typed.

use clap::{CommandFactory as _, Parser as _};

use super::arguments::Arguments;

/// The commands of a line of a shell, as their words. A comment, and what follows three spaces, may hold further ones.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote, mut spaces) = (None::<String>, None, 0);
    for letter in line.chars().chain([' ']) {
        spaces = if letter == ' ' { spaces + 1 } else { 0 };
        match (quote, letter) {
            (Some(end), _) if letter == end => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ' | '|' | '&' | ';' | '<' | '>') => {
                if let (Some(word), Some(words)) = (word.take(), commands.last_mut()) {
                    words.push(word);
                }
                if letter != ' ' || spaces == 3 {
                    commands.push(Vec::new());
                }
            }
            (None, '#') if word.is_none() => commands.push(Vec::new()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    let ours = |words: Vec<String>| {
        let first = words.iter().position(|word| word == "stockade")?;
        Some(words[first..].to_vec())
    };
    commands.into_iter().filter_map(ours).collect()
}

/// Help texts of a command, and of all below it.
fn helps(command: &clap::Command) -> Vec<String> {
    let own = command.get_after_help().map(ToString::to_string);
    own.into_iter().chain(command.get_subcommands().flat_map(helps)).collect()
}

fn assert_parse(from: &str, lines: Vec<&str>, least: usize) {
    // What is cut short with an ellipsis stands for something longer.
    let whole = |words: &Vec<String>| !words.iter().any(|word| word.ends_with('…'));
    let found: Vec<_> = lines.into_iter().flat_map(commands).filter(whole).collect();
    assert!(found.len() >= least, "{from}: {found:?}");
    for words in found {
        let parsed = Arguments::try_parse_from(&words);
        assert!(
            parsed.is_ok(),
            "{from}: {words:?}: {}",
            parsed.err().map(|error| error.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn what_readme_shows_can_be_typed() {
    let text = include_str!("../../README.md");
    let blocks = text.split("\n```").skip(1).step_by(2);
    assert_parse("README.md", blocks.flat_map(str::lines).collect(), 30);
}

#[test]
fn what_help_shows_can_be_typed() {
    let texts = helps(&Arguments::command());
    let examples = texts.iter().filter_map(|text| text.split("Examples:").nth(1));
    // What follows the examples is prose.
    assert_parse("help", examples.flat_map(str::lines).filter(|line| line.starts_with("  ")).collect(), 60);
}

#[test]
fn commands_are_found_in_lines_as_a_shell_finds_them() {
    for (line, expected) in [
        ("stockade ps   # all", &[&["stockade", "ps"][..]][..]),
        (
            "echo 'a | b' | stockade exec w -- sh -c 'x; y' && stockade ps",
            &[&["stockade", "exec", "w", "--", "sh", "-c", "x; y"], &["stockade", "ps"]],
        ),
        ("stockade ps    and there: stockade top", &[&["stockade", "ps"], &["stockade", "top"]]),
        ("api http://stockade/v1/x", &[]),
    ] {
        assert_eq!(commands(line), expected, "{line}");
    }
}
