//! vCPU threads: one a vCPU, running the guest, and the handle that commands all of them.
//!
//! Every command is sent at the call and answered through a future, so a reactor never waits for
//! a vCPU and a vCPU never waits for a reactor. Threads start paused.

mod control;
mod event;
mod exits;
mod gather;
mod power;
mod signal;
mod state;
#[cfg(test)]
mod tests;
mod thread;

pub use event::{EventSink, Panic, VcpuEvent};
pub use gather::Reply;
#[cfg(test)]
pub(crate) use gather::block_on;

use crate::address_space::AddressSpace;
use crate::boot::{BootError, BootState};
use crate::cpuid::{self, Accelerator, CpuError, CpuModel, Leaves, Topology};
use crate::kvm::{KvmError, KvmKind, Vm};
use crate::linear::Linear;
use control::{Attention, Command, Control, Work};
use gather::{Ticket, gather, refused};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, VcpuFd};
use power::PowerOn;
use state::Request;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thread::Cpu;

/// A vCPU thread's stack: device models nest little and hold no large buffers.
const STACK: usize = 512 * 1024;

/// Why vCPUs could not be made, commanded or ended.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// A reset is for paused machines.
    #[error("the vCPUs are running; pause them before a reset")]
    NotPaused,
    /// The machine has been stopped for good.
    #[error("the vCPUs have ended")]
    Ended,
    /// No processor at all.
    #[error("-smp: a machine needs at least one vCPU, and at most 2^31")]
    NoVcpu,
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The processor model cannot be had.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The kernel could not be loaded again for a reset.
    #[error("the machine cannot be reset: {0}")]
    Boot(#[from] BootError),
    /// The host has no thread left.
    #[error("no thread for vCPU {cpu}: {source}; ask for fewer vCPUs or raise `ulimit -u`")]
    Thread {
        /// The vCPU.
        cpu: u32,
        /// What the host answered.
        source: std::io::Error,
    },
    /// A thread did not end in time.
    #[error("the thread \"{thread}\" has not ended in time; it is stuck in a device or in KVM")]
    Stuck {
        /// Its name.
        thread: String,
    },
}

/// What the vCPUs of a machine are.
pub struct VcpusConfig {
    /// How many, and in which arrangement.
    pub topology: Topology,
    /// What CPUID says.
    pub cpu: CpuModel,
    /// Answers port accesses.
    pub pio: Arc<AddressSpace>,
    /// Answers memory accesses outside RAM.
    pub mmio: Arc<AddressSpace>,
    /// Takes events, on vCPU threads.
    pub events: EventSink,
}

/// All vCPUs of a machine.
///
/// Commands may come from any thread; those of concurrent callers reach every vCPU in the same
/// order. Dropping it asks the threads to end and does not wait.
pub struct Vcpus {
    controls: Vec<Arc<Control>>,
    threads: Mutex<Vec<(String, JoinHandle<()>)>>,
    missing: Vec<&'static str>,
    tsc_khz: Option<u32>,
    /// What was asked for last; guards the order of commands.
    intent: Mutex<Intent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Paused,
    Running,
    Ended,
}

impl Vcpus {
    /// Makes the vCPUs of `vm`, paused, the first of them in the state `boot`.
    ///
    /// Blocks for the system calls that this takes. On an error nothing is left running.
    pub fn new(vm: &Arc<Vm>, config: VcpusConfig, boot: BootState) -> Result<Self, VcpuError> {
        let count = config.topology.count();
        if count == 0 || count > i32::MAX as u32 {
            return Err(VcpuError::NoVcpu);
        }
        let limit = vm.max_vcpus();
        if count > limit {
            return Err(KvmError::TooManyVcpus { count, limit }.into());
        }
        let (highest, limit) = (config.topology.apic_id(count - 1), vm.kvm().apic_id_limit());
        if highest >= limit {
            return Err(KvmError::ApicIds { highest, limit }.into());
        }
        let maker = Maker { vm, config, msrs: power::msr_list(vm.kvm().fd()) };
        let (cpus, missing) = maker.make_all(count)?;
        let tsc_khz = cpus.first().and_then(|cpu| cpu.fd.get_tsc_khz().ok());
        if let Some(first) = cpus.first() {
            first.power_on.boot(&first.fd, &boot)?;
        }
        let vcpus = Self {
            controls: cpus.iter().map(|cpu| Arc::clone(&cpu.control)).collect(),
            threads: Mutex::default(),
            missing,
            tsc_khz,
            intent: Mutex::new(Intent::Paused),
        };
        for cpu in cpus {
            vcpus.start(cpu)?;
        }
        Ok(vcpus)
    }

