//! `query-blockstats`.

use super::graph;
use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use devices::block::graph::{Backend, Histogram, Kind, KindStats, Shapes, Stats, are_boundaries};

qapi_struct! {
    /// Statistics over an interval.
    pub struct BlockDeviceTimedStats {
        /// The length of the interval in seconds.
        pub interval_length: u64 = "interval_length",
        /// Least latency of reads in nanoseconds.
        pub min_rd_latency_ns: u64 = "min_rd_latency_ns",
        /// Greatest latency of reads in nanoseconds.
        pub max_rd_latency_ns: u64 = "max_rd_latency_ns",
        /// Average latency of reads in nanoseconds.
        pub avg_rd_latency_ns: u64 = "avg_rd_latency_ns",
        /// Least latency of writes in nanoseconds.
        pub min_wr_latency_ns: u64 = "min_wr_latency_ns",
        /// Greatest latency of writes in nanoseconds.
        pub max_wr_latency_ns: u64 = "max_wr_latency_ns",
        /// Average latency of writes in nanoseconds.
        pub avg_wr_latency_ns: u64 = "avg_wr_latency_ns",
        /// Least latency of appends to zones in nanoseconds.
        pub min_zone_append_latency_ns: u64 = "min_zone_append_latency_ns",
        /// Greatest latency of appends to zones in nanoseconds.
        pub max_zone_append_latency_ns: u64 = "max_zone_append_latency_ns",
        /// Average latency of appends to zones in nanoseconds.
        pub avg_zone_append_latency_ns: u64 = "avg_zone_append_latency_ns",
        /// Least latency of flushes in nanoseconds.
        pub min_flush_latency_ns: u64 = "min_flush_latency_ns",
        /// Greatest latency of flushes in nanoseconds.
        pub max_flush_latency_ns: u64 = "max_flush_latency_ns",
        /// Average latency of flushes in nanoseconds.
        pub avg_flush_latency_ns: u64 = "avg_flush_latency_ns",
        /// Average number of reads in flight.
        pub avg_rd_queue_depth: f64 = "avg_rd_queue_depth",
        /// Average number of writes in flight.
        pub avg_wr_queue_depth: f64 = "avg_wr_queue_depth",
        /// Average number of appends to zones in flight.
        pub avg_zone_append_queue_depth: f64 = "avg_zone_append_queue_depth",
    }
}

qapi_struct! {
    /// How many requests took how long.
    pub struct BlockLatencyHistogramInfo {
        /// Nanoseconds at which a next bin begins.
        pub boundaries: Vec<u64> = "boundaries",
        /// Requests by bin; the first one is below all boundaries.
        pub bins: Vec<u64> = "bins",
    }
}

