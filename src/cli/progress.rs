//! Progress of pull and import, on stderr: bars on a terminal, a line per finished step elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::show;

/// Data of the event `progress`, as far as people want to know.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    phase: String,
    layer: Option<String>,
    done_bytes: u64,
    total_bytes: u64,
}

/// What has been reported.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bars, if stderr is a terminal.
    bars: Option<MultiProgress>,
    /// By phase and layer.
    steps: HashMap<String, Step>,
}

#[derive(Debug)]
struct Step {
    bar: Option<ProgressBar>,
    done: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, steps: HashMap::new() }
    }

    /// Shows what the daemon says.
    pub(super) fn report(&mut self, progress: &Report) {
        let name = name(progress);
        let bars = &self.bars;
        let step = self
            .steps
            .entry(name.clone())
            .or_insert_with(|| Step { bar: bars.as_ref().map(|bars| bars.add(bar(&name))), done: false });
        let done = progress.total_bytes > 0 && progress.done_bytes >= progress.total_bytes;
        if let Some(bar) = &step.bar {
            if progress.total_bytes > 0 && bar.length().is_none() {
                bar.set_style(style(BAR));
            }
            if progress.total_bytes > 0 {
                bar.set_length(progress.total_bytes);
            }
            bar.set_position(progress.done_bytes);
            if done {
                bar.finish();
            }
        } else if done && !step.done {
            show::say(&format!("{name}  {}", show::size(progress.total_bytes)));
        }
        step.done |= done;
    }

    /// Leaves the terminal as it is for what comes next.
    pub(super) fn end(&mut self) {
        for step in self.steps.values() {
            if let Some(bar) = &step.bar {
                bar.abandon();
            }
        }
    }
}

fn name(progress: &Report) -> String {
    let layer = progress.layer.as_deref().unwrap_or_default();
    let name = format!("{:<9} {}", progress.phase, show::short(layer));
    show::safe(name.trim_end()).into_owned()
}

/// A step whose size is known, and one whose size is not.
const BAR: &str = "{prefix:<23} {bar:24} {binary_bytes:>10} / {binary_total_bytes:<10}";
const COUNT: &str = "{prefix:<23} {spinner:<24} {binary_bytes:>10}";

fn bar(name: &str) -> ProgressBar {
    ProgressBar::no_length().with_style(style(COUNT)).with_prefix(name.to_owned())
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours and valid; the plain bar is what would be left of a typing error.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}
