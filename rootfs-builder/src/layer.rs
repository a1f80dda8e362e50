//! Layers: the changes between two trees as a tar archive, compressed, with both of its digests.
//!
//! Invariants (image-spec, layer.md): entries in path order, the first name of a file before its hard
//! links, removals as `.wh.NAME`, numeric owners and no names, times clamped. PAX records only for what
//! ustar cannot say, so that most entries are one plain header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::tree::{Change, Kind, Node, Tree};
use crate::{digest, gzip, signal};

/// A written layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// sha256 of the compressed bytes, hexadecimal.
    pub(crate) digest: String,
    /// sha256 of the tar archive, hexadecimal.
    pub(crate) diff_id: String,
    /// Compressed size in bytes.
    pub(crate) size: u64,
    /// Size of the tar archive in bytes.
    pub(crate) unpacked: u64,
}

/// Passes bytes on and keeps their sum and count.
struct Summing<W> {
    inner: W,
    sum: Sha256,
    count: u64,
}

impl<W: Write> Summing<W> {
    fn new(inner: W) -> Self {
        Self { inner, sum: Sha256::new(), count: 0 }
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.update(&bytes[..count]);
        self.count += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the changes, with contents from `root`, into `output` as a compressed layer.
///
/// # Errors
/// When a file has changed since the scan, or cannot be read or written.
pub(crate) fn write(
    root: &Path,
    tree: &Tree,
    changes: &[Change],
    epoch: u64,
    output: &Path,
) -> Result<Layer> {
    let file = File::create(output).with_context(|| format!("write {}", output.display()))?;
    let packed = Summing::new(BufWriter::new(file));
    let mut plain = Summing::new(gzip::Encoder::new(packed));
    write_archive(root, tree, changes, epoch, &mut plain)?;
    let Summing { inner, sum, count: unpacked } = plain;
    let diff_id = digest::spell(&sum.finalize());
    let mut packed = inner.finish().context("compress the layer")?;
    packed.flush().with_context(|| format!("write {}", output.display()))?;
    Ok(Layer { digest: digest::spell(&packed.sum.finalize()), diff_id, size: packed.count, unpacked })
}

fn write_archive(
    root: &Path,
    tree: &Tree,
    changes: &[Change],
    epoch: u64,
    output: &mut impl Write,
) -> Result<()> {
    let mut archive = tar::Builder::new(output);
    let mut first_names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for change in changes {
        signal::check()?;
        match change {
            Change::Remove(path) => {
                let node = Node { kind: whiteout_kind(), mode: 0o644, uid: 0, gid: 0, modified: epoch };
                append(&mut archive, &whiteout(path), &node, None, io::empty())?;
            }
            Change::Put(path) => {
                let node =
                    tree.nodes.get(path).with_context(|| format!("{} is not scanned", path.display()))?;
                let inode = tree.inodes.get(path);
                let first = inode.and_then(|inode| first_names.get(inode)).cloned();
                if let Some(inode) = inode {
                    first_names.entry(*inode).or_insert_with(|| path.clone());
                }
                put(&mut archive, root, path, node, first.as_deref())
                    .with_context(|| format!("archive {}", path.display()))?;
            }
        }
    }
    archive.finish().context("end the archive")
}

fn put<W: Write>(
    archive: &mut tar::Builder<W>,
    root: &Path,
    path: &Path,
    node: &Node,
    first: Option<&Path>,
) -> Result<()> {
    match (&node.kind, first) {
        (Kind::File { size, sha256 }, None) => {
            let mut content = Summing::new(io::sink());
            let file = File::open(root.join(path))?.take(*size);
            append(archive, path, node, None, Tee { from: file, to: &mut content })?;
            let unchanged = digest::spell(&content.sum.finalize()) == *sha256;
            anyhow::ensure!(unchanged, "the file changed after it was scanned");
            Ok(())
        }
        _ => append(archive, path, node, first, io::empty()),
    }
}

/// Reads while copying what was read to a sum.
struct Tee<'a, R> {
    from: R,
    to: &'a mut Summing<io::Sink>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        Ok(count)
    }
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    node: &Node,
    hard_link: Option<&Path>,
    content: impl Read,
) -> Result<()> {
    let mut header = Header::new_ustar();
    let mut extensions: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut name = path.as_os_str().as_bytes().to_vec();
    if node.kind == Kind::Directory {
        name.push(b'/');
    }
    if header.set_path(std::ffi::OsStr::from_bytes(&name)).is_err() || !name.is_ascii() {
        header.set_path("pax")?;
        extensions.push(("path", name));
    }
    let (entry_type, link, size) = match (&node.kind, hard_link) {
        (_, Some(first)) => (EntryType::Link, Some(first), 0),
        (Kind::Directory, None) => (EntryType::Directory, None, 0),
        (Kind::Symlink { target }, None) => (EntryType::Symlink, Some(target.as_path()), 0),
        (Kind::File { size, .. }, None) => (EntryType::Regular, None, *size),
    };
    header.set_entry_type(entry_type);
    if let Some(link) = link {
        let bytes = link.as_os_str().as_bytes();
        // Literal: a link's text is data, `set_link_name` would tidy it.
        if bytes.len() > 100 || !bytes.is_ascii() || header.set_link_name_literal(bytes).is_err() {
            extensions.push(("linkpath", bytes.to_vec()));
        }
    }
    header.set_mode(node.mode);
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(node.modified);
    header.set_size(size);
    // Zero for everything else; ustar readers expect the device fields to be numbers.
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    if !extensions.is_empty() {
        append_extensions(archive, &extensions, node.modified)?;
    }
    archive.append(&header, content).context("write the archive")
}

