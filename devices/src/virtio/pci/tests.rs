//! The transport, by a device that gives every request back at once.

use super::{NOTIFY, VirtioPci, VirtioPciError};
use crate::virtio::device::{QueueSetup, VirtioDevice};
use crate::virtio::features;
use crate::virtio::interrupt::ConfigNotifier;
use crate::virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use crate::virtio::testing::{
    Buffer, Driver, DriverQueue, EventPlatform, TestMachine, Used, on_reactors,
};
use reactor::Reactors;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};

const OWN_FEATURE: u64 = 1 << 3;
const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[derive(Default)]
struct Echo {
    sizes: Vec<u16>,
    notifier: OnceLock<ConfigNotifier>,
    /// What each queue's task was started with: queue, features, context.
    served: Mutex<Vec<(u16, u64, String)>>,
    written: Mutex<Vec<(u64, Vec<u8>, u64)>>,
    resets: Mutex<usize>,
}

impl VirtioDevice for Echo {
    fn device_type(&self) -> u16 {
        42
    }

    fn pci_class(&self) -> u32 {
        0xff_00_00
    }

    fn features(&self) -> u64 {
        features::COMMON | OWN_FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = CONFIG.get(at as usize).copied().unwrap_or(0);
        }
    }

    fn config_write(&self, offset: u64, data: &[u8], features: u64) {
        self.written.lock().unwrap().push((offset, data.to_vec(), features));
    }

    fn attach(&self, notifier: ConfigNotifier) {
        assert!(self.notifier.set(notifier).is_ok(), "attached once");
    }

    fn serve(self: Arc<Self>, mut setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        let context = reactor::current().name().to_owned();
        self.served.lock().unwrap().push((setup.index, setup.features, context));
        Box::pin(async move {
            loop {
                while setup.queue.enable_notification().unwrap() {
                    while let Some(head) = setup.queue.pop(|chain| chain.head_index()).unwrap() {
                        setup.queue.push_used(head, 0).unwrap();
                    }
                }
                if setup.queue.announce() == Some(true) {
                    setup.interrupt.raise();
                }
                reactor::io::read_eventfd(&setup.doorbell).await.unwrap();
                if setup.stop.requested() {
                    return;
                }
            }
        })
    }

    fn reset(&self) {
        *self.resets.lock().unwrap() += 1;
    }
}

struct Rig {
    machine: Arc<TestMachine>,
    echo: Arc<Echo>,
    virtio: VirtioPci,
    driver: Driver,
}

impl Rig {
    fn new(reactors: &Reactors) -> Self {
        Self::in_machine(TestMachine::new(), reactors)
    }

    fn in_machine(machine: Arc<TestMachine>, reactors: &Reactors) -> Self {
        let echo = Arc::new(Echo { sizes: vec![64, 8, 16], ..Echo::default() });
        let virtio = function(&machine, &echo, reactors).unwrap();
        let slot = machine.plug(virtio.function());
        let driver = Driver::new(&machine, slot, 0);
        Self { machine, echo, virtio, driver }
    }

    /// Brings queue 0 up.
    fn start(&self) -> DriverQueue {
        assert!(self.driver.negotiate(features::COMMON));
        self.driver.use_vectors(3);
        let queue = self.driver.set_up_queue(0, 16, true);
        self.driver.driver_ok();
        queue
    }

    fn notify(&self, queue: u64) -> u64 {
        self.driver.address(self.driver.notify) + queue * self.driver.notify_step
    }
}

fn function(
    machine: &TestMachine,
    echo: &Arc<Echo>,
    reactors: &Reactors,
) -> Result<VirtioPci, VirtioPciError> {
    VirtioPci::new(
        "echo0",
        Arc::clone(echo) as _,
        Arc::clone(&machine.ram),
        Arc::clone(&machine.platform) as _,
        reactors.cores().to_vec(),
    )
}

/// One request through `queue`.
async fn round_trip(queue: &mut DriverQueue) {
    let head = queue.add(&[Buffer::writable(0x1000, 16)]);
    queue.kick();
    assert_eq!(queue.wait_used(1).await, [Used { head, len: 0 }]);
}

