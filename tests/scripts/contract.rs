//! The contract of a script as its header states it: the names of its slots, and its possible replies.
//!
//! Parsed from the header and not repeated here, so that the header and these tests cannot differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::LazyLock;

/// The contracts of all files in `lua/`, by script name.
static CONTRACTS: LazyLock<BTreeMap<String, Contract>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/lua");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lua"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let source = fs::read_to_string(&path).unwrap();
            (name, Contract::parse(source))
        })
        .collect()
});

/// The contract of one script.
pub struct Contract {
    /// The contents of the file: what is loaded, and what the SHA-1 is computed from.
    pub source: String,
    pub keys: Slots,
    pub arguments: Slots,
    /// Reply words with the names of the elements that follow.
    pub replies: BTreeMap<String, Reply>,
    /// First words of the error replies.
    pub errors: BTreeSet<String>,
}

/// The names of `KEYS` or `ARGV`: the fixed ones, then the group that each item repeats, and then what may follow after
/// the items, any number of times.
#[derive(Default)]
pub struct Slots {
    pub fixed: Vec<String>,
    pub repeated: Vec<String>,
    pub trailing: Option<String>,
}

/// One line of a header's REPLIES.
#[derive(Default)]
pub struct Reply {
    pub names: Vec<String>,
    /// Given only in mode `all`.
    pub all_only: bool,
}

impl Contract {
    pub fn of(script: &str) -> &'static Self {
        &CONTRACTS[script]
    }

    pub fn all() -> impl Iterator<Item = (&'static str, &'static Self)> {
        CONTRACTS.iter().map(|(name, contract)| (name.as_str(), contract))
    }

    /// Whether the script has a mode, which means that it takes many items.
    pub fn has_modes(&self) -> bool {
        self.arguments.fixed.first().is_some_and(|name| name == "mode")
    }

    fn parse(source: String) -> Self {
        Self {
            keys: Slots::parse(section(&source, "KEYS")),
            arguments: Slots::parse(section(&source, "ARGV")),
            replies: parse_replies(section(&source, "REPLIES")),
            errors: section(&source, "ERRORS").filter_map(entry).map(|line| first_word(line).to_owned()).collect(),
            source,
        }
    }
}

impl Slots {
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut slots = Self::default();
        for line in lines.filter_map(entry) {
            let mut columns = line.split_whitespace();
            let (position, name) = (columns.next().unwrap(), columns.next().unwrap().to_owned());
            match position {
                _ if position.bytes().all(|byte| byte.is_ascii_digit()) => slots.fixed.push(name),
                "then" => {}
                // After those of n items.
                _ if position.contains('n') => slots.trailing = Some(name),
                _ => slots.repeated.push(name),
            }
        }
        slots
    }

    /// The name at an index counted from 0, in a call of a number of items, and the number (from 1) of the item that it
    /// belongs to, or its own among those after the items.
    pub fn at(&self, index: usize, items: usize) -> (&str, Option<usize>) {
        match index.checked_sub(self.fixed.len()) {
            None => (&self.fixed[index], None),
            Some(beyond) if self.trailing.is_some() && beyond >= items * self.repeated.len() => {
                (self.trailing.as_ref().unwrap(), Some(beyond - items * self.repeated.len() + 1))
            }
            Some(beyond) => (&self.repeated[beyond % self.repeated.len()], Some(beyond / self.repeated.len() + 1)),
        }
    }

    /// The index of a name; of a repeated one, in the first item.
    pub fn index_of(&self, name: &str) -> usize {
        self.fixed.iter().chain(&self.repeated).position(|slot| slot == name).unwrap()
    }
}

fn parse_replies<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, Reply> {
    const DESCRIPTION: usize = 30;
    let mut replies: BTreeMap<String, Reply> = BTreeMap::new();
    let mut word = String::new();
    for line in lines {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        // Two spaces separate the names from the description. A line that starts far to the right is description only.
        let (names, description) =
            if indent > DESCRIPTION { ("", text) } else { text.split_once("  ").unwrap_or((text, "")) };
        let mut names = names.split_whitespace().map(str::to_owned);
        if entry(line).is_some() {
            word = names.next().unwrap();
            assert!(!replies.contains_key(&word), "the header lists {word} twice");
        }
        let reply = replies.entry(word.clone()).or_default();
        reply.names.extend(names);
        reply.all_only |= description.trim_start().starts_with("mode all:");
    }
    replies
}

/// The comment lines below a heading of the header, up to the next empty one, without their `--`.
fn section<'a>(source: &'a str, heading: &'a str) -> impl Iterator<Item = &'a str> {
    source
        .lines()
        .map_while(|line| line.starts_with("#!").then_some("").or(line.strip_prefix("--")))
        .skip_while(move |line| first_word(line).trim_end_matches(':') != heading)
        .skip(1)
        .take_while(|line| !line.is_empty())
}

/// The line's text if the line starts an entry of a section, which is indented by three.
fn entry(line: &str) -> Option<&str> {
    line.strip_prefix("   ").filter(|text| !text.starts_with(' '))
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}
