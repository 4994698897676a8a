//! What a file name of `-drive` means: a block device of the host is opened by `host_device`.

use super::options::{DriverOptions, Options, Reference};
use crate::block::BoxFuture;
use reactor::io as rio;
use std::path::Path;

/// Chooses the drivers of files that are made with a drive. On a reactor.
pub(super) fn choose_drivers(options: &mut Options) -> BoxFuture<'_, ()> {
    Box::pin(async move {
        if let DriverOptions::File { filename, device, .. } = &mut options.driver {
            *device |= is_block_device(filename).await;
            return;
        }
        let children: Vec<_> = options.driver.children();
        let made: Vec<_> = children
            .into_iter()
            .filter_map(|(role, reference)| match reference {
                Reference::New(child) => Some((role, child.clone())),
                Reference::Name(_) => None,
            })
            .collect();
        for (role, mut child) in made {
            choose_drivers(&mut child).await;
            options.driver.set_child(role, Reference::New(child));
        }
    })
}

/// Whether there is a block device at `path`. It is not opened for that.
async fn is_block_device(path: &Path) -> bool {
    let Ok(place) = rio::openat(path, libc::O_PATH | libc::O_CLOEXEC, 0).await else {
        return false;
    };
    let attributes = rio::statx(&place, libc::STATX_TYPE).await;
    attributes.is_ok_and(|found| u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFBLK)
}
