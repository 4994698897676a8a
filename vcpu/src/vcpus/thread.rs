//! The life of a vCPU thread: commands, `KVM_RUN`, exits.

use super::VcpuError;
use super::control::{Command, Control, Work};
use super::event::{EventSink, Panic, VcpuEvent};
use super::exits::{InternalError, internal_error, port_access};
use super::power::PowerOn;
use super::signal::Kickable;
use super::state::{Request, State};
use crate::address_space::AddressSpace;
use crate::emulate::{self, Completion};
use crate::kvm::{KvmError, Vm};
use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;

const NO_MEMORY: &str =
    "the host could not provide guest memory; free memory on the host, or give the guest less";

/// One vCPU and what its thread needs.
pub(super) struct Cpu {
    pub index: u32,
    pub fd: VcpuFd,
    pub vm: Arc<Vm>,
    pub pio: Arc<AddressSpace>,
    pub mmio: Arc<AddressSpace>,
    pub power_on: PowerOn,
    pub control: Arc<Control>,
    pub events: EventSink,
}

/// What an exit means for the thread's loop.
enum Outcome {
    /// Handled; an access waits for its completion by the next `KVM_RUN`.
    Access,
    /// Handled, or nothing to handle.
    Done,
    /// KVM was interrupted before it ran anything.
    Interrupted,
    /// The vCPU cannot go on.
    Crashed(VcpuEvent),
    /// For the machine; the vCPU goes on until it is stopped.
    Report(VcpuEvent),
}

/// Reports a thread that ends by a panic of ours, and lets nobody wait for it.
struct LastWords {
    index: u32,
    control: Arc<Control>,
    events: EventSink,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        self.control.retire();
        if std::thread::panicking() {
            let error = "its thread has panicked; this is a bug in ringvisor".to_owned();
            (self.events)(VcpuEvent::Failed { cpu: self.index, error });
        }
    }
}

/// The thread's body.
pub(super) fn main(mut cpu: Cpu) {
    let _last_words = LastWords {
        index: cpu.index,
        control: Arc::clone(&cpu.control),
        events: Arc::clone(&cpu.events),
    };
    let flag = &raw mut cpu.fd.get_kvm_run().immediate_exit;
    // SAFETY: the byte is in the mapping that `cpu.fd` owns, and `cpu` is dropped after `kickable`:
    // parameters live longer than local variables.
    let kickable = match unsafe { Kickable::new(flag) } {
        Ok(kickable) => kickable,
        Err(error) => {
            let error = format!("its thread cannot take signals: {error}");
            (cpu.events)(VcpuEvent::Failed { cpu: cpu.index, error });
            return;
        }
    };
    cpu.control.enlist();
    let mut state = State::Paused;
    while state != State::Ended {
        state = if state == State::Running {
            cpu.run(&kickable)
        } else {
            let command = cpu.control.next();
            cpu.obey(state, command, &kickable)
        };
    }
    tracing::debug!(cpu = cpu.index, "vCPU thread ends");
}

impl Cpu {
    /// Runs the guest until there is a command or the vCPU crashes.
    fn run(&mut self, kickable: &Kickable) -> State {
        let mut state = State::Running;
        // Whether an access has been answered that KVM has not yet taken back into the guest.
        let mut open_access = false;
        loop {
            kickable.clear();
            if self.control.pending() {
                if open_access {
                    state = self.complete_access(kickable, state);
                }
                let Some(command) = self.control.try_next() else { continue };
                state = self.obey(state, command, kickable);
                if state != State::Running {
                    return state;
                }
                open_access = false;
                continue;
            }
            let outcome = self.enter();
            open_access = matches!(outcome, Outcome::Access);
            state = self.report(state, outcome);
            if state != State::Running {
                return state;
            }
        }
    }

