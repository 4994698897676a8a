//! The operations in flight on one ring.
//!
//! ```text
//!   Waiting ── completion ──▶ Done ── taken by its future
//!      └────── future dropped ──▶ Orphaned ── last completion ── memory freed
//!   Multi ──── completions ──▶ its queue ── taken by its stream
//!      └────── stream dropped ──▶ Orphaned
//!   Grouped ── completions ──▶ its group's ready list
//! ```

use crate::drain::InFlight;
use crate::group::Inner as Group;
use crate::op::token::{Kind, Token};
use crate::ring::Cqe;
use slab::Slab;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

/// Owns what the kernel may still use after the future has gone.
pub(crate) trait Orphan: Send {
    /// A completion for which nobody waits any more; a descriptor or buffer that it brings must not leak.
    fn completed(&mut self, cqe: Cqe);
}

/// What a multishot operation does with completions that wait to be taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// Results are sets of bits: united into one.
    Unite,
    /// Kept in their order. More than so many end the operation, and taking them starts it again.
    Keep(usize),
}

/// A multishot operation and the completions that wait to be taken.
pub(crate) struct Multi {
    queue: VecDeque<Cqe>,
    backlog: Backlog,
    waker: Option<Waker>,
    /// The last completion has come.
    ended: bool,
    /// It is being cancelled for its backlog: how that ends is nobody's concern.
    overrun: bool,
}

impl Multi {
    pub(crate) fn new(backlog: Backlog, waker: Waker) -> Self {
        let queue = VecDeque::new();
        Self { queue, backlog, waker: Some(waker), ended: false, overrun: false }
    }

    /// Takes a completion in; true when the operation is to be cancelled.
    fn add(&mut self, cqe: Cqe) -> bool {
        self.ended = !cqe.more();
        if self.overrun && cqe.result == -libc::ECANCELED {
            return false;
        }
        match (self.backlog, self.queue.back_mut()) {
            (Backlog::Unite, Some(last)) if last.result >= 0 && cqe.result >= 0 => {
                last.result |= cqe.result;
            }
            _ => self.queue.push_back(cqe),
        }
        let full = matches!(self.backlog, Backlog::Keep(limit) if self.queue.len() >= limit);
        let cancel = full && !self.ended && !self.overrun;
        self.overrun |= cancel;
        cancel
    }
}

pub(crate) enum State {
    Waiting(Waker),
    Done(Cqe),
    Multi(Box<Multi>),
    Orphaned(Box<dyn Orphan>),
    /// The orphan is out, looking at a completion that is not the last.
    Adopted,
    Grouped {
        group: Rc<Group>,
        token: u64,
        /// Counts for whoever drains the group.
        tag: Option<InFlight>,
    },
}

struct Entry {
    generation: u32,
    state: State,
}

/// What the loop does with a completion, once the table is no longer borrowed.
pub(crate) enum Completed {
    Nothing,
    Wake(Waker),
    /// Wake who takes completions, if anybody waits, and cancel the operation: its backlog is full.
    Overrun(Option<Waker>),
    Orphan(Box<dyn Orphan>),
    /// The group, the caller's number, and what counts the operation if it has ended.
    Group(Rc<Group>, u64, Option<InFlight>),
}

/// What a poll for the next completion of an operation found.
pub(crate) enum Next {
    Ready(Cqe),
    /// Nothing yet, and the waker is known.
    Pending,
    /// Nothing yet, and the waker is to be registered: cloning one is not for inside a borrow.
    Register,
    /// A multishot operation is over: it is no longer in the table.
    Ended,
}

pub(crate) struct OpTable {
    entries: Slab<Entry>,
    next_generation: u32,
}

