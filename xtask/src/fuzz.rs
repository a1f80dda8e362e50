//! `cargo xtask fuzz [ROUNDS]`: the tests that try random input, for longer than CI does.
//!
//! All of them run on stable Rust, as tests: properties (proptest) of what parses strangers' bytes, and archives of layers
//! against Python's tarfile. Each round is as much as one run of the tests; an hour is some hundreds.

use anyhow::{Context as _, Result};

use crate::process::{cargo, run};

/// Rounds when none are asked for.
const ROUNDS: u64 = 100;

/// Cases of one property in a round (proptest's own default).
const CASES: u64 = 256;

/// What tries random input, by where it is.
const FILTER: &str = "test(/differential/) | test(/nothing_leads_outside/) | test(/sandbox::agent::/) | test(/context::frame::/) \
                      | test(/gateway::sniff::/) | test(/gateway::rule::/) | test(/proxy::host::/) | test(/process::log::/) \
                      | test(/random/)";

/// Runs them.
///
/// # Errors
/// When one fails; it has said which input.
pub(crate) fn fuzz(arguments: &[String]) -> Result<()> {
    let rounds = match arguments {
        [] => ROUNDS,
        [rounds, ..] => rounds.parse().context("the number of rounds")?,
    };
    run(cargo()
        .args(["nextest", "run", "--workspace", "--no-fail-fast", "--profile", "fuzz", "-E", FILTER])
        .env("PROPTEST_CASES", (rounds * CASES).to_string())
        .env("STOCKADE_FUZZ_ROUNDS", rounds.to_string()))
}
