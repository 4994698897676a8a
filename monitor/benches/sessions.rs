//! `query-status` over a socket: alone, beside 32 busy sessions, and beside 1,000 idle ones as well;
//! ringvisor and QEMU in turns, in one run.
//!
//! `cargo build --release && cargo bench -p monitor [-- --quick]`. Another program than the release
//! build is named by `RINGVISOR`, another QEMU by `QEMU`. No guest runs and neither has a vCPU
//! thread: `-accel qtest` here, `-machine none` there. Times are a client's: its own system calls and
//! the host's scheduler are in them, for both alike.
//!
//! A busy session always has a request in flight. All are driven by one thread, which leaves the
//! servers more of the CPU than a thread each. Beside them a probe asks once a millisecond: one that
//! asked again at once would take most of its samples where the load happens to pause.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What is beside the session that is measured.
struct Situation {
    name: &'static str,
    busy: usize,
    idle: usize,
}

const SITUATIONS: [Situation; 3] = [
    Situation { name: "alone", busy: 0, idle: 0 },
    Situation { name: "32 busy", busy: 32, idle: 0 },
    Situation { name: "32 busy, 1000 idle", busy: 32, idle: 1000 },
];
/// Between two requests of the probe beside busy sessions.
const PERIOD: Duration = Duration::from_millis(1);
/// What is asked.
const REQUEST: &[u8] = b"{\"execute\":\"query-status\"}\n";
/// A server that is silent for so long is at fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session that has negotiated.
struct Session {
    stream: UnixStream,
    /// What has come of the message that is read.
    message: Vec<u8>,
}

impl Session {
    fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = Self { stream, message: Vec::new() };
        while !session.read()? {}
        session.send(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        while !session.read()? {}
        session.check();
        Ok(session)
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.message.clear();
        self.stream.write_all(request)
    }

    /// Reads once; whether the message is whole.
    fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let read = self.stream.read(&mut bytes)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.message.extend_from_slice(&bytes[..read]);
        Ok(self.message.ends_with(b"\n"))
    }

    fn check(&self) {
        let text = String::from_utf8_lossy(&self.message);
        assert!(self.message.starts_with(b"{\"return\""), "{text}");
    }

    fn ask(&mut self) -> io::Result<()> {
        self.send(REQUEST)?;
        while !self.read()? {}
        self.check();
        Ok(())
    }
}

/// A running program; it ends with this.
struct Server {
    name: &'static str,
    child: Child,
    sockets: Vec<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `program` with so many sockets. Fails where there is no such program or it refuses.
    fn start(
        name: &'static str,
        program: &Path,
        options: &[&str],
        (sockets, directory): (usize, &Path),
    ) -> Result<Self, String> {
        let sockets: Vec<_> = (0..sockets).map(|n| directory.join(format!("{name}-{n}"))).collect();
        let mut command = Command::new(program);
        command.args(options).args(["-S", "-nodefaults", "-display", "none"]);
        for socket in &sockets {
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let mut server = Self { name, child, sockets };
        let deadline = Instant::now() + PATIENCE;
        // Nothing tells when the sockets are there. The last one is opened last, and who is greeted
        // there is served: a program that has refused its other options greets nobody.
        while let Err(error) =
            server.sockets.last().map_or(Ok(()), |s| Session::connect(s).map(drop))
        {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{}: {status}", program.display()));
            }
            if Instant::now() > deadline {
                return Err(format!("{}: {error}", program.display()));
            }
            std::thread::yield_now();
        }
        Ok(server)
    }

    /// Session `n`, on a socket of its own where there is one for each.
    fn session(&self, n: usize) -> Session {
        Session::connect(&self.sockets[n % self.sockets.len()]).expect("the server greets")
    }
}

/// A server with the sessions of a situation.
struct Rig {
    server: Server,
    probe: Session,
    busy: Vec<Session>,
    /// Kept open.
    _idle: Vec<Session>,
    /// Of the probe, in microseconds.
    times: Vec<f64>,
    /// Answers on the busy sessions, and how long they took.
    answers: u32,
    elapsed: Duration,
}

impl Rig {
    fn new(server: Server, situation: &Situation) -> Self {
        let probe = server.session(0);
        let busy = (0..situation.busy).map(|n| server.session(1 + n)).collect();
        let idle = (0..situation.idle).map(|n| server.session(1 + situation.busy + n)).collect();
        let (times, elapsed) = (Vec::new(), Duration::ZERO);
        Self { server, probe, busy, _idle: idle, times, answers: 0, elapsed }
    }

    /// Measures for `window`, and says what came of it.
    fn measure(&mut self, window: Duration) -> String {
        let before = self.times.len();
        if self.busy.is_empty() {
            probe(&mut self.probe, window, Duration::ZERO, &mut self.times);
        } else {
            self.measure_loaded(window);
        }
        let mut times = self.times[before..].to_vec();
        times.sort_by(f64::total_cmp);
        let [p50, p99] = [0.5, 0.99].map(|q| quantile(&times, q));
        format!("{:<9} p50 {p50:>8.1} p99 {p99:>8.1} us, {} samples", self.server.name, times.len())
    }

