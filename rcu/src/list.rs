//! A list that readers walk while one writer changes it (QEMU's `QLIST_*_RCU`).

use crate::api::call_rcu;
use crate::local::Guard;
use crate::primitive::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ptr;

struct Node<T> {
    /// What readers follow. A removed node keeps it, so that who stands there reaches the end.
    next: AtomicPtr<Node<T>>,
    /// The writer's own; null at the head.
    prev: AtomicPtr<Node<T>>,
    value: T,
}

/// A doubly linked list of shared values: readers walk it inside a read-side section without waiting,
/// one writer at a time inserts and removes. Removed elements are dropped by [`call_rcu`].
///
/// Who walks the list while it changes sees every element that was there all the time, and each
/// element at most once; one inserted or removed meanwhile may or may not be seen. An iterator that stands on
/// an element when it is removed goes on from there to the end.
///
/// Writers are not made to wait for each other: they belong to one context, and [`write`](Self::write) asserts
/// that there is one at a time.
pub struct RcuList<T: Send + Sync + 'static> {
    head: AtomicPtr<Node<T>>,
    /// The writer's own.
    tail: AtomicPtr<Node<T>>,
    len: AtomicUsize,
    writing: AtomicBool,
    /// The list owns its elements.
    owns: PhantomData<T>,
}

impl<T: Send + Sync + 'static> RcuList<T> {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            tail: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            writing: AtomicBool::new(false),
            owns: PhantomData,
        }
    }

    /// The elements from head to tail. Any thread; never blocks.
    #[inline]
    pub fn iter<'g>(&self, guard: &'g Guard) -> Iter<'g, T> {
        let _ = guard;
        Iter { link: Link::Head(self.head.load(Ordering::Acquire)), section: PhantomData }
    }

    /// How many elements there are at this moment. Any thread.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is none at this moment. Any thread.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The way to change the list, until it is dropped. Never blocks.
    ///
    /// # Panics
    /// While there is another writer.
    #[track_caller]
    pub fn write(&self) -> Writer<'_, T> {
        self.try_write().expect("an RcuList has one writer at a time: let one context own it")
    }

    /// As [`write`](Self::write), but `None` while there is another writer.
    pub fn try_write(&self) -> Option<Writer<'_, T>> {
        // Acquire pairs with the Release in `Writer::drop`: what the last writer did is visible.
        let free = !self.writing.swap(true, Ordering::Acquire);
        free.then(|| Writer { list: self, thread: PhantomData })
    }
}

impl<T: Send + Sync + 'static> Default for RcuList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for RcuList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter(&crate::read())).finish()
    }
}

impl<T: Send + Sync + 'static> Drop for RcuList<T> {
    fn drop(&mut self) {
        // A reader may walk on for as long as its section lasts.
        let head = self.head.load(Ordering::Relaxed);
        if !head.is_null() {
            let chain = Retired(head);
            call_rcu(move || drop(chain));
        }
    }
}

/// Where an iterator stands.
enum Link<T> {
    /// Before the head, which was this when it began.
    Head(*const Node<T>),
    /// On this node.
    At(*const Node<T>),
    End,
}

/// See [`RcuList::iter`].
pub struct Iter<'g, T> {
    link: Link<T>,
    /// No longer than the section.
    section: PhantomData<(&'g Guard, &'g T)>,
}

impl<'g, T: 'g> Iterator for Iter<'g, T> {
    type Item = &'g T;

    #[inline]
    fn next(&mut self) -> Option<&'g T> {
        let next = match self.link {
            Link::Head(head) => head,
            // SAFETY: the node was reachable in this section, which is still open: it is not freed.
            // Acquire pairs with the Release of the writer that linked what follows.
            Link::At(node) => unsafe { (*node).next.load(Ordering::Acquire) },
            Link::End => return None,
        };
        if next.is_null() {
            self.link = Link::End;
            return None;
        }
        self.link = Link::At(next);
        // SAFETY: as above; shared references only, as the value never changes.
        Some(unsafe { &(*next).value })
    }
}

impl<'g, T: 'g> FusedIterator for Iter<'g, T> {}

/// Nodes that no new reader can reach: the one given, and what follows where the list itself is gone.
struct Retired<T>(*mut Node<T>);

// SAFETY: the sole owner of its nodes, whose values may be dropped on any thread.
unsafe impl<T: Send> Send for Retired<T> {}

impl<T> Drop for Retired<T> {
    fn drop(&mut self) {
        let mut next = self.0;
        while !next.is_null() {
            // SAFETY: each node came from `Box::into_raw`, and no section that could reach it is open.
            let node = unsafe { Box::from_raw(next) };
            next = node.next.load(Ordering::Relaxed);
        }
    }
}

/// The one writer of an [`RcuList`] at its time. Stays on its thread, so it cannot be held across an `.await` of a
/// task that may hop.
pub struct Writer<'l, T: Send + Sync + 'static> {
    list: &'l RcuList<T>,
    /// Neither `Send` nor `Sync`.
    thread: PhantomData<*const ()>,
}

