//! All loops: made, closed, and what becomes of them in a forked child.

use super::core::Core;
use super::desk::{Desk, Gate, REAL_TIME, UNKNOWN};
use super::files::FileState;
use super::inside;
use super::lease::Locked;
use super::letters::Letters;
use super::named::{Closed, Named, find, named};
use super::own_fds::OwnFd;
use super::record::{self, LOOP};
use super::sinks::Sinks;
use crate::errno::{Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::hash::Map;
use crate::sync::{AtomicPtr, ForkMutex, MutexGuard, Ordering::*};
use crate::sys::{fork, thread};
use crate::util::alloc::{TryDeque, TryVec};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::ptr;

/// The first of all desks, which are linked and never freed.
static FIRST: AtomicPtr<Desk> = AtomicPtr::new(ptr::null_mut());

static UNUSED: ForkMutex<Unused> =
    ForkMutex::new(Unused { desks: Vec::new(), made: 0, records: VecDeque::new() });

/// All desks.
fn desks() -> impl Iterator<Item = &'static Desk> {
    let mut next = &FIRST;
    std::iter::from_fn(move || {
        // Acquire: pairs with the Release in `take`.
        // SAFETY: null, or a desk, which is never freed.
        let desk = unsafe { next.load(Acquire).as_ref() }?;
        next = &desk.next;
        Some(desk)
    })
}

/// Refuses what an open loop of this process works with, for an object that
/// would change it.
pub(crate) fn refuse_own(fd: RawFd) -> Result<()> {
    if fd >= 0 && desks().any(|desk| desk.is_usable() && desk.own.keeps(fd)) {
        fail!(EINVAL, "fd {} is a loop's own", fd);
    }
    Ok(())
}

struct Unused {
    desks: Vec<&'static Desk>,
    /// How many desks there are.
    made: usize,
    /// Records for loops.
    records: VecDeque<u32>,
}

/// Loops and watchers, for the table of all handles.
static OTHERS: handle::Others = handle::Others { after_fork, kind_of, count, close: close_any };

/// Whether it is a live loop or watcher, and which.
fn kind_of(handle: i64) -> Option<Kind> {
    let kind = Handle::unpack(handle)?.kind;
    let named = find(handle, kind).filter(|_| matches!(kind, Kind::Loop | Kind::Watcher))?;
    (named.desk.handle() != 0).then_some(kind)
}

/// How many loops, watchers or both are open.
fn count(kind: Option<Kind>) -> i64 {
    let open = desks().filter(|desk| desk.handle.load(Relaxed) != 0);
    open.map(|desk| match kind {
        Some(Kind::Loop) => 1,
        Some(Kind::Watcher) => desk.open_watchers(),
        Some(_) => 0,
        None => 1 + desk.open_watchers(),
    })
    .sum()
}

fn close_any(handle: i64) -> Result<()> {
    match Handle::unpack(handle) {
        Some(Handle { kind: Kind::Loop, .. }) => close(handle),
        _ => super::calls::watcher_close(handle, false),
    }
}

