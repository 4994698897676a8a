//! Disks that come and go: blockdev-add, device_add, device_del, DEVICE_DELETED, blockdev-del; each step and the cycle.

use super::Spot;
use super::qmp::Load;
use crate::case::{Bench, Case, Side};
use crate::lab::{Lab, Placement};
use crate::limit::echo::Echo;
use crate::qmp::{Qmp, request};
use crate::samples::{Measured, Samples, try_sample};
use crate::vmm::{Setup, Vmm};
use crate::{Error, host};
use serde_json::{Value, json};
use std::time::Instant;

const SUITE: &str = "hotplug";
const STEPS: [&str; 6] = [
    "cycle",
    "blockdev-add",
    "device_add",
    "device_del",
    "device_del to DEVICE_DELETED",
    "blockdev-del",
];
/// Commands and events of a cycle, for the limit.
const MESSAGES: usize = 4;

/// What goes on beside the cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing(Spot),
    GuestIo,
    Exits,
    BusyMonitors,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing(spot) => spot.name(),
            Self::GuestIo => "guest I/O",
            Self::Exits => "a vCPU that makes exits (RCU sections)",
            Self::BusyMonitors => "8 busy monitors",
        }
    }

    /// What the guest is told to do, where it runs.
    fn guest(self) -> Option<&'static str> {
        match self {
            Self::Nothing(_) | Self::BusyMonitors => None,
            Self::GuestIo => Some("bench qd=32 irq secs=600\r"),
            Self::Exits => Some("pio 100000000\r"),
        }
    }

    fn place(self, lab: &Lab) -> Placement {
        match self {
            Self::Nothing(spot) => spot.place(lab),
            _ => lab.any_cpu(),
        }
    }

    /// Cycles of a full round: the peer's last longer.
    fn cycles(self, side: Side) -> u32 {
        match (self, side) {
            (Self::BusyMonitors, Side::Peer) => 20,
            (Self::BusyMonitors, _) => 200,
            (_, Side::Peer) => 50,
            _ => 500,
        }
    }
}

pub(super) fn benches() -> Vec<Bench> {
    let beside = Spot::BOTH.map(Beside::Nothing).into_iter();
    let all = beside.chain([Beside::GuestIo, Beside::Exits, Beside::BusyMonitors]);
    let mut benches: Vec<Bench> = all.map(scsi).collect();
    benches.extend([refused(), virtio_blk()]);
    benches
}

fn scsi(beside: Beside) -> Bench {
    let named = |step: &str| format!("scsi-hd {step}, {}", beside.name());
    let mut cases: Vec<Case> =
        STEPS.iter().map(|step| Case::time(SUITE, named(step), "us")).collect();
    let worst = Case::time(SUITE, named("cycle"), "us").at("p99");
    if beside == Beside::BusyMonitors {
        cases.push(worst.goal(Side::Peer, 0.02));
    } else {
        cases[0] = cases[0].clone().goal(Side::Peer, 0.02);
        cases.push(worst);
    }
    Bench::new(cases, move |lab, side| {
        let place = beside.place(lab);
        if side == Side::Limit {
            return bare_messages(lab, &place);
        }
        let mut setup = Setup::new(&place.server).args([
            "-object",
            "iothread,id=io",
            "-device",
            "virtio-scsi-pci,id=s,iothread=io",
        ]);
        if beside.guest().is_some() {
            setup = setup
                .args(["-blockdev", "null-co,node-name=g,size=1073741824"])
                .args(["-device", "virtio-blk-pci,drive=g,disable-legacy=on"])
                .kernel(lab.guest(), "");
        }
        let count = if beside == Beside::BusyMonitors { 9 } else { 1 };
        let mut vmm = setup.monitors(count).start(lab, side)?;
        if let Some(command) = beside.guest() {
            vmm.wait_console("guest> ")?;
            vmm.type_in(command)?;
            vmm.wait_console("\n")?;
        }
        let load = Load::start(vmm.take_others(), &[b"query-block", b"query-qmp-schema"]);
        host::bind_thread(0, &place.client)?;
        let disk =
            json!({"driver": "scsi-hd", "id": "h", "drive": "n", "bus": "s.0", "scsi-id": 1});
        let steps = cycles(vmm.qmp(), &disk, lab.scaled(beside.cycles(side)))?;
        load.stop()?;
        end(vmm, beside.guest().is_some())?;
        Ok(with_cycle_again(steps))
    })
}

