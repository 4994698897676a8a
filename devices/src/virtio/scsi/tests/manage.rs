//! Task management.

use super::*;
use crate::virtio::scsi::request::encoded;

const ABORT_TASK: u32 = 0;
const ABORT_TASK_SET: u32 = 1;
const CLEAR_ACA: u32 = 2;
const CLEAR_TASK_SET: u32 = 3;
const I_T_NEXUS_RESET: u32 = 4;
const LOGICAL_UNIT_RESET: u32 = 5;
const QUERY_TASK: u32 = 6;
const QUERY_TASK_SET: u32 = 7;

const COMPLETE: u8 = 0;
const SUCCEEDED: u8 = 10;

/// Two units whose requests end when the test says so, on two request queues.
fn held(reactors: &Reactors) -> (Rig, Arc<Held>, Arc<Held>) {
    let options = ScsiOptions { num_queues: 2, ..ScsiOptions::default() };
    let mut rig = Rig::new(reactors, options);
    let (one, disk) = hold_disk(MIB);
    rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
    let (two, disk) = hold_disk(MIB);
    rig.scsi.plug(B, unit(Kind::Disk, Some(disk))).unwrap();
    rig.start(USUAL, 4, 64);
    (rig, one, two)
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn one_task_is_found_and_aborted() {
    on_reactors(2, |reactors| async move {
        let (mut rig, one, _two) = held(&reactors);
        rig.power_on(A).await;
        let id = rig.next_id;
        let first = rig.offer(encoded(A), &READ, Data::In(512));
        let second = rig.offer(encoded(A), &READ, Data::In(512));
        until(|| one.in_flight() == 2).await;
        assert_eq!(rig.tmf(QUERY_TASK, A, id).await, SUCCEEDED);
        assert_eq!(rig.tmf(QUERY_TASK, A, id + 2).await, COMPLETE, "no such task");
        assert_eq!(rig.tmf(QUERY_TASK_SET, A, 0).await, SUCCEEDED);
        assert_eq!(rig.tmf(QUERY_TASK_SET, B, 0).await, COMPLETE);
        assert_eq!(rig.tmf(ABORT_TASK, A, id + 2).await, COMPLETE);
        let tmf = rig.offer_tmf(ABORT_TASK, A, id);
        // Not answered before the task is.
        assert_eq!(rig.tmf(QUERY_TASK, A, id).await, SUCCEEDED);
        assert_eq!(rig.read(tmf, 1), [0xee]);
        one.end_all(Ok(()));
        assert_eq!(rig.queues[REQUESTS].wait_used(2).await.len(), 2);
        rig.queues[0].wait_used(1).await;
        assert_eq!(rig.read(tmf, 1), [COMPLETE]);
        rig.answer(first, Data::None, 108).responds(2);
        rig.answer(second, Data::None, 108).good();
        assert!(!one.aborted(), "the other one was left alone");
        rig.virtio.shutdown().await;
    });
}

#[test]
fn all_tasks_of_a_unit_end_and_no_others() {
    on_reactors(2, |reactors| async move {
        let (mut rig, one, two) = held(&reactors);
        rig.power_on(A).await;
        rig.power_on(B).await;
        for (function, response, told) in [
            (ABORT_TASK_SET, 2, None),
            (CLEAR_TASK_SET, 2, None),
            (LOGICAL_UNIT_RESET, 4, Some(Sense::new(6, 0x29, 3))),
            (I_T_NEXUS_RESET, 4, Some(Sense::new(6, 0x29, 7))),
        ] {
            let mut requests = Vec::new();
            for n in 0..6 {
                let queue = REQUESTS + n % 2;
                requests.push(rig.offer_on(queue, encoded(A), &READ, Data::In(512)));
            }
            let other = rig.offer_on(REQUESTS, encoded(B), &READ, Data::In(512));
            until(|| one.in_flight() == 6 && two.in_flight() == 1).await;
            let before = one.aborts();
            let tmf = rig.offer_tmf(function, A, 0);
            until(|| one.aborts() == before + 2).await;
            // What comes meanwhile goes to a new handle.
            let later = rig.offer_on(REQUESTS + 1, encoded(A), &READ, Data::In(512));
            until(|| one.in_flight() == 7).await;
            one.end_all(Err(libc::ECANCELED));
            rig.queues[0].wait_used(1).await;
            assert_eq!(rig.read(tmf, 1), [COMPLETE]);
            until(|| rig.queues[REQUESTS + 1].used_idx() % 4 == 0).await;
            let mut ended = rig.queues[REQUESTS].wait_used(3).await.len();
            ended += rig.queues[REQUESTS + 1].wait_used(4).await.len();
            assert_eq!(ended, 7);
            for at in requests {
                rig.answer(at, Data::None, 108).responds(response);
            }
            let later = rig.answer(later, Data::None, 108);
            assert_eq!(later.response, 0, "not one of them: {later:?}");
            assert_eq!(two.in_flight(), 1);
            two.end_all(Ok(()));
            assert_eq!(rig.queues[REQUESTS].wait_used(1).await.len(), 1);
            rig.answer(other, Data::None, 108).good();
            if let Some(sense) = told {
                rig.run(A, &[0x00], Data::None).await.fails_with(sense);
            }
            rig.run(A, &[0x00], Data::None).await.good();
        }
        rig.virtio.shutdown().await;
    });
}

#[test]
fn functions_name_what_there_is() {
    on_reactors(2, |reactors| async move {
        let (mut rig, _one, _two) = held(&reactors);
        let no_target = Address { target: 200, lun: 0 };
        let no_unit = Address { target: 3, lun: 0 };
        for function in 0..8 {
            assert_eq!(rig.tmf(function, no_target, 0).await, 3, "BAD TARGET");
            let expected = if function == I_T_NEXUS_RESET { COMPLETE } else { 12 };
            assert_eq!(rig.tmf(function, no_unit, 0).await, expected, "INCORRECT LUN");
        }
        for function in [CLEAR_ACA, 8, 99, u32::MAX] {
            assert_eq!(rig.tmf(function, A, 0).await, 11, "REJECTED");
        }
        // Notifications: none is ever sent.
        for kind in [1u32, 2] {
            for (address, response) in [(A, 0), (no_unit, 12), (no_target, 3)] {
                let mut request = kind.to_le_bytes().to_vec();
                request.extend(encoded(address));
                request.extend(0x7eu32.to_le_bytes());
                let at = rig.offer_control(&request, 5);
                let used = rig.queues[0].wait_used(1).await;
                assert_eq!(used[0].len, 5);
                assert_eq!(rig.read(at, 5), [0, 0, 0, 0, response]);
            }
        }
        let at = rig.offer_control(&77u32.to_le_bytes(), 1);
        assert_eq!(rig.queues[0].wait_used(1).await[0].len, 0, "unknown");
        assert_eq!(rig.read(at, 1), [0xee]);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn a_command_made_available_before_an_abort_is_not_carried_out_after_it() {
    on_reactors(1, |reactors| async move {
        let (mut rig, one, _two) = held(&reactors);
        rig.power_on(A).await;
        for _ in 0..200 {
            // No turn of the core lies between the two.
            let at = rig.offer(encoded(A), &READ, Data::In(512));
            let tmf = rig.offer_tmf(ABORT_TASK_SET, A, 0);
            while rig.read(tmf, 1) == [0xee] {
                one.end_all(Ok(()));
                reactor::yield_now().await;
            }
            let response = rig.read(at.0 + At::ANSWER + 11, 1)[0];
            assert!(response == 2 || response == 0, "not answered before the function: {response}");
            rig.queues[0].wait_used(1).await;
            rig.queues[REQUESTS].wait_used(1).await;
        }
        rig.virtio.shutdown().await;
    });
}

#[test]
fn aborts_race_with_real_requests() {
    on_reactors(2, |reactors| async move {
        let disk = scratch(16 * MIB).await.unwrap();
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        for round in 0..300u32 {
            let data = pattern(8192, round as u8);
            let id = rig.next_id;
            let mut writes = Vec::new();
            for n in 0..4 {
                let cdb = cdb10(0x2a, 0, 64 * n, 16);
                writes.push(rig.offer(encoded(A), &cdb, Data::Out(&data)));
            }
            let function =
                [ABORT_TASK, ABORT_TASK_SET, QUERY_TASK, LOGICAL_UNIT_RESET][round as usize % 4];
            let response = rig.tmf(function, A, id + 2).await;
            assert!(response == COMPLETE || response == SUCCEEDED, "{response}");
            assert_eq!(rig.queues[REQUESTS].wait_used(4).await.len(), 4);
            let mut attention = function == LOGICAL_UNIT_RESET;
            for (n, at) in writes.into_iter().enumerate() {
                let answer = rig.answer(at, Data::None, 108);
                if answer.sense == Some(Sense::new(6, 0x29, 3)) {
                    attention = false;
                } else if answer.response == 0 {
                    let read = cdb10(0x28, 0, 64 * n as u32, 16);
                    let mut answer = rig.run(A, &read, Data::In(8192)).await;
                    if std::mem::take(&mut attention) {
                        answer.fails_with(Sense::new(6, 0x29, 3));
                        answer = rig.run(A, &read, Data::In(8192)).await;
                    }
                    assert_eq!(answer.good(), data);
                } else {
                    assert!([2, 4].contains(&answer.response), "{answer:?}");
                }
            }
            if attention {
                rig.run(A, &[0x00], Data::None).await.fails_with(Sense::new(6, 0x29, 3));
            }
        }
        rig.virtio.shutdown().await;
    });
}
