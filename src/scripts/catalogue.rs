//! The Lua sources as they were compiled in, with the SHA-1 that is their name in Redis.

use include_dir::{Dir, include_dir};
use sha1::{Digest, Sha1};

use super::header::Contract;

static LUA: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/lua");

/// One script: its file's bytes are what runs.
#[derive(Debug, Clone)]
pub struct Script {
    /// The file's name without `.lua`.
    pub name: &'static str,
    /// The file's content.
    pub source: &'static str,
    /// SHA-1 of the content in lower-case hexadecimal, as `sha1sum` and `SCRIPT LOAD` give it.
    pub sha1: String,
    /// What its header says.
    pub contract: Contract,
}

/// Every script of this build, in the order of their names.
#[derive(Debug, Clone)]
pub struct Catalogue(Vec<Script>);

impl Catalogue {
    /// The scripts of `lua/`.
    ///
    /// # Panics
    /// When a file of `lua/` is not UTF-8 or lacks its header: a defect of the build, which the tests find.
    pub fn embedded() -> Self {
        let mut scripts: Vec<Script> = LUA
            .files()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "lua"))
            .map(|file| {
                let name = file.path().file_stem().and_then(|stem| stem.to_str()).expect("a script has a name");
                let source = file.contents_utf8().expect("a script is UTF-8");
                let contract = Contract::parse(name, source).unwrap_or_else(|why| panic!("{name}.lua: {why}"));
                Script { name, source, sha1: sha1_hex(source), contract }
            })
            .collect();
        scripts.sort_by_key(|script| script.name);
        Self(scripts)
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Script> {
        self.0.iter()
    }

    /// The script of that name.
    pub fn get(&self, name: &str) -> Option<&Script> {
        self.0.iter().find(|script| script.name == name)
    }
}

fn sha1_hex(source: &str) -> String {
    Sha1::digest(source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_seven_are_embedded_under_the_published_sums() {
        let sums = include_str!("../../lua/SHA1SUMS");
        let listed: Vec<String> =
            Catalogue::embedded().iter().map(|script| format!("{}  {}.lua\n", script.sha1, script.name)).collect();
        assert_eq!(listed.concat(), sums);
        assert_eq!(listed.len(), 7);
    }
}
