//! Mounts of sandboxes that run: see [`mounts`](super::super::mounts).

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};

use super::super::mountpoint::{self, Known, Place};
use super::super::mounts::{self, Key};
use super::super::{secrets, trash};
use super::{Loop, connected, failed, not_found};
use crate::id::SandboxId;
use crate::limits::KEYS_BYTES_MAX;
use crate::sys::Errno;
use crate::wire::launch::{Answer, Failure};
use crate::wire::mount::{MountCall, Server, Source};

/// What a profile calls the file of its token.
const TOKEN_FILE: &str = "web_identity_token_file";

impl Loop {
    /// Does what is asked of one mount.
    pub(super) fn mount(
        &mut self,
        id: SandboxId,
        number: u32,
        call: MountCall,
        sent: Option<&OwnedFd>,
    ) -> (Result<Answer, Failure>, Option<OwnedFd>) {
        let key = (id, number);
        match call {
            MountCall::Start(server) => connected(self.start_bucket(&key, server, sent)),
            MountCall::Connect => {
                connected(self.mounts.control(&key).ok_or_else(|| not_found("find the bucket's worker")))
            }
            MountCall::Show { path, source } => {
                (self.show_mount(key, &path, &source).map(|()| Answer::Done), None)
            }
            MountCall::End => (self.end_mount(&key).map(|()| Answer::Done), None),
            MountCall::Recall => {
                let place = self.launch.foundation.place(key.0.as_str());
                let found = secrets::find(&place, &mounts::name(number));
                let found = found.map_err(|error| failed("find the mount's credentials", error));
                connected(
                    found.and_then(|file| file.ok_or_else(|| not_found("find the mount's credentials"))),
                )
            }
        }
    }

    fn start_bucket(
        &mut self,
        key: &Key,
        server: Server,
        sent: Option<&OwnedFd>,
    ) -> Result<OwnedFd, Failure> {
        let foundation = &self.launch.foundation;
        if !self.sandboxes.contains_key(&key.0) {
            return Err(not_found("find the sandbox"));
        }
        let kept = secrets::keep(&foundation.place(key.0.as_str()), &mounts::name(key.1), sent);
        let kept = kept.map_err(|error| failed("keep the mount's credentials", error))?;
        let start = kept.ok_or_else(|| failed("keep the mount's credentials", "there are none"))?;
        let dialer = self
            .gateway
            .reach(&self.launch.program, key.clone(), server)
            .map_err(|errno| failed("make a socket to the gateway", errno))?;
        let directory = mounts::directory(&foundation.mounts(key.0.as_str()), key.1);
        let uid = foundation.ids.bucket();
        let started = self.mounts.start(&self.launch.program, key, uid, &directory, (&start, &dialer));
        if started.is_err() {
            self.gateway.leave(key);
        }
        started
    }

    fn show_mount(&mut self, key: Key, path: &str, source: &Source) -> Result<(), Failure> {
        let foundation = &self.launch.foundation;
        let Some(sandbox) = self.sandboxes.get(&key.0) else { return Err(not_found("find the sandbox")) };
        let shown = match source {
            Source::Bucket => {
                self.mounts.detached(&key).ok_or_else(|| not_found("find the bucket's mount"))?
            }
            Source::Nothing => {
                let made = mountpoint::fuse(&mounts::name(key.1));
                made.map_err(|errno| failed("make a FUSE mount", errno))?.1
            }
            Source::Directory(wanted) => {
                let (allowed, first) =
                    (&self.launch.settings.mounts.directories, foundation.ids.sandbox(sandbox.slot));
                mounts::show_directory(allowed, wanted, first)?
            }
        };
        let place = Place {
            agent: sandbox.pidfd.as_fd(),
            pid: sandbox.record.running.pid,
            store: foundation.ids.store(),
        };
        let name = mounts::name(key.1);
        let former = Known { number: self.mounts.attached(&key), name: &name };
        mountpoint::attach(place, shown.as_fd(), path, former)?;
        let kept = foundation.place(key.0.as_str());
        self.mounts
            .attach(&kept, &key, mountpoint::number(&shown))
            .map_err(|error| failed("record the mount", error))
    }

    /// First the worker, so that nobody hangs in the mount; then the mount.
    fn end_mount(&mut self, key: &Key) -> Result<(), Failure> {
        self.mounts.end(key);
        self.gateway.leave(key);
        let foundation = &self.launch.foundation;
        if let Some(sandbox) = self.sandboxes.get(&key.0) {
            let place = Place {
                agent: sandbox.pidfd.as_fd(),
                pid: sandbox.record.running.pid,
                store: foundation.ids.store(),
            };
            let name = mounts::name(key.1);
            let known = Known { number: self.mounts.attached(key), name: &name };
            mountpoint::detach(place, known)?;
            self.mounts
                .attach(&foundation.place(key.0.as_str()), key, None)
                .map_err(|error| failed("record the mount", error))?;
        }
        trash::discard(&mounts::directory(&foundation.mounts(key.0.as_str()), key.1));
        secrets::keep(&foundation.place(key.0.as_str()), &mounts::name(key.1), None)
            .map(drop)
            .map_err(|error| failed("forget the mount's credentials", error))
    }

    /// The operator's own credentials for buckets, to be read by serve.
    pub(super) fn keys(&self, profiles: bool) -> Result<OwnedFd, Failure> {
        let what = "find the operator's credentials";
        match &self.launch.settings.mounts.credentials_file {
            Some(path) if profiles => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(what, errno))
            }
            _ if profiles => Err(not_found(what)),
            _ => match &self.launch.keys {
                Some(keys) => keys.try_clone().map_err(|error| failed(what, error)),
                None => Err(not_found(what)),
            },
        }
    }

    /// A token's file, if the operator's own credentials name it: serve is to read no others through us.
    pub(super) fn identity_token(&self, profiles: bool, path: &str) -> Result<OwnedFd, Failure> {
        let what = "find the token of the operator's credentials";
        let keys = std::fs::File::from(self.keys(profiles)?);
        let mut bytes = vec![0; KEYS_BYTES_MAX];
        let length = keys.read_at(&mut bytes, 0).map_err(|error| failed(what, error))?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        if !pairs.any(|(name, value)| name.trim() == TOKEN_FILE && value.trim() == path) {
            return Err(not_found(what));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => not_found(what),
            errno => failed(what, errno),
        })
    }

    /// Ends the workers of a sandbox, so that nothing in it hangs in one of their mounts.
    pub(super) fn end_mounts(&mut self, id: &SandboxId) {
        for key in self.mounts.end_all(id) {
            self.gateway.leave(&key);
        }
    }
}
