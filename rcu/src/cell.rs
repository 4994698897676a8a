//! A published value.

use crate::api::call_rcu;
use crate::local::Guard;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that readers look at without waiting while writers replace it as a whole.
///
/// The old value is dropped by [`call_rcu`]: after every read-side section that might hold it has
/// ended, in the context that published the new one.
pub struct RcuCell<T: Send + Sync + 'static> {
    value: AtomicPtr<T>,
    /// The cell owns a `T`.
    owns: PhantomData<T>,
}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// Makes a cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self { value: AtomicPtr::new(Box::into_raw(Box::new(value))), owns: PhantomData }
    }

    /// The value at this moment, for as long as the section lasts. Any thread; never blocks.
    ///
    /// Two reads in one section may see two versions.
    #[inline]
    pub fn read<'g>(&self, guard: &'g Guard) -> &'g T {
        let _ = guard;
        // Acquire pairs with the AcqRel swap in `publish`: the contents are seen as written.
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: the pointer came from a Box and is freed only through `call_rcu` after it has
        // been taken out of the cell, hence not before the section that `guard` keeps open ends.
        unsafe { &*value }
    }

    /// Replaces the value. Readers that begin from now on see the new one. Any thread outside
    /// signal handlers; never blocks. Writers that race each win in turn; none is lost half-way.
    pub fn publish(&self, value: T) {
        let new = Box::into_raw(Box::new(value));
        // Release half pairs with the Acquire in `read`; the Acquire half hands the old value's
        // contents to the thread that drops it.
        retire(self.value.swap(new, Ordering::AcqRel));
    }
}

/// Drops a value that no new reader can find, after a grace period.
fn retire<T: Send + Sync + 'static>(value: *mut T) {
    struct Retired<T>(*mut T);
    // SAFETY: the pointer is the sole owner of its `T`, which may be dropped on any thread.
    unsafe impl<T: Send> Send for Retired<T> {}
    impl<T> Drop for Retired<T> {
        fn drop(&mut self) {
            // SAFETY: the pointer came from `Box::into_raw`; it was taken out of its cell by
            // exactly one writer and no section that began before that is still open.
            drop(unsafe { Box::from_raw(self.0) });
        }
    }
    let retired = Retired(value);
    call_rcu(move || drop(retired));
}

impl<T: Send + Sync + 'static> Drop for RcuCell<T> {
    fn drop(&mut self) {
        // A reader's reference lives as long as its section, not as long as the cell.
        retire(*self.value.get_mut());
    }
}

impl<T: Send + Sync + Default + 'static> Default for RcuCell<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for RcuCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RcuCell").field(self.read(&crate::read())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::RcuCell;
    use crate::{drain_call_rcu, read};
    use std::sync::Arc;

    #[test]
    fn a_reader_keeps_the_version_it_found() {
        let cell = RcuCell::new(Arc::new(1));
        let guard = read();
        let old = cell.read(&guard);
        let watch = Arc::downgrade(old);
        cell.publish(Arc::new(2));
        assert_eq!((**old, **cell.read(&guard)), (1, 2));
        assert!(watch.upgrade().is_some());
        drop(guard);
        drain_call_rcu();
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn a_value_outlives_its_cell_within_a_section() {
        let value = Arc::new(3);
        let cell = RcuCell::new(Arc::clone(&value));
        let guard = read();
        let found = cell.read(&guard);
        drop(cell);
        assert_eq!((**found, Arc::strong_count(&value)), (3, 2));
        drop(guard);
        drain_call_rcu();
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn racing_writers_lose_no_version() {
        let cell = Arc::new(RcuCell::new(Arc::new(())));
        let value = Arc::new(());
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (cell, value) = (Arc::clone(&cell), Arc::clone(&value));
                std::thread::spawn(move || {
                    (0..1000).for_each(|_| cell.publish(Arc::clone(&value)));
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        drop(cell);
        drain_call_rcu();
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
