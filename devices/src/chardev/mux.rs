//! Several front ends on one connection: what is typed goes to one of them, Ctrl-A C to the next.

use super::connection::{Connection, stream_pair};
use super::escape::{Escape, HELP, Typed};
use super::slot::{FrontEnd, FrontEndKind, Slot};
use reactor::sync::Notify;
use reactor::{Fd, io};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Front ends at most, as in QEMU.
pub(super) const FRONT_ENDS_MAX: usize = 4;

/// Ctrl-A X.
pub(super) type Exit = Arc<dyn Fn() + Send + Sync>;

/// Holds input back while a machine is being put together: what is typed early goes to a front end that
/// is not there yet.
#[derive(Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::Release);
        self.opened.notify_all();
    }

    async fn passed(&self) {
        loop {
            // Before the look at the flag: what opens it after that counts.
            let opened = self.opened.notified();
            if !self.closed.load(Ordering::Acquire) {
                return;
            }
            opened.await;
        }
    }
}

/// What the front ends and the reader of the base share.
#[derive(Default)]
pub(super) struct Mux {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fronts: Vec<Front>,
    focus: usize,
    base: Option<Base>,
}

/// The connection of the base, as the front ends see it.
struct Base {
    output: Fd,
    ends_with_input: bool,
}

struct Front {
    slot: Arc<Slot>,
    kind: FrontEndKind,
    /// Where its input goes in, while it has a connection.
    input: Option<Fd>,
}

impl Front {
    fn connect(&mut self, base: &Base) {
        let pair = match stream_pair() {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(%error, "a front end cannot be connected");
                return;
            }
        };
        let input = Some(pair.1);
        let connection = Connection::streams(input, base.output.clone(), base.ends_with_input);
        // Its end shows when input for it cannot be written.
        drop(self.slot.offer(connection, "mux".to_owned()));
        self.input = Some(pair.0);
    }
}

impl State {
    /// A monitor for people begins when it is first looked at; others at once.
    fn connect(&mut self) {
        let Some(base) = &self.base else { return };
        for (n, front) in self.fronts.iter_mut().enumerate() {
            let due = n == self.focus || front.kind != FrontEndKind::Readline;
            if due && front.input.is_none() {
                front.connect(base);
            }
        }
    }
}

impl Mux {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a front end uses it.
    pub(super) fn in_use(&self) -> bool {
        self.lock().fronts.iter().any(|front| front.slot.frontend().is_some())
    }

    /// Adds a front end, unless there are too many. A device gets the focus.
    pub(super) fn attach(&self, slot: Arc<Slot>, kind: FrontEndKind) -> bool {
        let mut state = self.lock();
        state.fronts.retain(|front| front.slot.frontend().is_some());
        if state.fronts.len() >= FRONT_ENDS_MAX || !slot.attach(kind) {
            return false;
        }
        state.fronts.push(Front { slot, kind, input: None });
        let last = state.fronts.len() - 1;
        let focused = state.fronts.get(state.focus).map(|front| front.kind);
        if kind == FrontEndKind::Device || focused.is_none() {
            state.focus = last;
        }
        state.connect();
        true
    }

    /// A break condition goes where input goes.
    pub(super) fn send_break(&self) {
        let focused = {
            let state = self.lock();
            state.fronts.get(state.focus).map(|front| Arc::clone(&front.slot))
        };
        if let Some(slot) = focused {
            slot.send_break();
        }
    }

    fn begin(&self, base: &Connection) {
        let mut state = self.lock();
        let (output, ends_with_input) = (base.output.clone(), base.ends_with_input);
        state.base = Some(Base { output, ends_with_input });
        state.connect();
    }

    fn end(&self) {
        let mut state = self.lock();
        state.base = None;
        for front in &mut state.fronts {
            front.input = None;
            front.slot.disconnected();
        }
    }

    /// Where input goes now.
    fn target(&self) -> Option<Fd> {
        let state = self.lock();
        state.fronts.get(state.focus)?.input.clone()
    }

    /// The focus goes to the next front end. A monitor for people that was there before shows its
    /// prompt again: the returned socket takes an empty line.
    fn switch(&self) -> Option<Fd> {
        let mut state = self.lock();
        state.focus = (state.focus + 1) % state.fronts.len().max(1);
        let front = state.fronts.get(state.focus)?;
        let known = front.input.clone().filter(|_| front.kind == FrontEndKind::Readline);
        state.connect();
        known
    }

    /// A line ends where the focus leaves a monitor.
    fn leaves_monitor(&self) -> Option<Fd> {
        let state = self.lock();
        let front = state.fronts.get(state.focus)?;
        let readline = front.kind == FrontEndKind::Readline && state.fronts.len() > 1;
        state.base.as_ref().filter(|_| readline).map(|base| base.output.clone())
    }
}

/// Reads what is typed and hands it to the front ends, for ever.
pub(super) async fn keep(mux: Arc<Mux>, base: FrontEnd, exit: Exit, gate: Arc<Gate>) {
    loop {
        gate.passed().await;
        let connection = base.connection().await;
        mux.begin(&connection);
        let mut escape = Escape::default();
        if let Some(input) = &connection.input {
            serve(&mux, input, &connection.output, &mut escape, &exit).await;
        }
        if !connection.ends_with_input {
            // The end of the input is not the end of the output.
            std::future::pending::<()>().await;
        }
        mux.end();
    }
}

async fn serve(mux: &Mux, input: &Fd, output: &Fd, escape: &mut Escape, exit: &Exit) {
    let mut buffer = vec![0; 256];
    loop {
        let (result, back) = io::read(input, buffer).await;
        buffer = back;
        let bytes = match result {
            Ok(0) => return,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        for typed in escape.split(bytes) {
            match typed {
                Typed::Bytes(bytes) => write(mux.target(), bytes).await,
                Typed::Help => write(Some(output.clone()), HELP.as_bytes().to_vec()).await,
                Typed::Exit => exit(),
                Typed::Switch => {
                    write(mux.leaves_monitor(), b"\r\n".to_vec()).await;
                    write(mux.switch(), b"\r".to_vec()).await;
                }
            }
        }
    }
}

/// Writes where there is somebody; what nobody takes is lost.
async fn write(to: Option<Fd>, bytes: Vec<u8>) {
    if let Some(to) = to {
        // It fails when a front end has gone.
        let _ = io::write_all(&to, bytes).await;
    }
}