    /// Enters the guest once and handles the exit.
    fn enter(&mut self) -> Outcome {
        assert!(!rcu::is_pinned(), "a read-side section may not last over KVM_RUN");
        let exit = self.fd.run();
        let _section = rcu::read();
        match exit {
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => {
                if let Some(access) = port_access(&mut self.fd) {
                    let port = u64::from(access.port);
                    for item in access.data.chunks_mut(access.width) {
                        if access.out {
                            self.pio.write(port, item);
                        } else {
                            self.pio.read(port, item);
                        }
                    }
                }
                Outcome::Access
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.mmio.read(address, data);
                Outcome::Access
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.mmio.write(address, data);
                Outcome::Access
            }
            Ok(VcpuExit::Shutdown) => Outcome::Crashed(VcpuEvent::TripleFault { cpu: self.index }),
            Ok(VcpuExit::SystemEvent(kind, _)) => self.system_event(kind),
            Ok(VcpuExit::InternalError) => self.internal_error(),
            Ok(VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => Outcome::Done,
            Ok(VcpuExit::MemoryFault { .. }) => self.failed(NO_MEMORY.to_owned()),
            Ok(other) => {
                let error =
                    format!("KVM stopped it with {other:?}, which ringvisor never asks for");
                self.failed(error)
            }
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Outcome::Interrupted,
                libc::EFAULT => self.failed(NO_MEMORY.to_owned()),
                errno => {
                    let error = std::io::Error::from_raw_os_error(errno);
                    self.failed(format!("KVM_RUN failed: {error}"))
                }
            },
        }
    }

    /// Lets KVM finish the access that was answered last, so that the registers are those after
    /// the instruction. String instructions and wide accesses may need several rounds.
    fn complete_access(&mut self, kickable: &Kickable, mut state: State) -> State {
        loop {
            kickable.set();
            let outcome = self.enter();
            let again = matches!(outcome, Outcome::Access);
            state = self.report(state, outcome);
            if !again {
                kickable.clear();
                return state;
            }
        }
    }

    fn report(&self, state: State, outcome: Outcome) -> State {
        match outcome {
            Outcome::Access | Outcome::Done | Outcome::Interrupted => state,
            Outcome::Report(event) => {
                (self.events)(event);
                state
            }
            Outcome::Crashed(event) => {
                tracing::debug!(cpu = self.index, ?event, "vCPU cannot go on");
                (self.events)(event);
                state.crashed()
            }
        }
    }

    fn failed(&self, error: String) -> Outcome {
        Outcome::Crashed(VcpuEvent::Failed { cpu: self.index, error })
    }

    fn system_event(&self, kind: u32) -> Outcome {
        let cpu = self.index;
        Outcome::Report(match kind {
            KVM_SYSTEM_EVENT_SHUTDOWN => VcpuEvent::ShutdownRequest { cpu },
            KVM_SYSTEM_EVENT_RESET => VcpuEvent::ResetRequest { cpu },
            KVM_SYSTEM_EVENT_CRASH => VcpuEvent::Crash { cpu },
            other => return self.failed(format!("KVM reported the unknown system event {other}")),
        })
    }

    fn internal_error(&mut self) -> Outcome {
        let (bytes, reason) = match internal_error(&mut self.fd) {
            InternalError::Emulation(bytes) => (bytes, None),
            InternalError::Other(suberror) => {
                (Vec::new(), Some(format!("KVM internal error, suberror {suberror}")))
            }
        };
        let (rip, bytes, text, reason) =
            match emulate::complete(&self.fd, self.vm.ram(), &bytes, reason) {
                Completion::Done => return Outcome::Done,
                Completion::Unhandled { rip, bytes, text, reason } => (rip, bytes, text, reason),
            };
        let panic = Panic { cpu: self.index, rip, bytes, text, reason };
        Outcome::Crashed(VcpuEvent::Panic(Box::new(panic)))
    }

    /// Carries a command out and answers it.
    fn obey(&mut self, state: State, command: Command, kickable: &Kickable) -> State {
        let Command { request, work, ticket } = command;
        let next = match state.on(request) {
            Ok(next) => next,
            Err(error) => {
                ticket.fail(error);
                return state;
            }
        };
        match request {
            Request::Pause if state == State::Running => {
                // Tells a guest with a kvmclock that a stall was none; fails for all others.
                let _ = self.fd.kvmclock_ctrl();
            }
            Request::Reset => {
                kickable.clear();
                if let Err(error) = self.reset(work) {
                    ticket.fail(error);
                    return State::CrashedPaused;
                }
            }
            Request::Attend => {
                if let Work::Attention(attention) = work
                    && let Err(error) = attention(&self.fd)
                {
                    ticket.fail(KvmError::refused("attend to a vCPU")(error).into());
                }
                return next;
            }
            Request::Pause | Request::Resume | Request::Stop => {}
        }
        drop(ticket);
        next
    }

    fn reset(&mut self, work: Work) -> Result<(), VcpuError> {
        if let Work::Reload(reload) = work {
            let boot = reload()?;
            self.vm.reset_chips()?;
            self.power_on.restore(&self.fd)?;
            self.power_on.boot(&self.fd, &boot)?;
        } else {
            self.power_on.restore(&self.fd)?;
        }
        Ok(())
    }
}
