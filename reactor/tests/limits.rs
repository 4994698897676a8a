//! Ending operations early, with their buffers: linked timeouts and cancellers.

mod common;

use common::{pair, poll_once, with};
use reactor::io::{Canceller, cancellable, within};
use reactor::{hop, io, sleep, yield_now};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn operation_out_of_time_gives_its_buffer_back() {
    with(|_| async {
        let (end, start) = pair();
        let begun = Instant::now();
        let (result, buffer) = within(SHORT, io::recv(&start, vec![7; 100])).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(buffer, [7; 100]);
        assert!(begun.elapsed() >= SHORT);
        // Nothing is left behind that would take the data.
        io::send_all(&end, b"data".to_vec()).await.0.unwrap();
        let (result, buffer) = within(LONG, io::recv(&start, buffer)).await;
        assert_eq!(&buffer[..result.unwrap()], b"data");
    });
}

#[test]
fn limit_is_for_all_operations_together() {
    with(|_| async {
        let (end, start) = pair();
        let begun = Instant::now();
        // More than a socket's buffer holds.
        let (result, _) = within(SHORT, io::send_all(&end, vec![1; 8 << 20])).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
        drop(start);
        // The earliest of nested limits counts.
        let (_end, start) = pair();
        let nested = within(LONG, within(SHORT, within(LONG, io::recv(&start, vec![0]))));
        assert_eq!(nested.await.0.unwrap_err().kind(), ErrorKind::TimedOut);
        // No time left: nothing is submitted.
        let none = within(Duration::ZERO, io::recv(&start, vec![0]));
        assert_eq!(none.await.0.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn many_limits_on_a_ring_of_four_entries() {
    let mut config = common::config();
    config.ring_entries = 4;
    let root = |reactors: reactor::Reactors| async move {
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                reactors.core(n).spawn("limited", async move {
                    let (end, start) = pair();
                    for round in 0..10 {
                        if round % 2 == 0 {
                            io::send_all(&end, vec![1]).await.0.unwrap();
                            let (result, _) = within(LONG, io::recv(&start, vec![0])).await;
                            assert_eq!(result.unwrap(), 1);
                        } else {
                            let limit = Duration::from_micros(100);
                            let (result, _) = within(limit, io::recv(&start, vec![0])).await;
                            assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    };
    reactor::run(config, root).unwrap();
}

#[test]
fn limit_dropped_with_its_operation_does_no_harm() {
    with(|_| async {
        let (end, start) = pair();
        for _ in 0..100 {
            let mut limited = Box::pin(within(SHORT, io::recv(&start, vec![0; 8])));
            assert!(poll_once(&mut limited).await.is_pending());
        }
        sleep(SHORT * 2).await;
        io::send_all(&end, b"late".to_vec()).await.0.unwrap();
        let (result, buffer) = io::recv(&start, vec![0; 8]).await;
        assert_eq!(&buffer[..result.unwrap()], b"late");
    });
}

#[test]
fn cancelled_operation_gives_its_buffer_back() {
    with(|reactors| async move {
        let canceller = Canceller::new();
        let tasks: Vec<_> = reactors
            .all()
            .iter()
            .map(|context| {
                let canceller = canceller.clone();
                context.spawn("waits", async move {
                    let (_end, start) = pair();
                    let two = futures_util::future::join(
                        io::recv(&start, vec![1; 10]),
                        io::poll(&start, libc::POLLIN as u32),
                    );
                    let ((result, buffer), polled) = cancellable(&canceller, two).await;
                    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                    assert_eq!(polled.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                    assert_eq!(buffer, [1; 10]);
                    // Once cancelled, nothing is submitted any more.
                    let (result, _) = cancellable(&canceller, io::recv(&start, vec![0])).await;
                    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                })
            })
            .collect();
        for context in reactors.all() {
            context.spawn("fence", yield_now()).await.unwrap();
        }
        assert!(!canceller.is_cancelled());
        canceller.cancel();
        assert!(canceller.is_cancelled());
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn cancelling_what_has_ended_does_nothing() {
    with(|reactors| async move {
        let canceller = Canceller::new();
        let (end, start) = pair();
        io::send_all(&end, b"x".to_vec()).await.0.unwrap();
        let (result, _) = cancellable(&canceller, io::recv(&start, vec![0])).await;
        assert_eq!(result.unwrap(), 1);
        // Dropped in flight, and in another context.
        {
            let mut dropped = Box::pin(cancellable(&canceller, io::recv(&start, vec![0])));
            assert!(poll_once(&mut dropped).await.is_pending());
            hop(reactors.core(0)).await;
        }
        canceller.cancel();
        hop(reactors.main()).await;
        io::send_all(&end, b"y".to_vec()).await.0.unwrap();
        let (result, _) = io::recv(&start, vec![0]).await;
        assert_eq!(result.unwrap(), 1);
    });
}
