//! ACPI: the tables by which a guest finds the machine, and the power management registers.

mod dsdt;
mod madt;
mod pm;
mod tables;

pub use pm::{
    AcpiPm, PM_LEN, PM_TIMER_PORT, PM1_CONTROL_PORT, PM1_EVENT_PORT, SCI_GSI, SLEEP_TYPE_S5,
};
pub use tables::{AcpiConfig, AcpiError, AcpiTables, Table, build, install};
