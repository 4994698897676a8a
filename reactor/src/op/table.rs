//! The operations in flight on one ring.
//!
//! ```text
//!   Waiting ── completion ──▶ Done ── taken by its future
//!      └────── future dropped ──▶ Orphaned ── completion ── buffers freed
//!   Grouped ── completion ──▶ its group's ready list
//! ```

use crate::group::Inner as Group;
use crate::op::token::{Kind, Token};
use crate::ring::Cqe;
use slab::Slab;
use std::rc::Rc;
use std::task::Waker;

/// Owns what the kernel may still use after the future has gone.
pub(crate) trait Orphan: Send {
    /// The operation has ended with `result`; a descriptor it made must not leak.
    fn ended(self: Box<Self>, result: i32);
}

pub(crate) enum State {
    Waiting(Waker),
    Done(i32),
    Orphaned(Box<dyn Orphan>),
    Grouped { group: Rc<Group>, token: u64 },
}

struct Entry {
    generation: u32,
    state: State,
}

/// What the loop does with a completion, once the table is no longer borrowed.
pub(crate) enum Completed {
    Wake(Waker),
    Orphan(Box<dyn Orphan>, i32),
    Group(Rc<Group>, u64, i32),
}

pub(crate) struct OpTable {
    entries: Slab<Entry>,
    next_generation: u32,
}

impl OpTable {
    pub(crate) fn new() -> Self {
        Self { entries: Slab::with_capacity(64), next_generation: 1 }
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

    /// Takes the result of a finished operation, or leaves `waker` to be woken.
    pub(crate) fn poll(&mut self, token: Token, waker: &Waker) -> Option<i32> {
        let entry = self.entry(token);
        match &mut entry.state {
            State::Waiting(waiting) => {
                if !waiting.will_wake(waker) {
                    waiting.clone_from(waker);
                }
                None
            }
            State::Done(result) => {
                let result = *result;
                self.entries.remove(token.slot as usize);
                Some(result)
            }
            State::Orphaned(_) | State::Grouped { .. } => {
                panic!("{token:?} is not an operation that a future waits for")
            }
        }
    }

    /// The future is gone: returns the result when the operation has ended already, else keeps
    /// `orphan` until it has.
    pub(crate) fn orphan(&mut self, token: Token, orphan: Box<dyn Orphan>) -> OrphanOutcome {
        let entry = self.entry(token);
        if let State::Done(result) = entry.state {
            self.entries.remove(token.slot as usize);
            return OrphanOutcome::Ended(orphan, result);
        }
        OrphanOutcome::Kept(std::mem::replace(&mut entry.state, State::Orphaned(orphan)))
    }

    /// Takes a completion into account.
    pub(crate) fn complete(&mut self, token: Token, cqe: &Cqe) -> Completed {
        debug_assert_eq!(token.kind, Kind::Op);
        let entry = self.entry(token);
        if let State::Waiting(_) = entry.state {
            let State::Waiting(waker) =
                std::mem::replace(&mut entry.state, State::Done(cqe.result))
            else {
                unreachable!("matched above")
            };
            return Completed::Wake(waker);
        }
        match self.entries.remove(token.slot as usize).state {
            State::Orphaned(orphan) => Completed::Orphan(orphan, cqe.result),
            State::Grouped { group, token } => Completed::Group(group, token, cqe.result),
            State::Waiting(_) | State::Done(_) => {
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
pub(crate) enum OrphanOutcome {
    /// Already over: the caller ends the orphan.
    Ended(Box<dyn Orphan>, i32),
    /// The table keeps it; the old state (a waker) is the caller's to drop.
    Kept(#[expect(dead_code, reason = "dropped by the caller, outside the table's borrow")] State),
}
