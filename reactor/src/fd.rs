//! A shared, owned file descriptor, and its place in a ring's table of registered files.

use crate::local;
use crate::mailbox::Shared;
use crate::ring::Slot;
use crate::work::HomeWork;
use io_uring::{squeue, types};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A file descriptor that several operations may hold at once; closed with the last clone.
///
/// An operation in flight keeps a clone until its completion has arrived, so the number can
/// never be reused under it.
#[derive(Clone, Debug)]
pub struct Fd {
    fd: Arc<OwnedFd>,
    registration: Option<Arc<Registration>>,
}

/// A file's place in the table of one context's ring.
struct Registration {
    home: Arc<Shared>,
    slot: u32,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.slot, self.home.name)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let slot = Slot::File(self.slot);
        if local::is_current(&self.home) {
            local::with(|local| local.ring.borrow_mut().release(slot));
        } else {
            self.home.send_home(HomeWork::Release(slot));
        }
    }
}

impl Fd {
    /// The same file as an entry of the current context's table of registered files (fixed files):
    /// operations submitted there through the returned value, or a clone, skip the descriptor look-up.
    /// Submitted in another context they use the descriptor. The entry is freed with the last clone.
    ///
    /// Errors: the table is full, or the kernel refuses; go on with the descriptor itself then.
    ///
    /// # Panics
    /// Off a reactor.
    pub fn register(&self) -> io::Result<Self> {
        let registration = local::with(|local| {
            let slot = local.ring.borrow_mut().register_file(self.as_raw_fd())?;
            Ok::<_, io::Error>(Registration { home: Arc::clone(&local.shared), slot })
        })?;
        Ok(Self { fd: Arc::clone(&self.fd), registration: Some(Arc::new(registration)) })
    }

    /// Whether operations submitted in the current context skip the descriptor look-up.
    pub fn is_registered(&self) -> bool {
        self.registration.as_ref().is_some_and(|place| local::is_current(&place.home))
    }

    /// Gives the descriptor back when this is the only clone. A registration ends. Any thread; never blocks.
    pub fn into_owned(self) -> Result<OwnedFd, Self> {
        let registration = self.registration;
        Arc::try_unwrap(self.fd).map_err(|fd| Self { fd, registration })
    }

    /// How an entry for the ring of `home` names the file.
    pub(crate) fn target(&self, home: &Arc<Shared>) -> (types::Fd, squeue::Flags) {
        match &self.registration {
            Some(place) if Arc::ptr_eq(&place.home, home) => {
                // The table has at most 1024 entries.
                (types::Fd(place.slot.cast_signed()), squeue::Flags::FIXED_FILE)
            }
            _ => (types::Fd(self.as_raw_fd()), squeue::Flags::empty()),
        }
    }
}

impl<T: Into<OwnedFd>> From<T> for Fd {
    fn from(fd: T) -> Self {
        Self { fd: Arc::new(fd.into()), registration: None }
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
