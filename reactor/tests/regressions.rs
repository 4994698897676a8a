//! Faults that the runtime once had, each with the smallest program that showed it.

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use reactor::sync::{Mutex, Notify};
use reactor::{
    Config, Context, Fd, Reactors, StartError, TurnHook, hop, io, run, sleep, yield_now,
};
use std::future::{Future, poll_fn};
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

fn config() -> Config {
    let cpus = reactor::allowed_cpus().unwrap();
    Config::with_cores((0..2).map(|n| cpus[n % cpus.len()]).collect())
}

/// Runs `f` on a thread of its own and fails when it takes longer than anything sane.
fn ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _gone = sender.send(f());
    });
    match receiver.recv_timeout(Duration::from_secs(20)) {
        Ok(value) => {
            thread.join().unwrap();
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("it panicked"),
    }
}

fn with<F, Fut, T>(root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    ends(|| run(config(), root).unwrap())
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("on purpose, in a destructor");
    }
}

/// The destructor ran outside of the task's own catch and took the loop with it; the other contexts
/// then waited for its thread for ever.
#[test]
fn panic_in_a_destructor_of_a_task_leaves_its_context_running() {
    with(|reactors| async move {
        let core = reactors.core(0).clone();
        let ended = core.spawn("captures", {
            let value = PanicsWhenDropped;
            async move {
                let _value = &value;
            }
        });
        let _either = ended.await;
        let cancelled = core.spawn("cancelled", async {
            let _value = PanicsWhenDropped;
            std::future::pending::<()>().await;
        });
        core.spawn("fence", yield_now()).await.unwrap();
        cancelled.cancel();
        let _either = cancelled.await;
        core.spawn("output", async { PanicsWhenDropped }).detach();
        assert_eq!(core.spawn("next", async { 7 }).await, Ok(7));
    });
}

/// A task left behind with such a destructor stopped the tear-down half-way.
#[test]
fn panic_in_a_destructor_during_tear_down_does_not_hang() {
    with(|reactors| async move {
        for context in reactors.all() {
            context
                .spawn("left over", async {
                    let _value = PanicsWhenDropped;
                    std::future::pending::<()>().await;
                })
                .detach();
            context.spawn("fence", yield_now()).await.unwrap();
        }
    });
}

/// A panic outside of any task ended one thread, and the others waited for it at the gate.
#[test]
fn panic_in_a_hook_ends_the_runtime_with_an_error() {
    struct Panics(AtomicBool);
    impl TurnHook for Panics {
        fn turn_begin(&self) {
            let core = reactor::current().name() == "core-0";
            assert!(!(core && self.0.load(Ordering::SeqCst)), "on purpose, in a hook");
        }
        fn turn_end(&self) {}
    }
    let hook = Arc::new(Panics(AtomicBool::new(false)));
    let armed = Arc::clone(&hook);
    let mut config = config();
    config.hooks.push(hook);
    let result = ends(move || {
        run(config, |reactors| async move {
            armed.0.store(true, Ordering::SeqCst);
            reactors.core(0).spawn("never runs", async {}).await
        })
    });
    assert!(matches!(result, Err(StartError::Loop(_))), "{result:?}");
}

