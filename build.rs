//! Puts the scripts, without the sources that they are expanded from, where `include_dir!` embeds them from. It reads that
//! folder at compile time and does not watch it: a new or changed script must trigger a rebuild.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=lua");
    let target = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("lua");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    for folder in ["", "previous"] {
        let source = Path::new("lua").join(folder);
        if !source.is_dir() {
            continue;
        }
        fs::create_dir_all(target.join(folder))?;
        for entry in fs::read_dir(source)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "lua") {
                fs::copy(&path, target.join(folder).join(path.file_name().expect("a file has a name")))?;
            }
        }
    }
    Ok(())
}
