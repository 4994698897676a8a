//! Read-copy-update: readers that never wait, reclamation that waits for them.
//!
//! A reader opens a section with [`read`] and uses what it finds in an [`RcuCell`] or [`RcuList`] until it drops the
//! [`Guard`]. A writer publishes a new version; the old one goes through [`call_rcu`], which runs a function once every
//! section that could see it has ended. The state is the process's: any thread may read, threads register themselves and
//! leave when they end, and any number of runtimes may come and go.
//!
//! | what | where | called from | blocks |
//! |---|---|---|---|
//! | [`read`], [`Guard`], [`is_pinned`], [`assert_not_pinned`] | `local` | any thread | never |
//! | [`RcuCell`], [`RcuList`] | `cell`, `list` | any thread; a list's writer: one context | never |
//! | [`call_rcu`] | `api` | any thread | never |
//! | [`drain_call_rcu_co`], [`synchronize_rcu_co`], [`throttle_call_rcu_co`] | `api`, `drains` | tasks | no, they are awaited |
//! | [`drain_call_rcu`], [`throttle_call_rcu`] | `api` | threads outside reactors and sections | yes |
//! | [`turn_hook`] | `turn` | who starts the reactors | never |
//! | [`stats()`], [`set_stall_limit`], [`set_pending_max`], [`on_stall`], [`add_force_rcu_notifier`] | `stats`, `domain`, `stall`, `threads` | any thread | never |
//! | queues of callbacks, who drives | `callback`, `handover`, `home` | `call_rcu` | never |
//! | batches, grace periods, running callbacks | `leader`, `grace`, `part`, `worker`, `ledger`, `tickets` | the task or thread `rcu` | never |
//! | the end of a section wakes who waits | `bell`, `membarrier` | readers, the one who leads | never |
//!
//! # Grace periods
//!
//! Epochs are crossbeam-epoch's, in a collector of our own. What is deferred there is a token of one word that notes
//! that its grace period is over and wakes who waits for it: the collector runs it on any thread that happens to collect,
//! readers included, so it does nothing else. Callbacks run where they were queued: in the task `rcu` of that context, or,
//! for all threads that are no reactors, on the thread `rcu`, which is started at the first use.
//!
//! Whoever queues the first callback leads: its own context closes the batch, waits one grace period for it and sends
//! each context its part. Nobody else has to be woken for that (30 us for a CPU that sleeps on the development machines,
//! twice if a thread of its own did it). A batch is closed as soon as the last one has passed, and holds all that everybody
//! has queued by then. The lead stays where more callbacks are, is handed over where only others have some, and is given up
//! when nobody has; a context that stops leaves its lead and its callbacks to the thread `rcu`.
//!
//! A reactor is pinned for the length of its turn ([`turn_hook`]), so sections inside only count. Who leads inside its own turn
//! moves its own pin along. A guard that a local task keeps across an `.await` holds its context pinned: nothing breaks,
//! grace periods wait, and the stall report names the place.
//!
//! Nobody polls. Readers that are in the way when a grace period begins are tried again for 3 us, which outlasts most sections;
//! then they are marked, and the last of them to leave wakes who leads. A reader that stays longer than
//! [a limit](set_stall_limit) is reported by thread and place, and kicked before that if it has a
//! [notifier](add_force_rcu_notifier).
//!
//! # Memory
//!
//! `call_rcu` costs one allocation, which it frees when it runs. Nothing slows down who queues callbacks; who does
//! so on a guest's orders awaits [`throttle_call_rcu_co`] (or calls [`throttle_call_rcu`]), which waits while more than
//! [a bound](set_pending_max) are pending. Beyond the bound, readers in the way are kicked at once and callbacks run in larger
//! portions. At the end of a process, [`drain_call_rcu`] after [`reactor::run`] makes sure that every destructor has run.
//!
//! # Fences and their partners
//!
//! | here | does | pairs with |
//! |---|---|---|
//! | `Record::pinning`, then the collector's pin | full fence: pinned before reading | `Grace::begin`: the fence before the token is sealed, after the unlinking |
//! | `RcuCell::publish`, `Writer::insert`, `Writer::unlink` | Release: made before it can be found | `RcuCell::read`, `RcuList::iter`, `Iter::next`: Acquire |
//! | `Writer::drop` | Release: what this writer did | `RcuList::try_write`: Acquire |
//! | `Bell::leave` | unpinned before the mark is read; compiler fence, the `membarrier` of `Grace::look` does the rest | `Grace::look`: marked before the second look at the reader |
//! | `Bell::leave_fenced` | the same with a fence of its own: turns, and everybody where there is no `membarrier` | `Bell::ask` |
//! | `Record::unpinned` | Release: the epoch is unpinned before the record says so | `Pinned::is_still`, `Threads::pinned`: Acquire |
//! | `Bell::ask` | Release: a mark is counted before it is set | `Bell::clear`: AcqRel, whoever takes it off counts it down |
//! | `CallbackQueue::push` | Release: the callback, and what was unlinked before | `CallbackQueue::take`: Acquire |
//! | `CallbackQueue::take` | Release: the list's link was read before | `CallbackQueue::push` that finds the queue empty: Acquire |
//! | `ActiveList::add` | Release: the queue is filled and linked | `ActiveList::take`, `newest`: Acquire |
//! | `Seat::claim` | work is visible before the seat is read: fence | `Seat::resign`: fence, the seat is empty before work is looked for |
//! | `Seat::resign` | Release: what the last leader did | `Seat::claim`: Acquire |
//! | the token of `Grace::begin` | Release: the grace period is over | `Grace::is_over`: Acquire |
//! | `Ledger::release` | Release: the batch's callbacks have run | `Ledger::complete`: Acquire |
//! | `Domain::queue`: `pending` is raised before the push | SeqCst | `Drained::of_everything_queued`: nothing pending, nothing queued before |
//!
//! All but the collector's are modelled with loom in `tests/loom.rs`, over the crate's own sources.

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
    call_rcu, drain_call_rcu, drain_call_rcu_co, synchronize_rcu_co, throttle_call_rcu,
    throttle_call_rcu_co,
};
pub use cell::RcuCell;
pub use domain::{set_pending_max, set_stall_limit};
pub use list::{Cursor, Iter, RcuList, Writer};
pub use local::{Guard, assert_not_pinned, is_pinned, read};
pub use stall::{Stall, StallHandler, on_stall};
pub use stats::{Stats, stats};
pub use threads::{ForceNotifier, add_force_rcu_notifier};
pub use turn::turn_hook;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
