//! From what happened to whom it concerns.
//!
//! An event that needs nothing but its callback called is dispatched at once.
//! What else there can be about a watcher (priorities, rate limits, no
//! callback) takes a longer way.

use super::command::Post;
use super::core::{Core, MANY_NAMES};
use super::desk;
use super::event::{Callback, Event, Target};
use super::flags::*;
use super::io;
use super::letters::{Letter, Letters};
use super::mailbox;
use super::named::{destroy_posts, notify};
use super::objects;
use super::record::{self, LIVE, Record};
use super::running::Run;
use crate::errno::{Errno, Result};
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;
use crate::timer_queue::Popped;
use crate::util::alloc::TryVec;
use std::ffi::c_void;

/// Something to be dispatched.
#[derive(Clone, Copy)]
pub(super) enum Job {
    /// With the number of the timer's setting.
    Event(Event, u64),
    /// The next one of `Core::batched`.
    Post,
}

/// How many outdated entries of the timer queue an iteration corrects at
/// most, beyond what expires.
const CORRECTIONS: u32 = 2048;

/// A live watcher, by the word of an event.
#[inline(always)]
pub(super) fn live(handle: i64) -> Option<(u32, &'static Record)> {
    let handle = Handle::unpack_as(handle, Kind::Watcher)?;
    let record = record::get(handle.index)?;
    record.is(handle, LIVE).then_some((handle.index, record))
}

impl Run {
    /// Calls a callback.
    #[inline(always)]
    fn call(&self, callback: Callback, event: &Event, user_data: *mut c_void) -> Result<()> {
        // SAFETY: the program's function and argument, as it promised; no
        // reference into the core is in use.
        unsafe { callback(event, user_data) };
        self.attend_if_due()
    }

    #[inline(always)]
    pub fn attend_if_due(&self) -> Result<()> {
        if self.is_attention_due() { self.attend() } else { Ok(()) }
    }

    /// Does what has to be done before the next callback.
    #[cold]
    pub fn attend(&self) -> Result<()> {
        self.desk.attention.take();
        self.check()?;
        loop {
            // SAFETY: no other reference to the core.
            let core = unsafe { self.core() };
            core.current = 0;
            let closed = core.take_destroys();
            let mut stale = std::mem::replace(&mut core.stale_posts, Letters::new());
            if closed.is_empty() && stale.is_empty() {
                break;
            }
            destroy_posts(&mut stale);
            // SAFETY: as above.
            let core = unsafe { self.core() };
            if core.watched {
                self.notify_watched(closed);
            } else {
                notify(closed);
            }
            self.check()?;
        }
        // SAFETY: as above.
        let core = unsafe { self.core() };
        if core.unnamed.len() >= MANY_NAMES || core.unnamed_more {
            core.forget_names(&mut self.desk.gate());
        }
        if self.desk.mail.take(mailbox::ASKED) != 0 {
            self.desk.answer(&mut self.desk.gate());
        }
        Ok(())
    }

    /// Dispatches an event of a descriptor.
    #[inline(always)]
    fn io_event<const COUNTED: bool>(&self, word: u64, ready: u32, plain: u32) -> Result<()> {
        let handle = word.cast_signed();
        let Some((index, record)) = live(handle) else { return self.nobody() };
        if record.flags.load(Relaxed) & PLAIN_MASK != plain {
            return self.io_event_slowly(handle, index, record, ready);
        }
        let Some(callback) = record.callback() else { return Ok(()) };
        // SAFETY: no other reference to the core, and not kept.
        let core = unsafe { self.core() };
        core.dispatched = core.dispatched.wrapping_add(1);
        core.current = handle;
        let user_data = record.user_data();
        let event = Event {
            data: user_data.expose_provenance() as u64,
            events: ready,
            fd: io::fd_of(record),
            ..Event::new(handle, Source::Io as i32)
        };
        if COUNTED {
            return self.call_counted(callback, &event, user_data);
        }
        self.call(callback, &event, user_data)
    }

