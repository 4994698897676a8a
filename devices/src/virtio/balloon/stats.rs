//! What a driver tells of its memory (section 5.5.6.3).

/// The names of the statistics, by their tags.
pub(super) const NAMES: [&str; 16] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
    "stat-htlb-pgalloc",
    "stat-htlb-pgfail",
    "stat-oom-kills",
    "stat-alloc-stalls",
    "stat-async-scans",
    "stat-direct-scans",
    "stat-async-reclaims",
    "stat-direct-reclaims",
];

/// Bytes of one entry: a tag and a value.
pub(super) const ENTRY: usize = 10;

/// Statistics of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalloonStats {
    values: [Option<u64>; NAMES.len()],
    /// When they were told, in seconds of the Unix epoch; 0: never.
    pub last_update: u64,
}

impl Default for BalloonStats {
    fn default() -> Self {
        Self { values: [None; NAMES.len()], last_update: 0 }
    }
}

impl BalloonStats {
    /// Reads the entries of a driver's buffer; what is not known is passed over.
    pub(super) fn parse(bytes: &[u8], now: u64) -> Self {
        let mut stats = Self { last_update: now, ..Self::default() };
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        for [a, b, value @ ..] in entries {
            let tag = usize::from(u16::from_le_bytes([*a, *b]));
            if let Some(place) = stats.values.get_mut(tag) {
                *place = Some(u64::from_le_bytes(*value));
            }
        }
        stats
    }

    /// Names and values; all ones stand for one that was not told.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().zip(self.values).map(|(name, value)| (*name, value.unwrap_or(u64::MAX)))
    }
}
