//! `cargo xtask dist`: the binary as it is released, with a proof that it needs nothing of the host.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, output, succeed};

/// `PT_INTERP` (elf.h): names a dynamic loader. A static binary, position-independent or not, has none.
const PT_INTERP: u32 = 3;

pub(crate) fn run() -> Result<()> {
    succeed(&mut cargo(&["build", "--release", "--locked", "--package", "stockade", "--bin", "stockade"]))?;
    let metadata = output(&mut cargo(&["metadata", "--format-version", "1", "--locked", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("parse cargo's metadata")?;
    let target = PathBuf::from(metadata["target_directory"].as_str().context("cargo's target directory")?);
    let built = target.join("x86_64-unknown-linux-gnu/release/stockade");
    let folder = target.join("dist");
    std::fs::create_dir_all(&folder).context("make target/dist")?;
    let name = format!("stockade-{}-x86_64-linux", version(&metadata)?);
    let path = folder.join(&name);
    std::fs::copy(&built, &path).with_context(|| format!("copy {}", built.display()))?;
    let bytes = std::fs::read(&path).context("read the binary")?;
    ensure!(!needs_loader(&bytes)?, "{} is not static: it names a dynamic loader", path.display());
    ensure!(symbols_are_stripped(&bytes)?, "{} carries a symbol table", path.display());
    let usage = output(Command::new(&path).arg("--help"))?;
    ensure!(!usage.is_empty(), "{} --help says nothing", path.display());
    let sum = output(Command::new("sha256sum").arg(&name).current_dir(&folder))?;
    std::fs::write(folder.join(format!("{name}.sha256")), &sum).context("write the sum")?;
    println!("{} {} bytes\n{}", path.display(), bytes.len(), sum.trim());
    Ok(())
}

fn version(metadata: &Value) -> Result<&str> {
    let packages = metadata["packages"].as_array().context("packages in cargo's metadata")?;
    let stockade = packages.iter().find(|package| package["name"] == "stockade").context("our package")?;
    stockade["version"].as_str().context("our version")
}

/// Whether a 64-bit little-endian ELF file has a `PT_INTERP` program header.
fn needs_loader(elf: &[u8]) -> Result<bool> {
    let (offset, size, count) = (number(elf, 0x20, 8)?, number(elf, 0x36, 2)?, number(elf, 0x38, 2)?);
    for index in 0..count {
        if number(elf, offset + index * size, 4)? == u64::from(PT_INTERP) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether no section is a symbol table (`SHT_SYMTAB`, 2).
fn symbols_are_stripped(elf: &[u8]) -> Result<bool> {
    let (offset, size, count) = (number(elf, 0x28, 8)?, number(elf, 0x3A, 2)?, number(elf, 0x3C, 2)?);
    for index in 0..count {
        if number(elf, offset + index * size + 4, 4)? == 2 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An unsigned little-endian number of `length` bytes.
fn number(bytes: &[u8], offset: u64, length: usize) -> Result<u64> {
    let start = usize::try_from(offset).context("offset")?;
    let field = bytes.get(start..start + length).context("the ELF file is cut off")?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_this_static_one() {
        let ours = std::fs::read(std::env::current_exe().expect("path")).expect("read");
        assert!(!needs_loader(&ours).expect("an ELF file"));
        let dynamic = std::fs::read("/bin/sh").expect("read");
        assert!(needs_loader(&dynamic).expect("an ELF file"));
        assert!(needs_loader(&ours[..40]).is_err());
    }
}
