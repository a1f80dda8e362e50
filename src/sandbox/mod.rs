//! The life of sandboxes, seen from serve.

pub mod catalog;
pub mod launcher;
