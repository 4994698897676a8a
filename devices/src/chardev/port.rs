//! A front end of single bytes, as a serial port is.
//!
//! The vCPU that writes a byte only puts it into a bounded buffer; the rest runs in `iohandler`.

use super::connection::Connection;
use super::slot::FrontEnd;
use crate::legacy::{ConsoleOut, Serial};
use futures_util::future::{Either, select};
use reactor::sync::Notify;
use reactor::{Fd, io};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that wait for the connection at most; then the guest sees a busy transmitter.
const CAPACITY: usize = 16 * 1024;

struct Queue {
    bytes: VecDeque<u8>,
    /// Bytes are being written.
    writing: bool,
    /// The guest has found it full and waits to be told.
    was_full: bool,
    /// Nobody listens: output is thrown away, as QEMU does.
    discard: bool,
}

/// A bounded buffer between a serial port and its character device.
pub struct BytePort {
    queue: Mutex<Queue>,
    changed: Notify,
    drained: Notify,
}

impl BytePort {
    /// A port with nothing behind it yet; output waits for [`serve`](Self::serve) or
    /// [`discard`](Self::discard).
    pub fn new() -> Arc<Self> {
        let queue =
            Queue { bytes: VecDeque::new(), writing: false, was_full: false, discard: false };
        Arc::new(Self { queue: Mutex::new(queue), changed: Notify::new(), drained: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Throws everything away from here on: there is no character device.
    pub fn discard(&self) {
        self.set_discard(true);
    }

    /// Ends the stream; resolves when everything has been written or nobody listens.
    pub async fn close(&self) {
        self.changed.notify_one();
        loop {
            let drained = self.drained.notified();
            {
                let queue = self.lock();
                if queue.discard || (queue.bytes.is_empty() && !queue.writing) {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Connects `serial` with the character device, one connection after the other, for ever. A
    /// task in `iohandler`.
    pub async fn serve(self: Arc<Self>, frontend: FrontEnd, serial: Arc<Serial>) {
        let room = Arc::new(Notify::new());
        let has_room = Arc::clone(&room);
        serial.on_room(Box::new(move || has_room.notify_one()));
        let receiver = Arc::clone(&serial);
        frontend.on_break(move || receiver.receive_break());
        loop {
            let connection = if let Some(connection) = frontend.try_connection() {
                connection
            } else {
                self.set_discard(true);
                serial.output_ready();
                frontend.connection().await
            };
            self.set_discard(false);
            let served = pin!(self.connected(connection, &serial, &room));
            select(served, pin!(frontend.replaced())).await;
            self.lock().writing = false;
        }
    }

    fn set_discard(&self, discard: bool) {
        {
            let mut queue = self.lock();
            queue.discard = discard;
            if discard {
                queue.bytes.clear();
            }
        }
        self.drained.notify_all();
    }

    /// Until the connection has ended.
    async fn connected(&self, connection: Connection, serial: &Serial, room: &Notify) {
        let output = pin!(self.write(&connection.output, serial));
        let Some(input) = &connection.input else { return output.await };
        match select(output, pin!(feed(input, serial, room))).await {
            // The end of what was typed is not the end of the guest.
            Either::Right((End::Finished, output)) if !connection.ends_with_input => output.await,
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    /// Writes what is queued until the descriptor fails.
    async fn write(&self, fd: &Fd, serial: &Serial) {
        let mut chunk = Vec::new();
        loop {
            let was_full = {
                let mut queue = self.lock();
                chunk.clear();
                chunk.extend(queue.bytes.drain(..));
                queue.writing = !chunk.is_empty();
                std::mem::take(&mut queue.was_full)
            };
            if was_full {
                serial.output_ready();
            }
            if chunk.is_empty() {
                self.drained.notify_all();
                self.changed.notified().await;
                continue;
            }
            let (result, bytes) = io::write_all(fd, chunk).await;
            chunk = bytes;
            if let Err(error) = result {
                tracing::debug!(%error, "a character device does not take output any more");
                return;
            }
        }
    }
}

/// How input ends.
enum End {
    /// There is no more.
    Finished,
    /// The descriptor has failed.
    Broken,
}

/// Hands input to the guest.
async fn feed(fd: &Fd, serial: &Serial, room: &Notify) -> End {
    let mut buffer = vec![0; 256];
    loop {
        let (result, back) = io::read(fd, buffer).await;
        buffer = back;
        let mut bytes = match result {
            Ok(0) => return End::Finished,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return End::Broken,
        };
        while !bytes.is_empty() {
            let taken = serial.input(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if !bytes.is_empty() {
                room.notified().await;
            }
        }
    }
}

impl ConsoleOut for BytePort {
    fn put(&self, byte: u8) -> bool {
        let first = {
            let mut queue = self.lock();
            if queue.discard {
                return true;
            }
            if queue.bytes.len() >= CAPACITY {
                queue.was_full = true;
                return false;
            }
            queue.bytes.push_back(byte);
            queue.bytes.len() == 1
        };
        // The writer takes all there is: only the first byte needs to tell it.
        if first {
            self.changed.notify_one();
        }
        true
    }

    fn ready(&self) -> bool {
        let mut queue = self.lock();
        let full = !queue.discard && queue.bytes.len() >= CAPACITY;
        queue.was_full |= full;
        !full
    }
}

#[cfg(test)]
mod tests {
    use super::BytePort;
    use crate::chardev::{Backend, Chardevs, FrontEndKind};
    use crate::legacy::Serial;
    use crate::test_platform::TestLine;
    use std::sync::Arc;
    use vcpu::bus::BusDevice;

    const LINE_STATUS: u64 = 5;
    const BREAK_INTERRUPT: u8 = 1 << 4;

    #[test]
    fn a_break_reaches_the_guest_also_through_a_mux_and_a_new_back_end() {
        let config = reactor::Config::with_cores(reactor::allowed_cpus().unwrap());
        let run = reactor::run(config, |reactors| async move {
            let chardevs = Chardevs::new(reactors.iohandler(), || {});
            for (id, shared) in [("n", false), ("m", true)] {
                chardevs.add("n", Backend::Null).await.unwrap();
                if shared {
                    chardevs.add("m", Backend::Mux { base: "n".to_owned() }).await.unwrap();
                }
                let port = BytePort::new();
                let serial = Serial::new(Arc::<TestLine>::default(), port.clone());
                let frontend = chardevs.attach(id, FrontEndKind::Device).unwrap();
                let serving = port.serve(frontend, Arc::clone(&serial));
                let serving = reactors.iohandler().spawn("serial", serving);
                let broken = || {
                    chardevs.send_break(id).unwrap();
                    let mut status = [0];
                    serial.read(LINE_STATUS, &mut status);
                    status[0] & BREAK_INTERRUPT != 0
                };
                while !broken() {
                    reactor::yield_now().await;
                }
                if !shared {
                    chardevs.change(id, Backend::Ringbuf { size: 64 }).await.unwrap();
                    assert!(broken());
                }
                drop(serving);
                chardevs.clear();
            }
            assert!(chardevs.send_break("n").is_err());
        });
        run.unwrap();
    }
}
