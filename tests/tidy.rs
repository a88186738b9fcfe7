//! House rules that no compiler checks: what the files in `lua/` have in common, and the direction of the layers in
//! `src/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

/// The scripts that only read, and the scripts that run when memory is full. The others are refused then.
const FLAGS: [(&str, &str); 16] = [
    ("adjust", "#!lua"),
    ("audit", "#!lua flags=no-writes"),
    ("cart_hold", "#!lua"),
    ("change", "#!lua flags=allow-oom"),
    ("confirm", "#!lua flags=allow-oom"),
    ("extend", "#!lua flags=allow-oom"),
    ("hold", "#!lua"),
    ("hold_with_metadata", "#!lua"),
    ("inventory", "#!lua flags=no-writes"),
    ("release", "#!lua flags=allow-oom"),
    ("repair", "#!lua flags=allow-oom"),
    ("return", "#!lua flags=allow-oom"),
    ("rules", "#!lua"),
    ("seed", "#!lua"),
    ("sell", "#!lua flags=allow-oom"),
    ("sweep", "#!lua flags=allow-oom"),
];

/// From the highest to the lowest: each may name the layers after it, and none before it.
const LAYERS: [&str; 12] = [
    "cli",
    "http",
    "private_redis",
    "sweeper",
    "reloader",
    "mover",
    "check",
    "engine",
    "scripts",
    "keys",
    "redis",
    "metrics",
];

/// What some layers deal with, and the others do not know.
const CONFINED: [(&str, &[&str]); 4] = [
    ("StatusCode", &["http"]),
    // The command line asks a running server whether it is ready, as any HTTP client does.
    ("hyper::", &["cli", "http"]),
    // The client crate. This crate's layer of the same name is `crate::redis`.
    ("::redis", &["private_redis", "redis", "scripts"]),
    ("prometheus_client", &["metrics"]),
];

/// Names that say nothing: a module with such a name is two modules, or none.
const NAMES_OF_NOTHING: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "manager"];

const LONGEST_FILE: usize = 400;

mod scripts {
    use super::*;

    #[test]
    fn checksums_are_exact_and_list_every_script() {
        let expected: String = scripts()
            .iter()
            .map(|(name, source)| {
                let sha: String = Sha1::digest(source).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{sha}  {name}.lua\n")
            })
            .collect();
        let listed = fs::read_to_string(root().join("lua/SHA1SUMS")).unwrap();
        assert_eq!(listed, expected, "run: (cd lua && sha1sum *.lua > SHA1SUMS)");
    }

    #[test]
    fn the_first_line_says_when_the_script_may_run() {
        let first_lines: BTreeMap<_, _> =
            scripts().iter().map(|(name, source)| (name.clone(), source.lines().next().unwrap().to_owned())).collect();
        let expected = FLAGS.map(|(name, line)| (name.to_owned(), line.to_owned()));
        assert_eq!(first_lines, BTreeMap::from(expected));
    }

