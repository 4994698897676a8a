//! The data handle of a raw image: one submission a request, straight on guest memory.
//!
//! ```text
//!   Read, Write ──▶ transfer (direct | buffered | through a bounce buffer) ──▶ [sync] ──▶ done
//!   WriteZeroes ──▶ zero range or punch hole ──▶ (unsupported: write zeroes) ──▶ [sync] ──▶ done
//!   Discard ──▶ punch hole ──▶ done          Flush ──▶ fdatasync ──▶ done
//! ```
//! A step that ends short, or with EINTR or EAGAIN, is repeated for what is left.

mod transfer;
mod unmap;

use super::bounce::{Bounce, BouncePool};
use super::file::User;
use super::options::Discard;
use super::segments::{SegmentTable, Segments};
use super::written::{Syncing, Written};
use super::{DiskQueue, Done, Request};
use reactor::{Completion, Fd, FixedFile, OpGroup, Target};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use vm_memory::GuestMemoryMmap;

/// How often one step is repeated for EINTR and EAGAIN before the request fails with it.
const RETRIES_MAX: u8 = 100;

/// What direct I/O demands, in bytes; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectAlign {
    /// Of buffer addresses.
    pub(super) memory: usize,
    /// Of offsets and lengths in the file.
    pub(super) offset: usize,
}

/// The open files behind a raw image, and how to treat them.
#[derive(Clone, Debug)]
pub(super) struct RawFiles {
    /// The image.
    pub(super) file: Fd,
    /// The image again, without `O_DIRECT`, where single sectors are too small for direct I/O.
    pub(super) buffered: Option<Fd>,
    /// Set when `file` is open with `O_DIRECT`.
    pub(super) direct: Option<DirectAlign>,
    pub(super) discard: Discard,
    pub(super) no_flush: bool,
    /// What flushes go by; the same for all who have the file open by these descriptors.
    pub(super) written: Arc<Written>,
}

/// A file as the queue's ring knows it.
struct Handle {
    fd: Fd,
    fixed: Option<FixedFile>,
}

impl Handle {
    /// The group keeps it: a place in the ring's table must not go to another file while a
    /// submission names it.
    fn new(fd: Fd, group: &OpGroup) -> Rc<Self> {
        // Without room in the ring's table the plain descriptor serves.
        let fixed = OpGroup::register_file(&fd).ok();
        let handle = Rc::new(Self { fd, fixed });
        group.keep(Rc::clone(&handle) as Rc<dyn std::any::Any>);
        handle
    }

    fn target(&self) -> Target<'_> {
        self.fixed.as_ref().map_or(Target::Fd(&self.fd), Target::Fixed)
    }
}

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Transfer,
    Sync,
    Discard,
    Zero(unmap::Method),
}

struct Slot {
    step: Step,
    write: bool,
    /// Sync when the data is written.
    stable: bool,
    /// The next byte in the file.
    offset: u64,
    /// Bytes left to discard or zero (a transfer's are in its segments).
    left: u64,
    /// Bytes of the zero write in flight.
    piece: u64,
    retries: u8,
    /// A transfer that goes through a buffer: whatever its alignment, once in one always in one.
    bounced: bool,
    bounce: Option<Rc<Bounce>>,
    syncing: Option<Syncing>,
}

impl Slot {
    fn idle() -> Self {
        Self {
            step: Step::Idle,
            write: false,
            stable: false,
            offset: 0,
            left: 0,
            piece: 0,
            retries: 0,
            bounced: false,
            bounce: None,
            syncing: None,
        }
    }
}

/// See the module.
pub(super) struct RawQueue {
    group: OpGroup,
    table: SegmentTable,
    slots: Box<[Slot]>,
    finished: VecDeque<Done>,
    main: Rc<Handle>,
    buffered: Option<Rc<Handle>>,
    direct: Option<DirectAlign>,
    discard: Discard,
    no_flush: bool,
    written: Arc<Written>,
    /// Its own among those of `written`.
    place: usize,
    unmap: unmap::Abilities,
    pool: BouncePool,
    /// Slots that wait for a bounce buffer.
    waiting: VecDeque<usize>,
    in_flight: usize,
    aborting: bool,
    /// Tells the image that it is no longer in use.
    user: Option<User>,
}

