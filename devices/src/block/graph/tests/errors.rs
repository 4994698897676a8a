//! Requests that fail: what devices are told, and that those that stop the machine are not lost.

use super::super::{
    Backend, BlockGraph, ErrorAction, ErrorPolicy, IoError, IoStatus, Kind, OnError,
};
use super::requests::{done, in_main, on_core, ram, submit};
use super::{add, device, image};
use crate::block::{Disk, DiskQueue, Done, Request};
use reactor::Reactors;
use serde_json::{Value, json};
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use vm_memory::{Bytes, GuestAddress};

const READ: Request = Request::Read { offset: 512 };
const WRITE: Request = Request::Write { offset: 512, stable: false };
const ZEROES: Request =
    Request::WriteZeroes { offset: 512, len: 1024, unmap: false, stable: false };
const DISCARD: Request = Request::Discard { offset: 512, len: 1024 };

/// A back end over a node with these rules, and over `below`.
async fn faulty(
    graph: &Arc<BlockGraph>,
    reactors: &Reactors,
    below: Value,
    rules: Value,
    policy: ErrorPolicy,
) -> Arc<Backend> {
    let shared = Arc::clone(graph);
    in_main(reactors, async move {
        let node = json!({"driver": "blkdebug", "node-name": "b", "image": below,
            "inject-error": rules});
        add(&shared, node).await.unwrap();
        let backend = shared.claim("b", &device("d0")).unwrap().unwrap();
        backend.set_on_error(policy);
        backend
    })
    .await
}

fn null() -> Value {
    json!({"driver": "null-co", "size": 1 << 20})
}

fn file(path: &Path) -> Value {
    json!({"driver": "file", "filename": path.to_str().unwrap()})
}

fn policy(write: OnError, read: OnError) -> ErrorPolicy {
    ErrorPolicy { write: Some(write), read: Some(read) }
}

/// What was told of.
fn listen(graph: &BlockGraph) -> Arc<Mutex<Vec<IoError>>> {
    let told: Arc<Mutex<Vec<IoError>>> = Arc::default();
    let listener = Arc::clone(&told);
    graph.on_io_error(Box::new(move |error| listener.lock().unwrap().push(error.clone())));
    told
}

