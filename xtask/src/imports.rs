//! Which modules of our own crate a line of code names.

/// The names directly behind `crate::` in a line, groups that go on in later lines included.
pub(crate) fn imports(code: &[String], index: usize, line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (position, _) in line.match_indices("crate::") {
        if line[..position].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            continue;
        }
        let rest = &line[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(group) => {
                names.extend(group_names(&(group.to_owned() + "\n" + &code[index + 1..].join("\n"))))
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The first words of a group's members: `a::{b, c}, d}` → a, d.
fn group_names(text: &str) -> Vec<String> {
    let (mut names, mut depth, mut expecting) = (Vec::new(), 0, true);
    for (position, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            _ if expecting && !character.is_whitespace() => {
                names.push(word(&text[position..]));
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
