//! Licence expressions (SPDX specification, annex D) and which of them we accept.

use anyhow::{Context, Result, ensure};

/// Permissive licences: nothing but notices is owed to anybody.
const PERMISSIVE: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression can be met by permissive licences alone. `/` is the old way to write OR.
pub(crate) fn permissive(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    parser.any().is_ok_and(|met| met && parser.words.is_empty())
}

/// Recursive descent: any = all { OR all }, all = one { AND one }, one = ( any ) | id [ WITH id ].
struct Parser<'a> {
    words: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.next();
        }
        found
    }

    fn any(&mut self) -> Result<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Ok(met)
    }

    fn all(&mut self) -> Result<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool> {
        if self.take("(") {
            let met = self.any()?;
            ensure!(self.take(")"), "no closing parenthesis");
            return Ok(met);
        }
        let mut id = self.next().context("no licence")?.to_owned();
        if self.take("WITH") {
            id = format!("{id} WITH {}", self.next().context("no exception")?);
        }
        Ok(PERMISSIVE.contains(&id.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::permissive;

    #[test]
    fn expressions_are_met_by_permissive_licences_alone() {
        for good in ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "LGPL-2.1-or-later OR ISC"]
        {
            assert!(permissive(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT OR", "(MIT", "MIT ISC", "MPL-2.0"] {
            assert!(!permissive(bad), "{bad}");
        }
    }
}
