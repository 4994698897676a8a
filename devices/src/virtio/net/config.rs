//! Features and configuration space of the network device (sections 5.1.3 and 5.1.4).

use crate::net::Offloads;
use crate::virtio::features;
use virtio_bindings::virtio_net as vn;

pub(super) const CSUM: u64 = 1 << vn::VIRTIO_NET_F_CSUM;
pub(super) const GUEST_CSUM: u64 = 1 << vn::VIRTIO_NET_F_GUEST_CSUM;
pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << vn::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
pub(super) const MTU: u64 = 1 << vn::VIRTIO_NET_F_MTU;
pub(super) const MAC: u64 = 1 << vn::VIRTIO_NET_F_MAC;
pub(super) const GUEST_TSO4: u64 = 1 << vn::VIRTIO_NET_F_GUEST_TSO4;
pub(super) const GUEST_TSO6: u64 = 1 << vn::VIRTIO_NET_F_GUEST_TSO6;
pub(super) const GUEST_ECN: u64 = 1 << vn::VIRTIO_NET_F_GUEST_ECN;
pub(super) const GUEST_UFO: u64 = 1 << vn::VIRTIO_NET_F_GUEST_UFO;
const HOST_TSO4: u64 = 1 << vn::VIRTIO_NET_F_HOST_TSO4;
const HOST_TSO6: u64 = 1 << vn::VIRTIO_NET_F_HOST_TSO6;
const HOST_ECN: u64 = 1 << vn::VIRTIO_NET_F_HOST_ECN;
const HOST_UFO: u64 = 1 << vn::VIRTIO_NET_F_HOST_UFO;
pub(super) const MRG_RXBUF: u64 = 1 << vn::VIRTIO_NET_F_MRG_RXBUF;
pub(super) const STATUS: u64 = 1 << vn::VIRTIO_NET_F_STATUS;
pub(super) const CTRL_VQ: u64 = 1 << vn::VIRTIO_NET_F_CTRL_VQ;
pub(super) const CTRL_RX: u64 = 1 << vn::VIRTIO_NET_F_CTRL_RX;
pub(super) const CTRL_VLAN: u64 = 1 << vn::VIRTIO_NET_F_CTRL_VLAN;
pub(super) const CTRL_RX_EXTRA: u64 = 1 << vn::VIRTIO_NET_F_CTRL_RX_EXTRA;
pub(super) const GUEST_ANNOUNCE: u64 = 1 << vn::VIRTIO_NET_F_GUEST_ANNOUNCE;
pub(super) const MQ: u64 = 1 << vn::VIRTIO_NET_F_MQ;
pub(super) const CTRL_MAC_ADDR: u64 = 1 << vn::VIRTIO_NET_F_CTRL_MAC_ADDR;

/// What a driver may be handed in a form that it has to finish.
pub(super) const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO;
/// Offered only where the back end passes the virtio header on.
const WITH_HEADER: u64 =
    GUEST_OFFLOADS | CTRL_GUEST_OFFLOADS | CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_UFO;
/// What belongs to the control queue.
const WITH_CONTROL: u64 =
    CTRL_RX | CTRL_VLAN | CTRL_RX_EXTRA | GUEST_ANNOUNCE | MQ | CTRL_MAC_ADDR | CTRL_GUEST_OFFLOADS;
/// Everything that can be switched off.
pub(super) const OPTIONAL: u64 = WITH_HEADER | WITH_CONTROL | MRG_RXBUF | STATUS | CTRL_VQ;

/// The optional features by the names of the properties that switch them.
pub const FEATURES: &[(&str, u64)] = &[
    ("csum", CSUM),
    ("guest_csum", GUEST_CSUM),
    ("guest_tso4", GUEST_TSO4),
    ("guest_tso6", GUEST_TSO6),
    ("guest_ecn", GUEST_ECN),
    ("guest_ufo", GUEST_UFO),
    ("guest_announce", GUEST_ANNOUNCE),
    ("host_tso4", HOST_TSO4),
    ("host_tso6", HOST_TSO6),
    ("host_ecn", HOST_ECN),
    ("host_ufo", HOST_UFO),
    ("mrg_rxbuf", MRG_RXBUF),
    ("status", STATUS),
    ("ctrl_vq", CTRL_VQ),
    ("ctrl_rx", CTRL_RX),
    ("ctrl_vlan", CTRL_VLAN),
    ("ctrl_rx_extra", CTRL_RX_EXTRA),
    ("ctrl_mac_addr", CTRL_MAC_ADDR),
    ("ctrl_guest_offloads", CTRL_GUEST_OFFLOADS),
    ("mq", MQ),
];

/// Status: the cable is plugged.
const LINK_UP: u16 = vn::VIRTIO_NET_S_LINK_UP as u16;
/// Status: the driver shall tell the network where it is.
const ANNOUNCE: u16 = vn::VIRTIO_NET_S_ANNOUNCE as u16;

/// Bytes of the configuration space that have a meaning.
const LEN: usize = 12;

/// What does not change while the device exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) pairs: u16,
    pub(super) mtu: Option<u16>,
    /// The back end passes the virtio header on.
    pub(super) header: bool,
    /// Optional features that are wanted.
    pub(super) wanted: u64,
}

impl Limits {
    pub(super) fn features(&self) -> u64 {
        let mut optional = OPTIONAL & self.wanted;
        if !self.header {
            optional &= !WITH_HEADER;
        }
        if optional & CTRL_VQ == 0 {
            optional &= !WITH_CONTROL;
        }
        if self.pairs == 1 {
            optional &= !MQ;
        }
        let mtu = if self.mtu.is_some() { MTU } else { 0 };
        features::COMMON | MAC | mtu | optional
    }

    /// The configuration space.
    pub(super) fn image(&self, mac: [u8; 6], link: bool, announce: bool) -> [u8; LEN] {
        let mut image = [0; LEN];
        let status = if link { LINK_UP } else { 0 } | if announce { ANNOUNCE } else { 0 };
        image[..6].copy_from_slice(&mac);
        image[6..8].copy_from_slice(&status.to_le_bytes());
        image[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        image[10..].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes());
        image
    }
}

/// The offloads that the bits of `features` stand for.
pub(super) fn offloads(features: u64) -> Offloads {
    Offloads {
        checksum: features & GUEST_CSUM != 0,
        tso4: features & GUEST_TSO4 != 0,
        tso6: features & GUEST_TSO6 != 0,
        ecn: features & GUEST_ECN != 0,
        ufo: features & GUEST_UFO != 0,
    }
}
