//! `query-blockstats`.

use super::graph;
use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use devices::block::graph::{Backend, Kind, KindStats, Stats};

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
    BlockStats {
        device: Some(owner.drive),
        qdev: Some(owner.device).filter(|device| !device.is_empty()),
        node_name: backend.root().map(|root| root.name().to_owned()),
        stats: counted(&backend.stats()),
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