#[test]
fn the_function_is_a_modern_device_with_all_structures_in_one_bar() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        assert_eq!(driver.config(0x00), [0xf4, 0x1a, 0x6a, 0x10], "1af4:1040 + 42");
        assert_eq!(driver.config(0x08), [1, 0, 0, 0xff], "revision 1, class ff0000");
        let places = [driver.common, driver.isr, driver.device, driver.notify];
        assert!(places.iter().all(|place| place.bar == 4), "{places:?}");
        for place in places {
            assert!(place.length > 0 && place.offset + place.length <= 0x4000);
        }
        assert_eq!(driver.common.length, 0x3c);
        assert!(driver.notify_step >= 2 && driver.notify.length >= 3 * driver.notify_step);
        assert_ne!(driver.window, 0);
        assert_eq!(driver.config::<1>(0x3d), [1], "INTA");
        assert_eq!(driver.read16(0x12), 3, "num_queues");
    });
}

#[test]
fn features_are_negotiated() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        assert_eq!(driver.offered(), features::COMMON | OWN_FEATURE);
        for select in [2u32, 3, 0x8000_0000] {
            driver.write(0x00, &select.to_le_bytes());
            assert_eq!(driver.read32(0x04), 0, "no features beyond 64 bits");
        }
        let accepted = features::VERSION_1 | OWN_FEATURE;
        driver.accept(accepted);
        assert_eq!(driver.read32(0x0c), (accepted >> 32) as u32, "driver_feature reads back");
        driver.write(0x08, &0u32.to_le_bytes());
        assert_eq!(driver.read32(0x0c), accepted as u32);

        assert!(!driver.negotiate(accepted | 1 << 4), "not offered");
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
        driver.reset().await;
        assert!(!driver.negotiate(features::EVENT_IDX), "a driver of before version 1");
        // It may think again.
        driver.accept(accepted);
        driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
        driver.accept(0);
        driver.write(0x08, &0u32.to_le_bytes());
        assert_eq!(driver.read32(0x0c), accepted as u32, "what is agreed is agreed");
    });
}

#[test]
fn the_status_register_takes_only_steps_of_the_specification() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        driver.set_status(DRIVER_OK);
        assert_eq!(driver.status(), 0);
        driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(driver.status(), 0);
        driver.accept(features::VERSION_1);
        driver.set_status(ACKNOWLEDGE | DRIVER);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER, "in one step, as firmware does");
        driver.set_status(ACKNOWLEDGE);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER, "bits go with a reset only");
        driver.set_status(ACKNOWLEDGE | DRIVER | FAILED);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER | FAILED);
        driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER | FAILED);
        driver.set_status(0);
        assert_eq!(driver.status(), 0, "nothing was live: visible at the next read");
    });
}

#[test]
fn queues_have_registers_of_their_own() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        let select = |queue: u16| driver.write(0x16, &queue.to_le_bytes());
        for (queue, size) in [(0, 64), (1, 8), (2, 16)] {
            select(queue);
            assert_eq!(driver.read16(0x18), size);
            assert_eq!(driver.read16(0x1a), 0xffff, "no vector");
            assert_eq!(driver.read16(0x1c), 0, "not enabled");
        }
        for queue in [3, 64, 0xffff] {
            select(queue);
            assert_eq!(driver.read16(0x18), 0, "a queue that does not exist has size 0");
            assert_eq!(driver.read16(0x1a), 0xffff);
            // And takes nothing.
            driver.write(0x18, &8u16.to_le_bytes());
            driver.write(0x1a, &1u16.to_le_bytes());
            driver.write(0x20, &0x1000u64.to_le_bytes());
            driver.write(0x1c, &1u16.to_le_bytes());
            assert_eq!(driver.read16(0x18), 0);
            assert_eq!(driver.read16(0x1a), 0xffff);
            assert_eq!(driver.read16(0x1c), 0);
        }
        select(0);
        for bad in [0u16, 3, 63, 65, 128, 0xffff] {
            driver.write(0x18, &bad.to_le_bytes());
            assert_eq!(driver.read16(0x18), 64, "size {bad} is refused");
        }
        driver.write(0x18, &32u16.to_le_bytes());
        driver.write(0x20, &0x1_2345_6000u64.to_le_bytes());
        driver.write(0x2c, &7u32.to_le_bytes());
        assert_eq!(driver.read16(0x18), 32);
        assert_eq!((driver.read32(0x20), driver.read32(0x24)), (0x2345_6000, 1));
        assert_eq!((driver.read32(0x28), driver.read32(0x2c)), (0, 7));
        // Four vectors: three queues and the configuration.
        for (vector, shown) in [(3u16, 3), (4, 0xffff), (0, 0), (0xffff, 0xffff)] {
            driver.write(0x1a, &vector.to_le_bytes());
            assert_eq!(driver.read16(0x1a), shown);
            driver.write(0x10, &vector.to_le_bytes());
            assert_eq!(driver.read16(0x10), shown);
        }
        driver.reset().await;
        select(0);
        assert_eq!((driver.read16(0x18), driver.read32(0x20)), (64, 0));
    });
}

