//! What the fuzz target in monitor/fuzz checks, for its corpus and for mutations of it: where there is
//! no nightly toolchain, and where a failing case shrinks.
//!
//! `PROPTEST_CASES` says how many mutations.

mod sessions;

#[path = "../fuzz/src/lib.rs"]
mod session;

use proptest::prelude::*;

#[test]
fn the_corpus_holds() {
    for session in sessions::corpus() {
        session::check(&session);
    }
}

proptest! {
    #[test]
    fn mutations_of_the_corpus_hold(session in sessions::mutated()) {
        session::check(&session);
    }
}
