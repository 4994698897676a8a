//! `-accel` and `-machine accel=`.

use super::keyval::KeyVal;
use crate::config::Accel;

/// Accelerators in the order in which they were named. Unknown ones are never usable, so they are passed
/// over as long as another follows.
#[derive(Default)]
pub(super) struct Accels {
    known: Vec<Accel>,
    unknown: Option<String>,
}

impl Accels {
    /// Takes a list such as `kvm:qtest`.
    pub(super) fn add(&mut self, list: &str) {
        for name in list.split(':') {
            match name {
                "kvm" => self.known.push(Accel::Kvm),
                "qtest" => self.known.push(Accel::Qtest),
                _ => self.unknown = Some(name.to_owned()),
            }
        }
    }

    /// `-accel`.
    pub(super) fn option(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("accel", value, Some("accel"))?;
        self.add(&kv.take("accel").unwrap_or_default());
        kv.finish("accel")
    }

    pub(super) fn finish(self) -> Result<Vec<Accel>, String> {
        match (self.known.is_empty(), self.unknown) {
            (true, None) => Ok(vec![Accel::Kvm]),
            (true, Some(name)) => {
                Err(format!("-accel: there is no accelerator '{name}'; there are kvm, qtest"))
            }
            (false, _) => Ok(self.known),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usable_accelerator_wins() {
        let accels = |lists: &[&str]| {
            let mut accels = Accels::default();
            for list in lists {
                accels.add(list);
            }
            accels.finish()
        };
        assert_eq!(accels(&[]), Ok(vec![Accel::Kvm]));
        assert_eq!(accels(&["tcg", "kvm:qtest"]), Ok(vec![Accel::Kvm, Accel::Qtest]));
        assert!(accels(&["tcg"]).unwrap_err().contains("'tcg'"));
    }
}
