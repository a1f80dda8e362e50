//! Saved files that lie on each other, as one: a copy that means over the image what all of them mean.
//!
//! ```text
//! for each name of a directory, the topmost first, as overlayfs itself looks it up:
//!   file       it is copied, and hides what is below
//!   whiteout   kept where the image may have something of that name
//!   directory  goes on with what lies below it, of the same or of its former name, until one is opaque
//!              in the copy: opaque when nothing of the image shows through, and a redirect where it is called otherwise there
//! ```
//! overlayfs cannot be had to do it: what it shows of such a stack has neither whiteouts nor the names that directories of
//! the image once had.
//!
//! - Where a directory continues is found as `ovl_lookup` of Linux does: a relative redirect is a name beside it, an
//!   absolute one is walked from the roots of the layers below, and each directory on that way may lead it elsewhere.
//! - Whoever wrote the trees is untrusted, and nothing in them changes any more. Directories are known by their layer and path,
//!   and opened when it is their turn: neither depth nor breadth costs descriptors or stack.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};

use super::copy::{self, Between, Marks, Shared};
use crate::sys::{Errno, path};

/// Marks a directory below which nothing shows.
const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Says what a directory is called in the layers below.
const REDIRECT: &CStr = c"trusted.overlay.redirect";

/// Bytes of a redirect.
const REDIRECT_BYTES_MAX: usize = 4096;

/// Bytes of a path that are opened at once, below what open(2) takes.
const STEP_BYTES: usize = 2048;

/// A path below the root of a layer; empty for the root itself.
type Path = Vec<CString>;

/// One directory of the copy, to be filled.
struct Directory {
    /// Where it is in the copy.
    target: Path,
    /// Directories that are shown as this one, by layer, the topmost first.
    sources: Vec<(usize, Path)>,
    /// Where it goes on in the image; none when nothing of that shows.
    image: Option<Path>,
}

/// What a name is in a layer's directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Whiteout,
    File(FileType),
}

/// What layers say of a directory that was found.
enum Way {
    /// The same name in the next one.
    On,
    /// Nowhere: it is opaque.
    Stop,
    /// Another name beside it.
    Beside(CString),
    /// This path.
    To(Path),
}

/// Copies what layers show when they lie on each other, top first, to `to`, which is empty. `links` is as for
/// [`copy::tree`].
///
/// # Errors
/// The first thing that failed; what was copied until then stays.
pub(super) fn trees(layers: &[OwnedFd], to: &OwnedFd, links: OwnedFd) -> Result<(), Errno> {
    let shared = Shared::new(links, Marks::Leave);
    let sources = (0..layers.len()).map(|layer| (layer, Path::new())).collect();
    let mut waiting = vec![Directory { target: Path::new(), sources, image: Some(Path::new()) }];
    let mut buffer = copy::buffer();
    while let Some(directory) = waiting.pop() {
        let opened: Vec<_> = directory
            .sources
            .iter()
            .map(|(layer, path)| open(&layers[*layer], path))
            .collect::<Result<_, _>>()?;
        let target = open(to, &directory.target)?;
        let merge = Merge { layers, directory: &directory, listed: list_all(&opened)? };
        for name in merge.names() {
            match merge.find(&name)? {
                Found::Nothing => {}
                Found::File(source, kind) => {
                    let between = Between { from: &opened[source], to: &target, shared: &shared };
                    copy::file(between, &name, kind, &mut buffer)?;
                }
                Found::Directory(found) => {
                    rustix::fs::mkdirat(&target, &name, Mode::RWXU)?;
                    let mark = merge.mark(&name, &found);
                    put_mark(&open_directory(&target, &name)?, &mark)?;
                    waiting.push(found);
                }
            }
        }
        // When everything in it is there: only what is deeper comes after this.
        if let Some(topmost) = opened.first() {
            copy::describe(topmost, &target, Marks::Leave, &mut buffer)?;
        }
    }
    Ok(())
}

enum Found {
    /// Nothing that would show, neither here nor in the image.
    Nothing,
    /// A file, or a whiteout, of this source.
    File(usize, FileType),
    Directory(Directory),
}

/// What a directory of the copy needs for it to go on in the image where it should.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    None,
    Opaque,
    Redirect(Vec<u8>),
}

/// A directory that is being filled.
struct Merge<'a> {
    layers: &'a [OwnedFd],
    directory: &'a Directory,
    /// What is in each of its sources.
    listed: Vec<BTreeMap<CString, Kind>>,
}

