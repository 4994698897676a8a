//! What a vCPU thread is doing, and which command is allowed then.

use super::VcpuError;

/// The state of one vCPU thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In or around `KVM_RUN`.
    Running,
    /// Waiting for a command.
    Paused,
    /// The machine runs, but this vCPU cannot until it is reset.
    Crashed,
    /// Crashed, and the machine is paused.
    CrashedPaused,
    /// The thread is leaving.
    Ended,
}

/// What can be asked of a vCPU thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Pause,
    Resume,
    Reset,
    /// A non-maskable interrupt, or a look at the registers: changes no state.
    Attend,
    Stop,
}

impl State {
    /// The state after `request` has been carried out.
    pub fn on(self, request: Request) -> Result<Self, VcpuError> {
        use State::{Crashed, CrashedPaused, Ended, Paused, Running};
        Ok(match (self, request) {
            (_, Request::Stop) => Ended,
            (Ended, _) => return Err(VcpuError::Ended),
            (state, Request::Attend) => state,
            (Running | Paused, Request::Pause) | (Paused | CrashedPaused, Request::Reset) => Paused,
            (Crashed | CrashedPaused, Request::Pause) => CrashedPaused,
            (Running | Paused, Request::Resume) => Running,
            (Crashed | CrashedPaused, Request::Resume) => Crashed,
            (Running | Crashed, Request::Reset) => return Err(VcpuError::NotPaused),
        })
    }

    /// The state after something that only a reset can mend.
    pub fn crashed(self) -> Self {
        match self {
            Self::Running | Self::Crashed => Self::Crashed,
            Self::Paused | Self::CrashedPaused => Self::CrashedPaused,
            Self::Ended => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Request::{Attend, Pause, Reset, Resume, Stop};
    use State::{Crashed, CrashedPaused, Ended, Paused, Running};

    #[test]
    fn every_state_answers_every_request() {
        let table = [
            (Running, [Some(Paused), Some(Running), None, Some(Running), Some(Ended)]),
            (Paused, [Some(Paused), Some(Running), Some(Paused), Some(Paused), Some(Ended)]),
            (Crashed, [Some(CrashedPaused), Some(Crashed), None, Some(Crashed), Some(Ended)]),
            (
                CrashedPaused,
                [
                    Some(CrashedPaused),
                    Some(Crashed),
                    Some(Paused),
                    Some(CrashedPaused),
                    Some(Ended),
                ],
            ),
            (Ended, [None, None, None, None, Some(Ended)]),
        ];
        for (state, expected) in table {
            let found = [Pause, Resume, Reset, Attend, Stop].map(|request| state.on(request).ok());
            assert_eq!(found, expected, "{state:?}");
        }
    }

    #[test]
    fn a_crash_keeps_the_pause() {
        assert_eq!(Running.crashed(), Crashed);
        assert_eq!(Paused.crashed(), CrashedPaused);
        assert_eq!(Ended.crashed(), Ended);
    }
}