#[test]
fn live_queues_are_served_on_their_cores_and_keep_their_setting() {
    on_reactors(2, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        assert!(driver.negotiate(features::COMMON | OWN_FEATURE));
        driver.use_vectors(3);
        let mut queues: Vec<DriverQueue> =
            [(0, 64), (2, 8)].map(|(queue, size)| driver.set_up_queue(queue, size, true)).into();
        assert!(rig.echo.served.lock().unwrap().is_empty(), "nothing before DRIVER_OK");
        driver.driver_ok();
        for queue in &mut queues {
            for _ in 0..100 {
                round_trip(queue).await;
            }
        }
        driver.write(0x16, &2u16.to_le_bytes());
        driver.write(0x18, &4u16.to_le_bytes());
        driver.write(0x20, &0x9000u64.to_le_bytes());
        assert_eq!(driver.read16(0x18), 8, "an enabled queue cannot be changed");
        let cores: Vec<String> =
            reactors.cores().iter().map(|core| core.name().to_owned()).collect();
        let accepted = features::COMMON | OWN_FEATURE;
        let mut served = rig.echo.served.lock().unwrap().clone();
        served.sort();
        let core = |queue: usize| cores[queue % cores.len()].clone();
        assert_eq!(served, [(0, accepted, core(0)), (2, accepted, core(2))]);
        // A late queue starts when it is enabled.
        let mut late = driver.set_up_queue(1, 8, true);
        round_trip(&mut late).await;
        rig.virtio.shutdown().await;
        assert_eq!(driver.status(), 0);
    });
}

#[test]
fn doorbells_follow_the_bar() {
    on_reactors(1, |reactors| async move {
        let mut rig = Rig::new(&reactors);
        let platform = Arc::clone(&rig.machine.platform);
        assert!(platform.doorbells().is_empty(), "none before DRIVER_OK");
        let mut queue = rig.start();
        assert_eq!(platform.doorbells(), [rig.notify(0)]);
        round_trip(&mut queue).await;

        let moved = 0xe800_0000;
        rig.driver.place_bar(4, moved);
        assert_eq!(platform.doorbells(), [moved + NOTIFY]);
        assert_eq!(rig.driver.status() & DRIVER_OK, DRIVER_OK);
        // The driver of before rings where nothing is any more; the next one finds the new place.
        queue.add(&[Buffer::writable(0x1000, 16)]);
        rig.machine.write(rig.notify(0), &0u16.to_le_bytes());
        queue.wait_used(1).await;

        rig.driver.config_write(0x04, &[0, 0]);
        assert!(platform.doorbells().is_empty(), "nothing decodes");
        rig.driver.config_write(0x04, &[0x06, 0]);
        assert_eq!(platform.doorbells(), [moved + NOTIFY]);
        rig.driver.reset().await;
        assert!(platform.doorbells().is_empty());
    });
}

#[test]
fn without_doorbell_events_the_write_itself_rings() {
    on_reactors(1, |reactors| async move {
        let plain = TestMachine::new();
        let machine = TestMachine::with_ram(Arc::clone(&plain.ram), EventPlatform::new(false));
        let rig = Rig::in_machine(machine, &reactors);
        let mut queue = rig.start();
        for _ in 0..10 {
            round_trip(&mut queue).await;
        }
        // Doorbells of queues that do not run, or do not exist, ring nobody.
        for queue in [1, 2, 3, 500] {
            rig.machine.write(rig.notify(queue), &0u32.to_le_bytes());
        }
        round_trip(&mut queue).await;
        rig.virtio.shutdown().await;
    });
}

