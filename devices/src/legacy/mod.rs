//! The devices of a PC that sit at fixed ports. None of them is on a data path: each has one short
//! lock, and accesses come from vCPU threads.

mod cmos;
mod debug;
mod fw_cfg;
mod i8042;
mod serial;

pub use cmos::{Cmos, RTC_LEN, RTC_PORT};
pub use debug::{DEBUG_CONSOLE_PORT, DEBUG_EXIT_PORT, DebugConsole, DebugExit};
pub use fw_cfg::{FW_CFG_LEN, FW_CFG_PORT, FwCfg};
pub use i8042::{I8042, I8042_COMMAND_PORT, I8042_DATA_PORT};
pub use serial::{ConsoleOut, SERIAL_IRQ, SERIAL_LEN, SERIAL_PORT, Serial};

/// A register file one byte wide: what most of these devices are. A wider access is one access to
/// each byte, lowest first, as an ISA bus splits it.
pub(crate) trait ByteDevice: Send + Sync {
    fn read_byte(&self, offset: u8) -> u8;
    fn write_byte(&self, offset: u8, value: u8);
}

macro_rules! byte_device_on_bus {
    ($device:ty) => {
        impl vcpu::bus::BusDevice for $device {
            fn read(&self, offset: u64, data: &mut [u8]) {
                for (at, byte) in (offset as u8..).zip(data) {
                    *byte = crate::legacy::ByteDevice::read_byte(self, at);
                }
            }

            fn write(&self, offset: u64, data: &[u8]) {
                for (at, byte) in (offset as u8..).zip(data) {
                    crate::legacy::ByteDevice::write_byte(self, at, *byte);
                }
            }
        }
    };
}
pub(crate) use byte_device_on_bus;
