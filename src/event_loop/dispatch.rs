//! Dispatch of events to callbacks, and to the records of evloop_wait.
//! An event that needs nothing but its callback called is dispatched at once.
//! Watchers with priorities, rate limits or no callback take a slower path.

use super::event::{Callback, Event, Target};
use super::flags::*;
use super::notify::{destroy_posts, notify};
use super::own_words::CLOCKS;
use super::own_words::is_internal;
use super::run_guard::RunGuard;
use super::slot::view;
use super::slot::{self, WatcherSlot, live};
use super::state::{BatchItem, LoopState, MANY_NAMES};
use super::wake_state;
use crate::errno::Result;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::timer_queue::Popped;
use crate::util::alloc::TryVec;
use std::ffi::c_void;

/// How many outdated entries of the timer queue an iteration corrects at
/// most, beyond what expires.
const CORRECTIONS: u32 = 2048;

/// Calls a callback with an event: the one place where a run does that.
///
/// # Safety
/// Nothing borrows the state of the watcher's loop: the callback may come back
/// to it.
#[inline(always)]
pub(super) unsafe fn invoke(callback: Callback, event: &Event, user_data: *mut c_void) {
    // SAFETY: the program's function and argument, as it promised.
    unsafe { callback(event, user_data) };
}

impl RunGuard {
    /// Calls a callback.
    #[inline(always)]
    fn call(&self, callback: Callback, event: &Event, user_data: *mut c_void) -> Result<()> {
        // SAFETY: no reference into the state is in use.
        unsafe { invoke(callback, event, user_data) };
        self.run_pending_work_if_any()
    }

    #[inline(always)]
    pub fn run_pending_work_if_any(&self) -> Result<()> {
        if self.has_pending_work() { self.run_pending_work() } else { Ok(()) }
    }

    /// Does the work that `pending_work` announces, before the next callback.
    #[cold]
    pub fn run_pending_work(&self) -> Result<()> {
        self.shared.pending_work.take();
        self.check()?;
        loop {
            // SAFETY: no other reference to the state.
            let state = unsafe { self.state() };
            state.current = 0;
            let closed = state.take_destroys();
            let mut stale = std::mem::take(&mut state.stale_posts);
            if closed.is_empty() && stale.is_empty() {
                break;
            }
            destroy_posts(&mut stale);
            // SAFETY: as above.
            let state = unsafe { self.state() };
            if state.instrumented {
                self.notify_instrumented(closed);
            } else {
                notify(closed);
            }
            self.check()?;
        }
        // SAFETY: as above.
        let state = unsafe { self.state() };
        if state.unnamed.len() >= MANY_NAMES || state.unnamed_more {
            state.forget_names(&mut self.shared.lock_commands());
        }
        if self.shared.wake_state.take(wake_state::BARRIER) != 0 {
            self.shared.complete_barrier(&mut self.shared.lock_commands());
        }
        Ok(())
    }

    /// Dispatches an event of a descriptor.
    #[inline(always)]
    fn io_event<const COUNTED: bool>(&self, word: u64, ready: u32, plain: u32) -> Result<()> {
        let handle = word.cast_signed();
        let Some((index, slot)) = live(handle) else { return self.on_stale_event() };
        if slot.flags.load(Relaxed) & PLAIN_MASK != plain {
            return self.io_event_slowly(handle, index, slot, ready);
        }
        let Some(callback) = slot.callback() else { return Ok(()) };
        // SAFETY: no other reference to the state, and not kept.
        let state = unsafe { self.state() };
        state.dispatched = state.dispatched.wrapping_add(1);
        state.current = handle;
        let user_data = slot.user_data();
        let event = Event {
            data: user_data.expose_provenance() as u64,
            events: ready,
            fd: view::fd_of(slot),
            ..Event::new(handle, Source::Io as i32)
        };
        if COUNTED {
            return self.call_counted(callback, &event, user_data);
        }
        self.call(callback, &event, user_data)
    }

