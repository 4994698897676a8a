//! `query-block` and `query-named-block-nodes`.

use super::graph;
use super::image::{ImageInfo, backing, depth, image_info};
use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};
use devices::block::graph::{Backend, DetectZeroes, IoStatus, Node, ThrottleGroup};
use std::sync::Arc;

qapi_enum! {
    /// What becomes of writes of zeroes.
    pub enum BlockdevDetectZeroesOptions {
        /// They are writes.
        Off = "off",
        /// They become zero clusters, or the like.
        On = "on",
        /// They free space.
        Unmap = "unmap",
    }
}

qapi_enum! {
    /// Whether requests succeed.
    pub enum BlockDeviceIoStatus {
        /// They do.
        Ok = "ok",
        /// One failed, and the machine was stopped.
        Failed = "failed",
        /// One failed for want of space, and the machine was stopped.
        Nospace = "nospace",
    }
}

qapi_struct! {
    /// How host caches take part.
    pub struct BlockdevCacheInfo {
        /// Writes may sit in a cache until a flush.
        pub writeback: bool = "writeback",
        /// The host's page cache is bypassed.
        pub direct: bool = "direct",
        /// Flushes are ignored.
        pub no_flush: bool = "no-flush",
    }
}

qapi_struct! {
    /// A node. The limits are those of the device that uses it.
    pub struct BlockDeviceInfo {
        /// Where its image is.
        pub file: String = "file",
        /// Its name.
        pub node_name: Option<String> = "node-name",
        /// No writes.
        pub ro: bool = "ro",
        /// What it does.
        pub drv: String = "drv",
        /// Where the image below is.
        pub backing_file: Option<String> = "backing_file",
        /// How many images are below.
        pub backing_file_depth: u64 = "backing_file_depth",
        /// It is in use by this machine.
        pub active: bool = "active",
        /// It is encrypted.
        pub encrypted: bool = "encrypted",
        /// What becomes of writes of zeroes.
        pub detect_zeroes: BlockdevDetectZeroesOptions = "detect_zeroes",
        /// Bytes a second.
        pub bps: u64 = "bps",
        /// Bytes read a second.
        pub bps_rd: u64 = "bps_rd",
        /// Bytes written a second.
        pub bps_wr: u64 = "bps_wr",
        /// Requests a second.
        pub iops: u64 = "iops",
        /// Reads a second.
        pub iops_rd: u64 = "iops_rd",
        /// Writes a second.
        pub iops_wr: u64 = "iops_wr",
        /// Bytes a second in a burst.
        pub bps_max: Option<u64> = "bps_max",
        /// Bytes read a second in a burst.
        pub bps_rd_max: Option<u64> = "bps_rd_max",
        /// Bytes written a second in a burst.
        pub bps_wr_max: Option<u64> = "bps_wr_max",
        /// Requests a second in a burst.
        pub iops_max: Option<u64> = "iops_max",
        /// Reads a second in a burst.
        pub iops_rd_max: Option<u64> = "iops_rd_max",
        /// Writes a second in a burst.
        pub iops_wr_max: Option<u64> = "iops_wr_max",
        /// Seconds that a burst of bytes may last.
        pub bps_max_length: Option<u64> = "bps_max_length",
        /// Seconds that a burst of bytes read may last.
        pub bps_rd_max_length: Option<u64> = "bps_rd_max_length",
        /// Seconds that a burst of bytes written may last.
        pub bps_wr_max_length: Option<u64> = "bps_wr_max_length",
        /// Seconds that a burst of requests may last.
        pub iops_max_length: Option<u64> = "iops_max_length",
        /// Seconds that a burst of reads may last.
        pub iops_rd_max_length: Option<u64> = "iops_rd_max_length",
        /// Seconds that a burst of writes may last.
        pub iops_wr_max_length: Option<u64> = "iops_wr_max_length",
        /// Bytes of a request that counts as one.
        pub iops_size: Option<u64> = "iops_size",
        /// With whom it shares the limits.
        pub group: Option<String> = "group",
        /// The image.
        pub image: ImageInfo = "image",
        /// How host caches take part.
        pub cache: BlockdevCacheInfo = "cache",
        /// Bytes after which a write is reported; 0: never.
        pub write_threshold: u64 = "write_threshold",
    }
}

qapi_struct! {
    /// A device that stores, or a drive without one.
    pub struct BlockInfo {
        /// The drive; empty where a device uses a node by its name.
        pub device: String = "device",
        /// The path of the device.
        pub qdev: Option<String> = "qdev",
        /// Always `unknown`.
        pub ty: String = "type",
        /// The medium can be taken out.
        pub removable: bool = "removable",
        /// The guest has locked the medium.
        pub locked: bool = "locked",
        /// The medium.
        pub inserted: Option<BlockDeviceInfo> = "inserted",
        /// The tray is open.
        pub tray_open: Option<bool> = "tray_open",
        /// Whether requests succeed.
        pub io_status: Option<BlockDeviceIoStatus> = "io-status",
    }
}

