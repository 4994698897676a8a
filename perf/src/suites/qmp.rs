//! Management sockets: round trips, pipelines, out-of-band commands, many sessions, events.

use super::{Placement, Spot};
use crate::case::{Bench, Case, Side};
use crate::limit::echo::Echo;
use crate::qmp::{Qmp, request};
use crate::samples::{Measured, Samples, try_sample};
use crate::vmm::{Setup, Vmm};
use crate::{Error, host};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

const SUITE: &str = "qmp";
const QUERY: &[u8] = b"{\"execute\":\"query-status\"}\n";
const ROUND_TRIPS: u32 = 5000;
const WINDOW: usize = 64;
/// Why a socket of QEMU is not asked for more.
const ONE_CLIENT: &str = "a QMP socket of QEMU serves one client at a time";

pub(super) fn benches() -> Vec<Bench> {
    let mut benches = Vec::new();
    for spot in Spot::BOTH {
        benches.push(round_trip(spot));
        benches.push(pipelined(spot));
        benches.push(out_of_band(spot, false));
    }
    benches.push(out_of_band(Spot::TwoCpus, true));
    benches.extend([connect(), events(8), sessions(), events(1000)]);
    benches
}

fn round_trip(spot: Spot) -> Bench {
    let name = format!("query-status round trip, {}", spot.name());
    let cpu = format!("query-status, CPU time of the server, {}", spot.name());
    let cases = vec![
        Case::time(SUITE, name, "us").goal(Side::Peer, 0.25),
        Case::less(SUITE, cpu, "CPU time", "us each"),
    ];
    Bench::new(cases, move |lab, side| {
        let place = spot.place(lab);
        let rounds = lab.scaled(ROUND_TRIPS);
        if side == Side::Limit {
            return echoes(&place, rounds, QUERY);
        }
        let mut vmm = Setup::new(&place.server).start(lab, side)?;
        host::bind_thread(0, &place.client)?;
        let before = host::cpu_seconds(vmm.pid())?;
        let samples = try_sample(rounds, || vmm.qmp().exchange(QUERY))?;
        let used = host::cpu_seconds(vmm.pid())? - before;
        vmm.quit()?;
        let each = used * 1e6 / f64::from(rounds + rounds / 10);
        Ok(vec![Measured::Times(samples), Measured::Value(each)])
    })
}

/// The least that an exchange takes: the same bytes through a server that does nothing with them.
fn echoes(place: &Placement, rounds: u32, bytes: &[u8]) -> Result<Vec<Measured>, Error> {
    let mut echo = Echo::start(place)?;
    host::bind_thread(0, &place.client)?;
    let samples = try_sample(rounds, || echo.exchange(bytes, 1))?;
    echo.stop()?;
    Ok(vec![Measured::Times(samples)])
}

