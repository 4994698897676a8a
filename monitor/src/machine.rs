//! What the monitor needs of a machine. The program implements it; nothing here knows how.

use crate::commands::actions::Actions;
use crate::commands::command_line::CommandLineOptionInfo;
use crate::commands::guest::{MachineInfo, MemorySizeInfo, PciInfo};
use crate::error::QmpError;
use crate::{BoxFuture, qapi_enum, qapi_struct};
use devices::block::graph::BlockGraph;
use devices::chardev::Chardevs;
use devices::net::Network;
use devices::qdev::DeviceTree;
use devices::virtio::balloon::BalloonSlot;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use vcpu::linear::Linear;
use vcpu::memory::Ram;

qapi_enum! {
    /// The state of the machine, as QEMU names it.
    pub enum RunState {
        /// Stopped by a debugger.
        Debug = "debug",
        /// Waiting for an incoming migration.
        InMigrate = "inmigrate",
        /// Stopped by an internal error that prevents further guest execution.
        InternalError = "internal-error",
        /// Stopped by a failed I/O operation.
        IoError = "io-error",
        /// Stopped by `stop`.
        Paused = "paused",
        /// Stopped after a successful migration away.
        PostMigrate = "postmigrate",
        /// Started with `-S` and never run.
        Prelaunch = "prelaunch",
        /// Stopped to finish a migration.
        FinishMigrate = "finish-migrate",
        /// Stopped to restore a state.
        RestoreVm = "restore-vm",
        /// Running.
        Running = "running",
        /// Stopped to save its state.
        SaveVm = "save-vm",
        /// The guest has shut down and the machine stays (`-no-shutdown`).
        Shutdown = "shutdown",
        /// The guest sleeps (ACPI S3).
        Suspended = "suspended",
        /// Stopped by the watchdog.
        Watchdog = "watchdog",
        /// Stopped by a panic of the guest.
        GuestPanicked = "guest-panicked",
        /// Stopped for a checkpoint (COLO).
        Colo = "colo",
    }
}

impl RunState {
    /// Whether vCPUs may run.
    pub fn is_running(self) -> bool {
        self == Self::Running
    }

    /// Whether only a reset leads on from here.
    pub fn needs_reset(self) -> bool {
        matches!(self, Self::InternalError | Self::Shutdown | Self::GuestPanicked)
    }
}

qapi_struct! {
    /// Whether KVM can be and is used.
    pub struct KvmInfo {
        /// This machine runs on KVM.
        pub enabled: bool = "enabled",
        /// This program can use KVM.
        pub present: bool = "present",
    }
}

/// A machine's identifier, in the order of its text (RFC 9562).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

/// A text is no identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse UUID string: wrong format")]
pub struct UuidError;

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
            return Err(UuidError);
        }
        let digits: Vec<u8> = groups.concat().into_bytes();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |n: usize| char::from(pair[n]).to_digit(16).ok_or(UuidError);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            if matches!(n, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The number of its thread on the host; 0 where it has none.
    pub thread_id: i32,
    /// Its package.
    pub socket: u32,
    /// Its core in the package.
    pub core: u32,
    /// Its thread in the core.
    pub thread: u32,
}

/// The error of `cont` in a state that only a reset leads out of.
pub fn reset_required() -> QmpError {
    QmpError::generic("Resetting the Virtual Machine is required")
}

