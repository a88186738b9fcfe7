//! What a script's header says, as data: the manifest comes from the same lines that people read.

/// The contract of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// What the script does, in one sentence.
    pub purpose: &'static str,
    /// The flags of its first line, such as `no-writes`.
    pub flags: Vec<&'static str>,
    /// The slots of KEYS.
    pub keys: Vec<KeySlot>,
    /// The slots of ARGV.
    pub arguments: Vec<ArgumentSlot>,
    /// The replies, in the order in which they are decided.
    pub replies: Vec<ReplyWord>,
    /// The error replies.
    pub errors: Vec<ReplyWord>,
}

/// A slot of KEYS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Its number, from 1; `3i+1` for the slots of item i, `5...` for any number of slots from there on.
    pub slot: &'static str,
    /// Its name in the header.
    pub name: &'static str,
    /// The Redis type of the key.
    pub kind: &'static str,
    /// The shape of the key's name.
    pub shape: String,
}

/// A slot of ARGV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentSlot {
    /// Its number, see [`KeySlot::slot`].
    pub slot: &'static str,
    /// Its name in the header.
    pub name: &'static str,
    /// The rule for its value.
    pub rule: String,
}

/// One kind of reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyWord {
    /// The first element, in upper case.
    pub word: &'static str,
    /// The elements after it.
    pub fields: Vec<&'static str>,
    /// When the script gives it.
    pub meaning: String,
}

impl Contract {
    /// Reads the header of the script `name`; the error says which line breaks its grammar.
    pub(super) fn parse(name: &str, source: &'static str) -> Result<Self, String> {
        let mut lines = source.lines();
        let first = lines.next().unwrap_or_default();
        let shebang = first.strip_prefix("#!lua").ok_or("the first line is not #!lua")?;
        let flags = shebang.trim().strip_prefix("flags=").unwrap_or_default();
        let title = lines.next().unwrap_or_default();
        let purpose = title.strip_prefix("-- ").and_then(|title| title.strip_prefix(name)?.strip_prefix(": "));
        let mut contract = Self {
            purpose: purpose.ok_or("the second line is not '-- name: purpose'")?,
            flags: flags.split(',').filter(|flag| !flag.is_empty()).collect(),
            keys: Vec::new(),
            arguments: Vec::new(),
            replies: Vec::new(),
            errors: Vec::new(),
        };
        let mut section = "";
        for line in lines.map_while(|line| line.strip_prefix("--")) {
            let text = line.trim_start();
            match line.len() - text.len() {
                _ if text.is_empty() => section = "",
                1 => section = text.split([':', ' ']).next().unwrap_or_default(),
                indent => {
                    contract.entry(section, indent, text).ok_or_else(|| format!("not understood: --{line}"))?;
                }
            }
        }
        Ok(contract)
    }

    /// Takes one indented line of a section.
    fn entry(&mut self, section: &str, indent: usize, text: &'static str) -> Option<()> {
        let mut words = text.split_whitespace();
        match section {
            // A line that introduces the slots of each item adds nothing to their numbers.
            "KEYS" | "ARGV" if text.starts_with("then ") => {}
            "KEYS" => {
                let (slot, name, kind) = (words.next()?, words.next()?, words.next()?);
                self.keys.push(KeySlot { slot, name, kind, shape: join(words) });
            }
            // The rule goes on.
            "ARGV" if indent > 3 => {
                let rule = &mut self.arguments.last_mut()?.rule;
                *rule = join([rule.as_str(), text].into_iter());
            }
            "ARGV" => {
                let (slot, name) = (words.next()?, words.next()?);
                self.arguments.push(ArgumentSlot { slot, name, rule: join(words) });
            }
            "REPLIES" | "ERRORS" => {
                let replies = if section == "REPLIES" { &mut self.replies } else { &mut self.errors };
                let (call, meaning) = text.split_once("  ").unwrap_or((text, ""));
                match indent {
                    3 => {
                        let mut words = call.split_whitespace();
                        let (word, fields) = (words.next()?, words.collect());
                        replies.push(ReplyWord { word, fields, meaning: meaning.trim().to_owned() });
                    }
                    // More fields, or more of the meaning, which is far to the right.
                    4..20 => replies.last_mut()?.fields.extend(words),
                    _ => {
                        let last = replies.last_mut()?;
                        last.meaning = join([last.meaning.as_str(), text].into_iter().filter(|part| !part.is_empty()));
                    }
                }
            }
            // Remarks below the contract.
            _ => {}
        }
        Some(())
    }
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
#!lua flags=no-writes,allow-oom
-- sell: sell a thing.
--
-- KEYS
--   1     shelf   hash  shelf:<name>
--   then one for each item:
--   1+i   thing   zset  thing:<id>, any number
--
-- ARGV
--   1     price   cents, 1 to 100
--
-- REPLIES: one array
--   SOLD price buyer              done
--   GONE                          somebody was faster;
--                                 try another
--   LONG a b c
--        d e
--                                 meaning below
--
-- ERRORS: nothing was written
--   BADARGS what                  an argument breaks its rule
--
-- A remark.
local x = 1
-- KEYS are not read from here on
";

    #[test]
    fn reads_every_section() {
        let contract = Contract::parse("sell", SOURCE).unwrap();
        assert_eq!(contract.purpose, "sell a thing.");
        assert_eq!(contract.flags, ["no-writes", "allow-oom"]);
        let keys: Vec<_> = contract.keys.iter().map(|key| (key.slot, key.name, key.kind, &*key.shape)).collect();
        assert_eq!(keys, [("1", "shelf", "hash", "shelf:<name>"), ("1+i", "thing", "zset", "thing:<id>, any number")]);
        let arguments: Vec<_> = contract.arguments.iter().map(|slot| (slot.slot, slot.name, &*slot.rule)).collect();
        assert_eq!(arguments, [("1", "price", "cents, 1 to 100")]);
        let replies: Vec<_> =
            contract.replies.iter().map(|reply| (reply.word, &*reply.fields, &*reply.meaning)).collect();
        assert_eq!(
            replies,
            [
                ("SOLD", &["price", "buyer"][..], "done"),
                ("GONE", &[], "somebody was faster; try another"),
                ("LONG", &["a", "b", "c", "d", "e"], "meaning below"),
            ]
        );
        assert_eq!(contract.errors[0].word, "BADARGS");
    }

    #[test]
    fn says_which_line_it_does_not_understand() {
        assert!(Contract::parse("other", SOURCE).unwrap_err().contains("name: purpose"));
        assert!(Contract::parse("sell", "-- sell: x").unwrap_err().contains("#!lua"));
        let broken = Contract::parse("sell", "#!lua\n-- sell: x.\n--\n-- KEYS\n--   1  shelf\n").unwrap_err();
        assert!(broken.contains("1  shelf"), "{broken}");
    }
}
