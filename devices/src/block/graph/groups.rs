//! The throttle groups of a machine by name: those of objects, and those that drives make.

use super::throttle::{Limits, ThrottleGroup};
use crate::clock::{Clock, HostClock};
use crate::error::CommandError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// See the module. Any thread; held for moments only.
pub struct ThrottleGroups {
    clock: Arc<dyn Clock>,
    /// A group lives as long as it has members, or its object.
    groups: Mutex<BTreeMap<String, Weak<ThrottleGroup>>>,
}

impl Default for ThrottleGroups {
    /// By the host's clock.
    fn default() -> Self {
        Self::new(&(Arc::new(HostClock::new()) as Arc<dyn Clock>))
    }
}

impl ThrottleGroups {
    /// No groups; those to come go by `clock`.
    pub fn new(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), groups: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Weak<ThrottleGroup>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of this name.
    pub fn find(&self, name: &str) -> Option<Arc<ThrottleGroup>> {
        self.lock().get(name).and_then(Weak::upgrade)
    }

    /// Makes a group for an object.
    pub fn create(&self, name: &str, limits: Limits) -> Result<Arc<ThrottleGroup>, CommandError> {
        let mut groups = self.lock();
        if groups.get(name).is_some_and(|known| known.strong_count() > 0) {
            return Err(CommandError::generic("A group with this name already exists"));
        }
        Ok(self.insert(&mut groups, name, limits))
    }

    /// The group of this name, made if need be.
    pub(super) fn get(&self, name: &str, limits: Limits) -> Arc<ThrottleGroup> {
        let mut groups = self.lock();
        let known = groups.get(name).and_then(Weak::upgrade);
        known.unwrap_or_else(|| self.insert(&mut groups, name, limits))
    }

    fn insert(
        &self,
        groups: &mut BTreeMap<String, Weak<ThrottleGroup>>,
        name: &str,
        limits: Limits,
    ) -> Arc<ThrottleGroup> {
        groups.retain(|_, group| group.strong_count() > 0);
        let group = ThrottleGroup::new(name, &self.clock, limits);
        groups.insert(name.to_owned(), Arc::downgrade(&group));
        group
    }
}
