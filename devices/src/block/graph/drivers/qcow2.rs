//! `qcow2`: images of allocated clusters, over another node, with another one behind.

use super::Driver;
use super::bytes::{Bytes, NodeStorage};
use super::format::{Details, Format, here, refused};
use crate::block::format::{
    Compression, HEADER_BYTES, PROBE_BYTES, Probed, Qcow2Header, SNAPSHOTS_MAX, Snapshot, probe,
};
use crate::block::graph::node::Node;
use crate::block::graph::options::{Backing, DriverOptions, Options, Reference};
use crate::error::CommandError;
use crate::text::system_error;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a table of snapshots that are looked at.
const SNAPSHOT_TABLE_MAX: u64 = 1 << 20;

/// The content of a node, where a format can be kept in it.
pub(in crate::block::graph) fn content(node: &Node) -> Result<Arc<dyn Bytes>, CommandError> {
    node.driver().bytes().ok_or_else(|| {
        let text = format!("node '{}' ({}) cannot hold an image", node.name(), node.filename());
        CommandError::generic(text)
    })
}

/// The first bytes of a node, up to `len`.
pub(super) async fn first_bytes(node: &Arc<Node>, len: usize) -> Result<Vec<u8>, CommandError> {
    let bytes = content(node)?;
    let len = usize::try_from(node.size()).unwrap_or(len).min(len);
    let read = here(move || async move { bytes.read(0, len).await });
    read.await.map_err(|error| refused(node, &system_error(&error)))
}

async fn header(file: &Arc<Node>) -> Result<Qcow2Header, CommandError> {
    let bytes = first_bytes(file, HEADER_BYTES).await?;
    Qcow2Header::parse(&bytes).map_err(|why| refused(file, &why))
}

/// The format of the image in a node, by its content.
pub(in crate::block::graph) async fn probed(file: &Arc<Node>) -> Result<Probed, CommandError> {
    // What keeps no image has no format.
    if file.driver().bytes().is_none() {
        return Ok(Probed::Raw);
    }
    Ok(probe(&first_bytes(file, PROBE_BYTES).await?))
}

/// The image behind `file` as its header names it.
pub(in crate::block::graph) async fn implied_backing(
    file: &Arc<Node>,
) -> Result<Option<Options>, CommandError> {
    let header = header(file).await?;
    let Some(name) = header.backing_file else { return Ok(None) };
    let filename = beside(Path::new(&file.filename()), &name)?;
    let driver = DriverOptions::file(filename);
    let below = Reference::New(Box::new(Options::new(driver)));
    let driver = match header.backing_format.as_deref() {
        Some("qcow2") => DriverOptions::Qcow2 { file: below, backing: Backing::Implied },
        Some("vmdk") => DriverOptions::Vmdk { file: below },
        Some("raw" | "file" | "host_device") => DriverOptions::raw(below),
        Some(other) => return Err(CommandError::generic(format!("Unknown driver '{other}'"))),
        None => DriverOptions::of_any_format(below),
    };
    Ok(Some(Options { read_only: Some(true), ..Options::new(driver) }))
}

/// Where an image names a file: relative to itself.
pub(super) fn beside(image: &Path, name: &str) -> Result<PathBuf, CommandError> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    if name.starts_with("json:") {
        let text = "json: names of backing files are not supported; use backing=NODE";
        return Err(CommandError::generic(text));
    }
    Ok(image.parent().unwrap_or(Path::new("")).join(name))
}

/// What the format has and is not here.
fn unsupported(header: &Qcow2Header, path: &str) -> Option<String> {
    let convert = format!("convert it with: qemu-img convert -O qcow2 {path} NEW");
    let has = |bit| header.incompatible & bit != 0;
    if header.encrypted {
        Some(format!("encrypted images are not supported; {convert}"))
    } else if has(Qcow2Header::CORRUPT) {
        Some(format!("Image is corrupt; repair it with: qemu-img check -r all {path}"))
    } else if has(Qcow2Header::DIRTY) {
        let text = "Image was not closed and its refcounts may be wrong; repair it with:";
        Some(format!("{text} qemu-img check -r all {path}"))
    } else if has(Qcow2Header::DATA_FILE) {
        Some(format!("external data files are not supported; {convert}"))
    } else if has(Qcow2Header::EXTENDED_L2) {
        Some(format!("extended L2 entries are not supported; {convert}"))
    } else if header.compression == Compression::Zstd {
        Some(format!("zstd compression is not supported; {convert}"))
    } else {
        None
    }
}

/// The snapshots inside an image.
async fn snapshots(file: &Arc<Node>, header: &Qcow2Header) -> Result<Vec<Snapshot>, CommandError> {
    let broken = || refused(file, "Snapshot table is broken");
    if header.snapshots == 0 {
        return Ok(Vec::new());
    }
    if header.snapshots > SNAPSHOTS_MAX {
        return Err(broken());
    }
    let left = file.size().checked_sub(header.snapshots_offset).ok_or_else(broken)?;
    let (bytes, at) = (content(file)?, header.snapshots_offset);
    let len = left.min(SNAPSHOT_TABLE_MAX) as usize;
    let read = here(move || async move { bytes.read(at, len).await });
    let table = read.await.map_err(|error| refused(file, &system_error(&error)))?;
    Snapshot::parse_table(&table, header.snapshots).ok_or_else(broken)
}

pub(super) async fn open(
    options: &Options,
    file: Arc<Node>,
    backing: Option<Arc<Node>>,
) -> Result<Arc<dyn Driver>, CommandError> {
    let read_only = options.read_only.unwrap_or(false) || file.info().read_only;
    let header = header(&file).await?;
    if let Some(why) = unsupported(&header, &file.filename()) {
        return Err(refused(&file, &why));
    }
    let snapshots = snapshots(&file, &header).await?;
    let backed = backing.is_some();
    let storage = NodeStorage::new(&file)?;
    let below = backing.map(|node| NodeStorage::new(&node)).transpose()?;
    let access = here(move || open_with(storage, below, !read_only));
    let access = access.await.map_err(|error| refused(&file, &system_error(&error)))?;
    let details = Details { header: Some(header), snapshots };
    Ok(Arc::new(Format::new(options, file, access, details, backed, read_only)))
}

async fn open_with(
    storage: NodeStorage,
    below: Option<NodeStorage>,
    write: bool,
) -> io::Result<FormatAccess<NodeStorage>> {
    let below = match below {
        None => None,
        Some(below) => Some(FormatAccess::new(Raw::open_image(below, false).await?)),
    };
    let image = Qcow2::<NodeStorage>::builder(storage)
        .backing(below)
        .data_file(None)
        .write(write)
        .open(DenyImplicitOpenGate::default())
        .await?;
    Ok(FormatAccess::new(image))
}
