//! Raw images on real files.

mod locking;
mod open;
mod raw;

use super::{Disk, DiskQueue, Done, Request};
use std::future::poll_fn;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM_BYTES: usize = 8 << 20;
const SLOTS: usize = 32;
const SEGMENTS: usize = 16;

fn ram() -> Arc<GuestMemoryMmap<()>> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).unwrap())
}

/// A disk's data handle and the memory it works on.
struct Rig {
    ram: Arc<GuestMemoryMmap<()>>,
    queue: Box<dyn DiskQueue>,
}

impl Rig {
    fn new(disk: &dyn Disk) -> Self {
        let ram = ram();
        let queue = disk.queue(&ram, SLOTS, SEGMENTS).unwrap();
        Self { ram, queue }
    }

    fn fill(&self, address: u64, data: &[u8]) {
        self.ram.write_slice(data, GuestAddress(address)).unwrap();
    }

    fn memory(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    fn submit(&mut self, slot: usize, request: Request, parts: &[(u64, u32)]) {
        let mut segments = self.queue.segments(slot);
        segments.clear();
        for (address, len) in parts {
            segments.push(GuestAddress(*address), *len).unwrap();
        }
        self.queue.submit(slot, request);
    }

    async fn done(&mut self) -> Done {
        poll_fn(|cx| self.queue.poll_done(cx)).await
    }

    async fn run(&mut self, request: Request, parts: &[(u64, u32)]) -> Result<(), i32> {
        self.submit(0, request, parts);
        self.done().await.result
    }
}

/// Bytes that differ everywhere.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|n| ((n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
