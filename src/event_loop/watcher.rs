//! Changes to watchers, on the thread that owns the loop's state: made at once,
//! or applied from the command queue.

use super::clock_ids;
use super::command::{Change, Command, CommandQueue};
use super::flags::*;
use super::resolve::Resolved;
use super::slot::list::WatcherList;
use super::slot::view::{closed_event, is_unlinked};
use super::slot::{self, CLOSING, WatcherSlot};
use super::source::ctx::Limit;
use super::state::{LoopState, MANY_NAMES};
use super::timer_setting::{self, TimerSetting};
use super::wake_state;
use crate::errno::{Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::{TryMap, TryVec};

/// Room for more commands than this is not kept.
const MANY_COMMANDS: usize = 1024;

impl LoopState {
    /// Applies the commands that other threads have queued.
    #[inline]
    pub fn apply_commands(&mut self, command_queue: &mut CommandQueue) {
        self.mark_changed();
        self.ctx.slots.settle();
        if self.ctx.shared.has_commands() || command_queue.has_commands() || self.instrumented {
            self.receive_all(command_queue);
        }
    }

    #[inline(never)]
    fn receive_all(&mut self, command_queue: &mut CommandQueue) {
        self.ctx.shared.wake_state.take(wake_state::HAS_COMMANDS);
        if self.instrumented {
            // Samples from before the commands are counted first: a command may
            // change what is measured.
            self.probe_flush_locked(command_queue);
        }
        // A timer that another thread sets counts from that thread's call: its
        // deadline is in the command, and is not settled later.
        let in_callback = std::mem::replace(&mut self.ctx.in_callback, false);
        command_queue.clocks = 0;
        for command in command_queue.commands.drain(..) {
            self.apply(command);
        }
        if command_queue.commands.capacity() > MANY_COMMANDS {
            command_queue.commands.try_shrink(0);
        }
        if std::mem::take(&mut command_queue.unlisted) {
            self.close_unlisted();
        }
        self.ctx.in_callback = in_callback;
    }

    /// Takes the calls that others posted.
    pub fn take_posts(&mut self) {
        let shared = self.ctx.shared;
        let mut taken = shared.wake_state.take_posts(shared.handle(), |stale| {
            if stale.value().destroy.is_some() {
                self.stale_posts.push(stale);
            }
        });
        if !self.stale_posts.is_empty() {
            shared.pending_work.set();
        }
        self.posts.append(&mut taken);
        self.publish_posts();
        if shared.has_commands() {
            // Commands that a thread queued before it posted take effect first.
            self.apply_commands(&mut shared.lock_commands());
        }
    }

    fn apply(&mut self, command: Command) {
        let result = match command {
            Command::Block(block) => {
                self.ctx.slots.attach_block(block);
                Ok(())
            }
            Command::Clock(clock, fd) => self
                .timers
                .adopt_clock(&mut self.ctx, &mut self.io, clock, fd)
                .map_err(|error| (0, error)),
            Command::Add(handle) => self.on_new_watcher(handle, |state, index, slot| {
                if Source::of(slot.flags.load(Relaxed)) == Source::Defer {
                    slot.unset(COMING);
                }
                state.add_to_list(index, slot)
            }),
            Command::AddFile(handle) => self.on_new_watcher(handle, |state, index, _| {
                state.files.added(&mut state.ctx, &mut state.io, index);
                Ok(())
            }),
            Command::AddIo(handle, registered) => self
                .on_new_watcher(handle, |state, index, slot| {
                    state.io.added_late(&mut state.ctx, index, slot, registered)
                }),
            Command::AddObject(handle, registered, node) => {
                self.on_new_watcher(handle, |state, index, slot| {
                    state.fd_sources.insert_late(node);
                    state.io.added_late(&mut state.ctx, index, slot, registered)
                })
            }
            Command::AddSignal(handle, new) => self.on_new_watcher(handle, |state, index, slot| {
                state.signals.added(&mut state.ctx, &mut state.io, index, slot, new)
            }),
            Command::AddTimer { handle, setting, deadline } => {
                self.on_new_watcher(handle, |state, index, slot| {
                    slot.unset(COMING);
                    state.set_timer(index, slot, &setting, Some(deadline))
                })
            }
            Command::Close(handle, deregistered) => {
                if let Some((index, slot)) = closing(handle) {
                    self.finish_close(index, slot, deregistered);
                }
                Ok(())
            }
            Command::Change(handle, change) => {
                self.on_watcher(handle, |state, index, slot| state.change(index, slot, change))
            }
            Command::Destroy(node) => {
                let handle = node.to();
                self.on_watcher(handle, |state, index, slot| {
                    state.set_destroy_late(index, slot, node);
                    Ok(())
                })
            }
            Command::Set(handle, setting, deadline) => self
                .on_watcher(handle, |state, index, slot| {
                    state.set_timer(index, slot, &setting, Some(deadline))
                }),
            Command::Again(handle, deadline) => self.on_watcher(handle, |state, index, slot| {
                state.timers.again(&mut state.ctx, index, slot, Some(deadline))
            }),
            Command::Advance(ns) => {
                self.advance(ns);
                Ok(())
            }
            Command::Probe(change) => {
                self.change_probe(change);
                Ok(())
            }
        };
        if let Err((handle, error)) = result {
            self.ctx.fail(handle, error.errno);
        }
    }

    /// Applies a command that adds a watcher.
    fn on_new_watcher(
        &mut self,
        handle: i64,
        add: impl FnOnce(&mut Self, u32, &'static WatcherSlot) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        self.on_watcher(handle, |state, index, slot| {
            if slot.has(RECORDS) {
                // Without memory now, room is reserved when an event comes.
                state.ctx.pending.expect_watcher();
            }
            add(state, index, slot)
        })
    }

    /// Applies a command to a watcher. If the watcher was closed since, the
    /// command still counts.
    fn on_watcher(
        &mut self,
        handle: i64,
        change: impl FnOnce(&mut Self, u32, &'static WatcherSlot) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        let live = slot::live(handle);
        let Some((index, slot)) = live.or_else(|| closing(handle)) else { return Ok(()) };
        self.ctx.count_liveness(slot);
        change(self, index, slot).map_err(|error| (handle, error))
    }
}

impl LoopState {
    pub fn forget_slot(&mut self, slot: &WatcherSlot) {
        if slot.has(RECORDS) {
            self.ctx.pending.forget_watcher();
        }
    }

    /// Sets, or stops, a timer. `deadline`: if it was computed already.
    pub fn set_timer(
        &mut self,
        index: u32,
        slot: &WatcherSlot,
        setting: &TimerSetting,
        deadline: Option<i64>,
    ) -> Result<()> {
        let clock = (slot.flags.load(Relaxed) >> CLOCK_SHIFT & CLOCK_MASK) as usize;
        self.ensure_clock(timer_setting::queue_of(clock, setting))?;
        self.timers.set(&mut self.ctx, index, slot, setting, deadline)
    }

    /// Makes the timer of a clock, if it is not there yet.
    pub fn ensure_clock(&mut self, clock: usize) -> Result<()> {
        self.timers.ensure_clock(&mut self.ctx, &mut self.io, clock)
    }

    /// Adds a watcher to the list of its kind, if that kind has one.
    pub fn add_to_list(&mut self, index: u32, slot: &WatcherSlot) -> Result<()> {
        let source = Source::of(slot.flags.load(Relaxed));
        if let Some(list) = self.list(source) {
            let len = list.len() + 1;
            if self.turn_buffer.try_reserve(len).is_err() {
                WatcherList::leave_out(slot);
                fail!(ENOMEM, "no memory for a watcher");
            }
            if let Some(list) = self.list(source) {
                list.push(index, slot);
            }
        }
        match source {
            Source::ClockChange => self.timers.recheck |= 1 << clock_ids::REALTIME,
            Source::Idle => self.idlers += 1,
            Source::Defer => {
                self.deferred += 1;
                slot.set(WAITING | NEXT_TIME);
                self.ctx.count_liveness(slot);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes a change to a watcher.
    pub fn change(&mut self, index: u32, slot: &WatcherSlot, change: Change) -> Result<()> {
        match change {
            Change::Enable => self.enable(index, slot),
            Change::Disable => self.disable(index, slot),
            Change::Priority(priority) => {
                self.ctx.extra(index, slot)?;
                self.publish_priority(slot.handle(Kind::Watcher, index), priority)?;
                self.ctx.extra(index, slot)?.priority = priority;
                let prioritized = slot.has(HAS_PRIORITY);
                if priority != 0 && !prioritized {
                    slot.set(HAS_PRIORITY);
                    self.prioritized += 1;
                } else if priority == 0 && prioritized {
                    slot.unset(HAS_PRIORITY);
                    self.prioritized -= 1;
                }
                Ok(())
            }
            Change::RateLimit { interval, burst } => self.limit(index, slot, interval, burst),
            Change::Named => {
                slot.set(NAMED);
                Ok(())
            }
            Change::Data(data) => {
                slot.data.store(data, Relaxed);
                Ok(())
            }
            Change::Ref => {
                slot.unset(UNREF);
                self.ctx.count_liveness(slot);
                Ok(())
            }
            Change::Unref => {
                slot.set(UNREF);
                self.ctx.count_liveness(slot);
                Ok(())
            }
            Change::Events(events) => self.io.modify(&mut self.ctx, index, slot, events),
            Change::IoSet(0) => self.disable(index, slot),
            Change::IoSet(events) => {
                self.io.modify(&mut self.ctx, index, slot, events)?;
                self.enable(index, slot)
            }
            Change::Tolerance(tolerance) => {
                self.timers.set_tolerance(&mut self.ctx, index, slot, tolerance)
            }
        }
    }

    /// Lets other threads see a watcher's priority.
    fn publish_priority(&self, handle: i64, priority: i32) -> Result<()> {
        let mut priorities = self.ctx.shared.priorities.lock();
        if priority == 0 {
            priorities.remove(&handle);
        } else if priorities.try_put(handle, priority).is_err() {
            fail!(ENOMEM, "no memory for a priority");
        }
        Ok(())
    }

    fn limit(&mut self, index: u32, slot: &WatcherSlot, interval: i64, burst: i32) -> Result<()> {
        // The clock's timer wakes the loop when a limited watcher may be called
        // again.
        self.ensure_clock(clock_ids::MONOTONIC)?;
        let extra = self.ctx.extra(index, slot)?;
        if interval > 0 {
            extra.limit = Some(Limit { interval, burst, since: i64::MIN, count: 0 });
            slot.set(HAS_RATE_LIMIT);
        } else {
            extra.limit = None;
            slot.unset(HAS_RATE_LIMIT);
        }
        if slot.has(RATE_LIMITED_NOW) {
            // The deferred event is delivered now, as the first of the new
            // limit.
            self.end_suspension(index);
        }
        Ok(())
    }

    #[inline]
    fn enable(&mut self, index: u32, slot: &WatcherSlot) -> Result<()> {
        let flags = slot.flags.load(Relaxed);
        let source = Source::of(flags);
        if flags & ENABLED != 0 {
            return Ok(());
        }
        if source.is_descriptor() {
            self.io.retry(&mut self.ctx, index, slot)?;
        }
        slot.set(ENABLED);
        match source {
            source if source.is_descriptor() => {
                slot.unset(AUTO_DISABLED);
                self.io.rearm(index, slot);
                self.io.forget_deferred(&mut self.ctx, index, slot);
                self.ctx.fail_if_fd_lost(index, slot);
            }
            Source::File => {
                slot.unset(AUTO_DISABLED);
                self.files.resume(&mut self.ctx, index, slot);
            }
            Source::Timer => {
                if let Err(error) = self.timers.enable(&mut self.ctx, index, slot) {
                    slot.unset(ENABLED);
                    return Err(error);
                }
            }
            Source::Async if slot.is_pending() && is_unlinked(flags) => {
                self.asyncs.relink(&mut self.ctx, index, slot)
            }
            Source::Signal => self.signals.note_due(index),
            Source::Idle => self.idlers += 1,
            Source::Defer => {
                slot.set(WAITING | NEXT_TIME);
                self.deferred += 1;
            }
            _ => {}
        }
        self.ctx.count_liveness(slot);
        if flags & EXTRA != 0 {
            self.deliver_deferred(index, slot);
        }
        Ok(())
    }

    /// Delivers the event that was deferred while the watcher was disabled.
    fn deliver_deferred(&mut self, index: u32, slot: &WatcherSlot) {
        let deferred_event =
            self.ctx.extras.get(&index).is_some_and(|extra| extra.deferred_event.is_some());
        if deferred_event && !slot.has(RATE_LIMITED_NOW) {
            self.suspend(index, slot, i64::MIN);
        }
    }

    #[inline]
    fn disable(&mut self, index: u32, slot: &WatcherSlot) -> Result<()> {
        let flags = slot.flags.load(Relaxed);
        if flags & ENABLED == 0 {
            match Source::of(flags) {
                source if source.is_descriptor() || source == Source::File => {
                    slot.unset(AUTO_DISABLED);
                }
                Source::Defer => slot.unset(DUE),
                _ => {}
            }
            self.requeue_pending(index, slot);
            return Ok(());
        }
        match Source::of(flags) {
            source if source.is_descriptor() => self.io.touch(index, slot),
            Source::Timer => self.timers.disable(&mut self.ctx, index, slot)?,
            Source::Idle => self.idlers -= 1,
            Source::Defer if flags & WAITING != 0 => self.deferred -= 1,
            _ => {}
        }
        slot.unset(ENABLED);
        self.ctx.count_liveness(slot);
        self.requeue_pending(index, slot);
        Ok(())
    }

    pub fn uncount(&mut self, slot: &WatcherSlot) {
        if slot.has(COUNTED) {
            slot.unset(COUNTED);
            self.ctx.active -= 1;
        }
    }

    /// Closes a watcher. Others may be closing it, too, or sending to it, at
    /// this moment.
    #[inline]
    pub fn close(&mut self, resolved: &Resolved) -> Result<()> {
        let slot = resolved.slot;
        if !slot.close(resolved.handle) {
            return handle::stale(resolved.handle.pack());
        }
        self.ctx.shared.count(-1);
        self.finish_close(resolved.handle.index, slot, false);
        Ok(())
    }

    /// Takes a watcher that is marked closing out of everything;
    /// `deregistered`: its registration was removed already.
    pub fn finish_close(&mut self, index: u32, slot: &WatcherSlot, deregistered: bool) {
        let flags = slot.flags.load(Relaxed);
        self.uncount(slot);
        match Source::of(flags) {
            Source::Io => self.io.close(&mut self.ctx, index, slot, deregistered),
            source if source.is_fd_source() => {
                self.io.close(&mut self.ctx, index, slot, deregistered);
                self.fd_sources.take(index);
            }
            Source::Timer => self.timers.stop(&mut self.ctx, index, slot),
            Source::Signal => self.signals.close(&mut self.ctx, index, slot),
            Source::File => self.files.close(&mut self.ctx, index, deregistered),
            source => self.remove_from_list(slot, source),
        }
        if flags & (EXTRA | NAMED | HAS_PENDING | RECORDS) != 0 {
            self.close_extras(index, slot);
        }
        if slot.is_pending() && !is_unlinked(flags) {
            // A sender has pushed it onto the stack of async watchers, or is
            // about to.
            slot.set(CLOSED_ON_STACK);
            return;
        }
        self.ctx.slots.free(index);
    }

    /// Finishes the closing of watchers that other threads could only mark, as
    /// there was no memory for a command.
    #[cold]
    pub fn close_unlisted(&mut self) {
        let mut position = usize::MAX;
        while let Some((next, index, slot)) =
            self.ctx.slots.find_before(position, WatcherSlot::is_unlisted)
        {
            position = next;
            let was_removed = slot.take_unlisted();
            self.finish_close(index, slot, was_removed);
        }
    }

    fn remove_from_list(&mut self, slot: &WatcherSlot, source: Source) {
        let flags = slot.flags.load(Relaxed);
        let Some(list) = self.list(source) else { return };
        if !list.remove(slot) {
            return;
        }
        match source {
            Source::Idle if flags & ENABLED != 0 => self.idlers -= 1,
            Source::Defer if flags & (ENABLED | WAITING) == ENABLED | WAITING => {
                self.deferred -= 1;
            }
            _ => {}
        }
    }

    #[cold]
    fn close_extras(&mut self, index: u32, slot: &WatcherSlot) {
        let handle = slot.handle(Kind::Watcher, index);
        self.forget_slot(slot);
        if slot.has(NAMED) {
            self.unnamed_more |= self.unnamed.try_push(handle).is_err();
            if self.unnamed.len() >= MANY_NAMES || self.unnamed_more {
                self.ctx.shared.pending_work.set();
            }
        }
        if slot.has(HAS_PRIORITY) {
            self.prioritized -= 1;
            self.ctx.shared.priorities.lock().remove(&handle);
        }
        if slot.has(RATE_LIMITED_NOW) {
            self.forget_suspended(index);
        }
        if slot.has(HAS_PENDING) {
            self.discard_pending(slot, handle);
        }
        if slot.has(EXTRA)
            && let Some(node) = self.take_destroy(index, handle)
        {
            self.note_destroy(node, closed_event(index, slot));
        }
        let deferred_event = self.ctx.extras.remove(&index).and_then(|extra| extra.deferred_event);
        // What is longer than an event that will not be seen.
        self.ctx.payloads.set_retained(
            deferred_event.map_or(0, |deferred_event| deferred_event.reserved),
            false,
        );
        if self.ctx.extras.capacity() > 1024
            && self.ctx.extras.capacity() > 8 * self.ctx.extras.len()
        {
            self.ctx.extras.try_shrink();
        }
    }
}

/// The watcher of a handle that is marked closing.
fn closing(handle: i64) -> Option<(u32, &'static WatcherSlot)> {
    let handle = Handle::unpack_as(handle, Kind::Watcher)?;
    let slot = slot::get(handle.index).filter(|slot| slot.is(handle, CLOSING))?;
    Some((handle.index, slot))
}
