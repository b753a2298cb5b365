//! Loops whose counter of settings is near its end.

use super::*;
use crate::event_loop::api::{self, MONOTONIC, NewTimer, Period, RunMode};
use crate::event_loop::event::{Event, Options, Target};
use crate::event_loop::resolve::resolve;
use crate::event_loop::state::LoopState;
use std::ffi::c_void;
use std::sync::Mutex;

const LAST: u64 = (1 << 40) - 1;

struct Seen(Mutex<Vec<i64>>);

unsafe extern "C" fn note(event: *const Event, seen: *mut c_void) {
    // SAFETY: the event of this callback.
    let event = unsafe { &*event };
    // SAFETY: what the test gave.
    let seen = unsafe { &*seen.cast::<Seen>() };
    seen.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.watcher);
}

/// As if so many timers had been set.
fn set_count(the_loop: i64, count: u64) {
    let set = |state: &mut LoopState| {
        state.timers.seq = count;
        Ok(())
    };
    resolve(the_loop, Kind::Loop).unwrap().with(set, |_| Ok(())).unwrap();
}

fn options() -> Options {
    let size = size_of::<Options>();
    let (max_events, max_timers, max_posts) = (0, 0, 0);
    let (timer_tolerance_ns, virtual_grace_ns) = (0, 0);
    let flags = api::VIRTUAL_TIME;
    Options { size, flags, max_events, max_timers, max_posts, timer_tolerance_ns, virtual_grace_ns }
}

/// Timers of two clocks that are due at one time, some set again and some
/// disabled and enabled, before the numbers come to their end and after.
#[test]
fn timers_keep_their_order_when_their_numbers_are_used_up() {
    let the_loop = api::create(&options()).unwrap();
    let seen = Seen(Mutex::new(Vec::new()));
    let target = Target { callback: Some(note), user_data: (&raw const seen).cast_mut().cast() };
    let setting =
        TimerSetting { absolute: true, period: Period::Skip, initial: 1 << 30, interval: 0 };
    let add = || {
        let new = NewTimer { clock: MONOTONIC, setting, tolerance: 0 };
        api::add_timer(the_loop, new, target).unwrap()
    };
    let mut expected: Vec<i64> = (0..4).map(|_| add()).collect();
    set_count(the_loop, LAST - 1);
    let first = expected.remove(1);
    api::timer_set(first, setting).unwrap();
    expected.push(first);
    expected.extend((0..4).map(|_| add()));
    set_count(the_loop, LAST - 1);
    expected.extend((0..4).map(|_| add()));
    api::advance(the_loop, 1 << 31).unwrap();
    api::run(the_loop, RunMode::NoWait).unwrap();
    assert_eq!(*seen.0.lock().unwrap(), expected);
    api::close(the_loop).unwrap();
}

/// The same, of timers that callbacks set again and again.
#[test]
fn periodic_timers_keep_their_order_when_their_numbers_are_used_up() {
    let the_loop = api::create(&options()).unwrap();
    let seen = Seen(Mutex::new(Vec::new()));
    let target = Target { callback: Some(note), user_data: (&raw const seen).cast_mut().cast() };
    let setting =
        TimerSetting { absolute: false, period: Period::Skip, initial: 1 << 20, interval: 1 << 20 };
    let new = NewTimer { clock: MONOTONIC, setting, tolerance: 0 };
    let timers: Vec<i64> = (0..5).map(|_| api::add_timer(the_loop, new, target).unwrap()).collect();
    for seq in [LAST - 12, LAST - 3, LAST, timer_queue::MANY - 2] {
        set_count(the_loop, seq);
        for _ in 0..3 {
            api::advance(the_loop, 1 << 20).unwrap();
            api::run(the_loop, RunMode::NoWait).unwrap();
            assert_eq!(std::mem::take(&mut *seen.0.lock().unwrap()), timers, "after {seq}");
        }
    }
    api::close(the_loop).unwrap();
}
