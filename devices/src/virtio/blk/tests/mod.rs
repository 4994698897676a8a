//! The block device through its BAR, on real reactors and real files.

mod batch;
mod data;
mod life;
mod malformed;
mod random;
mod rehome;

use super::{BlkOptions, VirtioBlk, config};
use crate::block::{Disk, FileOptions, open_file};
use crate::virtio::features;
use crate::virtio::testing::{
    Buffer, Driver, Port, TestMachine, Used, hold_disk, on_reactors, until,
};
use reactor::Reactors;
use std::path::Path;
use std::sync::Arc;
use tempfile::NamedTempFile;
use virtio_bindings::virtio_blk as vb;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// A status that no device writes.
const UNTOUCHED: u8 = 0xee;

/// All that a driver of the time accepts.
const USUAL: u64 = features::COMMON | config::FLUSH | config::CONFIG_WCE | 1 << vb::VIRTIO_BLK_F_MQ;

/// An image file of `bytes` bytes, each sector filled with its number.
fn image(bytes: u64) -> NamedTempFile {
    use std::io::Write;
    let mut file = NamedTempFile::new().unwrap();
    let content: Vec<u8> =
        (0..bytes / 8).flat_map(|word| (word / 64 * 0x1_0001 + 1).to_le_bytes()).collect();
    file.write_all(&content).unwrap();
    file
}

/// Bytes `range` of the file at `path`.
fn file_bytes(path: &Path, offset: u64, len: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len];
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// A block device in a machine, and its driver.
struct Rig {
    port: Port,
    blk: Arc<VirtioBlk>,
    disk: Arc<dyn Disk>,
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

impl Rig {
    /// A device on the image at `path`, its driver not started.
    async fn new(reactors: &Reactors, path: &Path, options: BlkOptions) -> Self {
        let disk = open_file(FileOptions::new(path)).await.unwrap();
        Self::on(reactors, disk, options)
    }

    fn on(reactors: &Reactors, disk: Arc<dyn Disk>, options: BlkOptions) -> Self {
        Self::in_machine(&TestMachine::new(), reactors, disk, options)
    }

    fn in_machine(
        machine: &Arc<TestMachine>,
        reactors: &Reactors,
        disk: Arc<dyn Disk>,
        options: BlkOptions,
    ) -> Self {
        let blk = Arc::new(VirtioBlk::new(Arc::clone(&disk), options).unwrap());
        let port = Port::new(machine, reactors, Arc::clone(&blk) as _);
        Self { port, blk, disk }
    }

    /// Room for one request: header, status byte, then data.
    fn request(&self, kind: u32, sector: u64, data: u64) -> RequestAt {
        let at = RequestAt { address: self.machine.alloc(4096 + data) };
        self.write(at.header(), &header(kind, sector));
        self.write(at.status(), &[UNTOUCHED]);
        at
    }

    fn status(&self, request: RequestAt) -> u8 {
        self.read(request.status(), 1)[0]
    }

    /// Runs one request on queue 0 and returns its status byte and used length.
    async fn run(&mut self, request: RequestAt, buffers: &[Buffer]) -> (u8, u32) {
        let head = self.queues[0].add(buffers);
        self.queues[0].kick();
        let used = self.queues[0].wait_used(1).await;
        let [Used { head: used_head, len }] = used[..] else { panic!("one at a time: {used:?}") };
        assert_eq!(used_head, head);
        (self.status(request), len)
    }

    async fn read_sectors(&mut self, sector: u64, len: u32) -> (u8, Vec<u8>) {
        let request = self.request(vb::VIRTIO_BLK_T_IN, sector, len.into());
        let buffers = request.read_buffers(len);
        let (status, _) = self.run(request, &buffers).await;
        (status, self.read(request.data(), len as usize))
    }

    async fn write_sectors(&mut self, sector: u64, data: &[u8]) -> u8 {
        let request = self.request(vb::VIRTIO_BLK_T_OUT, sector, data.len() as u64);
        self.write(request.data(), data);
        let buffers = request.write_buffers(data.len() as u32);
        self.run(request, &buffers).await.0
    }

    async fn flush(&mut self) -> u8 {
        let request = self.request(vb::VIRTIO_BLK_T_FLUSH, 0, 0);
        let buffers = request.bare_buffers();
        self.run(request, &buffers).await.0
    }

    async fn close(self) {
        self.virtio.shutdown().await;
        self.disk.close().await.unwrap();
    }
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// Where a request lies in guest memory.
#[derive(Clone, Copy, Debug)]
struct RequestAt {
    address: u64,
}

impl RequestAt {
    fn header(self) -> u64 {
        self.address
    }

    fn status(self) -> u64 {
        self.address + 16
    }

    fn data(self) -> u64 {
        self.address + 4096
    }

    fn bare_buffers(self) -> Vec<Buffer> {
        vec![Buffer::readable(self.header(), 16), Buffer::writable(self.status(), 1)]
    }

    fn read_buffers(self, len: u32) -> Vec<Buffer> {
        let mut buffers = self.bare_buffers();
        buffers.insert(1, Buffer::writable(self.data(), len));
        buffers
    }

    fn write_buffers(self, len: u32) -> Vec<Buffer> {
        let mut buffers = self.bare_buffers();
        buffers.insert(1, Buffer::readable(self.data(), len));
        buffers
    }
}
