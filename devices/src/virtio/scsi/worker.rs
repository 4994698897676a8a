//! One request queue: from the available ring to the units' disks and back.
//!
//! Nothing here locks, allocates or copies data for a READ or WRITE: its segments are handed from
//! the chain's list to the disk's. The task with slot `n` here uses slot `n` of its unit's disk.

use super::VirtioScsi;
use super::config::{self, Shape};
use super::mailbox::Listener;
use super::order::{Deed, Order, Scope};
use super::request::{Header, Layout, Response, Verdict, parse};
use super::units::{Missing, Units};
use crate::block::{Done, Request, SegmentTable};
use crate::scsi::{Address, Bus, Command, Direction, Failure, Kind, Plan, Sense, Steps};
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::{ChainFault, gather};
use crate::virtio::serve::{QueueWork, Ring};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A command in flight.
struct Task {
    head: u16,
    layout: Layout,
    address: Address,
    id: u64,
    /// The data that its CDB asks for.
    moved: (Direction, u64),
    /// It changes the medium.
    write: bool,
    /// What comes after the request in flight.
    steps: Option<Steps>,
    /// Orders to end it; it is answered as the first one says.
    orders: Vec<Arc<Order>>,
}

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioScsi>,
    /// The chain of each slot: headers, answer and data.
    lists: SegmentTable,
    tasks: Box<[Option<Task>]>,
    /// Idle slots, the last used one on top.
    free: Vec<usize>,
    units: Units,
    arriving: Listener<Arc<Order>>,
    /// Orders that wait until the commands available when they came have been taken.
    waiting: Vec<Arc<Order>>,
    /// Chains that may be such commands.
    before_orders: usize,
    shape: Shape,
    inout: bool,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioScsi>, setup: &QueueSetup) -> Self {
        let slots = usize::from(setup.queue.size());
        let segments = usize::from(setup.queue.chain_max());
        let ram = setup.queue.ram();
        Self {
            lists: SegmentTable::new(Arc::clone(ram), slots, segments),
            tasks: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            units: Units::new(Arc::clone(ram), slots, segments),
            arriving: device.orders.open(&setup.doorbell),
            waiting: Vec::new(),
            before_orders: 0,
            shape: device.sizes.shape(),
            inout: setup.features & config::INOUT != 0,
            device,
        }
    }

    /// Takes a command from the available ring; false when there is none.
    fn take_command(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(&slot) = self.free.last() else {
            return ring.queue.pop_none();
        };
        let (max, shape) = (ring.queue.chain_max(), self.shape);
        let mut list = self.lists.slot(slot);
        let header = ring.queue.pop(|chain| {
            let found = gather(chain, max, &mut list)?;
            parse(&found, &list, shape)
        })?;
        let Some(header) = header else { return Ok(false) };
        self.begin(ring, slot, &header?)?;
        Ok(true)
    }

    /// Finds out what is asked for, and starts or answers it.
    fn begin(&mut self, ring: &mut Ring, slot: usize, header: &Header) -> Result<(), ChainFault> {
        let layout = &header.layout;
        if layout.out_bytes > 0 && layout.in_bytes > 0 && !self.inout {
            return self.answer(ring, slot, header, Verdict::Refused(Response::Failure));
        }
        let Some(address) = header.address else {
            return self.answer(ring, slot, header, Verdict::Refused(Response::BadTarget));
        };
        match self.units.at(&self.device.bus, address) {
            Ok(place) => self.begin_at(ring, slot, header, place),
            Err(Missing::Unit) => {
                let command = Command::parse(&header.cdb, Kind::Disk);
                let moved = command.map_or(NO_DATA, |command| command.data(1));
                if overruns(moved, layout) {
                    return self.answer(ring, slot, header, Verdict::Refused(Response::Overrun));
                }
                let plan = command.and_then(|command| Bus::plan_absent(address, &command));
                self.answer_plan(ring, slot, header, plan, moved)
            }
            Err(Missing::Target) => {
                self.answer(ring, slot, header, Verdict::Refused(Response::BadTarget))
            }
            Err(Missing::Broken(error)) => {
                tracing::warn!(?address, %error, "a unit's disk cannot be opened");
                self.answer(ring, slot, header, Verdict::Refused(Response::TargetFailure))
            }
        }
    }

    fn begin_at(
        &mut self,
        ring: &mut Ring,
        slot: usize,
        header: &Header,
        place: usize,
    ) -> Result<(), ChainFault> {
        let Some(unit) = self.units.get(place).map(|open| &*open.member.unit) else {
            return Ok(());
        };
        let (layout, list) = (&header.layout, self.lists.slot(slot));
        let command = Command::parse(&header.cdb, unit.kind());
        let moved = command.map_or(NO_DATA, |command| command.data(unit.block()));
        if overruns(moved, layout) {
            return self.answer(ring, slot, header, Verdict::Refused(Response::Overrun));
        }
        let parameters = |into: &mut [u8]| {
            let n = into.len().min(usize::try_from(layout.out_bytes).unwrap_or(usize::MAX));
            list.read_at(layout.out_at, &mut into[..n])
        };
        match unit.plan(&header.cdb, command, &parameters) {
            Ok(Plan::Disk(request)) => {
                if self.fill(slot, place, layout, request, moved).is_none() {
                    return self.answer_plan(ring, slot, header, Err(Sense::NO_MEDIUM), moved);
                }
                self.launch(slot, header, place, (request, None), moved);
                Ok(())
            }
            Ok(Plan::Steps(mut steps)) => {
                let Some(request) = self.next_step(slot, place, layout, &mut steps) else {
                    return self.answer_plan(ring, slot, header, Err(Sense::NO_MEDIUM), moved);
                };
                self.launch(slot, header, place, (request, Some(steps)), moved);
                Ok(())
            }
            plan => self.answer_plan(ring, slot, header, plan, moved),
        }
    }

    /// Hands the data of a request to the disk's list; `None` where that cannot be.
    fn fill(
        &mut self,
        slot: usize,
        place: usize,
        layout: &Layout,
        request: Request,
        (_, bytes): (Direction, u64),
    ) -> Option<()> {
        let mut segments = self.units.get_mut(place)?.disk.as_mut()?.segments(slot);
        segments.clear();
        let at = match request {
            Request::Read { .. } => layout.in_at,
            Request::Write { .. } => layout.out_at,
            _ => return Some(()),
        };
        segments.extend(&self.lists.slot(slot), at, bytes).ok()
    }

    /// Occupies `slot` and hands a request to the disk; `moved` is what the command's data will be.
    fn launch(
        &mut self,
        slot: usize,
        header: &Header,
        place: usize,
        (request, steps): (Request, Option<Steps>),
        moved: (Direction, u64),
    ) {
        let (Some(address), Some(unit)) = (header.address, self.units.get_mut(place)) else {
            return;
        };
        let Some(disk) = &mut unit.disk else { return };
        disk.submit(slot, request);
        self.free.pop();
        self.tasks[slot] = Some(Task {
            head: header.head,
            layout: header.layout,
            address,
            id: header.id,
            moved,
            write: !matches!(request, Request::Read { .. }),
            steps,
            orders: Vec::new(),
        });
    }

    /// The next request of a command of several.
    fn next_step(
        &mut self,
        slot: usize,
        place: usize,
        layout: &Layout,
        steps: &mut Steps,
    ) -> Option<Request> {
        let unit = self.units.get_mut(place)?;
        let block = unit.member.unit.block();
        let mut segments = unit.disk.as_mut()?.segments(slot);
        steps.next(&mut segments, &self.lists.slot(slot), layout.out_at, block)
    }

    /// Answers what needs no disk.
    fn answer_plan(
        &mut self,
        ring: &mut Ring,
        slot: usize,
        header: &Header,
        plan: Result<Plan, Sense>,
        moved: (Direction, u64),
    ) -> Result<(), ChainFault> {
        let data = match plan {
            Ok(Plan::Data(data)) => data,
            Ok(Plan::Luns { well_known }) => {
                let target = header.address.map_or(0, |address| address.target);
                let room = usize::try_from(moved.1).unwrap_or(usize::MAX);
                self.device.bus.report_luns(target, well_known, room)
            }
            Ok(_) => return self.answer(ring, slot, header, good(moved)),
            Err(sense) => {
                return self.answer(ring, slot, header, Verdict::Failed(sense.into()));
            }
        };
        let read = self.lists.slot(slot).write_at(header.layout.in_at, &data) as u64;
        self.answer(ring, slot, header, Verdict::Good { read, written: 0 })
    }

    fn answer(
        &mut self,
        ring: &mut Ring,
        slot: usize,
        header: &Header,
        verdict: Verdict,
    ) -> Result<(), ChainFault> {
        self.answer_task(ring, slot, header.head, &header.layout, verdict)
    }

    /// The answer first, then the used ring: an entry there says that all else is written.
    fn answer_task(
        &mut self,
        ring: &mut Ring,
        slot: usize,
        head: u16,
        layout: &Layout,
        verdict: Verdict,
    ) -> Result<(), ChainFault> {
        if let Verdict::Good { read, written } = verdict {
            ring.metrics.read(read);
            ring.metrics.written(written);
        }
        ring.metrics.request(matches!(verdict, Verdict::Good { .. }));
        let len = layout.answer(&mut self.lists.slot(slot), verdict);
        ring.queue.push_used(head, len)
    }

    /// The disk at `place` has finished a request.
    fn completed(&mut self, ring: &mut Ring, place: usize, done: Done) {
        let Done { slot, result } = done;
        let Some(mut task) = self.tasks[slot].take() else { return };
        if result.is_ok()
            && task.orders.is_empty()
            && let Some(steps) = &mut task.steps
            && let Some(request) = self.next_step(slot, place, &task.layout, steps)
            && let Some(disk) = self.units.get_mut(place).and_then(|unit| unit.disk.as_mut())
        {
            disk.submit(slot, request);
            self.tasks[slot] = Some(task);
            return;
        }
        let removed = self.units.get(place).is_none_or(|unit| unit.member.removed());
        let verdict = match (task.orders.first().map(|order| order.deed), result) {
            (Some(Deed::End(response)), _) => Verdict::Refused(response),
            (_, Ok(())) => good(task.moved),
            (_, Err(libc::ECANCELED)) if removed => Verdict::Refused(Response::BadTarget),
            (_, Err(errno)) => Verdict::Failed(Failure::of_errno(errno, task.write)),
        };
        self.free.push(slot);
        if let Err(fault) = self.answer_task(ring, slot, task.head, &task.layout, verdict) {
            ring.fail(&fault);
        }
    }

    /// Hears what the control queue and `main` order.
    fn listen(&mut self) {
        let Some(orders) = self.arriving.take() else { return };
        self.units.retire_stale();
        for order in orders {
            if order.deed == Deed::Release {
                self.units.retire_for(&order);
            } else {
                // The driver may have made the task that is meant available and not been heard yet.
                self.waiting.push(order);
                self.before_orders = self.tasks.len();
            }
        }
    }

    /// Does what has been ordered.
    fn obey(&mut self) {
        for order in std::mem::take(&mut self.waiting) {
            let tasks = self.tasks.iter_mut().flatten();
            for task in tasks.filter(|task| order.scope.has_task(task.address, task.id)) {
                order.found();
                if matches!(order.deed, Deed::End(_)) {
                    task.orders.push(Arc::clone(&order));
                }
            }
            // One task alone runs to its end: a disk ends all it has, or nothing.
            if order.deed != Deed::Query && !matches!(order.scope, Scope::Task(..)) {
                self.units.retire_for(&order);
            }
        }
    }

    /// Collects what the disks have finished, and hands it to `f`.
    fn poll_disks(&mut self, cx: &mut Context<'_>, mut f: impl FnMut(&mut Self, usize, Done)) {
        for place in 0..self.units.places() {
            while let Some(unit) = self.units.get_mut(place)
                && let Some(disk) = &mut unit.disk
                && disk.needs_poll()
                && let Poll::Ready(done) = disk.poll_done(cx)
            {
                f(self, place, done);
            }
        }
        self.units.sweep();
    }
}

