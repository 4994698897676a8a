//! Events that guests can cause at any rate are sent once a second, as in QEMU.
//!
//! The first one is sent at once. Of those that come within a second after one was sent, the last is
//! kept and sent at the end of that second. Some events are counted apart by a member of their data.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two events of one kind.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// The kinds, and the member by which they are counted apart.
const LIMITED: &[(&str, Option<&str>)] = &[
    ("BALLOON_CHANGE", None),
    ("BLOCK_IO_ERROR", Some("qom-path")),
    ("HV_BALLOON_STATUS_REPORT", None),
    ("MEMORY_DEVICE_SIZE_CHANGE", Some("qom-path")),
    ("QUORUM_FAILURE", None),
    ("QUORUM_REPORT_BAD", Some("node-name")),
    ("RTC_CHANGE", None),
    ("VSERPORT_CHANGE", Some("id")),
    ("WATCHDOG", None),
];

/// Kinds and members at most of which events are kept back.
const KEYS_MAX: usize = 1024;

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    name: &'static str,
    member: String,
}

impl Key {
    /// The key of an event; `None`: it is not limited.
    pub(crate) fn of(name: &str, message: &[u8]) -> Option<Self> {
        let (name, member) = LIMITED.iter().find(|(limited, _)| *limited == name)?;
        let member = member.map(|member| match serde_json::from_slice::<Value>(message) {
            Ok(message) => message["data"][member].as_str().unwrap_or_default().to_owned(),
            Err(_) => String::new(),
        });
        Some(Self { name, member: member.unwrap_or_default() })
    }
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent now, and [`Throttle::due`] asked after a [`PERIOD`].
    Send,
    /// It is kept, or there is no room to keep it.
    Kept,
    /// It is sent now; there are too many kinds to count.
    Unlimited,
}

/// The kinds of which an event was sent within the last period, with what is to be sent at its end.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<HashMap<Key, Option<Vec<u8>>>>);

impl Throttle {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Option<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self, key: &Key, message: &[u8]) -> Verdict {
        let mut kinds = self.lock();
        if let Some(kept) = kinds.get_mut(key) {
            *kept = Some(message.to_vec());
            return Verdict::Kept;
        }
        if kinds.len() >= KEYS_MAX {
            return Verdict::Unlimited;
        }
        kinds.insert(key.clone(), None);
        Verdict::Send
    }

    /// At the end of a period: what is to be sent now, with another period behind it. `None`: there
    /// is nothing, and the next event is sent at once.
    pub(crate) fn due(&self, key: &Key) -> Option<Vec<u8>> {
        let mut kinds = self.lock();
        let kept = kinds.get_mut(key).and_then(Option::take);
        if kept.is_none() {
            kinds.remove(key);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Throttle, Verdict};

    fn key(name: &str, data: &str) -> Option<Key> {
        Key::of(name, format!("{{\"event\": \"{name}\", \"data\": {data}}}").as_bytes())
    }

    #[test]
    fn the_last_of_a_period_is_kept() {
        let throttle = Throttle::default();
        let rtc = key("RTC_CHANGE", "{}").unwrap();
        assert_eq!(throttle.take(&rtc, b"1"), Verdict::Send);
        assert_eq!(throttle.take(&rtc, b"2"), Verdict::Kept);
        assert_eq!(throttle.take(&rtc, b"3"), Verdict::Kept);
        assert_eq!(throttle.due(&rtc).unwrap(), b"3");
        assert_eq!(throttle.take(&rtc, b"4"), Verdict::Kept);
        assert_eq!(throttle.due(&rtc).unwrap(), b"4");
        assert_eq!(throttle.due(&rtc), None);
        assert_eq!(throttle.take(&rtc, b"5"), Verdict::Send);
    }

    #[test]
    fn kinds_are_counted_apart_by_their_members() {
        let throttle = Throttle::default();
        let port = |id: &str| key("VSERPORT_CHANGE", &format!("{{\"id\": \"{id}\"}}")).unwrap();
        assert_eq!(throttle.take(&port("a"), b""), Verdict::Send);
        assert_eq!(throttle.take(&port("b"), b""), Verdict::Send);
        assert_eq!(throttle.take(&port("a"), b""), Verdict::Kept);
        assert_eq!(key("STOP", "{}"), None);
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let throttle = Throttle::default();
        let port = |n: usize| key("VSERPORT_CHANGE", &format!("{{\"id\": \"{n}\"}}")).unwrap();
        for n in 0..super::KEYS_MAX {
            assert_eq!(throttle.take(&port(n), b""), Verdict::Send);
        }
        assert_eq!(throttle.take(&port(super::KEYS_MAX), b""), Verdict::Unlimited);
    }
}
