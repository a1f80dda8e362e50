//! The name that this program is started under says which role it is; without one it is the command line.

use std::process::ExitCode;

use stockade::{cli, roles, startup};

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    roles::run(&name)
        .unwrap_or_else(|| cli::main(cli::Hooks { serve: startup::serve, private: startup::private }))
}