/// The loop had decided to sleep before the hooks ran.
#[test]
fn task_woken_by_the_end_of_a_turn_runs() {
    struct Wakes(std::sync::Mutex<Option<Waker>>);
    impl TurnHook for Wakes {
        fn turn_begin(&self) {}
        fn turn_end(&self) {
            if reactor::current().name() == "main" {
                let waker = self.0.lock().unwrap().take();
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
    let hook = Arc::new(Wakes(std::sync::Mutex::new(None)));
    let leave = Arc::clone(&hook);
    let mut config = config();
    config.hooks.push(hook);
    let result = ends(move || {
        run(config, |_| async move {
            for _ in 0..10 {
                let mut left = false;
                poll_fn(|cx| {
                    if left {
                        return Poll::Ready(());
                    }
                    left = true;
                    *leave.0.lock().unwrap() = Some(cx.waker().clone());
                    Poll::Pending
                })
                .await;
            }
        })
    });
    result.unwrap();
}

/// The request to move outlived the future that made it.
#[test]
fn dropped_hop_does_not_move_the_task() {
    with(|reactors| async move {
        {
            let mut hopping = pin!(hop(reactors.core(0)));
            let first = poll_fn(|cx| Poll::Ready(hopping.as_mut().poll(cx))).await;
            assert!(first.is_pending());
        }
        yield_now().await;
        assert!(reactors.main().is_current());
        {
            let hopping = pin!(hop(reactors.core(0)));
            let won = select(hopping, std::future::ready(())).await;
            assert!(matches!(won, Either::Right(_)));
        }
        yield_now().await;
        assert!(reactors.main().is_current());
    });
}

/// Combinators poll a child only when the child's own waker was used.
#[test]
fn hop_completes_inside_a_combinator_with_wakers_of_its_own() {
    with(|reactors| async move {
        let mut set = FuturesUnordered::new();
        set.push(hop(reactors.core(0)));
        set.next().await.unwrap();
        assert!(reactors.core(0).is_current());
    });
}

/// The handle told of the end while the future was still there.
#[test]
fn cancelled_local_task_is_gone_when_its_handle_says_so() {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    with(|reactors| async move {
        for _ in 0..200 {
            let gone = Arc::new(AtomicBool::new(false));
            let value = Gone(Arc::clone(&gone));
            let task = reactors.core(0).spawn_local_with("local", move || async move {
                let _value = value;
                std::future::pending::<()>().await;
            });
            reactors.core(0).spawn("fence", yield_now()).await.unwrap();
            task.cancel();
            assert!(task.await.is_err());
            assert!(gone.load(Ordering::SeqCst), "still there");
        }
    });
}

/// Two notifications for two waiting tasks released one of them.
#[test]
fn each_notification_releases_a_waiter() {
    let notify = Notify::new();
    let (mut a, mut b) = (Box::pin(notify.notified()), Box::pin(notify.notified()));
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert!(a.as_mut().poll(&mut cx).is_pending());
    assert!(b.as_mut().poll(&mut cx).is_pending());
    notify.notify_one();
    notify.notify_one();
    assert!(a.as_mut().poll(&mut cx).is_ready());
    assert!(b.as_mut().poll(&mut cx).is_ready());
}

/// A task that locked again at once, without suspending, kept all others out for ever.
#[test]
fn mutex_is_handed_to_who_has_waited() {
    with(|reactors| async move {
        let mutex = Arc::new(Mutex::new(()));
        let stop = Arc::new(AtomicBool::new(false));
        let (greedy, stopped) = (Arc::clone(&mutex), Arc::clone(&stop));
        let greedy = reactors.main().spawn("greedy", async move {
            while !stopped.load(Ordering::SeqCst) {
                let _guard = greedy.lock().await;
                yield_now().await;
            }
        });
        yield_now().await;
        let got = reactor::timeout(Duration::from_secs(5), mutex.lock()).await.is_ok();
        stop.store(true, Ordering::SeqCst);
        greedy.await.unwrap();
        assert!(got, "starved");
    });
}

/// A wake-up queued by a context that then was busy held up those of everybody else.
#[test]
fn wake_up_does_not_wait_for_another_senders_turn() {
    let waited = with(|reactors| async move {
        let core = reactors.core(1).clone();
        // Asleep.
        core.spawn("fence", async {}).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        let (sender, receiver) = mpsc::channel();
        let thread = {
            let core = core.clone();
            let (go, wait) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                wait.recv().unwrap();
                let begun = Instant::now();
                core.schedule_bh(move || sender.send(begun.elapsed()).unwrap());
            });
            reactors.core(1).schedule_bh(|| {});
            go.send(()).unwrap();
            thread
        };
        // Blocks its own context, which is wrong, but nobody else's business.
        std::thread::sleep(Duration::from_millis(300));
        thread.join().unwrap();
        yield_now().await;
        receiver.recv().unwrap()
    });
    assert!(waited < Duration::from_millis(200), "{waited:?}");
}

/// Any number of entries but a small power of two was reported as a kernel that is too old.
#[test]
fn odd_ring_sizes_are_made_to_fit() {
    for entries in [0, 1, 3, 100, u32::MAX] {
        let mut config = config();
        config.ring_entries = entries;
        let got = ends(move || {
            run(config, |reactors| async move { reactors.core(0).spawn("x", async { 1 }).await })
        });
        assert_eq!(got.unwrap(), Ok(1), "{entries}");
    }
}

/// A bottom half that schedules itself kept the tear-down going for ever.
#[test]
fn bottom_half_that_reschedules_itself_does_not_keep_the_runtime() {
    fn again(context: &Context) {
        let next = context.clone();
        context.schedule_bh(move || again(&next));
    }
    with(|reactors| async move {
        for context in reactors.all() {
            again(context);
            context.spawn("fence", yield_now()).await.unwrap();
        }
    });
}

type Operation = Box<dyn Future<Output = ()> + Send>;

/// Something whose destructor needs the context's tables.
struct DropsOperation {
    _operation: std::sync::Mutex<Operation>,
}

impl Wake for DropsOperation {
    fn wake(self: Arc<Self>) {}
}

/// Replacing a waker dropped the old one while the table was borrowed.
#[test]
fn destructor_of_a_replaced_waker_may_use_the_context() {
    with(|_| async {
        let (_end, other) = UnixStream::pair().unwrap();
        let other: Fd = other.into();
        let mut inner = Box::pin({
            let other = other.clone();
            async move { drop(io::recv(&other, vec![0; 1]).await) }
        });
        let first = poll_fn(|cx| Poll::Ready(inner.as_mut().poll(cx))).await;
        assert!(first.is_pending());
        let inner = std::sync::Mutex::new(Box::new(inner) as Operation);
        let waker = Waker::from(Arc::new(DropsOperation { _operation: inner }));
        let mut outer = pin!(io::recv(&other, vec![0; 1]));
        let first = outer.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        assert!(first.is_pending());
        drop(waker);
        // Replaces the waker, whose last reference was the table's.
        let second = poll_fn(|cx| Poll::Ready(outer.as_mut().poll(cx))).await;
        assert!(second.is_pending());
    });
}

/// Offsets near the end of the range overflowed, or meant "the current position".
#[test]
fn offsets_past_the_range_are_refused() {
    with(|_| async {
        let file: Fd = tempfile::tempfile().unwrap().into();
        for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
            let (result, _) = io::write_all_at(&file, vec![1; 8], offset).await;
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            let (result, _) = io::read_at(&file, vec![1; 8], offset).await;
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            let (result, _) = io::read_exact_at(&file, vec![1; 8], offset).await;
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
    });
}

fn eventfd() -> (Fd, std::fs::File) {
    // SAFETY: eventfd(2) takes no pointer, and the descriptor is new.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    (fd.try_clone().unwrap().into(), fd.into())
}

/// The time that a context slept before a completion counted as the queue delay of the task that the
/// completion woke.
#[test]
fn queue_delay_begins_with_the_wake_up() {
    with(|reactors| async move {
        let (bell, mut ringer) = eventfd();
        let core = reactors.core(0);
        let listener = core.spawn("listener", async move { io::read_eventfd(&bell).await });
        core.spawn("fence", yield_now()).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        ringer.write_all(&1u64.to_ne_bytes()).unwrap();
        assert_eq!(listener.await.unwrap().unwrap(), 1);
        // A bound at most twice the true value.
        let longest = core.counters().queue_delay.quantile_ns(1.0);
        assert!(longest < 300_000_000, "{longest} ns");
    });
}

/// What a context sent to itself cost a system call to be found.
#[test]
fn bottom_half_for_ones_own_context_costs_no_system_call() {
    fn again(context: Context, left: u32, done: reactor::sync::oneshot::Sender<()>) {
        if left == 0 {
            done.send(()).unwrap();
            return;
        }
        context.clone().schedule_bh(move || again(context, left - 1, done));
    }
    with(|reactors| async move {
        let core = reactors.core(0).clone();
        let before = core.counters();
        let (done, is_done) = reactor::sync::oneshot::channel();
        core.schedule_bh({
            let core = core.clone();
            move || again(core, 1000, done)
        });
        is_done.await.unwrap();
        core.spawn("fence", yield_now()).await.unwrap();
        let after = core.counters();
        assert!(after.bottom_halves - before.bottom_halves >= 1000);
        let enters = after.enters - before.enters;
        assert!(enters < 100, "{enters} enters for 1000 bottom halves");
    });
}

/// Bottom halves were bounded in number and not in time: long ones held up timers and tasks.
#[test]
fn timer_does_not_wait_for_many_long_bottom_halves() {
    with(|reactors| async move {
        let core = reactors.core(0).clone();
        let run = Arc::new(AtomicUsize::new(0));
        let task = core.spawn("task", {
            let (core, run) = (core.clone(), Arc::clone(&run));
            async move {
                for _ in 0..100 {
                    let run = Arc::clone(&run);
                    core.schedule_bh(move || {
                        let begun = Instant::now();
                        while begun.elapsed() < Duration::from_millis(1) {
                            std::hint::spin_loop();
                        }
                        run.fetch_add(1, Ordering::Relaxed);
                    });
                }
                sleep(Duration::from_millis(5)).await;
                run.load(Ordering::Relaxed)
            }
        });
        let before = task.await.unwrap();
        assert!(before < 20, "{before} bottom halves of 1 ms before a timer of 5 ms");
    });
}

/// A waker is lent to a poll without being counted: its clones keep the task, whatever ends it.
#[test]
fn waker_may_outlive_its_task() {
    let dropped = Arc::new(());
    let kept = Arc::clone(&dropped);
    let wakers = with(move |reactors| async move {
        let wakers = Arc::new(std::sync::Mutex::new(Vec::new()));
        for (n, panics) in [false, true].into_iter().enumerate() {
            let (wakers, kept) = (Arc::clone(&wakers), Arc::clone(&kept));
            let task = reactors.core(n).spawn("ends", async move {
                poll_fn(|cx| {
                    wakers.lock().unwrap().push(cx.waker().clone());
                    assert!(!panics, "on purpose");
                    Poll::Ready(())
                })
                .await;
                drop(kept);
            });
            assert_eq!(task.await.is_err(), panics);
        }
        let wakers: Vec<Waker> = std::mem::take(&mut *wakers.lock().unwrap());
        assert_eq!(Arc::strong_count(&kept), 2, "the futures are gone");
        wakers.iter().for_each(Waker::wake_by_ref);
        wakers
    });
    // Nor does it matter that the runtime is gone.
    for waker in wakers {
        waker.wake_by_ref();
        waker.wake();
    }
    assert_eq!(Arc::strong_count(&dropped), 1);
}
