//! Reactors read at the nested price: their threads are pinned for the length of a turn.

use crate::local::{Local, with_local};
use std::sync::Arc;

struct TurnPin;

impl reactor::TurnHook for TurnPin {
    fn turn_begin(&self) {
        with_local(Local::begin_turn);
    }

    fn turn_end(&self) {
        with_local(Local::end_turn);
    }
}

/// The hook to put into [`reactor::Config::hooks`]: pins each context's thread while a turn lasts and unpins
/// it before it may sleep, so that [`read`](crate::read) inside costs 1 to 2 ns. RCU works without it; reads
/// on reactors then cost what they cost elsewhere.
///
/// A turn that lasts long holds up grace periods, which the stall report tells.
///
/// Registers the process for `membarrier(2)`: at no cost while it has one thread, so that it is best called
/// before any is started; later the kernel waits for a grace period of its own, 10 ms and more.
pub fn turn_hook() -> Arc<dyn reactor::TurnHook> {
    // Readers do without where it is not to be had.
    let _registered = crate::membarrier::is_available();
    Arc::new(TurnPin)
}
