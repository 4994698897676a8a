//! A split virtqueue as its device uses it (section 2.7), and checked descriptor chains.

use super::{Ram, features};
use crate::block::{SegmentError, Segments};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

/// Guest-physical addresses of a queue's three parts, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueLayout {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// Why a queue cannot be used as its driver has set it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LayoutFault {
    #[error("the {part} at {address:#x} is not aligned to {align} bytes")]
    Alignment { part: &'static str, address: u64, align: u64 },
    #[error("the {part} at {address:#x} ({len} bytes) is not in RAM")]
    NotRam { part: &'static str, address: u64, len: u64 },
}

impl QueueLayout {
    /// Checks alignment (section 2.7) and that all of it is RAM.
    pub(super) fn check(&self, ram: &Ram) -> Result<(), LayoutFault> {
        let size = u64::from(self.size);
        for (part, address, align, len) in [
            ("descriptor table", self.descriptors, 16, 16 * size),
            ("available ring", self.available, 2, 6 + 2 * size),
            ("used ring", self.used, 4, 6 + 8 * size),
        ] {
            if address % align != 0 {
                return Err(LayoutFault::Alignment { part, address, align });
            }
            let len_in_memory = len as usize;
            // Address 0 is where a driver that has set nothing up would have it.
            if address == 0
                || !ram.check_range(GuestAddress(address), len_in_memory, Permissions::ReadWrite)
            {
                return Err(LayoutFault::NotRam { part, address, len });
            }
        }
        Ok(())
    }
}

/// Why a driver's request cannot be understood at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// The available ring has more new entries than the queue has room for, or cannot be read.
    #[error("the available ring's index is impossible")]
    AvailableIndex,
    /// More requests at a time than the queue has descriptors.
    #[error("more requests are in flight than the queue has descriptors")]
    TooMany,
    /// The chain names a descriptor that does not exist, loops, is too long, or has an indirect
    /// table that it may not have.
    #[error("a descriptor chain is broken (a loop, an index or an indirect table out of range)")]
    Chain,
    /// A buffer of no bytes.
    #[error("a descriptor has the length 0")]
    ZeroLength,
    /// A buffer for reading behind one for writing (section 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
    /// A buffer that is not RAM.
    #[error("a descriptor names memory that is not RAM: {address:#x}, {len} bytes")]
    NotRam {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        len: u32,
    },
    /// The buffers are too few or too small to tell what is asked, or to answer.
    #[error("a request has no complete header or no room for its status")]
    Incomplete,
    /// The used ring cannot be written.
    #[error("the used ring cannot be written")]
    UsedRing,
}

/// How far a queue has been worked off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingPosition {
    available: u16,
    used: u16,
}

/// A live queue.
pub struct Virtqueue {
    queue: Queue,
    ram: Arc<Ram>,
    /// Used entries that the driver has not been told of.
    unannounced: u16,
}

