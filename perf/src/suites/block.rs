//! Disks: the embedded guest keeps a fixed number of requests in flight, on both VMMs; beside bare system calls.

mod guest;

use self::guest::{Report, parse};
use crate::case::{Bench, Case, Side};
use crate::lab::Lab;
use crate::limit::kvm::{self, Notice};
use crate::limit::uring::{self, BLOCK, Bare, Op};
use crate::samples::{Measured, Samples};
use crate::vmm::{Setup, Vmm};
use crate::{Error, host};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::time::Duration;

const SUITE: &str = "block";
/// How long both poll before they sleep, where they do: QEMU's default.
const POLL_NS: u32 = 32_768;
/// How long a measurement takes.
const TIME: Duration = Duration::from_secs(1);
const FILE_MIB: u64 = 256;
/// Requests that the guest makes before those it times.
const WARM_UP: u64 = 200;

/// What is behind the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Null,
    Cached,
    Direct,
    /// An image in qcow2 of the same data, through the page cache.
    Qcow2,
}

/// One load.
#[derive(Clone, Copy, Debug)]
struct Load {
    store: Store,
    op: Op,
    depth: u32,
    /// Whether the guest sleeps until an interrupt; else it looks at the used ring all the time.
    interrupts: bool,
    /// Whether the VMM polls before it sleeps.
    host_polls: bool,
    queues: u32,
    /// Whether what a request costs is shown as well.
    costs: bool,
}

impl Load {
    fn new(store: Store, op: Op, depth: u32, interrupts: bool) -> Self {
        Self { store, op, depth, interrupts, host_polls: false, queues: 1, costs: false }
    }

    fn name(&self) -> String {
        let store = match self.store {
            Store::Null => "null",
            Store::Cached => "cached file",
            Store::Direct => "O_DIRECT file",
            Store::Qcow2 => "cached qcow2",
        };
        let guest = if self.interrupts { "irq" } else { "poll" };
        let polls = if self.host_polls { ", VMM polls" } else { "" };
        let queues =
            if self.queues > 1 { format!(", {} queues", self.queues) } else { String::new() };
        format!("{store} {} QD {} {guest}{polls}{queues}", self.word(), self.depth)
    }

    fn word(&self) -> &'static str {
        match self.op {
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
        }
    }

    /// What is typed on the guest's console.
    fn command(&self, time: Duration) -> String {
        let guest = if self.interrupts { "irq" } else { "poll" };
        let op = match self.op {
            Op::Read => "",
            Op::Write => " write",
            Op::Flush => " flush",
        };
        let (depth, queues, ms) = (self.depth, self.queues, time.as_millis());
        format!("bench qd={depth} queues={queues} ms={ms} {guest}{op} hist\r")
    }

    fn cases(&self) -> Vec<Case> {
        let name = self.name();
        let mut latency = Case::time(SUITE, name.clone(), "us");
        let mut frugal =
            Case::more(SUITE, format!("{name}, per CPU second"), "IOPS per CPU", "1/s");
        if self.depth == 1 && self.op != Op::Flush {
            latency = latency.goal(Side::Peer, 0.7);
        } else if self.depth > 1 && self.interrupts {
            // A guest that looks at the ring all the time uses a CPU whatever the VMM does.
            frugal = frugal.goal(Side::Peer, 1.5);
        }
        let iops = Case::more(SUITE, format!("{name}, IOPS"), "IOPS", "1/s");
        let outside = format!("{name}, CPU time outside the guest");
        let outside = Case::less(SUITE, outside, "CPU time", "us each");
        let mut cases = vec![latency, iops, frugal, outside];
        if self.depth == 1 && self.queues == 1 {
            let case = Case::time(SUITE, format!("{name}, above the bare limit"), "us");
            cases.push(case.goal(Side::Limit, 1.3));
        }
        if self.costs {
            for what in ["doorbells", "interrupts", "enters", "SQEs", "wake-ups"] {
                cases.push(Case::less(SUITE, format!("{name}, {what} a request"), what, "each"));
            }
        }
        cases
    }
}

fn loads() -> Vec<Load> {
    let mut loads = Vec::new();
    for store in [Store::Null, Store::Cached, Store::Direct] {
        for (depth, interrupts) in [(1, false), (1, true), (32, false), (32, true)] {
            let load = Load::new(store, Op::Read, depth, interrupts);
            loads.push(Load { costs: store == Store::Cached && interrupts, ..load });
        }
    }
    for (depth, interrupts) in [(1, false), (32, true)] {
        loads.push(Load::new(Store::Qcow2, Op::Read, depth, interrupts));
    }
    for store in [Store::Cached, Store::Direct, Store::Qcow2] {
        loads.push(Load::new(store, Op::Write, 1, false));
        loads.push(Load::new(store, Op::Write, 32, true));
    }
    loads.push(Load::new(Store::Cached, Op::Flush, 1, false));
    for (store, depth) in [(Store::Null, 1), (Store::Cached, 1), (Store::Cached, 32)] {
        let load = Load::new(store, Op::Read, depth, false);
        loads.push(Load { host_polls: true, ..load });
    }
    for store in [Store::Null, Store::Cached] {
        let load = Load::new(store, Op::Read, 32, true);
        loads.push(Load { queues: 2, ..load });
    }
    loads
}

