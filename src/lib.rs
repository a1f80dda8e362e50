//! Stockade: runs code you do not trust on a Linux host you own.
//!
//! # Map
//!
//! ```text
//! client ──HTTP/1.1, SSE, WebSocket over a Unix socket──▶ serve     api, sandbox: parse, decide, proxy; no capability
//! browser ──HTTP/1.1, WebSocket over TCP, previews only──▶─┤
//!                                                          │ wire: typed messages, descriptors by SCM_RIGHTS
//!                                                          ├──▶ launch   runtime: the only privileged process
//!                                                          │              │ clone3, no exec
//!                                                          │              ▼
//!                                                          ├──▶ agent    PID 1 of a sandbox ── zygote ──▶ commands
//!                                                          ├──▶ gateway  gateway: whatever leaves a sandbox, under its policy
//!                                                          ├──▶ bucket   bucket: one bucket of S3 as a file system
//!                                                          ├──▶ fetch    image: registries, archives
//!                                                          └──▶ unpack   image: one layer, nothing else
//! ```
//!
//! # Layers: imports point down, and `cargo xtask check` keeps it so
//!
//! | layer | modules | what |
//! |---|---|---|
//! | 7 | `main`, `cli`, `startup`, `roles` | command line; which process is what |
//! | 6 | `api` | HTTP to typed requests and back; the only place with status codes |
//! | 4 | `sandbox` | the life of sandboxes, commands and images, seen from serve |
//! | 3 | `runtime`, `agent`, `image`, `gateway`, `bucket`, `doctor`, `selftest` | isolation; PID 1; bytes to directories; what leaves; buckets as files; is this host fit? does the wall stand? |
//! | 2 | `wire` | messages between processes: data only |
//! | 1 | `sys`, `confine`, `tar`, `hops`, `journal` | the kernel; all unsafe code is in `sys`; archives from strangers; headers of one connection; what has happened |
//! | 0 | `error`, `id`, `limits`, `config` | words, names, bounds |
//!
//! # Five flows
//!
//! ```text
//! create   api ─▶ sandbox ─(Plan)─▶ launch: storage, cgroups, clone3 ─▶ runtime::child ─▶ agent ─▶ zygote: Ready
//! command  api ─▶ sandbox: pipes ─(Exec + 3 fds)─▶ agent ─▶ zygote ─▶ agent::command ─▶ execve
//! file     api ─▶ sandbox::files ─(Call)─▶ agent::worker, inside: openat2 ─(descriptor)─▶ sandbox::files: read, write
//! preview  api::proxy ─▶ sandbox::ports ─(Call)─▶ agent::worker, inside: connect ─(descriptor)─▶ api::proxy: requests
//! image    api ─▶ sandbox::catalog ─▶ fetch: blobs ─▶ launch ─▶ unpack: directory ─▶ launch: rename into the store
//! ```
//!
//! network  a sandbox's connect(2) ─▶ its namespace's redirect ─▶ gateway: policy, names ─▶ dial, tunnel
//!
//! # Invariants, stated as what is absent
//!
//! - `api` never names a system call; `sandbox` never names a status code.
//! - Nothing between fork and exec ([`agent`]'s `command`) allocates, locks or logs.
//! - launch resolves no path that anybody else chose (a name in the operator's directory of handlers apart), never parses
//!   a byte that came from outside the host, and never has a secret in its memory.
//! - Output of commands passes through no process of ours but serve.
//! - No path of a sandbox is resolved outside of it: a worker inside opens files, serve reads and writes what is open.
//! - No process of ours but launch holds a capability in the host's namespaces.
//!
//! # Reading order
//!
//! [`roles`], [`wire::launch`], [`runtime::create`], [`runtime::child`], [`agent`], then [`sandbox`] and [`api`].

#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod bucket;
pub mod cli;
pub mod config;
pub mod confine;
pub mod doctor;
pub mod error;
pub mod gateway;
pub(crate) mod holes;
pub mod hops;
pub mod id;
pub mod image;
pub mod journal;
pub mod limits;
pub mod roles;
pub mod runtime;
pub mod sandbox;
pub mod seal;
pub mod selftest;
pub mod startup;
pub mod sys;
pub mod tar;
pub(crate) mod tls;
pub mod wire;
