//! Interrupts into the in-kernel irqchip: message vectors through irqfd and the routing table,
//! input lines through `KVM_IRQ_LINE`.

use crate::irq::{INPUTS, Inputs, IrqError, IrqLine, MsiMessage, MsiVector};
use crate::sys;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_IRQFD_FLAG_DEASSIGN, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi, kvm_irqfd,
};
use kvm_ioctls::VmFd;
use reactor::Fd;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The interrupt side of one virtual machine.
pub(super) struct Irqs {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
    inputs: Arc<Inputs>,
}

/// The whole of KVM's routing table, which can only be replaced, never edited.
struct Routes {
    /// Of each message vector in use; `None` while it was never routed.
    msi: BTreeMap<u32, Option<MsiMessage>>,
    /// One past the last number that KVM takes.
    limit: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these mutexes guard is whole between any two statements that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Irqs {
    /// `limit`: how many routes KVM takes (what `KVM_CAP_IRQ_ROUTING` says).
    pub fn new(vm: Arc<VmFd>, limit: u32) -> io::Result<Arc<Self>> {
        let routes = Routes { msi: BTreeMap::new(), limit };
        let driven = Arc::clone(&vm);
        let inputs = Inputs::new(move |gsi, high| {
            if let Err(error) = driven.set_irq_line(gsi, high) {
                tracing::error!(gsi, high, %error, "KVM_IRQ_LINE failed");
            }
        });
        let irqs = Self { vm, routes: Mutex::new(routes), inputs };
        irqs.publish(&lock(&irqs.routes))?;
        Ok(Arc::new(irqs))
    }

    pub fn vector(self: &Arc<Self>) -> Result<Arc<dyn MsiVector>, IrqError> {
        let fd = sys::eventfd().map_err(|source| IrqError::Accelerator {
            what: "an eventfd for an interrupt vector",
            source,
        })?;
        let mut routes = lock(&self.routes);
        // The fixed routes take a share of the table too, so the limit is theirs and ours.
        let limit = routes.limit.saturating_sub(fixed_routes().len() as u32) + INPUTS;
        let gsi = (INPUTS..limit)
            .find(|gsi| !routes.msi.contains_key(gsi))
            .ok_or(IrqError::Exhausted("interrupt vector"))?;
        routes.msi.insert(gsi, None);
        drop(routes);
        let state = Mutex::new(VectorState::default());
        Ok(Arc::new(Vector { irqs: Arc::clone(self), fd, gsi, state }))
    }

    pub fn line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        self.inputs.line(gsi)
    }

    fn publish(&self, routes: &Routes) -> io::Result<()> {
        let mut entries = fixed_routes();
        entries.extend(routes.msi.iter().filter_map(|(gsi, m)| m.map(|m| msi_route(*gsi, m))));
        let table = KvmIrqRouting::from_entries(&entries).map_err(io::Error::other)?;
        self.vm.set_gsi_routing(&table).map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }

    /// Gives `gsi` a new route; the table stays as it was when KVM refuses.
    fn set_route(&self, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let mut routes = lock(&self.routes);
        let old = routes.msi.insert(gsi, Some(message)).flatten();
        if old == Some(message) {
            return Ok(());
        }
        self.publish(&routes).inspect_err(|_| {
            routes.msi.insert(gsi, old);
        })
    }

    fn connect(&self, fd: &Fd, gsi: u32, flags: u32) -> io::Result<()> {
        let argument = kvm_irqfd { fd: fd.as_raw_fd() as u32, gsi, flags, ..Default::default() };
        sys::irqfd(&*self.vm, &argument)
    }
}

/// A PC's wiring: ISA interrupts reach both controllers, but the timer (ISA IRQ 0) is on input 2
/// of the I/O APIC, and input 2 of the PICs is their cascade.
fn fixed_routes() -> Vec<kvm_irq_routing_entry> {
    let pics = (0..16).filter(|gsi| *gsi != 2).map(|gsi| {
        let chip = if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        chip_route(gsi, chip, gsi % 8)
    });
    let ioapic = (0..INPUTS).filter(|gsi| *gsi != 2).map(|gsi| {
        let pin = if gsi == 0 { 2 } else { gsi };
        chip_route(gsi, KVM_IRQCHIP_IOAPIC, pin)
    });
    pics.chain(ioapic).collect()
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..Default::default()
    }
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..Default::default()
    }
}

/// Whether a store of `message` would be an interrupt: the local APICs' megabyte, with nothing
/// in the bits that KVM wants clear (Intel SDM volume 3, section 11.11).
fn is_interrupt(message: MsiMessage) -> bool {
    message.address & 0xff_fff0_0000 == 0xfee0_0000
}

/// A message vector: an eventfd that is an irqfd while the vector is routed.
struct Vector {
    irqs: Arc<Irqs>,
    fd: Fd,
    gsi: u32,
    state: Mutex<VectorState>,
}

#[derive(Default)]
struct VectorState {
    connected: bool,
}

impl Vector {
    fn disconnect(&self, state: &mut VectorState) -> io::Result<()> {
        if state.connected {
            self.irqs.connect(&self.fd, self.gsi, KVM_IRQFD_FLAG_DEASSIGN)?;
            state.connected = false;
        }
        Ok(())
    }
}

impl MsiVector for Vector {
    fn eventfd(&self) -> &Fd {
        &self.fd
    }

    /// A message to no interrupt controller (nonsense from a guest) is accepted and goes
    /// nowhere, like the mask; KVM would refuse it.
    fn route(&self, message: Option<MsiMessage>) -> Result<(), IrqError> {
        let error = |what| move |source| IrqError::Accelerator { what, source };
        let mut state = lock(&self.state);
        let Some(message) = message.filter(|m| is_interrupt(*m)) else {
            return self.disconnect(&mut state).map_err(error("masking an interrupt vector"));
        };
        self.irqs.set_route(self.gsi, message).map_err(error("routing an interrupt vector"))?;
        if !state.connected {
            // KVM looks at the count while it connects, which delivers what was pending.
            self.irqs
                .connect(&self.fd, self.gsi, 0)
                .map_err(error("connecting an interrupt vector"))?;
            state.connected = true;
        }
        Ok(())
    }

    fn pending(&self) -> bool {
        let state = lock(&self.state);
        !state.connected && sys::readable(&self.fd)
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Err(error) = self.disconnect(&mut state) {
            tracing::error!(gsi = self.gsi, %error, "an interrupt vector stays connected");
            return;
        }
        // The stale route is harmless and goes with the next publication.
        lock(&self.irqs.routes).msi.remove(&self.gsi);
    }
}
