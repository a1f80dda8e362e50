//! What differs between languages: the program that runs cells, and who has it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A language that contexts can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3; with IPython where the image has it.
    Python,
    /// JavaScript, by node.
    Javascript,
    /// TypeScript: its types are taken out, not checked, and node runs the rest.
    Typescript,
    /// bash: a session with the events of a run.
    Bash,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Python, Self::Javascript, Self::Typescript, Self::Bash];

    /// Its name, which is also that of the context that is there without being made.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::Typescript => "typescript",
            Self::Bash => "bash",
        }
    }

    /// The language with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }

    /// The program that is looked for in the sandbox.
    pub(super) fn interpreter(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Javascript | Self::Typescript => "node",
            Self::Bash => "bash",
        }
    }

    /// Our images that have it.
    pub(super) fn images(self) -> &'static str {
        match self {
            Self::Python => "`python` or `full`",
            Self::Javascript | Self::Typescript => "`node` or `full`",
            Self::Bash => "all of ours",
        }
    }

    /// What the interpreter is given to run.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Python => concat!(include_str!("python/executor.py"), include_str!("python/results.py")),
            Self::Javascript | Self::Typescript => include_str!("node/executor.js"),
            // A session brings its own.
            Self::Bash => "",
        }
    }

    /// Whether it reads its program as its standard input; else as descriptor 21.
    pub(super) fn reads_program(self) -> bool {
        matches!(self, Self::Javascript | Self::Typescript)
    }

    /// How it is started.
    pub(super) fn argv(self, role: &str) -> Vec<Vec<u8>> {
        let words: &[&str] = match self {
            Self::Python => &[self.interpreter(), "/proc/self/fd/21", role],
            // Without the flag an interrupt in a timer ends the process.
            Self::Javascript | Self::Typescript => {
                &[self.interpreter(), "--no-force-async-hooks-checks", "--no-warnings", "-"]
            }
            Self::Bash => &[self.interpreter()],
        };
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// Whether it listens for interrupts on a descriptor instead of for SIGINT.
    pub(super) fn has_bell(self) -> bool {
        matches!(self, Self::Javascript | Self::Typescript)
    }

    /// Whether a cell is rewritten before it is run: types, and imports, which a cell cannot have.
    pub(super) fn is_rewritten(self, code: &str) -> bool {
        match self {
            Self::Python | Self::Bash => false,
            Self::Javascript => code.contains("import") || code.contains("export"),
            Self::Typescript => true,
        }
    }
}
