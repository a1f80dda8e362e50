//! Debian's package files: an `ar` archive that holds `data.tar`, compressed with xz, gzip or zstd.

use std::fs::{self, File, Permissions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::EntryType;

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_HEADER: usize = 60;

/// Directories that merged-/usr (Debian 12) turns into links below `usr`.
pub(crate) const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Unpacks a package's files below `root`; `keep` decides by the path inside the image (`usr/bin/env`).
///
/// Only for packages whose sha256 sum was checked: paths are not defended against links in the tree.
///
/// # Errors
/// When the file is not a Debian package or a file cannot be written.
pub(crate) fn unpack(package: &Path, root: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut data = open_data(package)?;
    let mut archive = tar::Archive::new(&mut data);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = merged(&entry.path()?);
        let is_directory = entry.header().entry_type() == EntryType::Directory;
        if path.as_os_str().is_empty() || (!is_directory && !keep(&path)) {
            continue;
        }
        write_entry(&mut entry, root, &path)
            .with_context(|| format!("unpack {} of {}", path.display(), package.display()))?;
    }
    Ok(())
}

/// Reads one file out of a package.
///
/// # Errors
/// When the package has no such file.
pub(crate) fn read_file(package: &Path, wanted: &str) -> Result<String> {
    let mut data = open_data(package)?;
    let mut archive = tar::Archive::new(&mut data);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if merged(&entry.path()?) == Path::new(wanted) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    bail!("{} holds no {wanted}", package.display())
}

fn write_entry(entry: &mut tar::Entry<'_, impl Read>, root: &Path, path: &Path) -> Result<()> {
    let target = root.join(path);
    let header = entry.header().clone();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match header.entry_type() {
        EntryType::Directory => fs::create_dir_all(&target)?,
        EntryType::Regular | EntryType::Continuous => {
            if target.symlink_metadata().is_ok() {
                fs::remove_file(&target)?;
            }
            let mut file = File::create_new(&target)?;
            std::io::copy(entry, &mut file)?;
            let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(header.mtime()?);
            file.set_modified(modified)?;
        }
        EntryType::Symlink => {
            let link = entry.link_name()?.context("link without target")?;
            if target.symlink_metadata().is_ok() {
                fs::remove_file(&target)?;
            }
            symlink(link, &target)?;
        }
        EntryType::Link => {
            let link = entry.link_name()?.context("link without target")?;
            fs::hard_link(root.join(merged(&link)), &target)?;
            return Ok(());
        }
        other => bail!("entry type {other:?} does not belong in a package"),
    }
    let owner = (u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?);
    std::os::unix::fs::lchown(&target, Some(owner.0), Some(owner.1))?;
    if header.entry_type() != EntryType::Symlink {
        // After the change of owner, which clears set-user-id bits.
        fs::set_permissions(&target, Permissions::from_mode(header.mode()? & 0o7777))?;
    }
    Ok(())
}

/// The path inside the image: without `./`, and below `usr` where /usr is merged.
fn merged(path: &Path) -> PathBuf {
    let mut parts = path.components().filter(|part| matches!(part, Component::Normal(_))).peekable();
    let first = parts.peek().map(|part| part.as_os_str().to_owned());
    let plain: PathBuf = parts.collect();
    match first {
        Some(first) if MERGED.iter().any(|name| first == *name) => Path::new("usr").join(plain),
        _ => plain,
    }
}

/// Finds the `data.tar.*` member and puts the right decompressor on it.
fn open_data(package: &Path) -> Result<Box<dyn Read>> {
    let shown = package.display();
    let mut file = BufReader::new(File::open(package).with_context(|| format!("open {shown}"))?);
    let mut magic = [0; AR_MAGIC.len()];
    file.read_exact(&mut magic)?;
    ensure!(magic == *AR_MAGIC, "{shown} is not a Debian package");
    loop {
        let mut header = [0; AR_HEADER];
        file.read_exact(&mut header).with_context(|| format!("{shown} holds no data.tar"))?;
        let name = String::from_utf8_lossy(&header[..16]).trim_end().trim_end_matches('/').to_owned();
        let size: u64 = String::from_utf8_lossy(&header[48..58]).trim().parse().context("ar member size")?;
        if name.starts_with("data.tar") {
            let member = file.take(size);
            return Ok(match name.as_str() {
                "data.tar" => Box::new(member),
                "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new(member)),
                "data.tar.gz" => Box::new(flate2::read::GzDecoder::new(member)),
                "data.tar.zst" => Box::new(zstd::stream::read::Decoder::new(member)?),
                _ => bail!("{shown}: {name} is compressed in an unknown way"),
            });
        }
        // Members start at even offsets.
        let skip = size + size % 2;
        ensure!(
            std::io::copy(&mut (&mut file).take(skip), &mut std::io::sink())? == skip,
            "{shown} is cut off"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package_with(tar_bytes: &[u8]) -> Vec<u8> {
        let mut file = AR_MAGIC.to_vec();
        for (name, body) in [("debian-binary", b"2.0\n1".as_slice()), ("data.tar", tar_bytes)] {
            file.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).bytes(),
            );
            file.extend(body);
            if body.len() % 2 == 1 {
                file.push(b'\n');
            }
        }
        file
    }

    #[test]
    fn files_land_below_usr_and_unwanted_ones_are_left_out() {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, body) in [("./bin/tool", "x"), ("./usr/share/man/tool.1", "m")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(u64::try_from(body.len()).expect("size"));
            header.set_mode(0o755);
            header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
            header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
            header.set_mtime(1_000);
            builder.append_data(&mut header, path, body.as_bytes()).expect("append");
        }
        let directory = tempfile::tempdir().expect("directory");
        let package = directory.path().join("tool.deb");
        fs::write(&package, package_with(&builder.into_inner().expect("tar"))).expect("package");
        let root = directory.path().join("root");
        unpack(&package, &root, &|path| !path.starts_with("usr/share/man")).expect("unpack");
        assert_eq!(fs::read_to_string(root.join("usr/bin/tool")).expect("tool"), "x");
        assert!(!root.join("usr/share/man/tool.1").exists());
        assert_eq!(read_file(&package, "usr/share/man/tool.1").expect("read"), "m");
    }
}
