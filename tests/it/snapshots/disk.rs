//! A file system in a file, for the state of a daemon.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::scratch;

pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// One that is mounted until dropped.
#[derive(Debug)]
pub struct Disk {
    directory: tempfile::TempDir,
    place: PathBuf,
}

impl Disk {
    /// Makes it by a command to which the file's name is added; nothing where that cannot be.
    pub fn mount(make: &[&str], bytes: u64, place: &Path) -> Option<Self> {
        let directory = scratch();
        let image = directory.path().join("disk");
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let (image, at) = (image.to_str().unwrap(), place.to_str().unwrap());
        let (program, arguments) = make.split_first().unwrap();
        let made = succeeds(program, &[arguments, &[image]].concat());
        (made && succeeds("mount", &["-o", "loop", image, at]))
            .then(|| Self { directory, place: place.to_owned() })
    }

    /// Room elsewhere.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        succeeds("umount", &["--lazy", self.place.to_str().unwrap()]);
    }
}
