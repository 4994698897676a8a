//! What a vCPU reports to the machine.

use std::fmt;
use std::sync::Arc;

/// Something a vCPU did that the machine must act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuEvent {
    /// The guest asked KVM to power the machine off.
    ShutdownRequest {
        /// The vCPU.
        cpu: u32,
    },
    /// The guest asked KVM to reset the machine.
    ResetRequest {
        /// The vCPU.
        cpu: u32,
    },
    /// The guest told KVM that it has crashed.
    Crash {
        /// The vCPU.
        cpu: u32,
    },
    /// An exception while delivering a double fault: a PC resets. The vCPU stands still.
    TripleFault {
        /// The vCPU.
        cpu: u32,
    },
    /// KVM could not go on with the guest and neither can we. The vCPU stands still.
    Panic(Box<Panic>),
    /// The host could not run the vCPU. It stands still.
    Failed {
        /// The vCPU.
        cpu: u32,
        /// One line: what happened, and what to do where something can be done.
        error: String,
    },
}

/// The instruction at which a guest ended. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// The vCPU.
    pub cpu: u32,
    /// Address of the instruction (an offset into the code segment outside 64-bit mode).
    pub rip: u64,
    /// Its bytes, as far as they could be read; at most 15.
    pub bytes: Vec<u8>,
    /// The decoded instruction.
    pub text: String,
    /// What stopped the guest there.
    pub reason: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {}: {} at RIP {:#x}: {} [", self.cpu, self.reason, self.rip, self.text)?;
        for (i, byte) in self.bytes.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{byte:02x}")?;
        }
        f.write_str("]")
    }
}

/// Takes events, on vCPU threads: it must not block, and hands over what takes time.
pub type EventSink = Arc<dyn Fn(VcpuEvent) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_with_all_that_is_known() {
        let panic = Panic {
            cpu: 1,
            rip: 0xffff_ffff_8100_0000,
            bytes: vec![0x0f, 0x01, 0xd5],
            text: "xend".into(),
            reason: "KVM cannot emulate an instruction".into(),
        };
        assert_eq!(
            panic.to_string(),
            "vCPU 1: KVM cannot emulate an instruction at RIP 0xffffffff81000000: xend [0f 01 d5]"
        );
    }
}
