//! Idle guests: memory, threads, descriptors, start-up time, CPU time; and memory that comes back.

use crate::case::{Bench, Case, Side};
use crate::lab::Lab;
use crate::samples::{Measured, Samples};
use crate::vmm::{Setup, Vmm};
use crate::{Error, host};
use std::time::{Duration, Instant};

const SUITE: &str = "density";
/// How long guests idle while their CPU time is counted.
const IDLE: Duration = Duration::from_secs(2);
/// What guests use and give back.
const USED_MIB: u32 = 16;
/// As the embedded guest can drive it.
const BALLOON: &str = "virtio-balloon-pci,free-page-reporting=on,disable-legacy=on";
/// Guests with the same in their memory.
const ALIKE: u32 = 4;

pub(super) fn benches() -> Vec<Bench> {
    let alone = guests(1).rounds(5);
    vec![alone, guests(10).rounds(3), guests(100).rounds(2), given_back(), merged().rounds(2)]
}

fn guests(count: u32) -> Bench {
    let s = if count == 1 { "" } else { "s" };
    let named = |what: &str| format!("{what}, {count} guest{s}");
    let mut memory = Case::less(SUITE, named("private memory of each"), "private", "KiB");
    if count == 1 {
        memory = memory.goal(Side::Peer, 0.15);
    }
    let cases = vec![
        memory,
        Case::less(SUITE, named("proportional memory of each"), "PSS", "KiB"),
        Case::less(SUITE, named("threads of each"), "threads", "threads"),
        Case::less(SUITE, named("descriptors of each"), "open", "fds"),
        Case::less(SUITE, named("CPU time of each at idle"), "CPU time", "ms/s"),
        Case::time(SUITE, named("process start to prompt, one after the other"), "ms"),
    ];
    Bench::new(cases, move |lab, side| match side {
        Side::Limit => Ok(Vec::new()),
        // A rough look does not fill the memory.
        _ => measure(lab, side, if count > 10 { lab.scaled(count) } else { count }),
    })
}

fn measure(lab: &Lab, side: Side, count: u32) -> Result<Vec<Measured>, Error> {
    let image = lab.dir().join("idle.raw");
    let file = std::fs::File::create(&image).map_err(|e| Error::io("idle.raw", e))?;
    file.set_len(64 << 20).map_err(|e| Error::io("idle.raw", e))?;
    let drive = format!("file={},format=raw,if=none,id=d,readonly=on", image.display());
    let setup = Setup::new(lab.cpus())
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d"])
        .kernel(lab.guest(), "");
    let mut starts = Samples::new();
    let mut vmms: Vec<Vmm> = Vec::new();
    for _ in 0..count {
        let mut vmm = setup.start(lab, side)?;
        vmm.wait_console("guest> ")?;
        starts.add(vmm.begun.elapsed());
        vmms.push(vmm);
    }
    let idle = if lab.is_quick() { IDLE / 4 } else { IDLE };
    let before = cpu_seconds(&vmms)?;
    let begun = Instant::now();
    std::thread::sleep(idle);
    let used = cpu_seconds(&vmms)? - before;
    let seconds = begun.elapsed().as_secs_f64();
    let mut sum = host::Usage::default();
    for vmm in &vmms {
        let one = host::usage(vmm.pid())?;
        sum.private_kib += one.private_kib;
        sum.pss_kib += one.pss_kib;
        sum.threads += one.threads;
        sum.descriptors += one.descriptors;
    }
    vmms.into_iter().try_for_each(Vmm::quit)?;
    let each = f64::from(count);
    let figures =
        [sum.private_kib, sum.pss_kib, sum.threads, sum.descriptors, used * 1e3 / seconds];
    let mut measured: Vec<Measured> =
        figures.into_iter().map(|figure| Measured::Value(figure / each)).collect();
    measured.push(Measured::Times(starts));
    Ok(measured)
}

/// What a guest has used stays the VMM's until it is given back.
fn given_back() -> Bench {
    let case = |what: &str| {
        let name = format!("private memory after a guest has used {USED_MIB} MiB, {what}");
        Case::less(SUITE, name, "private", "KiB")
    };
    let ways = [
        ("keep", "and kept them"),
        ("", "and reported them free"),
        ("inflate", "now in the balloon"),
    ];
    let cases = ways.map(|(_, what)| case(what)).into();
    let bench = Bench::new(cases, move |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let setup = Setup::new(lab.cpus()).args(["-device", BALLOON]).kernel(lab.guest(), "");
        let mut vmm = setup.start(lab, side)?;
        vmm.wait_console("guest> ")?;
        let mut measured = Vec::new();
        for (way, _) in ways {
            fill(&mut vmm, way)?;
            measured.push(Measured::Value(host::usage(vmm.pid())?.private_kib));
        }
        vmm.quit()?;
        Ok(measured)
    });
    bench.rounds(3)
}

/// Has the guest fill memory and do with it as it is told.
fn fill(vmm: &mut Vmm, way: &str) -> Result<(), Error> {
    vmm.type_in(&format!("balloon mib={USED_MIB} {way}\r"))?;
    let text = vmm.wait_console("guest> ")?;
    let done = text.contains(&format!("balloon: {USED_MIB} MiB used"));
    done.then_some(()).ok_or_else(|| Error::unexpected(format!("the guest said: {text:.300}")))
}

/// Guests whose memory is alike, on a host that looks for such pages (Linux, admin-guide/mm/ksm.rst).
fn merged() -> Bench {
    let name = format!(
        "proportional memory of each, {ALIKE} guests that use the same {USED_MIB} MiB, KSM"
    );
    Bench::new(vec![Case::less(SUITE, name, "PSS", "KiB")], |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let ksm = match host::Ksm::start() {
            Ok(ksm) => ksm,
            Err(error) => return Ok(vec![Measured::cannot(&format!("KSM: {error}"))]),
        };
        let setup = Setup::new(lab.cpus())
            .args(["-object", "memory-backend-ram,id=ram,size=256M,merge=on"])
            .args(["-machine", "memory-backend=ram", "-device", BALLOON])
            .kernel(lab.guest(), "");
        let mut vmms = Vec::new();
        for _ in 0..ALIKE {
            let mut vmm = setup.start(lab, side)?;
            vmm.wait_console("guest> ")?;
            fill(&mut vmm, "keep")?;
            vmms.push(vmm);
        }
        ksm.wait_for_scans(3).map_err(|e| Error::io("KSM", e))?;
        let mut sum = 0.0;
        for vmm in &vmms {
            sum += host::usage(vmm.pid())?.pss_kib;
        }
        vmms.into_iter().try_for_each(Vmm::quit)?;
        Ok(vec![Measured::Value(sum / f64::from(ALIKE))])
    })
}

fn cpu_seconds(vmms: &[Vmm]) -> Result<f64, Error> {
    vmms.iter().map(|vmm| host::cpu_seconds(vmm.pid())).sum()
}
