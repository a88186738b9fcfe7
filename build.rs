//! `include_dir!` reads `lua/` at compile time but does not watch it: a new or changed script must trigger a rebuild.
fn main() {
    println!("cargo::rerun-if-changed=lua");
}