impl Virtqueue {
    /// A queue that was checked with [`QueueLayout::check`]. `max` is its largest size.
    pub(super) fn new(
        layout: &QueueLayout,
        max: u16,
        features: u64,
        ram: &Arc<Ram>,
    ) -> Result<Self, virtio_queue::Error> {
        let mut queue = Queue::new(max)?;
        queue.try_set_size(layout.size)?;
        queue.try_set_desc_table_address(GuestAddress(layout.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(layout.available))?;
        queue.try_set_used_ring_address(GuestAddress(layout.used))?;
        queue.set_event_idx(features & features::EVENT_IDX != 0);
        queue.set_ready(true);
        Ok(Self { queue, ram: Arc::clone(ram), unannounced: 0 })
    }

    /// How far it is; of a queue whose chains have all been given back or put back.
    pub(super) fn position(&self) -> RingPosition {
        RingPosition { available: self.queue.next_avail(), used: self.queue.next_used() }
    }

    /// Goes on where another left off.
    pub(super) fn go_on_at(&mut self, position: RingPosition) {
        self.queue.set_next_avail(position.available);
        self.queue.set_next_used(position.used);
    }

    /// Descriptors.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The most descriptors that a chain may have. Drivers go by what the device says about itself,
    /// so this is the queue's largest size and not the one in use.
    pub fn chain_max(&self) -> u16 {
        self.queue.max_size()
    }

    /// The memory that the queue and its buffers are in.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// Takes the next available chain and runs `f` on it; `None` when there is none.
    pub fn pop<R>(
        &mut self,
        f: impl FnOnce(DescriptorChain<&Ram>) -> R,
    ) -> Result<Option<R>, ChainFault> {
        let ram: &Ram = &self.ram;
        let mut available = self.queue.iter(ram).map_err(|_| ChainFault::AvailableIndex)?;
        Ok(available.next().map(f))
    }

    /// As [`pop`](Self::pop) for who has no room for a chain: that there is one is a fault, as no
    /// driver has more chains than descriptors.
    pub(super) fn pop_none(&mut self) -> Result<bool, ChainFault> {
        match self.pop(|_| ())? {
            Some(()) => Err(ChainFault::TooMany),
            None => Ok(false),
        }
    }

    /// Puts the chain that was taken last back on the available ring.
    pub(super) fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Puts the `chains` that were taken last back.
    pub(super) fn unpop_all(&mut self, chains: usize) {
        for _ in 0..chains {
            self.unpop();
        }
    }

    /// Asks the driver to notify of new chains. True when there are some already, which the
    /// driver may not notify of: the caller goes on taking them.
    pub fn enable_notification(&mut self) -> Result<bool, ChainFault> {
        let ram: &Ram = &self.ram;
        self.queue.enable_notification(ram).map_err(|_| ChainFault::AvailableIndex)
    }

    /// Tells the driver that it need not notify for now. Advice only.
    pub fn disable_notification(&mut self) -> Result<(), ChainFault> {
        let ram: &Ram = &self.ram;
        self.queue.disable_notification(ram).map_err(|_| ChainFault::UsedRing)
    }

    /// Gives the chain that starts with `head` back, `len` bytes of its writable part written.
    pub fn push_used(&mut self, head: u16, len: u32) -> Result<(), ChainFault> {
        let ram: &Ram = &self.ram;
        self.queue.add_used(ram, head, len).map_err(|_| ChainFault::UsedRing)?;
        self.unannounced = self.unannounced.wrapping_add(1);
        Ok(())
    }

    /// Gives several chains back in one go: the driver sees all of them or none (section
    /// 5.1.6.4.1 asks for that).
    pub(super) fn push_used_all(
        &mut self,
        chains: impl ExactSizeIterator<Item = (u16, u32)>,
    ) -> Result<(), ChainFault> {
        let ram: &Ram = &self.ram;
        let (first, count) = (self.queue.next_used(), chains.len());
        for (n, (head, len)) in chains.enumerate() {
            if n + 1 == count {
                // The index goes out with the last one.
                return self.push_used(head, len);
            }
            let slot = first.wrapping_add(n as u16) & (self.queue.size() - 1);
            let entry = GuestAddress(self.queue.used_ring() + 4 + 8 * u64::from(slot));
            let element = (u64::from(len) << 32 | u64::from(head)).to_le_bytes();
            ram.write_slice(&element, entry).map_err(|_| ChainFault::UsedRing)?;
            self.queue.set_next_used(first.wrapping_add(n as u16 + 1));
            self.unannounced = self.unannounced.wrapping_add(1);
        }
        Ok(())
    }

    /// Whether the driver is to be interrupted for what has been pushed since the last call:
    /// `None` when that is nothing (section 2.7.7.2).
    pub fn announce(&mut self) -> Option<bool> {
        let added = std::mem::take(&mut self.unannounced);
        if added == 0 {
            return None;
        }
        // The used index is out before the driver's wishes are read, as the driver reads them the
        // other way round.
        fence(Ordering::SeqCst);
        if !self.queue.event_idx_enabled() {
            return Some(!self.no_interrupt_flag());
        }
        // Section 2.7.10.1: the event lies among the entries that are new.
        let event = self.queue.avail_ring() + 4 + 2 * u64::from(self.queue.size());
        let event = self.ram.load::<u16>(GuestAddress(event), Ordering::Relaxed);
        let behind = |event| self.queue.next_used().wrapping_sub(event).wrapping_sub(1);
        // An unreadable ring cannot be: it was checked, and RAM stays. An interrupt does no harm.
        Some(event.map_or(true, |event| behind(u16::from_le(event)) < added))
    }

    /// `VIRTQ_AVAIL_F_NO_INTERRUPT`, which counts where EVENT_IDX does not.
    fn no_interrupt_flag(&self) -> bool {
        let flags = self.ram.load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
        flags.is_ok_and(|flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT != 0)
    }
}

/// The buffers of a chain, as [`gather`] has found them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// The chain's first descriptor, to give it back by.
    pub head: u16,
    /// Bytes of the device-readable part.
    pub readable: u64,
    /// Bytes of the device-writable part, which follows it.
    pub writable: u64,
    /// The last byte of the chain, where it is writable.
    pub last_byte: Option<GuestAddress>,
    /// The chain is sound, but has more segments than `segments` has room for; those are missing.
    pub overflow: bool,
}

/// Checks a whole chain and puts its buffers into `segments`, the readable ones first.
///
/// No chain may have more than `max` descriptors (section 2.7.5.3.1; [`Virtqueue::chain_max`]).
pub fn gather(
    chain: DescriptorChain<&Ram>,
    max: u16,
    segments: &mut Segments<'_>,
) -> Result<Gathered, ChainFault> {
    segments.clear();
    gather_more(chain, max, segments)
}

/// As [`gather`], behind what `segments` has already.
pub fn gather_more(
    chain: DescriptorChain<&Ram>,
    max: u16,
    segments: &mut Segments<'_>,
) -> Result<Gathered, ChainFault> {
    let mut found = Gathered {
        head: chain.head_index(),
        readable: 0,
        writable: 0,
        last_byte: None,
        overflow: false,
    };
    let (mut count, mut ended) = (0, false);
    for descriptor in chain {
        count += 1;
        ended = !descriptor.has_next();
        if count > max {
            return Err(ChainFault::Chain);
        }
        let (address, len) = (descriptor.addr(), descriptor.len());
        if len == 0 {
            return Err(ChainFault::ZeroLength);
        }
        if descriptor.is_write_only() {
            found.writable += u64::from(len);
        } else if found.writable > 0 {
            return Err(ChainFault::Order);
        } else {
            found.readable += u64::from(len);
        }
        match segments.push(address, len) {
            Ok(()) => {}
            Err(SegmentError::Full) => found.overflow = true,
            Err(SegmentError::NotRam { address, len }) => {
                return Err(ChainFault::NotRam { address, len });
            }
        }
        found.last_byte = descriptor
            .is_write_only()
            .then(|| GuestAddress(address.0.wrapping_add(u64::from(len) - 1)));
    }
    // The iterator ends early, and without a word, at whatever it cannot follow.
    if ended { Ok(found) } else { Err(ChainFault::Chain) }
}
