//! The vCPU as an instruction sees it: registers, operands, memory.

use super::Stop;
use super::walk::{Paging, walk};
use crate::cpuid::Registers;
use crate::memory::Ram;
use iced_x86::{Instruction, OpKind, Register};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

pub(super) const CR0_MP: u64 = 1 << 1;
pub(super) const CR0_EM: u64 = 1 << 2;
pub(super) const CR0_TS: u64 = 1 << 3;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
pub(super) const CR4_OSFXSR: u64 = 1 << 9;
const CR4_LA57: u64 = 1 << 12;
pub(super) const CR4_FSGSBASE: u64 = 1 << 16;
pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
pub(super) const RFLAGS_AC: u64 = 1 << 18;
const PAGE: u64 = 4096;

/// The state of a vCPU that is rarely needed, and the guest's memory.
pub(super) trait Machine {
    fn ram(&self) -> &Ram;
    /// Guest-physical address of `linear` outside long mode; `None` where nothing is mapped.
    fn translate(&self, linear: u64) -> Result<Option<u64>, Stop>;
    /// FPU, SSE and extended state in the standard format of XSAVE. (`KVM_GET_FPU` and
    /// `KVM_SET_FPU` pass MXCSR over.)
    fn xsave(&self) -> Result<Vec<u8>, Stop>;
    fn set_xsave(&self, area: &[u8]) -> Result<(), Stop>;
    fn xcr0(&self) -> Result<u64, Stop>;
    fn msr(&self, index: u32) -> Result<u64, Stop>;
    fn cpuid(&self, leaf: u32, index: u32) -> Result<Registers, Stop>;
}

/// Registers and machine, for one instruction.
pub(super) struct Context<'a> {
    pub regs: kvm_regs,
    pub sregs: kvm_sregs,
    /// Whether `sregs` must be written back.
    pub sregs_changed: bool,
    pub machine: &'a dyn Machine,
}

