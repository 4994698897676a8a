use crate::{RcuList, drain_call_rcu, read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn numbers(list: &RcuList<u32>) -> Vec<u32> {
    list.iter(&read()).copied().collect()
}

fn list_of(numbers: impl IntoIterator<Item = u32>) -> RcuList<u32> {
    let list = RcuList::new();
    let mut writer = list.write();
    numbers.into_iter().for_each(|number| writer.push_back(number));
    drop(writer);
    list
}

#[test]
fn elements_stand_where_they_were_put() {
    let list = list_of([]);
    assert!(list.is_empty());
    let mut writer = list.write();
    writer.push_back(2);
    writer.push_front(1);
    writer.push_back(4);
    writer.find(|n| *n == 2).expect("2 is there").insert_after(3);
    writer.find(|n| *n == 4).expect("4 is there").insert_after(5);
    let mut cursor = writer.cursor();
    while cursor.get().is_some() {
        cursor.move_next();
    }
    cursor.insert_after(6);
    assert!(!cursor.remove());
    drop(writer);
    assert_eq!(numbers(&list), [1, 2, 3, 4, 5, 6]);
    assert_eq!(list.len(), 6);
}

#[test]
fn any_element_can_be_removed() {
    for victim in 0..4 {
        let list = list_of(0..4);
        assert!(list.write().find(|n| *n == victim).expect("it is there").remove());
        let left: Vec<_> = (0..4).filter(|n| *n != victim).collect();
        assert_eq!(numbers(&list), left);
        // Both ends still work.
        list.write().push_front(8);
        list.write().push_back(9);
        assert_eq!(numbers(&list), [&[8], &left[..], &[9]].concat());
    }
}

#[test]
fn an_iterator_on_a_removed_element_reaches_the_end() {
    let list = list_of(0..5);
    let guard = read();
    let mut iter = list.iter(&guard);
    assert_eq!((iter.next(), iter.next()), (Some(&0), Some(&1)));
    list.write().retain(|n| *n == 4);
    // 1 is where it stands, 2 is what 1 led to when it was removed.
    let rest: Vec<_> = iter.by_ref().copied().collect();
    assert_eq!(rest.last(), Some(&4));
    assert_eq!(iter.next(), None);
    assert_eq!(numbers(&list), [4]);
}

#[test]
fn an_iterator_outlives_the_list_within_its_section() {
    let list = list_of(0..100);
    let guard = read();
    let iter = list.iter(&guard);
    drop(list);
    assert_eq!(iter.copied().sum::<u32>(), 4950);
}

#[test]
fn removed_elements_are_dropped_after_the_section() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let list = RcuList::new();
    (0..10).for_each(|_| list.write().push_back(Counted(Arc::clone(&dropped))));
    let guard = read();
    list.write().cursor().remove();
    list.write().retain(|_| false);
    assert_eq!((dropped.load(SeqCst), list.len()), (0, 0));
    drop(guard);
    drain_call_rcu();
    assert_eq!(dropped.load(SeqCst), 10);
    list.write().push_back(Counted(Arc::clone(&dropped)));
    drop(list);
    drain_call_rcu();
    assert_eq!(dropped.load(SeqCst), 11);
}

#[test]
fn remove_then_hands_over_the_value() {
    let list = list_of([7]);
    let (sender, receiver) = std::sync::mpsc::channel();
    list.write().cursor().remove_then(move |value| sender.send(value).expect("it is awaited"));
    drain_call_rcu();
    assert_eq!(receiver.try_recv(), Ok(7));
}

#[test]
fn there_is_one_writer_at_a_time() {
    let list = list_of([1]);
    let writer = list.write();
    assert!(list.try_write().is_none());
    // The refusal has not taken the first writer's right away.
    assert!(list.try_write().is_none());
    drop(writer);
    assert!(list.try_write().is_some());
}

#[test]
#[should_panic(expected = "one writer at a time")]
fn a_second_writer_is_a_bug() {
    let list = list_of([]);
    let _writer = list.write();
    let _second = list.write();
}

/// The same changes on a list and on a vector, seen by a reader after each.
#[test]
fn random_changes_keep_the_list_what_a_vector_is() {
    let list = list_of([]);
    let mut model: Vec<u32> = Vec::new();
    let mut random = 0x9e37_79b9_u64;
    for round in 0..5000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (op, at) = ((random >> 33) % 5, (random >> 40) as usize % (model.len() + 1));
        let mut writer = list.write();
        let mut cursor = writer.cursor();
        (0..at).for_each(|_| cursor.move_next());
        assert_eq!(cursor.get(), model.get(at));
        match op {
            0 => {
                cursor.insert_after(round);
                model.insert((at + 1).min(model.len()), round);
            }
            1 => {
                writer.push_front(round);
                model.insert(0, round);
            }
            2 if model.len() < 40 => {
                writer.push_back(round);
                model.push(round);
            }
            _ => {
                assert_eq!(cursor.remove(), at < model.len());
                if at < model.len() {
                    model.remove(at);
                }
            }
        }
        drop(writer);
        assert_eq!(numbers(&list), model);
        assert_eq!(list.len(), model.len());
    }
}
