//! Who may do what with a node, and what that forbids to others.

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reads give what was written.
    pub const CONSISTENT_READ: Self = Self(1 << 0);
    /// The data may change.
    pub const WRITE: Self = Self(1 << 1);
    /// Writes that leave the data as it is.
    pub const WRITE_UNCHANGED: Self = Self(1 << 2);
    /// The size may change.
    pub const RESIZE: Self = Self(1 << 3);
    /// Everything.
    pub const ALL: Self = Self(0b1111);

    /// With QEMU's names, by bit number.
    const NAMES: [&str; 4] = ["consistent read", "write", "write unchanged", "resize"];

    /// Whether it has all of `other`.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }

    /// Those that it lacks.
    #[must_use]
    pub fn complement(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// By bit number, as the image locks have them.
    pub(in crate::block) fn bits(self) -> u8 {
        self.0
    }
}

impl BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Permissions {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (n, name) in Self::NAMES.iter().enumerate() {
            if self.0 & 1 << n != 0 {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What a user of a node does with it, and what it lets others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permissions in use.
    pub uses: Permissions,
    /// Permissions that others may use.
    pub shares: Permissions,
}

impl Access {
    /// Of a node that nobody uses.
    pub const IDLE: Self = Self { uses: Permissions::NONE, shares: Permissions::ALL };

    /// Of a device that stores its guest's data. It does not mind that the size changes.
    pub fn device(read_only: bool, share_writes: bool) -> Self {
        let written = if read_only { Permissions::NONE } else { Permissions::WRITE };
        let others = if share_writes { Permissions::WRITE } else { Permissions::NONE };
        Self {
            uses: Permissions::CONSISTENT_READ | written,
            shares: Permissions::CONSISTENT_READ
                | Permissions::WRITE_UNCHANGED
                | Permissions::RESIZE
                | others,
        }
    }

    /// Of all users together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { uses: self.uses | other.uses, shares: self.shares & other.shares }
    }
}

/// A use of a node.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// A number that no other use of the graph has.
    pub(super) id: u64,
    pub(super) by: User,
    /// As what: `root`, `file`, `backing`.
    pub(super) role: &'static str,
    pub(super) access: Access,
}

/// Who uses a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// Another node, by its name.
    Node(String),
    /// A device, by its path, or a command.
    Device(String),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node '{name}'"),
            Self::Device(name) if name.is_empty() => f.write_str("an unnamed block device"),
            Self::Device(name) => write!(f, "block device '{name}'"),
        }
    }
}

/// The first conflict among the uses of the node `name`, in QEMU's words.
pub(super) fn conflict(name: &str, uses: &[Use]) -> Option<String> {
    for (n, a) in uses.iter().enumerate() {
        for b in &uses[n + 1..] {
            for (a, b) in [(a, b), (b, a)] {
                let both = a.access.uses & b.access.shares.complement();
                if !both.is_empty() {
                    return Some(format!(
                        "Permission conflict on node '{name}': permissions '{both}' are both required \
                         by {} (uses node '{name}' as '{}' child) and unshared by {} (uses node \
                         '{name}' as '{}' child).",
                        a.by, a.role, b.by, b.role
                    ));
                }
            }
        }
    }
    None
}
