//! What an image says of itself: its format, and the files that belong to it.

use super::drivers::{qcow2, vmdk};
use super::node::{Child, Node};
use super::options::{Backing, DriverOptions, Options};
use crate::block::format::Probed;
use crate::error::CommandError;
use std::sync::Arc;

fn file(children: &[Child]) -> Option<&Arc<Node>> {
    children.iter().find(|child| child.role == "file").map(|child| &child.node)
}

/// Decides the format of an image that nobody has named; false where there is nothing to decide.
pub(super) async fn settle(
    options: &mut Options,
    children: &[Child],
) -> Result<bool, CommandError> {
    let DriverOptions::Probed { file: reference, rest, alone } = &options.driver else {
        return Ok(false);
    };
    let Some(file) = file(children) else { return Ok(false) };
    let format = qcow2::probed(file).await?;
    let filename = file.filename();
    if *alone && format == Probed::Qcow2 && qcow2::implied_backing(file).await?.is_some()
        || *alone && !matches!(format, Probed::Raw | Probed::Qcow2)
    {
        // Whoever wrote to it as a raw image would choose what files of the host are read.
        return Err(CommandError::generic(format!(
            "Backing file '{filename}' looks like {}, and its format is not named; name it with: \
             qemu-img rebase -u -b {filename} -F FORMAT IMAGE",
            format.name()
        )));
    }
    let settled = DriverOptions::settled(format.name(), reference, rest).map_err(|error| {
        CommandError::generic(format!("Could not open '{filename}': {}", error.text))
    })?;
    if format == Probed::Raw && !*alone && options.read_only != Some(true) {
        tracing::warn!(
            "Image format was not specified for '{filename}' and probing guessed raw: a guest could \
             make it look like another format, so that its writes to block 0 are restricted. Specify \
             format=raw to remove the restrictions."
        );
    }
    options.driver = settled;
    Ok(true)
}

/// The nodes that the image itself names, by their roles, where the options do not.
pub(super) async fn children(
    options: &Options,
    children: &[Child],
) -> Result<Vec<(&'static str, Options)>, CommandError> {
    let Some(file) = file(children) else { return Ok(Vec::new()) };
    let named = match options.driver {
        DriverOptions::Qcow2 { backing: Backing::Implied, .. } => {
            let backing = qcow2::implied_backing(file).await?;
            backing.into_iter().map(|below| ("backing", below)).collect()
        }
        DriverOptions::Vmdk { .. } => {
            let extents = vmdk::extents(file).await?;
            extents.into_iter().map(|below| ("extents", below)).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    let inherits = |(role, below): (&'static str, Options)| (role, below.for_parent(options));
    Ok(named.into_iter().map(inherits).collect())
}
