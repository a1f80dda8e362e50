//! What the documents promise exists.

use std::fs;
use std::path::Path;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_test_that_readme_names_exists() {
    let text = read("README.md");
    let mut checked = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let Some((module, name)) = word.rsplit_once("::") else { continue };
        let path = format!("tests/it/{}.rs", module.replace("::", "/"));
        if !Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists() {
            continue;
        }
        checked += 1;
        assert!(
            read(&path).contains(&format!("fn {name}()")),
            "README names {word}, {path} has no such test"
        );
    }
    assert!(checked >= 15, "README names only {checked} tests");
}

#[test]
fn ci_runs_the_command_that_readme_gives() {
    let command = "cargo xtask test";
    assert!(read("README.md").contains(command), "README no longer names {command}");
    assert!(read(".ci/run").lines().any(|line| line == command), ".ci/run no longer runs {command}");
}
