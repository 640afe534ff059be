//! The number of a server among several that share the work behind one balancer. Its ids carry the number, so that the balancer
//! finds the server of a job by one pattern.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

/// A server's number. It is written as four hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(u16);

/// The bytes of a UUID that hold the number: the first four digits of the last group.
const PLACE: std::ops::Range<usize> = 10..12;
const NANOS_IN_MS: u32 = 1_000_000;

impl Node {
    /// Writes the number into a random UUID.
    pub fn mark(self, uuid: Uuid) -> Uuid {
        let mut bytes = uuid.into_bytes();
        bytes[PLACE].copy_from_slice(&self.0.to_be_bytes());
        Uuid::from_bytes(bytes)
    }

    /// A new UUID of version 7 with the number in it. The time takes the first 60 bits apart from the version: milliseconds, and
    /// their 4096ths in the place where RFC 9562 (section 6.2, method 3) allows more of it. The 46 bits that the number
    /// and the variant leave are random.
    pub fn uuid_v7(self) -> Uuid {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.uuid_v7_at(now)
    }

    fn uuid_v7_at(self, now: Duration) -> Uuid {
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let fraction = u64::from(now.subsec_nanos() % NANOS_IN_MS) * 4096 / u64::from(NANOS_IN_MS);
        let time = (ms << 16) | 0x7000 | fraction;
        // The last 8 bytes of version 4 have the variant and random bits only.
        let mut bytes = Uuid::new_v4().into_bytes();
        bytes[..8].copy_from_slice(&time.to_be_bytes());
        self.mark(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

/// Reads a setting, which is decimal.
impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("it should be a number from 0 to {}", u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_number_begins_the_last_group() {
        let id = Node(0x0a3f).uuid_v7().to_string();
        assert_eq!(&id[24..28], "0a3f", "{id}");
        let id = Node(2).mark(Uuid::nil());
        assert_eq!(id.to_string(), "00000000-0000-0000-0000-000200000000");
    }

    #[test]
    fn the_ids_are_of_version_7_and_sort_by_their_time() {
        let at = |nanos| Node(9).uuid_v7_at(Duration::from_nanos(nanos));
        let time = 1_790_000_000_123_000_000;
        let id = at(time);
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(id.get_timestamp().unwrap().to_unix(), (1_790_000_000, 123_000_000));
        for (earlier, later) in [(0, 250), (999_000, 1_000_000), (1, 2_000_000)] {
            assert!(at(time + earlier) < at(time + later), "{earlier} {later}");
        }
    }

    #[test]
    fn ids_of_one_instant_differ_in_46_bits() {
        let ids: BTreeSet<_> =
            (0..1000).map(|_| Node(7).uuid_v7_at(Duration::from_secs(1)).as_u128()).collect();
        assert_eq!(ids.len(), 1000);
        let (ever, always) = ids.iter().fold((0, u128::MAX), |(ever, always), id| (ever | id, always & id));
        assert_eq!((ever & !always).count_ones(), 46);
    }

    #[test]
    fn a_number_has_16_bits() {
        assert_eq!("65535".parse(), Ok(Node(u16::MAX)));
        for text in ["", "-1", "65536", "0x1", "one", "1.0"] {
            assert_eq!(
                text.parse::<Node>(),
                Err("it should be a number from 0 to 65535".to_owned()),
                "{text}"
            );
        }
    }
}
