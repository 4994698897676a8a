//! Drives and block nodes: the commands of QEMU's human monitor, in its words.

use super::args::{Args, Failure};
use crate::commands::block::nodes::{
    self, BlockDeviceInfo, BlockDeviceIoStatus, BlockInfo, BlockdevDetectZeroesOptions,
    QueryNamedBlockNodes,
};
use crate::commands::block::snapshot::{BlockdevSnapshotSync, NewImageMode, snapshot_sync};
use crate::commands::block::stats::{self, QueryBlockstats};
use crate::commands::block::throttle::{self, BlockIOThrottle};
use crate::core::Env;
use crate::error::QmpError;
use devices::CommandError;
use devices::block::graph::{BlockGraph, DriveOptions, Interface, Options};
use devices::keyval::size;
use std::fmt::Write as _;
use std::sync::Arc;

/// A line without a prefix, as QEMU has for these commands.
fn told(result: Result<&'static str, CommandError>) -> String {
    match result {
        Ok(text) => text.to_owned(),
        Err(error) => format!("{error}\n"),
    }
}

pub(super) async fn drive_add(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let node = args.word()? == "-n";
    if node {
        // The slot, which has had no meaning for long.
        args.word()?;
    }
    let options = args.word()?;
    args.end()?;
    let graph = Arc::clone(env.machine()?.block());
    Ok(told(if node { add_node(&graph, &options).await } else { add(&graph, &options).await }))
}

async fn add_node(graph: &BlockGraph, options: &str) -> Result<&'static str, CommandError> {
    graph.add(Options::keyval(options)?).await.map(|()| "")
}

async fn add(graph: &BlockGraph, options: &str) -> Result<&'static str, CommandError> {
    let drive = DriveOptions::parse(options)?;
    let interface = match drive.interface {
        Some(Interface::None) => None,
        // What a PC has where nothing is said.
        None => Some(1),
        Some(Interface::Virtio) => Some(7),
        Some(Interface::Other(number)) => Some(number),
    };
    if let Some(number) = interface {
        return Err(CommandError::generic(format!("Can't hot-add drive to type {number}")));
    }
    let id = drive.id.clone().unwrap_or_else(|| {
        let contents = graph.contents();
        let mut names = (0..).map(|n: u32| format!("none{n}"));
        names.find(|name| contents.backend(name).is_none()).unwrap_or_default()
    });
    drive.open(graph, &id).await.map(|()| "OK\n")
}

pub(super) async fn snapshot_blkdev(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let mut word = || args.word().map_err(|_| Failure::Argument("block device name expected"));
    let mut device = word()?;
    let existing = device == "-n";
    if existing {
        device = word()?;
    }
    let (file, format) = (args.word().ok(), args.word().ok());
    args.end()?;
    let snapshot_file =
        file.ok_or_else(|| QmpError::generic("Parameter 'snapshot-file' is missing"))?;
    let asked = BlockdevSnapshotSync {
        device: Some(device),
        node_name: None,
        snapshot_file,
        snapshot_node_name: None,
        format,
        mode: existing.then_some(NewImageMode::Existing),
    };
    snapshot_sync(env.clone(), asked).await?;
    Ok(String::new())
}

pub(super) async fn drive_del(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word().map_err(|_| Failure::Argument("block device name expected"))?;
    args.end()?;
    let graph = Arc::clone(env.machine()?.block());
    Ok(told(graph.delete_drive(&id).await.map(|()| "")))
}

pub(super) async fn resize(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let device = args.word().map_err(|_| Failure::Argument("block device name expected"))?;
    let invalid = || Failure::Syntax("invalid size".to_owned());
    let text = args.word().map_err(|_| invalid())?;
    args.end()?;
    // Without a unit it counts mebibytes, as in QEMU.
    let bytes = size(&text, 1 << 20).and_then(|bytes| i64::try_from(bytes).ok());
    let size = bytes.ok_or_else(invalid)?;
    let graph = Arc::clone(env.machine()?.block());
    graph.resize(Some(&device), None, size).await.map_err(QmpError::from)?;
    Ok(String::new())
}

pub(super) async fn set_io_throttle(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let device = args.word().map_err(|_| Failure::Argument("block device name expected"))?;
    let mut limit = || args.expression();
    let limits = [limit()?, limit()?, limit()?, limit()?, limit()?, limit()?];
    args.end()?;
    throttle::set_io_throttle(env.clone(), BlockIOThrottle::averages(device, limits)).await?;
    Ok(String::new())
}

pub(super) fn info_block(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let (mut of_nodes, mut verbose, mut name) = (false, false, None);
    while let Ok(word) = args.word() {
        match word.as_str() {
            "-n" => of_nodes = true,
            "-v" => verbose = true,
            _ => {
                args.end()?;
                name = Some(word);
                break;
            }
        }
    }
    let mut text = String::new();
    if !of_nodes {
        for (n, info) in nodes::query_block(env, ())?.iter().enumerate() {
            if name.as_ref().is_some_and(|name| *name != info.device) {
                continue;
            }
            text.push_str(if n > 0 { "\n" } else { "" });
            drive(&mut text, info, verbose);
        }
        if name.is_none() || !text.is_empty() {
            return Ok(text);
        }
    }
    for node in nodes::query_nodes(env, QueryNamedBlockNodes { flat: None })? {
        let own = node.node_name.as_deref().unwrap_or_default();
        if name.as_ref().is_some_and(|name| name != own) {
            continue;
        }
        text.push_str(if text.is_empty() { "" } else { "\n" });
        let _infallible = write!(text, "{own}");
        medium(&mut text, &node, verbose, "");
    }
    Ok(text)
}

