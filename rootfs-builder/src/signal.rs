//! Ctrl-C and SIGTERM: remember that the user cancelled, clean up, leave.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// The user cancelled.
#[derive(Debug)]
pub(crate) struct Cancelled;

impl std::fmt::Display for Cancelled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// From now on, cancelling makes [`check`] fail; a second time ends the process at once.
///
/// # Errors
/// When a handler is installed already.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if CANCELLED.swap(true, Ordering::Relaxed) {
            crate::scratch::remove_all();
            std::process::exit(130);
        }
    })
    .context("listen for Ctrl-C")
}

/// Called in every long loop.
///
/// # Errors
/// [`Cancelled`] after Ctrl-C or SIGTERM.
pub(crate) fn check() -> Result<()> {
    if CANCELLED.load(Ordering::Relaxed) { Err(Cancelled.into()) } else { Ok(()) }
}
