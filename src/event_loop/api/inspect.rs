//! Questions about a loop and its watchers that any thread may ask at any
//! time, also while the loop is stuck in a callback.
//!
//! The answers are read from the watchers' slots, which are atomics in memory
//! that is never unmapped. No lock is waited for. What a thread that does not
//! run the loop reads may be a moment old; what other threads asked for and the
//! loop has not taken in yet is not in it.

use crate::errno::{Result, fail};
use crate::event_loop::clock_ids;
use crate::event_loop::command::CommandQueue;
use crate::event_loop::event::KEEP_ALIVE;
use crate::event_loop::flags::*;
use crate::event_loop::ownership::Locked;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::view;
use crate::event_loop::slot::{self, WatcherSlot};
use crate::event_loop::source::io_slot;
use crate::event_loop::state::LoopState;
use crate::handle::{self, Handle, Kind};
use crate::sync::{MutexGuard, Ordering::Relaxed};
use crate::util::Out;
use std::ffi::c_int;
use std::ops::ControlFlow;
use std::os::fd::RawFd;

/// The properties and the state of a watcher; see evloop_watcher_info(). Set
/// size first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WatcherInfo {
    /// sizeof(evloop_watcher_info_t).
    pub size: usize,
    /// Its loop.
    pub r#loop: i64,
    /// Its user_data, or what evloop_watcher_set_data() has set.
    pub data: u64,
    /// The EVLOOP_EVENT type of its events.
    pub r#type: c_int,
    /// IO: the descriptor; else -1.
    pub fd: c_int,
    /// IO: what is watched for, EVLOOP_EPOLL bits; else 0.
    pub events: u32,
    /// 1 if it is enabled, else 0. An EVLOOP_EPOLLONESHOT event, an error and
    /// its last event disable a watcher too.
    pub enabled: c_int,
    /// 0 after evloop_watcher_unref(), else 1.
    pub referenced: c_int,
    /// 1 if it keeps the loop alive now, else 0.
    pub alive: c_int,
    /// See evloop_watcher_set_priority().
    pub priority: c_int,
    /// TIMER: the EVLOOP_CLOCK that deadline_ns is on; else -1.
    pub clockid: c_int,
    /// TIMER: when it expires next; INT64_MAX if it is not set. If another
    /// thread runs the loop, it is INT64_MAX too for a timer that is disabled,
    /// or that the running callback has set: that counts from the end of the
    /// callback.
    pub deadline_ns: i64,
    /// TIMER: its interval, 0 if it expires once; else 0.
    pub interval_ns: i64,
    /// TIMER: how much later than that it may expire, rounded down to 18
    /// significant bits; else 0.
    pub tolerance_ns: i64,
    /// SIGNAL: the signal. PROCESS: the process id. TFD, KQUEUE: the handle of
    /// the watched object. Else 0.
    pub subject: i64,
}

/// See evloop_alive.
pub(crate) fn alive(handle: i64) -> Result<bool> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    match resolved.query(|state| state.is_alive())? {
        Some(alive) => Ok(alive),
        None => Ok(resolved.seems_alive()),
    }
}

/// See evloop_watchers.
pub(crate) fn watchers(handle: i64, out: &mut Out<i64>) -> Result<usize> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let mut count = 0;
    resolved.each_watcher(|watcher, _, _| {
        count += 1;
        out.push(watcher);
        ControlFlow::Continue(())
    });
    Ok(count)
}

/// See evloop_watcher_info.
pub(crate) fn info(handle: i64) -> Result<WatcherInfo> {
    let resolved = resolve(handle, Kind::Watcher)?;
    resolved.check()?;
    let index = resolved.handle.index;
    let exact = resolved.query(|state| read_exactly(state, index, resolved.slot))?;
    let found = match exact {
        Some(info) => Some(info),
        None => {
            let found =
                resolved.slot.read_live(resolved.shared, |slot| read(resolved.shared, slot));
            found
                .filter(|(generation, _)| *generation == resolved.handle.generation)
                .map(|found| found.1)
        }
    };
    let Some(mut info) = found else { return handle::stale(handle) };
    info.r#loop = resolved.shared.handle();
    if info.r#loop == 0 {
        return handle::stale(handle);
    }
    if info.has_priority() {
        info.priority = resolved.shared.priorities.lock().get(&handle).copied().unwrap_or(0);
    }
    Ok(info)
}

/// See evloop_find_io.
pub(crate) fn find_io(handle: i64, fd: RawFd) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let found = match resolved.query(|state| state.find_io(fd))? {
        Some(found) => found,
        None => resolved.find_io(fd),
    };
    match found {
        Some(watcher) => Ok(watcher),
        None => fail!(ENOENT, "no io watcher of loop {} watches fd {}", handle, fd),
    }
}

impl WatcherInfo {
    /// Marked until it is looked up.
    fn has_priority(&self) -> bool {
        self.priority != 0
    }

    fn of(shared: &LoopShared, slot: &WatcherSlot) -> (Self, Source, u32) {
        let flags = slot.flags.load(Relaxed);
        let source = Source::of(flags);
        let is_coming = matches!(source, Source::Timer | Source::Defer)
            && flags & (ENABLED | UNREF | COMING) == ENABLED | COMING;
        let info = Self {
            size: size_of::<Self>(),
            r#loop: shared.handle(),
            data: slot.data.load(Relaxed),
            r#type: source as c_int,
            fd: -1,
            enabled: c_int::from(flags & ENABLED != 0),
            referenced: c_int::from(flags & UNREF == 0),
            alive: c_int::from(keeps_alive(flags) || is_coming),
            priority: c_int::from(flags & HAS_PRIORITY != 0),
            clockid: -1,
            deadline_ns: i64::MAX,
            ..Self::default()
        };
        (info, source, flags)
    }
}

