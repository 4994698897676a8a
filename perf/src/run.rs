//! Runs benches, all sides in turn, so that a drift of the machine hits them alike.

use crate::case::{Bench, Outcome, Series, Side};
use crate::lab::Lab;
use crate::progress::Progress;
use crate::samples::Measured;
use crate::{Error, host};

/// Measures all benches: round by round ringvisor, peer, limit.
///
/// A side whose measurement fails is left out of that bench from then on, and the results say why.
pub fn run(lab: &Lab, benches: &[Bench], progress: &mut Progress) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    for bench in benches {
        outcomes.extend(run_one(lab, bench, progress)?);
    }
    progress.finish();
    Ok(outcomes)
}

/// Rounds of a bench: a quick run makes two at most.
pub fn rounds_of(lab: &Lab, bench: &Bench) -> u32 {
    if lab.is_quick() { bench.rounds.min(2) } else { bench.rounds }
}

fn run_one(lab: &Lab, bench: &Bench, progress: &mut Progress) -> Result<Vec<Outcome>, Error> {
    let mut series: Vec<[Series; 3]> = bench.cases.iter().map(|_| Default::default()).collect();
    let mut failed: [Option<String>; 3] = Default::default();
    for _ in 0..rounds_of(lab, bench) {
        for (index, side) in Side::ALL.into_iter().enumerate() {
            let Some(case) = bench.cases.first() else { continue };
            progress.step(case.suite, &case.name, side);
            let result = match &failed[index] {
                Some(why) => Err(Error::unexpected(why.clone())),
                None if side == Side::Peer && !lab.has_peer() => Ok(Vec::new()),
                None => (bench.measure)(lab, side),
            };
            host::bind_thread(0, lab.cpus())?;
            let measured = match result {
                Ok(measured) => measured,
                Err(error) => {
                    let why = error.to_string();
                    if failed[index].is_none() {
                        progress.note(&format!("{}: {}: {side:?}: {why}", case.suite, case.name));
                    }
                    failed[index] = Some(why.clone());
                    vec![Measured::Cannot(why); bench.cases.len()]
                }
            };
            for ((case, series), measured) in bench.cases.iter().zip(&mut series).zip(&measured) {
                series[index].add(case, measured);
            }
        }
    }
    Ok(bench.cases.iter().zip(&series).map(|(case, series)| Outcome::new(case, series)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn sides_take_turns_and_a_failure_stays_its_own() {
        let lab = Lab::new("/bin/true".into(), Some("/bin/true".into()), false).unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&order);
        let cases = vec![Case::less("s", "a", "size", "KiB").goal(Side::Peer, 2.0)];
        let bench = Bench::new(cases, move |_, side| {
            seen.borrow_mut().push(side);
            match side {
                Side::Ours => Ok(vec![Measured::Value(3.0)]),
                Side::Peer => Ok(vec![Measured::Value(2.0)]),
                Side::Limit => Err(Error::unexpected("broken")),
            }
        })
        .rounds(3);
        let outcomes = run(&lab, &[bench], &mut Progress::silent()).unwrap();
        let round = [Side::Ours, Side::Peer];
        let expected: Vec<Side> = [&round[..], &[Side::Limit], &round, &round].concat();
        assert_eq!(*order.borrow(), expected, "the broken one is not tried again");
        assert_eq!((outcomes.len(), outcomes[0].met()), (1, Some(true)));
        assert_eq!(outcomes[0].notes, ["limit: broken"]);
        assert_eq!(outcomes[0].ours.as_ref().unwrap().rounds, [3.0; 3]);
    }
}
