//! A file system that nothing has happened on yet.
//!
//! ext4 does not give a deleted inode's number away for minutes, and looks at each such number in turn: on a disk on
//! which thousands of files were just deleted, making one directory takes a millisecond instead of 0.05. What was
//! measured there would be what ran before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::run;

/// An ext4 file system in a file, mounted; gone when dropped.
pub(super) struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    /// Makes one of so many GiB, sparse, and mounts it on the new directory `place`.
    pub(super) fn mount(place: &Path, gib: u64) -> Result<Self> {
        fs::create_dir_all(place)?;
        // Beside, and not on, another one of these.
        let name = place
            .components()
            .filter_map(|part| part.as_os_str().to_str())
            .skip(1)
            .collect::<Vec<_>>()
            .join("-");
        let image = std::env::temp_dir().join(format!("{name}.ext4"));
        let disk = Self { image, place: place.to_owned() };
        fs::File::create(&disk.image)?.set_len(gib << 30)?;
        // Nothing is left to be initialised by the kernel later, while something is measured.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&disk.image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(place))
            .context("a benchmark needs loop devices, for a file system of its own")?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a daemon's mount namespace may hold it for a moment longer.
        for gone in [
            run(Command::new("umount").arg("--lazy").arg(&self.place)),
            fs::remove_file(&self.image).map_err(Into::into),
            fs::remove_dir(&self.place).map_err(Into::into),
        ] {
            if let Err(error) = gone {
                eprintln!("cannot remove {}: {error:#}", self.place.display());
            }
        }
    }
}

/// A directory of this name on a tmpfs, as /run is on most hosts.
pub(super) fn on_tmpfs(name: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let is_tmpfs =
        |path: &str| mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq([path, "tmpfs"]));
    let root = ["/run", "/dev/shm"].into_iter().find(|path| is_tmpfs(path));
    Ok(Path::new(root.context("neither /run nor /dev/shm is a tmpfs")?).join(name))
}
