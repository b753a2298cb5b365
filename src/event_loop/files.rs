//! Watchers of files: what the loop makes of what `files` finds out.
//!
//! All of a loop's are behind one lock, which any thread may take: so one
//! that adds a watcher learns at once what is wrong with it. What is told
//! waits with its watcher while that is disabled, over its rate limit, or for
//! evloop_wait only. The names of an event are kept until the next wait.

use super::core::{Core, INTERNAL};
use super::dispatch::live;
use super::event::{Event, Target};
use super::flags::*;
use super::named::Named;
use super::own_fds::OwnFd;
use super::record::{self, LIVE, Record};
use super::running::Run;
use super::watcher::Fresh;
use crate::errno::{Errno, Error, Result, error, fail};
use crate::file_watch::{Files, LATER_NS, More, Note, Request, Rest, Root};
use crate::handle::{self, Kind};
use crate::hash::Map;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{clock, epoll, inotify};
use crate::util::alloc::TryMap;
use std::os::fd::RawFd;

/// The word of the inotify in the loop's epoll: after those of the clocks.
const WORD: u64 = INTERNAL | NUMBER as u64;
pub(super) const NUMBER: usize = 32;

/// There is something to read, or to tell.
pub(super) const DUE: u32 = 1;
/// Some names are kept for the program.
const SHOWN: u32 = 2;
/// Some watchers have something kept.
const KEPT: u32 = 4;
/// The other half of a rename is waited for.
const WAITS: u32 = 8;

/// How many events an iteration dispatches at most.
const AT_A_TIME: usize = 2048;

/// What the loop's own thread knows of its file watchers.
pub(super) struct Outlook {
    pub bits: u32,
    /// With [`WAITS`]: until when.
    pub until: i64,
}

impl Outlook {
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

/// A note that was told, whose names can be asked for.
struct Shown {
    watcher: u32,
    note: Note,
    /// It is held for evloop_wait.
    held: bool,
}

/// A loop's file watchers, behind their lock.
#[derive(Default)]
pub(super) struct FileState {
    files: Files,
    shown: Map<u64, Shown>,
}

impl FileState {
    /// Adds a watcher, of a tree only its root: what is left of that.
    pub fn start(&mut self, epoll: RawFd, id: u32, request: &Request<'_>) -> Result<Rest> {
        if self.files.descriptor().is_none() {
            let inotify = inotify::create().map_err(explain_create)?;
            epoll::add(epoll, inotify.raw(), libc::EPOLLIN as u32, WORD)?;
            self.files.open(inotify);
        }
        self.files.add(id, request).map_err(|errno| {
            self.close_if_empty(epoll);
            explain(errno, request.root)
        })
    }

    /// Adds some more of it; false: that was all. When this fails there is no
    /// such watcher any more, nor perhaps any other.
    fn add_more(
        &mut self,
        id: u32,
        rest: &mut Rest,
        at_most: usize,
        root: Root<'_>,
    ) -> Result<bool> {
        self.files.add_more(id, rest, at_most).map_err(|errno| explain(errno, root))
    }

    /// A watcher could not be added: nothing of it is left.
    pub fn give_up(&mut self, epoll: RawFd, id: u32) {
        self.files.remove(id);
        self.close_if_empty(epoll);
    }

    fn close_if_empty(&mut self, epoll: RawFd) -> bool {
        let ends = self.files.is_empty();
        if ends && let Some(inotify) = self.files.close() {
            // A forked child may hold it open.
            let _ = epoll::delete(epoll, inotify.raw());
        }
        ends
    }

    /// What a watcher was added with.
    pub fn request_of(&self, id: u32) -> Option<Request<'_>> {
        self.files.request_of(id)
    }

    /// The name of an event, or the one that it was before a rename.
    pub fn name(&self, event: &Event, old: bool) -> Result<&[u8]> {
        match self.shown.get(&event.reserved) {
            Some(shown) if old => Ok(&shown.note.old_name),
            Some(shown) => Ok(&shown.note.name),
            // Of the watcher itself.
            None if event.reserved == 0 => Ok(&[]),
            None => fail!(ENOENT, "the loop has waited since the event, whose names are gone"),
        }
    }
}

fn explain_create(errno: Errno) -> Error {
    match errno {
        Errno::EMFILE => error!(errno, "no descriptor, or no inotify of the user's, is left"),
        errno => errno.into(),
    }
}

fn explain(errno: Errno, root: Root<'_>) -> Error {
    match (errno, root) {
        (Errno::EBADF, Root::Descriptor(fd)) => error!(errno, "fd {} is not open", fd),
        (Errno::ENOTDIR, Root::Descriptor(fd)) => error!(errno, "fd {} is no directory", fd),
        (Errno::ENOTSUP, _) => error!(errno, "there is no /proc to find the descriptor's file by"),
        (Errno::ENOENT, _) => error!(errno, "there is no such file"),
        (Errno::ENOTDIR, _) => error!(errno, "it, or what leads there, is no directory"),
        (Errno::EACCES, _) => error!(errno, "it may not be read"),
        (Errno::ENOSPC, _) => error!(errno, "the user's max_user_watches is used up"),
        (errno, _) => errno.into(),
    }
}

