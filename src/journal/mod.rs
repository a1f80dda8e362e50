//! What has happened, written down: lines of JSON in files that only grow.
//!
//! ```text
//! feed    what happens to sandboxes, for whoever listens: a ring, in memory and on disk; its reader may come back
//! audit   who asked for what, and what became of it: a chain of hashes, in which no change goes unseen
//! ```
//!
//! Both survive the end of the process that writes them at any moment: a line is one write(2), and one that is not
//! whole is nobody's. The feed may lose its last lines when the host crashes; the audit log is on the disk within a
//! second, and says how much of it was not.

pub mod audit;
pub mod feed;
