//! Small machines for tests that need KVM: guest code from `global_asm!`, a port that reports.

use crate::address_space::AddressSpace;
use crate::boot::{BootState, install};
use crate::bus::{BusDevice, Space};
use crate::cpuid::{CpuModel, Topology};
use crate::kvm::{Kvm, Vm};
use crate::memory::{self, Ram, RamConfig};
use crate::vcpus::{VcpuEvent, Vcpus, VcpusConfig};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// Where guest code is put; its labels are relative to it.
pub const CODE: u64 = 0x10_0000;
/// Everything written to this port (and the next 7) is reported.
pub const PORT: u64 = 0xe0;
/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// KVM, or one line that says why `test` did not run.
pub fn kvm(test: &str) -> Option<Kvm> {
    let kvm = Kvm::open().ok();
    if kvm.is_none() {
        println!("SKIPPED {test}: /dev/kvm is not accessible");
    }
    kvm
}

/// Guest code in AT&T syntax between two labels that every codegen unit can see.
macro_rules! guest {
    ($mode:literal, $start:ident, $end:ident, $($line:literal),* $(,)?) => {
        std::arch::global_asm!(
            concat!(".globl ", stringify!($start), ", ", stringify!($end)),
            $mode,
            concat!(stringify!($start), ":"),
            $($line,)*
            concat!(stringify!($end), ":"),
            ".code64",
            options(att_syntax)
        );
    };
}
pub(crate) use guest;

/// The bytes between two labels of a [`guest`] block.
macro_rules! code {
    ($start:ident, $end:ident) => {{
        unsafe extern "C" {
            static $start: u8;
            static $end: u8;
        }
        // SAFETY: both labels are in one section of this program, in this order, and what is
        // between them is never written.
        unsafe {
            let start = &raw const $start;
            let len = (&raw const $end).offset_from_unsigned(start);
            std::slice::from_raw_parts(start, len)
        }
    }};
}
pub(crate) use code;

/// An access that a [`Reporter`] has seen: offset and bytes.
pub type Seen = (u64, Vec<u8>);

/// Reports writes; answers reads from a list, then with zeroes.
pub struct Reporter {
    seen: Mutex<Sender<Seen>>,
    answers: Mutex<Vec<u32>>,
}

impl Reporter {
    pub fn new(answers: &[u32]) -> (Arc<Self>, Receiver<Seen>) {
        let (sender, receiver) = channel();
        let answers = Mutex::new(answers.iter().rev().copied().collect());
        (Arc::new(Self { seen: Mutex::new(sender), answers }), receiver)
    }
}

impl BusDevice for Reporter {
    fn read(&self, _: u64, data: &mut [u8]) {
        let answer = self.answers.lock().unwrap().pop().unwrap_or(0).to_le_bytes();
        data.copy_from_slice(&answer[..data.len()]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let _ = self.seen.lock().unwrap().send((offset, data.to_vec()));
    }
}

/// A machine with its buses and what it reports.
pub struct Machine {
    pub vm: Arc<Vm>,
    pub ram: Arc<Ram>,
    pub vcpus: Vcpus,
    pub mmio: Arc<AddressSpace>,
    pub port: Receiver<Seen>,
    pub events: Receiver<VcpuEvent>,
}

impl Machine {
    /// `cpus` vCPUs and `ram` bytes; `code` at [`CODE`], where the first vCPU starts as `boot`
    /// says. Paused.
    pub fn new(kvm: Kvm, ram: u64, cpus: u32, boot: BootState, code: &[u8]) -> Self {
        Self::with(kvm, ram, cpus, |ram| {
            ram.write_slice(code, GuestAddress(CODE)).unwrap();
            install(&boot, ram).unwrap();
            boot
        })
    }

    /// As [`Machine::new`], with all that `load` puts into RAM.
    pub fn with(kvm: Kvm, ram: u64, cpus: u32, load: impl FnOnce(&Ram) -> BootState) -> Self {
        let ram = memory::build(&RamConfig::new(ram)).unwrap();
        let boot = load(&ram);
        let vm = Vm::new(kvm, Arc::clone(&ram)).unwrap();
        let (pio, mmio) = (AddressSpace::new(Space::Pio), AddressSpace::new(Space::Mmio));
        let (reporter, port) = Reporter::new(&[]);
        pio.map(PORT, 8, 0, reporter).unwrap();
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let config = VcpusConfig {
            topology: Topology::cores(cpus),
            cpu: CpuModel::host(),
            pio,
            mmio: Arc::clone(&mmio),
            events: Arc::new(move |event| {
                let _ = sender.lock().unwrap().send(event);
            }),
        };
        let vcpus = Vcpus::new(&vm, config, boot).unwrap();
        Self { vm, ram, vcpus, mmio, port, events }
    }

    /// 32-bit protected mode without paging.
    pub fn flat32(kvm: Kvm, cpus: u32, code: &[u8]) -> Self {
        let boot = BootState::Pvh { entry: CODE as u32, start_info: 0 };
        Self::new(kvm, 4 << 20, cpus, boot, code)
    }

    /// 64-bit mode, 4 GiB mapped one to one.
    pub fn flat64(kvm: Kvm, ram: u64, code: &[u8]) -> Self {
        Self::new(kvm, ram, 1, BootState::Linux64 { entry: CODE, boot_params: 0 }, code)
    }

    /// The next write to the reporting port, as one number.
    pub fn reported(&self) -> u32 {
        let (_, bytes) = self.port.recv_timeout(PATIENCE).expect("the guest reports");
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(&bytes);
        u32::from_le_bytes(word)
    }

    /// The next event.
    pub fn event(&self) -> VcpuEvent {
        self.events.recv_timeout(PATIENCE).expect("the vCPU reports an event")
    }

    /// Ends the machine and checks that its threads end too.
    pub fn finish(self) {
        drop(self.vcpus.stop());
        self.vcpus.join(PATIENCE).unwrap();
    }
}