qapi_struct! {
    /// How much is wanted.
    pub struct QueryNamedBlockNodes {
        /// Without what is below each node.
        pub flat: Option<bool> = "flat",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::plain(
        "query-block",
        "The drives, and the devices that store.",
        query_block,
    ));
    registry.add(Command::plain("query-named-block-nodes", "The block nodes.", query_nodes));
}

pub(crate) fn query_block(env: &Env, (): ()) -> Result<Vec<BlockInfo>, QmpError> {
    Ok(graph(env)?.contents().backends.iter().map(|backend| block_info(backend)).collect())
}

/// The newest first, as in QEMU.
pub(crate) fn query_nodes(
    env: &Env,
    QueryNamedBlockNodes { flat }: QueryNamedBlockNodes,
) -> Result<Vec<BlockDeviceInfo>, QmpError> {
    let contents = graph(env)?.contents();
    let flat = flat == Some(true);
    let info = |node: &Arc<Node>| {
        let mut info = device_info(node, true, None);
        if flat {
            info.backing_file_depth = 0;
            info.image.backing_image = None;
        }
        info
    };
    Ok(contents.nodes.iter().rev().map(info).collect())
}

pub(super) fn block_info(backend: &Backend) -> BlockInfo {
    let owner = backend.owner();
    let attached = !owner.device.is_empty();
    let tray = backend.tray();
    BlockInfo {
        device: owner.drive,
        qdev: Some(owner.device).filter(|_| attached),
        ty: "unknown".to_owned(),
        removable: backend.is_removable(),
        locked: tray.as_ref().is_some_and(|tray| tray.is_locked()),
        inserted: backend
            .root()
            .map(|root| device_info(&root, backend.writeback(), backend.throttle().as_deref())),
        tray_open: tray.as_ref().map(|tray| tray.is_open()),
        io_status: backend.io_status().map(|status| match status {
            IoStatus::Ok => BlockDeviceIoStatus::Ok,
            IoStatus::Failed => BlockDeviceIoStatus::Failed,
            IoStatus::NoSpace => BlockDeviceIoStatus::Nospace,
        }),
    }
}

fn device_info(node: &Node, writeback: bool, group: Option<&ThrottleGroup>) -> BlockDeviceInfo {
    let limits = group.map(ThrottleGroup::limits);
    let rate = |n: usize| limits.map(|limits| limits.rates[n]);
    let burst = |n: usize| rate(n).filter(|rate| rate.burst > 0);
    let options = node.options();
    let driver = options.driver.driver();
    let file = node.filename();
    let backing = backing(node);
    BlockDeviceInfo {
        node_name: Some(node.name().to_owned()),
        ro: node.info().read_only,
        drv: driver.to_owned(),
        backing_file: backing.as_ref().map(|below| below.filename()),
        backing_file_depth: depth(node),
        active: true,
        encrypted: false,
        detect_zeroes: match options.detect_zeroes {
            DetectZeroes::Off => BlockdevDetectZeroesOptions::Off,
            DetectZeroes::On => BlockdevDetectZeroesOptions::On,
            DetectZeroes::Unmap => BlockdevDetectZeroesOptions::Unmap,
        },
        bps: rate(0).map_or(0, |rate| rate.average),
        bps_rd: rate(1).map_or(0, |rate| rate.average),
        bps_wr: rate(2).map_or(0, |rate| rate.average),
        iops: rate(3).map_or(0, |rate| rate.average),
        iops_rd: rate(4).map_or(0, |rate| rate.average),
        iops_wr: rate(5).map_or(0, |rate| rate.average),
        bps_max: burst(0).map(|rate| rate.burst),
        bps_rd_max: burst(1).map(|rate| rate.burst),
        bps_wr_max: burst(2).map(|rate| rate.burst),
        iops_max: burst(3).map(|rate| rate.burst),
        iops_rd_max: burst(4).map(|rate| rate.burst),
        iops_wr_max: burst(5).map(|rate| rate.burst),
        bps_max_length: burst(0).map(|rate| rate.burst_s),
        bps_rd_max_length: burst(1).map(|rate| rate.burst_s),
        bps_wr_max_length: burst(2).map(|rate| rate.burst_s),
        iops_max_length: burst(3).map(|rate| rate.burst_s),
        iops_rd_max_length: burst(4).map(|rate| rate.burst_s),
        iops_wr_max_length: burst(5).map(|rate| rate.burst_s),
        iops_size: limits.map(|limits| limits.request_bytes).filter(|bytes| *bytes > 0),
        group: group.map(|group| group.name().to_owned()),
        image: image_info(node),
        cache: BlockdevCacheInfo {
            writeback,
            direct: options.direct.unwrap_or(false),
            no_flush: options.no_flush.unwrap_or(false),
        },
        write_threshold: 0,
        file,
    }
}
