//! All loops: made, closed, and what becomes of them in a forked child.

use super::files::FileState;
use super::node_list::NodeList;
use super::own_fds::OwnFd;
use super::ownership::Locked;
use super::resolve::{ClosedLoop, Resolved, resolve, try_resolve};
use super::shared::{CommandQueue, LoopShared, REAL_TIME, UNKNOWN};
use super::sinks::Sinks;
use super::slot::{self, LOOP};
use super::state::LoopState;
use super::telemetry;
use crate::errno::{Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::hash::Map;
use crate::sync::{AtomicPtr, ForkMutex, MutexGuard, Ordering::*};
use crate::sys::{fork, thread};
use crate::util::alloc::{TryDeque, TryVec};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::ptr;

/// The first of all shared parts, which are linked and never freed.
static FIRST: AtomicPtr<LoopShared> = AtomicPtr::new(ptr::null_mut());

static UNUSED: ForkMutex<Unused> =
    ForkMutex::new(Unused { shared: Vec::new(), made: 0, slots: VecDeque::new() });

/// All shared parts.
fn all_loops() -> impl Iterator<Item = &'static LoopShared> {
    let mut next = &FIRST;
    std::iter::from_fn(move || {
        // Acquire: pairs with the Release in `take`. SAFETY: null, or a shared
        // part, which is never freed.
        let shared = unsafe { next.load(Acquire).as_ref() }?;
        next = &shared.next;
        Some(shared)
    })
}

/// Refuses what an open loop of this process works with, for an object that
/// would change it.
pub(crate) fn refuse_own(fd: RawFd) -> Result<()> {
    if fd >= 0 && all_loops().any(|shared| shared.is_usable() && shared.own.keeps(fd)) {
        fail!(EINVAL, "fd {} is a loop's own", fd);
    }
    Ok(())
}

struct Unused {
    shared: Vec<&'static LoopShared>,
    /// How many shared parts there are.
    made: usize,
    /// Slots for loops.
    slots: VecDeque<u32>,
}

/// Loops and watchers, for the table of all handles.
static EXTERNAL_OBJECTS: handle::ExternalObjects =
    handle::ExternalObjects { after_fork, kind_of, count, close: close_any };

/// Whether it is a live loop or watcher, and which.
fn kind_of(handle: i64) -> Option<Kind> {
    let kind = Handle::unpack(handle)?.kind;
    let resolved =
        try_resolve(handle, kind).filter(|_| matches!(kind, Kind::Loop | Kind::Watcher))?;
    (resolved.shared.handle() != 0).then_some(kind)
}

/// How many loops, watchers or both are open.
fn count(kind: Option<Kind>) -> i64 {
    let open = all_loops().filter(|shared| shared.handle.load(Relaxed) != 0);
    open.map(|shared| match kind {
        Some(Kind::Loop) => 1,
        Some(Kind::Watcher) => shared.open_watchers(),
        Some(_) => 0,
        None => 1 + shared.open_watchers(),
    })
    .sum()
}

fn close_any(handle: i64) -> Result<()> {
    match Handle::unpack(handle) {
        Some(Handle { kind: Kind::Loop, .. }) => close(handle),
        _ => super::api::watchers::watcher_close(handle, false),
    }
}