/// What a slot says; any thread may read it.
pub(in crate::event_loop) fn read(shared: &LoopShared, slot: &WatcherSlot) -> WatcherInfo {
    let (mut info, source, flags) = WatcherInfo::of(shared, slot);
    match source {
        Source::Io => {
            info.fd = view::fd_of(slot);
            info.events = view::events_of(slot);
        }
        Source::Timer => {
            info.clockid = clock_ids::clock_id((flags >> QUEUE_SHIFT & CLOCK_MASK) as usize);
            info.tolerance_ns = slot.node.tolerance();
            if flags & PERIODIC != 0 {
                info.interval_ns = slot.aux.load(Relaxed).cast_signed();
            }
            let deadline = slot.node.deadline().filter(|_| flags & SET != 0);
            info.deadline_ns = deadline.unwrap_or(i64::MAX);
        }
        Source::MemoryPressure => {}
        source if source.is_fd_source() || source == Source::Signal => {
            info.subject = slot.node.third_spare().load(Relaxed);
        }
        _ => {}
    }
    info
}

/// The same where the loop may be touched, which knows more of its timers.
fn read_exactly(state: &LoopState, index: u32, slot: &WatcherSlot) -> WatcherInfo {
    let mut info = read(state.ctx.shared, slot);
    if Source::of(slot.flags.load(Relaxed)) == Source::Timer && slot.has(SET) {
        info.deadline_ns = state.timers.deadline(&state.ctx, index, slot).unwrap_or(i64::MAX);
    }
    info
}

impl LoopState {
    /// The io watcher that watches a descriptor, the first of several.
    fn find_io(&self, fd: RawFd) -> Option<i64> {
        let is_it = |slot: &WatcherSlot| {
            Source::of(slot.flags.load(Relaxed)) == Source::Io && slot.state() == slot::LIVE
        };
        let found = self.io.chain(fd).find(|(_, slot)| is_it(slot));
        let (index, slot) = found.or_else(|| self.io.not_pollable.find(fd))?;
        Some(slot.handle(Kind::Watcher, index))
    }
}

impl Resolved {
    /// Asks the loop itself, if that needs no waiting: on the thread that runs
    /// it, or if none does. `None`: it is in use.
    pub fn query<R>(&self, query: impl FnOnce(&mut LoopState) -> R) -> Result<Option<R>> {
        if self.shared.is_mine() {
            return self.with(|state| Ok(Some(query(state))), |_| Ok(None));
        }
        let Some(command_queue) = self.try_lock()? else { return Ok(None) };
        if command_queue.running {
            return Ok(None);
        }
        self.with_idle(command_queue, |state| Ok(Some(query(state))))
    }

    /// The command queue, if that needs no waiting.
    fn try_lock(&self) -> Result<Option<MutexGuard<'static, Locked<CommandQueue>>>> {
        let Some(command_queue) = self.shared.owner.try_lock() else { return Ok(None) };
        if !self.is_open() {
            return handle::stale(self.handle.pack());
        }
        self.check()?;
        Ok(Some(command_queue))
    }

    /// Visits the live watchers of a loop, from any thread.
    pub fn each_watcher(
        &self,
        mut visit: impl FnMut(i64, u32, &'static WatcherSlot) -> ControlFlow<()>,
    ) {
        for block in slot::blocks_of(self.shared) {
            for (index, slot) in slot::indexed_slots_of(block) {
                let Some((generation, ())) = slot.read_live(self.shared, |_| ()) else { continue };
                // Or the loop was closed, and this is a watcher of another
                // one, which uses the same memory.
                if !self.is_open() {
                    return;
                }
                let handle = Handle { kind: Kind::Watcher, generation, index }.pack();
                if visit(handle, index, slot).is_break() {
                    return;
                }
            }
        }
    }

    /// Whether the loop is kept alive, as far as a thread can see that does
    /// not run it.
    fn seems_alive(&self) -> bool {
        let shared = self.shared;
        let waits = shared.options.load(Relaxed) & KEEP_ALIVE != 0
            || shared.posts.load(Relaxed) > 0
            || shared.failures.load(Relaxed) > 0
            || shared.wake_state.has_posts();
        let mut alive = waits;
        if !waits {
            self.each_watcher(|_, _, slot| {
                alive = keeps_loop_alive(shared, slot);
                if alive { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        alive
    }

    fn find_io(&self, fd: RawFd) -> Option<i64> {
        let mut found = None;
        self.each_watcher(|handle, _, slot| {
            let read = |slot: &WatcherSlot| {
                let flags = slot.flags.load(Relaxed);
                let is_it = Source::of(flags) == Source::Io && view::fd_of(slot) == fd;
                // The first of several, as far as the loop has taken them in.
                let is_first = flags & JOINS == 0 && io_slot::is_first(slot);
                (is_it && flags & FD_LOST == 0).then_some(is_first)
            };
            match slot.read_live(self.shared, read) {
                Some((_, Some(true))) => {
                    found = Some(handle);
                    ControlFlow::Break(())
                }
                Some((_, Some(false))) => {
                    found.get_or_insert(handle);
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Continue(()),
            }
        });
        found
    }
}

/// Whether a watcher keeps its loop alive; also what is held back by a rate
/// limit does.
pub(in crate::event_loop) fn keeps_loop_alive(shared: &LoopShared, slot: &WatcherSlot) -> bool {
    let read = |slot: &WatcherSlot| read(shared, slot).alive != 0 || slot.has(RATE_LIMITED_NOW);
    slot.read_live(shared, read).is_some_and(|(_, alive)| alive)
}
