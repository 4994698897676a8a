//! Events: their declarations and their serialisation.

use crate::commands::net_backend::SocketAddress;
use crate::registry::{EventInfo, QapiStruct};
use crate::wire::{Style, Writer};
use crate::{qapi_enum, qapi_struct};
use devices::block::graph::{ErrorAction, IoError, Owner, TrayMoved};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An event: the members are its `data`.
pub trait Event: QapiStruct {
    /// The name on the wire.
    const NAME: &'static str;
}

/// Declares the events, each of which is a struct of its data, and the list of them all.
macro_rules! qapi_events {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident = $wire:literal { $($members:tt)* }
    )*) => {
        $(
            qapi_struct! {
                $(#[doc = $doc])*
                pub struct $name { $($members)* }
            }
            impl Event for $name {
                const NAME: &'static str = $wire;
            }
        )*

        /// All events.
        pub const EVENTS: &[EventInfo] =
            &[$( EventInfo { name: <$name as Event>::NAME, data: <$name as QapiStruct>::INFO }, )*];
    };
}

qapi_enum! {
    /// Why the machine was reset or shut down, as QEMU names it.
    pub enum ShutdownCause {
        /// No reason is known.
        None = "none",
        /// An error of the host or this program.
        HostError = "host-error",
        /// `quit`.
        HostQmpQuit = "host-qmp-quit",
        /// `system_reset`.
        HostQmpSystemReset = "host-qmp-system-reset",
        /// A signal, such as SIGTERM.
        HostSignal = "host-signal",
        /// The user interface was closed.
        HostUi = "host-ui",
        /// The guest powered off.
        GuestShutdown = "guest-shutdown",
        /// The guest asked for a reset.
        GuestReset = "guest-reset",
        /// The guest panicked.
        GuestPanic = "guest-panic",
        /// A subsystem of the machine asked for a reset.
        SubsystemReset = "subsystem-reset",
        /// A snapshot is being loaded.
        SnapshotLoad = "snapshot-load",
    }
}

qapi_enum! {
    /// What is done about a panic of the guest.
    pub enum GuestPanicAction {
        /// The machine is stopped.
        Pause = "pause",
        /// The machine is powered off.
        Poweroff = "poweroff",
        /// The guest goes on.
        Run = "run",
    }
}

qapi_enum! {
    /// Which way data goes.
    pub enum IoOperationType {
        /// From the disk.
        Read = "read",
        /// To the disk.
        Write = "write",
    }
}

qapi_enum! {
    /// What has been done about an error.
    pub enum BlockErrorAction {
        /// The request counts as done.
        Ignore = "ignore",
        /// The guest was told.
        Report = "report",
        /// The machine is stopped.
        Stop = "stop",
    }
}

qapi_events! {
    /// A request to a disk has failed. At most once a second for each device.
    BlockIoError = "BLOCK_IO_ERROR" {
        /// The device's path in the object tree.
        pub qom_path: String = "qom-path",
        /// The drive; empty where the device uses a node by its name.
        pub device: String = "device",
        /// The node.
        pub node_name: Option<String> = "node-name",
        /// What was asked for.
        pub operation: IoOperationType = "operation",
        /// What has been done about it.
        pub action: BlockErrorAction = "action",
        /// Space was wanting. Absent where no error stops the machine.
        pub nospace: Option<bool> = "nospace",
        /// Why, in words.
        pub reason: String = "reason",
    }

    /// The tray of a device has opened or closed.
    DeviceTrayMoved = "DEVICE_TRAY_MOVED" {
        /// The drive; empty where the device uses a node by its name.
        pub device: String = "device",
        /// The id of the device.
        pub id: String = "id",
        /// It is open now.
        pub tray_open: bool = "tray-open",
    }

    /// The machine has shut down or is about to.
    Shutdown = "SHUTDOWN" {
        /// The guest asked for it.
        pub guest: bool = "guest",
        /// Why.
        pub reason: ShutdownCause = "reason",
    }

    /// The machine has been reset.
    Reset = "RESET" {
        /// The guest asked for it.
        pub guest: bool = "guest",
        /// Why.
        pub reason: ShutdownCause = "reason",
    }

    /// The vCPUs stand still.
    Stop = "STOP" {}

    /// The vCPUs run again.
    Resume = "RESUME" {}

    /// The power button has been pressed.
    Powerdown = "POWERDOWN" {}

    /// A device is gone: its id, its address and its back ends are free.
    DeviceDeleted = "DEVICE_DELETED" {
        /// Its id, if it had one.
        pub device: Option<String> = "device",
        /// What its path in the object tree was.
        pub path: String = "path",
    }

    /// The guest has refused to let go of a device.
    DeviceUnplugGuestError = "DEVICE_UNPLUG_GUEST_ERROR" {
        /// Its id, if it has one.
        pub device: Option<String> = "device",
        /// Its path in the object tree.
        pub path: String = "path",
    }

    /// A stream back end has a connection.
    NetdevStreamConnected = "NETDEV_STREAM_CONNECTED" {
        /// The back end.
        pub netdev_id: String = "netdev-id",
        /// The other end.
        pub addr: SocketAddress = "addr",
    }

    /// A stream back end has lost its connection.
    NetdevStreamDisconnected = "NETDEV_STREAM_DISCONNECTED" {
        /// The back end.
        pub netdev_id: String = "netdev-id",
    }

    /// A driver wants other frames. Told once until query-rx-filter asks.
    NicRxFilterChanged = "NIC_RX_FILTER_CHANGED" {
        /// The device.
        pub name: Option<String> = "name",
        /// Its path in the object tree.
        pub path: String = "path",
    }

    /// The guest has more or less memory than before. At most once a second.
    BalloonChange = "BALLOON_CHANGE" {
        /// Bytes that it has.
        pub actual: i64 = "actual",
    }

    /// A program of the guest has opened or closed a port. At most once a second for each.
    VserportChange = "VSERPORT_CHANGE" {
        /// The id of the port.
        pub id: String = "id",
        /// It is open.
        pub open: bool = "open",
    }

    /// The guest cannot go on.
    GuestPanicked = "GUEST_PANICKED" {
        /// What is done about it.
        pub action: GuestPanicAction = "action",
    }
}