pub(super) fn benches() -> Vec<Bench> {
    let bench = |load: Load| {
        Bench::new(load.cases(), move |lab, side| match side {
            Side::Limit => limit(lab, load),
            _ => measure(lab, side, load),
        })
    };
    loads().into_iter().map(bench).collect()
}

fn time(lab: &Lab) -> Duration {
    if lab.is_quick() { TIME / 10 } else { TIME }
}

fn file_mib(lab: &Lab) -> u64 {
    if lab.is_quick() { FILE_MIB / 8 } else { FILE_MIB }
}

/// The image, filled and on the disk; made at the first call.
fn image(lab: &Lab) -> Result<std::path::PathBuf, Error> {
    let path = lab.dir().join("disk.raw");
    if path.exists() {
        return Ok(path);
    }
    let fail = |e| Error::io("disk.raw", e);
    let file = File::create(&path).map_err(fail)?;
    let chunk: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for mib in 0..file_mib(lab) {
        file.write_all_at(&chunk, mib << 20).map_err(fail)?;
    }
    file.sync_all().map_err(fail)?;
    Ok(path)
}

/// The same data in an image of qcow2; made at the first call.
fn qcow2(lab: &Lab) -> Result<std::path::PathBuf, Error> {
    let (raw, path) = (image(lab)?, lab.dir().join("disk.qcow2"));
    if path.exists() {
        return Ok(path);
    }
    let program = lab.program(Side::Ours).ok_or_else(|| Error::unexpected("no ringvisor"))?;
    let mut convert = Command::new(program);
    convert.args(["img", "convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&path);
    let status = convert.status().map_err(|e| Error::io("ringvisor img convert", e))?;
    if !status.success() {
        return Err(Error::unexpected(format!("ringvisor img convert: {status}")));
    }
    Ok(path)
}

/// The same machine on both sides, with the best settings of each.
fn setup(lab: &Lab, side: Side, load: Load) -> Result<Setup, Error> {
    let poll = if load.host_polls { POLL_NS } else { 0 };
    let node = match load.store {
        Store::Null => "null-co,node-name=d,size=1073741824".to_owned(),
        Store::Cached | Store::Direct => {
            let direct = if load.store == Store::Direct { "on" } else { "off" };
            let path = image(lab)?;
            let path = path.display();
            format!("file,node-name=d,filename={path},aio=io_uring,cache.direct={direct}")
        }
        Store::Qcow2 => {
            let path = qcow2(lab)?;
            let path = path.display();
            format!("qcow2,node-name=d,file.driver=file,file.filename={path},file.aio=io_uring")
        }
    };
    let cpus = lab.cpus();
    let mut setup = Setup::new(cpus).args(["-blockdev", &node]).kernel(lab.guest(), "");
    if side == Side::Ours {
        // A queue is served by a core context; two queues by two.
        let first = cpus.len().saturating_sub(load.queues as usize);
        let cores: Vec<String> = cpus[first..].iter().map(ToString::to_string).collect();
        setup = setup.args(["-reactor", &format!("cores={},poll-max-ns={poll}", cores.join(":"))]);
    }
    let mut device = serde_json::json!({
        "driver": "virtio-blk-pci", "drive": "d", "disable-legacy": "on", "num-queues": load.queues,
    });
    let mut names = Vec::new();
    for n in 0..load.queues {
        let object = match side {
            Side::Peer => format!("iothread,id=io{n},poll-max-ns={poll}"),
            _ => format!("iothread,id=io{n}"),
        };
        setup = setup.args(["-object", &object]);
        names.push(serde_json::json!({"iothread": format!("io{n}")}));
    }
    if load.queues == 1 {
        device["iothread"] = "io0".into();
    } else {
        device["iothread-vq-mapping"] = names.into();
    }
    Ok(setup.args(["-device", &device.to_string()]))
}

fn measure(lab: &Lab, side: Side, load: Load) -> Result<Vec<Measured>, Error> {
    let cpus = lab.cpus();
    let mut vmm = setup(lab, side, load)?.start(lab, side)?;
    vmm.wait_console("guest> ")?;
    if load.queues == 1 && cpus.len() > 1 {
        vmm.separate(cpus[0], cpus[cpus.len() - 1])?;
    }
    let before = Counters::read(&mut vmm, side)?;
    vmm.type_in(&load.command(time(lab)))?;
    // The measurement is over when its line begins.
    vmm.wait_console("\nbench: ")?;
    let [all, vcpus] = cpu_seconds(&mut vmm)?;
    let cpu = [all - before.cpu[0], vcpus - before.cpu[1]];
    let text = vmm.wait_console("hist: end")?;
    let after = Counters::read(&mut vmm, side)?;
    vmm.quit()?;
    let report = parse(&text)?;
    Ok(measured(load, &report, cpu, after.since(&before)))
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn measured(
    load: Load,
    report: &Report,
    [all, vcpus]: [f64; 2],
    costs: Option<[f64; 3]>,
) -> Vec<Measured> {
    let count = (report.samples.count() + WARM_UP) as f64;
    let times = Measured::Times(report.samples.clone());
    let figures = [report.iops, count / all.max(1e-6), (all - vcpus).max(0.0) * 1e6 / count];
    let mut measured = vec![times.clone()];
    measured.extend(figures.map(Measured::Value));
    if load.depth == 1 && load.queues == 1 {
        measured.push(times);
    }
    if load.costs {
        measured.push(Measured::Value(report.doorbells));
        measured.push(Measured::Value(report.interrupts));
        match costs {
            Some(costs) => measured.extend(costs.map(|cost| Measured::Value(cost / count))),
            None => measured.extend(vec![Measured::cannot("QEMU does not count them"); 3]),
        }
    }
    measured
}

/// CPU seconds of a VMM so far: of all its threads, and of those of its vCPUs.
fn cpu_seconds(vmm: &mut Vmm) -> Result<[f64; 2], Error> {
    let (threads, pid) = (vmm.vcpu_threads()?, vmm.pid());
    let vcpus = threads.into_iter().map(|thread| host::thread_seconds(pid, thread));
    Ok([host::cpu_seconds(pid)?, vcpus.sum::<Result<f64, Error>>()?])
}

/// What a VMM has used so far.
struct Counters {
    cpu: [f64; 2],
    /// Of the core contexts: enters, SQEs, wake-ups received. Only ringvisor tells.
    reactors: Option<[f64; 3]>,
}

impl Counters {
    fn read(vmm: &mut Vmm, side: Side) -> Result<Self, Error> {
        let cpu = cpu_seconds(vmm)?;
        if side != Side::Ours {
            return Ok(Self { cpu, reactors: None });
        }
        let reply = vmm.qmp().call("query-reactors", Value::Null)?;
        let mut sums = [0.0; 3];
        for reactor in reply.as_array().into_iter().flatten().filter(|r| r.get("cpu").is_some()) {
            for (sum, name) in sums.iter_mut().zip(["enters", "sqes", "wakeups-received"]) {
                *sum += reactor[name].as_f64().unwrap_or(0.0);
            }
        }
        Ok(Self { cpu, reactors: Some(sums) })
    }

    fn since(&self, before: &Self) -> Option<[f64; 3]> {
        let (after, before) = (self.reactors?, before.reactors?);
        Some([after[0] - before[0], after[1] - before[1], after[2] - before[2]])
    }
}

/// One request in flight: the smallest VMM on the same file. More: a bare ring on it.
fn limit(lab: &Lab, load: Load) -> Result<Vec<Measured>, Error> {
    let cpus = lab.cpus();
    let pair = [cpus[0], cpus[cpus.len() - 1]];
    // A second queue has no counterpart there.
    if load.queues > 1 {
        return Ok(Vec::new());
    }
    let notice = if load.interrupts { Notice::Interrupt } else { Notice::Word };
    if load.store == Store::Null {
        if load.depth > 1 {
            return Ok(Vec::new());
        }
        let samples = kvm::requests(lab.scaled(5000), pair, notice, None)?;
        return Ok(with_bare_limit(samples));
    }
    let direct = if load.store == Store::Direct { libc::O_DIRECT } else { 0 };
    let path = image(lab)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(path);
    let file = file.map_err(|e| Error::io("disk.raw", e))?;
    let blocks = (file_mib(lab) << 20) / BLOCK as u64;
    let mut bare = Bare::new(&file, blocks, load.depth as usize)?;
    if load.depth == 1 {
        let full = if load.op == Op::Flush { 500 } else { 5000 };
        let samples = kvm::requests(lab.scaled(full), pair, notice, Some((&mut bare, load.op)))?;
        return Ok(with_bare_limit(samples));
    }
    host::bind_thread(0, &pair[1..])?;
    let found = uring::load(&mut bare, load.op, time(lab))?;
    let figures = [found.iops, 1.0 / found.cpu.max(1e-9), found.cpu * 1e6];
    let mut measured = vec![Measured::Times(found.samples)];
    measured.extend(figures.map(Measured::Value));
    Ok(measured)
}

/// The limit of one request in flight is a time: the other figures of [`Load::cases`] it has not.
fn with_bare_limit(samples: Samples) -> Vec<Measured> {
    let mut measured = vec![Measured::Value(f64::NAN); 5];
    measured[0] = Measured::Times(samples.clone());
    measured[4] = Measured::Times(samples);
    measured
}
