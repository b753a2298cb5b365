//! The table against a plain map, and under loom.

use super::super::bits::Kind;
use super::{LookupError, Pin, Table};

/// Gives up a pin, and frees what that leaves to be freed.
fn release<P: Send + Sync>(table: &Table<P>, pin: Pin<'_, P>) -> Option<P> {
    table.release(pin).and_then(|last| table.reclaim(last, |_| ()))
}

/// What a close followed by a release gives back.
fn close<P: Send + Sync>(table: &Table<P>, handle: i64) -> Result<Option<P>, LookupError> {
    let (pin, _) = table.close(handle, None)?;
    Ok(release(table, pin))
}

#[cfg(not(loom))]
mod plain {
    use super::super::super::bits::Handle;
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, VecDeque};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn lookups_distinguish_kinds_and_generations() {
        let table = Table::new();
        let handle = table.insert(Kind::Poll, 7, -1).unwrap();
        assert_eq!(table.pin(handle, Kind::Tfd).err(), Some(LookupError::Kind(Kind::Poll)));
        let pin = table.pin(handle, Kind::Poll).ok().unwrap();
        assert_eq!(pin.get(), Some(&7));
        assert!(release(&table, pin).is_none());
        assert_eq!(table.close(handle, Some(Kind::Tfd)).err(), Some(LookupError::Kind(Kind::Poll)));
        assert_eq!(close(&table, handle), Ok(Some(7)));
        assert_eq!(close(&table, handle), Err(LookupError::Stale));
        assert_eq!(table.pin(handle, Kind::Poll).err(), Some(LookupError::Stale));
        assert_eq!(table.pin(handle, Kind::Tfd).err(), Some(LookupError::Stale));
        assert_eq!(table.kind_of(handle), Err(LookupError::Stale));
    }

    #[test]
    fn a_closed_object_lives_until_its_last_pin() {
        let table = Table::new();
        let handle = table.insert(Kind::Tfd, 1, -1).unwrap();
        let pin = table.pin(handle, Kind::Tfd).ok().unwrap();
        let (closer, in_use) = table.close(handle, None).ok().unwrap();
        assert!(in_use);
        assert!(release(&table, closer).is_none());
        assert_eq!(table.pin(handle, Kind::Tfd).err(), Some(LookupError::Stale));
        assert_eq!(pin.get(), Some(&1));
        assert_eq!(release(&table, pin), Some(1));
    }

    #[test]
    fn a_poisoned_object_can_only_be_closed() {
        let table = Table::new();
        let handle = table.insert(Kind::Tfd, 1, -1).unwrap();
        let pin = table.pin(handle, Kind::Tfd).ok().unwrap();
        pin.poison();
        assert!(release(&table, pin).is_none());
        assert_eq!(table.pin(handle, Kind::Tfd).err(), Some(LookupError::Poisoned));
        assert_eq!(table.kind_of(handle), Ok(Kind::Tfd));
        assert_eq!(close(&table, handle), Ok(Some(1)));
    }

    #[test]
    fn a_worn_out_slot_is_retired() {
        const LAST: u32 = 5;
        let table = Table::with_last_generation(LAST);
        let mut seen = Vec::new();
        for round in 0..3 * LAST {
            let handle = table.insert(Kind::Tfd, (), -1).unwrap();
            let parts = Handle::unpack(handle).unwrap();
            assert_eq!((parts.index, parts.generation), (round / LAST, round % LAST + 1));
            assert!(!seen.contains(&handle));
            seen.push(handle);
            assert_eq!(close(&table, handle), Ok(Some(())));
        }
        assert!(seen.iter().all(|handle| table.kind_of(*handle).is_err()));
    }

    #[test]
    fn slots_are_reused_in_the_order_they_became_free() {
        let table = Table::new();
        let handles: Vec<_> = (0..4).map(|n| table.insert(Kind::Tfd, n, -1).unwrap()).collect();
        for position in [2, 0, 3] {
            close(&table, handles[position]).unwrap();
        }
        let index = || Handle::unpack(table.insert(Kind::Tfd, 9, -1).unwrap()).unwrap().index;
        assert_eq!([index(), index(), index(), index()], [2, 0, 3, 4]);
    }

    #[test]
    fn a_forked_child_starts_without_pins_and_with_every_slot() {
        let table = Table::new();
        let handles: Vec<_> = (0..5).map(|n| table.insert(Kind::Tfd, n, -1).unwrap()).collect();
        let left_behind = table.pin(handles[1], Kind::Tfd).ok().unwrap();
        let half_closed = table.pin(handles[2], Kind::Tfd).ok().unwrap();
        let (closer, _) = table.close(handles[2], None).ok().unwrap();
        close(&table, handles[3]).unwrap();
        let abandoned = AtomicUsize::new(0);
        let abandon = |_: &i32| {
            abandoned.fetch_add(1, Ordering::Relaxed);
        };
        // SAFETY: no other thread knows this table.
        unsafe { table.after_fork(|n| *n == 4, abandon) };
        // What a real child would have lost with its threads.
        let _ = (left_behind, half_closed, closer);
        assert_eq!(abandoned.load(Ordering::Relaxed), 1);
        assert_eq!(table.open_all(), 4 - 1);
        assert_eq!(table.pin(handles[4], Kind::Tfd).err(), Some(LookupError::Inherited));
        assert_eq!(table.pin(handles[2], Kind::Tfd).err(), Some(LookupError::Stale));
        // Pinned at the fork: its memory must stay.
        let (pin, in_use) = table.close(handles[1], None).ok().unwrap();
        assert!(!in_use);
        let last = table.release(pin).unwrap();
        assert_eq!(table.reclaim(last, |n| abandon(n)), None);
        assert_eq!(abandoned.load(Ordering::Relaxed), 2);
        assert_eq!(close(&table, handles[0]), Ok(Some(0)));
        let again: Vec<_> = (0..5)
            .map(|n| Handle::unpack(table.insert(Kind::Tfd, n, -1).unwrap()).unwrap().index)
            .collect();
        assert_eq!(again, [3, 0, 5, 6, 7], "the abandoned ones' slots are never used again");
    }

    #[derive(Clone, Debug)]
    enum TableStep {
        Insert(u8),
        Pin(usize),
        Release(usize),
        Close(usize),
        Look(usize),
    }

    const MOST_STEPS: usize = if cfg!(miri) { 40 } else { 300 };

    fn step() -> impl Strategy<Value = TableStep> {
        prop_oneof![
            any::<u8>().prop_map(TableStep::Insert),
            any::<usize>().prop_map(TableStep::Pin),
            any::<usize>().prop_map(TableStep::Release),
            any::<usize>().prop_map(TableStep::Close),
            any::<usize>().prop_map(TableStep::Look),
        ]
    }

    proptest! {
        /// The oracle: a map from handle to value, and how often it is pinned.
        #[test]
        fn behaves_like_a_plain_map(steps in prop::collection::vec(step(), 0..MOST_STEPS)) {
            let table = Table::with_last_generation(4);
            let alive = Arc::new(());
            let mut issued: Vec<i64> = vec![0];
            let mut open: HashMap<i64, u8> = HashMap::new();
            let mut pins = VecDeque::new();
            for step in steps {
                match step {
                    TableStep::Insert(value) => {
                        let handle = table.insert(Kind::Epoll, (value, alive.clone()), -1).ok().unwrap();
                        prop_assert!(!issued.contains(&handle), "{handle} was issued before");
                        issued.push(handle);
                        open.insert(handle, value);
                    }
                    TableStep::Pin(which) => {
                        let handle = issued[which % issued.len()];
                        let pin = table.pin(handle, Kind::Epoll).ok();
                        prop_assert_eq!(pin.as_ref().map(|pin| pin.get().unwrap().0), open.get(&handle).copied());
                        pins.extend(pin.map(|pin| (handle, pin)));
                    }
                    TableStep::Release(which) if !pins.is_empty() => {
                        let (handle, pin) = pins.remove(which % pins.len()).unwrap();
                        let last = !pins.iter().any(|(other, _)| *other == handle);
                        let freed = release(&table, pin).is_some();
                        prop_assert_eq!(freed, last && !open.contains_key(&handle));
                    }
                    TableStep::Release(_) => {}
                    TableStep::Close(which) => {
                        let handle = issued[which % issued.len()];
                        let was_open = open.remove(&handle).is_some();
                        let pinned = pins.iter().any(|(other, _)| *other == handle);
                        match close(&table, handle) {
                            Ok(freed) => prop_assert!(was_open && freed.is_none() == pinned),
                            Err(refused) => prop_assert!(!was_open && refused == LookupError::Stale),
                        }
                    }
                    TableStep::Look(which) => {
                        let handle = issued[which % issued.len()];
                        prop_assert_eq!(table.kind_of(handle).is_ok(), open.contains_key(&handle));
                    }
                }
                prop_assert_eq!(table.open(Kind::Epoll), open.len() as i64);
            }
            for (_, pin) in pins {
                drop(release(&table, pin));
            }
            for handle in open.into_keys() {
                close(&table, handle).unwrap();
            }
            prop_assert_eq!(Arc::strong_count(&alive), 1, "every payload was dropped");
        }
    }

    #[test]
    fn threads_hammering_shared_handles_destroy_each_object_once() {
        const THREADS: usize = 4;
        const SHARED: usize = 8;
        let rounds = match () {
            () if cfg!(miri) => 100,
            () if cfg!(debug_assertions) => 60_000,
            () => 500_000,
        };
        let (made, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let table = Table::new();
        let handles: [std::sync::atomic::AtomicI64; SHARED] =
            std::array::from_fn(|_| Default::default());
        struct CountedObject<'a>(&'a AtomicUsize, u64);
        impl Drop for CountedObject<'_> {
            fn drop(&mut self) {
                assert_eq!(std::mem::replace(&mut self.1, 0), 0x600d);
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let (table, handles, made, dropped) = (&table, &handles, &made, &dropped);
                scope.spawn(move || {
                    let mut random = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(thread + 1);
                    for _ in 0..rounds {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let slot = &handles[random as usize % SHARED];
                        // As a program hands them over: a thread that has a
                        // handle sees what it was made for.
                        let handle = slot.load(Ordering::Acquire);
                        match random >> 32 & 7 {
                            0 => {
                                made.fetch_add(1, Ordering::Relaxed);
                                let fresh =
                                    table.insert(Kind::Tfd, CountedObject(dropped, 0x600d), -1);
                                let old = slot.swap(fresh.ok().unwrap(), Ordering::AcqRel);
                                if let Ok((pin, _)) = table.close(old, None) {
                                    drop(release(table, pin));
                                }
                            }
                            1 => {
                                if let Ok((pin, _)) = table.close(handle, Some(Kind::Tfd)) {
                                    drop(release(table, pin));
                                }
                            }
                            _ => {
                                if let Ok(pin) = table.pin(handle, Kind::Tfd) {
                                    assert_eq!(pin.get().unwrap().1, 0x600d);
                                    drop(release(table, pin));
                                }
                            }
                        }
                    }
                });
            }
        });
        for handle in handles {
            let _ = close(&table, handle.into_inner());
        }
        assert_eq!(made.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        assert_eq!(table.open_all(), 0);
    }
}

