//! Other limits for a sandbox that runs.
//!
//! All of them or none: what was written before one is refused is written back. A limit of a v1 controller that the
//! sandbox had none of needs a group there, into which its processes are moved: they stand still meanwhile, and what
//! they fork afterwards begins where they are.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::AsFd;

use super::{CgroupError, Cgroups, Setting, V2, open_below, read, settings, subdirectories, write};
use crate::wire::launch::{Limit, Resources};

/// Looks at a sandbox's processes while they are moved. Commands stand still; our own two begin few.
const ROUNDS_MAX: usize = 16;

impl Cgroups {
    /// Changes the limits of a sandbox's groups. Returns those that it has then.
    ///
    /// # Errors
    /// When a limit has no controller, or the kernel refuses a value: then nothing is changed.
    pub fn change(
        &self,
        id: &str,
        (before, after): (&Resources, &Resources),
        device: &str,
    ) -> Result<BTreeMap<String, Limit>, CgroupError> {
        let (old, mut new) = (settings(before, device), settings(after, device));
        let grows = after.memory_bytes.unwrap_or(u64::MAX) > before.memory_bytes.unwrap_or(u64::MAX);
        if grows {
            // v1 refuses a limit on memory above the one on memory and swap together.
            new.sort_by_key(|setting| setting.limit != "swap_bytes");
        }
        let mut done: Vec<&Setting> = Vec::new();
        for setting in &new {
            let Some(was) = old.iter().find(|was| was.limit == setting.limit) else { continue };
            match self.write_one(id, was, setting) {
                Ok(()) => done.push(was),
                Err(error) => {
                    for was in done.iter().rev() {
                        if let Err(error) = self.write_text(id, was) {
                            tracing::error!(id, %error, limit = was.limit, "a limit could not be put back");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(self.enforced(&new))
    }

    fn enforced(&self, settings: &[Setting]) -> BTreeMap<String, Limit> {
        let limited = settings.iter().filter(|setting| setting.value.is_some());
        limited
            .filter_map(|setting| {
                let enforced_by = self.enforcer(setting)?.to_owned();
                Some((setting.limit.to_owned(), Limit { value: setting.value, enforced_by }))
            })
            .collect()
    }

    fn write_one(&self, id: &str, was: &Setting, wanted: &Setting) -> Result<(), CgroupError> {
        let Some(by) = self.enforcer(wanted) else {
            return match wanted.value {
                Some(_) => Err(CgroupError::Unsupported { limit: wanted.limit }),
                None => Ok(()),
            };
        };
        if was.value.is_some() == wanted.value.is_some() && was.written(by) == wanted.written(by) {
            return Ok(());
        }
        if by != V2 {
            self.enter_v1(id, wanted.controller)?;
        }
        self.write_text(id, wanted)?;
        if let Some(value) = wanted.value {
            let group = self.group_of(id, wanted.controller, by)?;
            self.read_back(group.as_fd(), wanted.written(by).0, wanted, value)?;
        }
        Ok(())
    }

    fn write_text(&self, id: &str, setting: &Setting) -> Result<(), CgroupError> {
        let Some(by) = self.enforcer(setting) else { return Ok(()) };
        let (file, text) = setting.written(by);
        write(self.group_of(id, setting.controller, by)?.as_fd(), file, text)
    }

    fn group_of(&self, id: &str, controller: &str, by: &str) -> Result<std::os::fd::OwnedFd, CgroupError> {
        if by == V2 { open_below(self.v2.as_fd(), id) } else { self.make_v1(controller, id) }
    }

    /// Makes a sandbox's group of a v1 controller, and puts its processes there, unless they are.
    fn enter_v1(&self, id: &str, controller: &str) -> Result<(), CgroupError> {
        let group = self.make_v1(controller, id)?;
        if self.outside(id, &group)?.is_empty() {
            return Ok(());
        }
        let was_frozen = self.is_frozen(id);
        self.freeze(id, true)?;
        let moved = self.move_all(id, &group);
        if !was_frozen {
            self.freeze(id, false)?;
        }
        moved
    }

    /// The processes of a sandbox that are not in one of its groups.
    fn outside(&self, id: &str, group: &impl AsFd) -> Result<Vec<u32>, CgroupError> {
        let v2 = open_below(self.v2.as_fd(), id)?;
        let inside: HashSet<u32> = numbers(&read(group.as_fd(), "cgroup.procs")?).collect();
        let leaves = subdirectories(v2.as_fd()).into_iter().map(|leaf| format!("{leaf}/cgroup.procs"));
        let texts = std::iter::once("cgroup.procs".to_owned()).chain(leaves).map(|file| {
            // One that has ended in the meantime has none.
            read(v2.as_fd(), &file).unwrap_or_default()
        });
        let all: Vec<u32> = texts.flat_map(|text| numbers(&text).collect::<Vec<_>>()).collect();
        Ok(all.into_iter().filter(|pid| !inside.contains(pid)).collect())
    }

    fn move_all(&self, id: &str, to: &impl AsFd) -> Result<(), CgroupError> {
        for _ in 0..ROUNDS_MAX {
            let outside = self.outside(id, to)?;
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match write(to.as_fd(), "cgroup.procs", &pid.to_string()) {
                    // It has ended.
                    Err(CgroupError::Files { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                    written => written?,
                }
            }
        }
        Err(CgroupError::Files {
            operation: "move",
            path: id.to_owned(),
            source: io::Error::other("it makes processes faster than they can be moved"),
        })
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.parse().ok())
}
