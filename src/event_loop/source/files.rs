//! Watchers of files: how the loop delivers what `file_watch` finds out.
//!
//! All of a loop's are behind one lock, which any thread may take: so a thread
//! that adds a watcher gets its error at once. Events are kept with their
//! watcher while that is disabled, over its rate limit, or for evloop_wait
//! only. The names of an event are kept until the next wait.

use crate::errno::{Errno, Result};
use crate::event_loop::event::Event;
use crate::event_loop::file_state::{FileState, Shown, WORD, explain_create};
use crate::event_loop::flags::*;
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::slot::live;
use crate::event_loop::slot::{self, LIVE, WatcherSlot};
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::io::Io;
use crate::file_watch::{FileEvent, LATER_NS, More, WatchRequest};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{clock, epoll, inotify};
use crate::util::alloc::TryMap;
use std::os::fd::RawFd;

/// There is something to read from inotify, or an event to deliver.
pub(in crate::event_loop) const WORK: u32 = 1;
/// Some names are kept for the program.
const SHOWN: u32 = 2;
/// Some watchers have something kept.
const HAS_DEFERRED: u32 = 4;
/// The other half of a rename is waited for.
const WAITS: u32 = 8;

/// How many events an iteration dispatches at most.
pub(in crate::event_loop) const MAX_PER_ROUND: usize = 2048;

/// What the loop's own thread knows of its file watchers.
pub(in crate::event_loop) struct FileWork {
    pub bits: u32,
    /// With [`WAITS`]: until when.
    pub until: i64,
}

impl FileWork {
    pub fn nothing() -> Self {
        Self { bits: 0, until: 0 }
    }

    /// Whether an iteration has to look.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.bits & (WORK | WAITS) != 0
    }

    #[inline]
    pub fn is_due(&self) -> bool {
        self.bits & WORK != 0
    }

    /// How long the loop may wait before it looks again.
    pub fn left(&self) -> i64 {
        if self.bits & WAITS == 0 {
            return i64::MAX;
        }
        self.until.saturating_sub(clock::now_ns()).max(0)
    }

    /// Whether there is something to do before a wait.
    #[inline]
    pub fn needs_arming(&self) -> bool {
        self.bits & (SHOWN | WAITS) != 0
    }
}

// What a run does.
impl FileWork {
    pub fn find(&mut self, ctx: &mut SourceCtx) {
        let more = ctx.shared.files.lock().files.work();
        self.bits &= !(WORK | WAITS);
        match more {
            More::Nothing => {}
            More::Now => self.bits |= WORK,
            More::At(until) => {
                self.bits |= WAITS;
                self.until = until;
            }
        }
    }

    /// Before a wait: frees the names of events that are not pending. Returns
    /// how long the wait may be.
    #[cold]
    pub fn arm(&mut self, ctx: &mut SourceCtx, timeout: Option<i64>) -> Option<i64> {
        if self.bits & SHOWN != 0 {
            let mut file_state = ctx.shared.files.lock();
            file_state.shown.retain(|_, shown| shown.retained);
            if file_state.shown.is_empty() {
                self.bits &= !SHOWN;
            }
        }
        match (timeout, self.left()) {
            (timeout, i64::MAX) => timeout,
            (None, left) => Some(left),
            (Some(timeout), left) => Some(timeout.min(left)),
        }
    }

    /// Records are asked for: what was kept for that comes now.
    pub fn collect(&mut self, ctx: &mut SourceCtx) {
        if self.bits & HAS_DEFERRED == 0 {
            return;
        }
        if ctx.shared.files.lock().files.resume_all() {
            self.bits |= WORK;
        } else {
            self.bits &= !HAS_DEFERRED;
        }
    }

