//! Opening raw images: every check before the first request.

use super::error::OpenError;
use super::file::FileDisk;
use super::lock::{self, Claim, LockError};
use super::options::{Discard, FileOptions};
use super::raw::{DirectAlign, RawFiles};
use super::{Disk, DiskInfo, SECTOR};
use crate::fdset::{self, FdSets, OpenFailure, Opened};
use reactor::{Fd, io as rio};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

/// Asks statx(2) for the alignment of direct I/O (Linux 6.1).
const STATX_DIOALIGN: u32 = 0x2000;
/// Stores a block device's size in bytes as a u64.
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
/// Assumed where the kernel does not tell: what every disk sold can do.
const ASSUMED_ALIGN: DirectAlign = DirectAlign { memory: 4096, offset: 4096 };
const PHYSICAL_BLOCK_MAX: u32 = 4096;

/// Opens and locks a raw image or a block device.
///
/// On a reactor, in any context. Nothing is created, and nothing stays open after an error.
pub async fn open_file(options: FileOptions) -> Result<Arc<dyn Disk>, OpenError> {
    let Image { disk, .. } = open_any_size(&options, &FdSets::default()).await?;
    match check_size(&options.path, disk.size()) {
        Ok(()) => Ok(disk),
        Err(error) => {
            // It has not been used, so that nothing is lost with this result.
            let _ = disk.close().await;
            Err(error)
        }
    }
}

/// What has been opened.
pub(super) struct Image {
    pub(super) disk: Arc<FileDisk>,
    /// A block device; else a regular file.
    pub(super) is_block: bool,
}

/// As [`open_file`], also where the image is no whole number of sectors or a descriptor of `sets`.
pub(super) async fn open_any_size(
    options: &FileOptions,
    sets: &FdSets,
) -> Result<Image, OpenError> {
    let path = options.path.as_path();
    let of_set = fdset::is_set(path);
    if !of_set {
        // Looks without opening: opening a FIFO or a terminal would do something to it.
        let place = rio::openat(path, libc::O_PATH | libc::O_CLOEXEC, 0)
            .await
            .map_err(|source| refused(path, false, false, source))?;
        is_block(path, &*attributes(path, &place).await?)?;
    }
    let Opened { fd: file, from } = open_image(options, options.cache.direct, sets).await?;
    let attributes = attributes(path, &file).await?;
    let is_block = is_block(path, &attributes)?;
    if options.locking {
        lock::claim(&file, claim_of(options)).map_err(|error| locked(path, error))?;
    }
    let size = if is_block { block_device_size(path, &file)? } else { attributes.stx_size };
    let direct = if options.cache.direct { Some(direct_align(path, &attributes)?) } else { None };
    // Direct I/O in blocks larger than the guest's sectors needs a way around for small requests, and
    // the tables of formats have no alignment.
    let buffered = match direct {
        // Clones of a descriptor share O_DIRECT.
        Some(align) if of_set && align.offset as u64 > SECTOR => {
            return Err(OpenError::NoDirectIo(path.to_owned()));
        }
        Some(_) if !of_set => Some(open_image(options, false, sets).await?.fd),
        _ => None,
    };
    let physical_block = attributes.stx_blksize.clamp(SECTOR as u32, PHYSICAL_BLOCK_MAX);
    let info = DiskInfo {
        read_only: options.read_only,
        writeback: options.cache.writeback,
        physical_block: 1 << physical_block.ilog2(),
        discard_granularity: (options.discard == Discard::Unmap)
            .then_some(attributes.stx_blksize.max(SECTOR as u32)),
    };
    let no_flush = options.cache.no_flush;
    let discard = options.discard;
    let written = Arc::default();
    let files = RawFiles { file, buffered, direct, discard, no_flush, written };
    let name = format!("image '{}'", path.display());
    let claim = if options.locking { claim_of(options) } else { Claim::NONE };
    let disk = Arc::new(FileDisk::new(name, files, size, info, claim).with_set(from));
    Ok(Image { disk, is_block })
}

