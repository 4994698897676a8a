//! What waits to be sent to the program outside, in order.

use reactor::Fd;
use reactor::sync::Notify;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vcpu::qtest::Qtest;

/// Bytes that may wait. Past that no command is taken, and levels of interrupt inputs are told only as
/// they are once there is room.
const FULL: usize = 256 * 1024;

struct State {
    text: String,
    log: String,
    logging: bool,
    opened: Instant,
    intercepting: bool,
    /// Of each input, what has been told and what is.
    levels: [(bool, bool); Qtest::INPUTS as usize],
    /// A request has been noted and not been replied to.
    busy: bool,
    /// The socket or the log has not taken all that was given to it.
    sending: bool,
    closed: bool,
}

/// Replies, interrupt lines and the log. Any thread adds; one task sends.
pub(crate) struct Outbox {
    state: Mutex<State>,
    grown: Notify,
    shrunk: Notify,
    /// Nothing is left to reply or to send.
    idle: Notify,
}

impl Outbox {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            text: String::new(),
            log: String::new(),
            logging: false,
            opened: Instant::now(),
            intercepting: false,
            levels: Default::default(),
            busy: false,
            sending: false,
            closed: true,
        };
        let (grown, shrunk, idle) = (Notify::new(), Notify::new(), Notify::new());
        Arc::new(Self { state: Mutex::new(state), grown, shrunk, idle })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program has connected.
    pub(super) fn open(&self, logging: bool) {
        let mut state = self.lock();
        (state.logging, state.closed, state.opened) = (logging, false, Instant::now());
        (state.levels, state.intercepting) = (Default::default(), false);
        state.text.clear();
        state.note('I', "OPENED");
        drop(state);
        self.grown.notify_one();
    }

    /// It has gone: [`Outbox::send`] ends once all is sent.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.note('I', "CLOSED");
        state.closed = true;
        drop(state);
        self.grown.notify_one();
    }

    /// Tells of changes of the interrupt inputs from now on.
    pub(super) fn intercept(&self) {
        self.lock().intercepting = true;
    }

    /// Interrupt input `n` has a new level. Any thread; never blocks.
    pub(crate) fn input(&self, n: u32, high: bool) {
        let mut state = self.lock();
        if !state.intercepting {
            return;
        }
        let Some(level) = state.levels.get_mut(n as usize) else { return };
        level.1 = high;
        if state.text.len() < FULL {
            state.tell(n as usize);
            drop(state);
            self.grown.notify_one();
        }
    }

    /// A request has been taken: its reply will follow.
    pub(super) fn note_request(&self, line: &str) {
        let mut state = self.lock();
        state.busy = true;
        state.note('R', line);
    }

    pub(super) fn reply(&self, line: &str) {
        let mut state = self.lock();
        state.busy = false;
        state.note('S', line);
        state.text.push_str(line);
        state.text.push('\n');
        drop(state);
        self.grown.notify_one();
    }

    /// Waits until the request that has been taken is replied to and all is sent.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = {
                let state = self.lock();
                let sent = !state.sending && state.text.is_empty() && state.log.is_empty();
                state.closed || (sent && !state.busy)
            };
            if idle {
                return;
            }
            self.idle.notified().await;
        }
    }

    /// Waits until less than the bound is left to send.
    pub(super) async fn room(&self) {
        loop {
            let full = {
                let state = self.lock();
                !state.closed && state.text.len().max(state.log.len()) >= FULL
            };
            if !full {
                return;
            }
            self.shrunk.notified().await;
        }
    }

    /// Sends what there is to `peer`, and its log to `log`, until closed. A task in `iohandler`.
    pub(super) async fn send(&self, peer: Fd, log: Option<Fd>) {
        loop {
            let (text, notes, closed) = {
                let mut state = self.lock();
                let taken = (std::mem::take(&mut state.text), std::mem::take(&mut state.log));
                // What there was no room for.
                for n in 0..state.levels.len() {
                    state.tell(n);
                }
                state.sending = !(taken.0.is_empty() && taken.1.is_empty());
                (taken.0, taken.1, state.closed)
            };
            self.idle.notify_one();
            if let (Some(log), false) = (&log, notes.is_empty()) {
                let (result, _) = reactor::io::write_all(log, notes.into_bytes()).await;
                if let Err(error) = result {
                    tracing::warn!(%error, "the qtest log is lost from here on");
                    self.lock().logging = false;
                }
            } else if text.is_empty() {
                if closed {
                    return;
                }
                self.grown.notified().await;
            }
            if !text.is_empty() {
                let (result, _) = reactor::io::send_all(&peer, text.into_bytes()).await;
                if let Err(error) = result {
                    tracing::debug!(%error, "the qtest peer has gone");
                    self.lock().closed = true;
                }
            }
            self.shrunk.notify_one();
        }
    }
}

impl State {
    fn note(&mut self, kind: char, text: &str) {
        if self.logging {
            let at = self.opened.elapsed();
            let (seconds, micros) = (at.as_secs(), at.subsec_micros());
            let _infallible = writeln!(self.log, "[{kind} +{seconds}.{micros:06}] {text}");
        }
    }

    /// A line about input `n`, if its level is news.
    fn tell(&mut self, n: usize) {
        let (told, high) = self.levels[n];
        if told == high {
            return;
        }
        self.levels[n].0 = high;
        let line = format!("IRQ {} {n}", if high { "raise" } else { "lower" });
        self.note('S', &line);
        self.text.push_str(&line);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outbox: &Outbox) -> String {
        outbox.lock().text.clone()
    }

    #[test]
    fn inputs_are_told_when_asked_for_and_in_order_with_replies() {
        let outbox = Outbox::new();
        outbox.open(false);
        outbox.input(4, true);
        outbox.intercept();
        // It was high before anybody listened.
        outbox.input(4, false);
        outbox.input(16, true);
        outbox.reply("OK");
        outbox.input(16, true);
        outbox.input(16, false);
        outbox.input(Qtest::INPUTS, true);
        assert_eq!(text(&outbox), "IRQ raise 16\nOK\nIRQ lower 16\n");
    }

    #[test]
    fn a_peer_that_does_not_read_costs_no_memory() {
        let outbox = Outbox::new();
        outbox.open(false);
        outbox.intercept();
        for n in 0..100_000u32 {
            outbox.input(5, n % 2 == 0);
        }
        outbox.input(5, true);
        assert!(text(&outbox).len() < FULL + 64);
        outbox.lock().text.clear();
        outbox.lock().tell(5);
        outbox.lock().tell(6);
        let last = text(&outbox);
        assert!(last == "IRQ raise 5\n" || last.is_empty(), "{last}");
        assert_eq!(outbox.lock().levels[5], (true, true));
    }

    #[test]
    fn the_log_has_the_form_of_qemu() {
        let outbox = Outbox::new();
        outbox.open(true);
        outbox.note_request("inb 0x70");
        outbox.reply("OK 0x0000");
        let log = outbox.lock().log.clone();
        let kinds: Vec<&str> = log.lines().map(|line| &line[..4]).collect();
        assert_eq!(kinds, ["[I +", "[R +", "[S +"]);
        assert!(log.lines().all(|line| line.split_once("] ").is_some()), "{log}");
    }
}
