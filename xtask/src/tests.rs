//! Each check against text that breaks it and text that does not.

use std::path::Path;

use crate::source::split;
use crate::{layers, tidy};

fn layer_problems(path: &str, text: &str) -> Vec<String> {
    layers::of_files(&[split(Path::new(path), text)])
}

fn tidy_problems(text: &str) -> Vec<String> {
    tidy::of_file(&split(Path::new("src/x.rs"), text)).into_iter().map(|(_, what)| what).collect()
}

#[test]
fn imports_may_point_down_and_not_up() {
    assert_eq!(
        layer_problems("src/runtime/a.rs", "use crate::sys::mount;\nuse crate::wire::{a, b};"),
        [""; 0]
    );
    assert_eq!(
        layer_problems("src/runtime/a.rs", "// crate::api is above\nlet a = \"crate::api\";"),
        [""; 0]
    );
    assert_eq!(
        layer_problems("src/runtime/a.rs", "use crate::agent::run;"),
        ["src/runtime/a.rs:1: runtime may not import agent"]
    );
    assert_eq!(
        layer_problems("src/image/a.rs", "use crate::{\n    limits::X,\n    sandbox::{a, b},\n};"),
        ["src/image/a.rs:1: image may not import sandbox"]
    );
    assert_eq!(
        layer_problems("src/api/a.rs", "use crate::Sandbox;"),
        ["src/api/a.rs:1: crate::Sandbox goes through the root, name its module"]
    );
    assert_eq!(layer_problems("src/stray.rs", "").len(), 1);
}

#[test]
fn cycles_within_the_floor_are_found() {
    let files = [
        split(Path::new("src/id.rs"), "use crate::error::E;"),
        split(Path::new("src/error.rs"), "crate::id::I"),
    ];
    assert_eq!(layers::of_files(&files), ["error imports itself by a cycle", "id imports itself by a cycle"]);
}

#[test]
fn unsafe_code_has_one_address() {
    let text = "#![expect(unsafe_code, reason = \"r\")]";
    assert_eq!(layer_problems("src/sys/a.rs", text), [""; 0]);
    assert_eq!(layer_problems("src/runtime/a.rs", text).len(), 1);
    assert_eq!(layer_problems("tests/it/a.rs", text).len(), 1);
}

#[test]
fn tidy_text_passes() {
    let text = "/// Common words are for prose.\nfn load_image() { let a = '\\''; f(\"TO\u{2014}DO\") }\n";
    assert_eq!(tidy_problems(text), [""; 0]);
    let proven = "// SAFETY: the descriptor is open, `self` owns it.\nlet a = unsafe { f() };";
    assert_eq!(tidy_problems(proven), [""; 0]);
}

#[test]
fn untidy_text_is_named() {
    let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(70));
    assert_eq!(tidy_problems(&long), ["f has 72 lines, at most 70"]);
    assert_eq!(tidy_problems(&"\n".repeat(701)), ["701 lines, at most 700"]);
    assert_eq!(
        tidy_problems("struct ImageManager;"),
        ["ImageManager: \"manager\" says nothing about what it is"]
    );
    assert_eq!(tidy_problems("let a = unsafe { f() };").len(), 1);
    assert_eq!(tidy_problems("// SAFETY: is safe\nlet a = unsafe { f() };").len(), 1);
    assert_eq!(tidy_problems(concat!("// TO", "DO: later")).len(), 1);
    assert_eq!(tidy_problems("#[allow(dead_code)]\nfn f() {}").len(), 1);
    assert_eq!(tidy_problems("let \u{e9} = 1;").len(), 1);
}
