//! Which frames a driver wants (sections 5.1.6.5.1 to 5.1.6.5.3).

use super::mac_text;
use crate::net::{RxFilter, RxState};

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// Addresses of one kind that are kept; with more, all of the kind pass.
const TABLE_MAX: usize = 64;
/// VLAN identifiers are 12 bits.
pub(super) const VLANS: u16 = 1 << 12;

const BROADCAST: Mac = [0xff; 6];
/// EtherType of a VLAN tag (IEEE 802.1Q).
const VLAN_TAG: [u8; 2] = [0x81, 0x00];
/// Bytes that are looked at: two addresses, a tag.
pub(super) const HEAD: usize = 16;

/// A list of addresses, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MacList {
    addresses: Vec<Mac>,
    overflow: bool,
}

impl MacList {
    /// The addresses of `bytes`, a whole number of them.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let (addresses, _) = bytes.as_chunks::<6>();
        let overflow = addresses.len() > TABLE_MAX;
        Self { addresses: if overflow { Vec::new() } else { addresses.to_vec() }, overflow }
    }

    fn texts(&self) -> Vec<String> {
        self.addresses.iter().map(|mac| mac_text(*mac)).collect()
    }

    fn has(&self, mac: Mac) -> bool {
        self.overflow || self.addresses.contains(&mac)
    }
}

/// All filters of a device.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) mac: Mac,
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) all_unicast: bool,
    pub(super) no_multicast: bool,
    pub(super) no_unicast: bool,
    pub(super) no_broadcast: bool,
    pub(super) unicast: MacList,
    pub(super) multicast: MacList,
    /// One bit for each identifier; `None`: they are not looked at.
    pub(super) vlans: Option<Box<[u64; VLANS as usize / 64]>>,
}

impl Filter {
    /// What a device does without being told: everything passes.
    pub(super) fn new(mac: Mac) -> Self {
        Self {
            mac,
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: MacList::default(),
            multicast: MacList::default(),
            vlans: None,
        }
    }

    /// Lets frames of VLAN `id` pass, or not.
    pub(super) fn set_vlan(&mut self, id: u16, pass: bool) {
        let vlans = self.vlans.get_or_insert_with(|| Box::new([0; VLANS as usize / 64]));
        let (word, bit) = (usize::from(id / 64), 1 << (id % 64));
        if let Some(word) = vlans.get_mut(word) {
            *word = if pass { *word | bit } else { *word & !bit };
        }
    }

    /// What passes, of the device `name`.
    pub(super) fn describe(&self, name: &str) -> RxFilter {
        let state = |none, all| match (none, all) {
            (true, _) => RxState::None,
            (false, true) => RxState::All,
            (false, false) => RxState::Normal,
        };
        let passes = |id: &u16| {
            let word = |vlans: &[u64]| vlans.get(usize::from(id / 64)).copied().unwrap_or(0);
            self.vlans.as_ref().is_none_or(|vlans| word(&vlans[..]) & 1 << (id % 64) != 0)
        };
        RxFilter {
            name: name.to_owned(),
            promiscuous: self.promiscuous,
            multicast: state(self.no_multicast, self.all_multicast),
            unicast: state(self.no_unicast, self.all_unicast),
            vlan: state(false, self.vlans.is_none()),
            broadcast_allowed: !self.no_broadcast,
            multicast_overflow: self.multicast.overflow,
            unicast_overflow: self.unicast.overflow,
            main_mac: mac_text(self.mac),
            vlan_table: (0..VLANS).rev().filter(passes).collect(),
            unicast_table: self.unicast.texts(),
            multicast_table: self.multicast.texts(),
        }
    }

