//! `check`: whether the tables of a qcow2 image agree with each other. Every cluster that a table names
//! is counted; the refcounts have to say the same.

use super::arguments::{Arguments, Option_};
use super::image::{Access, Images, child};
use super::output::percent;
use devices::block::format::Qcow2Header;
use devices::block::graph::{Content, Details};
use serde_json::{Value, json};
use std::fmt::Write;
use std::io;

pub(super) const OPTIONS: &[Option_] = &[
    Option_('q', "quiet", false),
    Option_('f', "format", true),
    Option_('U', "force-share", false),
    Option_('\0', "output", true),
];

/// What qemu-img ends with.
const CORRUPT: u8 = 2;
const LEAKED: u8 = 3;
const UNSUPPORTED: u8 = 63;
/// Lines about single clusters that are printed.
const LINES_MAX: usize = 1000;
/// Where tables and data are, in their entries.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

pub(super) async fn run(args: Arguments) -> Result<u8, String> {
    let (path, json) = (args.file()?, args.json()?);
    let mut images = Images::new()?;
    let image = images.open(path, Access::to_look(&args)).await?;
    let details = image.node.details();
    let details = details.filter(|details| details.header.is_some());
    let (Some(details), Some(file)) = (details, child(&image.node, "file")) else {
        images.close().await?;
        eprintln!("ringvisor img check: This image format does not support checks");
        return Ok(UNSUPPORTED);
    };
    let file = Content::of(&file).map_err(|error| error.text)?;
    let mut check = Check::new(file, &details);
    let done = check.run(&details).await;
    images.close().await?;
    done.map_err(|error| format!("'{path}': {error}"))?;
    if json {
        println!("{:#}", check.as_json(path));
    } else if !args.has("quiet") {
        print!("{}", check.as_text());
    }
    Ok(match (check.corruptions, check.leaks) {
        (0, 0) => 0,
        (0, _) => LEAKED,
        _ => CORRUPT,
    })
}

struct Check {
    file: Content,
    header: Option<Qcow2Header>,
    cluster_bits: u32,
    /// How often each cluster of the file is named.
    counts: Vec<u32>,
    lines: Vec<String>,
    corruptions: u64,
    leaks: u64,
    total: u64,
    allocated: u64,
    compressed: u64,
    fragmented: u64,
    /// Where the guest's data went on last.
    next: Option<u64>,
    /// Behind the last cluster that is in use.
    end: u64,
}

impl Check {
    fn new(file: Content, details: &Details) -> Self {
        let header = details.header.clone();
        let cluster_bits = header.as_ref().map_or(16, |header| header.cluster_bits);
        let clusters = file.size().div_ceil(1 << cluster_bits);
        Self {
            counts: vec![0; clusters as usize],
            file,
            header,
            cluster_bits,
            lines: Vec::new(),
            corruptions: 0,
            leaks: 0,
            total: 0,
            allocated: 0,
            compressed: 0,
            fragmented: 0,
            next: None,
            end: 0,
        }
    }

    async fn run(&mut self, details: &Details) -> io::Result<()> {
        let Some(header) = self.header.clone() else { return Ok(()) };
        self.total = header.size.div_ceil(header.cluster_size());
        self.count(0, header.cluster_size(), "header");
        self.tables(header.l1_offset, header.l1_entries, true).await?;
        for snapshot in &details.snapshots {
            self.tables(snapshot.l1_offset, snapshot.l1_entries, false).await?;
        }
        if header.snapshots > 0 {
            let bytes = snapshot_table_bytes(details);
            self.count(header.snapshots_offset, bytes, "snapshot table");
        }
        self.refcounts(&header).await
    }

    fn corrupt(&mut self, line: String) {
        self.corruptions += 1;
        self.say(line);
    }