    fn measure_loaded(&mut self, window: Duration) {
        let (answers, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        // The load is on when every session has been answered several times.
        let on = 4 * self.busy.len() as u32;
        std::thread::scope(|scope| {
            scope.spawn(|| keep_busy(&mut self.busy, &answers, &stop));
            while answers.load(Ordering::Relaxed) < on {
                std::thread::sleep(PERIOD);
            }
            let (before, start) = (answers.load(Ordering::Relaxed), Instant::now());
            probe(&mut self.probe, window, PERIOD, &mut self.times);
            self.answers += answers.load(Ordering::Relaxed) - before;
            self.elapsed += start.elapsed();
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// Asks for `window`, a request each `period` or as soon as the last one was answered.
fn probe(session: &mut Session, window: Duration, period: Duration, times: &mut Vec<f64>) {
    let begin = Instant::now();
    let mut next = begin;
    while begin.elapsed() < window {
        if let Some(early) = next.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        let start = Instant::now();
        session.ask().expect("the server answers");
        times.push(start.elapsed().as_secs_f64() * 1e6);
        next = start + period;
    }
}

/// Keeps one request in flight on each session until told to stop, and then none.
fn keep_busy(sessions: &mut [Session], answers: &AtomicU32, stop: &AtomicBool) {
    for session in &mut *sessions {
        session.send(REQUEST).expect("the server reads");
    }
    let mut in_flight = vec![true; sessions.len()];
    while in_flight.contains(&true) {
        let mut polled: Vec<_> =
            sessions.iter().map(|s| PollFd::new(s.stream.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut polled, PollTimeout::from(1000u16)).expect("poll");
        let ready: Vec<_> = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        for ((session, in_flight), ready) in sessions.iter_mut().zip(&mut in_flight).zip(ready) {
            if ready && session.read().expect("the server answers") {
                session.check();
                answers.fetch_add(1, Ordering::Relaxed);
                *in_flight = !stop.load(Ordering::Relaxed);
                if *in_flight {
                    session.send(REQUEST).expect("the server reads");
                }
            }
        }
    }
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[(f64::from(sorted.len() as u32 - 1) * q) as usize]
}

/// The release build lies beside the folder of this program.
fn ringvisor() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let built = own.ancestors().nth(2).expect("target/release").join("ringvisor");
    std::env::var_os("RINGVISOR").map_or(built, PathBuf::from)
}

/// Ours, and QEMU unless it cannot be had.
fn rigs(situation: &Situation, directory: &Path, with_qemu: bool) -> Result<Vec<Rig>, String> {
    let program = ringvisor();
    if !program.exists() {
        let path = program.display();
        return Err(format!("{path} is not there: run cargo build --release, or set RINGVISOR"));
    }
    let own = Server::start("ringvisor", &program, &["-accel", "qtest"], (1, directory))?;
    let mut rigs = vec![Rig::new(own, situation)];
    if with_qemu {
        // A socket of QEMU serves one client at a time: there is one for each session.
        let program = std::env::var_os("QEMU").unwrap_or_else(|| "qemu-system-x86_64".into());
        let sockets = 1 + situation.busy + situation.idle;
        let options = ["-accel", "tcg", "-machine", "none"];
        match Server::start("QEMU", program.as_ref(), &options, (sockets, directory)) {
            Ok(server) => rigs.push(Rig::new(server, situation)),
            Err(reason) => println!("no column for QEMU: {reason}"),
        }
    }
    Ok(rigs)
}

fn row(what: &str, values: &[f64]) {
    print!("{what:<34}");
    for value in values {
        print!(" {value:>10.1}");
    }
    match values {
        [own, qemu] => println!(" {:>14.2}", qemu / own),
        _ => println!(),
    }
}

fn table(situation: &Situation, rigs: &mut [Rig]) {
    for rig in &mut *rigs {
        rig.times.sort_by(f64::total_cmp);
    }
    for (what, q) in [("p50", 0.5), ("p99", 0.99)] {
        let values: Vec<_> = rigs.iter().map(|rig| quantile(&rig.times, q)).collect();
        row(&format!("{}: {what}, us", situation.name), &values);
    }
    if situation.busy > 0 {
        let rate = |rig: &Rig| f64::from(rig.answers) / (rig.elapsed.as_secs_f64() * 1e3);
        row(&format!("{}: answers/ms", situation.name), &rigs.iter().map(rate).collect::<Vec<_>>());
    }
}

fn run(quick: bool) -> Result<(), String> {
    let (rounds, window) = if quick { (3, 1000) } else { (7, 2000) };
    let window = Duration::from_millis(window);
    let mut all = Vec::new();
    for situation in &SITUATIONS {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let with_qemu = all.first().is_none_or(|rigs: &Vec<Rig>| rigs.len() == 2);
        let mut rigs = rigs(situation, directory.path(), with_qemu)?;
        for round in 0..rounds {
            for rig in &mut rigs {
                println!("{}, round {round}: {}", situation.name, rig.measure(window));
            }
        }
        all.push(rigs);
    }
    println!("all rounds together {:>24} {:>10} {:>14}", "ringvisor", "QEMU", "QEMU/ringvisor");
    for (situation, rigs) in SITUATIONS.iter().zip(&mut all) {
        table(situation, rigs);
    }
    Ok(())
}

fn main() {
    // A session takes a descriptor here and one or two there, which inherits the limit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("setrlimit");
    if let Err(reason) = run(std::env::args().any(|argument| argument == "--quick")) {
        eprintln!("{reason}");
        std::process::exit(1);
    }
}
