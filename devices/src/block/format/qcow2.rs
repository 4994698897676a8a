//! The header of qcow2 images, and their table of snapshots (docs/interop/qcow2.txt of QEMU).

use super::{u16_at, u32_at, u64_at};

/// Bytes of an image that [`Qcow2Header::parse`] is given; all that it reads is among them.
pub const HEADER_BYTES: usize = 64 << 10;
/// Snapshots that a table may have.
pub const SNAPSHOTS_MAX: u32 = 65_536;

const MAGIC: u32 = 0x5146_49fb;
/// Of version 2, and of version 3 at least.
const LENGTHS: [usize; 2] = [72, 104];
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Longer ones cannot be opened by QEMU either.
const BACKING_NAME_MAX: usize = 1023;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Deflate.
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// QEMU's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// What the header of an image says; offsets and sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Header {
    /// 2 or 3.
    pub version: u32,
    /// The size of a cluster, as a power of two: 9 to 21.
    pub cluster_bits: u32,
    /// What the guest sees.
    pub size: u64,
    /// Entries of the active L1 table.
    pub l1_entries: u32,
    /// Where it is.
    pub l1_offset: u64,
    /// Where the refcount table is.
    pub refcount_table_offset: u64,
    /// Its size in clusters.
    pub refcount_table_clusters: u32,
    /// The width of a refcount in bits, as a power of two: 0 to 6.
    pub refcount_order: u32,
    /// Entries of the table of snapshots.
    pub snapshots: u32,
    /// Where it is.
    pub snapshots_offset: u64,
    /// Bits that all who open it must know.
    pub incompatible: u64,
    /// Bits that who knows them heeds.
    pub compatible: u64,
    /// The data is encrypted.
    pub encrypted: bool,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// The image behind it, as it is named.
    pub backing_file: Option<String>,
    /// The format of that.
    pub backing_format: Option<String>,
}

impl Qcow2Header {
    /// Refcounts may be wrong.
    pub const DIRTY: u64 = 1;
    /// Anything may be wrong.
    pub const CORRUPT: u64 = 1 << 1;
    /// Data is in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// L2 entries have subclusters.
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// Refcounts may be written late.
    pub const LAZY_REFCOUNTS: u64 = 1;

    /// Reads a header of the first [`HEADER_BYTES`] bytes of an image, or all where it has fewer. The
    /// error is the end of a sentence.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let short = || "Image is not in qcow2 format".to_owned();
        let word = |at| u32_at(bytes, at).ok_or_else(short);
        let long = |at| u64_at(bytes, at).ok_or_else(short);
        if word(0)? != MAGIC {
            return Err(short());
        }
        let version = word(4)?;
        if !(2..=3).contains(&version) {
            return Err(format!("Unsupported qcow2 version {version}"));
        }
        let v3 = version == 3;
        let cluster_bits = word(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(format!("Unsupported cluster size: 2^{cluster_bits}"));
        }
        let refcount_order = if v3 { word(96)? } else { 4 };
        if refcount_order > 6 {
            return Err("Reference count entry width too large; may not exceed 64 bits".to_owned());
        }
        let length = if v3 { word(100)? as usize } else { LENGTHS[0] };
        if v3 && length < LENGTHS[1] {
            return Err("qcow2 header too short".to_owned());
        }
        let compression = match bytes.get(104) {
            Some(1) if length > 104 => Compression::Zstd,
            _ => Compression::Zlib,
        };
        Ok(Self {
            version,
            cluster_bits,
            size: long(24)?,
            l1_entries: word(36)?,
            l1_offset: long(40)?,
            refcount_table_offset: long(48)?,
            refcount_table_clusters: word(56)?,
            refcount_order,
            snapshots: word(60)?,
            snapshots_offset: long(64)?,
            incompatible: if v3 { long(72)? } else { 0 },
            compatible: if v3 { long(80)? } else { 0 },
            encrypted: word(32)? != 0,
            compression,
            backing_file: backing_file(bytes, long(8)?, word(16)? as usize)?,
            backing_format: backing_format(bytes, length),
        })
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an entry of an L2 table.
    pub fn l2_entry_size(&self) -> u64 {
        if self.incompatible & Self::EXTENDED_L2 != 0 { 16 } else { 8 }
    }
}

fn backing_file(bytes: &[u8], offset: u64, len: usize) -> Result<Option<String>, String> {
    if offset == 0 || len == 0 {
        return Ok(None);
    }
    let name = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..len));
    match name {
        Some(name) if len <= BACKING_NAME_MAX => {
            let name = std::str::from_utf8(name);
            name.map(|name| Some(name.to_owned()))
                .map_err(|_| "The name of the backing file is not UTF-8".to_owned())
        }
        _ => Err("Backing file name too long".to_owned()),
    }
}