/// The machine that the commands act on.
///
/// Those that give no future are snapshots: they are called in any context, return at once and take no lock
/// that is held for longer than a moment. The others are coroutines: they are polled in the
/// *main* context only, one command at a time over all monitors. They may wait; the world may have
/// changed by the time they go on.
///
/// The machine itself emits the events that belong to its changes of state, because guests and
/// signals cause these too: see [`crate::EventSink`].
pub trait Machine: Send + Sync + 'static {
    /// The name given to the guest (`-name`).
    fn name(&self) -> Option<String>;

    /// The character devices.
    fn chardevs(&self) -> &Chardevs;

    /// The network back ends; `None` where there can be none.
    fn network(&self) -> Option<&Arc<Network>> {
        None
    }

    /// The place of the balloon; `None` where there can be none.
    fn balloon(&self) -> Option<&BalloonSlot> {
        None
    }

    /// The run state at this moment.
    fn run_state(&self) -> RunState;

    /// Whether the machine runs on KVM.
    fn kvm(&self) -> KvmInfo;

    /// The devices that users plug in; `None` where nothing can be plugged in.
    fn devices(&self) -> Option<&DeviceTree> {
        None
    }

    /// What is done when the guest reboots, shuts down or panics.
    fn actions(&self) -> &Actions;

    /// The block graph.
    fn block(&self) -> &Arc<BlockGraph>;

    /// The machine's identifier (`-uuid`); zeros where none was given.
    fn uuid(&self) -> Uuid {
        Uuid::default()
    }

    /// The vCPUs in the order of their indices.
    fn cpus(&self) -> Vec<Cpu> {
        Vec::new()
    }

    /// The guest's memory; `None` where there is none.
    fn ram(&self) -> Option<&Ram> {
        None
    }

    /// How a vCPU, which exists, translates linear addresses at this moment.
    fn linear(&self, cpu: u32) -> BoxFuture<'_, Result<Linear, QmpError>> {
        let error = QmpError::generic(format!("CPU {cpu} cannot be looked into"));
        Box::pin(std::future::ready(Err(error)))
    }

    /// Gives every vCPU a non-maskable interrupt.
    fn inject_nmi(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        let error = QmpError::generic("machine does not provide NMIs");
        Box::pin(std::future::ready(Err(error)))
    }

    /// The sizes of the guest's memory.
    fn memory_size(&self) -> MemorySizeInfo {
        MemorySizeInfo { base_memory: 0, plugged_memory: None }
    }

    /// The options that this program takes.
    fn command_line_options(&self) -> Vec<CommandLineOptionInfo> {
        Vec::new()
    }

    /// The kinds of machine that this program can be.
    fn machine_types(&self) -> Vec<MachineInfo> {
        Vec::new()
    }

    /// The buses of PCI and what is on them.
    fn pci(&self) -> Vec<PciInfo> {
        Vec::new()
    }

    /// Whether the guest can be woken up from a suspended state.
    fn can_wake_up(&self) -> bool {
        false
    }

    /// Stops all vCPUs and completes when they stand still. Emits STOP if they were running; does
    /// nothing otherwise.
    fn stop(&self) -> BoxFuture<'_, Result<(), QmpError>>;

    /// Lets the vCPUs run. Emits RESUME if they stood still; does nothing if they run. Fails with
    /// [`reset_required`] where only a reset leads on: judged when it is this call's turn to
    /// change the state, not before.
    fn cont(&self) -> BoxFuture<'_, Result<(), QmpError>>;

    /// Resets the machine, or asks for it. Emits RESET.
    fn system_reset(&self) -> BoxFuture<'_, Result<(), QmpError>>;

    /// Presses the power button. Emits POWERDOWN.
    fn system_powerdown(&self) -> BoxFuture<'_, Result<(), QmpError>>;

    /// Wakes the guest up from [`RunState::Suspended`]. Called only where
    /// [`can_wake_up`](Self::can_wake_up) says so.
    fn system_wakeup(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        let error = QmpError::generic("wake-up from suspend is not supported by this guest");
        Box::pin(std::future::ready(Err(error)))
    }

    /// Asks for the end of the program and returns at once, so that the reply still goes out.
    /// SHUTDOWN is emitted on the way.
    fn quit(&self) -> BoxFuture<'_, Result<(), QmpError>>;
}

#[cfg(test)]
mod tests {
    use super::Uuid;

    #[test]
    fn uuids_are_read_as_they_are_written() {
        let text = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse::<Uuid>().unwrap().to_string(), text);
        for wrong in ["", "1234", "550e8400e29b41d4a716446655440000", &text[1..]] {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
        assert!(text.replace('5', "x").parse::<Uuid>().is_err());
        assert!(text.replace("55", "ü").parse::<Uuid>().is_err());
    }
}