    fn say(&mut self, line: String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        }
    }

    /// Counts the clusters of `len` bytes at `offset`.
    fn count(&mut self, offset: u64, len: u64, what: &str) {
        let first = offset >> self.cluster_bits;
        let last = offset.saturating_add(len.max(1) - 1) >> self.cluster_bits;
        if last >= self.counts.len() as u64 {
            return self.corrupt(format!(
                "ERROR {what} at offset {offset:#x} is behind the end of the file"
            ));
        }
        for cluster in first..=last {
            let count = &mut self.counts[cluster as usize];
            *count = count.saturating_add(1);
        }
    }

    async fn entries(&self, offset: u64, count: u64) -> io::Result<Vec<u64>> {
        let len = usize::try_from(count * 8).map_err(io::Error::other)?;
        let bytes = self.file.read(offset, len).await?;
        let entry =
            |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Ok(bytes.chunks(8).map(entry).collect())
    }

    /// Whether a table of so many bytes can be read.
    fn is_table(&mut self, offset: u64, len: u64, what: &str) -> bool {
        let aligned = offset.is_multiple_of(1 << self.cluster_bits);
        let there = offset
            .checked_add(len)
            .is_some_and(|end| end <= (self.counts.len() as u64) << self.cluster_bits);
        if !aligned {
            self.corrupt(format!("ERROR {what} at offset {offset:#x} is not cluster aligned"));
        } else if !there {
            self.corrupt(format!(
                "ERROR {what} at offset {offset:#x} is behind the end of the file"
            ));
        }
        aligned && there
    }

    /// An L1 table and all that it names.
    async fn tables(&mut self, offset: u64, entries: u32, active: bool) -> io::Result<()> {
        let len = u64::from(entries) * 8;
        if entries == 0 || !self.is_table(offset, len, "L1 table") {
            return Ok(());
        }
        self.count(offset, len, "L1 table");
        let cluster = 1u64 << self.cluster_bits;
        for entry in self.entries(offset, entries.into()).await? {
            let l2 = entry & OFFSET;
            if l2 == 0 || !self.is_table(l2, cluster, "L2 table") {
                continue;
            }
            self.count(l2, cluster, "L2 table");
            for entry in self.entries(l2, cluster / 8).await? {
                self.data(entry, active);
            }
        }
        Ok(())
    }

    /// An entry of an L2 table.
    fn data(&mut self, entry: u64, active: bool) {
        let cluster = 1u64 << self.cluster_bits;
        if entry & COMPRESSED != 0 {
            let shift = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << shift) - 1);
            let sectors = ((entry >> shift) & ((1 << (self.cluster_bits - 8)) - 1)) + 1;
            let len = sectors * 512 - (offset & 511);
            let start = offset & !511;
            self.count(start, len.min(sectors * 512) + (offset & 511), "compressed data");
            if active {
                self.allocated += 1;
                self.compressed += 1;
                self.fragmented += 1;
            }
            return;
        }
        let offset = entry & OFFSET;
        if offset == 0 {
            return;
        }
        if !offset.is_multiple_of(cluster) {
            let line = format!(
                "ERROR offset={offset:x}: Cluster is not properly aligned; L2 entry corrupted."
            );
            return self.corrupt(line);
        }
        self.count(offset, cluster, "data");
        if active && entry & ZERO == 0 {
            self.allocated += 1;
            if self.next.is_some_and(|next| next != offset) {
                self.fragmented += 1;
            }
            self.next = Some(offset + cluster);
        }
    }

    /// The refcounts, beside what was counted.
    async fn refcounts(&mut self, header: &Qcow2Header) -> io::Result<()> {
        let cluster = header.cluster_size();
        let (offset, len) =
            (header.refcount_table_offset, u64::from(header.refcount_table_clusters) * cluster);
        if !self.is_table(offset, len, "refcount table") {
            return Ok(());
        }
        self.count(offset, len, "refcount table");
        let blocks = self.entries(offset, len / 8).await?;
        let per_block = (cluster * 8) >> header.refcount_order;
        for (n, &block) in blocks.iter().enumerate() {
            if block != 0 {
                let what = format!("refcount block {n}");
                if self.is_table(block & OFFSET, cluster, &what) {
                    self.count(block & OFFSET, cluster, &what);
                }
            }
        }
        for (n, &block) in blocks.iter().enumerate() {
            let first = n as u64 * per_block;
            let aligned = block.is_multiple_of(cluster) && block < self.file.size();
            let bytes = if block == 0 || !aligned {
                vec![0; cluster as usize]
            } else {
                self.file.read(block, cluster as usize).await?
            };
            for index in 0..per_block {
                let said = refcount(&bytes, index, header.refcount_order);
                self.compare(first + index, said);
            }
        }
        // What no refcount block is for.
        for at in blocks.len() as u64 * per_block..self.counts.len() as u64 {
            self.compare(at, 0);
        }
        Ok(())
    }

    fn compare(&mut self, at: u64, said: u64) {
        let counted = self.counts.get(at as usize).copied().unwrap_or(0).into();
        if said > 0 || counted > 0 {
            self.end = self.end.max((at + 1) << self.cluster_bits);
        }
        if said > counted {
            self.leaks += 1;
            self.say(format!("Leaked cluster {at} refcount={said} reference={counted}"));
        } else if said < counted {
            self.corrupt(format!("ERROR cluster {at} refcount={said} reference={counted}"));
        }
    }

    fn as_json(&self, path: &str) -> Value {
        let mut value = json!({
            "image-end-offset": self.end,
            "total-clusters": self.total,
            "check-errors": 0,
            "filename": path,
            "format": "qcow2",
        });
        for (name, count) in [
            ("allocated-clusters", self.allocated),
            ("fragmented-clusters", self.fragmented),
            ("compressed-clusters", self.compressed),
            ("corruptions", self.corruptions),
            ("leaks", self.leaks),
        ] {
            if count > 0 {
                value[name] = count.into();
            }
        }
        value
    }

    fn as_text(&self) -> String {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        if self.corruptions == 0 && self.leaks == 0 {
            text += "No errors were found on the image.\n";
        }
        // Nothing fails where memory is written to.
        let mut say = |line: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(line);
        };
        if self.corruptions > 0 {
            say(format_args!(
                "\n{} errors were found on the image.\nData may be corrupted, or further writes to \
                 the image may corrupt it.\n",
                self.corruptions
            ));
        }
        if self.leaks > 0 {
            say(format_args!(
                "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but \
                 no harm to data.\n",
                self.leaks
            ));
        }
        if self.total > 0 && self.allocated > 0 {
            say(format_args!(
                "{}/{} = {}% allocated, {}% fragmented, {}% compressed clusters\n",
                self.allocated,
                self.total,
                percent(self.allocated, self.total),
                percent(self.fragmented, self.allocated),
                percent(self.compressed, self.allocated)
            ));
        }
        say(format_args!("Image end offset: {}\n", self.end));
        text
    }
}

/// A refcount of 2 to the power of `order` bits.
fn refcount(block: &[u8], index: u64, order: u32) -> u64 {
    let bits = 1usize << order;
    let index = index as usize;
    if bits < 8 {
        let byte = block.get(index * bits / 8).copied().unwrap_or(0);
        return u64::from(byte >> (index * bits % 8)) & ((1 << bits) - 1);
    }
    let bytes = block.get(index * bits / 8..).unwrap_or(&[]);
    bytes.iter().take(bits / 8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// What the entries of the table of snapshots take.
fn snapshot_table_bytes(details: &Details) -> u64 {
    details.snapshots.iter().map(|snapshot| snapshot.table_bytes).sum()
}