/// How much of a tree is read before the loop may look at its files.
const IN_A_PIECE: usize = 1024;

/// Adds what is left of a tree, from another thread. The gate's lock is not
/// held: the loop goes on.
pub(super) fn add_rest(named: &Named, id: u32, mut rest: Rest, root: Root<'_>) -> Result<()> {
    loop {
        let mut state = named.desk.files.lock();
        // Under the lock: it is another loop's otherwise.
        named.check()?;
        if named.desk.handle() != named.handle.pack() {
            return handle::stale(named.handle.pack());
        }
        if !state.add_more(id, &mut rest, IN_A_PIECE, root)? {
            return Ok(());
        }
        drop(state);
        std::thread::yield_now();
    }
}

impl Run {
    /// Reads and dispatches what happened to files.
    pub fn files(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        unsafe { self.core() }.find_notes();
        for _ in 0..AT_A_TIME {
            // SAFETY: as above.
            let Some((event, record)) = unsafe { self.core() }.next_note() else {
                return Ok(());
            };
            self.emit(event, record)?;
        }
        // SAFETY: as above.
        unsafe { self.core() }.files.bits |= DUE;
        Ok(())
    }
}

// What a run does.
impl Core {
    fn find_notes(&mut self) {
        let more = self.desk.files.lock().files.work();
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

    /// Before a wait: nobody asks for names any more; and how long it may be.
    #[cold]
    pub fn arm_files(&mut self, timeout: Option<i64>) -> Option<i64> {
        if self.files.bits & SHOWN != 0 {
            let mut state = self.desk.files.lock();
            state.shown.retain(|_, shown| shown.held);
            if state.shown.is_empty() {
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
        if self.files.bits & KEPT == 0 {
            return;
        }
        if self.desk.files.lock().files.resume_all() {
            self.files.bits |= DUE;
        } else {
            self.files.bits &= !KEPT;
        }
    }

    /// The next event, of a watcher that wants it.
    fn next_note(&mut self) -> Option<(Event, &'static Record)> {
        let desk = self.desk;
        let mut state = desk.files.lock();
        if state.shown.try_reserve(1).is_err() {
            // Until there is memory for the names.
            self.files.bits |= WAITS;
            self.files.until = clock::now_ns().saturating_add(LATER_NS);
            return None;
        }
        state.files.resume_missed();
        while let Some(id) = state.files.resuming() {
            if let Some(record) = self.listener(id)
                && let Some(note) = state.files.next_kept(id)
            {
                return Some((self.show(&mut state, id, record, note), record));
            }
            state.files.has_resumed();
        }
        while let Some((id, note)) = state.files.next_told() {
            match self.listener(id) {
                Some(record) if !state.files.has_kept(id) => {
                    return Some((self.show(&mut state, id, record, note), record));
                }
                listener => {
                    state.files.keep(id, note);
                    self.files.bits |= KEPT;
                    if listener.is_some() && state.files.resume(id) {
                        self.files.bits |= DUE;
                    }
                }
            }
        }
        None
    }

    /// A watcher's record, if it can be told something.
    fn listener(&self, id: u32) -> Option<&'static Record> {
        let record = record::get(id).filter(|record| record.state() == LIVE)?;
        let flags = record.flags.load(Relaxed);
        let wants = flags & (ENABLED | SUSPENDED) == ENABLED;
        (wants && (flags & RECORDS == 0 || self.collecting)).then_some(record)
    }

    /// The event of a note, whose names are kept for the program.
    fn show(&mut self, state: &mut FileState, id: u32, record: &Record, note: Note) -> Event {
        let mut event = Event::new(record.handle(Kind::Watcher, id), Source::File as i32);
        event.events = note.mask;
        event.result = note.errno.map_or(0, Errno::negated);
        if note.is_last() {
            record.unset(ENABLED);
            record.set(SPENT | DEAD);
            self.count_liveness(record);
        }
        event.reserved = note.number;
        // There is room.
        state.shown.insert_reserved(note.number, Shown { watcher: id, note, held: false });
        self.files.bits |= SHOWN;
        event
    }

    /// An event comes later, or was for a watcher that was disabled; false:
    /// it is none of those here.
    pub fn put_back_note(&mut self, event: &Event) -> bool {
        if event.r#type != Source::File as i32 {
            return false;
        }
        let mut state = self.desk.files.lock();
        let Some(shown) = state.shown.remove(&event.reserved) else { return false };
        state.files.keep(shown.watcher, shown.note);
        self.files.bits |= KEPT;
        true
    }

    /// An event that the rate limit keeps back: if it is the last one, the
    /// watcher lives until it is told.
    pub fn ends_later(&mut self, record: &Record, event: &Event) {
        if event.events & libc::IN_IGNORED != 0 {
            record.unset(SPENT | DEAD);
            record.set(ENABLED);
            self.count_liveness(record);
        }
    }

    /// An event is held for evloop_wait: each one, and its names with it.
    pub fn hold_note(&mut self, event: &Event) {
        let Some((_, record)) = live(event.watcher) else { return };
        if self.held.try_push_back(*event).is_err() {
            // For the next evloop_wait.
            self.put_back_note(event);
            return;
        }
        record.set(HELD);
        self.set_held(event, true);
    }

    pub fn set_held(&mut self, event: &Event, held: bool) {
        if let Some(shown) = self.desk.files.lock().shown.get_mut(&event.reserved) {
            shown.held = held;
        }
    }

    /// What is held of a watcher that is disabled.
    pub fn put_back_held_notes(&mut self, record: &Record, handle: i64) {
        if !record.has(HELD) {
            return;
        }
        record.unset(HELD);
        let mut held = std::mem::take(&mut self.held);
        held.retain_files(|event| {
            let is_its = event.watcher == handle;
            if is_its {
                // Or it is an error, which comes again.
                self.put_back_note(event);
            }
            !is_its
        });
        self.held = held;
    }

    /// A watcher is enabled, or not over its rate limit any more.
    pub fn resume_notes(&mut self, index: u32, record: &Record) {
        if self.desk.files.lock().files.resume(index) {
            self.files.bits |= DUE;
            // Its end may be among them: until that is told it is not dead.
            record.unset(DEAD);
            self.count_liveness(record);
        } else if record.has(DEAD | ENABLED) {
            self.fail(record.handle(Kind::Watcher, index), Errno::ENOENT);
        }
    }
}

// Watchers.
impl Core {
    pub fn add_file(&mut self, request: &Request<'_>, target: Target) -> Result<i64> {
        let fresh = self.fresh(Source::File, target)?;
        let added = self.add_files(fresh.index, request);
        if let Err(error) = added {
            self.give_back(&fresh);
            return Err(error);
        }
        self.file_added(fresh.index);
        Ok(self.publish(&fresh))
    }