    /// The next event, of a watcher that wants it.
    pub fn next_event(&mut self, ctx: &mut SourceCtx) -> Option<(Event, &'static WatcherSlot)> {
        let shared = ctx.shared;
        let mut file_state = shared.files.lock();
        if file_state.shown.try_reserve(1).is_err() {
            // Until there is memory for the names.
            self.bits |= WAITS;
            self.until = clock::now_ns().saturating_add(LATER_NS);
            return None;
        }
        file_state.files.resume_overflowed();
        while let Some(id) = file_state.files.resuming() {
            if let Some(slot) = self.listener(ctx, id)
                && let Some(note) = file_state.files.next_kept(id)
            {
                return Some((self.show(ctx, &mut file_state, id, slot, note), slot));
            }
            file_state.files.has_resumed();
        }
        while let Some((id, note)) = file_state.files.next_outgoing() {
            match self.listener(ctx, id) {
                Some(slot) if !file_state.files.has_kept(id) => {
                    return Some((self.show(ctx, &mut file_state, id, slot, note), slot));
                }
                listener => {
                    file_state.files.keep(id, note);
                    self.bits |= HAS_DEFERRED;
                    if listener.is_some() && file_state.files.resume(id) {
                        self.bits |= WORK;
                    }
                }
            }
        }
        None
    }

    /// A watcher's slot, if an event can be delivered to it now.
    fn listener(&self, ctx: &SourceCtx, id: u32) -> Option<&'static WatcherSlot> {
        let slot = slot::get(id).filter(|slot| slot.state() == LIVE)?;
        let flags = slot.flags.load(Relaxed);
        let wants = flags & (ENABLED | RATE_LIMITED_NOW) == ENABLED;
        (wants && (flags & RECORDS == 0 || ctx.collecting)).then_some(slot)
    }

    /// The event of a note, whose names are kept for the program.
    fn show(
        &mut self,
        ctx: &mut SourceCtx,
        file_state: &mut FileState,
        id: u32,
        slot: &WatcherSlot,
        note: FileEvent,
    ) -> Event {
        let mut event = Event::new(slot.handle(Kind::Watcher, id), Source::File as i32);
        event.events = note.mask;
        event.result = note.errno.map_or(0, Errno::negated);
        if note.is_last() {
            slot.unset(ENABLED);
            slot.set(AUTO_DISABLED | FD_LOST);
            ctx.count_liveness(slot);
        }
        event.reserved = note.number;
        // There is room.
        file_state.shown.insert_reserved(note.number, Shown { watcher: id, note, retained: false });
        self.bits |= SHOWN;
        event
    }

    /// An event comes later, or was for a watcher that was disabled; false:
    /// it is none of those here.
    pub fn requeue(&mut self, ctx: &mut SourceCtx, event: &Event) -> bool {
        if event.r#type != Source::File as i32 {
            return false;
        }
        let mut file_state = ctx.shared.files.lock();
        let Some(shown) = file_state.shown.remove(&event.reserved) else { return false };
        file_state.files.keep(shown.watcher, shown.note);
        self.bits |= HAS_DEFERRED;
        true
    }

    /// An event that the rate limit keeps back: if it is the last one, the
    /// watcher lives until it is delivered.
    pub fn ends_later(&mut self, ctx: &mut SourceCtx, slot: &WatcherSlot, event: &Event) {
        if event.events & libc::IN_IGNORED != 0 {
            slot.unset(AUTO_DISABLED | FD_LOST);
            slot.set(ENABLED);
            ctx.count_liveness(slot);
        }
    }

    /// An event is pending for evloop_wait: each one, and its names with it.
    pub fn add_pending(&mut self, ctx: &mut SourceCtx, event: &Event) {
        let Some((_, slot)) = live(event.watcher) else { return };
        if ctx.pending.try_push_back(*event).is_err() {
            // For the next evloop_wait.
            self.requeue(ctx, event);
            return;
        }
        slot.set(HAS_PENDING);
        self.set_retained(ctx, event, true);
    }

    pub fn set_retained(&mut self, ctx: &mut SourceCtx, event: &Event, retained: bool) {
        if let Some(shown) = ctx.shared.files.lock().shown.get_mut(&event.reserved) {
            shown.retained = retained;
        }
    }

    /// The pending records of a watcher that is disabled.
    pub fn requeue_pending(&mut self, ctx: &mut SourceCtx, slot: &WatcherSlot, handle: i64) {
        if !slot.has(HAS_PENDING) {
            return;
        }
        slot.unset(HAS_PENDING);
        let mut pending = std::mem::take(&mut ctx.pending);
        pending.retain_files(|event| {
            let is_its = event.watcher == handle;
            if is_its {
                // Or it is an error, which comes again.
                self.requeue(ctx, event);
            }
            !is_its
        });
        ctx.pending = pending;
    }

    /// A watcher is enabled, or not over its rate limit any more.
    pub fn resume(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        if ctx.shared.files.lock().files.resume(index) {
            self.bits |= WORK;
            // The last event may be among them: until that is delivered the
            // watcher is not lost.
            slot.unset(FD_LOST);
            ctx.count_liveness(slot);
        } else if slot.has(FD_LOST | ENABLED) {
            ctx.fail(slot.handle(Kind::Watcher, index), Errno::ENOENT);
        }
    }
}

