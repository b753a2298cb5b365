//! Moments between two steps of a thread, in which no test of a program's can
//! hold it.

use super::api;
use super::api::async_send;
use super::api::{add_plain, close, revive, watcher_close};
use super::event::{Event, Options, Target};
use super::flags::Source;
use super::resolve::{Resolved, resolve};
use super::run::{RunMode, run};
use super::shared::POISONED;
use super::slot;
use super::wake_state;
use crate::errno::Errno;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use std::ffi::c_void;
use std::ptr;

/// Adds 1 to the number that user_data points to.
unsafe extern "C" fn count(_: *const Event, user_data: *mut c_void) {
    // SAFETY: as the tests made it, on this thread.
    unsafe { *user_data.cast::<u32>() += 1 };
}

fn new_loop() -> i64 {
    api::create(&Options::default()).unwrap()
}

fn add_async(handle: i64, calls: &mut u32) -> i64 {
    let user_data = ptr::from_mut(calls).cast();
    add_plain(handle, Source::Async, Target { callback: Some(count), user_data }).unwrap()
}

fn watcher(handle: i64) -> Resolved {
    resolve(handle, Kind::Watcher).unwrap()
}

fn turn(handle: i64) {
    run(handle, RunMode::NoWait).unwrap();
}

/// As evloop_after_fork, in the process itself.
fn revive_as_a_child(handle: i64) {
    let shared = resolve(handle, Kind::Loop).unwrap().shared;
    shared.epoch.store(1, Relaxed);
    revive(handle).unwrap();
}

#[test]
fn a_revived_loop_hears_of_what_was_sent_but_not_on_the_stack_at_the_fork() {
    let handle = new_loop();
    let mut calls = [0; 4];
    let watchers = calls.each_mut().map(|calls| add_async(handle, calls));
    // Two were sent to; a thread has marked the third, and no more; and the
    // fourth was not sent to.
    async_send(watchers[0]).unwrap();
    async_send(watchers[1]).unwrap();
    let third = watcher(watchers[2]);
    assert_eq!(third.slot.mark_pending(third.handle), Some(true));
    assert_eq!(async_send(watchers[2]), Ok(()));
    for _ in 0..2 {
        // An attempt may have to be repeated.
        revive_as_a_child(handle);
    }
    turn(handle);
    assert_eq!(calls, [1, 1, 1, 0]);
    watchers.iter().for_each(|watcher| async_send(*watcher).unwrap());
    turn(handle);
    assert_eq!(calls, [2, 2, 2, 1]);
    close(handle).unwrap();
}

#[test]
fn a_revived_loop_frees_a_closed_watcher_that_was_marked_at_the_fork() {
    let handle = new_loop();
    let mut calls = 0;
    let marked = watcher(add_async(handle, &mut calls));
    assert_eq!(marked.slot.mark_pending(marked.handle), Some(true));
    watcher_close(marked.handle.pack(), false).unwrap();
    assert_ne!(marked.slot.state(), 0);
    revive_as_a_child(handle);
    turn(handle);
    assert_eq!((marked.slot.state(), calls), (0, 0));
    close(handle).unwrap();
}

/// Its thread has said that it asks, and not set the word yet: if the loop went
/// round without doing anything about it, it would not sleep until then.
#[test]
fn a_request_for_the_end_of_a_callback_is_taken_before_the_word_is_set() {
    let handle = new_loop();
    let shared = resolve(handle, Kind::Loop).unwrap().shared;
    let number = shared.lock_commands().barrier.request();
    drop(shared.wake_state.set_pending(shared, handle, wake_state::BARRIER).unwrap());
    turn(handle);
    assert!(shared.lock_commands().barrier.is_completed(number));
    assert_eq!(shared.wake_state.peek() & wake_state::BARRIER, 0);
    close(handle).unwrap();
}

#[test]
fn the_watchers_of_a_poisoned_loop_are_not_the_next_ones() {
    let handle = new_loop();
    let mut calls = 0;
    let watcher = add_async(handle, &mut calls);
    resolve(handle, Kind::Loop).unwrap().shared.damage.fetch_or(POISONED, Relaxed);
    close(handle).unwrap();
    let others: Vec<_> = (0..8).map(|_| new_loop()).collect();
    let refused = watcher_close(watcher, false).map_err(|error| error.errno);
    assert_eq!(refused, Err(Errno::ESTALE));
    assert_eq!(async_send(watcher), Err(Errno::ESTALE));
    others.into_iter().for_each(|other| close(other).unwrap());
}

/// Two senders have marked their watchers when the loop is closed.
#[test]
fn a_late_send_that_is_refused_loses_no_block_of_slots() {
    let handle = new_loop();
    let mut calls = [0; 2];
    let watchers = calls.each_mut().map(|calls| watcher(add_async(handle, calls)));
    let shared = watchers[0].shared;
    let generation = watchers[0].handle.generation;
    for watcher in &watchers {
        assert_eq!(watcher.slot.mark_pending(watcher.handle), Some(true));
    }
    close(handle).unwrap();
    let blocks = slot::blocks_of(shared).count();
    for watcher in &watchers {
        assert!(blocks > 0 && watcher.slot.word().generation() == generation);
        slot::refuse_sent(watcher.handle.index, watcher.slot);
    }
    // As when the next block is taken.
    slot::give_back_late();
    let header = slot::get(watchers[0].handle.index / slot::PER_BLOCK * slot::PER_BLOCK);
    let owner = header.and_then(slot::WatcherSlot::shared);
    assert!(owner.is_none_or(|owner| !ptr::eq(owner, shared)), "the block stays the closed loop's");
}
