//! Isolation, entirely synchronous: role `launch` and everything that it does with privilege.
//!
//! ```text
//! launch     start-up: settings → foundation          requests   the loop: serve, signals, agents, unpacking
//! create     one sandbox, and its undoing             child      the clone's way into the sandbox
//! ids        which host ids mean what                 cgroup     limits, kill
//! template   shared /dev, /sys, skeleton, host        rootfs     layers → overlay
//! layers     the store of unpacked layers             worker     starting serve, fetch, unpack
//! seccomp    profiles → filters                       verify     what did the kernel really do?
//! record     adoption after a restart                 trash      removing what untrusted code wrote
//! storage    writable files and their limit       network    a sandbox's way out, which ends at the gateway
//! mounts     buckets, directories of the host     mountpoint  where they are in the tree; inside: how it gets there
//! gateway    starting it, and what it must know           secrets    of a policy: a file, unread here
//! saved      what snapshots are made of                   copy       a tree with everything that overlayfs wrote on it
//! merge      saved files that lie on each other, as one
//! handlers   connections to sockets of the operator's         disk       what files take
//! ```
//!
//! The order in which a sandbox is closed is in [`child`] and in `agent::command`, step by step with reasons.
//!
//! Absent, on purpose: tokio, JSON beyond our own embedded profiles, any path chosen by somebody else.

pub mod cgroup;
pub mod child;
pub mod copy;
pub mod create;
pub mod disk;
pub mod gateway;
pub mod handlers;
pub mod ids;
mod inside;
pub mod launch;
pub mod layers;
mod merge;
pub mod mountpoint;
pub mod mounts;
pub mod network;
pub mod record;
pub mod requests;
pub mod rootfs;
pub mod saved;
pub mod seccomp;
pub mod secrets;
pub mod storage;
pub mod template;
pub mod trash;
pub mod verify;
pub mod worker;
