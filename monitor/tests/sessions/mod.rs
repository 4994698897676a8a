//! Sessions of bytes for tests: the corpus of the fuzz target, and mutations of it.

use proptest::prelude::*;
use std::path::Path;

/// The sessions of the corpus, and what fuzzing has found before.
pub fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/session");
    let files = std::fs::read_dir(folder).unwrap();
    let sessions: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(sessions.len() > 20, "the corpus is there");
    sessions
}

/// A session of seeds, each with a few bytes changed, cut out, doubled or put in.
pub fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(br#"{}[]:,"'\ 0eE-.u"#.to_vec())];
    let mutation = (any::<prop::sample::Index>(), 0u8..5, byte);
    let seed = (prop::sample::select(corpus()), prop::collection::vec(mutation, 0..4));
    prop::collection::vec(seed, 1..8).prop_map(|seeds| {
        let mut session = Vec::new();
        for (mut bytes, mutations) in seeds {
            for (index, how, byte) in mutations {
                mutate(&mut bytes, index, how, byte);
            }
            session.extend(bytes);
        }
        session
    })
}

fn mutate(bytes: &mut Vec<u8>, index: prop::sample::Index, how: u8, byte: u8) {
    let at = index.index(bytes.len() + 1);
    match how {
        0 if at < bytes.len() => bytes[at] = byte,
        1 if at < bytes.len() => drop(bytes.remove(at)),
        2 => bytes.truncate(at),
        3 => bytes.extend_from_within(..at),
        _ => bytes.insert(at, byte),
    }
}