    #[inline(never)]
    fn io_event_slowly(&self, handle: i64, index: u32, record: &Record, ready: u32) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        core.stir();
        if !record.has(SHARED) {
            return self.one_io_event(handle, index, record, ready);
        }
        let mut sharers = std::mem::take(&mut core.io.sharers);
        sharers.clear();
        core.io_sharers(record, ready, &mut sharers);
        if sharers.is_empty() {
            core.io_stray(index, record);
        }
        for (handle, ready) in &sharers {
            if let Some((index, record)) = live(*handle) {
                self.one_io_event(*handle, index, record, *ready)?;
            }
        }
        // SAFETY: no other reference to the core.
        keep_larger(&mut unsafe { self.core() }.io.sharers, sharers);
        Ok(())
    }

    fn one_io_event(&self, handle: i64, index: u32, record: &Record, ready: u32) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        let flags = record.flags.load(Relaxed);
        if flags & DEAD != 0 {
            return self.nobody();
        }
        if flags & (ENABLED | MASKED) != ENABLED {
            core.io_stray(index, record);
            let is_pressure = Source::of(flags) == Source::MemoryPressure;
            if is_pressure && ready & libc::EPOLLERR as u32 == 0 {
                // The kernel says it once.
                let mut event = Event::new(handle, Source::MemoryPressure as i32);
                if objects::ask(core, index, record, ready, &mut event) {
                    core.put_back(&event);
                }
            }
            return Ok(());
        }
        let mut event = Event {
            events: ready,
            fd: io::fd_of(record),
            ..Event::new(handle, Source::of(flags) as i32)
        };
        if Source::of(flags).is_object() {
            event.fd = -1;
            event.events = 0;
            if !objects::ask(core, index, record, ready, &mut event) {
                return Ok(());
            }
        } else if flags & ONESHOT != 0 {
            core.io_spent(index, record);
        }
        self.emit(event, record)
    }

    /// An event came of a watcher that is closed. In the iteration in which
    /// it was that is no wonder; later the kernel reports a descriptor that
    /// was closed while a duplicate of it is open.
    #[cold]
    fn nobody(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        unsafe { self.core() }.io.strays |= 1 << 31;
        Ok(())
    }

    /// Dispatches an event now or, where there are priorities, with the
    /// others.
    #[inline]
    pub fn emit(&self, event: Event, record: &Record) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if core.ranked > 0 && core.batch.try_reserve(1).is_ok() {
            let (priority, place) = (core.priority(event.watcher), core.batch.len());
            let job = Job::Event(event, record.node.seq());
            core.batch.push_reserved((std::cmp::Reverse(priority), place, job));
            return Ok(());
        }
        self.deliver(event)
    }

    /// Dispatches an event, if its watcher still wants it.
    #[inline]
    pub fn deliver(&self, mut event: Event) -> Result<()> {
        let Some((index, record)) = live(event.watcher) else { return Ok(()) };
        // SAFETY: no other reference to the core, and not kept.
        let core = unsafe { self.core() };
        event.data = record.data.load(Relaxed);
        if record.flags.load(Relaxed) & EXTRA_WORK != 0 && !core.admit(index, record, &mut event) {
            return Ok(());
        }
        core.dispatched += 1;
        core.current = event.watcher;
        let watched = core.watched;
        match record.callback() {
            Some(call) if watched => self.call_one_watched(call, &event, record.user_data()),
            Some(callback) => self.call(callback, &event, record.user_data()),
            None => Ok(()),
        }
    }

    /// Dispatches what is ready, in order of priority.
    fn deliver_batch(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if core.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut core.batch);
        // Needs no memory, and the place makes the order one.
        batch.sort_unstable_by_key(|(priority, place, _)| (*priority, *place));
        for (_, _, job) in batch.drain(..) {
            match job {
                Job::Event(event, seq) => {
                    if was_set_anew(&event, seq) {
                        continue;
                    }
                    if is_wanted(&event) {
                        self.deliver(event)?;
                    } else {
                        // SAFETY: as above.
                        unsafe { self.core() }.put_back(&event);
                    }
                }
                Job::Post => {
                    // SAFETY: as above.
                    if let Some(post) = unsafe { self.core() }.batched.take() {
                        self.deliver_post(post)?;
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { self.core() }.batch = batch;
        Ok(())
    }

    /// Dispatches everything that one wait has found.
    #[inline]
    pub fn dispatch(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the core; nor below.
        unsafe { self.core() }.sort_out(found);
        if self.is_attention_due() {
            self.attend()?;
        }
        // SAFETY: as above.
        if unsafe { self.core() }.has_more_than_descriptors() || self.desk.mail.has_sent() {
            self.timers()?;
            self.asyncs()?;
            self.signals()?;
            self.posts()?;
            self.deferred()?;
            self.resume()?;
            // SAFETY: as above.
            if unsafe { self.core() }.files.is_active() {
                self.files()?;
            }
        }
        self.descriptors(found)?;
        self.finish_round(found)
    }

    /// What comes after the descriptors.
    #[inline]
    pub fn finish_round(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the core; nor below.
        let core = unsafe { self.core() };
        if core.has_leftovers() {
            if !core.io.always.is_empty() {
                self.always_ready(found)?;
            }
            self.failures()?;
            self.deliver_batch()?;
        }
        // SAFETY: as above.
        let core = unsafe { self.core() };
        let idle = core.idlers > 0 && core.dispatched == 0;
        if !core.lists.check.is_empty() {
            self.in_turn(Source::Check)?;
        }
        if idle { self.in_turn(Source::Idle) } else { Ok(()) }
    }

    pub fn descriptors(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the core.
        if unsafe { self.core() }.watched {
            return self.descriptors_watched(found);
        }
        self.each_descriptor::<false>(found, PLAIN_IO)
    }

    /// The same where somebody looks: who only counts has a short way, too.
    #[cold]
    #[inline(never)]
    fn descriptors_watched(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if core.watch.only_counts() {
            core.watch.begin_counted();
            return self.each_descriptor::<true>(found, PLAIN_IO);
        }
        self.each_descriptor::<false>(found, u32::MAX)
    }

    #[inline(always)]
    fn each_descriptor<const COUNTED: bool>(&self, found: usize, plain: u32) -> Result<()> {
        // SAFETY: no other reference to the core, and not kept.
        let core = unsafe { self.core() };
        // A priority that is set meanwhile counts from the next iteration on.
        let plain = if core.ranked == 0 { plain } else { u32::MAX };
        let events = core.events.as_ptr();
        for at in 0..found.min(core.events.len()) {
            // SAFETY: inside the array, which only a wait changes or frees.
            let event = unsafe { events.add(at) };
            // SAFETY: as above.
            let event = unsafe { &*event };
            // SAFETY: the kernel filled in as many as were found.
            let event = unsafe { event.assume_init_read() };
            if !io::is_internal(event.u64) {
                self.io_event::<COUNTED>(event.u64, event.events, plain)?;
            }
        }
        // SAFETY: as above.
        unsafe { self.core() }.look_after(found);
        Ok(())
    }

    pub fn always_event(&self, handle: i64, events: u32) -> Result<()> {
        match live(handle) {
            Some((index, record)) => self.one_io_event(handle, index, record, events),
            None => Ok(()),
        }
    }

    fn failures(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let count = unsafe { self.core() }.failures.len();
        for _ in 0..count {
            // SAFETY: as above.
            let core = unsafe { self.core() };
            let Some((handle, errno)) = core.failures.pop_front() else { break };
            let Some((_, record)) = live(handle) else { continue };
            record.unset(FAILED);
            let flags = record.flags.load(Relaxed);
            let source = Source::of(flags);
            if source.is_descriptor() && flags & (ENABLED | SPENT) == 0 {
                // It is told when it is enabled.
                continue;
            }
            let mut event = Event::new(handle, source as i32);
            event.events = ERROR;
            event.result = errno.negated();
            if source == Source::Io {
                event.fd = io::fd_of(record);
            }
            if source.is_descriptor() && record.has(ENABLED) {
                record.unset(ENABLED);
                record.set(SPENT);
                core.count_liveness(record);
            }
            if errno == Errno::EBADF && source.is_descriptor() && core.checks_fds() {
                core.explain_loss(handle, record);
            }
            self.emit(event, record)?;
        }
        // SAFETY: as above.
        let core = unsafe { self.core() };
        if core.failures_more {
            core.list_failures();
        }
        core.desk.failures.store(core.failures.len() as u32, Relaxed);
        Ok(())
    }

    fn timers(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        if unsafe { self.core() }.timers.due != 0 {
            for clock in 0..desk::CLOCKS {
                // SAFETY: as above.
                if unsafe { self.core() }.timers.due & 1 << clock != 0 {
                    self.expire(clock)?;
                }
            }
        }
        // SAFETY: as above.
        let core = unsafe { self.core() };
        if std::mem::take(&mut core.clock_changed) {
            self.in_turn(Source::ClockChange)?;
        }
        Ok(())
    }

    fn expire(&self, clock: usize) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        let now = core.expiry_time(clock);
        core.timers.recheck |= 1 << clock;
        let saved = core.timers.clock(clock).look(now);
        if core.watched {
            core.watch_timers(saved);
        }
        let mut corrections = CORRECTIONS;
        for _ in 0..core.max_timers {
            // SAFETY: as above.
            let core = unsafe { self.core() };
            match core.pop_due(clock, now, &mut corrections) {
                Popped::Due { id, deadline } => self.expired(id, deadline, now)?,
                Popped::Later => return Ok(()),
                Popped::None => {
                    core.timers.due &= !(1 << clock);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn expired(&self, index: u32, deadline: i64, now: i64) -> Result<()> {
        let Some(record) = record::get(index) else { return Ok(()) };
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        let Some((count, deadline_ns)) = core.expired(index, record, deadline, now) else {
            return Ok(());
        };
        let handle = record.handle(Kind::Watcher, index);
        let event =
            Event { count, time_ns: now, deadline_ns, ..Event::new(handle, Source::Timer as i32) };
        self.emit(event, record)
    }

    fn posts(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        let count = core.posts_due.min(core.max_posts as usize);
        for _ in 0..count {
            // SAFETY: as above.
            let core = unsafe { self.core() };
            let room = core.batch.len() + 1;
            let is_kept = |post: &Post| post.target.callback.is_none();
            if core.posts.first().is_some_and(is_kept) && core.held.try_reserve(room).is_err() {
                // The next iteration.
                break;
            }
            let Some(post) = core.posts.take() else { break };
            core.publish_posts();
            if core.ranked > 0 && core.batch.try_reserve(1).is_ok() {
                let place = core.batch.len();
                core.batch.push_reserved((std::cmp::Reverse(0), place, Job::Post));
                core.batched.push(post);
            } else {
                self.deliver_post(post)?;
            }
        }
        Ok(())
    }

    fn deliver_post(&self, post: Box<Letter<Post>>) -> Result<()> {
        let Post { target, destroy } = *post.content();
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
        called.and_then(|()| self.attend_if_due())
    }

    #[inline(always)]
    fn call_post(&self, target: Target) -> Result<()> {
        let mut event = Event::new(0, POST);
        event.data = target.user_data.expose_provenance() as u64;
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        core.dispatched += 1;
        core.current = 0;
        let watched = core.watched;
        match target.callback {
            Some(call) if watched => self.call_one_watched(call, &event, target.user_data),
            Some(callback) => self.call(callback, &event, target.user_data),
            None => {
                if watched {
                    core.watch_kept(&event);
                }
                // Room was looked for before it was taken off its list.
                core.hold(event);
                Ok(())
            }
        }
    }

    fn deferred(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        if unsafe { self.core() }.deferred == 0 {
            return Ok(());
        }
        self.in_turn(Source::Defer)
    }

    /// Calls all watchers of a kind.
    pub fn in_turn(&self, source: Source) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        let watchers = core.take_turn(source);
        for (handle, _, _) in &watchers {
            let handle = *handle;
            let Some((_, record)) = live(handle).filter(|(_, record)| record.has(ENABLED)) else {
                continue;
            };
            let event = Event::new(handle, source as i32);
            if source == Source::Defer {
                // SAFETY: as above.
                if unsafe { self.core() }.defer_is_over(record) {
                    self.emit(event, record)?;
                }
            } else if source == Source::ClockChange {
                self.emit(event, record)?;
            } else {
                self.deliver_in_turn(event)?;
            }
        }
        // SAFETY: as above.
        keep_larger(&mut unsafe { self.core() }.turn, watchers);
        Ok(())
    }

    /// Those do not count as something that happened.
    fn deliver_in_turn(&self, event: Event) -> Result<()> {
        // SAFETY: no other reference to the core.
        let before = unsafe { self.core() }.dispatched;
        self.deliver(event)?;
        // SAFETY: as above.
        unsafe { self.core() }.dispatched = before;
        Ok(())
    }
}

/// Whether a timer was set, or stopped, since it expired.
fn was_set_anew(event: &Event, seq: u64) -> bool {
    event.r#type == Source::Timer as i32
        && live(event.watcher).is_some_and(|(_, record)| record.node.seq() != seq)
}

/// Whether an event's watcher is still enabled, or was disabled by the event
/// itself.
fn is_wanted(event: &Event) -> bool {
    let Some((_, record)) = live(event.watcher) else { return true };
    let flags = record.flags.load(Relaxed);
    match Source::of(flags) {
        source if source.is_descriptor() || source == Source::File => {
            flags & (ENABLED | SPENT) != 0
        }
        Source::Defer => flags & DUE != 0,
        _ => flags & ENABLED != 0,
    }
}

/// Gives back the room that was taken for a list of what is called, unless
/// more was made since.
fn keep_larger<T>(place: &mut Vec<T>, room: Vec<T>) {
    if room.capacity() >= place.capacity() {
        *place = room;
    }
}

impl Core {
    /// The watchers of a kind, in the order in which they are called; there is
    /// room for them (see `add_to_list`).
    fn take_turn(&mut self, source: Source) -> Vec<(i64, i32, usize)> {
        let mut watchers = std::mem::take(&mut self.turn);
        watchers.clear();
        for (index, record) in self.list(source).iter().flat_map(|list| list.iter()) {
            let place = watchers.len();
            watchers.push_reserved((record.handle(Kind::Watcher, index), 0, place));
        }
        if self.ranked > 0 && source != Source::Defer {
            for (handle, priority, _) in &mut watchers {
                *priority = self.priority(*handle);
            }
            watchers.sort_unstable_by_key(|(_, priority, place)| {
                (std::cmp::Reverse(*priority), *place)
            });
        }
        watchers
    }

    #[inline]
    fn has_leftovers(&self) -> bool {
        !self.io.always.is_empty() || !self.failures.is_empty() || !self.batch.is_empty()
    }

    pub fn priority(&self, handle: i64) -> i32 {
        let Some((index, _)) = live(handle).filter(|(_, record)| record.has(RANKED)) else {
            return 0;
        };
        self.extras.get(&index).map_or(0, |extra| extra.priority)
    }

    /// A defer watcher is called; true: it was waiting for that.
    fn defer_is_over(&mut self, record: &Record) -> bool {
        if record.flags.load(Relaxed) & (WAITING | NEXT_TIME) != WAITING {
            return false;
        }
        record.unset(WAITING | ENABLED);
        record.set(DUE);
        self.deferred -= 1;
        self.count_liveness(record);
        true
    }
}