impl BlockIoError {
    /// From what the block graph tells.
    pub fn new(error: &IoError) -> Self {
        Self {
            qom_path: error.path.clone(),
            device: error.drive.clone(),
            node_name: error.node.clone(),
            operation: if error.read { IoOperationType::Read } else { IoOperationType::Write },
            action: match error.action {
                ErrorAction::Ignore => BlockErrorAction::Ignore,
                ErrorAction::Report => BlockErrorAction::Report,
                ErrorAction::Stop => BlockErrorAction::Stop,
            },
            nospace: error.no_space,
            reason: error.reason(),
        }
    }
}

impl DeviceTrayMoved {
    /// From what the block graph tells.
    pub fn new(moved: &TrayMoved) -> Self {
        let Owner { drive, device } = moved.owner.clone();
        Self { device: drive, id: device, tray_open: moved.open }
    }
}

/// The message of an event, a whole line. `data` is left out where there is none, as QEMU does.
pub(crate) fn message<E: Event>(event: &E, style: Style, at: SystemTime) -> Vec<u8> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut writer = Writer::new(style);
    writer.begin_object();
    writer.key("timestamp");
    writer.begin_object();
    writer.key("seconds");
    writer.uint(at.as_secs());
    writer.key("microseconds");
    writer.uint(at.subsec_micros().into());
    writer.end_object();
    writer.key("event");
    writer.str(E::NAME);
    if !E::INFO.members.is_empty() {
        writer.key("data");
        event.write(&mut writer);
    }
    writer.end_object();
    writer.into_message()
}

#[cfg(test)]
mod tests {
    use super::{GuestPanicAction, GuestPanicked, Reset, ShutdownCause, Stop, message};
    use crate::wire::Style;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn messages_are_those_of_qemu() {
        let at = UNIX_EPOCH + Duration::new(1_795_218_943, 561_965_999);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let reset = Reset { guest: false, reason: ShutdownCause::HostQmpSystemReset };
        assert_eq!(
            text(message(&reset, Style::Line, at)),
            "{\"timestamp\": {\"seconds\": 1795218943, \"microseconds\": 561965}, \"event\": \"RESET\", \
             \"data\": {\"guest\": false, \"reason\": \"host-qmp-system-reset\"}}\r\n"
        );
        assert_eq!(
            text(message(&Stop {}, Style::Line, at)),
            "{\"timestamp\": {\"seconds\": 1795218943, \"microseconds\": 561965}, \"event\": \"STOP\"}\r\n"
        );
        let panicked = GuestPanicked { action: GuestPanicAction::Pause };
        assert!(
            text(message(&panicked, Style::Line, at))
                .ends_with("\"GUEST_PANICKED\", \"data\": {\"action\": \"pause\"}}\r\n")
        );
    }
}
