//! The inputs of the interrupt controllers, each driven by any number of handles.

use super::IrqLine;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Inputs of the I/O APIC.
pub(crate) const INPUTS: u32 = 24;

/// Called with an input and its new level, under that input's lock.
type Drive = Box<dyn Fn(u32, bool) + Send + Sync>;

/// All inputs of one machine: each is high while any of its handles drives it.
pub(crate) struct Inputs {
    /// For each input, how many handles drive it high.
    users: Vec<Mutex<u32>>,
    drive: Drive,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these mutexes guard is whole between any two statements that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inputs {
    /// Inputs that are low; `drive` hears of each change in the order in which they happen.
    pub fn new(drive: impl Fn(u32, bool) + Send + Sync + 'static) -> Arc<Self> {
        let users = (0..INPUTS).map(|_| Mutex::new(0)).collect();
        Arc::new(Self { users, drive: Box::new(drive) })
    }

    /// A handle on input `gsi`.
    pub fn line(self: &Arc<Self>, gsi: u32) -> Arc<dyn IrqLine> {
        if gsi >= INPUTS {
            tracing::error!(gsi, "no such interrupt input; it will be silent");
        }
        Arc::new(Line { inputs: Arc::clone(self), gsi, high: Mutex::new(false) })
    }
}

/// One of the handles that drive an input.
struct Line {
    inputs: Arc<Inputs>,
    gsi: u32,
    high: Mutex<bool>,
}

impl IrqLine for Line {
    fn set_level(&self, high: bool) {
        let Some(users) = self.inputs.users.get(self.gsi as usize) else { return };
        let mut mine = lock(&self.high);
        if *mine == high {
            return;
        }
        *mine = high;
        // Held over the call, so that two handles cannot get there in the wrong order.
        let mut users = lock(users);
        let before = *users;
        *users = if high { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*users == 0) {
            (self.inputs.drive)(self.gsi, high);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set_level(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_high_while_any_handle_drives_it() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let inputs = Inputs::new(move |gsi, high| lock(&log).push((gsi, high)));
        let (a, b) = (inputs.line(4), inputs.line(4));
        a.set_level(true);
        a.set_level(true);
        b.set_level(true);
        a.set_level(false);
        inputs.line(INPUTS).set_level(true);
        assert_eq!(*lock(&seen), [(4, true)]);
        drop(b);
        assert_eq!(*lock(&seen), [(4, true), (4, false)]);
    }
}
