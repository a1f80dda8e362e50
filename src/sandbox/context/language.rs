//! What differs between languages: the program that runs cells, and who has it.

use std::collections::BTreeMap;

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

/// How Python comes to its program, which it has no other name for: see `python/executor.py`.
const PYTHON_BOOT: &str = "import os; exec(compile(os.fdopen(21, 'rb').read(), '<stockade>', 'exec'))";

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
    pub(crate) fn named(name: &str) -> Option<Self> {
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
            Self::Python => concat!(
                include_str!("python/executor.py"),
                include_str!("python/interrupts.py"),
                include_str!("python/output.py"),
                include_str!("python/shells.py"),
                include_str!("python/charts.py"),
                include_str!("python/styles.py"),
                include_str!("python/plotly.py"),
                include_str!("python/altair.py"),
                include_str!("python/tables.py"),
                include_str!("python/results.py")
            ),
            // Names of ours are not the cells'.
            Self::Javascript | Self::Typescript => concat!(
                "'use strict';\n(() => {\n",
                include_str!("node/redeclare.js"),
                include_str!("node/executor.js"),
                include_str!("node/globals.js"),
                include_str!("node/places.js"),
                include_str!("node/bundles.js"),
                include_str!("node/immediates.js"),
                "})();\n"
            ),
            // A session brings its own.
            Self::Bash => "",
        }
    }

    /// Whether it reads its program as its standard input; else as descriptor 21.
    pub(super) fn reads_program(self) -> bool {
        matches!(self, Self::Javascript | Self::Typescript)
    }

    /// How it is started; its heap gets at most so many MiB, if that is said.
    pub(super) fn argv(self, role: &str, heap_mib: Option<u64>) -> Vec<Vec<u8>> {
        let heap = heap_mib.map(|mib| format!("--max-old-space-size={mib}"));
        let words: Vec<&str> = match self {
            Self::Python => vec![self.interpreter(), "-c", PYTHON_BOOT, role],
            // Without the first flag an interrupt in a timer ends the process; the second is for node's own parser.
            Self::Javascript | Self::Typescript => {
                let flags = [
                    self.interpreter(),
                    "--no-force-async-hooks-checks",
                    "--expose-internals",
                    "--no-warnings",
                ];
                flags.into_iter().chain(heap.as_deref()).chain(["-"]).collect()
            }
            Self::Bash => vec![self.interpreter()],
        };
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// MiB that its heap may take in a sandbox with so much memory and these variables. V8's own choice follows the
    /// host's memory: it would not collect what is garbage before the kernel kills it for the sandbox's.
    pub(super) fn heap_mib(self, memory_bytes: Option<u64>, env: &BTreeMap<String, String>) -> Option<u64> {
        let said = |name: &str| env.get("NODE_OPTIONS").is_some_and(|options| options.contains(name));
        let ours = self.has_bell() && !said("max-old-space-size") && !said("max_old_space_size");
        // The rest is for the young generation, for buffers outside of the heap, and for what it starts.
        memory_bytes.filter(|_| ours).map(|bytes| (bytes / (1024 * 1024) * 3 / 4).max(16))
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
