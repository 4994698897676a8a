//! Ports for test guests: an exit with a status, and a console without a driver.

use super::{ByteDevice, ConsoleOut, byte_device_on_bus};
use crate::request::{GuestRequest, RequestSink};
use std::sync::Arc;

/// Port of the debug exit.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;
/// Port of the debug console.
pub const DEBUG_CONSOLE_PORT: u16 = 0xe9;

/// Ends the machine with the byte written as its status.
pub struct DebugExit {
    requests: RequestSink,
}

impl DebugExit {
    /// A port that passes its writes on as [`GuestRequest::Exit`].
    pub fn new(requests: RequestSink) -> Arc<Self> {
        Arc::new(Self { requests })
    }
}

impl ByteDevice for DebugExit {
    fn read_byte(&self, _offset: u8) -> u8 {
        0
    }

    fn write_byte(&self, offset: u8, value: u8) {
        // Of a wider write the low byte counts.
        if offset == 0 {
            (self.requests)(GuestRequest::Exit(value));
        }
    }
}

byte_device_on_bus!(DebugExit);

/// Writes each byte to a console; what the console has no room for is lost.
pub struct DebugConsole {
    out: Arc<dyn ConsoleOut>,
}

impl DebugConsole {
    /// A port that writes to `out`.
    pub fn new(out: Arc<dyn ConsoleOut>) -> Arc<Self> {
        Arc::new(Self { out })
    }
}

impl ByteDevice for DebugConsole {
    // Its own port number: how guests find that it is there.
    fn read_byte(&self, _offset: u8) -> u8 {
        DEBUG_CONSOLE_PORT as u8
    }

    fn write_byte(&self, _offset: u8, value: u8) {
        self.out.put(value);
    }
}

byte_device_on_bus!(DebugConsole);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use vcpu::bus::BusDevice;

    #[test]
    fn the_byte_written_is_the_status() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let port = DebugExit::new(Arc::new(move |request| log.lock().unwrap().push(request)));
        port.write(0, &[0]);
        port.write(0, &[3]);
        port.write(0, &7u32.to_le_bytes());
        let expected = [GuestRequest::Exit(0), GuestRequest::Exit(3), GuestRequest::Exit(7)];
        assert_eq!(*seen.lock().unwrap(), expected);
        let mut data = [0xff];
        port.read(0, &mut data);
        assert_eq!(data, [0]);
    }

    struct Sink(Mutex<Vec<u8>>);

    impl ConsoleOut for Sink {
        fn put(&self, byte: u8) -> bool {
            self.0.lock().unwrap().push(byte);
            true
        }

        fn ready(&self) -> bool {
            true
        }
    }

    #[test]
    fn the_debug_console_writes_and_can_be_found() {
        let sink = Arc::new(Sink(Mutex::default()));
        let port = DebugConsole::new(sink.clone());
        for byte in b"hello" {
            port.write(0, &[*byte]);
        }
        assert_eq!(*sink.0.lock().unwrap(), b"hello");
        let mut data = [0];
        port.read(0, &mut data);
        assert_eq!(data, [0xe9]);
    }
}
