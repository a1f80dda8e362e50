//! The attacks, and what they are made of.
//!
//! One table per file; [`all`] is their sum. An attack is a function that tries something and says whether it worked. It
//! runs unchanged inside and outside, and in every profile and as every user, unless its row says that it is somebody's
//! right.

mod calls;
mod credentials;
mod descriptors;
mod devices;
mod files;
mod first;
mod limits;
mod mounts;
mod namespaces;
mod neighbours;
mod network;
mod sockets;
mod sweeps;
mod terminals;

pub(super) use files::pids;
pub(super) use neighbours::keep_house;
pub use network::GREETING;

use serde::{Deserialize, Serialize};

use super::scene::Scene;
use crate::sys::{Errno, attempt};
use crate::wire::launch::Profile;

/// What an attack brought.
pub(super) type Answer = Result<String, Refusal>;

/// Why an attack did not work.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel said so.
    Errno(Errno),
    /// What it looks for is not there, or changed nothing.
    Nothing(String),
    /// It cannot be made here.
    Broken(String),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => Self::Errno(errno),
            None => Self::Nothing(error.to_string()),
        }
    }
}

/// Where an attack must work, to prove that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// In fresh namespaces of all kinds, as a root that owns nothing on the host.
    Scratch,
    /// On the host, as a user without rights.
    Host,
    /// In the sandbox next door, whose secrets are attacked.
    Neighbour,
    /// In fresh namespaces, as the host's root: only where that is allowed.
    RealRoot,
}

impl Control {
    /// Why there is no control of this kind.
    pub(super) fn absence(self) -> &'static str {
        match self {
            Self::Scratch => "the control could not be run",
            Self::Host => "the control on the host could not be run",
            Self::Neighbour => "the control in the neighbour could not be run",
            Self::RealRoot => {
                "its control needs the host's root, which --real-root allows on a host that may be lost"
            }
        }
    }
}

/// What attacks are about, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are what people see, and say it")]
pub enum Group {
    Mounts,
    Namespaces,
    FirstProcess,
    Credentials,
    Descriptors,
    KernelFiles,
    Devices,
    Terminals,
    SystemCalls,
    Sweeps,
    Sockets,
    Network,
    Neighbours,
    Limits,
}

/// One attack.
#[derive(Clone, Copy)]
pub struct Attack {
    /// Unique, for people and filters.
    pub name: &'static str,
    /// What it is about.
    pub group: Group,
    /// Where it must work.
    pub control: Control,
    /// Profiles in which it is no attack, because they offer it.
    pub offered: &'static [Profile],
    /// Whether in-sandbox root may do it.
    pub roots_right: bool,
    pub(super) run: fn(&Scene) -> Answer,
}

impl std::fmt::Debug for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Attack {
    const fn new(group: Group, name: &'static str, run: fn(&Scene) -> Answer) -> Self {
        Self { name, group, control: Control::Scratch, offered: &[], roots_right: false, run }
    }

    const fn control(self, control: Control) -> Self {
        Self { control, ..self }
    }

    const fn offered_by(self, offered: &'static [Profile]) -> Self {
        Self { offered, ..self }
    }

    const fn roots_right(self) -> Self {
        Self { roots_right: true, ..self }
    }

    /// Whether this user of a sandbox of this profile may not do it.
    pub fn applies(&self, profile: Profile, root: bool) -> bool {
        !(self.offered.contains(&profile) || self.roots_right && root)
    }
}

/// All attacks, by group.
pub fn all() -> Vec<Attack> {
    let tables: [&[Attack]; 14] = [
        mounts::ATTACKS,
        namespaces::ATTACKS,
        first::ATTACKS,
        credentials::ATTACKS,
        descriptors::ATTACKS,
        files::ATTACKS,
        devices::ATTACKS,
        terminals::ATTACKS,
        calls::ATTACKS,
        sweeps::ATTACKS,
        sockets::ATTACKS,
        network::ATTACKS,
        neighbours::ATTACKS,
        limits::ATTACKS,
    ];
    tables.concat()
}

/// A system call: its success is the attack's.
fn call(number: i64, words: &[i64]) -> Answer {
    raw(number, words).map(|value| format!("it returned {value}")).map_err(Refusal::Errno)
}

/// A system call with fewer words than six.
fn raw(number: i64, words: &[i64]) -> Result<i64, Errno> {
    let mut six = [0; 6];
    six.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
    attempt::call(number, six)
}

/// A call with arguments that cannot succeed: these errnos say that the kernel came to look at them, so that nothing
/// stands between a caller with better ones and the operation.
fn reached(answer: Answer, errnos: &[Errno]) -> Answer {
    match answer {
        Err(Refusal::Errno(errno)) if errnos.contains(&errno) => {
            Ok(format!("the kernel looked: {}", name(errno)))
        }
        other => other,
    }
}

/// The address of a C string.
fn text(of: &std::ffi::CStr) -> i64 {
    attempt::address(of)
}

fn nothing(what: impl Into<String>) -> Answer {
    Err(Refusal::Nothing(what.into()))
}

/// `EPERM` for 1.
pub(super) fn name(errno: Errno) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_and_their_names_are_unique() {
        let attacks = all();
        assert!(attacks.len() >= 150, "{}", attacks.len());
        let names: std::collections::BTreeSet<_> = attacks.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), attacks.len());
        assert!(attacks.is_sorted_by_key(|attack| attack.group));
    }

    #[test]
    fn errnos_have_names() {
        assert_eq!(name(Errno::PERM), "EPERM");
    }
}
