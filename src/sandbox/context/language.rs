//! What differs between languages: the program that runs cells, and who has it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A language that contexts can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3; with IPython where the image has it.
    Python,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Python];

    /// Its name, which is also that of the context that is there without being made.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
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
        }
    }

    /// Our images that have it.
    pub(super) fn images(self) -> &'static str {
        match self {
            Self::Python => "`python` or `full`",
        }
    }

    /// What the interpreter is given to run.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Python => concat!(include_str!("python/executor.py"), include_str!("python/results.py")),
        }
    }

    /// How it is started, with the program as descriptor 21.
    pub(super) fn argv(self, role: &str) -> Vec<Vec<u8>> {
        let words = match self {
            Self::Python => [self.interpreter(), "/proc/self/fd/21", role],
        };
        words.map(|word| word.as_bytes().to_vec()).to_vec()
    }

    /// Whether it listens for interrupts on a descriptor instead of for SIGINT.
    pub(super) fn has_bell(self) -> bool {
        match self {
            Self::Python => false,
        }
    }
}
