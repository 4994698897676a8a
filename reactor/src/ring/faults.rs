//! Faults for tests: what the kernel may answer to an enter, and rarely does. The tests themselves run
//! whole runtimes on rings of four entries: whatever it answers, nothing is lost.

use super::Wait;
use std::io;
use std::sync::Arc;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call fails and takes nothing.
    Errno(i32),
    /// The call takes so many entries at most.
    Take(u32),
}

/// Tells what happens at the n-th enter of a ring.
pub(crate) type Script = Arc<dyn Fn(u64) -> Option<Fault> + Send + Sync>;

/// A script for each context, by its name.
pub(crate) type Scripts = Arc<dyn Fn(&str) -> Script + Send + Sync>;

pub(crate) struct Plan {
    pub(crate) script: Script,
    enters: u64,
}

impl Plan {
    pub(crate) fn new(script: Script) -> Self {
        Self { script, enters: 0 }
    }
}

/// How many entries to submit of those that there are, and how to wait.
pub(super) fn inject(
    plan: &mut Option<Plan>,
    unsubmitted: u32,
    wait: Wait,
) -> io::Result<(u32, Wait)> {
    let Some(plan) = plan else { return Ok((unsubmitted, wait)) };
    let n = plan.enters;
    plan.enters += 1;
    match (plan.script)(n) {
        Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
        // The kernel does not wait after a submission that it could not complete.
        Some(Fault::Take(most)) if most < unsubmitted => Ok((most, Wait::No)),
        _ => Ok((unsubmitted, wait)),
    }
}

mod tests {
    use super::{Fault, Script};
    use crate::{Config, Fd, JoinError, Reactors, StartError, hop, io, run, sleep};
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    const EINTR: i32 = 4;
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const EBUSY: i32 = 16;
    const EBADR: i32 = 53;

    fn config(script: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) -> Config {
        let cpus = crate::allowed_cpus().unwrap();
        let mut config = Config::with_cores((0..2).map(|n| cpus[n % cpus.len()]).collect());
        config.ring_entries = 4;
        let script: Script = Arc::new(script);
        config.faults = Some(Arc::new(move |_| Arc::clone(&script)));
        config
    }

    /// Reads, writes, timers, hops and cancellations, many at once; returns the bytes received.
    async fn load(reactors: Reactors) -> usize {
        let tasks: Vec<_> =
            (0..60).map(|n| reactors.core(n).spawn("load", one(reactors.clone(), n))).collect();
        let mut total = 0;
        for task in tasks {
            total += task.await.unwrap();
        }
        total
    }

    async fn one(reactors: Reactors, n: usize) -> usize {
        let (mut end, start) = UnixStream::pair().unwrap();
        let start: Fd = start.into();
        // A dropped receive may take bytes until its cancellation is submitted, so it has a stream of
        // its own.
        let (_silent, silence) = UnixStream::pair().unwrap();
        let silence: Fd = silence.into();
        let mut got = 0;
        for round in 0..8 {
            // Nothing there yet: this one is cancelled.
            let limit = Duration::from_micros(50);
            let late = crate::timeout(limit, io::recv(&silence, vec![0; 8])).await;
            assert!(late.is_err());
            let late = io::within(limit, io::recv(&start, vec![0; 8])).await;
            let error = late.0.unwrap_err();
            // Where a fault has torn the time limit off, the operation is cancelled instead.
            let cancelled = [libc::ETIMEDOUT, libc::ECANCELED, libc::EINTR].map(Some);
            assert!(cancelled.contains(&error.raw_os_error()), "{error}");
            hop(reactors.core(n + round)).await;
            end.write_all(b"abc").unwrap();
            let (result, bytes) = io::recv(&start, vec![0; 8]).await;
            assert_eq!(&bytes[..result.unwrap()], b"abc");
            got += 3;
        }
        got
    }

    fn loses_nothing(script: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) {
        let got = run(config(script), |reactors| async move {
            crate::timeout(Duration::from_secs(60), load(reactors)).await
        });
        assert_eq!(got.unwrap(), Ok(60 * 8 * 3));
    }

    #[test]
    fn interrupted_enters_lose_nothing() {
        loses_nothing(|n| (n % 2 == 0).then_some(Fault::Errno(EINTR)));
    }

    #[test]
    fn enters_without_memory_lose_nothing() {
        loses_nothing(|n| match n % 5 {
            0..=1 => Some(Fault::Errno(ENOMEM)),
            2 => Some(Fault::Errno(EAGAIN)),
            _ => None,
        });
    }

    #[test]
    fn enters_with_a_full_completion_queue_lose_nothing() {
        loses_nothing(|n| (n % 3 == 1).then_some(Fault::Errno(EBUSY)));
    }

    #[test]
    fn submissions_taken_in_part_lose_nothing() {
        loses_nothing(|n| Some(Fault::Take((n % 3) as u32)));
    }

    #[test]
    fn all_faults_together_lose_nothing() {
        loses_nothing(|n| match n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 {
            0 => Some(Fault::Errno(EINTR)),
            1 => Some(Fault::Errno(EBUSY)),
            2 => Some(Fault::Errno(ENOMEM)),
            3 => Some(Fault::Take(1)),
            _ => None,
        });
    }

    /// Dropped completions cannot be found again: everything stops, with the reason, and nobody hangs.
    #[test]
    fn dropped_completions_stop_the_runtime() {
        let broken = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&broken);
        let mut config = config(|_| None);
        config.faults = Some(Arc::new(move |name| {
            let (core, broken) = (name == "core-1", Arc::clone(&seen));
            Arc::new(move |_| {
                let fail = core && broken.load(Ordering::SeqCst);
                fail.then_some(Fault::Errno(EBADR))
            })
        }));
        let result: Result<Result<(), JoinError>, StartError> =
            run(config, |reactors| async move {
                let waiting = reactors.core(1).spawn("waits", sleep(Duration::from_secs(3600)));
                broken.store(true, Ordering::SeqCst);
                reactors.core(1).schedule_bh(|| {});
                waiting.await
            });
        let error = result.unwrap_err().to_string();
        assert!(error.contains("completions"), "{error}");
    }
}
