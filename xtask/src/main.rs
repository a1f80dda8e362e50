//! Chores as a program: `cargo xtask VERB`.
//!
//! One file per verb. Only `check` is composed of others (`layers`, `tidy`, `mentions`, `reasons`,
//! `licences` with `spdx`, `docs`); `source` reads Rust text for them.

mod bench;
mod check;
mod clients;
mod dist;
mod docs;
mod fuzz;
mod images;
mod imports;
mod layers;
mod licences;
mod mentions;
mod process;
mod reasons;
mod source;
mod spdx;
mod test;
#[cfg(test)]
mod tests;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "usage: cargo xtask VERB
  bench [PART...]  create, commands, idle, unpack, beside their floor and rivals; writes BENCHMARKS.md
  check [STEP...]  formatting, layers, tidiness, licences, advisories, lints, documentation; all, or those named
  dist             static release binary and its SHA-256 in target/dist
  fuzz [ROUNDS]    the tests that try random input, for longer than CI does
  test [FILTER]    all tests, with the Debian packages that they need
  vm [FILTER]      limits and attacks under a kernel with pure cgroup v2, in a virtual machine: --kernel 6.1, --append KERNELARGUMENTS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    std::env::set_current_dir(root()).context("enter the repository")?;
    let Some((verb, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    match verb.as_str() {
        "bench" => bench::bench(rest),
        "check" => check::run(rest),
        "dist" => dist::run(),
        "fuzz" => fuzz::fuzz(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        "test" => test::test(rest),
        "vm" => vm::vm(rest),
        _ => bail!("no verb {verb}\n{USAGE}"),
    }
}

/// The repository: the parent of this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo, the one that runs us.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Runs a command to its end, with its output on ours.
fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Runs a command to its end and returns what it prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).with_context(|| format!("output of {command:?}"))
}
