//! The mappings behind guest memory: the one place of this module that is unsafe.

use super::{Backing, HugePages, MemoryError, Ram, RamConfig, layout, ranges};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

/// A mapping.
pub(super) type Region = MmapRegion<()>;

pub(super) fn build(config: &RamConfig) -> Result<Ram, MemoryError> {
    let backing = Store::open(config)?;
    let mut regions = Vec::new();
    let mut done = 0;
    for range in ranges(config.size) {
        let len = range.end - range.start;
        let mapping = backing.map(config, done, len)?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start))
            .ok_or_else(|| refused(config, io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
        regions.push(region);
        done += len;
    }
    Ram::from_regions(regions).map_err(|error| refused(config, io::Error::other(error)))
}

pub(super) fn spare(config: &RamConfig) -> Result<Region, MemoryError> {
    Store::open(config)?.map(config, 0, config.size)
}

fn refused(config: &RamConfig, source: io::Error) -> MemoryError {
    MemoryError::Map { size: config.size, source }
}

/// The file behind memory, if there is one, and where the memory begins in it.
struct Store {
    file: Option<Arc<File>>,
    start: u64,
}

impl Store {
    fn open(config: &RamConfig) -> Result<Self, MemoryError> {
        let (file, start) = match &config.backing {
            Backing::Anonymous => return Ok(Self { file: None, start: 0 }),
            Backing::Memfd { huge, seal } => (memfd(config, *huge, *seal)?, 0),
            Backing::File { path, offset } => (file(config, path, *offset)?, *offset),
        };
        let pages = page_size(&file).map_err(|source| refused(config, source))?;
        if !config.size.is_multiple_of(pages) || !start.is_multiple_of(pages) {
            return Err(MemoryError::Pages(pages));
        }
        Ok(Self { file: Some(Arc::new(file)), start })
    }

    /// Maps `len` bytes from `at`, as `config` wants them.
    fn map(&self, config: &RamConfig, at: u64, len: u64) -> Result<Region, MemoryError> {
        let sharing = if config.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let kind = if self.file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
        let reserve = if config.reserve { 0 } else { libc::MAP_NORESERVE };
        let builder = MmapRegionBuilder::<()>::new(len as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(sharing | kind | reserve);
        let builder = match &self.file {
            Some(file) => {
                builder.with_file_offset(FileOffset::from_arc(Arc::clone(file), self.start + at))
            }
            None => builder,
        };
        let region = builder.build().map_err(|error| match error {
            MmapRegionError::Mmap(source) => refused(config, source),
            other => refused(config, io::Error::other(other)),
        })?;
        advise(&region, config);
        populate(&region, config.populate).map_err(MemoryError::Populate)?;
        Ok(region)
    }
}

/// Hints only: a host that does not know one runs the guest all the same.
fn advise(region: &Region, config: &RamConfig) {
    let huge = match config.huge_pages {
        HugePages::Auto if config.size < layout::GIB => Some(libc::MADV_NOHUGEPAGE),
        HugePages::Auto => None,
        HugePages::Never => Some(libc::MADV_NOHUGEPAGE),
        HugePages::Always => Some(libc::MADV_HUGEPAGE),
    };
    // A core dump of the VMM holds its own state, not gigabytes of its guest's, unless that is wanted.
    let dump = (!config.dump).then_some(libc::MADV_DONTDUMP);
    let merge = config.merge.then_some(libc::MADV_MERGEABLE);
    for advice in [dump, merge, huge].into_iter().flatten() {
        if let Err(error) = madvise(region, 0, region.size(), advice) {
            tracing::debug!(advice, %error, "madvise refused");
        }
    }
}

/// Touches every page, with so many threads.
fn populate(region: &Region, threads: usize) -> io::Result<()> {
    if threads == 0 {
        return Ok(());
    }
    // Whole pages of any size.
    let part = region.size().div_ceil(threads).next_multiple_of(layout::GIB as usize);
    std::thread::scope(|scope| {
        let parts = (0..region.size()).step_by(part).map(|at| {
            let len = part.min(region.size() - at);
            scope.spawn(move || madvise(region, at, len, libc::MADV_POPULATE_WRITE))
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().try_for_each(|part| {
            part.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
        })
    })
}

/// Advises on `len` bytes from `at` of a region, which must lie in it. Never one that changes contents.
fn madvise(region: &Region, at: usize, len: usize, advice: i32) -> io::Result<()> {
    let start = region.as_ptr().wrapping_add(at);
    // SAFETY: the bytes are in a mapping that `region` owns and keeps alive over this call; the advice
    // is one of those above, none of which changes what can be read there.
    let result = unsafe { libc::madvise(start.cast(), len, advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn memfd(config: &RamConfig, huge: Option<u64>, seal: bool) -> Result<File, MemoryError> {
    let pages = match huge {
        None => 0,
        // The host's usual ones.
        Some(0) => libc::MFD_HUGETLB,
        // The kernel takes the logarithm in bits 26 and up (memfd_create(2)).
        Some(size) => libc::MFD_HUGETLB | size.ilog2() << libc::MFD_HUGE_SHIFT,
    };
    let sealing = if seal { libc::MFD_ALLOW_SEALING } else { 0 };
    let flags = libc::MFD_CLOEXEC | pages | sealing;
    // SAFETY: the name is a C string that the kernel copies; no other memory is involved.
    let fd = unsafe { libc::memfd_create(c"ringvisor-ram".as_ptr(), flags) };
    if fd < 0 {
        return Err(refused(config, io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    let size = config.size;
    file.set_len(size).map_err(|source| MemoryError::Resize { what: "memfd", size, source })?;
    if seal {
        let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: F_ADD_SEALS takes a number; the descriptor is open.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        if result < 0 {
            return Err(refused(config, io::Error::last_os_error()));
        }
    }
    Ok(file)
}

/// Opens the file, or makes it; a directory gets a file without a name.
fn file(config: &RamConfig, path: &Path, offset: u64) -> Result<File, MemoryError> {
    let mut options = File::options();
    options.read(true).write(true);
    if path.is_dir() {
        options.custom_flags(libc::O_TMPFILE);
    } else {
        options.create(true);
    }
    let open = |source| MemoryError::Open { path: path.display().to_string(), source };
    let file = options.mode(0o600).open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    let size = config.size.saturating_add(offset);
    // A file that is large enough keeps its size; devices have none.
    if metadata.is_file() && metadata.len() < size {
        let what = "backing store";
        file.set_len(size).map_err(|source| MemoryError::Resize { what, size, source })?;
    }
    Ok(file)
}

/// The size of the pages that hold a file: more than the usual on hugetlbfs.
fn page_size(file: &File) -> io::Result<u64> {
    // SAFETY: all zeroes is a value of this plain structure, which the kernel fills.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is writable for the duration of the call; the descriptor is open.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let huge = found.f_type == libc::HUGETLBFS_MAGIC;
    Ok(if huge { u64::try_from(found.f_bsize).unwrap_or(layout::PAGE) } else { layout::PAGE })
}