/// A new loop; its handle.
pub(super) fn open(make: impl FnOnce(&'static Desk) -> Result<Box<Core>>) -> Result<i64> {
    let epoch = handle::epoch();
    handle::set_others(&OTHERS);
    let (desk, index) = take()?;
    let core = match make(desk) {
        Ok(core) => core,
        Err(error) => {
            give_back(Some(desk), index);
            return Err(error);
        }
    };
    let Some(record) = record::get(index) else { return handle::stale(0) };
    let handle = record.handle(Kind::Loop, index);
    let mut gate = desk.gate();
    gate.epoll = core.epoll();
    core.be_woken();
    desk.own.clear();
    desk.own.set(OwnFd::Epoll, core.epoll());
    desk.own.set(OwnFd::Eventfd, core.eventfd.raw());
    desk.epoch.store(epoch, Relaxed);
    desk.state.store(0, Relaxed);
    desk.time.store(UNKNOWN, Relaxed);
    desk.posts.store(0, Relaxed);
    desk.failures.store(0, Relaxed);
    desk.options.store(core.options, Relaxed);
    desk.timer_tolerance.store(core.timers.tolerance, Relaxed);
    desk.holds.store(0, Relaxed);
    desk.busy_poll.store(0, Relaxed);
    desk.virtual_now.store(if core.virtual_time { 0 } else { REAL_TIME }, Relaxed);
    // SAFETY: the desk is nobody's yet, and this thread has the lock.
    unsafe { desk.place().begin(&mut gate, core, handle) };
    drop(gate);
    record.set_desk(desk);
    record.set_state(LOOP);
    Ok(handle)
}

/// A desk that is not in use, and a record for its loop.
fn take() -> Result<(&'static Desk, u32)> {
    let mut unused = UNUSED.lock();
    if unused.records.is_empty() {
        // Room for those in use, too: no more than there are desks.
        let records = record::PER_BLOCK as usize + unused.made;
        if unused.records.try_reserve(records).is_err() {
            fail!(ENOMEM, "no memory for a loop");
        }
        let first = record::take_block(None)? * record::PER_BLOCK;
        for index in first + 1..first + record::PER_BLOCK {
            unused.records.push_back_reserved(index);
        }
    }
    if unused.desks.is_empty() {
        // Room to give it back, too.
        let desks = unused.made + 1;
        let room = unused.desks.try_reserve(desks).is_ok();
        let room = room && unused.records.try_reserve(desks).is_ok();
        let fresh = if room { handle::try_box(Desk::new()) } else { None };
        let Some(fresh) = fresh else { fail!(ENOMEM, "no memory for a loop") };
        let fresh: &'static Desk = Box::leak(fresh);
        // Only changed with the lock.
        fresh.next.store(FIRST.load(Relaxed), Relaxed);
        // Release: who finds it sees it whole.
        FIRST.store(ptr::from_ref(fresh).cast_mut(), Release);
        unused.made = desks;
        unused.desks.push_reserved(fresh);
    }
    match (unused.desks.pop(), unused.records.pop_front()) {
        (Some(desk), Some(index)) => Ok((desk, index)),
        _ => fail!(ENOMEM, "no memory for a loop"),
    }
}

/// `desk`: unless it must not be used again.
fn give_back(desk: Option<&'static Desk>, index: u32) {
    let mut unused = UNUSED.lock();
    // There is room, unless the lists were lost in a fork: then these may be.
    if let Some(desk) = desk {
        let _ = unused.desks.try_push(desk);
    }
    if record::get(index).is_some_and(|record| !record.is_worn_out()) {
        let _ = unused.records.try_push_back(index);
    }
}

/// Closes a loop: now, or when the run that is going on notices.
pub(crate) fn close(handle: i64) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    let desk = named.desk;
    let mut gate = named.lock_any()?;
    if desk.epoch.load(Relaxed) != fork::current() {
        abandon(&named, gate);
        return Ok(());
    }
    if !gate.running {
        if desk.state.load(Relaxed) == 0 {
            // SAFETY: nobody runs the loop, and this thread has the gate's
            // lock.
            unsafe { desk.with_core(|core| core.receive(&mut gate)) }?;
        }
        named.record.free();
        tear_down(desk, gate).notify();
        return Ok(());
    }
    let wake = desk.place().close_running(&mut gate, desk, named.record.word());
    drop(gate);
    drop(wake);
    Ok(())
}

