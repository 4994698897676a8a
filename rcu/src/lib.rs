//! Read-copy-update: readers that never wait, reclamation that waits for them.
//!
//! A reader opens a section with [`read`] and may use whatever it finds through [`RcuCell`] until
//! the [`Guard`] is dropped. A writer publishes a new version and hands the old one to
//! [`call_rcu`], which runs a function once every section that might see the old one has ended.
//!
//! RCU state belongs to the process: threads register themselves at their first read and leave at
//! their end, reactors pin themselves for the length of a turn ([`turn_hook`]).

mod cell;
mod local;
mod reclaim;

pub use cell::RcuCell;
pub use local::{Guard, assert_not_pinned, is_pinned, read};
pub use reclaim::{call_rcu, drain_call_rcu, drain_call_rcu_co, synchronize_rcu_co};
