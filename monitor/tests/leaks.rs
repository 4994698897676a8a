//! Connections leave nothing behind. In a process of its own, because it counts descriptors.

use devices::block::graph::BlockGraph;
use devices::chardev::{Address, Backend, Chardevs, FrontEndKind, SocketFrom, SocketOptions};
use monitor::wire::Style;
use monitor::{Actions, BoxFuture, Endpoint, KvmInfo, Machine, Monitor, QmpError, RunState};
use reactor::Reactors;
use reactor::sync::oneshot;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct NoMachine(Actions, Chardevs, Arc<BlockGraph>);

impl Machine for NoMachine {
    fn name(&self) -> Option<String> {
        None
    }
    fn run_state(&self) -> RunState {
        RunState::Prelaunch
    }
    fn kvm(&self) -> KvmInfo {
        KvmInfo { enabled: false, present: false }
    }
    fn chardevs(&self) -> &Chardevs {
        &self.1
    }
    fn actions(&self) -> &Actions {
        &self.0
    }
    fn block(&self) -> &Arc<BlockGraph> {
        &self.2
    }
    fn stop(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async { Ok(()) })
    }
    fn cont(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.stop()
    }
    fn system_reset(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.stop()
    }
    fn system_powerdown(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.stop()
    }
    fn quit(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.stop()
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One connection; how it ends depends on `n`. Returns when the monitor has closed it.
fn connection(path: &Path, n: usize) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let requests: &[&[u8]] = &[
        b"{'execute': 'qmp_capabilities'}{'execute': 'query-status'}{'execute': 'stop'}",
        b"{'execute': 'qmp_capabilities'}",
        b"{'execute': 'query-st",
        b"",
    ];
    stream.write_all(requests[n % requests.len()]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut text).unwrap();
    assert!(text.starts_with("{\"QMP\""));
    reader.read_to_string(&mut text).unwrap();
}

/// A connection that just breaks.
fn broken_connection(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"{'execute': 'qmp_capabilities'}{'execute': 'stop'}{'execu").unwrap();
}

/// What the process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    tasks: u64,
    /// Resident.
    bytes: usize,
}

fn held(reactors: &Reactors) -> Held {
    let tasks = reactors.all().iter().map(|context| context.counters().tasks_alive).sum();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    Held { descriptors: descriptors(), tasks, bytes: pages * 4096 }
}

/// Waits until no more is held than before; nothing tells when the last task has ended.
fn settled(reactors: &Reactors, before: &Held) -> Held {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let now = held(reactors);
        let more = now.tasks > before.tasks || now.descriptors > before.descriptors;
        if !more || Instant::now() > deadline {
            return now;
        }
        std::thread::yield_now();
    }
}

/// What is held when nobody is connected: the least of many looks, since connections end a little
/// after their clients.
fn idle(reactors: &Reactors) -> Held {
    let looks = (0..1000).map(|_| {
        std::thread::yield_now();
        held(reactors)
    });
    looks.min_by_key(|held| (held.tasks, held.descriptors)).unwrap()
}

fn connections(paths: [&Path; 2], count: usize) {
    for n in 0..count / 4 {
        for path in paths {
            connection(path, n);
            broken_connection(path);
        }
    }
    for path in paths {
        // Those that broke before this one have been accepted before.
        connection(path, 1);
    }
}

fn cycles(reactors: &Reactors, paths: [&Path; 2]) {
    const GROWTH_MAX: usize = 2 << 20;
    connections(paths, 8);
    let first = idle(reactors);
    // The allocator and the tables have their size after these.
    connections(paths, 1000);
    let before = settled(reactors, &first);
    connections(paths, 10_000);
    let after = settled(reactors, &before);
    assert_eq!((after.tasks, after.descriptors), (first.tasks, first.descriptors), "{after:?}");
    assert!(after.bytes <= before.bytes + GROWTH_MAX, "{before:?} became {after:?}");
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("qmp");
    let single = directory.path().join("chardev");
    let before = descriptors();
    let cpus = reactor::allowed_cpus().unwrap();
    let config = reactor::Config::with_cores(vec![cpus[0]]);
    let result = reactor::run(config, move |reactors| async move {
        let monitor = Monitor::new(&reactors);
        monitor.listen_qmp(&Endpoint::unix(&path), Style::Line).unwrap();
        let chardevs = Chardevs::new(reactors.iohandler(), || {});
        let from = SocketFrom::Address(Address::Unix(single.clone()));
        chardevs.add("one", Backend::Socket(SocketOptions::new(from, true))).await.unwrap();
        let frontend = chardevs.attach("one", FrontEndKind::Control).unwrap();
        monitor.serve_qmp(frontend, Style::Line);
        let block = BlockGraph::new(&reactors);
        monitor.start(Arc::new(NoMachine(Actions::default(), chardevs.clone(), block)));
        let (done, ended) = oneshot::channel();
        let counted = reactors.clone();
        let clients = std::thread::spawn(move || {
            cycles(&counted, [&path, &single]);
            let _ = done.send(());
        });
        let finished = ended.await;
        monitor.shutdown(Duration::from_secs(5)).await;
        chardevs.clear();
        finished.is_ok() && clients.join().is_ok()
    });
    assert!(result.unwrap(), "the clients failed");
    assert_eq!(descriptors(), before);
}