impl RawQueue {
    /// One that is counted among the users of its image.
    pub(super) fn with_user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    pub(super) fn new(
        files: &RawFiles,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> Self {
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        let group = OpGroup::new(slots, table.keep());
        let main = Handle::new(files.file.clone(), &group);
        let buffered = files.buffered.clone().map(|fd| Handle::new(fd, &group));
        Self {
            group,
            table,
            slots: (0..slots).map(|_| Slot::idle()).collect(),
            finished: VecDeque::with_capacity(slots),
            main,
            buffered,
            direct: files.direct,
            discard: files.discard,
            no_flush: files.no_flush,
            place: files.written.place(),
            written: Arc::clone(&files.written),
            unmap: unmap::Abilities::default(),
            pool: BouncePool::default(),
            waiting: VecDeque::new(),
            in_flight: 0,
            aborting: false,
            user: None,
        }
    }

    /// Ends the request of `slot`; its report waits in `finished`.
    fn finish(&mut self, slot: usize, result: Result<(), i32>) {
        let state = &mut self.slots[slot];
        state.step = Step::Idle;
        let bounce = state.bounce.take();
        if let Some(syncing) = state.syncing.take()
            && result.is_ok()
        {
            syncing.succeeded();
        }
        self.finished.push_back(Done { slot, result });
        if let Some(bounce) = bounce {
            self.release(bounce);
        }
    }

    fn flush(&mut self, slot: usize) {
        if self.no_flush {
            return self.finish(slot, Ok(()));
        }
        match self.written.begin() {
            None => self.finish(slot, Ok(())),
            syncing => {
                self.slots[slot].syncing = syncing;
                self.sync(slot);
            }
        }
    }

    fn sync(&mut self, slot: usize) {
        self.slots[slot].step = Step::Sync;
        self.group.fdatasync(self.main.target(), slot as u64);
    }

    /// The data of `slot` has been written.
    fn written(&mut self, slot: usize) {
        if self.slots[slot].stable {
            self.slots[slot].retries = 0;
            self.flush(slot);
        } else {
            self.finish(slot, Ok(()));
        }
    }

    /// The kernel has answered the step of `slot` with `result`: a count, or a negative errno.
    fn completed(&mut self, slot: usize, result: i32) {
        let step = self.slots[slot].step;
        // A part of what failed may have been done.
        let changes = match step {
            Step::Transfer => self.slots[slot].write,
            Step::Discard | Step::Zero(_) => true,
            Step::Sync | Step::Idle => false,
        };
        if changes {
            self.written.note(self.place);
        }
        match errno_of(result) {
            None => {}
            Some(libc::EINTR | libc::EAGAIN) if self.may_retry(slot) => {
                return self.repeat(slot, step);
            }
            Some(_) if self.aborting => return self.finish(slot, Err(libc::ECANCELED)),
            Some(errno) => return self.failed(slot, step, errno),
        }
        match step {
            Step::Transfer => self.transferred(slot, result as usize),
            Step::Sync | Step::Discard => self.finish(slot, Ok(())),
            Step::Zero(method) => self.zeroed(slot, method, result as u64),
            Step::Idle => unreachable!("the group reports each submission once"),
        }
    }

    fn may_retry(&mut self, slot: usize) -> bool {
        let retries = &mut self.slots[slot].retries;
        *retries = retries.saturating_add(1);
        *retries <= RETRIES_MAX && !self.aborting
    }

    fn repeat(&mut self, slot: usize, step: Step) {
        match step {
            Step::Transfer => self.transfer(slot),
            Step::Sync => self.sync(slot),
            Step::Discard => self.punch_discard(slot),
            Step::Zero(method) => self.zero(slot, method),
            Step::Idle => unreachable!("an idle slot has nothing in flight"),
        }
    }

    fn failed(&mut self, slot: usize, step: Step, errno: i32) {
        match step {
            // The kernel wants more than its stated alignment: try an aligned buffer.
            Step::Transfer
                if errno == libc::EINVAL && self.direct.is_some() && !self.slots[slot].bounced =>
            {
                self.slots[slot].bounced = true;
                self.transfer(slot);
            }
            Step::Discard => self.discard_failed(slot, errno),
            Step::Zero(method) => self.zero_failed(slot, method, errno),
            _ => self.finish(slot, Err(errno)),
        }
    }

    /// Of `n` bytes moved out of `of`, those that leave an addressable rest.
    fn whole_blocks(&self, n: u64, of: u64) -> u64 {
        match self.direct {
            Some(direct) if n < of => n & !(direct.offset as u64 - 1),
            _ => n.min(of),
        }
    }
}

/// The errno of a completion, if it is one.
fn errno_of(result: i32) -> Option<i32> {
    (result < 0).then(|| result.wrapping_neg())
}

impl DiskQueue for RawQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        let state = &mut self.slots[slot];
        debug_assert_eq!(state.step, Step::Idle, "slot {slot} is taken");
        (state.retries, state.bounced, state.stable) = (0, false, false);
        self.in_flight += 1;
        match request {
            Request::Read { offset } => {
                (state.offset, state.write) = (offset, false);
                self.transfer(slot);
            }
            Request::Write { offset, stable } => {
                (state.offset, state.write, state.stable) = (offset, true, stable);
                self.transfer(slot);
            }
            Request::Flush => self.flush(slot),
            Request::Discard { offset, len } => {
                (state.offset, state.left) = (offset, len);
                self.start_discard(slot);
            }
            Request::WriteZeroes { offset, len, unmap, stable } => {
                (state.offset, state.left, state.stable) = (offset, len, stable);
                self.start_zero(slot, unmap);
            }
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        loop {
            if let Some(done) = self.finished.pop_front() {
                self.in_flight -= 1;
                return Poll::Ready(done);
            }
            match self.group.poll_next(cx) {
                Poll::Ready(Completion { token, result, .. }) => {
                    self.completed(token as usize, result);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn abort(&mut self) {
        self.aborting = true;
        while let Some(slot) = self.waiting.pop_front() {
            self.finish(slot, Err(libc::ECANCELED));
        }
        self.group.cancel_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::on_core;
    use std::future::poll_fn;
    use vm_memory::GuestAddress;

    #[test]
    fn eintr_and_eagain_are_repeated_and_not_for_ever() {
        on_core(|_| async {
            // A pipe that nobody writes to keeps the real operations out of the way.
            let (reader, _writer) = nix::unistd::pipe().unwrap();
            let files = RawFiles {
                file: Fd::from(reader),
                buffered: None,
                direct: None,
                discard: Discard::Ignore,
                no_flush: false,
                written: Arc::default(),
            };
            let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
            let mut queue = RawQueue::new(&files, &Arc::new(ram), 1, 1);
            for errno in [libc::EINTR, libc::EAGAIN] {
                queue.segments(0).clear();
                queue.segments(0).push(GuestAddress(0), 512).unwrap();
                queue.submit(0, Request::Read { offset: 0 });
                for _ in 0..RETRIES_MAX {
                    queue.completed(0, -errno);
                    assert!(queue.finished.is_empty());
                }
                queue.completed(0, -errno);
                let done = poll_fn(|cx| queue.poll_done(cx)).await;
                assert_eq!(done, Done { slot: 0, result: Err(errno) });
            }
        });
    }

    async fn done(queue: &mut RawQueue) -> Result<(), i32> {
        poll_fn(|cx| queue.poll_done(cx)).await.result
    }

    /// Whether a flush goes to the storage.
    async fn syncs(queue: &mut RawQueue) -> bool {
        queue.submit(0, Request::Flush);
        let goes = queue.finished.is_empty();
        assert_eq!(done(queue).await, Ok(()));
        goes
    }

    #[test]
    fn a_flush_with_nothing_to_make_stable_does_not_go_to_the_storage() {
        on_core(|_| async {
            let image = tempfile::tempfile().unwrap();
            image.set_len(1 << 20).unwrap();
            let files = RawFiles {
                file: Fd::from(std::os::fd::OwnedFd::from(image)),
                buffered: None,
                direct: None,
                discard: Discard::Unmap,
                no_flush: false,
                written: Arc::default(),
            };
            let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
            let ram = Arc::new(ram);
            let (mut first, mut second) =
                (RawQueue::new(&files, &ram, 1, 1), RawQueue::new(&files, &ram, 1, 1));
            assert!(syncs(&mut first).await, "what was before is not known to be stable");
            for (request, data, changes) in [
                (Request::Read { offset: 0 }, 512, false),
                (Request::Write { offset: 0, stable: false }, 512, true),
                (Request::Discard { offset: 0, len: 4096 }, 0, true),
                (
                    Request::WriteZeroes { offset: 0, len: 4096, unmap: false, stable: false },
                    0,
                    true,
                ),
                // Stable already.
                (Request::Write { offset: 0, stable: true }, 512, false),
            ] {
                first.segments(0).clear();
                if data > 0 {
                    first.segments(0).push(GuestAddress(0), data).unwrap();
                }
                first.submit(0, request);
                assert_eq!(done(&mut first).await, Ok(()));
                // Whichever queue it comes by.
                assert_eq!(syncs(&mut second).await, changes, "{request:?}");
                assert!(!syncs(&mut first).await && !syncs(&mut second).await);
            }
        });
    }
}
