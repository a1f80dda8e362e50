//! Documentation that builds without a warning: a broken link between items is a broken map.

use anyhow::Result;

use crate::{cargo, succeed};

pub(crate) fn run() -> Result<()> {
    let arguments = ["doc", "--quiet", "--no-deps", "--workspace", "--locked"];
    succeed(cargo(&arguments).env("RUSTDOCFLAGS", "-D warnings"))
}