/// The header extension that names the format of the backing file.
fn backing_format(bytes: &[u8], mut at: usize) -> Option<String> {
    loop {
        let (kind, len) = (u32_at(bytes, at)?, u32_at(bytes, at.checked_add(4)?)? as usize);
        at += 8;
        match kind {
            0 => return None,
            BACKING_FORMAT => {
                let name = bytes.get(at..)?.get(..len)?;
                return String::from_utf8(name.to_vec()).ok();
            }
            _ => at = at.checked_add(len.checked_next_multiple_of(8)?)?,
        }
    }
}

/// A snapshot inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number, as text.
    pub id: String,
    /// What its maker has called it.
    pub name: String,
    /// Where its L1 table is.
    pub l1_offset: u64,
    /// Entries of that.
    pub l1_entries: u32,
    /// When it was made: seconds since 1970.
    pub date_s: u32,
    /// Nanoseconds beyond.
    pub date_ns: u32,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_ns: u64,
    /// Bytes of the guest's state.
    pub vm_state_size: u64,
    /// Instructions that the guest had run.
    pub icount: Option<u64>,
    /// Bytes of its entry in the table.
    pub table_bytes: u64,
}

impl Snapshot {
    /// Reads a table of `count` snapshots; `None` where it is cut off.
    pub fn parse_table(bytes: &[u8], count: u32) -> Option<Vec<Self>> {
        let mut at = 0;
        let mut all = Vec::new();
        for _ in 0..count.min(SNAPSHOTS_MAX) {
            let entry = bytes.get(at..)?;
            let extra = u32_at(entry, 36)? as usize;
            let id_len = usize::from(u16_at(entry, 12)?);
            let name_len = usize::from(u16_at(entry, 14)?);
            let id_at = extra.checked_add(40)?;
            let text = |at: usize, len: usize| {
                let bytes = entry.get(at..)?.get(..len)?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            };
            let more = |n: usize| (extra >= n + 8).then(|| u64_at(entry, 40 + n)).flatten();
            let len = (id_at + id_len + name_len).next_multiple_of(8);
            all.push(Self {
                id: text(id_at, id_len)?,
                name: text(id_at + id_len, name_len)?,
                l1_offset: u64_at(entry, 0)?,
                l1_entries: u32_at(entry, 8)?,
                date_s: u32_at(entry, 16)?,
                date_ns: u32_at(entry, 20)?,
                vm_clock_ns: u64_at(entry, 24)?,
                vm_state_size: more(0).unwrap_or(u64::from(u32_at(entry, 32)?)),
                icount: more(16).filter(|count| *count != u64::MAX),
                table_bytes: len as u64,
            });
            at += len;
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_be_bytes());
        put(4, &3u32.to_be_bytes());
        put(8, &128u64.to_be_bytes());
        put(16, &4u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(1u64 << 30).to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        put(104, &BACKING_FORMAT.to_be_bytes());
        put(108, &3u32.to_be_bytes());
        put(112, b"raw");
        put(128, b"base");
        bytes
    }

    #[test]
    fn a_header_says_what_it_says() {
        let parsed = Qcow2Header::parse(&header()).unwrap();
        assert_eq!((parsed.version, parsed.cluster_size(), parsed.size), (3, 65536, 1 << 30));
        assert_eq!(parsed.backing_file.as_deref(), Some("base"));
        assert_eq!(parsed.backing_format.as_deref(), Some("raw"));
        assert_eq!(parsed.compression, Compression::Zlib);
        for (at, value, text) in [
            (0, 0, "Image is not in qcow2 format"),
            (7, 9, "Unsupported qcow2 version 9"),
            (23, 40, "Unsupported cluster size: 2^40"),
            (99, 7, "Reference count entry width too large; may not exceed 64 bits"),
            (103, 7, "qcow2 header too short"),
            (8, 1, "Backing file name too long"),
        ] {
            let mut bytes = header();
            bytes[at] = value;
            assert_eq!(Qcow2Header::parse(&bytes), Err(text.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            start in prop::collection::vec(any::<u8>(), 0..200),
            count in any::<u32>(),
        ) {
            let mut bytes = header();
            bytes.splice(8..8 + start.len(), start.iter().copied());
            let _ = Qcow2Header::parse(&bytes);
            let _ = Snapshot::parse_table(&start, count);
        }
    }
}
