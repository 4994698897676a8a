//! The mappings behind guest RAM: the one place of this module that is unsafe.

use super::{HugePages, MemoryError, Ram, RamConfig, layout, ranges};
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

pub(super) fn build(config: &RamConfig) -> Result<Ram, MemoryError> {
    let error = |source| MemoryError::Map { size: config.size, source };
    let backing =
        if config.shared { Some(Arc::new(memfd(config.size).map_err(error)?)) } else { None };
    let mut regions = Vec::new();
    let mut file_offset = 0;
    for range in ranges(config.size) {
        let len = range.end - range.start;
        let offset = backing.as_ref().map(|f| FileOffset::from_arc(Arc::clone(f), file_offset));
        let mapping = map(len as usize, offset).map_err(error)?;
        advise(&mapping, config);
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start))
            .ok_or_else(|| error(io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
        regions.push(region);
        file_offset += len;
    }
    Ram::from_regions(regions).map_err(|e| error(io::Error::other(e)))
}

fn map(len: usize, file: Option<FileOffset>) -> io::Result<MmapRegion<()>> {
    let sharing =
        if file.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
    let builder = MmapRegionBuilder::<()>::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(sharing | libc::MAP_NORESERVE);
    let builder = match file {
        Some(offset) => builder.with_file_offset(offset),
        None => builder,
    };
    builder.build().map_err(|e| match e {
        MmapRegionError::Mmap(source) => source,
        other => io::Error::other(other),
    })
}

/// Hints only: a host that does not know one runs the guest all the same.
fn advise(region: &MmapRegion<()>, config: &RamConfig) {
    let huge = match config.huge_pages {
        HugePages::Auto if config.size < layout::GIB => Some(libc::MADV_NOHUGEPAGE),
        HugePages::Auto => None,
        HugePages::Never => Some(libc::MADV_NOHUGEPAGE),
        HugePages::Always => Some(libc::MADV_HUGEPAGE),
    };
    // A core dump of the VMM holds its own state, not gigabytes of its guest's.
    for advice in [Some(libc::MADV_DONTDUMP), huge].into_iter().flatten() {
        // SAFETY: the pointer and length are those of a mapping that `region` owns and keeps
        // alive over this call; neither advice changes its contents.
        let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) };
        if result != 0 {
            tracing::debug!(advice, error = %io::Error::last_os_error(), "madvise refused");
        }
    }
}

fn memfd(size: u64) -> io::Result<File> {
    // SAFETY: the name is a C string that the kernel copies; no other memory is involved.
    let fd = unsafe { libc::memfd_create(c"ringvisor-ram".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    Ok(file)
}
