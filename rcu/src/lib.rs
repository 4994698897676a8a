//! Read-copy-update: readers that never wait, reclamation that waits for them.

mod api;
mod bell;
mod callback;
mod cell;
mod domain;
mod drains;
mod grace;
mod handover;
mod home;
mod leader;
mod ledger;
mod list;
// Here and not in `list`, whose source `tests/loom.rs` builds as well.
#[cfg(test)]
#[path = "list/tests.rs"]
mod list_tests;
mod local;
mod membarrier;
mod part;
mod primitive;
mod stall;
mod stats;
mod threads;
mod tickets;
mod turn;
mod worker;

pub use api::{
    call_rcu, drain_call_rcu, drain_call_rcu_co, synchronize_rcu_co, throttle_call_rcu_co,
};
pub use cell::RcuCell;
pub use domain::{set_pending_max, set_stall_limit};
pub use list::{Cursor, Iter, RcuList, Writer};
pub use local::{Guard, assert_not_pinned, is_pinned, read};
pub use stall::{Stall, StallHandler, on_stall};
pub use stats::{Stats, stats};
pub use threads::{ForceNotifier, add_force_rcu_notifier};
pub use turn::turn_hook;
