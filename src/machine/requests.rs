//! What guests, signals and monitors ask of the machine's life, until `main` takes it up.
//!
//! Kept by kind, not in a queue: a guest that resets in a tight loop costs no memory, and a
//! power-off is never lost behind it.

use devices::GuestRequest;
use monitor::event::ShutdownCause;
use reactor::sync::Notify;
use std::sync::{Mutex, PoisonError};
use vcpu::vcpus::{Panic, VcpuEvent};

/// The next thing that `main` has to do.
#[derive(Debug)]
pub(super) enum Request {
    /// End the process with this status, whatever the options say.
    Exit {
        cause: ShutdownCause,
        status: u8,
    },
    /// The guest has powered itself off.
    PowerOff,
    Reset {
        cause: ShutdownCause,
    },
    /// A request to a disk has failed, and the guest is to stand still until somebody has seen to it.
    IoError,
    /// A vCPU cannot go on.
    Panic(Box<Panic>),
    /// The guest says that it cannot go on.
    Crashed(String),
    /// The accelerator failed.
    Failed(String),
}

#[derive(Default)]
struct Pending {
    exit: Option<(ShutdownCause, u8)>,
    panic: Option<Box<Panic>>,
    crashed: Option<String>,
    failed: Option<String>,
    power_off: bool,
    io_error: bool,
    reset: Option<ShutdownCause>,
}

/// Requests that have not been taken up. Any thread adds; `main` takes.
#[derive(Default)]
pub(super) struct Requests {
    pending: Mutex<Pending>,
    changed: Notify,
}

impl Requests {
    fn add(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Asks for the end of the process. The first one decides the status.
    pub(super) fn exit(&self, cause: ShutdownCause, status: u8) {
        self.add(|pending| {
            pending.exit.get_or_insert((cause, status));
        });
    }

    pub(super) fn reset(&self, cause: ShutdownCause) {
        self.add(|pending| {
            pending.reset.get_or_insert(cause);
        });
    }

    /// A request to a disk has failed for which the guest is to stop.
    pub(super) fn io_error(&self) {
        self.add(|pending| pending.io_error = true);
    }

    /// From a device, on a vCPU thread.
    pub(super) fn guest(&self, request: GuestRequest) {
        match request {
            GuestRequest::PowerOff => self.add(|pending| pending.power_off = true),
            GuestRequest::Reset => self.reset(ShutdownCause::GuestReset),
            GuestRequest::Exit(status) => self.exit(ShutdownCause::GuestShutdown, status),
        }
    }

    /// From a vCPU thread.
    pub(super) fn vcpu(&self, event: VcpuEvent) {
        match event {
            VcpuEvent::ShutdownRequest { .. } => self.guest(GuestRequest::PowerOff),
            VcpuEvent::ResetRequest { .. } | VcpuEvent::TripleFault { .. } => {
                self.guest(GuestRequest::Reset);
            }
            VcpuEvent::Panic(panic) => self.add(|pending| {
                pending.panic.get_or_insert(panic);
            }),
            VcpuEvent::Crash { cpu } => {
                let text = format!("vCPU {cpu}: the guest reported a crash");
                self.add(|pending| {
                    pending.crashed.get_or_insert(text);
                });
            }
            VcpuEvent::Failed { cpu, error } => self.failed(format!("vCPU {cpu}: {error}")),
        }
    }

    fn failed(&self, text: String) {
        self.add(|pending| {
            pending.failed.get_or_insert(text);
        });
    }

    /// Waits until the end of the process has been asked for.
    pub(super) async fn exit_asked(&self) {
        loop {
            let exit = self.pending.lock().unwrap_or_else(PoisonError::into_inner).exit.is_some();
            if exit {
                // `next` takes it up.
                self.changed.notify_one();
                return;
            }
            self.changed.notified().await;
        }
    }

    /// Waits for the most urgent request.
    pub(super) async fn next(&self) -> Request {
        loop {
            if let Some(request) = self.take() {
                return request;
            }
            self.changed.notified().await;
        }
    }

    fn take(&self) -> Option<Request> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cause, status)) = pending.exit.take() {
            return Some(Request::Exit { cause, status });
        }
        if let Some(panic) = pending.panic.take() {
            return Some(Request::Panic(panic));
        }
        if let Some(text) = pending.crashed.take() {
            return Some(Request::Crashed(text));
        }
        if let Some(text) = pending.failed.take() {
            return Some(Request::Failed(text));
        }
        if std::mem::take(&mut pending.power_off) {
            return Some(Request::PowerOff);
        }
        if std::mem::take(&mut pending.io_error) {
            return Some(Request::IoError);
        }
        pending.reset.take().map(|cause| Request::Reset { cause })
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, Requests};
    use devices::GuestRequest;
    use monitor::event::ShutdownCause;

    #[test]
    fn the_end_comes_before_a_flood_of_resets() {
        let requests = Requests::default();
        for _ in 0..1000 {
            requests.guest(GuestRequest::Reset);
        }
        requests.guest(GuestRequest::PowerOff);
        requests.guest(GuestRequest::Exit(3));
        requests.exit(ShutdownCause::HostSignal, 0);
        assert!(matches!(requests.take(), Some(Request::Exit { status: 3, .. })));
        assert!(matches!(requests.take(), Some(Request::PowerOff)));
        assert!(matches!(requests.take(), Some(Request::Reset { .. })));
        assert!(requests.take().is_none());
    }
}
