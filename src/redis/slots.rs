//! The slots of a Redis Cluster: which one a key, and so a command, belongs to.

use ::redis::{Arg, Cmd};

/// The number of slots in every cluster.
pub(super) const SLOTS: usize = 16384;

/// The slot of a key: CRC16 of what is between the first `{` and the next `}`, or of all of it if that is nothing.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').map(|close| &rest[..close])
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS as u16
}

/// CRC16 as Redis Cluster computes it.
pub fn crc16(bytes: &[u8]) -> u16 {
    const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
    CRC16.checksum(bytes)
}

/// The slot of the first key of a command; `None` when it has no key.
pub(super) fn slot_of(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => b"",
    });
    let key = match words.next()? {
        b"CLUSTER" | b"INFO" | b"SCAN" | b"SCRIPT" | b"WAIT" => None,
        b"EVALSHA" => words.nth(1).filter(|count| *count != b"0").and(words.next()),
        b"XINFO" => words.nth(1),
        _ => words.next(),
    };
    key.map(slot)
}

#[cfg(test)]
mod tests {
    use ::redis::cmd;

    use super::*;

    #[test]
    fn a_key_is_in_the_slot_of_its_tag() {
        // As CLUSTER KEYSLOT gives them.
        for (key, expected) in
            [("123456789", 12739), ("foo", 12182), ("{foo}", 12182), ("a{foo}b", 12182), ("{foo}{bar}", 12182), ("", 0)]
        {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        for whole in ["{}foo", "foo{", "{foo", "foo}{", "foo{}{bar}"] {
            assert_eq!(slot(whole.as_bytes()), crc16(whole.as_bytes()) % 16384, "{whole}");
        }
        assert_eq!(slot(b"{{foo}}"), slot(b"{foo"), "the tag ends at the first brace");
    }

    #[test]
    fn a_command_is_in_the_slot_of_its_first_key() {
        let foo = Some(slot(b"foo"));
        assert_eq!(slot_of(cmd("HGETALL").arg("foo")), foo);
        assert_eq!(slot_of(cmd("EVALSHA").arg("sha").arg(2).arg("foo").arg("bar").arg("argument")), foo);
        assert_eq!(slot_of(cmd("XINFO").arg("STREAM").arg("foo")), foo);
        assert_eq!(slot_of(cmd("EVALSHA").arg("sha").arg(0).arg("foo")), None);
        for command in [&["TIME"][..], &["INFO", "memory"], &["SCAN", "0"], &["WAIT", "1", "500"], &["SCRIPT", "LOAD"]]
        {
            assert_eq!(slot_of(cmd(command[0]).arg(&command[1..])), None, "{command:?}");
        }
    }
}
