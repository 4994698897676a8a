//! Messages with descriptors (`SCM_RIGHTS`, unix(7)): `IORING_OP_SENDMSG` and `IORING_OP_RECVMSG`.

use super::OpCode;
use super::buf::{IoBuf, IoBufMut};
use super::codes::adopt;
use crate::fd::Fd;
use crate::mailbox::Shared;
use io_uring::{opcode, squeue, types};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Descriptors in one message at most (`SCM_MAX_FD` of the kernel).
pub(crate) const FDS_MAX: usize = 253;

/// The header, its one iovec and its control data: on the heap, pointing at one another.
struct Header {
    message: libc::msghdr,
    iovec: libc::iovec,
    /// Words, for the alignment of `struct cmsghdr`.
    control: Vec<u64>,
}

// SAFETY: the pointers lead into this very allocation and into a buffer that moves along with it.
unsafe impl Send for Header {}

impl Header {
    #[expect(clippy::unnecessary_box_returns, reason = "it points to itself and may not move")]
    fn new(start: *mut u8, len: usize, control: usize) -> Box<Self> {
        // SAFETY: `msghdr` consists of pointers and integers, for which zero is a value.
        let message = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec { iov_base: start.cast(), iov_len: len };
        let control = vec![0; control.div_ceil(size_of::<u64>())];
        let mut header = Box::new(Self { message, iovec, control });
        header.message.msg_iov = &raw mut header.iovec;
        header.message.msg_iovlen = 1;
        header
    }

    /// Points the message at the first `len` bytes of the control data.
    fn set_control(&mut self, len: usize) {
        debug_assert!(len <= self.control.len() * size_of::<u64>());
        self.message.msg_control = self.control.as_mut_ptr().cast();
        self.message.msg_controllen = len as _;
    }
}

/// The size of control data that holds `n` descriptors.
fn control_space(n: usize) -> usize {
    // SAFETY: computes a size, touches no memory.
    unsafe { libc::CMSG_SPACE((n * size_of::<i32>()) as u32) as usize }
}

/// Sends bytes and descriptors.
pub(crate) struct SendMessage<B> {
    fd: Fd,
    buffer: B,
    header: Box<Header>,
    /// Open until the kernel has taken its references.
    _fds: Vec<Fd>,
}

impl<B: IoBuf> SendMessage<B> {
    /// `fds` has [`FDS_MAX`] elements at most.
    pub(crate) fn new(fd: Fd, buffer: B, fds: Vec<Fd>) -> Self {
        let (start, len) = (buffer.as_ptr().cast_mut(), buffer.len());
        let mut header = Header::new(start, len, control_space(fds.len()));
        if !fds.is_empty() {
            header.set_control(control_space(fds.len()));
            let data = (fds.len() * size_of::<i32>()) as u32;
            // SAFETY: the control data has room for a header and `data` bytes, and is aligned.
            unsafe {
                let cmsg = libc::CMSG_FIRSTHDR(&raw const header.message);
                (*cmsg).cmsg_level = libc::SOL_SOCKET;
                (*cmsg).cmsg_type = libc::SCM_RIGHTS;
                (*cmsg).cmsg_len = libc::CMSG_LEN(data) as _;
                let slots = libc::CMSG_DATA(cmsg).cast::<[u8; 4]>();
                for (n, fd) in fds.iter().enumerate() {
                    slots.add(n).write(fd.as_raw_fd().to_ne_bytes());
                }
            }
        }
        Self { fd, buffer, header, _fds: fds }
    }
}

// SAFETY: header, iovec and control data are boxed; the buffer keeps IoBuf's contract.
unsafe impl<B: IoBuf> OpCode for SendMessage<B> {
    type Output = (io::Result<usize>, B);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        opcode::SendMsg::new(fd, &raw const self.header.message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|n| n as usize), self.buffer)
    }
}

/// What one message brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes of data; 0 when the peer has closed.
    pub bytes: usize,
    /// The descriptors, close-on-exec.
    pub fds: Vec<Fd>,
    /// There were more descriptors than asked for: the kernel has closed the others.
    pub truncated: bool,
}

/// Receives bytes and descriptors.
pub(crate) struct RecvMessage<B> {
    fd: Fd,
    buffer: B,
    header: Box<Header>,
}

impl<B: IoBufMut> RecvMessage<B> {
    pub(crate) fn new(fd: Fd, mut buffer: B, fds_max: usize) -> Self {
        let fds = fds_max.min(FDS_MAX);
        let mut header = Header::new(buffer.as_mut_ptr(), buffer.len(), control_space(fds));
        if fds > 0 {
            // Without the padding, in which there would be room for one more.
            // SAFETY: computes a size, touches no memory.
            let len = unsafe { libc::CMSG_LEN((fds * size_of::<i32>()) as u32) };
            header.set_control(len as usize);
        }
        Self { fd, buffer, header }
    }
}

impl<B> RecvMessage<B> {
    /// Takes the descriptors of the message that the kernel has written. Once only.
    fn take_fds(&mut self) -> Vec<Fd> {
        let message = &raw const self.header.message;
        let mut fds = Vec::new();
        // SAFETY: the kernel has set `msg_controllen` to what it wrote into our control data, and the
        // macros stay within that.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
        while !next.is_null() {
            // SAFETY: not null, so it is a whole header within the control data.
            let cmsg = unsafe { &*next };
            if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
                // SAFETY: computes a size, touches no memory.
                let header = unsafe { libc::CMSG_LEN(0) } as usize;
                let n = (cmsg.cmsg_len as usize).saturating_sub(header) / size_of::<i32>();
                // SAFETY: the data follows the header, `cmsg_len` bytes of both were written.
                let slots = unsafe { libc::CMSG_DATA(next) }.cast::<[u8; 4]>();
                for slot in 0..n {
                    // SAFETY: below `n`.
                    let fd = i32::from_ne_bytes(unsafe { slots.add(slot).read() });
                    fds.extend(u32::try_from(fd).map(|fd| Fd::from(adopt(fd))));
                }
            }
            // SAFETY: as for the first header.
            next = unsafe { libc::CMSG_NXTHDR(message, next) };
        }
        fds
    }
}

// SAFETY: header, iovec and control data are boxed; the buffer keeps IoBufMut's contract.
unsafe impl<B: IoBufMut> OpCode for RecvMessage<B> {
    type Output = (io::Result<Received>, B);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed): (types::Fd, _) = self.fd.target(home);
        opcode::RecvMsg::new(fd, &raw mut self.header.message)
            .flags(libc::MSG_CMSG_CLOEXEC as u32)
            .build()
            .flags(fixed)
    }

    fn complete(mut self, result: io::Result<u32>) -> Self::Output {
        let received = result.map(|bytes| Received {
            bytes: bytes as usize,
            fds: self.take_fds(),
            truncated: self.header.message.msg_flags & libc::MSG_CTRUNC != 0,
        });
        (received, self.buffer)
    }

    fn orphaned(&mut self, result: i32) {
        if result >= 0 {
            drop(self.take_fds());
        }
    }
}
