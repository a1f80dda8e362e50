//! Dependency fields: `a (>= 1) | b:any, c` (Debian Policy §7.1).

use std::cmp::Ordering;

use crate::debian::version;

/// A package name, perhaps with a bound on its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) name: String,
    pub(crate) bound: Option<(Operator, String)>,
}

/// The five comparisons of a versioned relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

impl Relation {
    /// Whether a package with this name and version satisfies the relation's bound.
    pub(crate) fn accepts(&self, candidate: &str) -> bool {
        let Some((operator, wanted)) = &self.bound else { return true };
        let order = version::compare(candidate, wanted);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((operator, version)) = &self.bound else { return formatter.write_str(&self.name) };
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        write!(formatter, "{} ({sign} {version})", self.name)
    }
}

/// Parses a whole field: all groups must hold, one alternative of each group is enough.
pub(crate) fn parse_field(field: &str) -> Vec<Vec<Relation>> {
    field
        .split(',')
        .map(|group| group.split('|').filter_map(parse_one).collect::<Vec<_>>())
        .filter(|group| !group.is_empty())
        .collect()
}

/// Architecture qualifiers (`:any`) and restrictions (`[amd64]`) are dropped: one architecture is built.
fn parse_one(text: &str) -> Option<Relation> {
    let text = text.trim();
    let (name, bound) = match text.split_once('(') {
        Some((name, bound)) => (name, Some(bound.split(')').next().unwrap_or_default().trim())),
        None => (text, None),
    };
    let name = name.split([':', '[', ' ']).next().unwrap_or_default().trim();
    if name.is_empty() {
        return None;
    }
    let bound = bound.and_then(|bound| {
        let digits = bound.find(|letter: char| !"<=>".contains(letter))?;
        let (sign, version) = bound.split_at(digits);
        let operator = match sign {
            "<<" => Operator::Earlier,
            "<" | "<=" => Operator::EarlierOrEqual,
            "=" => Operator::Equal,
            ">" | ">=" => Operator::LaterOrEqual,
            ">>" => Operator::Later,
            _ => return None,
        };
        Some((operator, version.trim().to_owned()))
    });
    Some(Relation { name: name.to_owned(), bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_into_groups_and_alternatives() {
        let groups = parse_field("libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0, perl:any");
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[1].len(), 2);
        assert_eq!(groups[2][0], Relation { name: "perl".into(), bound: None });
        assert_eq!(groups[0][0].to_string(), "libc6 (>= 2.34)");
    }

    #[test]
    fn bounds_accept_what_they_say() {
        let exact = &parse_field("a (= 1.0-1)")[0][0];
        assert!(exact.accepts("1.0-1") && !exact.accepts("1.0-2"));
        let earlier = &parse_field("a (<< 2)")[0][0];
        assert!(earlier.accepts("1.9") && !earlier.accepts("2"));
        let later = &parse_field("a (>> 2)")[0][0];
        assert!(later.accepts("2.1") && !later.accepts("2"));
    }
}
