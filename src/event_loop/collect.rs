//! What a round has besides the descriptors that the kernel has reported: taken
//! from its source one event at a time, and dispatched.

use super::clock_ids;
use super::command::Post;
use super::dispatch::keep_larger;
use super::event::Event;
use super::flags::*;
use super::node_list::ListNode;
use super::run_guard::RunGuard;
use super::slot::view;
use super::slot::{self, WatcherSlot, live};
use super::source::files;
use super::source::signals::{self, SignalBatch};
use super::state::{BatchItem, LoopState};
use crate::errno::{Errno, Result};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;

impl RunGuard {
    pub fn asyncs(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if !self.shared.wake_state.has_pending_asyncs() && !state.asyncs.has_drained() {
            return Ok(());
        }
        state.asyncs.drain_pending(&mut state.ctx);
        if self.shared.has_commands() {
            // What was asked for before one was sent to comes before.
            state.apply_commands(&mut self.shared.lock_commands());
        }
        // SAFETY: as above.
        while let Some((index, slot)) = unsafe { self.state() }.asyncs.next_drained() {
            self.deliver_async(index, slot)?;
        }
        Ok(())
    }

    fn deliver_async(&self, index: u32, slot: &WatcherSlot) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.asyncs.is_due(&mut state.ctx, index, slot) {
            let handle = slot.handle(Kind::Watcher, index);
            self.emit(Event::new(handle, Source::Async as i32), slot)?;
        }
        Ok(())
    }

    /// Delivers the signals that came.
    pub fn signals(&self) -> Result<()> {
        // SAFETY: no other reference to the state; nor below.
        let signals = unsafe { &mut self.state().signals };
        if !std::mem::take(&mut signals.due) {
            return Ok(());
        }
        for position in 0..signals.count() {
            // SAFETY: as above.
            let state = unsafe { self.state() };
            let Some(batch) = state.signals.begin(&mut state.ctx, position) else { continue };
            // SAFETY: as above.
            while let Some((index, slot)) = unsafe { self.state() }.signals.next_watcher(position) {
                self.signals_of(index, slot, &batch)?;
            }
            // SAFETY: as above.
            unsafe { self.state() }.signals.return_buffer(batch);
        }
        Ok(())
    }

    fn signals_of(&self, index: u32, slot: &WatcherSlot, batch: &SignalBatch) -> Result<()> {
        let handle = slot.handle(Kind::Watcher, index);
        // SAFETY: no other reference to the state; nor below.
        let state = unsafe { self.state() };
        state.signals.take_in(&mut state.ctx, index, batch);
        for _ in 0..signals::MAX_PER_ROUND {
            let is_ready =
                slot.flags.load(Relaxed) & (ENABLED | RATE_LIMITED_NOW | HAS_PENDING) == ENABLED;
            if live(handle).is_none() || !is_ready {
                return Ok(());
            }
            // SAFETY: as above.
            let state = unsafe { self.state() };
            let Some(event) = state.signals.next_event(&mut state.ctx, index, handle) else {
                return Ok(());
            };
            self.emit(event, slot)?;
        }
        // SAFETY: as above.
        unsafe { self.state() }.signals.note_due(index);
        Ok(())
    }

    pub fn posts(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        let count = state.posts_due.min(state.max_posts as usize);
        for _ in 0..count {
            // SAFETY: as above.
            let state = unsafe { self.state() };
            let count = state.batch.len() + 1;
            let is_kept = |post: &Post| post.target.callback.is_none();
            if state.posts.first().is_some_and(is_kept)
                && state.ctx.pending.try_reserve(count).is_err()
            {
                // The next iteration.
                break;
            }
            let Some(post) = state.posts.take() else { break };
            state.publish_posts();
            if state.prioritized > 0 && state.batch.try_reserve(1).is_ok() {
                let position = state.batch.len();
                state.batch.push_reserved((std::cmp::Reverse(0), position, BatchItem::Post));
                state.batched.push(post);
            } else {
                self.deliver_post(post)?;
            }
        }
        Ok(())
    }

    pub fn deliver_post(&self, post: Box<ListNode<Post>>) -> Result<()> {
        let Post { target, destroy } = *post.value();
        drop(post);
        if destroy.is_none() {
            return self.call_post(target);
        }
        self.deliver_full_post(Post { target, destroy })
    }

    #[cold]
    fn deliver_full_post(&self, post: Post) -> Result<()> {
        if post.is_copy() {
            return Ok(());
        }
        let called = self.call_post(post.target);
        // Not if the callback forked, and this is the child.
        post.destroy();
        called.and_then(|()| self.run_pending_work_if_any())
    }

    pub fn deferred(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        if unsafe { self.state() }.deferred == 0 {
            return Ok(());
        }
        self.in_turn(Source::Defer)
    }

    /// Calls all watchers of a kind.
    pub fn in_turn(&self, source: Source) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        let watchers = state.take_turn(source);
        let result = watchers.iter().try_for_each(|(handle, _, _)| self.take_turn(source, *handle));
        // Its room was reserved: a child that goes on with the loop needs it.
        // SAFETY: as above.
        keep_larger(&mut unsafe { self.state() }.turn_buffer, watchers);
        result
    }

    fn take_turn(&self, source: Source, handle: i64) -> Result<()> {
        let Some((_, slot)) = live(handle).filter(|(_, slot)| slot.has(ENABLED)) else {
            return Ok(());
        };
        let event = Event::new(handle, source as i32);
        match source {
            // SAFETY: no other reference to the state.
            Source::Defer if !unsafe { self.state() }.defer_is_over(slot) => Ok(()),
            Source::Defer | Source::ClockChange => self.emit(event, slot),
            _ => self.deliver_in_turn(event),
        }
    }

    /// Those do not count as something that happened.
    fn deliver_in_turn(&self, event: Event) -> Result<()> {
        // SAFETY: no other reference to the state.
        let before = unsafe { self.state() }.dispatched;
        self.deliver(event)?;
        // SAFETY: as above.
        unsafe { self.state() }.dispatched = before;
        Ok(())
    }

    /// Lets watchers go on whose rate limit's interval is over.
    pub fn resume(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.ctx.suspended.is_empty() {
            return Ok(());
        }
        let now = state.ctx.read_clock(clock_ids::MONOTONIC);
        let mut over = Vec::new();
        state.ctx.suspended.retain(|(until, index)| {
            let is_over = *until <= now && over.try_reserve(1).is_ok();
            if is_over {
                over.push_reserved(*index);
            }
            !is_over
        });
        if !over.is_empty() {
            state.renumber_suspended();
        }
        for index in over {
            let Some(slot) = slot::get(index) else { continue };
            // SAFETY: as above.
            if let Some(event) = unsafe { self.state() }.go_on(index, slot) {
                self.emit(event, slot)?;
            }
        }
        Ok(())
    }

    /// Reads and dispatches what happened to files.
    pub fn files(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        state.files.find(&mut state.ctx);
        for _ in 0..files::MAX_PER_ROUND {
            // SAFETY: as above.
            let state = unsafe { self.state() };
            let Some((event, slot)) = state.files.next_event(&mut state.ctx) else {
                return Ok(());
            };
            self.emit(event, slot)?;
        }
        // SAFETY: as above.
        unsafe { self.state() }.files.bits |= files::WORK;
        Ok(())
    }

    pub fn failures(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let count = unsafe { self.state() }.ctx.failures.len();
        for _ in 0..count {
            // SAFETY: as above.
            let state = unsafe { self.state() };
            let Some((handle, errno)) = state.ctx.failures.pop_front() else { break };
            let Some((_, slot)) = live(handle) else { continue };
            slot.unset(FAILED);
            let flags = slot.flags.load(Relaxed);
            let source = Source::of(flags);
            if source.is_descriptor() && flags & (ENABLED | AUTO_DISABLED) == 0 {
                // The error is reported when the watcher is enabled.
                continue;
            }
            let mut event = Event::new(handle, source as i32);
            event.events = ERROR;
            event.result = errno.negated();
            if source == Source::Io {
                event.fd = view::fd_of(slot);
            }
            if source.is_descriptor() && slot.has(ENABLED) {
                slot.unset(ENABLED);
                slot.set(AUTO_DISABLED);
                state.ctx.count_liveness(slot);
            }
            if errno == Errno::EBADF && source.is_descriptor() && state.checks_fds() {
                state.explain_loss(handle, slot);
            }
            self.emit(event, slot)?;
        }
        // SAFETY: as above.
        let state = unsafe { self.state() };
        if state.ctx.failures_more {
            state.ctx.list_failures();
        }
        state.ctx.shared.failures.store(state.ctx.failures.len() as u32, Relaxed);
        Ok(())
    }

    /// Calls those whose turn it is.
    #[cold]
    pub fn not_pollable_ready(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the state.
        let LoopState { io, ctx, events, .. } = unsafe { self.state() };
        io.not_pollable.verify_next(ctx);
        let taken = io.not_pollable.take_turns(ctx, events, found).unwrap_or_default();
        for (handle, events) in taken {
            self.not_pollable_event(handle, events)?;
        }
        Ok(())
    }
}

impl LoopState {
    /// The watchers of a kind, in the order in which they are called; there is
    /// room for them (see `add_to_list`).
    fn take_turn(&mut self, source: Source) -> Vec<(i64, i32, usize)> {
        let mut watchers = std::mem::take(&mut self.turn_buffer);
        watchers.clear();
        for (index, slot) in self.list(source).iter().flat_map(|list| list.iter()) {
            let position = watchers.len();
            watchers.push_reserved((slot.handle(Kind::Watcher, index), 0, position));
        }
        if self.prioritized > 0 && source != Source::Defer {
            for (handle, priority, _) in &mut watchers {
                *priority = self.priority(*handle);
            }
            watchers.sort_unstable_by_key(|(_, priority, position)| {
                (std::cmp::Reverse(*priority), *position)
            });
        }
        watchers
    }

    /// A defer watcher is called; true: it was waiting for that.
    fn defer_is_over(&mut self, slot: &WatcherSlot) -> bool {
        if slot.flags.load(Relaxed) & (WAITING | NEXT_TIME) != WAITING {
            return false;
        }
        slot.unset(WAITING | ENABLED);
        slot.set(DUE);
        self.deferred -= 1;
        self.ctx.count_liveness(slot);
        true
    }
}