impl<'l, T: Send + Sync + 'static> Writer<'l, T> {
    /// Inserts at the head.
    pub fn push_front(&mut self, value: T) {
        self.insert(ptr::null_mut(), value);
    }

    /// Inserts at the tail.
    pub fn push_back(&mut self, value: T) {
        self.insert(self.list.tail.load(Ordering::Relaxed), value);
    }

    /// A position in the list, at its first element.
    pub fn cursor(&mut self) -> Cursor<'_, 'l, T> {
        let node = self.list.head.load(Ordering::Relaxed);
        Cursor { writer: self, node }
    }

    /// A position at the first element for which `wanted` holds, if there is one.
    pub fn find(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<Cursor<'_, 'l, T>> {
        let mut cursor = self.cursor();
        while let Some(value) = cursor.get() {
            if wanted(value) {
                return Some(cursor);
            }
            cursor.move_next();
        }
        None
    }

    /// Removes the elements for which `keep` does not hold. Returns how many.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) -> usize {
        let before = self.list.len();
        let mut cursor = self.cursor();
        while let Some(value) = cursor.get() {
            if keep(value) {
                cursor.move_next();
            } else {
                cursor.remove();
            }
        }
        before - self.list.len()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// Links a new node behind `prev`, or at the head where that is null.
    fn insert(&mut self, prev: *mut Node<T>, value: T) {
        let next = self.link_after(prev).load(Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node {
            next: AtomicPtr::new(next),
            prev: AtomicPtr::new(prev),
            value,
        }));
        // Release pairs with the Acquire in `iter` and `Iter::next`: the node is seen as made.
        self.link_after(prev).store(node, Ordering::Release);
        self.link_before(next).store(node, Ordering::Relaxed);
        self.list.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `node` out of the list; readers that stand there keep their way to the end.
    fn unlink(&mut self, node: *mut Node<T>) {
        // SAFETY: the node is in the list, so it is alive; only the writer takes nodes out.
        let (prev, next) =
            unsafe { ((*node).prev.load(Ordering::Relaxed), (*node).next.load(Ordering::Relaxed)) };
        // Release: a reader that follows the new link finds `next` as made.
        self.link_after(prev).store(next, Ordering::Release);
        self.link_before(next).store(prev, Ordering::Relaxed);
        self.list.len.fetch_sub(1, Ordering::Relaxed);
    }

    /// The link that leads on from `node`, or to the head where that is null.
    fn link_after(&self, node: *mut Node<T>) -> &AtomicPtr<Node<T>> {
        // SAFETY: a node of the list is alive while the writer does not take it out.
        unsafe { node.as_ref() }.map_or(&self.list.head, |node| &node.next)
    }

    /// The writer's link that leads back from `node`, or to the tail where that is null.
    fn link_before(&self, node: *mut Node<T>) -> &AtomicPtr<Node<T>> {
        // SAFETY: as in `link_after`.
        unsafe { node.as_ref() }.map_or(&self.list.tail, |node| &node.prev)
    }
}

impl<T: Send + Sync + 'static> Drop for Writer<'_, T> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `try_write`.
        self.list.writing.store(false, Ordering::Release);
    }
}

/// The writer's position: on an element, or past the end.
pub struct Cursor<'w, 'l, T: Send + Sync + 'static> {
    writer: &'w mut Writer<'l, T>,
    /// In the list, or null past its end.
    node: *mut Node<T>,
}

impl<T: Send + Sync + 'static> Cursor<'_, '_, T> {
    /// The element, or `None` past the end.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: the node is in the list, and only this cursor could take it out.
        unsafe { self.node.as_ref() }.map(|node| &node.value)
    }

    /// Goes on to the next element.
    pub fn move_next(&mut self) {
        // SAFETY: as in `get`.
        if let Some(node) = unsafe { self.node.as_ref() } {
            self.node = node.next.load(Ordering::Relaxed);
        }
    }

    /// Inserts behind this element; past the end, at the tail.
    pub fn insert_after(&mut self, value: T) {
        if self.node.is_null() {
            self.writer.push_back(value);
        } else {
            self.writer.insert(self.node, value);
        }
    }

    /// Removes this element and goes on to the next one. The value is dropped after a grace period. False
    /// past the end.
    pub fn remove(&mut self) -> bool {
        self.remove_then(drop)
    }

    /// As [`remove`](Self::remove), and hands the value to `f` after the grace period, in the context that
    /// called: where the last steps of an unplug belong.
    pub fn remove_then(&mut self, f: impl FnOnce(T) + Send + 'static) -> bool {
        if self.node.is_null() {
            return false;
        }
        let node = self.node;
        self.move_next();
        self.writer.unlink(node);
        let removed = Removed(node);
        call_rcu(move || f(removed.into_value()));
        true
    }
}

/// One node that was taken out.
struct Removed<T>(*mut Node<T>);

// SAFETY: the sole owner of its node, whose value may move to any thread.
unsafe impl<T: Send> Send for Removed<T> {}

impl<T> Removed<T> {
    fn into_value(self) -> T {
        // SAFETY: the node came from `Box::into_raw`, was taken out of its list by its writer, and no
        // section that could reach it is open: `call_rcu` has called.
        let node = *unsafe { Box::from_raw(self.0) };
        node.value
    }
}
