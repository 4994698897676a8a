//! Random accesses: nothing panics, nothing read-only changes, and the machine still works.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Access {
    Ports { port: u8, data: Vec<u8>, write: bool },
    Ecam { slot: u8, register: u16, data: Vec<u8>, write: bool },
    Bar { address: u64, data: Vec<u8>, write: bool },
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
    prop_oneof![Just(1usize), Just(2), Just(4), Just(8)]
        .prop_flat_map(move |len| prop::collection::vec(byte.clone(), len))
}

fn access() -> impl Strategy<Value = Access> {
    let slot = prop_oneof![Just(0u8), Just(4), Just(5), 0u8..32];
    let register = prop_oneof![0u16..0x100, 0u16..0x1000];
    let address = prop_oneof![0xdfff_fff0u64..0xe000_5000, any::<u64>()];
    prop_oneof![
        (0u8..8, data(), any::<bool>()).prop_map(|(port, data, write)| Access::Ports {
            port,
            data,
            write
        }),
        (slot, register, data(), any::<bool>()).prop_map(|(slot, register, data, write)| {
            Access::Ecam { slot, register, data, write }
        }),
        (address, data(), any::<bool>()).prop_map(|(address, data, write)| Access::Bar {
            address,
            data,
            write
        }),
    ]
}

fn run(machine: &Machine, access: &Access) {
    let (space, address, data, write) = match access {
        Access::Ports { port, data, write } => {
            (&machine.pio, CONFIG_PORTS + u64::from(*port), data, *write)
        }
        Access::Ecam { slot, register, data, write } => {
            let at = ECAM + (u64::from(*slot) << 15) + u64::from(*register);
            (&machine.mmio, at, data, *write)
        }
        Access::Bar { address, data, write } => (&machine.mmio, *address, data, *write),
    };
    if write {
        space.write(address, data);
    } else {
        space.read(address, &mut data.clone());
    }
}

/// A function with everything: BARs of each kind, MSI-X, a pin, a hook.
fn rich(machine: &Machine, slot: u8) -> Arc<Function> {
    let msix = Msix::new(&*machine.platform, 70).unwrap();
    let mut spec = FunctionSpec::new(IDENTITY);
    spec.bar(0, Bar::io(0x20)).unwrap();
    spec.bar(1, Bar::memory32(0x1000)).unwrap();
    spec.bar(2, Bar::memory64(0x4000)).unwrap();
    let place = MsixPlace { table_bar: 1, table_offset: 0, pba_bar: 1, pba_offset: 0x800 };
    spec.msix(&msix, place).unwrap();
    let at = spec.capability(0x09, &[20, 5, 0, 0, 0, 0], &[0, 0, 0, 0xff, 0xff, 0xff]).unwrap();
    spec.hook(u16::from(at)..u16::from(at) + 8);
    spec.intx(&IntxPin::new());
    let function = Function::new("rich", spec, Arc::new(Recorder::default()));
    machine.root.plug(Some(Slot::new(slot, 0).unwrap()), &function).unwrap();
    function
}

/// Which bits of each register a guest may change, by the specification.
fn writable(register: u16) -> u32 {
    match register {
        0x04 => 0x0000_0547,
        0x0c | 0x3c => 0x0000_00ff,
        0x10 => 0xffff_ffe0,
        0x14 => 0xffff_f000,
        0x18 => 0xffff_c000,
        0x1c => 0xffff_ffff,
        0x40 => 0xc000_0000,
        // The vendor capability follows MSI-X, at 0x4c; its last three bytes are writable.
        0x50 => 0xffff_ff00,
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_accesses_break_nothing(accesses in prop::collection::vec(access(), 1..120)) {
        let machine = Machine::new();
        let function = rich(&machine, 4);
        plain(&machine, 5);
        let before: Vec<u32> = (0..64).map(|i| function.config().u32(i * 4)).collect();
        for access in &accesses {
            run(&machine, access);
        }
        for (index, before) in before.iter().enumerate() {
            let register = index as u16 * 4;
            let changed = function.config().u32(register) ^ before;
            prop_assert_eq!(changed & !writable(register), 0, "register {:#x}", register);
        }
        // Wherever a BAR decodes, it is inside a window.
        for (bar, size) in [(0, 0x20), (1, 0x1000), (2, 0x4000)] {
            if let Some(base) = function.bar_address(bar) {
                let space = if bar == 0 { Space::Pio } else { Space::Mmio };
                prop_assert!(WINDOWS.admit(space, base, size));
            }
        }
        machine.root.reset();
        let after: Vec<u32> = (0..64).map(|i| function.config().u32(i * 4)).collect();
        prop_assert_eq!(before, after);
        prop_assert_eq!(machine.config_u32(0, 0), 0x1237_8086);
    }

    #[test]
    fn a_write_is_seen_by_reads_of_any_width(
        offset in 0u16..0x108,
        written in data(),
        len in 1usize..9,
        from in 0u16..0x108,
    ) {
        let mut builder = ConfigBuilder::new(&IDENTITY, false);
        builder.writable(0, &[0xff; 256]);
        let config = builder.build();
        let mut model = [0u8; 0x120];
        config.read(0, &mut model);
        config.write(offset, &written);
        for (at, byte) in (usize::from(offset)..256).zip(&written) {
            model[at] = *byte;
        }
        let mut seen = vec![0; len];
        config.read(from, &mut seen);
        prop_assert_eq!(&seen[..], &model[usize::from(from)..usize::from(from) + len]);
    }
}

#[test]
fn readers_and_writers_on_several_threads() {
    let machine = Machine::new();
    rich(&machine, 4);
    std::thread::scope(|scope| {
        for writer in 0..2u32 {
            let machine = &machine;
            scope.spawn(move || {
                for round in 0..400u32 {
                    machine.set_config_u32(4, 0x14, 0xe000_0000 + (round % 7) * 0x1000);
                    machine.set_command(4, (round + writer) as u16 & 0x7);
                }
            });
        }
        let machine = &machine;
        scope.spawn(move || {
            for _ in 0..2000 {
                assert_eq!(machine.config_u32(4, 0), 0x1042_1af4);
                machine.peek(0xe000_0800);
            }
        });
    });
    machine.set_config_u32(4, 0x14, 0xe000_0000);
    machine.set_command(4, COMMAND_MEMORY);
    assert_eq!(machine.peek(0xe000_000c), 1);
}
