//! The control queue (section 5.1.6.5).

use super::filter::{MacList, VLANS};
use super::{VirtioNet, config};
use crate::virtio::chain::OneChain;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_net as vn;

const ACK_OK: u8 = vn::VIRTIO_NET_OK as u8;
const ACK_ERR: u8 = vn::VIRTIO_NET_ERR as u8;

/// Bytes of a command that are looked at: two tables of more addresses than anybody keeps.
const COMMAND_MAX: usize = 64 * 1024;

// Classes and commands, as the first two bytes say them.
const RX: u8 = vn::VIRTIO_NET_CTRL_RX as u8;
const MAC: u8 = vn::VIRTIO_NET_CTRL_MAC as u8;
const MAC_TABLE_SET: u8 = vn::VIRTIO_NET_CTRL_MAC_TABLE_SET as u8;
const MAC_ADDR_SET: u8 = vn::VIRTIO_NET_CTRL_MAC_ADDR_SET as u8;
const VLAN: u8 = vn::VIRTIO_NET_CTRL_VLAN as u8;
const VLAN_ADD: u8 = vn::VIRTIO_NET_CTRL_VLAN_ADD as u8;
const VLAN_DEL: u8 = vn::VIRTIO_NET_CTRL_VLAN_DEL as u8;
const ANNOUNCE: u8 = vn::VIRTIO_NET_CTRL_ANNOUNCE as u8;
const ANNOUNCE_ACK: u8 = vn::VIRTIO_NET_CTRL_ANNOUNCE_ACK as u8;
const MQ: u8 = vn::VIRTIO_NET_CTRL_MQ as u8;
const MQ_PAIRS_SET: u8 = vn::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8;
const OFFLOADS: u8 = vn::VIRTIO_NET_CTRL_GUEST_OFFLOADS as u8;
const OFFLOADS_SET: u8 = vn::VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET as u8;

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioNet>,
    chain: OneChain,
    features: u64,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioNet>, setup: &QueueSetup) -> Self {
        let chain = OneChain::new(setup);
        Self { device, chain, features: setup.features }
    }

    /// Does what `command` says; `None` where it cannot be done.
    fn run(&self, command: &[u8]) -> Option<()> {
        let (&[class, command], data) = command.split_first_chunk::<2>()?;
        let needed = match class {
            RX if command <= 1 => config::CTRL_RX,
            RX => config::CTRL_RX_EXTRA,
            MAC if command == MAC_TABLE_SET => config::CTRL_RX,
            MAC => config::CTRL_MAC_ADDR,
            VLAN => config::CTRL_VLAN,
            ANNOUNCE => config::GUEST_ANNOUNCE,
            MQ => config::MQ,
            OFFLOADS => config::CTRL_GUEST_OFFLOADS,
            _ => return None,
        };
        if self.features & needed == 0 {
            return None;
        }
        match (class, command) {
            (RX, mode) => self.set_mode(mode, data),
            (MAC, MAC_TABLE_SET) => self.set_table(data),
            (MAC, MAC_ADDR_SET) => {
                let mac = data.try_into().ok()?;
                self.device.driver_changes_filter(|filter| filter.mac = mac);
                Some(())
            }
            (VLAN, VLAN_ADD | VLAN_DEL) => {
                let id = u16::from_le_bytes(data.try_into().ok()?);
                let pass = command == VLAN_ADD;
                (id < VLANS).then(|| self.device.driver_changes_filter(|f| f.set_vlan(id, pass)))
            }
            (ANNOUNCE, ANNOUNCE_ACK) => {
                self.device.announce.swap(false, Ordering::AcqRel).then_some(())
            }
            (MQ, MQ_PAIRS_SET) => {
                let pairs = u16::from_le_bytes(data.try_into().ok()?);
                let known = (1..=self.device.limits.pairs).contains(&pairs);
                known.then(|| self.device.set_active_pairs(pairs))
            }
            (OFFLOADS, OFFLOADS_SET) => {
                let wanted = u64::from_le_bytes(data.try_into().ok()?);
                // Section 5.1.6.5.6.2: only what was negotiated.
                let known = wanted & !(self.features & config::GUEST_OFFLOADS) == 0;
                known.then(|| self.device.set_offloads(wanted))
            }
            _ => None,
        }
    }

    fn set_mode(&self, mode: u8, data: &[u8]) -> Option<()> {
        let [on] = *data else { return None };
        if u32::from(mode) > vn::VIRTIO_NET_CTRL_RX_NOBCAST {
            return None;
        }
        self.device.driver_changes_filter(|filter| {
            let field = match u32::from(mode) {
                vn::VIRTIO_NET_CTRL_RX_PROMISC => &mut filter.promiscuous,
                vn::VIRTIO_NET_CTRL_RX_ALLMULTI => &mut filter.all_multicast,
                vn::VIRTIO_NET_CTRL_RX_ALLUNI => &mut filter.all_unicast,
                vn::VIRTIO_NET_CTRL_RX_NOMULTI => &mut filter.no_multicast,
                vn::VIRTIO_NET_CTRL_RX_NOUNI => &mut filter.no_unicast,
                _ => &mut filter.no_broadcast,
            };
            *field = on != 0;
        });
        Some(())
    }

    /// Two tables, each a number of addresses and the addresses (section 5.1.6.5.2).
    fn set_table(&self, data: &[u8]) -> Option<()> {
        let (unicast, rest) = split_table(data)?;
        let (multicast, rest) = split_table(rest)?;
        if !rest.is_empty() {
            return None;
        }
        self.device.driver_changes_filter(|filter| {
            filter.unicast = MacList::new(unicast);
            filter.multicast = MacList::new(multicast);
        });
        Some(())
    }

    /// Reads the command of one chain and answers it.
    fn answer(&mut self, readable: u64) -> bool {
        let list = self.chain.list();
        let mut command = vec![0; readable.min(COMMAND_MAX as u64 + 1) as usize];
        list.copy_to(&mut command);
        let done = command.len() <= COMMAND_MAX && self.run(&command).is_some();
        let ack = if done { ACK_OK } else { ACK_ERR };
        self.chain.list().write_at(readable, &[ack]);
        done
    }
}

fn split_table(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = data.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?)
}

impl QueueWork for Worker {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        if found.readable < 2 || found.writable < 1 || found.overflow {
            return Err(ChainFault::Incomplete);
        }
        let done = self.answer(found.readable);
        ring.metrics.request(done);
        ring.queue.push_used(found.head, 1)?;
        Ok(true)
    }
}