qapi_struct! {
    /// Which histograms a device shall have. Those that are not named stay; all end where none is
    /// named.
    pub struct BlockLatencyHistogramSet {
        /// The id or path of the device.
        pub id: String = "id",
        /// Of all kinds of requests that have none of their own, in nanoseconds.
        pub boundaries: Option<Vec<u64>> = "boundaries",
        /// Of reads.
        pub boundaries_read: Option<Vec<u64>> = "boundaries-read",
        /// Of writes.
        pub boundaries_write: Option<Vec<u64>> = "boundaries-write",
        /// Of appends to zones, of which there are none.
        pub boundaries_zap: Option<Vec<u64>> = "boundaries-zap",
        /// Of flushes.
        pub boundaries_flush: Option<Vec<u64>> = "boundaries-flush",
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $member:ident = $wire:literal,)*) => {
        qapi_struct! {
            /// What a device has asked of its storage.
            pub struct BlockDeviceStats {
                $($(#[doc = $doc])* pub $member: u64 = $wire,)*
                /// Time since the last request, in nanoseconds.
                pub idle_time_ns: Option<u64> = "idle_time_ns",
                /// Refused requests count as requests.
                pub account_invalid: bool = "account_invalid",
                /// Failed requests count as requests.
                pub account_failed: bool = "account_failed",
                /// Over intervals; no device asks for any.
                pub timed_stats: Vec<BlockDeviceTimedStats> = "timed_stats",
                /// How long reads took, if it was asked for.
                pub rd_latency_histogram: Option<BlockLatencyHistogramInfo> = "rd_latency_histogram",
                /// How long writes took, if it was asked for.
                pub wr_latency_histogram: Option<BlockLatencyHistogramInfo> = "wr_latency_histogram",
                /// How long appends to zones took, if it was asked for.
                pub zone_append_latency_histogram: Option<BlockLatencyHistogramInfo> = "zone_append_latency_histogram",
                /// How long flushes took, if it was asked for.
                pub flush_latency_histogram: Option<BlockLatencyHistogramInfo> = "flush_latency_histogram",
            }
        }

        impl Default for BlockDeviceStats {
            fn default() -> Self {
                Self {
                    $($member: 0,)*
                    idle_time_ns: None,
                    account_invalid: true,
                    account_failed: true,
                    timed_stats: Vec::new(),
                    rd_latency_histogram: None,
                    wr_latency_histogram: None,
                    zone_append_latency_histogram: None,
                    flush_latency_histogram: None,
                }
            }
        }
    };
}

counters! {
    /// Bytes read.
    rd_bytes = "rd_bytes",
    /// Bytes written.
    wr_bytes = "wr_bytes",
    /// Bytes appended to zones.
    zone_append_bytes = "zone_append_bytes",
    /// Bytes discarded.
    unmap_bytes = "unmap_bytes",
    /// Reads.
    rd_operations = "rd_operations",
    /// Writes.
    wr_operations = "wr_operations",
    /// Appends to zones.
    zone_append_operations = "zone_append_operations",
    /// Flushes.
    flush_operations = "flush_operations",
    /// Discards.
    unmap_operations = "unmap_operations",
    /// Nanoseconds spent on reads.
    rd_total_time_ns = "rd_total_time_ns",
    /// Nanoseconds spent on writes.
    wr_total_time_ns = "wr_total_time_ns",
    /// Nanoseconds spent on appends to zones.
    zone_append_total_time_ns = "zone_append_total_time_ns",
    /// Nanoseconds spent on flushes.
    flush_total_time_ns = "flush_total_time_ns",
    /// Nanoseconds spent on discards.
    unmap_total_time_ns = "unmap_total_time_ns",
    /// The end of the write that reached furthest.
    wr_highest_offset = "wr_highest_offset",
    /// Reads united with others.
    rd_merged = "rd_merged",
    /// Writes united with others.
    wr_merged = "wr_merged",
    /// Appends to zones united with others.
    zone_append_merged = "zone_append_merged",
    /// Discards united with others.
    unmap_merged = "unmap_merged",
    /// Reads that failed.
    failed_rd_operations = "failed_rd_operations",
    /// Writes that failed.
    failed_wr_operations = "failed_wr_operations",
    /// Appends to zones that failed.
    failed_zone_append_operations = "failed_zone_append_operations",
    /// Flushes that failed.
    failed_flush_operations = "failed_flush_operations",
    /// Discards that failed.
    failed_unmap_operations = "failed_unmap_operations",
    /// Reads that were refused.
    invalid_rd_operations = "invalid_rd_operations",
    /// Writes that were refused.
    invalid_wr_operations = "invalid_wr_operations",
    /// Appends to zones that were refused.
    invalid_zone_append_operations = "invalid_zone_append_operations",
    /// Flushes that were refused.
    invalid_flush_operations = "invalid_flush_operations",
    /// Discards that were refused.
    invalid_unmap_operations = "invalid_unmap_operations",
}

qapi_struct! {
    /// The statistics of a device or a node.
    pub struct BlockStats {
        /// The drive.
        pub device: Option<String> = "device",
        /// The path of the device.
        pub qdev: Option<String> = "qdev",
        /// The node.
        pub node_name: Option<String> = "node-name",
        /// The counters.
        pub stats: BlockDeviceStats = "stats",
    }
}

qapi_struct! {
    /// Of what.
    pub struct QueryBlockstats {
        /// Of nodes instead of devices.
        pub query_nodes: Option<bool> = "query-nodes",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::plain(
        "query-blockstats",
        "What devices have asked of their storage. Counted where requests come from: nodes that devices do not \
         use by themselves have counted nothing.",
        query_blockstats,
    ));
    registry.add(Command::coroutine(
        "block-latency-histogram-set",
        "Counts the latencies of a device's requests in bins from now on: see query-blockstats.",
        set_histograms,
    ));
}

async fn set_histograms(env: Env, asked: BlockLatencyHistogramSet) -> Result<(), QmpError> {
    let device = graph(&env)?.contents().device(None, Some(&asked.id))?;
    let all = asked.boundaries;
    let none = all.is_none()
        && [&asked.boundaries_read, &asked.boundaries_write, &asked.boundaries_zap]
            .iter()
            .all(|one| one.is_none())
        && asked.boundaries_flush.is_none();
    let mut shapes = if none { Shapes::default() } else { device.backend.histogram_shapes() };
    for (kind, own, name) in [
        (Some(Kind::Read), asked.boundaries_read, "read"),
        (Some(Kind::Write), asked.boundaries_write, "write"),
        (None, asked.boundaries_zap, "append write"),
        (Some(Kind::Flush), asked.boundaries_flush, "flush"),
    ] {
        let Some(boundaries) = own.or_else(|| all.clone()) else { continue };
        if !are_boundaries(&boundaries) {
            let text = format!("Device '{}' set {name} boundaries fail", asked.id);
            return Err(QmpError::generic(text));
        }
        if let Some(kind) = kind {
            shapes[kind as usize] = Some(boundaries.into());
        }
    }
    device.backend.set_histograms(&shapes);
    Ok(())
}

fn histogram(of: Option<Histogram>) -> Option<BlockLatencyHistogramInfo> {
    of.map(|all| BlockLatencyHistogramInfo { boundaries: all.boundaries.to_vec(), bins: all.bins })
}

pub(crate) fn query_blockstats(
    env: &Env,
    QueryBlockstats { query_nodes }: QueryBlockstats,
) -> Result<Vec<BlockStats>, QmpError> {
    let contents = graph(env)?.contents();
    if query_nodes != Some(true) {
        return Ok(contents.backends.iter().map(|backend| of_backend(backend)).collect());
    }
    let of_node = |name: &str| {
        let mut all = Stats::default();
        let on_it = |backend: &Backend| backend.root().is_some_and(|root| root.name() == name);
        for backend in contents.backends.iter().filter(|backend| on_it(backend)) {
            all.add(&backend.stats());
        }
        BlockStats {
            device: None,
            qdev: None,
            node_name: Some(name.to_owned()),
            stats: counted(&all),
        }
    };
    Ok(contents.nodes.iter().map(|node| of_node(node.name())).collect())
}

fn of_backend(backend: &Backend) -> BlockStats {
    let owner = backend.owner();
    let [read, write, flush, _] = backend.histograms();
    BlockStats {
        device: Some(owner.drive),
        qdev: Some(owner.device).filter(|device| !device.is_empty()),
        node_name: backend.root().map(|root| root.name().to_owned()),
        stats: BlockDeviceStats {
            rd_latency_histogram: histogram(read),
            wr_latency_histogram: histogram(write),
            flush_latency_histogram: histogram(flush),
            ..counted(&backend.stats())
        },
    }
}

fn counted(stats: &Stats) -> BlockDeviceStats {
    let [read, write, flush, unmap] = Kind::ALL.map(|kind| stats.kind(kind));
    let all = |kind: KindStats| kind.operations + kind.failed;
    BlockDeviceStats {
        rd_bytes: read.bytes,
        wr_bytes: write.bytes,
        unmap_bytes: unmap.bytes,
        rd_operations: all(read),
        wr_operations: all(write),
        flush_operations: all(flush),
        unmap_operations: all(unmap),
        rd_total_time_ns: read.total_ns,
        wr_total_time_ns: write.total_ns,
        flush_total_time_ns: flush.total_ns,
        unmap_total_time_ns: unmap.total_ns,
        wr_highest_offset: stats.highest_write,
        failed_rd_operations: read.failed,
        failed_wr_operations: write.failed,
        failed_flush_operations: flush.failed,
        failed_unmap_operations: unmap.failed,
        ..BlockDeviceStats::default()
    }
}
