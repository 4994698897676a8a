//! A bare io_uring on the same file as a guest's disk.

use crate::samples::Samples;
use crate::{Error, host};
use io_uring::{IoUring, opcode, squeue, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use vm_memory::mmap::MmapRegion;

/// Bytes of a request, and its alignment.
pub const BLOCK: usize = 4096;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read a random block.
    Read,
    /// Write one.
    Write,
    /// Make writes durable.
    Flush,
}

/// A ring set up as well as one can, for one file.
pub struct Bare {
    ring: IoUring,
    buffers: MmapRegion,
    depth: usize,
    blocks: u64,
    seed: u64,
}

impl Bare {
    /// For `depth` requests in flight on `file`, whose first `blocks` blocks are used.
    pub fn new(file: &File, blocks: u64, depth: usize) -> Result<Self, Error> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(64)
            .map_err(|e| Error::io("io_uring", e))?;
        let files = [file.as_raw_fd()];
        ring.submitter().register_files(&files).map_err(|e| Error::io("io_uring files", e))?;
        let buffers = MmapRegion::new(depth * BLOCK).map_err(|e| Error::io("memory", e))?;
        Ok(Self { ring, buffers, depth, blocks: blocks.max(1), seed: 1 })
    }

    /// The next random block: a linear congruential generator's upper bits.
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % self.blocks * BLOCK as u64
    }

    /// A request of slot `slot`, to be submitted by [`Bare::wait`].
    pub fn push(&mut self, slot: usize, op: Op) -> Result<(), Error> {
        assert!(slot < self.depth, "each slot has a buffer");
        let offset = self.next();
        let buffer = self.buffers.as_ptr().wrapping_add(slot * BLOCK);
        let file = types::Fixed(0);
        let entry: squeue::Entry = match op {
            Op::Read => opcode::Read::new(file, buffer, BLOCK as u32).offset(offset).build(),
            Op::Write => opcode::Write::new(file, buffer, BLOCK as u32).offset(offset).build(),
            Op::Flush => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the buffer lies in a mapping that lives as long as the ring; a slot is pushed again only after its
        // completion (callers keep that), and the bytes are never looked at.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|e| Error::io("io_uring submission", e))
    }

    /// Submits, waits for one completion at least, and hands out the slots.
    pub fn wait(&mut self, slots: &mut Vec<usize>) -> Result<(), Error> {
        slots.clear();
        while let Err(error) = self.ring.submit_and_wait(1) {
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(Error::io("io_uring_enter", error));
            }
        }
        for done in self.ring.completion() {
            if done.result() < 0 {
                let error = std::io::Error::from_raw_os_error(-done.result());
                return Err(Error::io("request of the bare ring", error));
            }
            slots.push(done.user_data() as usize);
        }
        Ok(())
    }
}

/// What a load has shown.
pub struct Findings {
    /// Time of each request.
    pub samples: Samples,
    /// Requests a second.
    pub iops: f64,
    /// CPU time of each, in seconds.
    pub cpu: f64,
}

/// Keeps `depth` requests in flight for `time`.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub fn load(bare: &mut Bare, op: Op, time: Duration) -> Result<Findings, Error> {
    let mut samples = Samples::new();
    let mut started = vec![Instant::now(); bare.depth];
    let mut slots = Vec::new();
    for slot in 0..bare.depth {
        bare.push(slot, op)?;
    }
    let (begun, before) = (Instant::now(), host::thread_cpu_seconds()?);
    loop {
        bare.wait(&mut slots)?;
        let now = Instant::now();
        if now - begun >= time {
            break;
        }
        for &slot in &slots {
            samples.add(now - started[slot]);
            started[slot] = now;
            bare.push(slot, op)?;
        }
    }
    let count = samples.count().max(1) as f64;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = (host::thread_cpu_seconds()? - before) / count;
    let mut left = bare.depth - slots.len();
    while left > 0 {
        bare.wait(&mut slots)?;
        left -= slots.len();
    }
    Ok(Findings { samples, iops: count / seconds, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_request_works_at_every_depth() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * BLOCK as u64).unwrap();
        for op in [Op::Write, Op::Read, Op::Flush] {
            for depth in [1, 32] {
                let mut bare = Bare::new(&file, 64, depth).unwrap();
                let found = load(&mut bare, op, Duration::from_millis(5)).unwrap();
                assert!(found.iops > 0.0 && found.cpu >= 0.0, "{op:?} {depth}");
            }
        }
        assert_eq!(file.metadata().unwrap().len(), 64 * BLOCK as u64, "writes stay inside");
    }
}
