//! The callbacks of one batch that belong to one home.

use crate::callback::Chain;
use crate::domain::DOMAIN;
use crate::home::Mail;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

/// Callbacks whose grace period is over. Dropped with callbacks left, it goes to the shared home, so
/// that a context which stops loses none.
pub(crate) struct Part {
    batch: u64,
    chain: Option<Chain>,
}

impl Part {
    pub(crate) fn new(batch: u64, chain: Chain) -> Self {
        Self { batch, chain: Some(chain) }
    }

    /// Runs up to `count` callbacks. True when none is left; the batch knows it then.
    pub(crate) fn run(&mut self, count: usize) -> bool {
        let Some(chain) = &mut self.chain else { return true };
        let mut ran = 0;
        while ran < count && !chain.is_empty() {
            let before = ran;
            // One frame for many callbacks; a panic costs its own callback and goes on with the next.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                while ran < count {
                    // Counted first, so that one that panics is counted too.
                    ran += 1;
                    if !chain.run_one() {
                        ran -= 1;
                        return;
                    }
                }
            }));
            if outcome.is_err() {
                DOMAIN.stats.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("a callback of call_rcu panicked");
            }
            debug_assert!(ran > before, "each round consumes a callback");
        }
        let finished = chain.is_empty();
        if finished {
            self.chain = None;
        }
        // After they have run: who finds nothing pending knows that everything has run.
        DOMAIN.pending.fetch_sub(ran, Ordering::SeqCst);
        DOMAIN.stats.run.fetch_add(ran as u64, Ordering::Relaxed);
        DOMAIN.ledger.count(self.batch, ran);
        if finished {
            DOMAIN.ledger.release(self.batch);
        }
        finished
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(chain) = self.chain.take() {
            DOMAIN.shared.send(Mail::Run(Self { batch: self.batch, chain: Some(chain) }));
        }
    }
}
