//! Watchers of files: how the loop delivers what `file_watch` finds out.
//!
//! All of a loop's are behind one lock, which any thread may take: so a thread
//! that adds a watcher gets its error at once. Events are kept with their
//! watcher while that is disabled, over its rate limit, or for evloop_wait
//! only. The names of an event are kept until the next wait.

use crate::errno::{Errno, Result};
use crate::event_loop::event::{Event, Target};
use crate::event_loop::file_state::{FileState, Shown, WORD, explain_create};
use crate::event_loop::flags::*;
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::resolve::Resolved;
use crate::event_loop::run_guard::RunGuard;
use crate::event_loop::slot::live;
use crate::event_loop::slot::{self, LIVE, WatcherSlot};
use crate::event_loop::state::LoopState;
use crate::event_loop::watcher::NewWatcher;
use crate::file_watch::{FileEvent, LATER_NS, More, PendingTree, WatchRequest, WatchRoot};
use crate::handle::{self, Kind};
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{clock, epoll, inotify};
use crate::util::alloc::TryMap;
use std::os::fd::RawFd;

/// There is something to read from inotify, or an event to deliver.
pub(in crate::event_loop) const DUE: u32 = 1;
/// Some names are kept for the program.
const SHOWN: u32 = 2;
/// Some watchers have something kept.
const HAS_DEFERRED: u32 = 4;
/// The other half of a rename is waited for.
const WAITS: u32 = 8;