fn drive(text: &mut String, info: &BlockInfo, verbose: bool) {
    let mut attached = String::new();
    if let Some(qdev) = &info.qdev {
        let _infallible = writeln!(attached, "    Attached to:      {qdev}");
    }
    if let Some(status) = info.io_status.filter(|status| *status != BlockDeviceIoStatus::Ok) {
        let _infallible = writeln!(attached, "    I/O status:       {status}");
    }
    if info.removable {
        let locked = if info.locked { "" } else { "not " };
        let tray = if info.tray_open == Some(true) { "open" } else { "closed" };
        let _infallible = writeln!(attached, "    Removable device: {locked}locked, tray {tray}");
    }
    let node = info.inserted.as_ref().and_then(|inserted| inserted.node_name.as_deref());
    match (info.device.as_str(), node) {
        ("", Some(node)) => text.push_str(node),
        ("", None) => text.push_str(info.qdev.as_deref().unwrap_or("<anonymous>")),
        (device, Some(node)) => {
            let _infallible = write!(text, "{device} ({node})");
        }
        (device, None) => text.push_str(device),
    }
    match &info.inserted {
        Some(inserted) => medium(text, inserted, verbose, &attached),
        None => {
            let _infallible = write!(text, ": [not inserted]\n{attached}");
        }
    }
}

/// What follows the name; `attached` is about the device.
fn medium(text: &mut String, info: &BlockDeviceInfo, verbose: bool, attached: &str) {
    let read_only = if info.ro { ", read-only" } else { "" };
    let cache = &info.cache;
    let _infallible = write!(
        text,
        ": {} ({}{read_only})\n{attached}    Cache mode:       {}{}{}\n",
        info.file,
        info.drv,
        if cache.writeback { "writeback" } else { "writethrough" },
        if cache.direct { ", direct" } else { "" },
        if cache.no_flush { ", ignore flushes" } else { "" },
    );
    if info.detect_zeroes != BlockdevDetectZeroesOptions::Off {
        let _infallible = writeln!(text, "    Detect zeroes:    {}", info.detect_zeroes);
    }
    if let Some(group) = &info.group {
        let _infallible = writeln!(
            text,
            "    I/O throttling:   bps={} bps_rd={} bps_wr={} bps_max={} bps_rd_max={} bps_wr_max={} \
             iops={} iops_rd={} iops_wr={} iops_max={} iops_rd_max={} iops_wr_max={} iops_size={} \
             group={group}",
            info.bps,
            info.bps_rd,
            info.bps_wr,
            info.bps_max.unwrap_or(0),
            info.bps_rd_max.unwrap_or(0),
            info.bps_wr_max.unwrap_or(0),
            info.iops,
            info.iops_rd,
            info.iops_wr,
            info.iops_max.unwrap_or(0),
            info.iops_rd_max.unwrap_or(0),
            info.iops_wr_max.unwrap_or(0),
            info.iops_size.unwrap_or(0),
        );
    }
    if !verbose {
        return;
    }
    let image = &info.image;
    let disk = image.actual_size.map_or_else(|| "unavailable".to_owned(), human);
    let _infallible = write!(
        text,
        "\nImages:\nimage: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {disk}\n",
        image.filename,
        image.format,
        human(image.virtual_size),
        image.virtual_size,
    );
}

/// Three digits and a unit, as QEMU writes sizes.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let number = format!("{value:.digits$}");
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        &number
    };
    format!("{number} {}B", UNITS[unit])
}

pub(super) fn info_blockstats(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for all in stats::query_blockstats(env, QueryBlockstats { query_nodes: None })? {
        let Some(device) = all.device else { continue };
        let of = all.stats;
        let _infallible = writeln!(
            text,
            "{device}: rd_bytes={} wr_bytes={} rd_operations={} wr_operations={} \
             flush_operations={} wr_total_time_ns={} rd_total_time_ns={} flush_total_time_ns={} \
             rd_merged={} wr_merged={} idle_time_ns={}",
            of.rd_bytes,
            of.wr_bytes,
            of.rd_operations,
            of.wr_operations,
            of.flush_operations,
            of.wr_total_time_ns,
            of.rd_total_time_ns,
            of.flush_total_time_ns,
            of.rd_merged,
            of.wr_merged,
            of.idle_time_ns.unwrap_or(0),
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.98 KiB"),
            (4096, "4 KiB"),
            (4 << 20, "4 MiB"),
            (1_234_567, "1.18 MiB"),
            (123_456_789, "118 MiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
