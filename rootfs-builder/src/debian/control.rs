//! The paragraphs of Debian's control files: `Field: value`, continuation lines, blank lines between.

use std::collections::BTreeMap;

/// One paragraph; field names are kept in lower case because their case carries no meaning.
#[derive(Debug, Default, Clone)]
pub(crate) struct Paragraph {
    fields: BTreeMap<String, String>,
}

impl Paragraph {
    /// The value of a field (name in lower case), continuation lines joined by newlines.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

/// Splits a control file into its paragraphs. Comment lines are dropped.
pub(crate) fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut result = Vec::new();
    let mut current = Paragraph::default();
    let mut last_field: Option<String> = None;
    for line in text.lines() {
        if line.trim().is_empty() {
            if !current.fields.is_empty() {
                result.push(std::mem::take(&mut current));
            }
            last_field = None;
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = last_field.as_ref().and_then(|name| current.fields.get_mut(name)) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.to_ascii_lowercase();
            current.fields.insert(name.clone(), value.trim().to_owned());
            last_field = Some(name);
        }
    }
    if !current.fields.is_empty() {
        result.push(current);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_keep_continuations_and_skip_comments() {
        let text = "# head\nPackage: a\nSHA256:\n 00 1 x\n 11 2 y\n\n\nPackage: b\ndepends: c\n";
        let found = paragraphs(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("sha256"), Some("\n00 1 x\n11 2 y"));
        assert_eq!(found[1].get("depends"), Some("c"));
    }
}
