//! A virtual machine: RAM slots, the in-kernel irqchip and timer, doorbells.

use super::irqs::Irqs;
use super::{Kvm, KvmError, KvmKind};
use crate::bus::Space;
use crate::irq::{IrqError, IrqLine, MsiVector, Platform};
use crate::memory::{Ram, layout};
use crate::sys;
use kvm_bindings::{
    KVM_CAP_X2APIC_API, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    kvm_enable_cap, kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch, kvm_ioeventfd_flag_nr_deassign,
    kvm_ioeventfd_flag_nr_pio, kvm_irqchip, kvm_pit_config, kvm_pit_state2,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, VmFd};
use reactor::Fd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// A virtual machine on KVM.
///
/// Any thread may call it. Dropped when the last user of it is gone: devices, vCPU threads and
/// interrupt vectors keep what they need of it alive.
pub struct Vm {
    kvm: Kvm,
    fd: Arc<VmFd>,
    /// The slots point into it.
    ram: Arc<Ram>,
    irqs: Arc<Irqs>,
    power_on: Chips,
}

/// The interrupt controllers and the timer as they are when the power comes on.
struct Chips {
    controllers: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

impl Vm {
    /// A machine with `ram`, two PICs, an I/O APIC and a PIT, and no vCPU.
    pub fn new(kvm: Kvm, ram: Arc<Ram>) -> Result<Arc<Self>, KvmError> {
        let fd = kvm.fd().create_vm().map_err(KvmError::refused("create a virtual machine"))?;
        let private = layout::KVM_PRIVATE;
        fd.set_identity_map_address(private.start)
            .map_err(KvmError::refused("set the identity map's address"))?;
        fd.set_tss_address((private.start + layout::PAGE) as usize)
            .map_err(KvmError::refused("set the TSS address"))?;
        enable_wide_apic_ids(&fd);
        fd.create_irq_chip().map_err(KvmError::refused("create the interrupt controllers"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(KvmError::refused("create the timer"))?;
        add_slots(&fd, &ram)?;
        let fd = Arc::new(fd);
        let routes = u32::try_from(fd.check_extension_int(Cap::IrqRouting)).unwrap_or(0);
        let irqs = Irqs::new(Arc::clone(&fd), routes)
            .map_err(|source| KvmError::Refused { what: "set the interrupt routes", source })?;
        let power_on = Chips::get(&fd)?;
        Ok(Arc::new(Self { kvm, fd, ram, irqs, power_on }))
    }

    /// Which kind of KVM runs this machine.
    pub fn kind(&self) -> KvmKind {
        self.kvm.kind()
    }

    /// How many vCPUs the machine can have.
    pub fn max_vcpus(&self) -> u32 {
        self.kvm.max_vcpus()
    }

    /// The machine's RAM.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// Puts the interrupt controllers and the timer back to their power-on state.
    pub(crate) fn reset_chips(&self) -> Result<(), KvmError> {
        for chip in &self.power_on.controllers {
            self.fd
                .set_irqchip(chip)
                .map_err(KvmError::refused("reset the interrupt controllers"))?;
        }
        self.fd.set_pit2(&self.power_on.pit).map_err(KvmError::refused("reset the timer"))
    }

    pub(crate) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }
}

impl Chips {
    fn get(vm: &VmFd) -> Result<Self, KvmError> {
        let mut controllers = Vec::new();
        for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip)
                .map_err(KvmError::refused("read the interrupt controllers"))?;
            controllers.push(chip);
        }
        let pit = vm.get_pit2().map_err(KvmError::refused("read the timer"))?;
        Ok(Self { controllers, pit })
    }
}

/// Lets a machine have APIC identifiers above 255; hosts that cannot have fewer vCPUs.
fn enable_wide_apic_ids(vm: &VmFd) {
    let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    let cap = kvm_enable_cap {
        cap: KVM_CAP_X2APIC_API,
        args: [u64::from(flags), 0, 0, 0],
        ..Default::default()
    };
    if let Err(error) = vm.enable_cap(&cap) {
        tracing::debug!(%error, "KVM_CAP_X2APIC_API is not available");
    }
}

fn add_slots(vm: &VmFd, ram: &Ram) -> Result<(), KvmError> {
    for (slot, region) in ram.iter().enumerate() {
        let argument = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the range is a mapping that `ram` owns. `Vm` keeps `ram` and gives out the VM's
        // descriptor only to what is dropped with it or never touches guest memory.
        unsafe { vm.set_user_memory_region(argument) }
            .map_err(KvmError::refused("take guest memory"))?;
    }
    Ok(())
}

impl Platform for Vm {
    fn msi_vector(&self) -> Result<Arc<dyn MsiVector>, IrqError> {
        self.irqs.vector()
    }

    fn irq_line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        self.irqs.line(gsi)
    }

    fn add_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u32,
        datamatch: Option<u64>,
        fd: &Fd,
    ) -> Result<(), IrqError> {
        let argument = doorbell(space, address, len, datamatch, fd);
        sys::ioeventfd(&*self.fd, &argument).map_err(|source| {
            if source.raw_os_error() == Some(libc::ENOSPC) {
                return IrqError::Exhausted("doorbell");
            }
            IrqError::Accelerator { what: "adding a doorbell", source }
        })
    }

    fn remove_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u32,
        datamatch: Option<u64>,
        fd: &Fd,
    ) {
        let mut argument = doorbell(space, address, len, datamatch, fd);
        argument.flags |= 1 << kvm_ioeventfd_flag_nr_deassign;
        if let Err(error) = sys::ioeventfd(&*self.fd, &argument) {
            tracing::error!(?space, address, len, ?datamatch, %error, "no such doorbell");
        }
    }
}

fn doorbell(space: Space, addr: u64, len: u32, datamatch: Option<u64>, fd: &Fd) -> kvm_ioeventfd {
    let pio = u32::from(space == Space::Pio) << kvm_ioeventfd_flag_nr_pio;
    let matched = u32::from(datamatch.is_some()) << kvm_ioeventfd_flag_nr_datamatch;
    kvm_ioeventfd {
        datamatch: datamatch.unwrap_or(0),
        addr,
        len,
        fd: fd.as_raw_fd(),
        flags: pio | matched,
        ..Default::default()
    }
}
