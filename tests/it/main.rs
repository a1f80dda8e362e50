//! The end-to-end tests: the real binary, spoken to over its socket, on a real kernel.
//!
//! Every test starts a daemon of its own in a fresh directory and, when it ends, sees to it that nothing of that
//! daemon is left on the host (`harness::Daemon`). A test of isolation comes in pairs: what must fail inside a
//! sandbox must succeed outside, or it proves nothing (`isolation`).
//!
//! Root is needed. What the host lacks is skipped with its name; with `STOCKADE_TEST_REQUIRE=all` a skip that this
//! kind of host does not explain is a failure. `cargo xtask test` sets all of this up. With `STOCKADE_TEST_FULL=1` what
//! takes long is done whole: 10,000 starts, every port of every address.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, and says where")]
#![expect(
    unreachable_pub,
    reason = "a test has no outside, and the HTTP client is shared with the benchmark"
)]

mod attacks;
mod bad_input;
mod bucket_files;
mod buckets;
mod cli;
mod commands;
mod contexts;
mod corpora;
mod documents;
mod egress;
mod faults;
mod files;
mod git;
mod harness;
mod hostile;
mod images;
mod interactive;
mod isolation;
mod journal;
mod leaks;
mod lifecycle;
mod limits;
mod mounts;
mod network;
mod ports;
mod previews;
mod processes;
mod recordings;
mod registry;
mod resting;
mod sdk;
mod selftest;
mod sessions;
mod slow;
mod snapshots;
mod terminals;
mod tour;
mod usage;
