//! The opcodes that take paths.

use super::OpCode;
use super::codes::{adopt, close_result};
use crate::fd::Fd;
use crate::mailbox::Shared;
use io_uring::{opcode, squeue, types};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Relative paths begin at the working directory.
const CWD: types::Fd = types::Fd(libc::AT_FDCWD);

/// A path as the kernel takes it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path has a NUL byte"))
}

/// `IORING_OP_OPENAT`; close-on-exec.
pub(crate) struct OpenAt {
    pub(crate) path: CString,
    pub(crate) flags: i32,
    pub(crate) mode: u32,
}

// SAFETY: the path is on the heap and owned.
unsafe impl OpCode for OpenAt {
    type Output = io::Result<Fd>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        opcode::OpenAt::new(CWD, self.path.as_ptr())
            .flags(self.flags | libc::O_CLOEXEC)
            .mode(self.mode)
            .build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(|fd| Fd::from(adopt(fd)))
    }

    fn orphaned(&mut self, result: i32) {
        close_result(result);
    }
}

/// `IORING_OP_UNLINKAT`.
pub(crate) struct UnlinkAt {
    pub(crate) path: CString,
}

// SAFETY: the path is on the heap and owned.
unsafe impl OpCode for UnlinkAt {
    type Output = io::Result<()>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        opcode::UnlinkAt::new(CWD, self.path.as_ptr()).build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_RENAMEAT`.
pub(crate) struct RenameAt {
    pub(crate) from: CString,
    pub(crate) to: CString,
}

// SAFETY: the paths are on the heap and owned.
unsafe impl OpCode for RenameAt {
    type Output = io::Result<()>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        opcode::RenameAt::new(CWD, self.from.as_ptr(), CWD, self.to.as_ptr()).build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_MKDIRAT`.
pub(crate) struct MkDirAt {
    pub(crate) path: CString,
    pub(crate) mode: u32,
}

// SAFETY: the path is on the heap and owned.
unsafe impl OpCode for MkDirAt {
    type Output = io::Result<()>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        opcode::MkDirAt::new(CWD, self.path.as_ptr()).mode(self.mode).build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_STATX` of an open descriptor.
pub(crate) struct Statx {
    pub(crate) fd: Fd,
    pub(crate) mask: u32,
    pub(crate) answer: Box<libc::statx>,
}

// SAFETY: the answer is boxed, the empty path static, the descriptor owned.
unsafe impl OpCode for Statx {
    type Output = io::Result<Box<libc::statx>>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        let answer = (&raw mut *self.answer).cast::<types::statx>();
        // Statx takes no registered file.
        let fd = types::Fd(std::os::fd::AsRawFd::as_raw_fd(&self.fd));
        opcode::Statx::new(fd, c"".as_ptr(), answer)
            .flags(libc::AT_EMPTY_PATH)
            .mask(self.mask)
            .build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(|_| self.answer)
    }
}

/// A zeroed `struct statx` for the kernel to fill.
pub(crate) fn empty_statx() -> libc::statx {
    // SAFETY: `struct statx` consists of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}