/// How many events an iteration dispatches at most.
const MAX_PER_ROUND: usize = 2048;

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
        self.bits & (DUE | WAITS) != 0
    }

    #[inline]
    pub fn is_due(&self) -> bool {
        self.bits & DUE != 0
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

/// How much of a tree is read before the loop may look at its files.
const IN_A_PIECE: usize = 1024;

/// Adds what is left of a tree, from another thread. The command queue's lock
/// is not held: the loop goes on.
pub(in crate::event_loop) fn add_rest(
    resolved: &Resolved,
    id: u32,
    mut rest: PendingTree,
    root: WatchRoot<'_>,
) -> Result<()> {
    loop {
        let mut file_state = resolved.shared.files.lock();
        // Under the lock: it is another loop's otherwise.
        resolved.check()?;
        if resolved.shared.handle() != resolved.handle.pack() {
            return handle::stale(resolved.handle.pack());
        }
        if !file_state.add_more(id, &mut rest, IN_A_PIECE, root)? {
            return Ok(());
        }
        drop(file_state);
        std::thread::yield_now();
    }
}

impl RunGuard {
    /// Reads and dispatches what happened to files.
    pub fn files(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        unsafe { self.state() }.find_notes();
        for _ in 0..MAX_PER_ROUND {
            // SAFETY: as above.
            let Some((event, slot)) = unsafe { self.state() }.next_note() else {
                return Ok(());
            };
            self.emit(event, slot)?;
        }
        // SAFETY: as above.
        unsafe { self.state() }.files.bits |= DUE;
        Ok(())
    }
}

// What a run does.
impl LoopState {
    fn find_notes(&mut self) {
        let more = self.ctx.shared.files.lock().files.work();
        self.files.bits &= !(DUE | WAITS);
        match more {
            More::Nothing => {}
            More::Now => self.files.bits |= DUE,
            More::At(until) => {
                self.files.bits |= WAITS;
                self.files.until = until;
            }
        }
    }

    /// Before a wait: frees the names of events that are not pending. Returns
    /// how long the wait may be.
    #[cold]
    pub fn arm_files(&mut self, timeout: Option<i64>) -> Option<i64> {
        if self.files.bits & SHOWN != 0 {
            let mut file_state = self.ctx.shared.files.lock();
            file_state.shown.retain(|_, shown| shown.retained);
            if file_state.shown.is_empty() {
                self.files.bits &= !SHOWN;
            }
        }
        match (timeout, self.files.left()) {
            (timeout, i64::MAX) => timeout,
            (None, left) => Some(left),
            (Some(timeout), left) => Some(timeout.min(left)),
        }
    }

    /// Records are asked for: what was kept for that comes now.
    pub fn collect_notes(&mut self) {
        if self.files.bits & HAS_DEFERRED == 0 {
            return;
        }
        if self.ctx.shared.files.lock().files.resume_all() {
            self.files.bits |= DUE;
        } else {
            self.files.bits &= !HAS_DEFERRED;
        }
    }

    /// The next event, of a watcher that wants it.
    fn next_note(&mut self) -> Option<(Event, &'static WatcherSlot)> {
        let shared = self.ctx.shared;
        let mut file_state = shared.files.lock();
        if file_state.shown.try_reserve(1).is_err() {
            // Until there is memory for the names.
            self.files.bits |= WAITS;
            self.files.until = clock::now_ns().saturating_add(LATER_NS);
            return None;
        }
        file_state.files.resume_overflowed();
        while let Some(id) = file_state.files.resuming() {
            if let Some(slot) = self.listener(id)
                && let Some(note) = file_state.files.next_kept(id)
            {
                return Some((self.show(&mut file_state, id, slot, note), slot));
            }
            file_state.files.has_resumed();
        }
        while let Some((id, note)) = file_state.files.next_outgoing() {
            match self.listener(id) {
                Some(slot) if !file_state.files.has_kept(id) => {
                    return Some((self.show(&mut file_state, id, slot, note), slot));
                }
                listener => {
                    file_state.files.keep(id, note);
                    self.files.bits |= HAS_DEFERRED;
                    if listener.is_some() && file_state.files.resume(id) {
                        self.files.bits |= DUE;
                    }
                }
            }
        }
        None
    }

    /// A watcher's slot, if an event can be delivered to it now.
    fn listener(&self, id: u32) -> Option<&'static WatcherSlot> {
        let slot = slot::get(id).filter(|slot| slot.state() == LIVE)?;
        let flags = slot.flags.load(Relaxed);
        let wants = flags & (ENABLED | RATE_LIMITED_NOW) == ENABLED;
        (wants && (flags & RECORDS == 0 || self.ctx.collecting)).then_some(slot)
    }

    /// The event of a note, whose names are kept for the program.
    fn show(
        &mut self,
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
            self.ctx.count_liveness(slot);
        }
        event.reserved = note.number;
        // There is room.
        file_state.shown.insert_reserved(note.number, Shown { watcher: id, note, retained: false });
        self.files.bits |= SHOWN;
        event
    }

    /// An event comes later, or was for a watcher that was disabled; false:
    /// it is none of those here.
    pub fn requeue_note(&mut self, event: &Event) -> bool {
        if event.r#type != Source::File as i32 {
            return false;
        }
        let mut file_state = self.ctx.shared.files.lock();
        let Some(shown) = file_state.shown.remove(&event.reserved) else { return false };
        file_state.files.keep(shown.watcher, shown.note);
        self.files.bits |= HAS_DEFERRED;
        true
    }

    /// An event that the rate limit keeps back: if it is the last one, the
    /// watcher lives until it is delivered.
    pub fn ends_later(&mut self, slot: &WatcherSlot, event: &Event) {
        if event.events & libc::IN_IGNORED != 0 {
            slot.unset(AUTO_DISABLED | FD_LOST);
            slot.set(ENABLED);
            self.ctx.count_liveness(slot);
        }
    }

    /// An event is pending for evloop_wait: each one, and its names with it.
    pub fn add_pending_note(&mut self, event: &Event) {
        let Some((_, slot)) = live(event.watcher) else { return };
        if self.ctx.pending.try_push_back(*event).is_err() {
            // For the next evloop_wait.
            self.requeue_note(event);
            return;
        }
        slot.set(HAS_PENDING);
        self.set_retained(event, true);
    }

    pub fn set_retained(&mut self, event: &Event, retained: bool) {
        if let Some(shown) = self.ctx.shared.files.lock().shown.get_mut(&event.reserved) {
            shown.retained = retained;
        }
    }

    /// The pending records of a watcher that is disabled.
    pub fn requeue_pending_notes(&mut self, slot: &WatcherSlot, handle: i64) {
        if !slot.has(HAS_PENDING) {
            return;
        }
        slot.unset(HAS_PENDING);
        let mut pending = std::mem::take(&mut self.ctx.pending);
        pending.retain_files(|event| {
            let is_its = event.watcher == handle;
            if is_its {
                // Or it is an error, which comes again.
                self.requeue_note(event);
            }
            !is_its
        });
        self.ctx.pending = pending;
    }

    /// A watcher is enabled, or not over its rate limit any more.
    pub fn resume_notes(&mut self, index: u32, slot: &WatcherSlot) {
        if self.ctx.shared.files.lock().files.resume(index) {
            self.files.bits |= DUE;
            // The last event may be among them: until that is delivered the
            // watcher is not lost.
            slot.unset(FD_LOST);
            self.ctx.count_liveness(slot);
        } else if slot.has(FD_LOST | ENABLED) {
            self.ctx.fail(slot.handle(Kind::Watcher, index), Errno::ENOENT);
        }
    }
}

