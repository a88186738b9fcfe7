//! Small scripts that try what the scripts need of a server. None of them leaves anything but its text in the script cache.

use ::redis::{Value, cmd};

use super::text;
use crate::redis::{Failure, Redis};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// A call with a key and an argument.
    Call,
    /// Whether a script is told of its rights.
    Rights,
    /// A change at a time that the script has read.
    Change,
}

impl Trial {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Call, Self::Rights, Self::Change];

    fn source(self) -> &'static str {
        match self {
            Self::Call => "#!lua flags=no-writes\nreturn {KEYS[1], ARGV[1]}\n",
            Self::Rights => {
                "#!lua flags=no-writes\nreturn {tostring(redis.acl_check_cmd('HSET', KEYS[1], 'field', ARGV[1])), ARGV[1]}\n"
            }
            // The first PEXPIRE finds no key: if it is refused, so would be the last, and the key would stay.
            Self::Change => {
                "#!lua\nlocal time = redis.call('TIME')\nredis.call('PEXPIRE', KEYS[1], 1)\n\
                 redis.call('HSET', KEYS[1], 'time', time[1])\nredis.call('PEXPIRE', KEYS[1], 0)\n\
                 return {KEYS[1], ARGV[1]}\n"
            }
        }
    }

    /// Loads it, and returns its SHA-1.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn load(self, redis: &Redis) -> Result<String, Failure> {
        let loaded = redis.call(cmd("SCRIPT").arg("LOAD").arg(self.source())).await?;
        text(loaded).ok_or_else(|| Failure::Malformed("SCRIPT LOAD gave no SHA-1".to_owned()))
    }

    /// Whether a script is loaded.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn is_loaded(redis: &Redis, sha1: &str) -> Result<bool, Failure> {
        let exists = redis.call(cmd("SCRIPT").arg("EXISTS").arg(sha1)).await?;
        Ok(exists == Value::Array(vec![Value::Int(1)]))
    }

    /// Calls it on a key, which is not there before and not there after.
    ///
    /// # Errors
    /// See [`Failure`]; another reply than that of the script is [`Failure::Malformed`].
    pub async fn call(self, redis: &Redis, sha1: &str, key: &str) -> Result<(), Failure> {
        const ARGUMENT: &str = "argument";
        let reply = redis.call(cmd("EVALSHA").arg(sha1).arg(1).arg(key).arg(ARGUMENT)).await?;
        let Value::Array(parts) = reply else { return Err(Failure::Malformed("the script gave no list".to_owned())) };
        let parts: Option<Vec<_>> = parts.into_iter().map(text).collect();
        match parts.as_deref() {
            // Which rights the user has, the change will show.
            Some([told, argument]) if argument == ARGUMENT && (told == key || self == Self::Rights) => Ok(()),
            other => Err(Failure::Malformed(format!("the script answered {other:?}"))),
        }
    }
}
