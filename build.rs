//! Gives the linker `src/sys/launch.ld`, which lays what every sandbox runs side by side.

fn main() {
    let script = format!("{}/src/sys/launch.ld", std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg=-Wl,-T,{script}");
}