impl Context<'_> {
    /// 16, 32 or 64: what the code segment makes of operands and addresses.
    pub fn bitness(&self) -> u32 {
        match (self.long_mode() && self.sregs.cs.l == 1, self.sregs.cs.db) {
            (true, _) => 64,
            (false, 1) => 32,
            (false, _) => 16,
        }
    }

    pub fn cpl(&self) -> u8 {
        self.sregs.ss.dpl & 3
    }

    fn long_mode(&self) -> bool {
        self.sregs.efer & EFER_LMA != 0
    }

    /// Up to 15 bytes at CS:RIP; fewer where the next page cannot be read.
    pub fn fetch(&self) -> Vec<u8> {
        let base = if self.bitness() == 64 { 0 } else { self.sregs.cs.base };
        let start = base.wrapping_add(self.regs.rip);
        let mut bytes = vec![0; 15];
        let first = (PAGE - start % PAGE).min(15) as usize;
        for len in [15, first] {
            if let Some(part) = bytes.get_mut(..len)
                && self.read(start, part).is_ok()
            {
                bytes.truncate(len);
                return bytes;
            }
        }
        Vec::new()
    }

    /// The value of a general register (or part of one), zero-extended.
    pub fn register(&mut self, register: Register) -> Option<u64> {
        let size = register.size();
        let value = *self.slot(register)?;
        Some(if size >= 8 { value } else { value & ((1 << (size * 8)) - 1) })
    }

    /// Sets a general register of 16, 32 or 64 bits with that width's effect on the rest of it.
    pub fn set_register(&mut self, register: Register, value: u64) -> Result<(), Stop> {
        let size = register.size();
        let slot =
            self.slot(register).ok_or(Stop::Decline("its operand is no general register"))?;
        *slot = match size {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => *slot & !0xffff | value & 0xffff,
        };
        Ok(())
    }

    /// The whole of a general register; not for AH, BH, CH and DH.
    fn slot(&mut self, register: Register) -> Option<&mut u64> {
        let regs = &mut self.regs;
        Some(match register.full_register() {
            Register::RAX => &mut regs.rax,
            Register::RCX => &mut regs.rcx,
            Register::RDX => &mut regs.rdx,
            Register::RBX => &mut regs.rbx,
            Register::RSP => &mut regs.rsp,
            Register::RBP => &mut regs.rbp,
            Register::RSI => &mut regs.rsi,
            Register::RDI => &mut regs.rdi,
            Register::R8 => &mut regs.r8,
            Register::R9 => &mut regs.r9,
            Register::R10 => &mut regs.r10,
            Register::R11 => &mut regs.r11,
            Register::R12 => &mut regs.r12,
            Register::R13 => &mut regs.r13,
            Register::R14 => &mut regs.r14,
            Register::R15 => &mut regs.r15,
            _ => return None,
        })
    }

    fn segment(&self, register: Register) -> Option<&kvm_segment> {
        Some(match register {
            Register::CS => &self.sregs.cs,
            Register::DS => &self.sregs.ds,
            Register::ES => &self.sregs.es,
            Register::SS => &self.sregs.ss,
            Register::FS => &self.sregs.fs,
            Register::GS => &self.sregs.gs,
            _ => return None,
        })
    }

    /// The value of operand `index`: a register, or memory of the instruction's own width.
    pub fn operand(&mut self, instruction: &Instruction, index: u32) -> Result<u64, Stop> {
        if instruction.op_kind(index) == OpKind::Register {
            return self
                .register(instruction.op_register(index))
                .ok_or(Stop::Decline("its operand is no general register"));
        }
        let mut bytes = [0; 8];
        let size = instruction.memory_size().size();
        let part = bytes.get_mut(..size).ok_or(Stop::Decline("its operand is too wide"))?;
        let address = self.address(instruction, index)?;
        self.read(address, part)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The linear address of memory operand `index`.
    pub fn address(&mut self, instruction: &Instruction, index: u32) -> Result<u64, Stop> {
        let long = self.bitness() == 64;
        let linear = instruction
            .virtual_address(index, 0, |register, _, _| {
                if let Some(segment) = self.segment(register) {
                    let flat = long && !matches!(register, Register::FS | Register::GS);
                    return Some(if flat { 0 } else { segment.base });
                }
                self.register(register)
            })
            .ok_or(Stop::Decline("its memory operand has no address"))?;
        if !long {
            return Ok(linear & 0xffff_ffff);
        }
        if !self.is_canonical(linear) {
            let stack = instruction.memory_segment() == Register::SS;
            return Err(if stack { Stop::exception_zero(12) } else { Stop::exception_zero(13) });
        }
        Ok(linear)
    }

    pub fn is_canonical(&self, address: u64) -> bool {
        let unused = if self.sregs.cr4 & CR4_LA57 != 0 { 7 } else { 16 };
        (address << unused).cast_signed() >> unused == address.cast_signed()
    }

    /// Reads guest memory at a linear address.
    pub fn read(&self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
        let mut rest = data;
        for (physical, len) in self.pieces(linear, rest.len(), false)? {
            let (head, tail) = rest.split_at_mut(len);
            self.machine.ram().read_slice(head, GuestAddress(physical)).map_err(|_| NOT_RAM)?;
            rest = tail;
        }
        Ok(())
    }

    /// Writes guest memory at a linear address: all of it, or nothing and a fault.
    pub fn write(&self, linear: u64, data: &[u8]) -> Result<(), Stop> {
        let mut rest = data;
        for (physical, len) in self.pieces(linear, rest.len(), true)? {
            let (head, tail) = rest.split_at(len);
            self.machine.ram().write_slice(head, GuestAddress(physical)).map_err(|_| NOT_RAM)?;
            rest = tail;
        }
        Ok(())
    }

    /// Whether `len` bytes at `linear` can be written, or the fault that a write would be.
    pub fn check_write(&self, linear: u64, len: usize) -> Result<(), Stop> {
        self.pieces(linear, len, true).map(drop)
    }

    /// Compares 16 aligned bytes at `linear` with `old` and replaces them by `new` where equal,
    /// atomically among all vCPUs; returns what was there.
    pub fn compare_exchange(&self, linear: u64, old: u128, new: u128) -> Result<u128, Stop> {
        let pieces = self.pieces(linear, 16, true)?;
        let &[(physical, 16)] = pieces.as_slice() else {
            return Err(Stop::exception_zero(13));
        };
        let slice =
            self.machine.ram().get_slice(GuestAddress(physical), 16).map_err(|_| NOT_RAM)?;
        super::atomic16::compare_exchange(&slice, old, new)
            .ok_or(Stop::Decline("this host's processor lacks it"))
    }

    /// The guest-physical ranges behind `linear`, one a page; all are RAM.
    fn pieces(&self, linear: u64, len: usize, write: bool) -> Result<Vec<(u64, usize)>, Stop> {
        let mut pieces = Vec::with_capacity(2);
        let (mut at, mut left) = (linear, len);
        while left > 0 {
            let piece = left.min((PAGE - at % PAGE) as usize);
            let physical = self.physical(at, write)?;
            if !self.machine.ram().check_range(GuestAddress(physical), piece) {
                return Err(NOT_RAM);
            }
            pieces.push((physical, piece));
            at = at.wrapping_add(piece as u64);
            left -= piece;
        }
        Ok(pieces)
    }

    fn physical(&self, linear: u64, write: bool) -> Result<u64, Stop> {
        let sregs = &self.sregs;
        if sregs.cr0 & CR0_PG == 0 {
            return Ok(linear);
        }
        let user = self.cpl() == 3;
        if self.long_mode() {
            let barred = sregs.cr4 & CR4_SMAP != 0 && self.regs.rflags & RFLAGS_AC == 0;
            let paging = Paging {
                root: sregs.cr3,
                levels: if sregs.cr4 & CR4_LA57 != 0 { 5 } else { 4 },
                write_protect: sregs.cr0 & CR0_WP != 0,
                user_pages_barred: barred,
                user,
            };
            return walk(self.machine.ram(), &paging, linear, write);
        }
        if write {
            return Err(Stop::Decline("it writes memory under 32-bit paging"));
        }
        let code = u32::from(user) << 2;
        self.machine.translate(linear)?.ok_or(Stop::page_fault(linear, code))
    }
}

const NOT_RAM: Stop = Stop::Decline("its memory operand is not RAM");
