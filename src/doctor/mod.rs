//! What this host offers to isolation, what is lost where it does not, and how to mend it.
//!
//! ```text
//! examine ─┬─ kernel    calls that sandboxes are made of          tried
//!          ├─ storage   mounts as sandboxes get them              tried, in a mount namespace that ends with it
//!          ├─ cgroups   which limits can be enforced, and by what looked up
//!          ├─ settings  switches of the host                      read from /proc/sys and /sys
//!          └─ host      ids, capabilities, room                   read
//!                │
//!                ▼
//!          Vec<Finding> ── verdict ──▶ ready · degraded · unable
//! ```
//!
//! Invariants
//! - Nothing is left behind: what is tried is tried on detached mounts, on children that are killed, and in one
//!   directory below the state directory that is removed.
//! - Nothing is loaded or changed: a module that would be loaded on first use by a sandbox may be loaded by the
//!   attempt, nothing else.
//! - A feature is tried where trying is harmless. Version numbers lie: distributions carry patches back and
//!   switch features off.
//!
//! Why not let `serve` find out: it would, one failed sandbox at a time, in the words of an errno.

mod cgroups;
mod host;
mod kernel;
mod settings;
mod storage;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Config;

/// What the examination needs to know of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Images and sandboxes' files. Need not exist: the file system that it would be on is examined.
    pub state_dir: PathBuf,
    /// Sockets and running state.
    pub runtime_dir: PathBuf,
    /// First host id of the daemon's range.
    pub ids_first: u32,
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Self {
        Self {
            state_dir: config.state_dir.clone(),
            runtime_dir: config.runtime_dir.clone(),
            ids_first: config.ids_first,
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// System calls and what they are made of.
    Kernel,
    /// File systems and mounts.
    Storage,
    /// Control groups: which limits hold.
    Limits,
    /// Switches of the host that are a second line behind the sandbox's own.
    Settings,
    /// Ids, capabilities, room.
    Host,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As isolation wants it.
    Ok,
    /// It works with less, or could not be examined; `lost` says what.
    Degraded,
    /// It is not there.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: stable, for programs.
    pub name: String,
    /// About what.
    pub category: Category,
    /// How good it is.
    pub status: Status,
    /// What is there, in words or as the kernel says it.
    pub found: String,
    /// What does not work or does not hold; absent when all is well.
    pub lost: Option<String>,
    /// How to mend it; absent when all is well or nothing helps.
    pub mend: Option<String>,
    /// Whether no sandbox can be made, or none safely, while it is missing.
    pub required: bool,
}

impl Finding {
    fn ok(category: Category, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            category,
            status: Status::Ok,
            found: found.into(),
            lost: None,
            mend: None,
            required: false,
        }
    }

    fn without(mut self, status: Status, lost: &str, mend: &str) -> Self {
        self.status = status;
        self.lost = Some(lost.to_owned());
        self.mend = (!mend.is_empty()).then(|| mend.to_owned());
        self
    }

    fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// What all findings come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything is there.
    Ready,
    /// Sandboxes can be made; something is weaker than it could be.
    Degraded,
    /// Something without which there is no sandbox is missing.
    Unable,
}

/// Looks at everything. Takes some hundred milliseconds; as root it tries more than it does otherwise.
pub fn examine(options: &Options) -> Vec<Finding> {
    let mut findings = kernel::examine();
    findings.extend(storage::examine(&options.state_dir));
    findings.extend(cgroups::examine(Path::new("/proc/self")));
    findings.extend(settings::examine(Path::new("/")));
    findings.extend(host::examine(options));
    findings
}

/// What the findings come to.
pub fn verdict(findings: &[Finding]) -> Verdict {
    let unable = |finding: &Finding| finding.required && finding.status == Status::Missing;
    if findings.iter().any(unable) {
        Verdict::Unable
    } else if findings.iter().any(|finding| finding.status != Status::Ok) {
        Verdict::Degraded
    } else {
        Verdict::Ready
    }
}

/// How to mend what only root can find out.
const NOT_ROOT: &str = "run stockade doctor as root to know";

/// The nearest directory above `path`, or `path` itself, that exists: what is made there is on this file system.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_and_missing_makes_a_host_unable() {
        let fine = Finding::ok(Category::Kernel, "a", "there");
        let weak = fine.clone().without(Status::Missing, "a second line", "");
        let gone = weak.clone().required();
        assert_eq!(verdict(&[]), Verdict::Ready);
        assert_eq!(verdict(&[fine.clone().required()]), Verdict::Ready);
        assert_eq!(verdict(&[fine.clone(), weak]), Verdict::Degraded);
        assert_eq!(verdict(&[fine, gone]), Verdict::Unable);
    }

    #[test]
    fn an_examination_leaves_nothing_behind_and_explains_whatever_is_not_well() {
        let state = tempfile::tempdir().expect("directory");
        let options = Options {
            state_dir: state.path().join("not/yet"),
            runtime_dir: state.path().to_owned(),
            ids_first: 1 << 29,
        };
        let mounts = || std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let before = mounts();
        let findings = examine(&options);
        assert_eq!(mounts(), before);
        assert_eq!(std::fs::read_dir(state.path()).expect("list").count(), 0);
        let mut names: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "names are unique");
        for finding in &findings {
            assert_eq!(finding.status == Status::Ok, finding.lost.is_none(), "{finding:?}");
            assert!(!finding.found.is_empty(), "{finding:?}");
        }
    }
}