    #[test]
    fn the_header_has_its_sections_in_order() {
        for (name, source) in scripts() {
            let header = source.lines().skip(1).take_while(|line| line.starts_with("--"));
            let headings: Vec<_> = header
                .filter_map(|line| line.strip_prefix("-- ")?.split([':', ' ']).next())
                .filter(|word| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()))
                .collect();
            assert_eq!(headings, ["KEYS", "ARGV", "REPLIES", "ERRORS"], "{name}.lua");
            let purpose = source.lines().nth(1).unwrap();
            assert!(purpose.starts_with(&format!("-- {name}: ")), "{name}.lua says what it does: {purpose}");
        }
    }

    /// Every KEYS[...] and ARGV[...] in the code is a slot of the header, and every slot is in the code.
    #[test]
    fn the_header_has_the_slots_of_the_code() {
        for (name, source) in scripts() {
            for table in ["KEYS", "ARGV"] {
                let opening = format!("{table}[");
                let code = source.lines().filter(|line| !line.starts_with("--"));
                let used: BTreeSet<String> = code
                    .flat_map(|line| line.split(&opening).skip(1))
                    .map(|rest| rest.split(']').next().unwrap().replace([' ', '*'], ""))
                    .collect();
                let section = source.lines().skip_while(|line| *line != format!("-- {table}")).skip(1);
                let listed: BTreeSet<String> = section
                    .map_while(|line| line.strip_prefix("--   "))
                    // A line may go on in the next.
                    .filter(|line| !line.starts_with("then ") && !line.starts_with(' '))
                    .map(|line| line.split(' ').next().unwrap())
                    // Slots from the fifth on are read as the fourth plus i.
                    .map(|slot| match slot.strip_suffix("...") {
                        Some(first) => format!("{}+i", first.parse::<u32>().unwrap() - 1),
                        None => slot.to_owned(),
                    })
                    .collect();
                assert_eq!(used, listed, "{table} of {name}.lua");
            }
        }
    }

    #[test]
    fn the_bytes_are_plain() {
        for (name, source) in scripts() {
            assert!(source.ends_with('\n') && !source.ends_with("\n\n"), "{name}.lua ends with one newline");
            for (n, line) in source.split('\n').enumerate() {
                let place = format!("{name}.lua:{}", n + 1);
                assert!(line.is_ascii(), "{place}: not ASCII");
                assert!(!line.contains(['\t', '\r']), "{place}: a tab or a carriage return");
                assert!(!line.ends_with(' '), "{place}: a trailing space");
                assert!(line.len() <= 120, "{place}: longer than 120");
            }
        }
    }

    #[test]
    fn a_previous_version_does_not_hide_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("previous")).unwrap();
        fs::write(folder.path().join("hold.lua"), "new").unwrap();
        fs::write(folder.path().join("previous/hold.lua"), "old").unwrap();
        let found = scripts_in(folder.path());
        assert_eq!(found, BTreeMap::from([("hold".to_owned(), "new".to_owned())]));
        assert_eq!(scripts_in(&folder.path().join("previous"))["hold"], "old");
    }

    /// The scripts by name, without the extension.
    fn scripts() -> BTreeMap<String, String> {
        scripts_in(&root().join("lua"))
    }

    /// Those of this folder, not of the folders in it.
    pub fn scripts_in(folder: &Path) -> BTreeMap<String, String> {
        let files = files_below(folder, "lua").into_iter().filter(|path| path.parent() == Some(folder));
        files
            .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
            .collect()
    }
}

/// `lua/NAME.lua` is `lua/source/NAME.lua` with the includes expanded. Each rule is in one place, and the bytes that
/// run are in one file.
mod expansion {
    use super::scripts::scripts_in;
    use super::*;

    const INCLUDE: &str = "-- @include ";

    /// Rewrites a file that differs, so that the next run passes: the commit shows the effect of the change.
    #[test]
    fn the_scripts_are_their_sources_expanded() {
        let lua = root().join("lua");
        let (sources, includes) = (scripts_in(&lua.join("source")), scripts_in(&lua.join("source/include")));
        let (committed, mut differ, mut used) = (scripts_in(&lua), Vec::new(), BTreeSet::new());
        for (name, source) in &sources {
            let expanded = expand(name, source, &includes, &mut used).unwrap();
            if committed.get(name) != Some(&expanded) {
                fs::write(lua.join(format!("{name}.lua")), expanded).unwrap();
                differ.push(name);
            }
        }
        assert_eq!(committed.keys().collect::<Vec<_>>(), sources.keys().collect::<Vec<_>>());
        assert_eq!(used, includes.keys().cloned().collect(), "includes that no script uses");
        assert!(
            differ.is_empty(),
            "{differ:?} were not as their sources say: they are rewritten, and SHA1SUMS is to be"
        );
    }