/// PAX records before an entry (POSIX.1-2017 pax, "Extended Header"): `LENGTH KEY=VALUE\n`.
fn append_extensions<W: Write>(
    archive: &mut tar::Builder<W>,
    records: &[(&str, Vec<u8>)],
    modified: u64,
) -> Result<()> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let mut length = rest + rest.to_string().len();
        length = rest + length.to_string().len();
        body.extend(format!("{length} {key}=").bytes());
        body.extend(value);
        body.push(b'\n');
    }
    let mut header = Header::new_ustar();
    header.set_path("pax")?;
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header.set_size(u64::try_from(body.len())?);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    archive.append(&header, body.as_slice()).context("write the archive")
}

fn whiteout_kind() -> Kind {
    Kind::File { size: 0, sha256: String::new() }
}

/// `etc/x` becomes `etc/.wh.x`.
fn whiteout(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".wh.");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{difference, scan};
    use std::fs;

    const EPOCH: u64 = 1_000_000;

    /// Writes the whole tree as a layer and reads back `path type link` of each entry.
    fn entries(root: &Path, old: &Tree) -> (Layer, Vec<String>) {
        let tree = scan(root, EPOCH).expect("scan");
        let output = tempfile::NamedTempFile::new().expect("output");
        let layer = write(root, &tree, &difference(old, &tree), EPOCH, output.path()).expect("layer");
        let packed = fs::read(output.path()).expect("read");
        assert_eq!(layer.digest, digest::hex(&packed));
        assert_eq!(layer.size, u64::try_from(packed.len()).expect("size"));
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).expect("gzip");
        assert_eq!(layer.diff_id, digest::hex(&plain));
        let mut archive = tar::Archive::new(plain.as_slice());
        let lines = archive.entries().expect("entries").map(|entry| {
            let entry = entry.expect("entry");
            let link = entry.link_name().expect("link").map(|link| link.display().to_string());
            let kind = entry.header().entry_type();
            format!("{} {kind:?} {}", entry.path().expect("path").display(), link.unwrap_or_default())
        });
        (layer, lines.collect())
    }

    #[test]
    fn hard_links_follow_their_first_name_and_long_names_survive() {
        let root = tempfile::tempdir().expect("root");
        let long = "n".repeat(180);
        fs::write(root.path().join("b"), "x").expect("write");
        fs::hard_link(root.path().join("b"), root.path().join("a")).expect("link");
        fs::write(root.path().join(&long), "y").expect("write");
        std::os::unix::fs::symlink(&long, root.path().join("s")).expect("symlink");
        let (_, lines) = entries(root.path(), &Tree::default());
        let expected = [
            "a Regular ".to_owned(),
            "b Link a".to_owned(),
            format!("{long} Regular "),
            format!("s Symlink {long}"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn two_trees_with_other_times_and_orders_give_one_digest() {
        let make = |names: [&str; 3]| {
            let root = tempfile::tempdir().expect("root");
            fs::create_dir(root.path().join("d")).expect("directory");
            for name in names {
                fs::write(root.path().join("d").join(name), name).expect("write");
            }
            root
        };
        let (left, right) = (make(["1", "2", "3"]), make(["3", "1", "2"]));
        assert_eq!(entries(left.path(), &Tree::default()), entries(right.path(), &Tree::default()));
    }

    #[test]
    fn removals_become_whiteouts() {
        let root = tempfile::tempdir().expect("root");
        fs::create_dir(root.path().join("d")).expect("directory");
        fs::write(root.path().join("d/gone"), "").expect("write");
        let old = scan(root.path(), EPOCH).expect("scan");
        fs::remove_file(root.path().join("d/gone")).expect("remove");
        let (_, lines) = entries(root.path(), &old);
        assert_eq!(lines, ["d/ Directory ", "d/.wh.gone Regular "]);
    }

    #[test]
    fn a_file_that_changes_after_the_scan_is_an_error() {
        let root = tempfile::tempdir().expect("root");
        fs::write(root.path().join("a"), "before").expect("write");
        let tree = scan(root.path(), EPOCH).expect("scan");
        fs::write(root.path().join("a"), "after!").expect("write");
        let output = tempfile::NamedTempFile::new().expect("output");
        let changes = difference(&Tree::default(), &tree);
        write(root.path(), &tree, &changes, EPOCH, output.path()).expect_err("changed");
    }
}
