//! The life of sandboxes, seen from serve.

pub mod launcher;