/// Every interleaving of a few threads, up to LOOM_MAX_PREEMPTIONS.
#[cfg(loom)]
mod loom_models {
    use super::super::super::bits::Handle;
    use super::super::{LastRef, Slot, slot_state};
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    /// Counts its drops.
    struct CountedPayload(Arc<AtomicUsize>);

    impl Drop for CountedPayload {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn setup() -> (Arc<Table<CountedPayload>>, i64, Arc<AtomicUsize>) {
        let table = Arc::new(Table::new());
        let drops = Arc::new(AtomicUsize::new(0));
        let handle = table.insert(Kind::Tfd, CountedPayload(drops.clone()), -1).ok().unwrap();
        (table, handle, drops)
    }

    fn use_it(table: &Table<CountedPayload>, handle: i64) {
        if let Ok(pin) = table.pin(handle, Kind::Tfd) {
            assert_eq!(pin.get().unwrap().0.load(Ordering::Relaxed), 0);
            drop(release(table, pin));
        }
    }

    #[test]
    fn loom_exactly_one_thread_destroys() {
        loom::model(|| {
            let (table, handle, drops) = setup();
            let user = {
                let table = table.clone();
                thread::spawn(move || use_it(&table, handle))
            };
            let closer = {
                let table = table.clone();
                thread::spawn(move || close(&table, handle).is_ok())
            };
            let closed_here = close(&table, handle).is_ok();
            user.join().unwrap();
            assert!(closer.join().unwrap() != closed_here, "one close succeeds");
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn loom_a_reused_slot_is_not_reached_by_the_old_handle() {
        loom::model(|| {
            let (table, old, drops) = setup();
            let user = {
                let table = table.clone();
                thread::spawn(move || use_it(&table, old))
            };
            close(&table, old).ok().unwrap();
            let fresh = Arc::new(AtomicUsize::new(0));
            let new = table.insert(Kind::Tfd, CountedPayload(fresh.clone()), -1).ok().unwrap();
            assert_ne!(old, new);
            assert!(table.pin(old, Kind::Tfd).is_err());
            user.join().unwrap();
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            assert_eq!(fresh.load(Ordering::Relaxed), 0);
            close(&table, new).ok().unwrap();
            assert_eq!(fresh.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn loom_a_descriptor_is_never_that_of_a_later_object() {
        loom::model(|| {
            let table = Arc::new(Table::new());
            let old = table.insert(Kind::Tfd, (), 3).ok().unwrap();
            let reader = {
                let table = table.clone();
                thread::spawn(move || table.descriptor(old, Kind::Tfd))
            };
            close(&table, old).ok().unwrap();
            let new = table.insert(Kind::Tfd, (), 4).ok().unwrap();
            assert!(matches!(reader.join().unwrap(), Ok(3) | Err(LookupError::Stale)));
            assert_eq!(table.descriptor(new, Kind::Tfd), Ok(4));
        });
    }

    #[test]
    fn loom_two_threads_insert_and_close() {
        loom::model(|| {
            let (table, first, _) = setup();
            close(&table, first).ok().unwrap();
            let churn = |table: &Table<CountedPayload>| {
                let drops = Arc::new(AtomicUsize::new(0));
                let handle =
                    table.insert(Kind::Tfd, CountedPayload(drops.clone()), -1).ok().unwrap();
                use_it(table, handle);
                close(table, handle).ok().unwrap();
                assert_eq!(drops.load(Ordering::Relaxed), 1);
                handle
            };
            let other = {
                let table = table.clone();
                thread::spawn(move || churn(&table))
            };
            let here = churn(&table);
            assert_ne!(other.join().unwrap(), here);
            assert_eq!(table.open_all(), 0);
        });
    }

    // ---- twins, in each of which a step is done badly ----

    fn slot_of<'t, P: Send + Sync>(table: &'t Table<P>, handle: i64) -> &'t Slot<P> {
        table.slots.get(Handle::unpack(handle).unwrap().index).unwrap()
    }

    /// As `release`, without a read-modify-write.
    fn release_badly(table: &Table<CountedPayload>, pin: Pin<'_, CountedPayload>) {
        let before = pin.slot.word.load(Ordering::Acquire);
        pin.slot.word.store(before - slot_state::PIN, Ordering::Release);
        if before & slot_state::CLOSING != 0 && slot_state::pins(before) == 1 {
            drop(table.reclaim(LastRef { slot: pin.slot }, |_| ()));
        }
    }

    #[test]
    #[should_panic(expected = "not destroyed once")]
    fn loom_twin_a_pin_that_is_given_up_in_two_steps_is_not_counted() {
        loom::model(|| {
            let (table, handle, drops) = setup();
            let user = {
                let table = table.clone();
                thread::spawn(move || {
                    if let Ok(pin) = table.pin(handle, Kind::Tfd) {
                        release_badly(&table, pin);
                    }
                })
            };
            close(&table, handle).ok().unwrap();
            user.join().unwrap();
            assert_eq!(drops.load(Ordering::Relaxed), 1, "not destroyed once");
        });
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_slot_that_is_used_without_a_pin_is_anothers() {
        loom::model(|| {
            let (table, old, _) = setup();
            let user = {
                let table = table.clone();
                thread::spawn(move || {
                    let (slot, wanted) = (slot_of(&table, old), Handle::unpack(old).unwrap());
                    if slot_state::is(slot.word.load(Ordering::Acquire), wanted) {
                        // SAFETY: watched by loom.
                        slot.payload.with(|payload| unsafe { (*payload).is_some() });
                    }
                })
            };
            close(&table, old).ok().unwrap();
            table
                .insert(Kind::Tfd, CountedPayload(Arc::new(AtomicUsize::new(0))), -1)
                .ok()
                .unwrap();
            user.join().unwrap();
        });
    }

    #[test]
    #[should_panic(expected = "a later object's")]
    fn loom_twin_a_descriptor_that_is_looked_at_once_is_a_later_objects() {
        loom::model(|| {
            let table = Arc::new(Table::new());
            let old = table.insert(Kind::Tfd, (), 3).ok().unwrap();
            let reader = {
                let table = table.clone();
                thread::spawn(move || {
                    let (slot, wanted) = (slot_of(&table, old), Handle::unpack(old).unwrap());
                    let is_it = slot_state::is(slot.word.load(Ordering::Acquire), wanted);
                    is_it.then(|| slot.descriptor.load(Ordering::Acquire))
                })
            };
            close(&table, old).ok().unwrap();
            table.insert(Kind::Tfd, (), 4).ok().unwrap();
            assert_ne!(reader.join().unwrap(), Some(4), "a later object's");
        });
    }

    /// As `take_free`, with the lock given back in between; the slot's index.
    fn take_free_badly(table: &Table<()>) -> u32 {
        let ends = table.free.lock().ends;
        if let Some((head, tail)) = ends {
            let next =
                slot_state::next(table.slots.get(head).unwrap().word.load(Ordering::Relaxed));
            table.free.lock().ends = (head != tail).then_some((next, tail));
            return head;
        }
        table.take_free().unwrap().index
    }

    #[test]
    #[should_panic(expected = "two objects in one slot")]
    fn loom_twin_a_slot_that_is_taken_in_two_steps_is_taken_twice() {
        loom::model(|| {
            let table = Arc::new(Table::new());
            let first = table.insert(Kind::Tfd, (), -1).ok().unwrap();
            close(&table, first).ok().unwrap();
            let other = {
                let table = table.clone();
                thread::spawn(move || take_free_badly(&table))
            };
            let here = take_free_badly(&table);
            assert_ne!(other.join().unwrap(), here, "two objects in one slot");
        });
    }
}
