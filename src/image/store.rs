//! What serve keeps of images, and how it survives being killed at any moment.
//!
//! ```text
//! state_dir/
//! ├── images/<sha256 of the reference>.json   one Image each; written beside, synced, renamed
//! ├── blobs/sha256/<hex>                      manifests and configurations; layers on their way to `layers/`
//! └── layers/<diff-id>/                       launch's: an unpacked layer, or nothing
//! ```
//! An image is entered last, when its layers are in place: so whatever is listed can be run. Everything else is
//! reachable from `images/` or is garbage, and collecting it needs no more than listing three directories.
//!
//! Blobs of layers are removed once they are unpacked: a sandbox needs the files, and keeping both would double
//! what an image takes on disk. The price: a layer that is lost is downloaded again, and an image cannot be pushed
//! from here. Manifest and configuration stay.
//!
//! Why not a database: the index is a few small files that are read once, at start.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::id::Digest;
use crate::image::blobs::Blobs;
use crate::image::reference::Reference;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::sys::Errno;
use crate::wire::fetch::{ImageConfig, Layer, Platform};

/// How long the beginning of a blob waits for somebody to fetch the rest.
const PARTIAL_SECONDS_MAX: u64 = 3600;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {name}: {source}")]
pub struct StoreError {
    operation: &'static str,
    name: String,
    source: std::io::Error,
}

fn io<T>(
    operation: &'static str,
    name: &str,
    result: Result<T, impl Into<std::io::Error>>,
) -> Result<T, StoreError> {
    result.map_err(|source| StoreError { operation, name: name.to_owned(), source: source.into() })
}

/// An image that can be run: all its layers are in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Its name in full, or its digest when it has none.
    pub reference: String,
    /// Digest of the manifest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Digest of the configuration.
    #[schema(value_type = String)]
    pub config_digest: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as it says (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Bytes of its layers' blobs, compressed as they came.
    pub size_bytes: u64,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// How to run it.
    pub config: ImageConfig,
    /// When it came here (RFC 3339).
    pub pulled_at: String,
    /// Uid that gave it its name. Everybody may use it; nobody else but root and operators replace or remove it.
    #[serde(default)]
    pub owner_uid: u32,
}

/// Age at which a partial download is given up.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The index of images and the blobs.
#[derive(Debug)]
pub struct Store {
    images: OwnedFd,
    directory: OwnedFd,
    blobs: Blobs,
    index: Mutex<BTreeMap<String, Image>>,
}

