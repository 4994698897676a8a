//! `map`: where the data of an image is.

use super::arguments::{Arguments, Option_, size};
use super::extents::{Extent, Layers};
use super::image::{Access, Images};
use std::fmt::Write;

pub(super) const OPTIONS: &[Option_] = &[
    Option_('f', "format", true),
    Option_('U', "force-share", false),
    Option_('s', "start-offset", true),
    Option_('l', "max-length", true),
    Option_('\0', "output", true),
];

/// Bytes that are looked at in one step.
const STEP: u64 = 1 << 30;

pub(super) async fn run(args: Arguments) -> Result<u8, String> {
    let (path, json) = (args.file()?, args.json()?);
    let number = |key| args.value(key).map(size).transpose();
    let start = number("start-offset")?.unwrap_or(0);
    let most = number("max-length")?.unwrap_or(u64::MAX);
    let mut images = Images::new()?;
    let image = images.open(path, Access::to_look(&args)).await?;
    let layers = Layers::of(&image)?;
    let end = image.content.size().min(start.saturating_add(most));
    let mut rows = Vec::new();
    let mut at = start;
    while at < end {
        let extent = layers.at(at, (end - at).min(STEP)).await;
        let extent = extent.map_err(|error| format!("{path}: reading its tables: {error}"))?;
        at += extent.len;
        add(&mut rows, extent);
    }
    print!("{}", if json { as_json(&rows) } else { as_table(&layers, &rows)? });
    images.close().await?;
    Ok(0)
}

/// Adds an extent, to the one before where it goes on with that.
fn add(rows: &mut Vec<Extent>, extent: Extent) {
    if let Some(last) = rows.last_mut() {
        let place = last.offset.map(|offset| offset + last.len);
        let like = Extent { start: extent.start, len: extent.len, offset: place, ..last.clone() };
        if like == extent {
            last.len += extent.len;
            return;
        }
    }
    rows.push(extent);
}

fn as_json(rows: &[Extent]) -> String {
    let mut text = "[".to_owned();
    for (n, row) in rows.iter().enumerate() {
        let before = if n == 0 { "" } else { ",\n" };
        let _ = write!(
            text,
            "{before}{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \
             \"data\": {}, \"compressed\": {}",
            row.start, row.len, row.depth, row.present, row.zero, row.data, row.compressed
        );
        if let Some(offset) = row.offset {
            let _ = write!(text, ", \"offset\": {offset}");
        }
        text += "}";
    }
    text + "]\n"
}

fn as_table(layers: &Layers, rows: &[Extent]) -> Result<String, String> {
    let hex = |number: u64| if number == 0 { "0".to_owned() } else { format!("{number:#x}") };
    let mut text = format!("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to");
    for row in rows.iter().filter(|row| row.data && !row.zero) {
        let Some(offset) = row.offset else {
            return Err("File contains external, encrypted or compressed clusters.".to_owned());
        };
        let (start, len, at) = (hex(row.start), hex(row.len), hex(offset));
        let _ = writeln!(text, "{start:<16}{len:<16}{at:<16}{}", layers.filename(row.depth));
    }
    Ok(text)
}
