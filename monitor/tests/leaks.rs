//! Connections leave nothing behind. In a process of its own, because it counts descriptors.

use devices::block::graph::BlockGraph;
use monitor::wire::Style;
use monitor::{Actions, BoxFuture, Endpoint, KvmInfo, Machine, Monitor, QmpError, RunState};
use reactor::sync::oneshot;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

struct NoMachine(Actions, Arc<BlockGraph>);

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
    fn actions(&self) -> &Actions {
        &self.0
    }
    fn block(&self) -> &Arc<BlockGraph> {
        &self.1
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

fn cycles(path: &Path) {
    connection(path, 0);
    let after_one = descriptors();
    for n in 0..500 {
        connection(path, n);
        broken_connection(path);
    }
    // Those that broke before this one have been closed before it was accepted, or nearly so.
    connection(path, 0);
    let after_all = descriptors();
    assert!(after_all <= after_one + 8, "{after_one} descriptors became {after_all}");
}

#[test]
fn a_thousand_connections_leave_no_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("qmp");
    let before = descriptors();
    let cpus = reactor::allowed_cpus().unwrap();
    let config = reactor::Config::with_cores(vec![cpus[0]]);
    let result = reactor::run(config, move |reactors| async move {
        let monitor = Monitor::new(&reactors);
        monitor.listen_qmp(&Endpoint::unix(&path), Style::Line).unwrap();
        monitor.start(Arc::new(NoMachine(Actions::default(), BlockGraph::new(&reactors))));
        let (done, ended) = oneshot::channel();
        let clients = std::thread::spawn(move || {
            cycles(&path);
            let _ = done.send(());
        });
        let finished = ended.await;
        monitor.shutdown(Duration::from_secs(5)).await;
        finished.is_ok() && clients.join().is_ok()
    });
    assert!(result.unwrap(), "the clients failed");
    assert_eq!(descriptors(), before);
}
