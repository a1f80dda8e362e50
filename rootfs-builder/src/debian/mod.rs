//! Debian's side of an image: where packages come from and which ones are taken.
//!
//! ```text
//! sources (apt's own configuration) -> index (InRelease -> Packages, signed) -> resolve -> lock/debian.toml
//!                                                                          build: archive (.deb) -> root
//! ```
//!
//! Only `lock` walks the upper line. `build` takes names, versions and sha256 sums from the lock, so it
//! needs neither an index nor a signature: the sum in the repository is the stronger statement.

pub(crate) mod archive;
pub(crate) mod control;
pub(crate) mod index;
pub(crate) mod relation;
pub(crate) mod resolve;
pub(crate) mod sources;
pub(crate) mod version;
