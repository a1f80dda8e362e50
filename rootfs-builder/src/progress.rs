//! What is going on: bars on a terminal, plain lines elsewhere. All of it on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One step of the work.
#[derive(Debug)]
pub(crate) struct Bar {
    name: String,
    started: Instant,
    /// Absent when stderr is not a terminal: then the step is one line at its end.
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A step of `total` parts, shown as a bar.
    pub(crate) fn counted(name: &str, total: usize) -> Self {
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {wide_msg}");
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
        Self::start(name, bar, style.ok())
    }

    /// A step of unknown length, shown as a spinner.
    pub(crate) fn spinner(name: &str) -> Self {
        let style = ProgressStyle::with_template("{prefix:>12} {spinner} {elapsed} {wide_msg}");
        let step = Self::start(name, ProgressBar::new_spinner(), style.ok());
        if let Some(bar) = &step.bar {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        step
    }

    fn start(name: &str, bar: ProgressBar, style: Option<ProgressStyle>) -> Self {
        let bar = std::io::stderr().is_terminal().then_some(bar);
        if let (Some(bar), Some(style)) = (&bar, style) {
            bar.set_style(style);
            bar.set_prefix(name.to_owned());
        }
        Self { name: name.to_owned(), started: Instant::now(), bar }
    }

    pub(crate) fn message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    pub(crate) fn advance(&self, parts: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(parts);
        }
    }

    /// Ends the step with one line that stays.
    pub(crate) fn finish(self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:>12} {result} ({:.1} s)", self.name, self.started.elapsed().as_secs_f64());
    }
}
