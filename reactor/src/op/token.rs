//! The 64 bits of user data that name a submission: kind, generation and slot.

const KIND_SHIFT: u32 = 56;
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nobody waits for it.
    Ignore = 0x51,
    /// An operation in the table.
    Op = 0x52,
    /// A wake-up message from another ring.
    Wake = 0x53,
    /// The poll of this context's own eventfd.
    WakeEventfd = 0x54,
    /// A wake-up message that could not be posted; the slot is the target.
    WakeupFailed = 0x55,
    /// A time limit linked to an operation, whose own completion tells what came of it.
    LinkTimeout = 0x56,
}

/// A checked user data value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// 24 bits.
    pub(crate) generation: u32,
    pub(crate) slot: u32,
}

impl Token {
    pub(crate) const IGNORE: Self = Self::named(Kind::Ignore);
    pub(crate) const WAKE: Self = Self::named(Kind::Wake);
    pub(crate) const WAKE_EVENTFD: Self = Self::named(Kind::WakeEventfd);

    const fn named(kind: Kind) -> Self {
        Self { kind, generation: 0, slot: 0 }
    }

    pub(crate) const fn op(generation: u32, slot: u32) -> Self {
        Self { kind: Kind::Op, generation: generation & GENERATION_MASK, slot }
    }

    /// The time limit of the operation `self`.
    pub(crate) const fn link_timeout(self) -> Self {
        Self { kind: Kind::LinkTimeout, generation: self.generation, slot: self.slot }
    }

    /// The operation that a time limit belongs to.
    pub(crate) const fn limited(self) -> Self {
        Self { kind: Kind::Op, generation: self.generation, slot: self.slot }
    }

    pub(crate) const fn wakeup_failed(target: usize) -> Self {
        Self { kind: Kind::WakeupFailed, generation: 0, slot: target as u32 }
    }

    pub(crate) const fn to_user_data(self) -> u64 {
        ((self.kind as u64) << KIND_SHIFT)
            | ((self.generation as u64) << GENERATION_SHIFT)
            | self.slot as u64
    }

    /// `None` for a value that no token of ours has.
    pub(crate) fn from_user_data(user_data: u64) -> Option<Self> {
        let kind = match (user_data >> KIND_SHIFT) as u8 {
            0x51 => Kind::Ignore,
            0x52 => Kind::Op,
            0x53 => Kind::Wake,
            0x54 => Kind::WakeEventfd,
            0x55 => Kind::WakeupFailed,
            0x56 => Kind::LinkTimeout,
            _ => return None,
        };
        let generation = (user_data >> GENERATION_SHIFT) as u32 & GENERATION_MASK;
        Some(Self { kind, generation, slot: user_data as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn tokens_survive_the_round_trip() {
        let op = Token::op(0x00ab_cdef, u32::MAX);
        for token in [
            Token::IGNORE,
            Token::WAKE,
            Token::WAKE_EVENTFD,
            Token::wakeup_failed(7),
            op,
            op.link_timeout(),
        ] {
            assert_eq!(Token::from_user_data(token.to_user_data()), Some(token));
        }
        assert_eq!(op.link_timeout().limited(), op);
        assert_eq!(Token::from_user_data(0), None);
        assert_eq!(Token::from_user_data(u64::MAX), None);
    }
}
