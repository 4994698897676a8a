//! ACPI: the tables by which a guest finds the machine, and the registers of power management and PCI hot-plug.

mod dsdt;
mod gpe;
mod hotplug;
mod hotplug_aml;
mod madt;
mod osc;
mod pm;
mod tables;

pub use gpe::{GPE_PCI_HOTPLUG, GPE0_LEN, GPE0_PORT, GpePorts};
pub use hotplug::{EjectSink, HOTPLUG_LEN, HOTPLUG_PORT, PciHotplug};
pub use pm::{
    AcpiPm, PM_LEN, PM_TIMER_PORT, PM1_CONTROL_PORT, PM1_EVENT_PORT, SCI_GSI, SLEEP_TYPE_S5,
};
pub use tables::{AcpiConfig, AcpiError, AcpiTables, Table, build, install};