    fn start(&self, cpu: Cpu) -> Result<(), VcpuError> {
        let index = cpu.index;
        let name = format!("CPU {index}/KVM");
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .stack_size(STACK)
            .spawn(move || thread::main(cpu))
            .map_err(|source| VcpuError::Thread { cpu: index, source })?;
        lock(&self.threads).push((name, thread));
        Ok(())
    }

    /// Lets all vCPUs run.
    pub fn resume(&self) -> Reply {
        self.command(Request::Resume, Some(Intent::Running))
    }

    /// Stops all vCPUs where they are: done when each is outside `KVM_RUN` with its last access
    /// completed, also one that slept in HLT. No device is called by a vCPU after that.
    pub fn pause(&self) -> Reply {
        self.command(Request::Pause, Some(Intent::Paused))
    }

    /// Takes the paused machine's processors, interrupt controllers and timer back to power-on.
    ///
    /// `reload` puts kernel and tables back into RAM; it runs on the first vCPU's thread, where it
    /// may block, and says how that vCPU starts. The vCPUs stay paused. When it fails they cannot
    /// run until a reset succeeds.
    pub fn reset(
        &self,
        reload: impl FnOnce() -> Result<BootState, BootError> + Send + 'static,
    ) -> Reply {
        let intent = lock(&self.intent);
        match *intent {
            Intent::Paused => {}
            Intent::Running => return refused(VcpuError::NotPaused),
            Intent::Ended => return refused(VcpuError::Ended),
        }
        self.send(Request::Reset, Work::Reload(Box::new(reload)))
    }

    /// Gives every vCPU a non-maskable interrupt. A paused one takes it when it runs again.
    pub fn nmi(&self) -> Reply {
        let (reply, tickets) = gather(self.controls.len());
        for (control, ticket) in self.controls.iter().zip(tickets) {
            attend(control, ticket, Box::new(VcpuFd::nmi));
        }
        reply
    }

    /// How a vCPU translates linear addresses at this moment; `None` where there is no such vCPU.
    pub async fn linear(&self, cpu: u32) -> Result<Option<Linear>, VcpuError> {
        let Some(control) = self.controls.get(cpu as usize) else { return Ok(None) };
        let found = Arc::new(Mutex::new(None));
        let (reply, mut tickets) = gather(1);
        if let Some(ticket) = tickets.next() {
            let found = Arc::clone(&found);
            let look = move |fd: &VcpuFd| {
                *lock(&found) = Some(Linear::of(&fd.get_sregs()?));
                Ok(())
            };
            attend(control, ticket, Box::new(look));
        }
        reply.await?;
        let linear = *lock(&found);
        Ok(linear)
    }

    /// Ends all threads: done when each has left its loop. There is no way back.
    pub fn stop(&self) -> Reply {
        self.command(Request::Stop, Some(Intent::Ended))
    }