    #[test]
    fn an_include_that_is_missing_or_doubled_is_an_error() {
        let includes = [("a", "-- @include b\na\n"), ("b", "b\n"), ("loop", "-- @include loop\n")];
        let includes = includes.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let expand = |source| expand("x", source, &includes, &mut BTreeSet::new());
        assert_eq!(expand("1\n-- @include a\n2\n").unwrap(), "1\nb\na\n2\n");
        assert_eq!(expand("if x then\n  -- @include a\nend\n").unwrap(), "if x then\n  b\n  a\nend\n");
        assert_eq!(expand("-- @include b\n-- @include loop\n").unwrap_err(), "x includes loop twice");
        assert_eq!(expand("-- @include a\n-- @include b\n").unwrap_err(), "x includes b twice");
        assert_eq!(expand("-- @include c\n").unwrap_err(), "x includes c, which there is not");
    }

    #[test]
    fn a_function_is_defined_in_one_place() {
        let lua = root().join("lua/source");
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (file, source) in scripts_in(&lua).into_iter().chain(scripts_in(&lua.join("include"))) {
            // Each script decides where its lists of reservations begin.
            let names = source.lines().filter_map(|line| line.strip_prefix("local function ")?.split('(').next());
            for name in names.filter(|name| !["reservation_key", "other_key"].contains(name)) {
                let earlier = seen.insert(name.to_owned(), file.clone());
                assert_eq!(earlier, None, "{file}.lua has a {name} of its own");
            }
        }
    }

    fn expand(
        script: &str,
        source: &str,
        includes: &BTreeMap<String, String>,
        used: &mut BTreeSet<String>,
    ) -> Result<String, String> {
        let mut in_script = BTreeSet::new();
        let expanded = expand_into(script, source, includes, &mut in_script)?;
        used.extend(in_script);
        Ok(expanded)
    }

    /// Expands each include once in a script, indented as its line is, with an empty line between two of them.
    fn expand_into(
        script: &str,
        source: &str,
        includes: &BTreeMap<String, String>,
        in_script: &mut BTreeSet<String>,
    ) -> Result<String, String> {
        let mut expanded = String::new();
        let mut lines = source.lines().peekable();
        while let Some(line) = lines.next() {
            let indent = &line[..line.len() - line.trim_start().len()];
            let Some(name) = line.trim_start().strip_prefix(INCLUDE) else {
                expanded.push_str(line);
                expanded.push('\n');
                continue;
            };
            let text = includes.get(name).ok_or_else(|| format!("{script} includes {name}, which there is not"))?;
            if !in_script.insert(name.to_owned()) {
                return Err(format!("{script} includes {name} twice"));
            }
            for line in expand_into(script, text, includes, in_script)?.lines() {
                expanded.push_str(if line.is_empty() { "" } else { indent });
                expanded.push_str(line);
                expanded.push('\n');
            }
            if lines.peek().is_some_and(|next| next.starts_with(INCLUDE)) {
                expanded.push('\n');
            }
        }
        Ok(expanded)
    }
}

mod sources {
    use super::*;