// Watchers.
impl LoopState {
    pub fn add_file(&mut self, request: &WatchRequest<'_>, target: Target) -> Result<i64> {
        let fresh = self.new_watcher(Source::File, target)?;
        let added = self.add_files(fresh.index, request);
        if let Err(error) = added {
            self.discard_new(&fresh);
            return Err(error);
        }
        self.file_added(fresh.index);
        Ok(self.publish(&fresh))
    }

    fn add_files(&mut self, id: u32, request: &WatchRequest<'_>) -> Result<()> {
        let shared = self.ctx.shared;
        let mut file_state = shared.files.lock();
        let mut rest = file_state.start(self.ctx.epoll(), id, request)?;
        let added = file_state.add_more(id, &mut rest, usize::MAX, request.root);
        if added.is_err() {
            file_state.close_if_empty(self.ctx.epoll());
        }
        added.map(drop)
    }

    /// A tree that another thread was adding is there; see [`add_rest`].
    pub fn publish_file(&mut self, fresh: &NewWatcher) -> i64 {
        self.file_added(fresh.index);
        self.publish(fresh)
    }

    /// Or is not.
    pub fn give_up_file(&mut self, fresh: &NewWatcher) {
        self.ctx.shared.files.lock().give_up(self.ctx.epoll(), fresh.index);
        self.discard_new(fresh);
    }

    /// A watcher was added, perhaps with a new inotify.
    pub fn file_added(&mut self, index: u32) {
        let shared = self.ctx.shared;
        let mut file_state = shared.files.lock();
        if let Some(inotify) = file_state.files.descriptor().filter(|fd| !shared.own.has(*fd)) {
            self.io.claim_fd(&mut self.ctx, OwnFd::Inotify, inotify);
        }
        // Events that were kept before it was added.
        file_state.files.resume(index);
        // The parts of a tree that could not be watched are to be reported.
        self.files.bits |= DUE;
    }

    /// A watcher is closed; `deregistered`: its watches must not be removed
    /// from the kernel.
    pub fn close_file(&mut self, index: u32, deregistered: bool) {
        let mut file_state = self.ctx.shared.files.lock();
        if deregistered || file_state.files.is_only(index) {
            file_state.files.forget_watcher(index);
        } else {
            file_state.files.remove(index);
        }
        file_state.shown.retain(|_, shown| shown.watcher != index);
        if !deregistered && file_state.close_if_empty(self.ctx.epoll()) {
            self.files = FileWork::nothing();
            self.ctx.shared.own.set(OwnFd::Inotify, -1);
        } else if file_state.files.has_pending_removals() {
            self.files.bits |= DUE;
        }
    }

    /// Registers the inotify with another epoll of the loop's.
    pub fn register_files(&self, epoll: RawFd) -> Result<()> {
        match self.ctx.shared.files.lock().files.descriptor() {
            Some(fd) => Ok(epoll::add(epoll, fd, libc::EPOLLIN as u32, WORD)?),
            None => Ok(()),
        }
    }

    /// In a forked child: an inotify of its own, registered with its epoll.
    pub fn fresh_inotify(&self, epoll: RawFd) -> Result<Option<Fd>> {
        if self.ctx.shared.files.lock().files.descriptor().is_none() {
            return Ok(None);
        }
        let inotify = inotify::create().map_err(explain_create)?;
        epoll::add(epoll, inotify.raw(), libc::EPOLLIN as u32, WORD)?;
        Ok(Some(inotify))
    }

    /// If this fails it can be called again, with another inotify.
    pub fn revive_files(&mut self, inotify: Option<Fd>) -> Result<()> {
        let Some(inotify) = inotify else { return Ok(()) };
        self.files.bits |= DUE;
        let shared = self.ctx.shared;
        let mut file_state = shared.files.lock();
        file_state.files.revive(inotify)?;
        if file_state.close_if_empty(self.ctx.epoll()) {
            self.files = FileWork::nothing();
            shared.own.set(OwnFd::Inotify, -1);
        }
        Ok(())
    }
}
