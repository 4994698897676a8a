//! The machine as the protocol acts on it.

use super::command::{Command, parse};
use super::outbox::Outbox;
use devices::VirtualClock;
use devices::base64;
use devices::clock::Clock;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use vcpu::address_space::AddressSpace;
use vcpu::irq::{IrqLine, Platform};
use vcpu::qtest::{PhysicalMemory, Qtest};

/// Bytes that `memset` sets between two looks at other tasks.
const MEMSET_CHUNK: usize = 1 << 20;
/// What the inputs of a device are called that have no name.
const UNNAMED_INPUTS: &str = "unnamed-gpio-in";

/// What commands act on.
pub(crate) struct Target {
    pub(crate) pio: Arc<AddressSpace>,
    pub(crate) memory: PhysicalMemory,
    pub(crate) platform: Arc<dyn Platform>,
    /// `None` where time goes by itself.
    pub(crate) clock: Option<Arc<VirtualClock>>,
    pub(crate) outbox: Arc<Outbox>,
    lines: Mutex<BTreeMap<u32, Arc<dyn IrqLine>>>,
}

impl Target {
    pub(crate) fn new(
        pio: Arc<AddressSpace>,
        memory: PhysicalMemory,
        platform: Arc<dyn Platform>,
        clock: Option<Arc<VirtualClock>>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self { pio, memory, platform, clock, outbox, lines: Mutex::default() }
    }

    /// Does what `line` asks for; returns the reply without its end of line.
    ///
    /// `settled` waits until devices have finished what an access has begun.
    pub(super) async fn execute(&self, line: &str, settled: impl AsyncFn()) -> String {
        let command = match parse(line) {
            Ok(command) => command,
            Err(reply) => return reply,
        };
        match command {
            Command::Endianness => "OK little".to_owned(),
            Command::In(port, len) => {
                let mut bytes = [0; 4];
                self.pio.read(port.into(), &mut bytes[..len]);
                format!("OK 0x{:04x}", u32::from_le_bytes(bytes))
            }
            Command::Load(address, len) => {
                let mut bytes = [0; 8];
                self.memory.read(address, &mut bytes[..len]);
                format!("OK 0x{:016x}", u64::from_le_bytes(bytes))
            }
            Command::Read(address, len) => hex(&self.bytes(address, len)),
            Command::ReadBase64(address, len) => {
                format!("OK {}", base64::encode(&self.bytes(address, len)))
            }
            Command::Out(port, len, value) => {
                self.pio.write(port.into(), &value.to_le_bytes()[..len]);
                settled().await;
                "OK".to_owned()
            }
            Command::Store(address, len, value) => {
                self.write(address, &value.to_le_bytes()[..len], settled).await
            }
            Command::Write(address, bytes) => self.write(address, &bytes, settled).await,
            Command::Memset(address, len, value) => self.memset(address, len, value, settled).await,
            Command::ClockStep(ns) => self.clock_step(line, ns).await,
            Command::ClockSet(ns) => self.clock_set(line, ns).await,
            Command::Intercept(path, out) => self.intercept(&path, out).to_owned(),
            Command::SetIrq(path, name, n, high) => self.set_irq(&path, &name, n, high),
            Command::ModuleLoad => "FAIL".to_owned(),
        }
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes);
        bytes
    }

    async fn write(&self, address: u64, bytes: &[u8], settled: impl AsyncFn()) -> String {
        self.memory.write(address, bytes);
        if !self.memory.is_ram(address, bytes.len()) {
            settled().await;
        }
        "OK".to_owned()
    }

    async fn memset(&self, address: u64, len: u64, value: u8, settled: impl AsyncFn()) -> String {
        let chunk = vec![value; MEMSET_CHUNK.min(len as usize)];
        let mut done = 0;
        while done < len {
            let some = chunk.len().min((len - done) as usize);
            self.memory.write(address.wrapping_add(done), &chunk[..some]);
            done += some as u64;
            reactor::yield_now().await;
        }
        settled().await;
        "OK".to_owned()
    }

    async fn clock_step(&self, line: &str, ns: Option<i64>) -> String {
        let Some(clock) = &self.clock else { return no_clock(line) };
        let now = clock.monotonic_ns();
        let to = match ns {
            Some(ns) => now.saturating_add_signed(ns),
            None => match clock.next_deadline_ns() {
                Some(deadline) => deadline,
                None => {
                    return "FAIL cannot advance clock to the next deadline because there is no \
                            pending deadline"
                        .to_owned();
                }
            },
        };
        let reached = clock.advance_to(to).await;
        if reached > now {
            format!("OK {reached}")
        } else {
            "FAIL could not advance time".to_owned()
        }
    }

    async fn clock_set(&self, line: &str, ns: i64) -> String {
        let Some(clock) = &self.clock else { return no_clock(line) };
        let reached = clock.advance_to(u64::try_from(ns).unwrap_or(0)).await;
        let result = if i64::try_from(reached) == Ok(ns) { "OK" } else { "FAIL" };
        format!("{result} {reached}")
    }

    fn intercept(&self, path: &str, out: bool) -> &'static str {
        if !is_ioapic(path) {
            return "FAIL Unknown device";
        }
        if out {
            return "FAIL No intercepts installed";
        }
        self.outbox.intercept();
        "OK"
    }

    fn set_irq(&self, path: &str, name: &str, n: u32, high: bool) -> String {
        if !is_ioapic(path) {
            return "FAIL Unknown device".to_owned();
        }
        if name != UNNAMED_INPUTS || n >= Qtest::INPUTS {
            return format!(
                "ERR set_irq_in: there are {UNNAMED_INPUTS} 0 to {}",
                Qtest::INPUTS - 1
            );
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(n).or_insert_with(|| self.platform.irq_line(n)).set_level(high);
        "OK".to_owned()
    }
}

/// The only device whose interrupt inputs can be watched and driven.
fn is_ioapic(path: &str) -> bool {
    path == "ioapic" || (path.starts_with("/machine/") && path.ends_with("/ioapic"))
}

/// Where the clock cannot be stepped there is no such command.
fn no_clock(line: &str) -> String {
    format!("FAIL Unknown command '{}'", line.split(' ').next().unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(5 + 2 * bytes.len());
    text.push_str("OK 0x");
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