fn pipelined(spot: Spot) -> Bench {
    let name = format!("query-status, 64 in flight, {}", spot.name());
    let case = Case::more(SUITE, name, "commands", "1/s").goal(Side::Peer, 10.0);
    Bench::new(vec![case], move |lab, side| {
        let place = spot.place(lab);
        let full = if side == Side::Peer { 10_000 } else { 100_000 };
        let count = lab.scaled(full) as usize;
        let seconds;
        if side == Side::Limit {
            let mut echo = Echo::start(&place)?;
            host::bind_thread(0, &place.client)?;
            let begun = Instant::now();
            (0..count.div_ceil(WINDOW)).try_for_each(|_| echo.exchange(QUERY, WINDOW))?;
            seconds = begun.elapsed().as_secs_f64();
            echo.stop()?;
        } else {
            let mut vmm = Setup::new(&place.server).start(lab, side)?;
            host::bind_thread(0, &place.client)?;
            vmm.qmp().pipeline(QUERY, count / 10 + 1, WINDOW)?;
            let begun = Instant::now();
            vmm.qmp().pipeline(QUERY, count, WINDOW)?;
            seconds = begun.elapsed().as_secs_f64();
            vmm.quit()?;
        }
        Ok(vec![Measured::Value(as_figure(count) / seconds)])
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn as_figure(count: usize) -> f64 {
    count as f64
}

/// A short out-of-band command of each side: no command may come out of band in both.
fn out_of_band_request(side: Side) -> &'static [u8] {
    match side {
        Side::Peer => b"{\"exec-oob\":\"yank\",\"arguments\":{\"instances\":[]}}\n",
        _ => b"{\"exec-oob\":\"query-monitors\"}\n",
    }
}

/// Idle, or while another session has the main context build long replies without a pause.
fn out_of_band(spot: Spot, busy: bool) -> Bench {
    let state = if busy { "while main is busy" } else { "idle" };
    let name = format!("out-of-band command, {state}, {}", spot.name());
    let case = Case::time(SUITE, name, "us").goal(Side::Peer, 0.2);
    Bench::new(vec![case], move |lab, side| {
        let place = spot.place(lab);
        if side == Side::Limit {
            // A loop that is busy has no bare counterpart.
            return if busy {
                Ok(Vec::new())
            } else {
                echoes(&place, lab.scaled(2000), out_of_band_request(side))
            };
        }
        let mut vmm = Setup::new(&place.server).monitors(2).start(lab, side)?;
        let load = busy.then(|| Load::start(vmm.take_others(), &[b"query-qmp-schema"]));
        host::bind_thread(0, &place.client)?;
        let bytes = out_of_band_request(side);
        let samples = try_sample(lab.scaled(2000), || vmm.qmp().exchange(bytes))?;
        load.map(Load::stop).transpose()?;
        vmm.quit()?;
        Ok(vec![Measured::Times(samples)])
    })
}

/// Sessions that send commands without a pause, each on a thread of its own.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<usize, Error>>>,
}

impl Load {
    /// Each session sends these commands in turn, and waits for each reply.
    pub fn start(sessions: Vec<Qmp>, commands: &[&[u8]]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let names = commands.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        let requests: Vec<Vec<u8>> = names.map(|name| request(&name, Value::Null)).collect();
        let threads = sessions.into_iter().map(|mut session| {
            let (stop, requests) = (Arc::clone(&stop), requests.clone());
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    session.exchange(&requests[count % requests.len()])?;
                    count += 1;
                }
                Ok(count)
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// How many commands they have had executed.
    pub fn stop(self) -> Result<usize, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = 0;
        for thread in self.threads {
            sum +=
                thread.join().map_err(|_| Error::unexpected("a session's thread panicked"))??;
        }
        Ok(sum)
    }
}

/// Connect, greeting, capabilities, one query, close: one client after the other.
fn connect() -> Bench {
    let case = Case::time(SUITE, "connect, negotiate, one query, close, one CPU", "us");
    Bench::new(vec![case], |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let place = lab.one_cpu();
        let vmm = Setup::new(&place.server).listening().start(lab, side)?;
        host::bind_thread(0, &place.client)?;
        let path = vmm.socket();
        let samples = try_sample(lab.scaled(500), || Qmp::connect(&path)?.exchange(QUERY))?;
        vmm.quit()?;
        Ok(vec![Measured::Times(samples)])
    })
}

/// So many sessions of one VMM.
fn connected(vmm: &Vmm, count: usize) -> Result<Vec<Qmp>, Error> {
    (0..count).map(|_| Qmp::connect(&vmm.socket())).collect()
}

/// A thousand sessions that take turns.
fn sessions() -> Bench {
    let case = Case::time(SUITE, "query-status round trip, 1000 sessions in turn, one CPU", "us");
    Bench::new(vec![case], |lab, side| match side {
        Side::Limit => Ok(Vec::new()),
        Side::Peer => Ok(vec![Measured::cannot(ONE_CLIENT)]),
        Side::Ours => {
            let place = lab.one_cpu();
            let vmm = Setup::new(&place.server).listening().start(lab, side)?;
            host::bind_thread(0, &place.client)?;
            let mut sessions = connected(&vmm, 1000)?;
            let mut samples = Samples::new();
            for _ in 0..lab.scaled(10) {
                for session in &mut sessions {
                    samples.merge(&try_sample(1, || session.exchange(QUERY))?);
                }
            }
            drop(sessions);
            vmm.quit()?;
            Ok(vec![Measured::Times(samples)])
        }
    })
}

/// From the command that makes an event to the event's arrival in the last of `count` sessions.
fn events(count: usize) -> Bench {
    let name = format!("stop to its event in each of {count} sessions, one CPU");
    Bench::new(vec![Case::time(SUITE, name, "us")], move |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        if side == Side::Peer && count > 100 {
            return Ok(vec![Measured::cannot(ONE_CLIENT)]);
        }
        let place = lab.one_cpu();
        let setup = Setup::new(&place.server);
        let (mut vmm, mut sessions);
        if count > 100 {
            vmm = setup.listening().start(lab, side)?;
            sessions = connected(&vmm, count)?;
        } else {
            vmm = setup.monitors(count + 1).start(lab, side)?;
            sessions = vmm.take_others();
        }
        host::bind_thread(0, &place.client)?;
        let rounds = lab.scaled(if count > 100 { 20 } else { 300 });
        let mut samples = Samples::new();
        for _ in 0..rounds {
            vmm.qmp().exchange(b"{\"execute\":\"cont\"}\n")?;
            sessions.iter_mut().try_for_each(|session| session.wait_event("RESUME"))?;
            let begun = Instant::now();
            vmm.qmp().exchange(b"{\"execute\":\"stop\"}\n")?;
            sessions.iter_mut().try_for_each(|session| session.wait_event("STOP"))?;
            samples.add(begun.elapsed());
        }
        vmm.quit()?;
        Ok(vec![Measured::Times(samples)])
    })
}