    fn add_files(&mut self, id: u32, request: &Request<'_>) -> Result<()> {
        let desk = self.desk;
        let mut state = desk.files.lock();
        let mut rest = state.start(self.epoll(), id, request)?;
        let added = state.add_more(id, &mut rest, usize::MAX, request.root);
        if added.is_err() {
            state.close_if_empty(self.epoll());
        }
        added.map(drop)
    }

    /// A tree that another thread was adding is there; see [`add_rest`].
    pub fn publish_file(&mut self, fresh: &Fresh) -> i64 {
        self.file_added(fresh.index);
        self.publish(fresh)
    }

    /// Or is not.
    pub fn give_up_file(&mut self, fresh: &Fresh) {
        self.desk.files.lock().give_up(self.epoll(), fresh.index);
        self.give_back(fresh);
    }

    /// A watcher was added, perhaps with a new inotify.
    pub fn file_added(&mut self, index: u32) {
        let desk = self.desk;
        let mut state = desk.files.lock();
        if let Some(inotify) = state.files.descriptor().filter(|fd| !desk.own.has(*fd)) {
            self.fd_is_ours(OwnFd::Inotify, inotify);
        }
        // What it was told before it was there.
        state.files.resume(index);
        // What could not be watched of a tree is to be told.
        self.files.bits |= DUE;
    }

    /// A watcher is closed; `told`: the kernel must not be told.
    pub fn close_file(&mut self, index: u32, told: bool) {
        let mut state = self.desk.files.lock();
        if told || state.files.is_only(index) {
            state.files.forget_watcher(index);
        } else {
            state.files.remove(index);
        }
        state.shown.retain(|_, shown| shown.watcher != index);
        if !told && state.close_if_empty(self.epoll()) {
            self.files = Outlook::nothing();
            self.desk.own.set(OwnFd::Inotify, -1);
        } else if state.files.has_leaving() {
            self.files.bits |= DUE;
        }
    }

    /// Registers the inotify with another epoll of the loop's.
    pub fn register_files(&self, epoll: RawFd) -> Result<()> {
        match self.desk.files.lock().files.descriptor() {
            Some(fd) => Ok(epoll::add(epoll, fd, libc::EPOLLIN as u32, WORD)?),
            None => Ok(()),
        }
    }

    /// In a forked child: an inotify of its own, registered with its epoll.
    pub fn fresh_inotify(&self, epoll: RawFd) -> Result<Option<Fd>> {
        if self.desk.files.lock().files.descriptor().is_none() {
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
        let desk = self.desk;
        let mut state = desk.files.lock();
        state.files.revive(inotify)?;
        if state.close_if_empty(self.epoll()) {
            self.files = Outlook::nothing();
            desk.own.set(OwnFd::Inotify, -1);
        }
        Ok(())
    }
}