impl Store {
    /// Opens the store below `state_dir`, makes what is missing, and removes what a killed process left half done.
    ///
    /// # Errors
    /// When a directory cannot be made or read.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name = state_dir.display().to_string();
        // Only to look names up in: serve may not list what lies beside its own directories.
        let only_names = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let state = io("open", &name, rustix::fs::open(state_dir, only_names, Mode::empty()))?;
        let enter = |name: &str| {
            match rustix::fs::mkdirat(&state, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return io("mkdir", name, Err(errno)),
            }
            io("open", name, rustix::fs::openat(&state, name, flags | OFlags::NOFOLLOW, Mode::empty()))
        };
        let images = enter("images")?;
        enter("blobs")?;
        let directory = enter("blobs/sha256")?;
        let blobs = Blobs::new(io("duplicate", "blobs", directory.try_clone())?);
        let store = Self { images, directory, blobs, index: Mutex::default() };
        store.load()?;
        store.sweep()?;
        Ok(store)
    }

    /// The blobs.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The directory of blobs, for a fetch process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn blobs_directory(&self) -> Result<OwnedFd, StoreError> {
        io("duplicate", "blobs", self.directory.try_clone())
    }

    /// All images by name.
    pub fn list(&self) -> Vec<Image> {
        self.lock().values().cloned().collect()
    }

    /// The image that is entered under exactly this name.
    pub fn named(&self, reference: &str) -> Option<Image> {
        self.lock().get(reference).cloned()
    }

    /// The image of this name or digest.
    pub fn find(&self, name: &str) -> Option<Image> {
        let index = self.lock();
        if let Ok(digest) = Digest::parse(name) {
            return index.values().find(|image| image.digest == digest).cloned();
        }
        let reference = Reference::parse(name).ok()?;
        if let Some(image) = index.get(&reference.to_string()) {
            return Some(image.clone());
        }
        // Pinned to a digest that was pulled under a tag of the same repository.
        let digest = reference.digest()?;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let same = |image: &&Image| {
            let rest = image.reference.strip_prefix(&repository);
            image.digest == digest && rest.is_some_and(|rest| rest.starts_with([':', '@']))
        };
        index.values().find(same).cloned()
    }

    /// Enters an image whose layers are in place, replacing one of the same name. On disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; the index is then as before.
    pub fn put(&self, image: Image) -> Result<(), StoreError> {
        let name = file_name(&image.reference);
        let bytes = io("encode", &name, serde_json::to_vec_pretty(&image).map_err(std::io::Error::from))?;
        let temporary = format!("{name}.{}.tmp", rustix::process::getpid().as_raw_nonzero());
        let mut index = self.lock();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = io("create", &temporary, rustix::fs::openat(&self.images, &*temporary, flags, mode))?;
        let mut file = std::fs::File::from(file);
        io("write", &temporary, file.write_all(&bytes))?;
        io("sync", &temporary, file.sync_all())?;
        io("rename", &name, rustix::fs::renameat(&self.images, &*temporary, &self.images, &*name))?;
        io("sync", "images", rustix::fs::fsync(&self.images))?;
        index.insert(image.reference.clone(), image);
        Ok(())
    }

    /// Takes an image out of the index. Its layers and blobs stay until they are collected.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn remove(&self, reference: &str) -> Result<(), StoreError> {
        let name = file_name(reference);
        let mut index = self.lock();
        match rustix::fs::unlinkat(&self.images, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return io("remove", &name, Err(errno)),
        }
        io("sync", "images", rustix::fs::fsync(&self.images))?;
        index.remove(reference);
        Ok(())
    }

    /// Whether an image of this manifest is in the index under any name.
    pub fn contains(&self, manifest: Digest) -> bool {
        self.lock().values().any(|image| image.digest == manifest)
    }

    /// The layers of all images.
    pub fn layers(&self) -> HashSet<Digest> {
        self.lock().values().flat_map(|image| &image.layers).map(|layer| layer.diff_id).collect()
    }

    /// Removes blobs that no image names. Nothing may be fetching meanwhile.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn collect_blobs(&self) -> Result<u64, StoreError> {
        let used: HashSet<String> = {
            let index = self.lock();
            index.values().flat_map(|image| [image.digest.hex(), image.config_digest.hex()]).collect()
        };
        let mut removed = 0;
        for name in names(&self.directory, "blobs")? {
            let complete = name.to_str().ok().filter(|name| name.len() == 64 && !name.contains('.'));
            let given_up = || name.to_bytes().ends_with(b".partial") && self.is_old(&name);
            if complete.is_some_and(|name| !used.contains(name)) || given_up() {
                removed += u64::from(rustix::fs::unlinkat(&self.directory, &*name, AtFlags::empty()).is_ok());
            }
        }
        Ok(removed)
    }

    /// Whether nothing was added to a file for so long that nobody will go on with it.
    fn is_old(&self, name: &std::ffi::CStr) -> bool {
        let Ok(stat) = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_secs().saturating_sub(u64::try_from(stat.st_mtime).unwrap_or_default()) > PARTIAL_SECONDS_MAX
    }

    /// Removes the blob of a layer that is unpacked, or that cannot be.
    pub(crate) fn drop_blob(&self, digest: Digest) {
        // What stays is collected another time.
        let _ = rustix::fs::unlinkat(&self.directory, digest.hex(), AtFlags::empty());
    }

    /// Reads the index. Files that are not images, of a newer version or half written, are removed: what they
    /// named is garbage then and can be pulled again.
    fn load(&self) -> Result<(), StoreError> {
        let mut index = self.lock();
        for name in names(&self.images, "images")? {
            let label = name.to_string_lossy().into_owned();
            match self.load_image(&name) {
                Some(image) if file_name(&image.reference) == label => {
                    index.insert(image.reference.clone(), image);
                }
                _ => {
                    tracing::warn!(file = label, "not an image: removing it from the index");
                    io("remove", &label, rustix::fs::unlinkat(&self.images, &*name, AtFlags::empty()))?;
                }
            }
        }
        Ok(())
    }

    fn load_image(&self, name: &CStr) -> Option<Image> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.images, name, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Removes what dead processes left: archives in the middle, and downloads too old to go on with.
    fn sweep(&self) -> Result<(), StoreError> {
        for name in names(&self.directory, "blobs")? {
            let bytes = name.to_bytes();
            let partial = bytes.ends_with(b".partial");
            if !partial && !bytes.ends_with(b".import") {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&self.directory, &*name, flags, Mode::empty()) else {
                continue;
            };
            // Whoever writes it holds the lock, and the kernel lets go of it for the dead.
            if rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let age = std::fs::File::from(file).metadata().and_then(|metadata| metadata.modified()).ok();
            let age = age.and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
            if !partial || age > PARTIAL_AGE_MAX {
                io("remove", "blob", rustix::fs::unlinkat(&self.directory, &*name, AtFlags::empty()))?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Image>> {
        // Valid after any panic: every change is one insert or remove.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(directory: &OwnedFd, label: &str) -> Result<Vec<CString>, StoreError> {
    let mut names = Vec::new();
    for entry in io("read", label, Dir::read_from(directory))? {
        let entry = io("read", label, entry)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// References hold slashes and colons; their digests do not.
fn file_name(reference: &str) -> String {
    format!("{}.json", Digest::from_bytes(Sha256::digest(reference.as_bytes()).into()).hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn image(reference: &str, seed: u8) -> Image {
        let layer = Layer {
            digest: Digest::from_bytes([seed; 32]),
            diff_id: Digest::from_bytes([seed + 1; 32]),
            size_bytes: 1,
        };
        Image {
            reference: reference.to_owned(),
            digest: Digest::from_bytes([seed + 2; 32]),
            config_digest: Digest::from_bytes([seed + 3; 32]),
            platform: crate::image::reference::host_platform(),
            created: None,
            size_bytes: 1,
            layers: vec![layer],
            config: ImageConfig::default(),
            pulled_at: jiff::Timestamp::UNIX_EPOCH.to_string(),
            owner_uid: 0,
        }
    }

    #[test]
    fn an_index_survives_and_its_ruins_do_not() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path()).expect("open");
        store.put(image("docker.io/library/a:1", 10)).expect("put");
        store.put(image("docker.io/library/b:1", 20)).expect("put");
        drop(store);
        let images = directory.path().join("images");
        let torn = images.join(file_name("docker.io/library/b:1"));
        let whole = std::fs::read(&torn).expect("read");
        std::fs::write(&torn, &whole[..whole.len() / 2]).expect("tear");
        std::fs::write(images.join("x.1.tmp"), "half").expect("write");
        // A file under another image's name would replace that image.
        std::fs::copy(images.join(file_name("docker.io/library/a:1")), images.join(file_name("c")))
            .expect("copy");
        let store = Store::open(directory.path()).expect("reopen");
        let names: Vec<_> = store.list().into_iter().map(|image| image.reference).collect();
        assert_eq!(names, ["docker.io/library/a:1"]);
        assert_eq!(std::fs::read_dir(images).expect("list").count(), 1);
    }

    #[test]
    fn an_image_is_found_by_short_name_digest_and_pinned_name() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path()).expect("open");
        let stored = image("docker.io/library/a:latest", 10);
        store.put(stored.clone()).expect("put");
        let digest = stored.digest;
        for name in ["a", "docker.io/a", "library/a:latest", &digest.to_string(), &format!("a@{digest}")] {
            assert_eq!(store.find(name).as_ref(), Some(&stored), "{name}");
        }
        for name in ["b", "a:2", "other/a", &format!("b@{digest}"), "", "sha256:00"] {
            assert_eq!(store.find(name), None, "{name}");
        }
        store.remove("docker.io/library/a:latest").expect("remove");
        assert_eq!(store.find("a"), None);
    }

    #[test]
    fn what_dead_processes_left_is_swept_and_what_living_ones_write_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path()).expect("open");
        let living = store.blobs().anonymous().expect("living");
        let blobs = directory.path().join("blobs/sha256");
        std::fs::write(blobs.join("dead.import"), "x").expect("write");
        let fresh = blobs.join(format!("{}.partial", "a".repeat(64)));
        let stale = blobs.join(format!("{}.partial", "b".repeat(64)));
        std::fs::write(&fresh, "x").expect("write");
        let file = std::fs::File::create(&stale).expect("create");
        file.set_modified(std::time::SystemTime::now() - 2 * PARTIAL_AGE_MAX).expect("age");
        drop(file);
        Store::open(directory.path()).expect("reopen");
        let left = std::fs::read_dir(&blobs).expect("list").count();
        assert!(fresh.exists() && !stale.exists() && !blobs.join("dead.import").exists());
        assert_eq!(left, 2, "the fresh download and the living import");
        drop(living);
    }

    #[test]
    fn blobs_that_no_image_names_are_collected() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path()).expect("open");
        let used = store.blobs().store(b"manifest").expect("store");
        let unused = store.blobs().store(b"layer").expect("store");
        store.put(Image { digest: used, ..image("docker.io/library/a:1", 10) }).expect("put");
        assert_eq!(store.collect_blobs().expect("collect"), 1);
        assert!(store.blobs().contains(used) && !store.blobs().contains(unused));
    }
}
