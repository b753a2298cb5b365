//! All loops: the pool of their shared parts, and how a loop goes back there.

use super::command::CommandQueue;
use super::file_state::FileState;
use super::node_list::NodeList;
use super::notify::ClosedLoop;
use super::ownership::Locked;
use super::resolve::try_resolve;
use super::shared::LoopShared;
use super::sinks::Sinks;
use super::slot;
use crate::errno::{Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::hash::Map;
use crate::sync::{AtomicPtr, ForkMutex, MutexGuard, Ordering::*};
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

/// Whether it is a live loop or watcher, and which.
pub(super) fn kind_of(handle: i64) -> Option<Kind> {
    let kind = Handle::unpack(handle)?.kind;
    let resolved =
        try_resolve(handle, kind).filter(|_| matches!(kind, Kind::Loop | Kind::Watcher))?;
    (resolved.shared.handle() != 0).then_some(kind)
}

/// How many loops, watchers or both are open.
pub(super) fn count(kind: Option<Kind>) -> i64 {
    let open = all_loops().filter(|shared| shared.handle.load(Relaxed) != 0);
    open.map(|shared| match kind {
        Some(Kind::Loop) => 1,
        Some(Kind::Watcher) => shared.open_watchers(),
        Some(_) => 0,
        None => 1 + shared.open_watchers(),
    })
    .sum()
}

/// A loop's shared part that is not in use, and a slot for its loop.
pub(super) fn take() -> Result<(&'static LoopShared, u32)> {
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
pub(super) fn recycle(shared: Option<&'static LoopShared>, index: u32) {
    let mut unused = UNUSED.lock();
    // There is room, unless the lists were lost in a fork: then these may be.
    if let Some(shared) = shared {
        let _ = unused.shared.try_push(shared);
    }
    if slot::get(index).is_some_and(|slot| !slot.is_exhausted()) {
        let _ = unused.slots.try_push_back(index);
    }
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

/// Sets everything right in a forked child: only this thread exists.
pub(super) fn after_fork() {
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
