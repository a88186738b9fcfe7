//! What a client notes on a reservation.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Invalid;
use super::name::is_name;

/// How many strings a reservation keeps at most.
const MOST: usize = 8;

/// Strings by name that a reservation keeps for its client, such as the number of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// # Errors
    /// Unless there are 1 to 8, with different names, and all names and strings are 1 to 128 bytes without control
    /// characters.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Self, Invalid> {
        let count = pairs.len();
        let strings: BTreeMap<_, _> = pairs.into_iter().collect();
        let are_text = strings.iter().all(|(name, value)| is_name(name) && is_name(value));
        if strings.len() == count && (1..=MOST).contains(&count) && are_text { Ok(Self(strings)) } else { Err(RULE) }
    }

    /// Reads the JSON that is stored.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn parse(json: &str) -> Result<Self, Invalid> {
        let strings: BTreeMap<String, String> = serde_json::from_str(json).map_err(|_| RULE)?;
        Self::new(strings.into_iter().collect())
    }

    /// As JSON, the names in alphabetical order: the same strings are the same text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("strings are JSON")
    }
}

const RULE: Invalid = Invalid {
    field: "metadata",
    rule: "must be an object of 1 to 8 strings, names and strings of 1 to 128 bytes of UTF-8 without control characters",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_strings_are_the_same_text() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let metadata = Metadata::new(vec![pair("order", "A-\"17\""), pair("channel", "größe")]).unwrap();
        assert_eq!(metadata.to_json(), r#"{"channel":"größe","order":"A-\"17\""}"#);
        assert_eq!(Metadata::parse(&metadata.to_json()).unwrap(), metadata);
        assert!(Metadata::new(vec![pair("a", "b"), pair("a", "b")]).is_err(), "a name that is given twice");
        assert!(Metadata::new(Vec::new()).is_err() && Metadata::new(vec![pair("a", "\n")]).is_err());
        for bad in ["", "[]", "{}", r#"{"a":1}"#, r#"{"":"b"}"#] {
            assert!(Metadata::parse(bad).is_err(), "{bad}");
        }
    }
}
