//! reference → bytes → directory.
//!
//! ```text
//! fetch (process)   reference ─▶ registry ─▶ auth, http      a registry's answers
//!                   import ─▶ tar, decompress                somebody's archive
//!                        └────▶ manifest                     index, manifest, configuration
//!                        └────▶ blobs                        blobs/sha256/<digest>, verified
//! unpack (process)  decompress ─▶ tar ─▶ layer               layers/<diff-id>/fs, verified
//! serve             store                                    images/*.json: what there is
//!                   documents ─▶ push (in fetch), a layout   what is made here, on its way out
//! ```
//! Whatever a stranger wrote is read in a process that has one directory and lives for one job; serve, which has
//! clients, reads typed messages and files named by their digest. Nothing is run here, nothing is mounted.
//!
//! Invariants
//! - Bytes have their final name only under the digest that they have.
//! - An image is in the index only when all its layers are in place.
//! - Every read has a bound in [`limits`](crate::limits).
//!
//! Why not a registry client, an unpacker or a store from elsewhere: those there are resolve paths by name,
//! trust a registry's redirects with credentials, or bring a runtime of their own. What is taken from elsewhere is
//! what has no authority: parsers (`tar-core`, `oci-spec`), decompressors, TLS, DNS.

pub(crate) mod auth;
pub(crate) mod blobs;
pub(crate) mod decompress;
pub(crate) mod documents;
pub mod fetch;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod import;
pub(crate) mod layer;
pub(crate) mod manifest;
pub(crate) mod open;
pub(crate) mod push;
pub mod reference;
pub(crate) mod registry;
pub mod store;
pub mod unpack;
