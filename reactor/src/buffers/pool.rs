//! Provided buffer rings: buffers from which the kernel picks one when data has come.

use super::Region;
use crate::guard;
use crate::local;
use crate::mailbox::Shared;
use crate::work::HomeWork;
use io_uring::types::BufRingEntry;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// The memory and the bookkeeping of a provided buffer ring.
pub(crate) struct Pool {
    home: Arc<Shared>,
    group: u16,
    /// The ring's entries first, then the buffers. `None` once given to whoever unregisters it.
    region: Option<Region>,
    entries: u16,
    size: usize,
    /// Where the next free buffer goes; written at home only.
    tail: AtomicU16,
    /// Buffers that the kernel has; written at home only.
    free: AtomicUsize,
    /// Who waits for a buffer to be free; used at home only, so never contended.
    waiting: Mutex<Vec<Waker>>,
}

impl Pool {
    fn base(&self) -> *mut u8 {
        self.region.as_ref().expect("taken by drop only").base()
    }

    /// The entries, of which the first also has the ring's tail.
    fn ring(&self) -> *mut BufRingEntry {
        // A mapping begins at a page, so the entries are aligned.
        self.base().cast::<libc::c_void>().cast()
    }

    fn buffer(&self, id: u16) -> *mut u8 {
        // In bounds: ids are below `entries`.
        self.base().wrapping_add(buffers_at(self.entries) + usize::from(id) * self.size)
    }

    /// Gives a buffer to the kernel. At home.
    pub(crate) fn provide(&self, id: u16) {
        let tail = self.tail.load(Ordering::Relaxed);
        let slot = usize::from(tail & (self.entries - 1));
        let ring = self.ring();
        // SAFETY: the region begins with `entries` entries, and the slot is one of them. The kernel does
        // not read it before the tail says so. It never looks at the field of the first entry that is
        // the ring's tail as part of that entry, and the setters do not write it.
        let entry = unsafe { &mut *ring.add(slot) };
        entry.set_addr(self.buffer(id) as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        let tail = tail.wrapping_add(1);
        self.tail.store(tail, Ordering::Relaxed);
        self.free.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the ring's tail is in its first entry, aligned, and shared with the kernel only.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(ring).cast_mut()) };
        // Release: the kernel sees the entry before the tail.
        shared.store(tail, Ordering::Release);
        let waiting = std::mem::take(&mut *self.lock_waiting());
        for waker in waiting {
            guard::run("a waker", "buffer ring", || waker.wake());
        }
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the kernel has a buffer; else `waker` will be woken when it has. At home.
    pub(crate) fn has_free(&self, waker: &Waker) -> bool {
        if self.free.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let waker = waker.clone();
        self.lock_waiting().push(waker);
        false
    }

    /// Takes the buffer that the kernel has filled. At home, once for each completion that names one.
    pub(crate) fn filled(self: &Arc<Self>, id: u16, len: usize) -> RingBuf {
        assert!(id < self.entries, "the kernel names a buffer that it was never given");
        self.free.fetch_sub(1, Ordering::Relaxed);
        RingBuf { pool: Arc::clone(self), id, len: len.min(self.size) }
    }

    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    pub(crate) fn home(&self) -> &Arc<Shared> {
        &self.home
    }
}

/// Where the buffers begin: after the entries, at a whole page.
fn buffers_at(entries: u16) -> usize {
    (usize::from(entries) * size_of::<BufRingEntry>()).next_multiple_of(4096)
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(region) = self.region.take() else { return };
        if local::is_current(&self.home) {
            retire(region, self.group);
        } else {
            self.home.send_home(HomeWork::Retire(region, self.group));
        }
    }
}

/// Takes a buffer ring that nobody uses from the current ring, then its memory from the process.
pub(crate) fn retire(region: Region, group: u16) {
    let result = local::with(|local| local.ring.borrow_mut().unregister_buf_ring(group));
    match result {
        Ok(()) => drop(region),
        Err(error) => {
            tracing::warn!(%error, "a buffer ring could not be released: its memory is leaked");
            std::mem::forget(region);
        }
    }
}

/// A provided buffer ring (`IORING_REGISTER_PBUF_RING`) of the context that made it: multishot reads
/// and receives take their buffers from it, so that what waits for data occupies none. Clones share it.
#[derive(Clone)]
pub struct BufRing {
    pool: Arc<Pool>,
}

impl BufRing {
    /// A ring of `count` buffers (rounded up to a power of two, 1 to 32768) of `size` bytes each. Memory
    /// is used as data comes.
    ///
    /// Errors: `InvalidInput` for a count or size out of range (a size is 1 to 1 GiB); what the kernel
    /// answers otherwise.
    ///
    /// # Panics
    /// Off a reactor.
    pub fn new(count: u16, size: usize) -> io::Result<Self> {
        if count == 0 || count > 1 << 15 || size == 0 || size > 1 << 30 {
            let text = "a buffer ring has 1 to 32768 buffers of 1 byte to 1 GiB";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let entries = count.next_power_of_two();
        let bytes = usize::from(entries).checked_mul(size).ok_or(io::ErrorKind::OutOfMemory)?;
        let region = Region::new(buffers_at(entries) + bytes)?;
        let pool = local::with(|local| {
            let base = region.base() as u64;
            // SAFETY: the pool owns the region and gives it to `retire`, which unregisters it first.
            let group = unsafe { local.ring.borrow_mut().register_buf_ring(base, entries) }?;
            Ok::<_, io::Error>(Pool {
                home: Arc::clone(&local.shared),
                group,
                region: Some(region),
                entries,
                size,
                tail: AtomicU16::new(0),
                free: AtomicUsize::new(0),
                waiting: Mutex::new(Vec::new()),
            })
        })?;
        for id in 0..entries {
            pool.provide(id);
        }
        Ok(Self { pool: Arc::new(pool) })
    }

    /// How many buffers the kernel may still fill. Exact in the ring's own context.
    pub fn available(&self) -> usize {
        self.pool.free.load(Ordering::Relaxed)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl fmt::Debug for BufRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, size) = (self.pool.entries, self.pool.size);
        write!(f, "BufRing({entries} x {size} in {})", self.pool.home.name)
    }
}

/// Received bytes in a buffer of a [`BufRing`]; the buffer returns to its ring when dropped, on
/// whatever thread.
pub struct RingBuf {
    pool: Arc<Pool>,
    id: u16,
    len: usize,
}

impl Deref for RingBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel has filled `len` bytes of this buffer and does not touch it until it is
        // provided again, which only `drop` does.
        unsafe { std::slice::from_raw_parts(self.pool.buffer(self.id), self.len) }
    }
}

impl DerefMut for RingBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this is the buffer's only owner.
        unsafe { std::slice::from_raw_parts_mut(self.pool.buffer(self.id), self.len) }
    }
}

// SAFETY: the bytes are in the pool's mapping, which this value keeps, and its own until dropped.
unsafe impl crate::io::IoBuf for RingBuf {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }
    fn len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for RingBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingBuf({} bytes)", self.len)
    }
}

impl Drop for RingBuf {
    fn drop(&mut self) {
        if local::is_current(&self.pool.home) {
            self.pool.provide(self.id);
        } else {
            let pool = Arc::clone(&self.pool);
            self.pool.home.send_home(HomeWork::Provide(pool, self.id));
        }
    }
}
