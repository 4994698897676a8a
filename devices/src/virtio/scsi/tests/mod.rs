//! The SCSI host device through its BAR, on real reactors: a test initiator.

mod commands;
mod life;
mod manage;
mod random;
mod sizes;

use super::{ScsiOptions, VirtioScsi, config};
use crate::block::{Disk, FileOptions, open_file, scratch};
use crate::scsi::{Address, Kind, LogicalUnit, Sense, UnitOptions};
use crate::virtio::features;
use crate::virtio::testing::{Buffer, Held, Port, TestMachine, hold_disk, on_reactors, until};
use reactor::Reactors;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const USUAL: u64 = config::OFFERED;
/// The first request queue.
const REQUESTS: usize = 2;
const A: Address = Address { target: 0, lun: 0 };
const B: Address = Address { target: 3, lun: 300 };

/// A command's data.
#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    None,
    In(u32),
    Out(&'a [u8]),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    response: u8,
    status: u8,
    sense: Option<Sense>,
    residual: u32,
    /// Bytes written from the answer's start on, as the used ring says.
    len: u32,
    data: Vec<u8>,
}

impl Answer {
    /// GOOD, all data moved.
    #[track_caller]
    fn good(self) -> Vec<u8> {
        assert_eq!((self.response, self.status, &self.sense), (0, 0, &None), "{self:?}");
        self.data
    }

    #[track_caller]
    fn fails_with(self, sense: Sense) {
        assert_eq!((self.response, self.status, self.sense), (0, 2, Some(sense)));
    }

    #[track_caller]
    fn responds(self, response: u8) {
        assert_eq!((self.response, self.status, self.sense), (response, 0, None));
    }
}

/// Where a request lies: header, answer and, from the next page on, data.
#[derive(Clone, Copy, Debug)]
struct At(u64);

impl At {
    const ANSWER: u64 = 512;
    const DATA: u64 = 4096;
}

/// A SCSI host device in a machine, and its driver.
struct Rig {
    port: Port,
    scsi: Arc<VirtioScsi>,
    next_id: u64,
}

impl std::ops::Deref for Rig {
    type Target = Port;

    fn deref(&self) -> &Port {
        &self.port
    }
}

impl std::ops::DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Port {
        &mut self.port
    }
}

fn unit(kind: Kind, disk: Option<Arc<dyn Disk>>) -> Arc<LogicalUnit> {
    let options = UnitOptions { serial: Some("serial-1".to_owned()), ..UnitOptions::new(kind) };
    Arc::new(LogicalUnit::new(options, disk).unwrap())
}

impl Rig {
    fn new(reactors: &Reactors, options: ScsiOptions) -> Self {
        Self::in_machine(&TestMachine::new(), reactors, options)
    }

    fn in_machine(machine: &Arc<TestMachine>, reactors: &Reactors, options: ScsiOptions) -> Self {
        let scsi = Arc::new(VirtioScsi::new(options).unwrap());
        let port = Port::new(machine, reactors, Arc::clone(&scsi) as _);
        Self { port, scsi, next_id: 1 }
    }