    /// Waits until all threads have ended, after [`Vcpus::stop`]. Blocks: not for reactors.
    pub fn join(&self, patience: Duration) -> Result<(), VcpuError> {
        let deadline = Instant::now() + patience;
        let mut threads = lock(&self.threads);
        for (control, (name, _)) in self.controls.iter().zip(threads.iter()) {
            if !control.wait_ended(deadline) {
                return Err(VcpuError::Stuck { thread: name.clone() });
            }
        }
        for (name, thread) in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(name, "a vCPU thread has panicked");
            }
        }
        Ok(())
    }

    /// How many vCPUs there are.
    pub fn count(&self) -> u32 {
        self.controls.len() as u32
    }

    /// Whether the last command left the vCPUs paused (or ended).
    pub fn is_paused(&self) -> bool {
        *lock(&self.intent) != Intent::Running
    }

    /// The kernel's number of each vCPU's thread; 0 for one that has not begun or has ended.
    pub fn thread_ids(&self) -> Vec<i32> {
        self.controls.iter().map(|control| control.thread_id()).collect()
    }

    /// Features that the CPU model asked for and this host's KVM does not offer.
    pub fn missing_features(&self) -> &[&'static str] {
        &self.missing
    }

    /// Frequency of the guest's time-stamp counter in kHz, where the host knows it. A guest finds
    /// it in CPUID leaf 4000_0010h too; a Linux that does not look there takes `tsc_early_khz=`.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.tsc_khz
    }

    fn command(&self, request: Request, intent: Option<Intent>) -> Reply {
        let mut current = lock(&self.intent);
        if let Some(intent) = intent.filter(|_| *current != Intent::Ended) {
            *current = intent;
        }
        self.send(request, Work::None)
    }

    /// Under the lock of `intent`. The first vCPU gets `work`.
    fn send(&self, request: Request, mut work: Work) -> Reply {
        let (reply, tickets) = gather(self.controls.len());
        for (control, ticket) in self.controls.iter().zip(tickets) {
            control.send(Command { request, work: std::mem::take(&mut work), ticket });
        }
        reply
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        drop(self.command(Request::Stop, Some(Intent::Ended)));
    }
}

/// Makes vCPUs one after the other.
struct Maker<'a> {
    vm: &'a Arc<Vm>,
    config: VcpusConfig,
    msrs: Vec<u32>,
}

impl Maker<'_> {
    fn make_all(&self, count: u32) -> Result<(Vec<Cpu>, Vec<&'static str>), VcpuError> {
        let topology = &self.config.topology;
        let fds = (0..count)
            .map(|cpu| {
                let id = topology.apic_id(cpu).into();
                let fd = self.vm.fd().create_vcpu(id);
                fd.map_err(KvmError::refused("create a vCPU"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let tsc_khz = fds.first().and_then(|fd| fd.get_tsc_khz().ok());
        let (common, missing) = self.cpuid(tsc_khz)?;
        let cpus = fds
            .into_iter()
            .zip(0..)
            .map(|(fd, index)| self.make(fd, index, &common))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((cpus, missing))
    }

    /// CPUID as far as it is the same for all, and the features that cannot be had.
    fn cpuid(&self, tsc_khz: Option<u32>) -> Result<(Leaves, Vec<&'static str>), VcpuError> {
        let kvm = self.vm.kvm().fd();
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::refused("say which CPU features it supports"))?;
        let host = Accelerator {
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            hypercalls_hang: self.vm.kind() == KvmKind::Pvm,
            tsc_khz,
        };
        let model = &self.config.cpu;
        let common = cpuid::common(model, &Leaves::new(supported.as_slice()), host);
        if model.enforces() && !common.missing.is_empty() {
            return Err(CpuError::NotOffered(common.missing.join(", ")).into());
        }
        Ok((common.leaves, common.missing))
    }

    fn make(&self, fd: VcpuFd, index: u32, common: &Leaves) -> Result<Cpu, VcpuError> {
        let leaves = cpuid::of_cpu(common, &self.config.topology, index);
        let table = CpuId::from_entries(leaves.entries()).map_err(|_| KvmError::Refused {
            what: "take so many CPUID leaves",
            source: std::io::Error::from_raw_os_error(libc::E2BIG),
        })?;
        fd.set_cpuid2(&table).map_err(KvmError::refused("take the CPU model"))?;
        let power_on = PowerOn::of(&fd, &self.msrs, self.vm.kvm().fd())?;
        Ok(Cpu {
            index,
            fd,
            vm: Arc::clone(self.vm),
            pio: Arc::clone(&self.config.pio),
            mmio: Arc::clone(&self.config.mmio),
            power_on,
            control: Arc::new(Control::default()),
            events: Arc::clone(&self.config.events),
        })
    }
}

fn attend(control: &Control, ticket: Ticket, attention: Attention) {
    control.send(Command { request: Request::Attend, work: Work::Attention(attention), ticket });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole between any two statements that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