// Watchers.
impl FileWork {
    pub fn add(&mut self, ctx: &mut SourceCtx, id: u32, request: &WatchRequest<'_>) -> Result<()> {
        let shared = ctx.shared;
        let mut file_state = shared.files.lock();
        let mut rest = file_state.start(ctx.epoll(), id, request)?;
        let added = file_state.add_more(id, &mut rest, usize::MAX, request.root);
        if added.is_err() {
            file_state.close_if_empty(ctx.epoll());
        }
        added.map(drop)
    }

    /// A watcher was added, perhaps with a new inotify.
    pub fn added(&mut self, ctx: &mut SourceCtx, io: &mut Io, index: u32) {
        let shared = ctx.shared;
        let mut file_state = shared.files.lock();
        if let Some(inotify) = file_state.files.descriptor().filter(|fd| !shared.own.has(*fd)) {
            io.claim_fd(ctx, OwnFd::Inotify, inotify);
        }
        // Events that were kept before it was added.
        file_state.files.resume(index);
        // The parts of a tree that could not be watched are to be reported.
        self.bits |= WORK;
    }

    /// A watcher is closed; `deregistered`: its watches must not be removed
    /// from the kernel.
    pub fn close(&mut self, ctx: &mut SourceCtx, index: u32, deregistered: bool) {
        let mut file_state = ctx.shared.files.lock();
        if deregistered || file_state.files.is_only(index) {
            file_state.files.forget_watcher(index);
        } else {
            file_state.files.remove(index);
        }
        file_state.shown.retain(|_, shown| shown.watcher != index);
        if !deregistered && file_state.close_if_empty(ctx.epoll()) {
            *self = Self::nothing();
            ctx.shared.own.set(OwnFd::Inotify, -1);
        } else if file_state.files.has_pending_removals() {
            self.bits |= WORK;
        }
    }

    /// Registers the inotify with another epoll of the loop's.
    pub fn register(&self, ctx: &SourceCtx, epoll: RawFd) -> Result<()> {
        match ctx.shared.files.lock().files.descriptor() {
            Some(fd) => Ok(epoll::add(epoll, fd, libc::EPOLLIN as u32, WORD)?),
            None => Ok(()),
        }
    }

    /// In a forked child: an inotify of its own, registered with its epoll.
    pub fn fresh_inotify(&self, ctx: &SourceCtx, epoll: RawFd) -> Result<Option<Fd>> {
        if ctx.shared.files.lock().files.descriptor().is_none() {
            return Ok(None);
        }
        let inotify = inotify::create().map_err(explain_create)?;
        epoll::add(epoll, inotify.raw(), libc::EPOLLIN as u32, WORD)?;
        Ok(Some(inotify))
    }

    /// If this fails it can be called again, with another inotify.
    pub fn revive(&mut self, ctx: &mut SourceCtx, inotify: Option<Fd>) -> Result<()> {
        let Some(inotify) = inotify else { return Ok(()) };
        self.bits |= WORK;
        let shared = ctx.shared;
        let mut file_state = shared.files.lock();
        file_state.files.revive(inotify)?;
        if file_state.close_if_empty(ctx.epoll()) {
            *self = Self::nothing();
            shared.own.set(OwnFd::Inotify, -1);
        }
        Ok(())
    }
}