    #[test]
    fn files_are_short_and_named_for_what_they_hold() {
        for path in files_below(&root().join("src"), "rs") {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= LONGEST_FILE, "{} has {lines} lines: it is two files", path.display());
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(!NAMES_OF_NOTHING.contains(&name), "{}: name it for what it holds", path.display());
        }
    }

    #[test]
    fn every_module_is_a_layer() {
        let modules: BTreeSet<_> = layered_files().into_iter().map(|file| file.layer).collect();
        let layers: BTreeSet<_> = LAYERS.map(str::to_owned).into();
        assert_eq!(modules.difference(&layers).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn a_layer_names_only_those_below_it() {
        for file in layered_files() {
            let below = LAYERS.iter().skip_while(|layer| **layer != file.layer);
            let below: Vec<_> = below.copied().collect();
            for named in crate_paths(&file.code) {
                assert!(below.contains(&&*named), "{} names crate::{named}", file.path.display());
            }
        }
    }

    #[test]
    fn a_layer_keeps_its_own_business() {
        for file in layered_files() {
            for (word, layers) in CONFINED {
                let names_it = occurrences(&file.code, word).next().is_some();
                let may = layers.contains(&&*file.layer);
                assert!(may || !names_it, "{} names {word}, which is for {layers:?}", file.path.display());
            }
        }
    }

    #[test]
    fn the_rules_see_what_they_look_for() {
        let code =
            "use crate::{http, engine::{Hold, Settle}, keys};\nuse crate::redis::Redis;\nlet x = crate::cli::run();";
        assert_eq!(crate_paths(code), ["http", "engine", "keys", "redis", "cli"]);
        assert_eq!(occurrences("use ::redis::Cmd; f(::redis::cmd(x))", "::redis").count(), 2);
        assert_eq!(occurrences("use crate::redis::Redis; use super::redis;", "::redis").count(), 0);
        assert_eq!(occurrences("hyper::body, (hyper::X)", "hyper::").count(), 2);
        assert_eq!(code_of("//! crate::a\nb(); // crate::c\n/// d"), "b(); // crate::c\n");
    }

    /// A file of one of the layers: `src/http.rs` or a file in `src/http/`.
    struct LayeredFile {
        path: PathBuf,
        layer: String,
        code: String,
    }

    /// All of `src/` except the files that connect the layers.
    fn layered_files() -> Vec<LayeredFile> {
        let src = root().join("src");
        files_below(&src, "rs")
            .into_iter()
            .map(|path| {
                let first = path.strip_prefix(&src).unwrap().components().next().unwrap().as_os_str().to_str().unwrap();
                let layer = first.trim_end_matches(".rs").to_owned();
                let code = code_of(&fs::read_to_string(&path).unwrap());
                LayeredFile { path, layer, code }
            })
            .filter(|file| !["lib", "main"].contains(&&*file.layer))
            .collect()
    }

    /// The lines that are not comments: a comment may mention anything.
    fn code_of(source: &str) -> String {
        source.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
    }

    /// The first segments of all paths that start at the crate's root, including those in a group (`crate::{a, b::c}`).
    fn crate_paths(code: &str) -> Vec<String> {
        let mut named = Vec::new();
        for (start, _) in code.match_indices("crate::") {
            let path = &code[start + "crate::".len()..];
            match path.strip_prefix('{') {
                None => named.push(identifier(path)),
                Some(group) => named.extend(group_members(group)),
            }
        }
        named
    }

    /// The first segments in `a, b::{c, d}, e}`.
    fn group_members(group: &str) -> Vec<String> {
        let (mut depth, mut members, mut member) = (0, Vec::new(), String::new());
        for character in group.chars() {
            match character {
                '}' if depth == 0 => break,
                ',' if depth == 0 => members.push(std::mem::take(&mut member)),
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth == 0 => member.push(character),
                _ => {}
            }
        }
        members.push(member);
        members.iter().map(|member| identifier(member.trim())).filter(|name| !name.is_empty()).collect()
    }

    fn identifier(text: &str) -> String {
        text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
    }

    /// Where a word occurs that is not the end of a longer path or name.
    fn occurrences<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        code.match_indices(word).map(|(start, _)| start).filter(|start| {
            let before = code[..*start].chars().next_back();
            !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
        })
    }
}

mod sabotage {
    use super::*;
    use bugs::BUGS;

    #[path = "../sabotage/bugs.rs"]
    mod bugs;

    #[test]
    fn every_planted_bug_has_its_place_in_the_code() {
        for bug in &BUGS {
            let code = fs::read_to_string(root().join(bug.file)).unwrap();
            let (what, places) = (bug.what, code.matches(bug.good).count());
            assert_eq!(places, 1, "in {} there is no one place for: {what} ({:?})", bug.file, bug.caught_by);
            assert_ne!(bug.good, bug.bad, "{what}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files with an extension in a folder and the folders in it, in order.
fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}
