//! Where random bytes come from.

use reactor::{Fd, io as rio};
use std::io;
use std::path::Path;

/// What the kernel's own generator is called; it never waits once the host is up.
const URANDOM: &str = "/dev/urandom";

/// A file of random bytes.
pub struct Entropy {
    file: Fd,
}

impl Entropy {
    /// The kernel's generator. On a reactor.
    pub async fn system() -> io::Result<Self> {
        Self::open(Path::new(URANDOM)).await
    }

    /// Another file: a character device or a pipe, as a rule. On a reactor.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = rio::openat(path, flags, 0).await?;
        Ok(Self { file })
    }

    /// A file that is open, without waiting where it has nothing.
    pub fn from_fd(file: Fd) -> Self {
        Self { file }
    }

    /// Up to `max` bytes, and one at least, once there are any. On a reactor.
    pub(super) async fn read(&self, max: usize) -> io::Result<Vec<u8>> {
        loop {
            let (result, mut bytes) = rio::read(&self.file, vec![0; max]).await;
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    bytes.truncate(n);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    rio::poll(&self.file, libc::POLLIN as u32).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