/// Has a queue do all it can; what is finished.
async fn settled(queue: &mut dyn DiskQueue) -> Option<Done> {
    poll_fn(|cx| match queue.poll_done(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn every_errno_of_every_operation_is_reported() {
    const ERRNOS: std::ops::Range<i32> = 1..134;
    on_core(|graph, reactors| async move {
        let kinds = ["read", "write", "flush", "discard", "write-zeroes"];
        let rule = |iotype: &str, errno: i32| json!({"event": "none", "iotype": iotype, "errno": errno, "once": true});
        let rules: Vec<Value> =
            kinds.iter().flat_map(|kind| ERRNOS.map(|errno| rule(kind, errno))).collect();
        let backend = faulty(&graph, &reactors, null(), rules.into(), ErrorPolicy::REPORT).await;
        let told = listen(&graph);
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        for request in [READ, WRITE, Request::Flush, DISCARD, ZEROES] {
            for errno in ERRNOS {
                submit(&mut *queue, 1, request, 0, 1024);
                assert_eq!(done(&mut *queue).await, Done { slot: 1, result: Err(errno) });
            }
            submit(&mut *queue, 1, request, 0, 1024);
            assert_eq!(done(&mut *queue).await.result, Ok(()), "the rules are used up");
        }
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 5 * ERRNOS.len());
        assert!(told.iter().all(|error| error.action == ErrorAction::Report));
        assert_eq!(told.iter().filter(|error| error.read).count(), ERRNOS.len());
        assert_eq!(backend.stats().kind(Kind::Read).failed, ERRNOS.len() as u64);
        assert_eq!((backend.stats().in_flight, backend.io_status()), (0, None));
    });
}

#[test]
fn errors_that_are_ignored_are_told_of() {
    on_core(|graph, reactors| async move {
        let rules = json!([{"event": "none", "errno": 5}]);
        let on_error = policy(OnError::Ignore, OnError::Report);
        let backend = faulty(&graph, &reactors, null(), rules, on_error).await;
        let told = listen(&graph);
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        submit(&mut *queue, 0, WRITE, 0, 512);
        assert_eq!(done(&mut *queue).await.result, Ok(()));
        submit(&mut *queue, 0, READ, 0, 512);
        assert_eq!(done(&mut *queue).await.result, Err(libc::EIO));
        let told = told.lock().unwrap().clone();
        let path = "/machine/peripheral/d0/virtio-backend".to_owned();
        let first = IoError {
            path,
            drive: String::new(),
            node: Some("b".to_owned()),
            read: false,
            action: ErrorAction::Ignore,
            no_space: None,
            errno: libc::EIO,
        };
        let second = IoError { read: true, action: ErrorAction::Report, ..first.clone() };
        assert_eq!(told, [first, second]);
    });
}

/// Nothing is lost of what has failed, of data in particular: a torn write is written whole.
#[test]
fn requests_that_stop_the_machine_are_done_when_it_goes_on() {
    on_core(|graph, reactors| async move {
        let image = image(1 << 20);
        let rules = json!([
            {"event": "none", "iotype": "write", "errno": 28, "once": true, "x-bytes": 1024},
            {"event": "none", "iotype": "read", "errno": 28, "once": true},
            {"event": "none", "iotype": "flush", "errno": 28, "once": true},
        ]);
        let backend = faulty(&graph, &reactors, file(&image), rules, ErrorPolicy::default()).await;
        backend.set_on_error(policy(OnError::Enospc, OnError::Stop));
        let ram = ram();
        let mut queue = backend.queue(&ram, 4, 4).unwrap();
        ram.write_slice(&[7; 4096], GuestAddress(0)).unwrap();
        submit(&mut *queue, 2, WRITE, 0, 4096);
        submit(&mut *queue, 0, Request::Flush, 0, 0);
        while backend.stats().in_flight > 0 {
            assert_eq!(settled(&mut *queue).await, None);
            reactor::yield_now().await;
        }
        submit(&mut *queue, 3, Request::Read { offset: 0 }, 8192, 512);
        while backend.stats().in_flight > 0 {
            assert_eq!(settled(&mut *queue).await, None);
            reactor::yield_now().await;
        }
        assert_eq!((queue.in_flight(), backend.io_status()), (3, Some(IoStatus::NoSpace)));
        assert!(graph.has_stopped());
        let written = std::fs::read(&*image).unwrap();
        assert_eq!((written[512 + 1023], written[512 + 1024]), (7, 0), "torn");
        // A drain does not wait for them.
        let shared = Arc::clone(&graph);
        in_main(&reactors, async move { drop(shared.drain_all().await) }).await;
        graph.retry_failed();
        assert!(!graph.has_stopped());
        let mut slots = Vec::new();
        while queue.in_flight() > 0 {
            let Done { slot, result } = done(&mut *queue).await;
            assert_eq!(result, Ok(()));
            slots.push(slot);
        }
        slots.sort_unstable();
        assert_eq!((slots, backend.io_status()), (vec![0, 2, 3], Some(IoStatus::Ok)));
        let written = std::fs::read(&*image).unwrap();
        assert!(written[512..512 + 4096].iter().all(|byte| *byte == 7));
        assert_eq!(written[512 + 4096], 0);
        assert_eq!(backend.stats().kind(Kind::Write).failed, 0);
    });
}

/// One that fails again stops the machine again.
#[test]
fn requests_are_retried_as_often_as_it_takes() {
    on_core(|graph, reactors| async move {
        let rules = json!([
            {"event": "none", "errno": 5, "once": true}, {"event": "none", "errno": 5, "once": true}
        ]);
        let on_error = policy(OnError::Stop, OnError::Stop);
        let backend = faulty(&graph, &reactors, null(), rules, on_error).await;
        let told = listen(&graph);
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        submit(&mut *queue, 0, DISCARD, 0, 0);
        for n in 1..=2 {
            assert_eq!(settled(&mut *queue).await, None);
            assert_eq!(told.lock().unwrap().len(), n);
            assert_eq!(backend.io_status(), Some(IoStatus::Failed));
            graph.retry_failed();
        }
        assert_eq!(done(&mut *queue).await, Done { slot: 0, result: Ok(()) });
    });
}

#[test]
fn a_queue_that_is_reset_gives_up_what_has_stopped_the_machine() {
    on_core(|graph, reactors| async move {
        let rules = json!([{"event": "none", "errno": 5}]);
        let on_error = policy(OnError::Stop, OnError::Stop);
        let backend = faulty(&graph, &reactors, null(), rules, on_error).await;
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        submit(&mut *queue, 3, READ, 0, 512);
        assert_eq!(settled(&mut *queue).await, None);
        queue.abort();
        let given_up = done(&mut *queue).await;
        assert_eq!(given_up, Done { slot: 3, result: Err(libc::ECANCELED) });
        assert_eq!(queue.in_flight(), 0);
    });
}

#[test]
fn rules_wait_for_their_events_and_hold_for_what_they_name() {
    on_core(|graph, reactors| async move {
        let rules = json!([
            {"event": "flush_to_disk", "iotype": "read", "errno": 6, "sector": 3},
            {"event": "pwritev_zero", "iotype": "write", "errno": 7},
        ]);
        let backend = faulty(&graph, &reactors, null(), rules, ErrorPolicy::REPORT).await;
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        let ok = Ok(());
        for (request, expected) in [
            (Request::Read { offset: 1024 }, ok),
            (Request::Flush, ok),
            (Request::Read { offset: 1024 }, Err(6)),
            (Request::Read { offset: 2048 }, ok),
            (WRITE, ok),
            (ZEROES, ok),
            (WRITE, Err(7)),
            (Request::Read { offset: 1024 }, ok),
        ] {
            submit(&mut *queue, 0, request, 0, 1024);
            assert_eq!(done(&mut *queue).await.result, expected, "{request:?}");
        }
    });
}

#[test]
fn rules_are_checked() {
    on_core(|graph, reactors| async move {
        in_main(&reactors, async move {
            for (rules, expected) in [
                (json!(7), "Invalid parameter type for 'inject-error', expected: array"),
                (json!([7]), "Invalid parameter type for 'inject-error[0]', expected: object"),
                (json!([{"errno": 5}]), "Parameter 'inject-error.0.event' is missing"),
                (json!([{"event": "nope"}]), "Parameter 'event' does not accept value 'nope'"),
                (
                    json!([{"event": "none", "errno": 4096}]),
                    "Parameter 'errno' expects a number from 0 to 4095",
                ),
            ] {
                let below = null();
                let node = json!({"driver": "blkdebug", "node-name": "b", "image": below,
                    "inject-error": rules});
                let Value::Object(map) = node else { panic!() };
                let parsed = super::Options::parse(map).map_err(|error| error.text);
                assert_eq!(parsed.map(drop), Err(expected.to_owned()));
            }
            drop(graph);
        })
        .await;
    });
}
