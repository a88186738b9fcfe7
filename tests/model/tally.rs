//! How often each answer occurred: a sequence that reaches nothing proves nothing.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Default)]
pub struct Tally {
    pub sequences: u64,
    pub calls: u64,
    words: BTreeMap<(&'static str, String), u64>,
}

impl Tally {
    /// Counts an answer's first word.
    pub fn add(&mut self, script: &'static str, word: &str) {
        *self.words.entry((script, word.to_owned())).or_default() += 1;
    }

    pub fn reached(&self, script: &'static str, word: &str) -> bool {
        self.words.contains_key(&(script, word.to_owned()))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} sequences, {} calls", self.sequences, self.calls)?;
        let mut last = "";
        for ((script, word), count) in &self.words {
            if *script != last {
                write!(f, "\n  {script}:")?;
                last = script;
            }
            write!(f, " {word} {count}")?;
        }
        Ok(())
    }
}