/// Of a command that moves nothing, and of one that is not understood.
const NO_DATA: (Direction, u64) = (Direction::None, 0);

/// Whether a command needs more room for data than its request has (section 5.6.6.1).
fn overruns((direction, bytes): (Direction, u64), layout: &Layout) -> bool {
    match direction {
        Direction::None => false,
        Direction::In => bytes > layout.in_bytes,
        Direction::Out => bytes > layout.out_bytes,
    }
}

/// All the data has been moved.
fn good((direction, bytes): (Direction, u64)) -> Verdict {
    match direction {
        Direction::None => Verdict::Good { read: 0, written: 0 },
        Direction::In => Verdict::Good { read: bytes, written: 0 },
        Direction::Out => Verdict::Good { read: 0, written: bytes },
    }
}

impl QueueWork for Worker {
    fn begin_batch(&mut self) {
        self.shape = self.device.sizes.shape();
    }

    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let taken = self.take_command(ring)?;
        if self.waiting.is_empty() {
            return Ok(taken);
        }
        self.before_orders = self.before_orders.saturating_sub(1);
        if !taken || self.before_orders == 0 {
            self.obey();
        }
        // Tasks that an order has ended may be finished already: the caller looks once more.
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        self.listen();
        self.poll_disks(cx, |worker, place, done| worker.completed(ring, place, done));
    }

    fn poll_paused(&mut self, ring: &mut Ring, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_finished(ring, cx);
        // Nobody gives orders while the control queue is paused, but for those of `main`.
        self.obey();
        if self.tasks.iter().any(Option::is_some) { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.units.retire_all();
        self.poll_disks(cx, |worker, _, done| drop(worker.tasks[done.slot].take()));
        let busy = (0..self.units.places()).any(|place| self.units.get(place).is_some());
        if busy { Poll::Pending } else { Poll::Ready(()) }
    }
}