    #[inline(never)]
    fn io_event_slowly(
        &self,
        handle: i64,
        index: u32,
        slot: &WatcherSlot,
        ready: u32,
    ) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        state.mark_changed();
        if !slot.has(SHARED) {
            return self.one_io_event(handle, index, slot, ready);
        }
        let mut sharers = std::mem::take(&mut state.io.sharers);
        sharers.clear();
        state.io.sharers_of(slot, ready, &mut sharers);
        if sharers.is_empty() {
            state.io.spurious(index, slot);
        }
        let result = sharers.iter().try_for_each(|(handle, ready)| match live(*handle) {
            Some((index, slot)) => self.one_io_event(*handle, index, slot, *ready),
            None => Ok(()),
        });
        // Its room was reserved: a child that goes on with the loop needs it.
        // SAFETY: no other reference to the state.
        keep_larger(&mut unsafe { self.state() }.io.sharers, sharers);
        result
    }

    fn one_io_event(&self, handle: i64, index: u32, slot: &WatcherSlot, ready: u32) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        let flags = slot.flags.load(Relaxed);
        if flags & FD_LOST != 0 {
            return self.on_stale_event();
        }
        if flags & (ENABLED | SUPPRESSED) != ENABLED {
            state.io.spurious(index, slot);
            let is_pressure = Source::of(flags) == Source::MemoryPressure;
            if is_pressure && ready & libc::EPOLLERR as u32 == 0 {
                // The kernel reports memory pressure once: the event is kept.
                let mut event = Event::new(handle, Source::MemoryPressure as i32);
                if state.fd_sources.poll(
                    &mut state.ctx,
                    &mut state.io,
                    index,
                    slot,
                    ready,
                    &mut event,
                ) {
                    state.requeue(&event);
                }
            }
            return Ok(());
        }
        let mut event = Event {
            events: ready,
            fd: view::fd_of(slot),
            ..Event::new(handle, Source::of(flags) as i32)
        };
        if Source::of(flags).is_fd_source() {
            event.fd = -1;
            event.events = 0;
            if !state.fd_sources.poll(&mut state.ctx, &mut state.io, index, slot, ready, &mut event)
            {
                return Ok(());
            }
        } else if flags & ONESHOT != 0 {
            state.io.auto_disabled(&mut state.ctx, index, slot);
        }
        self.emit(event, slot)
    }

    /// An event of a closed watcher. In the iteration that closed it this is
    /// expected. In a later one the kernel reports a descriptor that was closed
    /// while a duplicate of it is open.
    #[cold]
    fn on_stale_event(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        unsafe { self.state() }.io.stale_rounds |= 1 << 31;
        Ok(())
    }

    /// Dispatches an event now or, where there are priorities, with the
    /// others.
    #[inline]
    pub fn emit(&self, event: Event, slot: &WatcherSlot) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.prioritized > 0 && state.batch.try_reserve(1).is_ok() {
            let (priority, position) = (state.priority(event.watcher), state.batch.len());
            let job = BatchItem::Event(event, slot.node.seq());
            state.batch.push_reserved((std::cmp::Reverse(priority), position, job));
            return Ok(());
        }
        self.deliver(event)
    }

    /// Dispatches an event, if its watcher still wants it.
    #[inline]
    pub fn deliver(&self, mut event: Event) -> Result<()> {
        let Some((index, slot)) = live(event.watcher) else { return Ok(()) };
        // SAFETY: no other reference to the state, and not kept.
        let state = unsafe { self.state() };
        event.data = slot.data.load(Relaxed);
        if slot.flags.load(Relaxed) & EXTRA_WORK != 0 && !state.admit(index, slot, &mut event) {
            return Ok(());
        }
        state.dispatched += 1;
        state.current = event.watcher;
        let instrumented = state.instrumented;
        match slot.callback() {
            Some(call) if instrumented => {
                self.call_one_instrumented(call, &event, slot.user_data())
            }
            Some(callback) => self.call(callback, &event, slot.user_data()),
            None => Ok(()),
        }
    }

    /// Dispatches what is ready, in order of priority.
    fn deliver_batch(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut state.batch);
        // An unstable sort needs no memory. The position keeps the order of
        // events of one priority.
        batch.sort_unstable_by_key(|(priority, position, _)| (*priority, *position));
        let mut delivered = 0;
        let result = batch.iter().try_for_each(|(_, _, item)| {
            delivered += 1;
            self.deliver_item(item)
        });
        // What a fork in a callback has left is for the child, if it goes on
        // with the loop.
        batch.drain(..delivered);
        // SAFETY: as above.
        unsafe { self.state() }.batch = batch;
        result
    }

    fn deliver_item(&self, item: &BatchItem) -> Result<()> {
        // SAFETY: no other reference to the state; nor below.
        let state = unsafe { self.state() };
        match item {
            BatchItem::Event(event, seq) if was_set_again(event, *seq) => Ok(()),
            BatchItem::Event(event, _) if is_wanted(event) => self.deliver(*event),
            BatchItem::Event(event, _) => {
                state.requeue(event);
                Ok(())
            }
            BatchItem::Post => match state.batched.take() {
                Some(post) => self.deliver_post(post),
                None => Ok(()),
            },
        }
    }

    /// Dispatches everything that one wait has found.
    #[inline]
    pub fn dispatch(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the state; nor below.
        unsafe { self.state() }.drain_internal(found);
        if self.has_pending_work() {
            self.run_pending_work()?;
        }
        // SAFETY: as above.
        if unsafe { self.state() }.has_more_than_descriptors()
            || self.shared.wake_state.has_pending_asyncs()
        {
            self.timers()?;
            self.asyncs()?;
            self.signals()?;
            self.posts()?;
            self.deferred()?;
            self.resume()?;
            // SAFETY: as above.
            if unsafe { self.state() }.files.is_active() {
                self.files()?;
            }
        }
        self.descriptors(found)?;
        self.finish_round(found)
    }

    fn timers(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        if unsafe { self.state() }.timers.due != 0 {
            for clock in 0..CLOCKS {
                // SAFETY: as above.
                if unsafe { self.state() }.timers.due & 1 << clock != 0 {
                    self.expire(clock)?;
                }
            }
        }
        // SAFETY: as above.
        let state = unsafe { self.state() };
        if std::mem::take(&mut state.timers.clock_changed) {
            self.in_turn(Source::ClockChange)?;
        }
        Ok(())
    }

    fn expire(&self, clock: usize) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        let now = state.timers.expiry_time(&mut state.ctx, clock);
        state.timers.recheck |= 1 << clock;
        let saved = state.timers.clock(clock).look(now);
        if state.instrumented {
            state.probe_timers(saved);
        }
        let mut corrections = CORRECTIONS;
        for _ in 0..state.max_timers {
            // SAFETY: as above.
            let state = unsafe { self.state() };
            match state.timers.pop_due(&mut state.ctx, clock, now, &mut corrections) {
                Popped::Due { id, deadline } => self.expired(id, deadline, now)?,
                Popped::Later => return Ok(()),
                Popped::None => {
                    state.timers.due &= !(1 << clock);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn expired(&self, index: u32, deadline: i64, now: i64) -> Result<()> {
        let Some(slot) = slot::get(index) else { return Ok(()) };
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        let Some((count, deadline_ns)) =
            state.timers.expired(&mut state.ctx, index, slot, deadline, now)
        else {
            return Ok(());
        };
        let handle = slot.handle(Kind::Watcher, index);
        let event =
            Event { count, time_ns: now, deadline_ns, ..Event::new(handle, Source::Timer as i32) };
        self.emit(event, slot)
    }

    /// Dispatches what comes after the descriptors: always ready descriptors,
    /// failures, the batch, check and idle watchers.
    #[inline]
    pub fn finish_round(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the state; nor below.
        let state = unsafe { self.state() };
        if state.has_leftovers() {
            if !state.io.not_pollable.is_empty() {
                self.not_pollable_ready(found)?;
            }
            self.failures()?;
            self.deliver_batch()?;
        }
        // SAFETY: as above.
        let state = unsafe { self.state() };
        let idle = state.idlers > 0 && state.dispatched == 0;
        if !state.lists.check.is_empty() {
            self.in_turn(Source::Check)?;
        }
        if idle { self.in_turn(Source::Idle) } else { Ok(()) }
    }

    pub fn descriptors(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the state.
        if unsafe { self.state() }.instrumented {
            return self.descriptors_instrumented(found);
        }
        self.each_descriptor::<false>(found, PLAIN_IO)
    }

    /// The same for an instrumented loop. One that only has statistics takes a
    /// fast path, too.
    #[cold]
    #[inline(never)]
    fn descriptors_instrumented(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.probe.only_counts() {
            state.probe.begin_counted();
            return self.each_descriptor::<true>(found, PLAIN_IO);
        }
        self.each_descriptor::<false>(found, u32::MAX)
    }

    #[inline(always)]
    fn each_descriptor<const COUNTED: bool>(&self, found: usize, plain: u32) -> Result<()> {
        // SAFETY: no other reference to the state, and not kept.
        let state = unsafe { self.state() };
        // A priority that a callback sets counts from the next iteration on.
        let plain = if state.prioritized == 0 { plain } else { u32::MAX };
        let events = state.events.as_ptr();
        for i in 0..found.min(state.events.len()) {
            // SAFETY: inside the array. It is a box of its own, made with the
            // state and freed with it, which is after the run; only a wait of
            // this run writes to it. A callback's borrows of the state do not
            // borrow what it points to.
            let event = unsafe { events.add(i) };
            // SAFETY: as above.
            let event = unsafe { &*event };
            // SAFETY: the kernel filled in as many as were found.
            let event = unsafe { event.assume_init_read() };
            if !is_internal(event.u64) {
                self.io_event::<COUNTED>(event.u64, event.events, plain)?;
            }
        }
        // SAFETY: as above.
        unsafe { self.state() }.check_registrations(found);
        Ok(())
    }

    #[inline(always)]
    pub fn call_post(&self, target: Target) -> Result<()> {
        let mut event = Event::new(0, POST);
        event.data = target.user_data.expose_provenance() as u64;
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        state.dispatched += 1;
        state.current = 0;
        let instrumented = state.instrumented;
        match target.callback {
            Some(call) if instrumented => {
                self.call_one_instrumented(call, &event, target.user_data)
            }
            Some(callback) => self.call(callback, &event, target.user_data),
            None => {
                if instrumented {
                    state.probe_pending(&event);
                }
                // The caller reserved room before it took the call off its
                // list.
                state.add_pending(event);
                Ok(())
            }
        }
    }

    pub fn not_pollable_event(&self, handle: i64, events: u32) -> Result<()> {
        match live(handle) {
            Some((index, slot)) => self.one_io_event(handle, index, slot, events),
            None => Ok(()),
        }
    }
}

/// Whether a timer was set, or stopped, since it expired.
fn was_set_again(event: &Event, seq: u64) -> bool {
    event.r#type == Source::Timer as i32
        && live(event.watcher).is_some_and(|(_, slot)| slot.node.seq() != seq)
}

/// Whether an event's watcher is still enabled, or was disabled by the event
/// itself.
fn is_wanted(event: &Event) -> bool {
    let Some((_, slot)) = live(event.watcher) else { return true };
    let flags = slot.flags.load(Relaxed);
    match Source::of(flags) {
        source if source.is_descriptor() || source == Source::File => {
            flags & (ENABLED | AUTO_DISABLED) != 0
        }
        Source::Defer => flags & DUE != 0,
        _ => flags & ENABLED != 0,
    }
}

impl LoopState {
    #[inline]
    fn has_leftovers(&self) -> bool {
        !self.io.not_pollable.is_empty() || !self.ctx.failures.is_empty() || !self.batch.is_empty()
    }

    pub fn priority(&self, handle: i64) -> i32 {
        let Some((index, _)) = live(handle).filter(|(_, slot)| slot.has(HAS_PRIORITY)) else {
            return 0;
        };
        self.ctx.extras.get(&index).map_or(0, |extra| extra.priority)
    }
}

/// Keeps the larger of two buffers for the next dispatch: the one that this
/// dispatch took, or one that was allocated in its place.
pub(super) fn keep_larger<T>(kept: &mut Vec<T>, list: Vec<T>) {
    if list.capacity() >= kept.capacity() {
        *kept = list;
    }
}
