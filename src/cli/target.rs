//! Files that the command line writes for whoever called it.
//!
//! ```text
//! a file, or no file yet     a draft beside it, which takes its name when it is whole
//! a link                     the same, where it leads
//! a device, a FIFO           written to, as it comes
//! a descriptor of ours       the same: /dev/stdout, /dev/fd/3
//! a directory, a socket      refused
//! ```

use std::ffi::OsString;
use std::fs::{FileType, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWrite;

use super::failure::Failure;

/// Links that lead to each other, as the kernel counts them (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Mode of a file that is new. It may hold all that a sandbox has.
const MODE: u32 = 0o600;

/// Where bytes go.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    /// What becomes of them when all have come; none for what is written as it comes.
    draft: Option<Draft>,
}

/// A file that is not whole; removed unless it was renamed.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    to: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Absent is what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let what = format!("cannot write {}", path.display());
    |source| Failure::Local { what, source }
}

/// Why a file of this kind is not written to, and what to do.
fn refusal(kind: FileType) -> Option<&'static str> {
    if kind.is_dir() {
        Some("is a directory: name a file in it")
    } else if kind.is_socket() {
        Some("is a socket, and no file: write to `-` and pass it on, as with `| socat - UNIX:…`")
    } else {
        None
    }
}

/// A path, and where each link leads to from there on, whether anything is there or not.
fn trail(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut trail = vec![path.to_owned()];
    while let Some(last) = trail.last().filter(|_| trail.len() <= LINKS_MAX) {
        match std::fs::read_link(last) {
            Ok(to) => trail.push(last.parent().unwrap_or(Path::new("")).join(to)),
            // No link, or nothing at all.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(trail);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Whether a path is a descriptor's: its link names what was opened, and is not to be replaced. Of this process alone,
/// and of others.
fn is_descriptor(trail: &[PathBuf]) -> bool {
    trail.iter().any(|path| path.parent().is_some_and(|parent| parent.ends_with("fd") && is_proc(parent)))
}

fn is_proc(directory: &Path) -> bool {
    rustix::fs::statfs(directory).is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

impl Target {
    /// Opens what this path names.
    ///
    /// # Errors
    /// When it is nothing that is written to, or the file system refuses.
    pub(super) async fn open(path: &Path) -> Result<Self, Failure> {
        let there = match tokio::fs::metadata(path).await {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot_write(path)(error)),
        };
        if let Some(why) = there.as_ref().and_then(|there| refusal(there.file_type())) {
            return Err(Failure::Usage(format!("{} {why}", path.display())));
        }
        let trail = trail(path).map_err(cannot_write(path))?;
        match there {
            Some(there) if !there.is_file() || is_descriptor(&trail) => {
                let mut options = OpenOptions::new();
                // What was written before to a file behind a descriptor is not lost.
                let opened = options.write(true).append(there.is_file()).open(path).await;
                Ok(Self { file: opened.map_err(cannot_write(path))?, draft: None })
            }
            there => Self::beside(trail.last().map_or(path, PathBuf::as_path), there).await,
        }
    }

    /// A draft beside a file, with its mode if it is there.
    async fn beside(to: &Path, there: Option<Metadata>) -> Result<Self, Failure> {
        let mut name = OsString::from(to.as_os_str());
        name.push(format!(".part-{}", std::process::id()));
        let draft = PathBuf::from(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(MODE).open(&draft).await;
        let file = file.map_err(cannot_write(&draft))?;
        let target = Self { file, draft: Some(Draft { path: draft, to: to.to_owned() }) };
        if let Some(there) = there {
            target.set_mode(there.permissions().mode() & 0o777)?;
        }
        Ok(target)
    }

    /// Gives what becomes a file this mode.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Failure> {
        let Some(draft) = &self.draft else { return Ok(()) };
        std::fs::set_permissions(&draft.path, Permissions::from_mode(mode)).map_err(cannot_write(&draft.to))
    }

    /// All bytes have come.
    ///
    /// # Errors
    /// When the draft cannot take its name.
    pub(super) fn done(self) -> Result<(), Failure> {
        let Some(draft) = &self.draft else { return Ok(()) };
        std::fs::rename(&draft.path, &draft.to).map_err(cannot_write(&draft.to))
    }
}

impl AsyncWrite for Target {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().file).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().file).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().file).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn write(path: &Path) -> Result<(), Failure> {
        let mut target = Target::open(path).await?;
        target.write_all(b"new").await.expect("written");
        target.flush().await.expect("written");
        target.done()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("directory").flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn a_file_is_replaced_when_all_is_there_and_keeps_its_mode() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "old").expect("written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("mode");
        let mut target = Target::open(&file).await.expect("opened");
        target.write_all(b"half").await.expect("written");
        target.flush().await.expect("written");
        assert_eq!(std::fs::read(&file).expect("read"), b"old");
        drop(target);
        assert_eq!(names(directory.path()), ["file"], "what is not whole is removed");
        write(&file).await.expect("written");
        assert_eq!(std::fs::read(&file).expect("read"), b"new");
        assert_eq!(std::fs::metadata(&file).expect("stat").permissions().mode() & 0o777, 0o640);
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[tokio::test]
    async fn a_link_stays_one_and_what_it_leads_to_is_written() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("below")).expect("directory");
        std::os::unix::fs::symlink("below/file", path("one")).expect("link");
        std::os::unix::fs::symlink("one", path("two")).expect("link");
        for _ in 0..2 {
            write(&path("two")).await.expect("written");
            assert_eq!(std::fs::read(path("below/file")).expect("read"), b"new");
        }
        assert_eq!(names(directory.path()), ["below", "one", "two"]);
        std::os::unix::fs::symlink("circle", path("circle")).expect("link");
        assert!(write(&path("circle")).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_file_is_written_to_or_refused_and_never_replaced() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        write(Path::new("/dev/null")).await.expect("written");
        assert!(std::fs::metadata("/dev/null").expect("stat").file_type().is_char_device());
        std::os::unix::fs::symlink("/dev/null", path("null")).expect("link");
        write(&path("null")).await.expect("written");
        let fifo = path("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("fifo");
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::read(fifo).expect("read")
        });
        write(&fifo).await.expect("written");
        assert_eq!(reader.join().expect("no panic"), b"new");
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).expect("socket");
        for (name, why) in [("socket", "is a socket"), (".", "is a directory")] {
            let refused = write(&path(name)).await.expect_err("refused");
            assert!(refused.to_string().contains(why), "{refused}");
        }
        assert_eq!(names(directory.path()), ["fifo", "null", "socket"]);
    }

    #[tokio::test]
    async fn a_descriptor_is_written_to_as_it_comes() {
        let directory = tempfile::tempdir().expect("directory");
        let file = std::fs::File::create(directory.path().join("file")).expect("file");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        std::io::Write::write_all(&mut &file, b"old").expect("written");
        write(Path::new(&format!("/dev/fd/{number}"))).await.expect("written");
        assert_eq!(std::fs::read(directory.path().join("file")).expect("read"), b"oldnew");
        assert_eq!(
            file.metadata().map(|file| std::os::unix::fs::MetadataExt::nlink(&file)).expect("stat"),
            1
        );
    }
}
