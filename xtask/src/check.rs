//! `cargo xtask check`: everything that can be judged without running the product.
//!
//! All steps run even when one fails, so that one round shows everything there is to mend.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::{cargo, docs, layers, licences, mentions, reasons, succeed, tidy};

/// What a step finds wrong, one line each.
pub(crate) type Problems = Vec<String>;

enum Step {
    /// One of our own checks.
    Ours(fn() -> Result<Problems>),
    /// A program that prints its findings itself.
    Program(fn() -> Result<()>),
}

const STEPS: [(&str, Step); 9] = [
    ("format", Step::Program(format)),
    ("layers", Step::Ours(layers::problems)),
    ("tidy", Step::Ours(tidy::problems)),
    ("mentions", Step::Ours(mentions::problems)),
    ("reasons", Step::Ours(reasons::problems)),
    ("licences", Step::Ours(licences::problems)),
    ("advisories", Step::Program(licences::advisories)),
    ("clippy", Step::Program(clippy)),
    ("docs", Step::Program(docs::run)),
];

/// Runs the named steps, or all of them.
pub(crate) fn run(names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|(step, _)| step != name)) {
        bail!("no step {unknown}; there are: {}", STEPS.map(|(name, _)| name).join(" "));
    }
    let mut failed = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name)) {
        let start = Instant::now();
        let result = match step {
            Step::Ours(find) => find().and_then(|problems| report(&problems)),
            Step::Program(run) => run(),
        };
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("check {name}: ok ({seconds:.1} s)"),
            Err(error) => {
                println!("check {name}: FAILED ({seconds:.1} s)\n{error:#}");
                failed.push(*name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn report(problems: &Problems) -> Result<()> {
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn format() -> Result<()> {
    succeed(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    succeed(&mut cargo(&arguments))
}