#[test]
fn isr_and_intx_serve_drivers_without_msix() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let platform = Arc::clone(&rig.machine.platform);
        rig.driver.disable_msix();
        let mut queue = rig.start();
        let head = queue.add(&[Buffer::writable(0x1000, 16)]);
        queue.want_interrupt_after(1);
        queue.kick();
        while !platform.any_line_high() {
            reactor::yield_now().await;
        }
        assert_eq!(queue.pop_used(), Some(Used { head, len: 0 }), "used first, then the interrupt");
        assert_eq!(rig.driver.read_isr(), 1);
        assert!(!platform.any_line_high(), "reading lets go of the line");
        assert_eq!(rig.driver.read_isr(), 0);

        rig.echo.notifier.get().unwrap().changed();
        assert!(platform.any_line_high());
        assert_eq!(rig.driver.read_isr(), 3);
        assert!(!platform.any_line_high());
        rig.echo.notifier.get().unwrap().changed();
        rig.driver.reset().await;
        assert!(!platform.any_line_high(), "a reset does so as well");
        assert_eq!(rig.driver.read_isr(), 0);
    });
}

#[test]
fn configuration_changes_interrupt_live_drivers_only() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let notifier = rig.echo.notifier.get().unwrap();
        let generation = rig.driver.read8(0x15);
        notifier.changed();
        assert_ne!(rig.driver.read8(0x15), generation, "a driver that is reading sees it");
        assert_eq!(rig.driver.read_isr(), 0, "nobody is interrupted");
        let _queue = rig.start();
        assert!(!rig.driver.config_vector().raised());
        notifier.changed();
        assert_eq!(rig.driver.config_vector().wait().await, 1);
        assert_eq!(rig.driver.read_isr(), 3);
        // Without a vector there is the ISR byte alone.
        rig.driver.write(0x10, &0xffffu16.to_le_bytes());
        notifier.changed();
        assert!(!rig.driver.config_vector().raised());
        assert_eq!(rig.driver.read_isr(), 3);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn the_device_configuration_is_the_devices() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        assert_eq!(rig.driver.device_config(0), CONFIG);
        assert_eq!(rig.driver.device_config(6), [7, 8, 0, 0]);
        assert_eq!(rig.driver.device_config(0xff8), [0; 8]);
        rig.driver.accept(OWN_FEATURE);
        rig.driver.device_config_write(4, &[9, 9]);
        let written = rig.echo.written.lock().unwrap().clone();
        assert_eq!(written, [(4, vec![9, 9], OWN_FEATURE)]);
    });
}

#[test]
fn the_configuration_window_reaches_every_structure() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        let aim = |bar: u8, offset: u64, width: u32| {
            driver.config_write(driver.window + 4, &[bar]);
            driver.config_write(driver.window + 8, &(offset as u32).to_le_bytes());
            driver.config_write(driver.window + 12, &width.to_le_bytes());
        };
        let data = driver.window + 16;
        aim(4, driver.common.offset + 0x14, 1);
        driver.config_write(data, &[ACKNOWLEDGE]);
        assert_eq!(driver.status(), ACKNOWLEDGE);
        driver.config_write(data, &[ACKNOWLEDGE | DRIVER, 0, 0, 0]);
        assert_eq!(driver.config::<1>(data), [ACKNOWLEDGE | DRIVER]);
        aim(4, driver.common.offset + 0x12, 2);
        assert_eq!(driver.config(data), [3, 0], "num_queues");
        aim(4, driver.device.offset + 4, 4);
        assert_eq!(driver.config(data), [5, 6, 7, 8]);
        assert_eq!(driver.config::<2>(data + 2), [7, 8]);
        // What it must not reach, and widths that do not exist, change nothing.
        for (bar, offset, width) in [
            (1, 0, 4),
            (0, 0, 4),
            (7, 0, 1),
            (4, 0x14, 3),
            (4, 0x14, 0),
            (4, 0x15, 2),
            (4, 1 << 20, 4),
        ] {
            aim(bar, offset, width);
            driver.config_write(data, &[0; 4]);
            let _: [u8; 4] = driver.config(data);
            assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
        }
    });
}

