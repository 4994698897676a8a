//! The device status register (Virtual I/O Device 1.2, sections 2.1 and 3.1.1).

/// The guest has noticed the device.
pub const ACKNOWLEDGE: u8 = 1;
/// The guest knows how to drive the device.
pub const DRIVER: u8 = 2;
/// The driver is set up and the device live.
pub const DRIVER_OK: u8 = 4;
/// The driver and the device agree on the features.
pub const FEATURES_OK: u8 = 8;
/// The device has met an error that only a reset ends.
pub const NEEDS_RESET: u8 = 64;
/// The driver has given up.
pub const FAILED: u8 = 128;

const STARTED: u8 = ACKNOWLEDGE | DRIVER;
const NEGOTIATED: u8 = STARTED | FEATURES_OK;
const LIVE: u8 = NEGOTIATED | DRIVER_OK;

/// What a write to the register asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// 0: reset the device (section 2.4).
    Reset,
    /// Show the new value; nothing else.
    Show,
    /// Check the features first, and show the value without FEATURES_OK if they cannot be accepted.
    CheckFeatures,
    /// Show the new value and bring the queues to life.
    GoLive,
    /// Not a step that a driver may take: the register stays as it is.
    Refuse,
}

/// The steps of driver initialisation: from, to, what the device does, and where it is written.
const STEPS: [(u8, u8, Change, &str); 5] = [
    (0, ACKNOWLEDGE, Change::Show, "3.1.1, step 2"),
    (0, STARTED, Change::Show, "3.1.1, steps 2 and 3 in one write, as firmware drivers do"),
    (ACKNOWLEDGE, STARTED, Change::Show, "3.1.1, step 3"),
    (STARTED, NEGOTIATED, Change::CheckFeatures, "3.1.1, step 5"),
    (NEGOTIATED, LIVE, Change::GoLive, "3.1.1, step 8"),
];

/// What the write of `written` means while the register shows `current`.
///
/// NEEDS_RESET belongs to the device and is ignored in a write; FAILED may be added at any time
/// (section 2.1.1) and stays.
pub fn change(current: u8, written: u8) -> Change {
    if written == 0 {
        return Change::Reset;
    }
    let (from, to) = (current & !(NEEDS_RESET | FAILED), written & !(NEEDS_RESET | FAILED));
    if current & FAILED != 0 || written & FAILED != 0 {
        // A driver that has given up starts again with a reset, and changes nothing else meanwhile.
        return if to == from { Change::Show } else { Change::Refuse };
    }
    if from == to {
        return Change::Show;
    }
    STEPS.iter().find(|step| (step.0, step.1) == (from, to)).map_or(Change::Refuse, |step| step.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_steps_of_the_specification_are_taken() {
        let states = [0, ACKNOWLEDGE, STARTED, NEGOTIATED, LIVE];
        let allowed = [
            (0, ACKNOWLEDGE, Change::Show),
            (0, STARTED, Change::Show),
            (ACKNOWLEDGE, STARTED, Change::Show),
            (STARTED, NEGOTIATED, Change::CheckFeatures),
            (NEGOTIATED, LIVE, Change::GoLive),
        ];
        for from in states {
            for to in 0..=u8::MAX {
                let to = to & !(NEEDS_RESET | FAILED);
                let expected = match to {
                    0 => Change::Reset,
                    _ if to == from => Change::Show,
                    _ => allowed
                        .iter()
                        .find(|(f, t, _)| (*f, *t) == (from, to))
                        .map_or(Change::Refuse, |(_, _, change)| *change),
                };
                assert_eq!(change(from, to), expected, "{from:#x} to {to:#x}");
                if to != 0 {
                    assert_eq!(change(from | NEEDS_RESET, to), expected);
                    assert_eq!(change(from, to | NEEDS_RESET), expected);
                }
            }
        }
    }

    #[test]
    fn failed_may_be_set_at_any_time_and_ends_with_a_reset_only() {
        for state in [0, ACKNOWLEDGE, STARTED, NEGOTIATED, LIVE] {
            assert_eq!(change(state, state | FAILED), Change::Show);
            assert_eq!(change(state | FAILED, state | FAILED), Change::Show);
            assert_eq!(
                change(state | FAILED, LIVE ^ state),
                match LIVE ^ state {
                    0 => Change::Reset,
                    _ => Change::Refuse,
                }
            );
            assert_eq!(change(state | FAILED, 0), Change::Reset);
        }
    }
}