    /// Whether a frame that begins with `head` (with zeroes where it is shorter) passes.
    pub(super) fn passes(&self, head: &[u8; HEAD]) -> bool {
        if self.promiscuous {
            return true;
        }
        if let (Some(vlans), true) = (&self.vlans, head[12..14] == VLAN_TAG) {
            let id = u16::from_be_bytes([head[14], head[15]]) & (VLANS - 1);
            if vlans[usize::from(id / 64)] & 1 << (id % 64) == 0 {
                return false;
            }
        }
        let Some(&to) = head.first_chunk::<6>() else { return false };
        if to == BROADCAST {
            !self.no_broadcast
        } else if to[0] & 1 != 0 {
            !self.no_multicast && (self.all_multicast || self.multicast.has(to))
        } else {
            !self.no_unicast && (self.all_unicast || to == self.mac || self.unicast.has(to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    const OTHER: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
    const GROUP: Mac = [0x01, 0, 0x5e, 0, 0, 1];

    fn head(to: Mac, tag: Option<u16>) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..6].copy_from_slice(&to);
        if let Some(id) = tag {
            head[12..14].copy_from_slice(&VLAN_TAG);
            head[14..].copy_from_slice(&id.to_be_bytes());
        }
        head
    }

    fn passing(filter: &Filter) -> [bool; 4] {
        [OWN, OTHER, GROUP, BROADCAST].map(|to| filter.passes(&head(to, None)))
    }

    #[test]
    fn each_mode_does_what_it_says() {
        let mut filter = Filter::new(OWN);
        assert_eq!(passing(&filter), [true; 4]);
        filter.promiscuous = false;
        assert_eq!(passing(&filter), [true, false, false, true]);
        filter.unicast = MacList::new(&OTHER);
        filter.multicast = MacList::new(&GROUP);
        assert_eq!(passing(&filter), [true; 4]);
        (filter.unicast, filter.multicast) = (MacList::default(), MacList::default());
        (filter.all_unicast, filter.all_multicast) = (true, true);
        assert_eq!(passing(&filter), [true; 4]);
        filter.no_unicast = true;
        assert_eq!(passing(&filter), [false, false, true, true]);
        filter.no_multicast = true;
        assert_eq!(passing(&filter), [false, false, false, true]);
        filter.no_broadcast = true;
        assert_eq!(passing(&filter), [false; 4]);
    }

    #[test]
    fn vlans_count_once_they_are_filtered() {
        let mut filter = Filter::new(OWN);
        filter.promiscuous = false;
        assert!(filter.passes(&head(OWN, Some(5))));
        filter.set_vlan(5, true);
        filter.set_vlan(4095, true);
        filter.set_vlan(4095, false);
        assert!(filter.passes(&head(OWN, Some(5 | 3 << 13))), "the priority is not looked at");
        assert!(!filter.passes(&head(OWN, Some(6))));
        assert!(!filter.passes(&head(OWN, Some(4095))));
        assert!(filter.passes(&head(OWN, None)));
    }

    #[test]
    fn a_filter_is_told_as_it_is() {
        let mut filter = Filter::new(OWN);
        let told = filter.describe("net0");
        assert_eq!((told.promiscuous, told.vlan), (true, RxState::All));
        assert_eq!(told.vlan_table.len(), usize::from(VLANS));
        assert_eq!(told.main_mac, "52:54:00:12:34:56");
        filter.set_vlan(5, true);
        filter.set_vlan(64, true);
        filter.unicast = MacList::new(&OTHER);
        (filter.no_unicast, filter.all_multicast) = (true, true);
        let told = filter.describe("net0");
        assert_eq!((told.vlan, told.vlan_table), (RxState::Normal, vec![64, 5]));
        assert_eq!((told.unicast, told.multicast), (RxState::None, RxState::All));
        assert_eq!(told.unicast_table, ["52:54:00:12:34:57"]);
    }

    #[test]
    fn a_table_that_overflows_lets_all_of_its_kind_pass() {
        let mut filter = Filter::new(OWN);
        filter.promiscuous = false;
        filter.unicast = MacList::new(&[2; 6 * (TABLE_MAX + 1)]);
        assert_eq!(passing(&filter), [true, true, false, true]);
        filter.unicast = MacList::new(&[2; 6 * TABLE_MAX]);
        assert_eq!(passing(&filter), [true, false, false, true]);
    }
}
