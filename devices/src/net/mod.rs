//! Network back ends: what a network device sends to and receives from.
//!
//! | module | what lives there | which thread runs it |
//! |---|---|---|
//! | [`Netdevs`], [`Netdev`] | the table of back ends by id, and what is attached to each | `main` |
//! | [`NetdevOptions`] | what a back end is told at creation | `main` |
//! | `stream` | Ethernet over a stream socket, 4 bytes of length before each frame | tasks; data on cores |
//! | `dgram` | Ethernet over a datagram socket, one frame each | data on cores |
//! | `tap` | a tap interface of the kernel's, with or without its virtio header | data on cores |
//! | `buffer` | one operation at a time on a buffer of our own | cores |
//!
//! A [`NetBackend`] is the control handle. It hands out [`NetReceiver`]s and [`NetSender`]s, the
//! data handles: one for each device queue, living on that queue's core and never shared. A packet
//! is a `virtio_net_hdr` of [`HEADER`] bytes and a frame, as the driver lays it out: back ends
//! without such a header fill in zeroes and skip it.

mod buffer;
mod dgram;
mod error;
mod options;
mod stream;
mod table;
mod tap;
#[cfg(test)]
mod tests;

pub use error::NetError;
pub use options::{
    DgramOptions, InetAddress, NetdevOptions, SocketAddress, StreamOptions, TapOptions,
};
pub use stream::on_socket;
pub use table::{Made, NetEvent, NetEventSink, NetReactors, Netdev, Netdevs, Network, Nic};

use crate::block::Segments;
use crate::virtio::Ram;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes of the `virtio_net_hdr` before each frame (virtio 1.2, section 5.1.6; the version with
/// `num_buffers`).
pub const HEADER: usize = 12;

/// The largest frame that passes: what 16 bits of length can say, a VLAN tag and an Ethernet header.
pub const FRAME_MAX: usize = 65_536 + 18;

/// What a back end may leave to the driver's side of a packet, besides checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums may be left to the receiver.
    pub checksum: bool,
    /// TCP over IPv4 in segments of up to 64 KiB.
    pub tso4: bool,
    /// TCP over IPv6 likewise.
    pub tso6: bool,
    /// Such segments with ECN.
    pub ecn: bool,
    /// UDP likewise.
    pub ufo: bool,
}

/// Which frames a driver wants, as `query-rx-filter` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RxFilter {
    /// The device.
    pub name: String,
    /// All frames.
    pub promiscuous: bool,
    /// Which group addresses.
    pub multicast: RxState,
    /// Which addresses of single stations.
    pub unicast: RxState,
    /// Which VLANs.
    pub vlan: RxState,
    /// Broadcasts.
    pub broadcast_allowed: bool,
    /// There were more group addresses than are kept.
    pub multicast_overflow: bool,
    /// There were more other addresses than are kept.
    pub unicast_overflow: bool,
    /// The device's own address.
    pub main_mac: String,
    /// The VLANs that pass, the highest first.
    pub vlan_table: Vec<u16>,
    /// The addresses of single stations.
    pub unicast_table: Vec<String>,
    /// The group addresses.
    pub multicast_table: Vec<String>,
}

/// How much of a kind passes a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxState {
    /// What is listed.
    Normal,
    /// Nothing.
    None,
    /// Everything.
    All,
}

/// Whether receiving may go on after `error`: a frame sent before was refused, or the kernel is short
/// of something.
fn passes_by(error: &io::Error) -> bool {
    let passing = [
        libc::ECANCELED,
        libc::EINTR,
        libc::EAGAIN,
        libc::ECONNREFUSED,
        libc::ENETDOWN,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

/// A back end's control handle. Any thread; nothing here waits.
pub trait NetBackend: Send + Sync {
    /// The virtio header means something here: checksums and segmentation can be offloaded.
    fn virtio_header(&self) -> bool {
        false
    }
    /// Queue pairs.
    fn pairs(&self) -> u16 {
        1
    }
    /// A data handle that receives for queue pair `pair`, on the calling context, with up to
    /// `segments` segments in `ram` for a packet.
    fn receiver(
        &self,
        pair: u16,
        ram: &Arc<Ram>,
        segments: usize,
    ) -> io::Result<Box<dyn NetReceiver>>;
    /// A data handle that sends for queue pair `pair`, on the calling context, with `slots` packets
    /// of up to `segments` segments each.
    fn sender(
        &self,
        pair: u16,
        ram: &Arc<Ram>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn NetSender>>;
    /// What the driver takes from now on.
    fn set_offloads(&self, _offloads: Offloads) {}
    /// The driver uses the first `pairs` queue pairs.
    fn set_active_pairs(&self, _pairs: u16) {}
    /// One line about it for a person, as `info network` shows it.
    fn info(&self) -> String;
    /// Lets go of everything. Data handles deliver and send nothing from then on.
    fn close(&self);
}

/// Receives packets for one queue, on one context.
pub trait NetReceiver {
    /// Where the next packet goes; to be changed only while nothing is being received.
    fn buffers(&mut self) -> Segments<'_>;
    /// Starts to receive one packet.
    fn start(&mut self);
    /// Whether a packet is being received.
    fn receiving(&self) -> bool;
    /// The end of what [`start`](Self::start) began: the length of a packet, header included, which
    /// may be more than the buffers hold (the rest is lost then); `None` where there is no packet.
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>>;
    /// Ends receiving as soon as possible; it is still reported.
    fn cancel(&mut self);
}

/// Sends packets of one queue, on one context.
pub trait NetSender {
    /// The packet of an idle slot, header included.
    fn packet(&mut self, slot: usize) -> Segments<'_>;
    /// Sends it. What cannot be sent is lost, as on any network.
    fn submit(&mut self, slot: usize);
    /// The next slot that is idle again.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<usize>;
    /// Slots that are not idle.
    fn in_flight(&self) -> usize;
    /// Ends sending as soon as possible; each slot is still reported.
    fn cancel(&mut self);
}
