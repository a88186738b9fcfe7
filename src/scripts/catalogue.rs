//! The Lua sources that were compiled in, with the SHA-1 that is their name in Redis.

use include_dir::{Dir, include_dir};
use sha1::{Digest, Sha1};

use super::header::Contract;

static LUA: Dir<'_> = include_dir!("$OUT_DIR/lua");

/// One script: the bytes of its file are what runs.
#[derive(Debug, Clone)]
pub struct Script {
    /// The file's name without `.lua`.
    pub name: &'static str,
    /// The file's contents.
    pub source: &'static str,
    /// SHA-1 of the contents in lower-case hexadecimal, as `sha1sum` and `SCRIPT LOAD` give it.
    pub sha1: String,
    /// What its header says.
    pub contract: Contract,
    /// Whether it is the last release's version of a script that has changed since then. It stays loaded, for callers
    /// that have not yet looked for the new one, and is not published.
    pub previous: bool,
}

/// Every script of this build: the current ones in the order of their names, then the previous ones.
#[derive(Debug, Clone)]
pub struct Catalogue(Vec<Script>);

impl Catalogue {
    /// The scripts of `lua/`, and of `lua/previous/` if there is one.
    ///
    /// # Panics
    /// When a file there is not UTF-8 or lacks its header: a defect of the build, which the tests find.
    pub fn embedded() -> Self {
        let mut catalogue = Self(Vec::new());
        let previous = LUA.get_dir("previous");
        for (folder, previous) in [(Some(&LUA), false), (previous, true)] {
            for file in folder.into_iter().flat_map(Dir::files) {
                if file.path().extension().is_some_and(|extension| extension == "lua") {
                    let name = file.path().file_stem().and_then(|stem| stem.to_str()).expect("a script has a name");
                    catalogue.add(name, file.contents_utf8().expect("a script is UTF-8"), previous);
                }
            }
        }
        catalogue
    }

    /// Adds the previous version of a script.
    ///
    /// # Panics
    /// When `source` does not have the header of a script of that name.
    pub fn with_previous(mut self, name: &'static str, source: &'static str) -> Self {
        self.add(name, source, true);
        self
    }

    fn add(&mut self, name: &'static str, source: &'static str, previous: bool) {
        let contract = Contract::parse(name, source).unwrap_or_else(|why| panic!("{name}.lua: {why}"));
        self.0.push(Script { name, source, sha1: sha1_hex(source), contract, previous });
        self.0.sort_by_key(|script| (script.previous, script.name));
    }

    /// The current ones, which are published.
    pub fn current(&self) -> impl Iterator<Item = &Script> {
        self.iter().filter(|script| !script.previous)
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Script> {
        self.0.iter()
    }

    /// The current script of that name.
    pub fn get(&self, name: &str) -> Option<&Script> {
        self.current().find(|script| script.name == name)
    }
}

fn sha1_hex(source: &str) -> String {
    Sha1::digest(source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_embedded_under_its_published_sum() {
        let sums = include_str!("../../lua/SHA1SUMS");
        let listed: Vec<String> =
            Catalogue::embedded().current().map(|script| format!("{}  {}.lua\n", script.sha1, script.name)).collect();
        assert_eq!(listed.concat(), sums);
    }
}
