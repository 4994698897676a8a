use super::*;
use crate::mem::test_memory;

/// The device's side, as much as the tests need.
struct Peer {
    queue: Queue,
    seen: u16,
    used: u16,
}

impl Peer {
    fn available(&mut self) -> Option<u16> {
        let driver = self.queue.driver();
        if driver.load::<u16>(2) == self.seen {
            return None;
        }
        let slot = usize::from(self.seen % self.queue.size());
        self.seen = self.seen.wrapping_add(1);
        Some(driver.load(4 + 2 * slot))
    }

    fn set_avail_event(&self, index: u16) {
        self.queue.device().store(4 + 8 * usize::from(self.queue.size()), index);
    }

    /// Uses a chain; whether the driver wants an interrupt for it.
    fn finish(&mut self, head: u16, len: u32) -> bool {
        let device = self.queue.device();
        let entry = 4 + 8 * usize::from(self.used % self.queue.size());
        device.store(entry, u32::from(head));
        device.store(entry + 4, len);
        let old = self.used;
        self.used = self.used.wrapping_add(1);
        device.store(2, self.used);
        let event = self.queue.driver().load(4 + 2 * usize::from(self.queue.size()));
        passes_event(event, self.used, old)
    }
}

fn pair(size: u16) -> (Queue, Peer) {
    let queue = Queue::new(test_memory::region(Layout::new(size).len), size, true);
    (queue, Peer { queue, seen: 0, used: 0 })
}

#[test]
fn parts_are_aligned_and_do_not_overlap() {
    for size in [1u16, 2, 8, 128, 256, 1024, 32768] {
        let layout = Layout::new(size);
        let entries = usize::from(size);
        assert!(layout.driver >= 16 * entries && layout.driver.is_multiple_of(2));
        assert!(layout.device >= layout.driver + 6 + 2 * entries);
        assert!(layout.device.is_multiple_of(4));
        assert_eq!(layout.len, layout.device + 6 + 8 * entries);
    }
}

#[test]
fn events_are_passed_once_and_across_the_wrap() {
    assert!(passes_event(0, 1, 0));
    assert!(!passes_event(1, 1, 0));
    assert!(!passes_event(0, 2, 1));
    assert!(passes_event(0xffff, 2, 0xfffe));
    assert!(!passes_event(0xfffd, 2, 0xfffe));
    assert!(passes_event(5, 9, 3), "a batch over the event");
}

#[test]
fn chains_go_round_the_rings_many_times() {
    let (mut queue, mut peer) = pair(8);
    for round in 0..70_000u32 {
        let head = (round % 8) as u16;
        queue.add(head);
        peer.set_avail_event(peer.seen);
        assert!(queue.publish(), "round {round}");
        assert_eq!(peer.available(), Some(head));
        assert_eq!(queue.take(), None);
        peer.finish(head, round);
        assert_eq!(queue.take(), Some(Used { head: head.into(), len: round }));
    }
}

#[test]
fn the_doorbell_is_rung_only_when_the_event_is_passed() {
    let (mut queue, peer) = pair(8);
    assert!(!queue.publish(), "nothing added");
    peer.set_avail_event(2);
    queue.add(0);
    queue.add(1);
    assert!(!queue.publish(), "the device polls until the third");
    queue.add(2);
    assert!(queue.publish());
}

#[test]
fn without_event_idx_flags_rule() {
    let mut queue = Queue::new(test_memory::region(Layout::new(4).len), 4, false);
    assert_eq!(queue.driver().load::<u16>(0), NO_INTERRUPT);
    assert!(!queue.arm(1));
    assert_eq!(queue.driver().load::<u16>(0), 0);
    queue.add(0);
    assert!(queue.publish());
    queue.device().store(0, NO_NOTIFY);
    queue.add(1);
    assert!(!queue.publish());
}

#[test]
fn interrupts_come_when_armed_and_not_when_suppressed() {
    let (mut queue, mut peer) = pair(8);
    for head in 0..4 {
        queue.add(head);
    }
    queue.publish();
    queue.suppress();
    assert!(!peer.finish(0, 0));
    assert!(queue.arm(1), "one is there already");
    assert!(queue.take().is_some());
    assert!(!queue.arm(2));
    assert!(!peer.finish(1, 0));
    assert!(peer.finish(2, 0), "the second of two");
    assert!(queue.pending());
}

#[test]
fn suppression_holds_for_65535_entries() {
    let (queue, mut peer) = pair(8);
    queue.suppress();
    assert!((0..65_535).all(|_| !peer.finish(0, 0)));
    assert!(peer.finish(0, 0));
}

#[test]
fn descriptors_are_linked_in_order() {
    let table = test_memory::region(8 * DESCRIPTOR_LEN);
    let mut chain = Chain::new(table, 2);
    chain.push(0x1000, 16, false);
    chain.push(0x2000, 512, true);
    chain.push(0x3000, 1, true);
    let read = |index: usize| {
        let at = index * DESCRIPTOR_LEN;
        (
            table.load::<u64>(at),
            table.load::<u32>(at + 8),
            table.load::<u16>(at + 12),
            table.load::<u16>(at + 14),
        )
    };
    assert_eq!(chain.len(), 3);
    assert_eq!(read(2), (0x1000, 16, flag::NEXT, 3));
    assert_eq!(read(3), (0x2000, 512, flag::NEXT | flag::WRITE, 4));
    assert_eq!(read(4), (0x3000, 1, flag::WRITE, 0));
}
