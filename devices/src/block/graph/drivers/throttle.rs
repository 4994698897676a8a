//! `throttle`: another node, with the limits of a group.
//!
//! A request that waits here is in flight for whoever drains: limits are suspended meanwhile, as in
//! QEMU, so that a drain does not wait for the budget.

use super::{Driver, at_once};
use crate::block::file::{User, Users};
use crate::block::graph::limiter::Limiter;
use crate::block::graph::node::Node;
use crate::block::graph::throttle::ThrottleGroup;
use crate::block::{BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, Done, Request, Segments};
use crate::error::CommandError;
use serde_json::{Value, json};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use vm_memory::GuestMemoryMmap;

/// Drained sections above a node, shared by its queues.
#[derive(Default)]
struct Suspension {
    sections: AtomicUsize,
    /// The tasks of queues in which requests wait.
    waiting: Mutex<Vec<Waker>>,
}

impl Suspension {
    fn is_on(&self) -> bool {
        self.sections.load(Ordering::Acquire) > 0
    }

    /// Has `waker` woken when the limits are suspended.
    fn watch(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

struct Throttle {
    file: Arc<Node>,
    group: Arc<ThrottleGroup>,
    suspension: Arc<Suspension>,
    users: Arc<Users>,
}

pub(super) fn open(file: Arc<Node>, group: Arc<ThrottleGroup>) -> Arc<dyn Driver> {
    Arc::new(Throttle { file, group, suspension: Arc::default(), users: Arc::default() })
}

impl Disk for Throttle {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn size(&self) -> u64 {
        self.file.size()
    }

    fn info(&self) -> DiskInfo {
        self.file.info()
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        let mut limiter = Limiter::default();
        limiter.set_group(Some(Arc::clone(&self.group)));
        Ok(Box::new(ThrottleQueue {
            inner: self.file.queue(ram, slots, segments)?,
            limiter,
            suspension: Arc::clone(&self.suspension),
            given_up: Vec::new(),
            _user: User::new(&self.users),
        }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.file.flush()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        // The child closes by itself.
        at_once()
    }
}

impl Driver for Throttle {
    fn filename(&self) -> String {
        let below = self.file.filename();
        let below: Value = below
            .strip_prefix("json:")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_else(|| json!({"driver": "file", "filename": below}));
        let all = json!({
            "throttle-group": self.group.name(), "driver": "throttle", "file": below
        });
        format!("json:{all}")
    }

    /// Its queues have the group.
    fn unused(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.users.unused())
    }

    fn allocated(&self) -> Option<u64> {
        self.file.allocated()
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        self.file.resize(size)
    }

    fn drained(&self, begins: bool) {
        let suspension = &self.suspension;
        if !begins {
            suspension.sections.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        suspension.sections.fetch_add(1, Ordering::AcqRel);
        let mut waiting = suspension.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut *waiting);
        waiting.into_iter().for_each(Waker::wake);
    }
}

struct ThrottleQueue {
    inner: Box<dyn DiskQueue>,
    limiter: Limiter,
    suspension: Arc<Suspension>,
    /// Slots of requests that waited, and were given up.
    given_up: Vec<usize>,
    _user: User,
}

impl DiskQueue for ThrottleQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.inner.segments(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        let bytes = self.inner.segments(slot).bytes();
        if !self.limiter.takes(slot, request, bytes) {
            self.inner.submit(slot, request);
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if let Some(slot) = self.given_up.pop() {
            return Poll::Ready(Done { slot, result: Err(libc::ECANCELED) });
        }
        if self.limiter.len() > 0 {
            // Before the look: a section that begins after it wakes this task.
            self.suspension.watch(cx.waker());
            let suspended = self.suspension.is_on();
            while let Poll::Ready((slot, request)) = self.limiter.poll_next(suspended, cx) {
                self.inner.submit(slot, request);
            }
        }
        self.inner.poll_done(cx)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.limiter.len() + self.given_up.len()
    }

    fn abort(&mut self) {
        self.given_up.extend(self.limiter.give_up());
        self.inner.abort();
    }
}
