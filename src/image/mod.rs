//! reference → bytes → directory.
pub(crate) mod auth;
pub(crate) mod blobs;
pub(crate) mod decompress;
pub mod fetch;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod http;
pub(crate) mod import;
pub(crate) mod layer;
pub(crate) mod manifest;
pub mod reference;
pub(crate) mod registry;
pub mod store;
pub(crate) mod tar;
pub mod unpack;
