//! What of a tree goes into an archive: all but what globs name, and what the `.gitignore` files in it say.
//!
//! Rules are git's (gitignore(5)), by the `ignore` crate: those of a nearer directory win over those above it, and what is
//! in a directory that is left out cannot be taken in again. Only files of the tree itself count: neither what is above
//! it nor what a user has configured.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::OFlags;

use super::place::stat;
use super::walk::{Pattern, Walk};
use crate::limits::GITIGNORE_BYTES_MAX;
use crate::wire::worker::{Failure, Kind, Selection};

/// A selection that a walk asks.
pub(super) struct Selected {
    exclude: Vec<Exclude>,
    gitignore: bool,
    /// Of the directories that the walk is in, the topmost first.
    rules: Vec<(Vec<u8>, Gitignore)>,
}

impl Selected {
    /// Compiles a selection.
    ///
    /// # Errors
    /// When a glob is none.
    pub(super) fn new(selection: &Selection) -> Result<Self, Failure> {
        let exclude = selection.exclude.iter().map(|glob| Exclude::new(glob)).collect::<Result<_, _>>()?;
        Ok(Self { exclude, gitignore: selection.gitignore, rules: Vec::new() })
    }

    /// The walk enters a directory: "" is its top.
    pub(super) fn enter(&mut self, walk: &Walk, directory: &[u8]) {
        if !self.gitignore {
            return;
        }
        self.rules.retain(|(above, _)| within(above, directory).is_some());
        let path =
            if directory.is_empty() { b".gitignore".to_vec() } else { [directory, b"/.gitignore"].concat() };
        // One that is not there, or is no file, says nothing.
        let Ok(file) = walk.open(&path, OFlags::RDONLY | OFlags::NONBLOCK) else { return };
        if !stat(&file).is_ok_and(|stat| stat.kind == Kind::File) {
            return;
        }
        let mut text = Vec::new();
        let file = std::fs::File::from(file);
        if file.take(GITIGNORE_BYTES_MAX).read_to_end(&mut text).is_err() {
            return;
        }
        let mut builder = GitignoreBuilder::new("");
        for line in String::from_utf8_lossy(&text).lines() {
            // git passes over lines that mean nothing, too.
            let _ = builder.add_line(None, line);
        }
        if let Ok(rules) = builder.build()
            && !rules.is_empty()
        {
            self.rules.push((directory.to_vec(), rules));
        }
    }

    /// Whether all that could be in a directory is left out, so that it need not be read, nor be readable.
    pub(super) fn leaves_out_all_in(&self, directory: &[u8]) -> bool {
        // No name has a zero: what matches it matches any.
        let anything = [directory, b"/\0"].concat();
        self.exclude.iter().any(|glob| glob.matches(&anything, false))
    }

    /// Whether something is left out, with all that is in it.
    pub(super) fn leaves_out(&self, path: &[u8], is_directory: bool) -> bool {
        if self.exclude.iter().any(|glob| glob.matches(path, is_directory)) {
            return true;
        }
        for (directory, rules) in self.rules.iter().rev() {
            let Some(inside) = within(directory, path) else { continue };
            match rules.matched(Path::new(OsStr::from_bytes(inside)), is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

/// A glob of what is left out, which may be written as in a `.gitignore`.
struct Exclude {
    pattern: Pattern,
    /// It ended with a slash.
    directories: bool,
}

impl Exclude {
    fn new(glob: &str) -> Result<Self, Failure> {
        let inner = glob.trim_end_matches('/');
        let directories = inner.len() < glob.len();
        let mut rest = inner;
        while let Some(after) = rest.strip_prefix("./").or_else(|| rest.strip_prefix('/')) {
            rest = after;
        }
        if matches!(rest, "" | ".") {
            return Err(Failure::Pattern);
        }
        // A slash at the beginning is one too, and says that it is no name somewhere below.
        let pattern = if rest.len() < inner.len() { Pattern::of_path(rest) } else { Pattern::new(rest) };
        Ok(Self { pattern: pattern?, directories })
    }

    fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        (is_directory || !self.directories) && self.pattern.matches(path)
    }
}

/// The rest of a path below a directory; nothing when it is not below it.
fn within<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if directory.is_empty() {
        return Some(path);
    }
    path.strip_prefix(directory)?.strip_prefix(b"/")
}