/// A guest that is busy need not be asked.
fn end(vmm: Vmm, busy: bool) -> Result<(), Error> {
    if busy {
        drop(vmm);
        Ok(())
    } else {
        vmm.quit()
    }
}

/// The steps, and the cycle once more for its other quantile.
fn with_cycle_again(steps: [Samples; 6]) -> Vec<Measured> {
    let mut measured: Vec<Measured> = steps.into_iter().map(Measured::Times).collect();
    measured.extend(measured.first().cloned());
    measured
}

/// Times of each of [`STEPS`].
fn cycles(qmp: &mut Qmp, device: &Value, count: u32) -> Result<[Samples; 6], Error> {
    let node = json!({"driver": "null-co", "node-name": "n", "size": 1_073_741_824u64});
    let requests = [
        request("blockdev-add", node),
        request("device_add", device.clone()),
        request("device_del", json!({"id": "h"})),
        request("blockdev-del", json!({"node-name": "n"})),
    ];
    let mut steps: [Samples; 6] = std::array::from_fn(|_| Samples::new());
    for n in 0..count + count / 10 {
        let mut times = [Instant::now(); 6];
        for (index, request) in requests[..3].iter().enumerate() {
            qmp.exchange(request)?;
            times[index + 1] = Instant::now();
        }
        qmp.wait_deleted("h")?;
        times[4] = Instant::now();
        qmp.exchange(&requests[3])?;
        times[5] = Instant::now();
        if n >= count / 10 {
            steps[0].add(times[5] - times[0]);
            for (index, step) in steps.iter_mut().enumerate().skip(1) {
                step.add(times[index] - times[index - 1]);
            }
        }
    }
    Ok(steps)
}

/// The cycle's messages and nothing behind them.
fn bare_messages(lab: &Lab, place: &Placement) -> Result<Vec<Measured>, Error> {
    let mut echo = Echo::start(place)?;
    host::bind_thread(0, &place.client)?;
    let line = request("blockdev-del", json!({"node-name": "n"}));
    let cycle = || (0..MESSAGES).try_for_each(|_| echo.exchange(&line, 1));
    let samples = try_sample(lab.scaled(500), cycle)?;
    echo.stop()?;
    Ok(vec![Measured::Times(samples)])
}

/// A device_add that fails.
fn refused() -> Bench {
    let case = Case::time(SUITE, "device_add that fails, one CPU", "us").goal(Side::Peer, 0.02);
    Bench::new(vec![case], |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let place = lab.one_cpu();
        let setup = Setup::new(&place.server).args(["-device", "virtio-scsi-pci,id=s"]);
        let mut vmm = setup.start(lab, side)?;
        host::bind_thread(0, &place.client)?;
        let disk = json!({"driver": "scsi-hd", "id": "h", "drive": "absent", "bus": "s.0"});
        let bytes = request("device_add", disk);
        let count = if side == Side::Peer { 50 } else { 500 };
        let samples = try_sample(lab.scaled(count), || vmm.qmp().exchange_refused(&bytes))?;
        vmm.quit()?;
        Ok(vec![Measured::Times(samples)])
    })
}

/// A PCI disk, which the guest has to let go.
fn virtio_blk() -> Bench {
    let named = |step: &str| format!("virtio-blk-pci {step}, idle guest");
    let mut cases: Vec<Case> =
        STEPS.iter().map(|step| Case::time(SUITE, named(step), "us")).collect();
    cases.push(Case::time(SUITE, named("cycle"), "us").at("p99"));
    Bench::new(cases, move |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let place = lab.any_cpu();
        let setup = Setup::new(&place.server).kernel(lab.guest(), "");
        let mut vmm = setup.args(["-object", "iothread,id=io"]).start(lab, side)?;
        vmm.wait_console("guest> ")?;
        let disk = json!({"driver": "virtio-blk-pci", "id": "h", "drive": "n", "iothread": "io"});
        let count = if side == Side::Peer { 50 } else { 200 };
        let steps = cycles(vmm.qmp(), &disk, lab.scaled(count))?;
        vmm.quit()?;
        Ok(with_cycle_again(steps))
    })
}
