//! The channel from [`super::Vcpus`] to one vCPU thread.

use super::gather::Ticket;
use super::signal;
use super::state::Request;
use crate::boot::{BootError, BootState};
use kvm_ioctls::VcpuFd;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a reset does before the boot processor's registers are set: reload what the guest has
/// overwritten. Runs on the boot processor's thread and may block.
pub(super) type Reload = Box<dyn FnOnce() -> Result<BootState, BootError> + Send>;

/// What [`Request::Attend`] does with the vCPU, on its thread.
pub(super) type Attention = Box<dyn FnOnce(&VcpuFd) -> Result<(), kvm_ioctls::Error> + Send>;

/// What a request brings along.
#[derive(Default)]
pub(super) enum Work {
    #[default]
    None,
    /// For the boot processor's reset.
    Reload(Reload),
    /// For [`Request::Attend`].
    Attention(Attention),
}

/// A request with its answer.
pub(super) struct Command {
    pub request: Request,
    pub work: Work,
    pub ticket: Ticket,
}

impl Command {
    /// Answers for a thread that has ended.
    fn refuse(self) {
        if let Err(error) = super::state::State::Ended.on(self.request) {
            self.ticket.fail(error);
        }
    }
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    ended: bool,
}

/// Shared by a vCPU's thread and those who command it.
#[derive(Default)]
pub(super) struct Control {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Whether `queue` has commands: what the thread looks at before each `KVM_RUN`.
    pending: AtomicBool,
    /// The thread's number, 0 before it has one.
    tid: AtomicI32,
}

impl Control {
    /// Hands over a command and gets the thread's attention. For a thread that has ended it is answered
    /// here.
    pub fn send(&self, command: Command) {
        let mut queue = self.lock();
        if queue.ended {
            drop(queue);
            command.refuse();
            return;
        }
        queue.commands.push_back(command);
        // Pairs with the Acquire in `pending`; the kick that follows makes the thread look.
        self.pending.store(true, Ordering::Release);
        drop(queue);
        self.changed.notify_one();
        let tid = self.tid.load(Ordering::Acquire);
        if tid != 0 {
            signal::kick(tid);
        }
    }

    /// Whether there are commands. For the vCPU's thread, after it has cleared `immediate_exit`.
    pub fn pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The next command, if there is one.
    pub fn try_next(&self) -> Option<Command> {
        let mut queue = self.lock();
        let command = queue.commands.pop_front();
        self.pending.store(!queue.commands.is_empty(), Ordering::Release);
        command
    }

    /// The next command; blocks until there is one. For the vCPU's thread.
    pub fn next(&self) -> Command {
        let mut queue = self.lock();
        loop {
            if let Some(command) = queue.commands.pop_front() {
                self.pending.store(!queue.commands.is_empty(), Ordering::Release);
                return command;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes the thread known to kickers.
    pub fn enlist(&self) {
        self.tid.store(signal::thread_id(), Ordering::Release);
        self.changed.notify_all();
    }

    /// The thread's number; 0 before it has one.
    pub fn thread_id(&self) -> i32 {
        self.tid.load(Ordering::Acquire)
    }

    /// Marks the thread as gone: no kick reaches it any more, and what is queued is refused.
    pub fn retire(&self) {
        let mut queue = self.lock();
        queue.ended = true;
        let left = std::mem::take(&mut queue.commands);
        self.tid.store(0, Ordering::Release);
        drop(queue);
        self.changed.notify_all();
        left.into_iter().for_each(Command::refuse);
    }

    /// Waits until the thread has left its loop; false when `deadline` comes first.
    pub fn wait_ended(&self, deadline: Instant) -> bool {
        let mut queue = self.lock();
        while !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let (guard, _) =
                self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whole between any two statements that could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Control, Request, Work};
    use crate::vcpus::VcpuError;
    use crate::vcpus::gather::{block_on, gather};

    /// A command that came between the last one that the thread took and its end counted as done.
    #[test]
    fn a_command_left_behind_is_refused() {
        let control = Control::default();
        let (reply, mut tickets) = gather(1);
        let ticket = tickets.next().unwrap();
        let work = Work::Attention(Box::new(|_| panic!("the thread has ended")));
        control.send(Command { request: Request::Attend, work, ticket });
        control.retire();
        assert!(matches!(block_on(reply), Err(VcpuError::Ended)));
    }
}
