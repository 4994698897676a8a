//! `info`: what an image is.

use super::arguments::{Arguments, Option_};
use super::image::{Access, Image, Images, child};
use super::output::human;
use devices::block::SECTOR;
use devices::block::format::{Qcow2Header, Snapshot};
use devices::block::graph::{Details, Node};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;

pub(super) const OPTIONS: &[Option_] = &[
    Option_('f', "format", true),
    Option_('U', "force-share", false),
    Option_('\0', "backing-chain", false),
    Option_('\0', "output", true),
];

pub(super) async fn run(args: Arguments) -> Result<u8, String> {
    let (path, json) = (args.file()?, args.json()?);
    let mut images = Images::new()?;
    let image = images.open(path, Access::to_look(&args)).await?;
    let nodes = chain(&image, args.has("backing-chain"));
    if json {
        let all: Vec<Value> = nodes.iter().map(|node| as_json(node)).collect();
        let shown = if args.has("backing-chain") { Value::Array(all) } else { all[0].clone() };
        println!("{shown:#}");
    } else {
        let all: Vec<String> = nodes.iter().map(|node| as_text(node)).collect();
        print!("{}", all.join("\n"));
    }
    images.close().await?;
    Ok(0)
}

fn chain(image: &Image, all: bool) -> Vec<Arc<Node>> {
    let mut nodes = vec![Arc::clone(&image.node)];
    let mut next = child(&image.node, "backing").filter(|_| all);
    while let Some(node) = next {
        next = child(&node, "backing");
        nodes.push(node);
    }
    nodes
}

fn details(node: &Node) -> Arc<Details> {
    node.details().unwrap_or_default()
}

/// QEMU's members, in QEMU's forms.
fn as_json(node: &Node) -> Value {
    let mut info = facts(node, node.options().driver.driver(), node.size());
    if let Some(file) = child(node, "file") {
        let mut below = facts(&file, "file", file.size().next_multiple_of(SECTOR));
        below.insert("children".to_owned(), json!([]));
        below.insert("format-specific".to_owned(), json!({"type": "file", "data": {}}));
        let children = json!([{"name": "file", "info": below}]);
        info.insert("children".to_owned(), children);
    }
    let details = details(node);
    if let Some(size) = details.cluster_size() {
        info.insert("cluster-size".to_owned(), size.into());
    }
    if let Some(header) = &details.header {
        if let Some(name) = &header.backing_file {
            info.insert("backing-filename".to_owned(), name.as_str().into());
            let full = child(node, "backing").map(|below| below.filename());
            let full = full.unwrap_or_else(|| name.clone());
            info.insert("full-backing-filename".to_owned(), full.into());
        }
        if let Some(format) = &header.backing_format {
            info.insert("backing-filename-format".to_owned(), format.as_str().into());
        }
        info.insert(
            "format-specific".to_owned(),
            json!({"type": "qcow2", "data": specific(header)}),
        );
    }
    if !details.snapshots.is_empty() {
        let snapshots: Vec<Value> = details.snapshots.iter().map(snapshot).collect();
        info.insert("snapshots".to_owned(), snapshots.into());
    }
    Value::Object(info)
}

fn facts(node: &Node, format: &str, size: u64) -> Map<String, Value> {
    let mut info = Map::new();
    info.insert("virtual-size".to_owned(), size.into());
    info.insert("filename".to_owned(), node.filename().into());
    info.insert("format".to_owned(), format.into());
    if let Some(bytes) = node.allocated() {
        info.insert("actual-size".to_owned(), bytes.into());
    }
    info.insert("dirty-flag".to_owned(), false.into());
    info
}

fn specific(header: &Qcow2Header) -> Value {
    if header.version == 2 {
        return json!({
            "compat": "0.10", "compression-type": header.compression.name(), "refcount-bits": 16
        });
    }
    json!({
        "compat": "1.1",
        "compression-type": header.compression.name(),
        "lazy-refcounts": header.compatible & Qcow2Header::LAZY_REFCOUNTS != 0,
        "refcount-bits": 1u32 << header.refcount_order,
        "corrupt": header.incompatible & Qcow2Header::CORRUPT != 0,
        "extended-l2": header.incompatible & Qcow2Header::EXTENDED_L2 != 0,
    })
}

fn snapshot(snapshot: &Snapshot) -> Value {
    let mut value = json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_state_size,
        "date-sec": snapshot.date_s,
        "date-nsec": snapshot.date_ns,
        "vm-clock-sec": snapshot.vm_clock_ns / 1_000_000_000,
        "vm-clock-nsec": snapshot.vm_clock_ns % 1_000_000_000,
    });
    if let Some(icount) = snapshot.icount {
        value["icount"] = icount.into();
    }
    value
}

fn as_text(node: &Node) -> String {
    let (details, size) = (details(node), node.size());
    let mut text = format!(
        "image: {}\nfile format: {}\nvirtual size: {} ({size} bytes)\n",
        node.filename(),
        node.options().driver.driver(),
        human(size)
    );
    // Nothing fails where memory is written to.
    let disk = |node: &Node| node.allocated().map_or("unavailable".to_owned(), human);
    let _ = writeln!(text, "disk size: {}", disk(node));
    if let Some(bytes) = details.cluster_size() {
        let _ = writeln!(text, "cluster_size: {bytes}");
    }
    if let Some(header) = &details.header {
        if let Some(name) = &header.backing_file {
            let full = child(node, "backing").map(|below| below.filename());
            let full = full.filter(|full| full != name);
            let full = full.map_or(String::new(), |full| format!(" (actual path: {full})"));
            let _ = writeln!(text, "backing file: {name}{full}");
        }
        if let Some(format) = &header.backing_format {
            let _ = writeln!(text, "backing file format: {format}");
        }
        snapshot_table(&mut text, &details.snapshots);
        text += "Format specific information:\n";
        for (name, value) in specific(header).as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(text, "    {}: {value}", name.replace('-', " "));
        }
    }
    if let Some(file) = child(node, "file") {
        let (name, length) = (file.filename(), file.size().next_multiple_of(SECTOR));
        let _ = writeln!(
            text,
            "Child node '/file':\n    filename: {name}\n    protocol type: file\n    file length: {} \
             ({length} bytes)\n    disk size: {}",
            human(length),
            disk(&file)
        );
    }
    text
}

fn snapshot_table(text: &mut String, snapshots: &[Snapshot]) {
    if snapshots.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "Snapshot list:\n{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}",
        "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"
    );
    for one in snapshots {
        let ms = one.vm_clock_ns / 1_000_000;
        let (s, m, h) = (ms / 1000 % 60, ms / 60_000 % 60, ms / 3_600_000);
        let clock = format!("{h:04}:{m:02}:{s:02}.{:03}", ms % 1000);
        let icount = one.icount.map_or("--".to_owned(), |count| count.to_string());
        let _ = writeln!(
            text,
            "{:<7} {:<16} {:>8} {:>19} {clock:>15} {icount:>10}",
            one.id,
            one.name,
            human(one.vm_state_size),
            date(one.date_s)
        );
    }
}

/// A time in UTC. The calendar repeats after 400 years, of 146097 days.
fn date(seconds: u32) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Years that begin in March end with the leap day.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + later;
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{of_month:02} {h:02}:{m:02}:{s:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(date(1_795_291_940), "2026-11-21 20:12:20");
        assert_eq!(date(u32::MAX), "2106-02-07 06:28:15");
    }
}
