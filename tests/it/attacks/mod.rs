//! Attacks by more than one: sandboxes that work together, storms beside a neighbour, races against what enters.
//!
//! `README.md` in this folder says what stands against each known hazard, here and elsewhere.

mod collusion;
mod races;
mod storms;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The numbers of the hazards that the table must have.
fn numbers() -> BTreeSet<u32> {
    (1..=44).chain(73..=107).chain(127..=142).collect()
}

/// The file of a module, of the tests or of the program.
fn file(module: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = module.replace("::", "/");
    let names = [format!("tests/it/{path}.rs"), format!("tests/it/{path}/mod.rs"), format!("src/{path}.rs")];
    names.into_iter().map(|name| root.join(name)).find(|path| path.exists())
}

#[test]
fn every_hazard_has_a_row_and_every_row_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/it/attacks/README.md")).unwrap();
    let attacks: String = fs::read_dir(root.join("src/selftest/attacks"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let mut seen = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else { continue };
        assert!(seen.insert(number), "{number} has two rows");
        let here = cells[2];
        for word in here.split('`').skip(1).step_by(2).filter(|word| !word.contains('/')) {
            match word.rsplit_once("::") {
                Some((module, name)) => {
                    let path = file(module).unwrap_or_else(|| panic!("{number}: no module {module}"));
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(text.contains(&format!("fn {name}(")), "{number}: no test {word}");
                }
                None => assert!(attacks.contains(&format!("\"{word}\"")), "{number}: no attack {word}"),
            }
        }
        let excused = here.starts_with("not ") || here.starts_with("with buckets");
        assert!(excused || here.contains('`'), "{number} names nothing and says not why");
    }
    assert_eq!(seen, numbers());
}