impl OpTable {
    pub(crate) fn new() -> Self {
        Self { entries: Slab::new(), next_generation: 1 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn insert(&mut self, state: State) -> Token {
        let generation = self.next_generation & 0x00ff_ffff;
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.entries.insert(Entry { generation, state });
        Token::op(generation, u32::try_from(slot).expect("fewer than 2^32 operations in flight"))
    }

    fn entry(&mut self, token: Token) -> &mut Entry {
        let entry = self.entries.get_mut(token.slot as usize);
        match entry {
            Some(entry) if entry.generation == token.generation => entry,
            _ => panic!("{token:?} names no operation in flight: the ring's bookkeeping is broken"),
        }
    }

    /// Whether the operation has not had its last completion taken.
    pub(crate) fn is_in_flight(&self, token: Token) -> bool {
        let entry = self.entries.get(token.slot as usize);
        entry.is_some_and(|entry| {
            entry.generation == token.generation && !matches!(entry.state, State::Done(_))
        })
    }

    /// Takes the result of a finished operation, or the next one of a multishot operation.
    pub(crate) fn poll(&mut self, token: Token, waker: &Waker) -> Next {
        let entry = self.entry(token);
        let waiting = match &mut entry.state {
            State::Waiting(waiting) => Some(&*waiting),
            State::Done(cqe) => {
                let cqe = *cqe;
                self.entries.remove(token.slot as usize);
                return Next::Ready(cqe);
            }
            State::Multi(multi) => {
                if let Some(cqe) = multi.queue.pop_front() {
                    return Next::Ready(cqe);
                }
                if multi.ended {
                    self.entries.remove(token.slot as usize);
                    return Next::Ended;
                }
                multi.waker.as_ref()
            }
            _ => panic!("{token:?} is not an operation that a future waits for"),
        };
        if waiting.is_some_and(|waiting| waiting.will_wake(waker)) {
            Next::Pending
        } else {
            Next::Register
        }
    }

    /// Leaves `waker` to be woken; the one that it replaces is the caller's to drop.
    pub(crate) fn register(&mut self, token: Token, waker: Waker) -> Option<Waker> {
        match &mut self.entry(token).state {
            State::Waiting(waiting) => Some(std::mem::replace(waiting, waker)),
            State::Multi(multi) => multi.waker.replace(waker),
            _ => panic!("{token:?} is not an operation that a future waits for"),
        }
    }

    /// The completions that nobody has taken; the future is gone.
    pub(crate) fn take_completions(&mut self, token: Token) -> Vec<Cqe> {
        match &mut self.entry(token).state {
            State::Done(cqe) => vec![*cqe],
            State::Multi(multi) => std::mem::take(&mut multi.queue).into(),
            _ => Vec::new(),
        }
    }

    /// The future is gone: keeps `orphan` for the completions to come, if there are any.
    pub(crate) fn orphan(&mut self, token: Token, orphan: Box<dyn Orphan>) -> Orphaned {
        let entry = self.entry(token);
        let over = match &entry.state {
            State::Done(_) => true,
            State::Multi(multi) => multi.ended,
            _ => false,
        };
        if over {
            self.entries.remove(token.slot as usize);
            return Orphaned::Over(orphan);
        }
        match std::mem::replace(&mut entry.state, State::Orphaned(orphan)) {
            State::Waiting(waker) => Orphaned::Kept(Some(waker)),
            State::Multi(multi) => Orphaned::Kept(multi.waker),
            _ => panic!("{token:?} is not an operation that a future waited for"),
        }
    }

    /// Gives an orphan back that has looked at a completion.
    pub(crate) fn keep(&mut self, token: Token, orphan: Box<dyn Orphan>) {
        self.entry(token).state = State::Orphaned(orphan);
    }

    /// Takes a completion into account.
    pub(crate) fn complete(&mut self, token: Token, cqe: Cqe) -> Completed {
        debug_assert_eq!(token.kind, Kind::Op);
        let last = !cqe.more();
        let entry = self.entry(token);
        match &mut entry.state {
            State::Waiting(_) => {
                assert!(last, "{token:?} is not multishot, and yet has more completions to come");
                match std::mem::replace(&mut entry.state, State::Done(cqe)) {
                    State::Waiting(waker) => Completed::Wake(waker),
                    _ => unreachable!("matched above"),
                }
            }
            State::Multi(multi) => {
                if multi.add(cqe) {
                    Completed::Overrun(multi.waker.take())
                } else {
                    multi.waker.take().map_or(Completed::Nothing, Completed::Wake)
                }
            }
            State::Orphaned(_) => {
                let state = if last {
                    self.entries.remove(token.slot as usize).state
                } else {
                    std::mem::replace(&mut entry.state, State::Adopted)
                };
                match state {
                    State::Orphaned(orphan) => Completed::Orphan(orphan),
                    _ => unreachable!("matched above"),
                }
            }
            State::Grouped { group, token: number, .. } if !last => {
                Completed::Group(Rc::clone(group), *number, None)
            }
            State::Grouped { .. } => match self.entries.remove(token.slot as usize).state {
                State::Grouped { group, token: number, tag } => {
                    Completed::Group(group, number, tag)
                }
                _ => unreachable!("matched above"),
            },
            State::Done(_) | State::Adopted => {
                panic!("{token:?} completed twice: the ring's bookkeeping is broken")
            }
        }
    }

    /// The operations of `group` in flight.
    pub(crate) fn tokens_of(&self, group: &Rc<Group>) -> Vec<Token> {
        self.entries
            .iter()
            .filter(|(_, entry)| {
                matches!(&entry.state, State::Grouped { group: owner, .. } if Rc::ptr_eq(owner, group))
            })
            .map(|(slot, entry)| Token::op(entry.generation, slot as u32))
            .collect()
    }
}

/// What [`OpTable::orphan`] found.
pub(crate) enum Orphaned {
    /// No completion is to come: the orphan may go.
    Over(Box<dyn Orphan>),
    /// The table keeps the orphan; the waker is the caller's to drop.
    Kept(Option<Waker>),
}