fn claim_of(options: &FileOptions) -> Claim {
    if options.read_only { Claim::READER } else { Claim::WRITER }
}

/// Whether it is a block device, or why neither that nor a regular file.
fn is_block(path: &Path, attributes: &libc::statx) -> Result<bool, OpenError> {
    let kind = match u32::from(attributes.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => return Ok(false),
        libc::S_IFBLK => return Ok(true),
        libc::S_IFDIR => return Err(OpenError::Directory(path.to_owned())),
        libc::S_IFCHR => "character device",
        libc::S_IFIFO => "FIFO",
        libc::S_IFSOCK => "socket",
        _ => "special file",
    };
    Err(OpenError::Kind { path: path.to_owned(), kind })
}

async fn open_image(
    options: &FileOptions,
    direct: bool,
    sets: &FdSets,
) -> Result<Opened, OpenError> {
    let access = if options.read_only { libc::O_RDONLY } else { libc::O_RDWR };
    let flags = access | if direct { libc::O_DIRECT } else { 0 };
    let error = match sets.open(&options.path, flags, 0).await {
        Ok(opened) => return Ok(opened),
        Err(OpenFailure { source, text: Some(text) }) => {
            let denied = source.raw_os_error() == Some(libc::EACCES);
            return Err(OpenError::NotInSet { text, denied });
        }
        Err(OpenFailure { source, text: None }) => source,
    };
    let readable = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) if !options.read_only => {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            rio::openat(&options.path, flags, 0).await.is_ok()
        }
        _ => false,
    };
    Err(refused(&options.path, direct, readable, error))
}

/// What the errno of open(2) means to the user. `readable`: only writing is refused.
pub(super) fn refused(path: &Path, direct: bool, readable: bool, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => OpenError::Missing(path),
        Some(libc::EISDIR) => OpenError::Directory(path),
        Some(libc::EACCES | libc::EPERM) if readable => OpenError::NotWritable(path),
        Some(libc::EACCES | libc::EPERM) => OpenError::NotReadable(path),
        Some(libc::EROFS) => OpenError::ReadOnlyStorage(path),
        Some(libc::EINVAL) if direct => OpenError::NoDirectIo(path),
        _ => OpenError::Io { path, what: "opening it", source },
    }
}

fn locked(path: &Path, error: LockError) -> OpenError {
    let path = path.to_owned();
    match error {
        LockError::Conflict(permission) => OpenError::Locked { path, permission },
        LockError::Unsupported(source) => OpenError::NoLocks { path, source },
    }
}

async fn attributes(path: &Path, file: &Fd) -> Result<Box<libc::statx>, OpenError> {
    rio::statx(file, libc::STATX_BASIC_STATS | STATX_DIOALIGN).await.map_err(|source| {
        OpenError::Io { path: path.to_owned(), what: "reading its attributes", source }
    })
}

fn block_device_size(path: &Path, file: &Fd) -> Result<u64, OpenError> {
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 stores one u64 at the address given.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) };
    if result == 0 {
        return Ok(bytes);
    }
    let source = io::Error::last_os_error();
    Err(OpenError::Io { path: path.to_owned(), what: "asking for its size", source })
}

pub(super) fn check_size(path: &Path, size: u64) -> Result<(), OpenError> {
    if size < SECTOR {
        return Err(OpenError::TooSmall { path: path.to_owned(), size });
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(OpenError::PartialSector { path: path.to_owned(), size });
    }
    Ok(())
}

fn direct_align(path: &Path, attributes: &libc::statx) -> Result<DirectAlign, OpenError> {
    if attributes.stx_mask & STATX_DIOALIGN == 0 {
        return Ok(ASSUMED_ALIGN);
    }
    let memory = attributes.stx_dio_mem_align as usize;
    let offset = attributes.stx_dio_offset_align as usize;
    if !memory.is_power_of_two() || !offset.is_power_of_two() {
        // Zero: the file cannot do it.
        return Err(OpenError::NoDirectIo(path.to_owned()));
    }
    Ok(DirectAlign { memory, offset: offset.max(SECTOR as usize) })
}
