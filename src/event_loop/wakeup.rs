//! What a wait has found: the loop's own events, commands of other threads, and
//! whether descriptors still are what was registered.

use super::clock_ids::REALTIME;
use super::own_words::{INOTIFY, SIGNALFD, is_internal};
use super::slot::live;
use super::source::files;
use super::state::LoopState;
use super::wake_state;
use crate::errno::Errno;
use crate::sys::fd::Fd;
use crate::sys::{epoll, timerfd};

/// How many events pass before a registration is looked at.
const CHECK_EVERY: u32 = 256;
/// How many iterations in a row may have events of closed watchers.
const MAX_STALE_ROUNDS: u32 = 3;

impl LoopState {
    /// The loop's own events among those found, and others' commands.
    #[inline]
    pub fn drain_internal(&mut self, found: usize) {
        self.dispatched = 0;
        let mut own = 0;
        for event in self.events.iter().take(found) {
            // SAFETY: the kernel filled in as many as were found.
            let word = unsafe { event.assume_init_ref() }.u64;
            own |= if is_internal(word) { 1u64 << (word & 63) } else { 0 };
        }
        while own != 0 {
            self.on_internal_event(own.trailing_zeros() as usize, found == 1);
            own &= own - 1;
        }
        let shared = self.ctx.shared;
        if shared.wake_state.has_posts() {
            self.take_posts();
        }
        if shared.wake_state.peek() & (wake_state::HAS_COMMANDS | wake_state::SIGNALS) != 0 {
            self.take_commands();
        }
        self.ctx.payloads.forget();
        // What callbacks of this iteration post is for the next one.
        self.posts_due = self.posts.len();
    }

    /// Takes the commands that other threads have queued, and the signals that
    /// handlers have seen.
    #[cold]
    fn take_commands(&mut self) {
        let shared = self.ctx.shared;
        if shared.has_commands() {
            self.apply_commands(&mut shared.lock_commands());
        }
        if shared.wake_state.take(wake_state::SIGNALS) != 0 {
            self.signals.due = true;
        }
    }

    #[inline]
    pub fn has_more_than_descriptors(&self) -> bool {
        self.timers.due != 0
            || self.timers.clock_changed
            || self.posts_due > 0
            || self.deferred > 0
            || self.asyncs.has_drained()
            || self.signals.due
            || !self.ctx.suspended.is_empty()
            || self.files.is_active()
    }

    /// An event that the last wait found.
    #[inline(always)]
    pub fn event_at(&self, i: usize) -> Option<epoll::Event> {
        // SAFETY: the kernel filled as many as were found.
        self.events.get(i).map(|event| unsafe { event.assume_init() })
    }

    /// Looks, now and then, whether what is reported is still what was
    /// registered.
    #[inline]
    pub fn check_registrations(&mut self, found: usize) {
        self.io.unchecked = self.io.unchecked.wrapping_add(found as u32);
        if self.io.unchecked >= CHECK_EVERY || self.io.stale_rounds != 0 {
            self.check_registrations_now(found);
        }
    }

    #[cold]
    fn check_registrations_now(&mut self, found: usize) {
        self.mark_changed();
        let is_stale = self.io.stale_rounds & 1 << 31 != 0;
        self.io.stale_rounds = if is_stale { (self.io.stale_rounds & !(1 << 31)) + 1 } else { 0 };
        if self.io.stale_rounds == 1 {
            // Perhaps the whole set is the program's.
            let shared = self.ctx.shared;
            self.ctx.has_own_epoll(&mut shared.lock_commands());
        } else if self.io.stale_rounds >= MAX_STALE_ROUNDS {
            self.rebuild();
        }
        if self.io.unchecked >= CHECK_EVERY && found > 0 {
            // Not always the same one.
            let i = (self.io.unchecked / CHECK_EVERY) as usize % found;
            self.io.unchecked %= CHECK_EVERY;
            let word = self.event_at(i).map_or(0, |event| event.u64);
            if let Some((_, slot)) = live(word.cast_signed()) {
                self.io_check(slot);
            }
        }
    }

    /// An event of one of the loop's own descriptors; `alone`: the only one.
    fn on_internal_event(&mut self, number: usize, alone: bool) {
        if number == SIGNALFD {
            return self.signals.take_signalfd(&mut self.ctx);
        }
        let Some(clock) = number.checked_sub(1) else {
            if !self.fd_sources.is_empty() {
                self.fd_sources.check(&mut self.ctx, &mut self.io);
            }
            return;
        };
        if number == INOTIFY {
            self.files.bits |= files::WORK;
            return;
        }
        self.timers.due |= 1 << clock;
        let entry = self.timers.clock(clock);
        entry.armed = i64::MAX;
        entry.pace.ended_wait(alone);
        let fd = entry.fd.as_ref().and_then(Fd::check);
        if clock == REALTIME
            && let Some(fd) = fd
            && timerfd::read(fd) == Err(Errno::ECANCELED)
        {
            self.timers.clock_changed = true;
        }
    }
}