/// A new loop; its handle.
pub(super) fn open(
    make: impl FnOnce(&'static LoopShared) -> Result<Box<LoopState>>,
) -> Result<i64> {
    let epoch = handle::epoch();
    handle::set_external_objects(&EXTERNAL_OBJECTS);
    let (shared, index) = take()?;
    let state = match make(shared) {
        Ok(state) => state,
        Err(error) => {
            recycle(Some(shared), index);
            return Err(error);
        }
    };
    let Some(slot) = slot::get(index) else { return handle::stale(0) };
    let handle = slot.handle(Kind::Loop, index);
    let mut command_queue = shared.lock_commands();
    command_queue.epoll = state.epoll();
    state.be_woken();
    shared.own.clear();
    shared.own.set(OwnFd::Epoll, state.epoll());
    shared.own.set(OwnFd::Eventfd, state.eventfd.raw());
    shared.epoch.store(epoch, Relaxed);
    shared.damage.store(0, Relaxed);
    shared.time.store(UNKNOWN, Relaxed);
    shared.posts.store(0, Relaxed);
    shared.failures.store(0, Relaxed);
    shared.options.store(state.options, Relaxed);
    shared.timer_tolerance.store(state.timers.tolerance, Relaxed);
    shared.holds.store(0, Relaxed);
    shared.busy_poll.store(0, Relaxed);
    shared.virtual_now.store(if state.virtual_time { 0 } else { REAL_TIME }, Relaxed);
    // SAFETY: no thread uses the shared part yet, and this thread has the lock.
    unsafe { shared.lifecycle().begin(&mut command_queue, state, handle) };
    drop(command_queue);
    slot.set_shared(shared);
    slot.set_state(LOOP);
    Ok(handle)
}

/// A loop's shared part that is not in use, and a slot for its loop.
fn take() -> Result<(&'static LoopShared, u32)> {
    let mut unused = UNUSED.lock();
    if unused.slots.is_empty() {
        // Room for those in use, too: no more than there are shared parts.
        let slots = slot::PER_BLOCK as usize + unused.made;
        if unused.slots.try_reserve(slots).is_err() {
            fail!(ENOMEM, "no memory for a loop");
        }
        let first = slot::take_block(None)? * slot::PER_BLOCK;
        for index in first + 1..first + slot::PER_BLOCK {
            unused.slots.push_back_reserved(index);
        }
    }
    if unused.shared.is_empty() {
        // Room to give it back, too.
        let count = unused.made + 1;
        let has_room = unused.shared.try_reserve(count).is_ok();
        let has_room = has_room && unused.slots.try_reserve(count).is_ok();
        let fresh = if has_room { handle::try_box(LoopShared::new()) } else { None };
        let Some(fresh) = fresh else { fail!(ENOMEM, "no memory for a loop") };
        let fresh: &'static LoopShared = Box::leak(fresh);
        // Only changed with the lock.
        fresh.next.store(FIRST.load(Relaxed), Relaxed);
        // Release: a thread that finds it sees it whole.
        FIRST.store(ptr::from_ref(fresh).cast_mut(), Release);
        unused.made = count;
        unused.shared.push_reserved(fresh);
    }
    match (unused.shared.pop(), unused.slots.pop_front()) {
        (Some(shared), Some(index)) => Ok((shared, index)),
        _ => fail!(ENOMEM, "no memory for a loop"),
    }
}

/// `shared`: unless it must not be used again.
fn recycle(shared: Option<&'static LoopShared>, index: u32) {
    let mut unused = UNUSED.lock();
    // There is room, unless the lists were lost in a fork: then these may be.
    if let Some(shared) = shared {
        let _ = unused.shared.try_push(shared);
    }
    if slot::get(index).is_some_and(|slot| !slot.is_exhausted()) {
        let _ = unused.slots.try_push_back(index);
    }
}

/// Closes a loop: now, or when the run that is going on notices.
pub(crate) fn close(handle: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let shared = resolved.shared;
    let mut command_queue = resolved.lock_any()?;
    if shared.epoch.load(Relaxed) != fork::current() {
        abandon(&resolved, command_queue);
        return Ok(());
    }
    if !command_queue.running {
        if shared.damage.load(Relaxed) == 0 {
            // SAFETY: no thread runs the loop, and this one has the command
            // queue's lock.
            unsafe { shared.with_state(|state| state.apply_commands(&mut command_queue)) }?;
        }
        resolved.slot.free();
        tear_down(shared, command_queue).notify();
        return Ok(());
    }
    let wake = shared.lifecycle().close_running(&mut command_queue, shared, resolved.slot.word());
    drop(command_queue);
    drop(wake);
    Ok(())
}

/// Frees a closed loop, whose slot is free already. Returns the callbacks to
/// notify.
pub(super) fn tear_down(
    shared: &'static LoopShared,
    mut command_queue: MutexGuard<'static, Locked<CommandQueue>>,
) -> ClosedLoop {
    let index = Handle::unpack(shared.wake_state.loop_handle()).map_or(0, |handle| handle.index);
    let mut posts = NodeList::new();
    let late = |node| posts.put_first(node);
    // SAFETY: no run, and this thread has the command queue's lock.
    let state =
        unsafe { shared.lifecycle().clear(&mut command_queue, late, || shared.disable_wakeups()) };
    let poisoned = shared.damage.load(Relaxed) != 0;
    let barrier = command_queue.barrier;
    let mut before = std::mem::replace(
        &mut **command_queue,
        CommandQueue { barrier, ..CommandQueue::default() },
    );
    *shared.files.lock() = FileState::default();
    *shared.priorities.lock() = Map::default();
    shared.watchers.store(0, Relaxed);
    shared.others.store(0, Relaxed);
    shared.clocks.store(0, Relaxed);
    let nothing = || ClosedLoop { destroys: NodeList::new(), posts: NodeList::new() };
    let mut closed = match state {
        // Nothing in it can be relied on.
        Some(state) if poisoned => {
            state.abandon(false);
            std::mem::forget(state);
            nothing()
        }
        Some(state) => state.tear_down(),
        None => nothing(),
    };
    closed.posts.append(&mut posts);
    *shared.sinks.lock() = Sinks::default();
    drop(command_queue);
    if let Some(trace) = before.trace.take() {
        trace.finish(&before.names);
    }
    // Waits for the watchdog's callback, should it be running.
    drop(before);
    // The watchers of a poisoned loop are not closed: another loop in its place
    // would be found by their handles.
    recycle(Some(shared).filter(|_| !poisoned), index);
    closed
}

/// Closes a loop of the parent process, in a child: its descriptors here,
/// and no more, since it may be in the middle of something.
fn abandon(resolved: &Resolved, mut command_queue: MutexGuard<'static, Locked<CommandQueue>>) {
    let shared = resolved.shared;
    resolved.slot.free();
    shared.handle.store(0, Relaxed);
    shared.wake_state.assign(0);
    shared.disable_wakeups();
    let is_sound = shared.damage.load(Relaxed) == 0;
    // SAFETY: no other thread of this process uses the parent's loop; where it
    // forked in a callback, its run borrows nothing of the state.
    let _ = unsafe { shared.with_state(|state| state.abandon(is_sound)) };
    command_queue.names = Map::default();
    *shared.priorities.lock() = Map::default();
    *shared.files.lock() = FileState::default();
    *shared.sinks.lock() = Sinks::default();
    let telemetry =
        (command_queue.stats.take(), command_queue.trace.take(), command_queue.watchdog.take());
    drop(command_queue);
    drop(telemetry);
}

/// Makes a loop of the parent process this one's.
pub(crate) fn revive(handle: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let shared = resolved.shared;
    let mut command_queue = resolved.lock_any()?;
    let epoch = fork::current();
    if shared.epoch.load(Relaxed) == epoch {
        return Ok(());
    }
    if shared.damage.load(Relaxed) != 0 {
        fail!(EBUSY, "loop {} was in use by another thread when the process forked", handle);
    }
    if !command_queue.running {
        // In the child no call has ended the activity of the callback that
        // forked.
        shared.activity.exit();
    }
    let watchdog_handle = telemetry::revive(&mut command_queue)?;
    let act = |state: &mut LoopState| -> Result<()> {
        state.revive(&mut command_queue)?;
        state.revive_probe(&mut command_queue, watchdog_handle);
        state.be_woken();
        command_queue.epoll = state.epoll();
        Ok(())
    };
    // SAFETY: no other thread of this process uses the loop yet, and this one
    // has the command queue's lock; where it forked in a callback, its run
    // borrows nothing of the state.
    unsafe { shared.with_state(act) }??;
    if command_queue.running {
        shared.owner.adopt(thread::current());
    }
    shared.epoch.store(epoch, Relaxed);
    // The run that the fork ended may have taken the word, and left what it
    // stood for.
    shared.pending_work.set();
    Ok(())
}

/// Sets everything right in a forked child: only this thread exists.
fn after_fork() {
    // SAFETY: the first call of a child: no other thread is in the library.
    unsafe { slot::after_fork() };
    let keep = |unused: Option<&mut Unused>| match unused {
        Some(_) => None,
        // A loop was being made or closed, and its shared part and slot are in
        // no list perhaps: those that were not in use are not used again.
        None => {
            Some(Unused { shared: Vec::new(), made: all_loops().count(), slots: VecDeque::new() })
        }
    };
    // SAFETY: as above.
    unsafe { UNUSED.recover(keep) };
    all_loops().for_each(LoopShared::after_fork);
}
