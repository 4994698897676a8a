//! `vmdk`: disks of flat extents that a descriptor names, to be read.

use super::Driver;
use super::bytes::NodeStorage;
use super::format::{Details, Format, here, refused};
use super::qcow2::{beside, first_bytes};
use crate::block::graph::node::Node;
use crate::block::graph::options::{DriverOptions, Options};
use crate::error::CommandError;
use crate::text::system_error;
use imago::format::gate::ImplicitOpenGate;
use imago::vmdk::Vmdk;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A descriptor is text of a few lines.
const DESCRIPTOR_MAX: usize = 64 << 10;
/// Extents that a descriptor may name.
const EXTENTS_MAX: usize = 64;

/// The files of the extents that a descriptor names, in their order.
pub(in crate::block::graph) async fn extents(
    file: &Arc<Node>,
) -> Result<Vec<Options>, CommandError> {
    let bytes = first_bytes(file, DESCRIPTOR_MAX).await?;
    if [&b"KDMV"[..], b"COWD"].iter().any(|magic| bytes.starts_with(magic)) {
        let text = format!(
            "sparse and compressed extents are not supported; convert it with: \
             qemu-img convert -O qcow2 {} NEW",
            file.filename()
        );
        return Err(refused(file, &text));
    }
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<&str> = text.lines().filter_map(file_of).collect();
    if names.len() > EXTENTS_MAX {
        return Err(refused(file, &format!("it has more than {EXTENTS_MAX} extents")));
    }
    let mut all = Vec::new();
    for name in names {
        let filename = beside(Path::new(&file.filename()), name)?;
        let driver = DriverOptions::file(filename);
        all.push(Options { read_only: Some(true), ..Options::new(driver) });
    }
    Ok(all)
}

/// The file that a line `RW SECTORS FLAT "NAME" OFFSET` names.
fn file_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let access = words.next()?;
    let flat = words.nth(1)? == "FLAT";
    if !flat || !["RW", "RDONLY"].contains(&access) {
        return None;
    }
    line.split('"').nth(1)
}

/// Gives imago the extents' files as it asks for them.
struct Extents(VecDeque<NodeStorage>);

impl ImplicitOpenGate<NodeStorage> for Extents {
    async fn open_format<F: FormatDriverBuilder<NodeStorage>>(
        &mut self,
        _: F,
    ) -> io::Result<FormatAccess<NodeStorage>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn open_storage(&mut self, _: StorageOpenOptions) -> io::Result<NodeStorage> {
        self.0.pop_front().ok_or_else(|| io::Error::other("the descriptor has changed"))
    }
}

pub(super) async fn open(
    options: &Options,
    file: Arc<Node>,
    extents: Vec<Arc<Node>>,
) -> Result<Arc<dyn Driver>, CommandError> {
    if options.read_only != Some(true) && !options.auto_read_only && !file.info().read_only {
        return Err(refused(&file, "vmdk images can only be read; use read-only=on"));
    }
    let storage = NodeStorage::new(&file)?;
    let extents: Result<_, _> = extents.iter().map(NodeStorage::new).collect();
    let extents = Extents(extents?);
    let access = here(move || async move {
        let image = Vmdk::<NodeStorage>::builder(storage).write(false).open(extents).await?;
        Ok(FormatAccess::new(image))
    });
    let access = access.await.map_err(|error| refused(&file, &system_error(&error)))?;
    Ok(Arc::new(Format::new(options, file, access, Details::default(), false, true)))
}

#[cfg(test)]
mod tests {
    use super::file_of;

    #[test]
    fn lines_of_flat_extents_name_files() {
        assert_eq!(file_of("RW 4192256 FLAT \"a disk-f001.vmdk\" 0"), Some("a disk-f001.vmdk"));
        for line in ["RW 63 ZERO", "NOACCESS 1 FLAT \"x\"", "# RW 1 FLAT \"x\"", "CID=1", "RW"] {
            assert_eq!(file_of(line), None, "{line}");
        }
    }
}