/// Frees a closed loop, whose record is free already; whom to tell.
pub(super) fn tear_down(
    desk: &'static Desk,
    mut gate: MutexGuard<'static, Locked<Gate>>,
) -> Closed {
    let index = Handle::unpack(desk.mail.owner()).map_or(0, |handle| handle.index);
    let mut posts = Letters::new();
    let late = |letter| posts.put_first(letter);
    // SAFETY: no run, and this thread has the gate's lock.
    let core = unsafe { desk.place().clear(&mut gate, late, || desk.silence()) };
    let poisoned = desk.state.load(Relaxed) != 0;
    let requests = gate.requests;
    let mut before = std::mem::replace(&mut **gate, Gate { requests, ..Gate::default() });
    *desk.files.lock() = FileState::default();
    *desk.priorities.lock() = Map::default();
    desk.watchers.store(0, Relaxed);
    desk.others.store(0, Relaxed);
    desk.clocks.store(0, Relaxed);
    let nothing = || Closed { destroys: Letters::new(), posts: Letters::new() };
    let mut closed = match core {
        // Nothing in it can be relied on.
        Some(core) if poisoned => {
            core.abandon(false);
            std::mem::forget(core);
            nothing()
        }
        Some(core) => core.tear_down(),
        None => nothing(),
    };
    closed.posts.append(&mut posts);
    *desk.sinks.lock() = Sinks::default();
    drop(gate);
    if let Some(trace) = before.trace.take() {
        trace.finish(&before.names);
    }
    // Waits for the watchdog's callback, should it be running.
    drop(before);
    // The watchers of a poisoned loop are not closed: another loop in its place
    // would be found by their handles.
    give_back(Some(desk).filter(|_| !poisoned), index);
    closed
}

/// Closes a loop of the parent process, in a child: its descriptors here,
/// and no more, since it may be in the middle of something.
fn abandon(named: &Named, mut gate: MutexGuard<'static, Locked<Gate>>) {
    let desk = named.desk;
    named.record.free();
    desk.handle.store(0, Relaxed);
    desk.mail.assign(0);
    desk.silence();
    let is_sound = desk.state.load(Relaxed) == 0;
    // SAFETY: no other thread of this process uses the parent's loop; where it
    // forked in a callback, its run borrows nothing of the core.
    let _ = unsafe { desk.with_core(|core| core.abandon(is_sound)) };
    gate.names = Map::default();
    *desk.priorities.lock() = Map::default();
    *desk.files.lock() = FileState::default();
    *desk.sinks.lock() = Sinks::default();
    let looked_at = (gate.stats.take(), gate.trace.take(), gate.watchdog.take());
    drop(gate);
    drop(looked_at);
}

/// Makes a loop of the parent process this one's.
pub(crate) fn revive(handle: i64) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    let desk = named.desk;
    let mut gate = named.lock_any()?;
    let epoch = fork::current();
    if desk.epoch.load(Relaxed) == epoch {
        return Ok(());
    }
    if desk.state.load(Relaxed) != 0 {
        fail!(EBUSY, "loop {} was in use by another thread when the process forked", handle);
    }
    if !gate.running {
        // The callback that forked was left without a word, in the child.
        desk.published.leave();
    }
    let dog = inside::revive(&mut gate)?;
    let act = |core: &mut Core| -> Result<()> {
        core.revive(&mut gate)?;
        core.revive_watch(&mut gate, dog);
        core.be_woken();
        gate.epoll = core.epoll();
        Ok(())
    };
    // SAFETY: no other thread of this process uses the loop yet, and this one
    // has the gate's lock; where it forked in a callback, its run borrows
    // nothing of the core.
    unsafe { desk.with_core(act) }??;
    if gate.running {
        desk.lease.take_over(thread::current());
    }
    desk.epoch.store(epoch, Relaxed);
    // The run that the fork ended may have taken the word, and left what it
    // stood for.
    desk.attention.set();
    Ok(())
}

/// Sets everything right in a forked child: only this thread exists.
fn after_fork() {
    // SAFETY: the first call of a child: nobody else is in the library.
    unsafe { record::after_fork() };
    let keep = |unused: Option<&mut Unused>| match unused {
        Some(_) => None,
        // A loop was being made or closed, and its desk and record are in no
        // list perhaps: those that were not in use are not used again.
        None => Some(Unused { desks: Vec::new(), made: desks().count(), records: VecDeque::new() }),
    };
    // SAFETY: as above.
    unsafe { UNUSED.recover(keep) };
    desks().for_each(Desk::after_fork);
}
