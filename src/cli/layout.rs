//! An OCI layout directory as a tar stream: the daemon takes archives, and opens no path of ours.
//!
//! Only what the layout specification names is sent (image-layout.md): `oci-layout`, `index.json` and
//! `blobs/<algorithm>/<digest>`, in this order, so that the reader knows the index before the blobs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::failure::Failure;
use crate::image::documents::{END_BYTES, header, padding};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks on their way to the socket.
const CHUNKS_MAX: usize = 4;

/// The archive of a layout. Reading goes on in a thread of its own.
pub(super) fn archive(
    directory: &Path,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, Failure> {
    let files = files(directory)?;
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send(&files, &sender) {
            // A receiver that is gone has its own reason to tell.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Paths of a layout's files, and their names in the archive.
fn files(directory: &Path) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut files = Vec::new();
    for name in ["oci-layout", "index.json"] {
        let path = directory.join(name);
        if !path.is_file() {
            return Err(Failure::Usage(format!(
                "{} is not an OCI layout: it has no {name}",
                directory.display()
            )));
        }
        files.push((path, name.to_owned()));
    }
    let blobs = directory.join("blobs");
    for algorithm in names(&blobs)? {
        let below = blobs.join(&algorithm);
        for digest in names(&below)? {
            let path = below.join(&digest);
            if path.is_file() {
                files.push((path, format!("blobs/{algorithm}/{digest}")));
            }
        }
    }
    Ok(files)
}

fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let failed = |source| Failure::Local { what: format!("cannot read {}", directory.display()), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn send(files: &[(PathBuf, String)], to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    for (path, name) in files {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if !put(to, header(name, length)?) {
            return Ok(());
        }
        let mut left = length;
        let mut limited = file.take(length);
        while left > 0 {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = limited.read(&mut chunk)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter")));
            }
            chunk.truncate(count);
            left -= count as u64;
            if !put(to, chunk) {
                return Ok(());
            }
        }
        if !put(to, padding(length)) {
            return Ok(());
        }
    }
    put(to, vec![0; END_BYTES]);
    Ok(())
}

/// Whether there is still somebody who takes it.
fn put(to: &mpsc::Sender<io::Result<Bytes>>, bytes: Vec<u8>) -> bool {
    bytes.is_empty() || to.blocking_send(Ok(bytes.into())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn the_archive_of_a_layout_is_one_that_tar_reads() {
        let directory = tempfile::tempdir().expect("directory");
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes);
        std::fs::create_dir_all(directory.path().join("blobs/sha256")).expect("directories");
        write("oci-layout", b"{}").expect("write");
        write("index.json", b"[]").expect("write");
        write("not-ours", b"x").expect("write");
        let blob = vec![7; 3 * CHUNK_BYTES + 1];
        write("blobs/sha256/abc", &blob).expect("write");
        let mut stream = std::pin::pin!(archive(directory.path()).expect("archive"));
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.expect("chunk"));
        }
        let out = tempfile::tempdir().expect("directory");
        let mut tar = std::process::Command::new("tar")
            .args(["-x", "-C"])
            .arg(out.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("tar");
        io::Write::write_all(tar.stdin.as_mut().expect("stdin"), &bytes).expect("write");
        assert!(tar.wait().expect("wait").success());
        assert_eq!(std::fs::read(out.path().join("blobs/sha256/abc")).expect("read"), blob);
        assert_eq!(std::fs::read(out.path().join("index.json")).expect("read"), b"[]");
        assert!(!out.path().join("not-ours").exists());
    }

    #[test]
    fn a_directory_that_is_no_layout_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        assert!(matches!(files(directory.path()), Err(Failure::Usage(_))));
    }
}