    /// A started device with a scratch disk of `bytes` bytes at `A`, its power-on told.
    async fn with_disk(reactors: &Reactors, bytes: u64) -> (Self, Arc<dyn Disk>) {
        let disk = scratch(bytes).await.unwrap();
        let mut rig = Self::new(reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Disk, Some(Arc::clone(&disk)))).unwrap();
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        (rig, disk)
    }

    /// Hears of the power-on of the unit at `address`.
    async fn power_on(&mut self, address: Address) {
        self.run(address, &[0x00], Data::None).await.fails_with(Sense::new(6, 0x29, 0));
    }

    /// Puts a command on the first request queue; returns where it is.
    fn offer(&mut self, lun: [u8; 8], cdb: &[u8], data: Data<'_>) -> At {
        self.offer_on(REQUESTS, lun, cdb, data)
    }

    fn offer_on(&mut self, queue: usize, lun: [u8; 8], cdb: &[u8], data: Data<'_>) -> At {
        let room = match data {
            Data::None => 0,
            Data::In(n) => n,
            Data::Out(bytes) => bytes.len() as u32,
        };
        let at = self.machine.alloc(At::DATA + u64::from(room));
        let mut header = lun.to_vec();
        header.extend(self.next_id.to_le_bytes());
        self.next_id += 1;
        header.extend([0; 3]);
        header.extend(cdb);
        header.resize(51, 0);
        self.write(at, &header);
        self.write(at + At::ANSWER, &[0xee; 108]);
        let mut buffers = vec![Buffer::readable(at, 51), Buffer::writable(at + At::ANSWER, 108)];
        match data {
            Data::None => {}
            Data::In(n) => {
                self.write(at + At::DATA, &vec![0xee; n as usize]);
                buffers.push(Buffer::writable(at + At::DATA, n));
            }
            Data::Out(bytes) => {
                self.write(at + At::DATA, bytes);
                buffers.insert(1, Buffer::readable(at + At::DATA, room));
            }
        }
        self.queues[queue].add(&buffers);
        self.queues[queue].kick();
        At(at)
    }

    /// The answer of a request that has been used.
    fn answer(&self, at: At, data: Data<'_>, len: u32) -> Answer {
        let bytes = self.read(at.0 + At::ANSWER, 108);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let sense = (word(0) > 0).then(|| Sense::new(bytes[14] & 0xf, bytes[24], bytes[25]));
        let room = if let Data::In(n) = data { n as usize } else { 0 };
        Answer {
            response: bytes[11],
            status: bytes[10],
            sense,
            residual: word(4),
            len,
            data: self.read(at.0 + At::DATA, room.min((len as usize).saturating_sub(108))),
        }
    }

    /// Runs one command.
    async fn run(&mut self, address: Address, cdb: &[u8], data: Data<'_>) -> Answer {
        self.run_at(super::request::encoded(address), cdb, data).await
    }

    async fn run_at(&mut self, lun: [u8; 8], cdb: &[u8], data: Data<'_>) -> Answer {
        let at = self.offer(lun, cdb, data);
        let used = self.queues[REQUESTS].wait_used(1).await;
        assert_eq!(used.len(), 1);
        self.answer(at, data, used[0].len)
    }

    async fn read10(&mut self, address: Address, lba: u32, blocks: u16) -> Answer {
        self.run(address, &cdb10(0x28, 0, lba, blocks), Data::In(u32::from(blocks) * 512)).await
    }

    async fn write10(&mut self, address: Address, lba: u32, data: &[u8]) -> Answer {
        let blocks = (data.len() / 512) as u16;
        self.run(address, &cdb10(0x2a, 0, lba, blocks), Data::Out(data)).await
    }

    /// Puts a control request on its queue; returns where the answer will be.
    fn offer_control(&mut self, request: &[u8], answer: u32) -> u64 {
        let at = self.machine.alloc(4096);
        self.write(at, request);
        self.write(at + 512, &[0xee; 8]);
        let request = Buffer::readable(at, request.len() as u32);
        self.queues[0].add(&[request, Buffer::writable(at + 512, answer)]);
        self.queues[0].kick();
        at + 512
    }

    fn offer_tmf(&mut self, function: u32, address: Address, id: u64) -> u64 {
        let mut request = vec![0; 4];
        request.extend(function.to_le_bytes());
        request.extend(super::request::encoded(address));
        request.extend(id.to_le_bytes());
        self.offer_control(&request, 1)
    }

    async fn tmf(&mut self, function: u32, address: Address, id: u64) -> u8 {
        let at = self.offer_tmf(function, address, id);
        self.queues[0].wait_used(1).await;
        self.read(at, 1)[0]
    }

    /// Gives the device `n` buffers for events.
    fn offer_events(&mut self, n: u16) {
        for _ in 0..n {
            let at = self.machine.alloc(4096);
            self.queues[1].add(&[Buffer::writable(at, 16)]);
        }
        self.queues[1].kick();
    }

    /// Waits for an event in a buffer of its own: number, place, reason.
    async fn event(&mut self) -> (u32, [u8; 8], u32) {
        let at = self.machine.alloc(4096);
        self.queues[1].add(&[Buffer::writable(at, 16)]);
        self.queues[1].kick();
        let used = self.queues[1].wait_used(1).await;
        assert_eq!(used[0].len, 16);
        let bytes = self.read(at, 16);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(0), bytes[4..12].try_into().unwrap(), word(12))
    }
}

fn cdb10(code: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [l0, l1, l2, l3] = lba.to_be_bytes();
    let [n0, n1] = blocks.to_be_bytes();
    [code, flags, l0, l1, l2, l3, 0, n0, n1, 0]
}

fn cdb16(code: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (code, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|n| (n / 512 * 7 + n) as u8 ^ seed).collect()
}