#[test]
fn needs_reset_is_raised_once_and_ends_with_a_reset() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let _queue = rig.start();
        let interrupts = &rig.virtio.transport.interrupts;
        interrupts.fail(&"first");
        interrupts.fail(&"second");
        assert_eq!(rig.driver.config_vector().wait().await, 1);
        assert_ne!(rig.driver.status() & NEEDS_RESET, 0);
        // Writing back what was read does not clear it.
        rig.driver.set_status(rig.driver.status());
        assert_ne!(rig.driver.status() & NEEDS_RESET, 0);
        rig.driver.reset().await;
        assert_eq!(rig.driver.status(), 0);
        let mut queue = rig.start();
        round_trip(&mut queue).await;
        assert_eq!(*rig.echo.resets.lock().unwrap(), 1);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn one_queue_is_reset_while_the_others_go_on() {
    on_reactors(2, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        assert!(driver.negotiate(features::COMMON));
        driver.use_vectors(3);
        let mut first = driver.set_up_queue(0, 16, true);
        let mut other = driver.set_up_queue(1, 8, true);
        driver.driver_ok();
        for size in [8, 64, 16] {
            round_trip(&mut first).await;
            driver.write(0x16, &0u16.to_le_bytes());
            driver.write(0x3a, &1u16.to_le_bytes());
            while driver.read16(0x3a) != 0 {
                reactor::yield_now().await;
            }
            assert_eq!(driver.read16(0x1c), 0, "not enabled");
            assert_eq!((driver.read16(0x18), driver.read16(0x1a)), (64, 0xffff), "as at power-on");
            assert_eq!(rig.machine.platform.doorbells(), [rig.notify(1)]);
            round_trip(&mut other).await;
            driver.use_vectors(1);
            first = driver.set_up_queue(0, size, true);
        }
        round_trip(&mut first).await;
        assert_eq!(*rig.echo.resets.lock().unwrap(), 0, "the device has not been reset");
        // Both at once: the reset of the device ends both.
        driver.write(0x16, &1u16.to_le_bytes());
        driver.write(0x3a, &1u16.to_le_bytes());
        driver.reset().await;
        assert_eq!(*rig.echo.resets.lock().unwrap(), 1);
        rig.virtio.quiesced().await;
    });
}

#[test]
fn a_queue_is_reset_by_drivers_that_have_agreed_to_it_only() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        assert!(driver.negotiate(features::COMMON & !features::RING_RESET));
        driver.use_vectors(3);
        let mut queue = driver.set_up_queue(0, 16, true);
        driver.driver_ok();
        driver.write(0x3a, &1u16.to_le_bytes());
        assert_eq!((driver.read16(0x3a), driver.read16(0x1c)), (0, 1));
        round_trip(&mut queue).await;
        driver.reset().await;

        // Before DRIVER_OK, and queues that are not enabled or do not exist.
        assert!(driver.negotiate(features::COMMON));
        driver.set_up_queue(0, 16, true);
        for (queue, size) in [(0u16, 64), (1, 8), (700, 0)] {
            driver.write(0x16, &queue.to_le_bytes());
            driver.write(0x3a, &1u16.to_le_bytes());
            assert_eq!((driver.read16(0x3a), driver.read16(0x1c)), (0, 0));
            assert_eq!(driver.read16(0x18), size);
        }
        rig.virtio.shutdown().await;
    });
}

#[test]
fn odd_register_accesses_change_nothing() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let driver = &rig.driver;
        driver.set_status(ACKNOWLEDGE);
        let before: [u8; 8] = rig.machine.read(driver.address(driver.common) + 0x10);
        driver.write(0x14, &[0, 0]);
        driver.write(0x14, &[0; 4]);
        driver.write(0x15, &[0xff]);
        driver.write(0x12, &[0xff; 2]);
        driver.write(0x3c, &[0xff; 4]);
        driver.write(0xffc, &[0xff; 4]);
        let after: [u8; 8] = rig.machine.read(driver.address(driver.common) + 0x10);
        assert_eq!(before, after);
        // The holes of the BAR read as zero.
        for offset in [0x3c, 0x40, 0xff8, 0x1001, 0x3000] {
            let hole: [u8; 4] = rig.machine.read(driver.address(driver.common) + offset);
            assert_eq!(hole, [0; 4], "{offset:#x}");
        }
    });
}

#[test]
fn impossible_devices_are_refused() {
    on_reactors(1, |reactors| async move {
        let machine = TestMachine::new();
        for sizes in [vec![], vec![3], vec![64, 0], vec![1; 2000]] {
            let echo = Arc::new(Echo { sizes, ..Echo::default() });
            let result = function(&machine, &echo, &reactors);
            assert!(matches!(result, Err(VirtioPciError::Queues(_))));
        }
        let echo = Arc::new(Echo { sizes: vec![8], ..Echo::default() });
        let result = VirtioPci::new(
            "echo0",
            echo,
            Arc::clone(&machine.ram),
            Arc::clone(&machine.platform) as _,
            Vec::new(),
        );
        let error = result.err().unwrap();
        assert_eq!(error.to_string(), "echo0: a virtio device needs one core context at least");
    });
}
