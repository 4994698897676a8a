//! Running, stopping, resetting and ending a machine. All in `main`.

use super::Machine;
use super::requests::Request;
use monitor::event::{
    GuestPanicAction, GuestPanicked, Reset, Resume, Shutdown, ShutdownCause, Stop,
};
use monitor::{PanicAction, RebootAction, RunState, ShutdownAction};

/// Takes requests up until one ends the process; then stops the guest and closes its images.
pub(super) async fn run(machine: &Machine) -> Result<u8, String> {
    let result = machine.live().await;
    machine.end(result).await
}

impl Machine {
    /// The first start of the vCPUs.
    pub(super) async fn start(&self) {
        let _alone = self.state.turn().await;
        if self.state.get() == RunState::Prelaunch {
            self.state.set(RunState::Running);
            self.processors.resume().await;
        }
    }

    /// Makes every vCPU stand still; STOP is emitted if the guest was running.
    pub(super) async fn pause(&self, state: RunState) {
        let _alone = self.state.turn().await;
        self.stand_still(state).await;
    }

    /// A disk has failed. A `cont` that came meanwhile has had its requests started again.
    async fn pause_for_io_error(&self) {
        let _alone = self.state.turn().await;
        if self.block.has_stopped() {
            self.stand_still(RunState::IoError).await;
        }
    }

    /// As [`pause`](Self::pause), by whose turn it is.
    async fn stand_still(&self, state: RunState) {
        let was_running = self.state.get() == RunState::Running;
        if was_running {
            self.processors.pause().await;
        }
        if was_running || state.needs_reset() {
            self.state.set(state);
        }
        if was_running {
            self.events.emit(&Stop {});
        }
    }

    /// Lets the vCPUs run; RESUME is emitted if they stood still. False where a reset must come
    /// first: the state is looked at when no other change of it is under way.
    pub(super) async fn resume(&self) -> bool {
        let Some(_alone) = self.state.turn_to_run().await else { return false };
        let stood_still = self.state.get() != RunState::Running;
        if stood_still {
            self.state.set(RunState::Running);
            self.events.emit(&Resume {});
        }
        self.block.retry_failed();
        if stood_still {
            self.processors.resume().await;
        }
        true
    }

    async fn live(&self) -> Result<u8, String> {
        loop {
            match self.requests.next().await {
                Request::Exit { cause, status } => {
                    let guest = cause == ShutdownCause::GuestShutdown;
                    self.events.emit(&Shutdown { guest, reason: cause });
                    return Ok(status);
                }
                Request::PowerOff => {
                    if self.shut_down(true, ShutdownCause::GuestShutdown).await {
                        return Ok(0);
                    }
                }
                Request::Reset { cause } => {
                    let guest = cause == ShutdownCause::GuestReset;
                    if guest && self.actions.get().reboot == RebootAction::Shutdown {
                        if self.shut_down(guest, cause).await {
                            return Ok(0);
                        }
                        continue;
                    }
                    self.reset(guest, cause).await?;
                }
                Request::IoError => self.pause_for_io_error().await,
                Request::Panic(panic) => self.panicked(panic.to_string()).await?,
                Request::Crashed(text) => self.panicked(text).await?,
                Request::Failed(text) => {
                    let reason = ShutdownCause::HostError;
                    self.events.emit(&Shutdown { guest: false, reason });
                    return Err(text);
                }
            }
        }
    }

    /// A shutdown, as the actions say. True: this program ends.
    async fn shut_down(&self, guest: bool, reason: ShutdownCause) -> bool {
        self.events.emit(&Shutdown { guest, reason });
        if self.actions.get().shutdown == ShutdownAction::Poweroff {
            return true;
        }
        self.pause(RunState::Shutdown).await;
        false
    }

    /// The guest cannot go on, for the reason `text`. An error ends this program.
    async fn panicked(&self, text: String) -> Result<(), String> {
        let panic = self.actions.get().panic;
        let action = match panic {
            PanicAction::Pause => GuestPanicAction::Pause,
            PanicAction::Shutdown | PanicAction::ExitFailure => GuestPanicAction::Poweroff,
            PanicAction::None => GuestPanicAction::Run,
        };
        self.events.emit(&GuestPanicked { action });
        let reason = ShutdownCause::GuestPanic;
        match panic {
            PanicAction::Pause => self.pause(RunState::GuestPanicked).await,
            PanicAction::Shutdown if !self.shut_down(true, reason).await => {}
            PanicAction::Shutdown => return Err(text),
            PanicAction::ExitFailure => {
                self.events.emit(&Shutdown { guest: true, reason });
                return Err(text);
            }
            PanicAction::None => {}
        }
        tracing::warn!("the guest has panicked: {text}");
        Ok(())
    }

    /// Everything back to power-on; a guest that ran runs on from its first instruction.
    async fn reset(&self, guest: bool, reason: ShutdownCause) -> Result<(), String> {
        let _alone = self.state.turn().await;
        let state = self.state.get();
        if state == RunState::Running {
            self.processors.pause().await;
        }
        self.board.reset();
        self.devices.reset();
        // Nothing may write into the memory that is about to be loaded anew.
        self.devices.quiesced().await;
        let rsdp = self
            .board
            .install_acpi(&self.ram, &self.apic_ids)
            .map_err(|error| error.to_string())?;
        self.processors.reset(&self.ram, rsdp).await?;
        self.events.emit(&Reset { guest, reason });
        // A guest that was asked to let go of a device does not know of it any more.
        self.devices.complete_unplugs();
        if state == RunState::Running {
            self.processors.resume().await;
        } else {
            self.state.set(RunState::Prelaunch);
        }
        Ok(())
    }

    /// Stops the guest, waits for its I/O, flushes and closes its images.
    async fn end(&self, result: Result<u8, String>) -> Result<u8, String> {
        let _alone = self.state.turn().await;
        self.processors.pause().await;
        let mut result = result;
        self.devices.stop().await;
        if let Err(error) = self.block.close_all().await {
            result = result.and(Err(format!("an image could not be flushed: {error}")));
        }
        self.processors.stop().await;
        result
    }
}