impl Merge<'_> {
    fn names(&self) -> BTreeSet<CString> {
        self.listed.iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// What is shown under a name.
    fn find(&self, name: &CString) -> Result<Found, Errno> {
        let mut called = name.clone();
        let mut sources: Vec<(usize, Path)> = Vec::new();
        let found = |sources, image| Found::Directory(self.child(name, sources, image));
        for (index, (layer, path)) in self.directory.sources.iter().enumerate() {
            let Some(kind) = self.listed[index].get(&called) else { continue };
            match kind {
                // Hides what is below; what is above a directory is one, or there would be nothing to look for.
                Kind::Whiteout | Kind::File(_) if !sources.is_empty() => return Ok(found(sources, None)),
                Kind::Whiteout if self.directory.image.is_none() => return Ok(Found::Nothing),
                Kind::Whiteout => return Ok(Found::File(index, FileType::CharacterDevice)),
                Kind::File(kind) => return Ok(Found::File(index, *kind)),
                Kind::Directory => {}
            }
            let here = below(path, &called);
            let way = way(&open(&self.layers[*layer], &here)?)?;
            sources.push((*layer, here));
            match way {
                Way::On => {}
                Way::Stop => return Ok(found(sources, None)),
                Way::Beside(name) => called = name,
                Way::To(path) => {
                    let image = walk(self.layers, layer + 1, path, &mut sources)?;
                    return Ok(found(sources, image));
                }
            }
        }
        let image = self.directory.image.as_ref().map(|image| below(image, &called));
        Ok(found(sources, image))
    }

    fn child(&self, name: &CString, sources: Vec<(usize, Path)>, image: Option<Path>) -> Directory {
        Directory { target: below(&self.directory.target, name), sources, image }
    }

    fn mark(&self, name: &CString, child: &Directory) -> Mark {
        match (&self.directory.image, &child.image) {
            // Nobody looks into the image for it.
            (None, None) => Mark::None,
            (Some(_), None) => Mark::Opaque,
            (Some(around), Some(image)) if *image == below(around, name) => Mark::None,
            (Some(around), Some(image)) if image.split_last().is_some_and(|(_, above)| above == around) => {
                Mark::Redirect(image.last().map(|name| name.to_bytes().to_vec()).unwrap_or_default())
            }
            (_, Some(image)) => Mark::Redirect(absolute(image)),
        }
    }
}

/// Follows an absolute redirect through the layers from this one on. Gives where it ends in the image, if it gets there.
fn walk(
    layers: &[OwnedFd],
    from: usize,
    mut to: Path,
    sources: &mut Vec<(usize, Path)>,
) -> Result<Option<Path>, Errno> {
    for (layer, root) in layers.iter().enumerate().skip(from) {
        let (mut here, mut called) = (Path::new(), to.clone());
        let mut is_last = false;
        let mut is_there = true;
        // Each name is looked up as this layer has it, and may be another in the layers below.
        for (index, name) in to.iter().enumerate() {
            // What is left of the former path is at the end of the present one.
            let place = called.len() - (to.len() - index);
            match kind(&open(root, &here)?, name)? {
                None => is_there = false,
                Some(Kind::Whiteout | Kind::File(_)) => return Ok(None),
                Some(Kind::Directory) => {
                    here.push(name.clone());
                    match way(&open(root, &here)?)? {
                        Way::On => {}
                        Way::Stop => is_last = true,
                        Way::Beside(other) => called[place] = other,
                        Way::To(path) => {
                            // It leads on whatever was opaque before it.
                            is_last = false;
                            called.splice(..=place, path);
                        }
                    }
                }
            }
            if !is_there {
                break;
            }
        }
        if is_there {
            sources.push((layer, here));
        }
        if is_last {
            return Ok(None);
        }
        to = called;
    }
    Ok(Some(to))
}

fn below(path: &[CString], name: &CStr) -> Path {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

fn absolute(path: &[CString]) -> Vec<u8> {
    path.iter().flat_map(|name| [b"/", name.to_bytes()].concat()).collect()
}

/// Where layers below are to be asked for what a directory goes on with.
fn way(directory: &OwnedFd) -> Result<Way, Errno> {
    if attribute(directory, OPAQUE)?.is_some_and(|value| value == b"y") {
        return Ok(Way::Stop);
    }
    let Some(redirect) = attribute(directory, REDIRECT)? else { return Ok(Way::On) };
    let names = redirect.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let mut names: Path = names.map(CString::new).collect::<Result<_, _>>().map_err(|_| Errno::INVAL)?;
    match (redirect.first(), names.len()) {
        (Some(b'/'), 1..) => Ok(Way::To(names)),
        (_, 1) => names.pop().map(Way::Beside).ok_or(Errno::INVAL),
        // overlayfs writes no other, and takes none.
        _ => Err(Errno::INVAL),
    }
}

fn attribute(directory: &OwnedFd, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; REDIRECT_BYTES_MAX];
    match rustix::fs::fgetxattr(directory, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn put_mark(directory: &OwnedFd, mark: &Mark) -> Result<(), Errno> {
    match mark {
        Mark::None => Ok(()),
        Mark::Opaque => rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty()),
        Mark::Redirect(to) => rustix::fs::fsetxattr(directory, REDIRECT, to, XattrFlags::empty()),
    }
}

/// Opens a directory, however long its path is.
fn open(root: &OwnedFd, path: &[CString]) -> Result<OwnedFd, Errno> {
    let mut here = open_directory(root, c".")?;
    let mut step: Vec<u8> = Vec::new();
    for name in path {
        if step.len() > STEP_BYTES {
            here = path::open_beneath(&here, &*step, OFlags::RDONLY | OFlags::DIRECTORY)?;
            step.clear();
        }
        if !step.is_empty() {
            step.push(b'/');
        }
        step.extend_from_slice(name.to_bytes());
    }
    if step.is_empty() {
        return Ok(here);
    }
    path::open_beneath(&here, &*step, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn open_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn list_all(directories: &[OwnedFd]) -> Result<Vec<BTreeMap<CString, Kind>>, Errno> {
    directories.iter().map(list).collect()
}

fn list(directory: &OwnedFd) -> Result<BTreeMap<CString, Kind>, Errno> {
    let mut listed = BTreeMap::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Directory => Some(Kind::Directory),
            // A device may be a whiteout, and a file system may not say what it is.
            FileType::CharacterDevice | FileType::Unknown => kind(directory, name)?,
            other => Some(Kind::File(other)),
        };
        listed.extend(kind.map(|kind| (name.to_owned(), kind)));
    }
    Ok(listed)
}

/// What a name is; none when there is none.
fn kind(directory: &OwnedFd, name: &CStr) -> Result<Option<Kind>, Errno> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat?,
    };
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
        other => Kind::File(other),
    }))
}
