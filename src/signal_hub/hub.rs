//! The process's signals: who subscribes to each, and what the handler of the
//! library does.
//!
//! A program may install a handler over ours, and call ours from it: it is
//! the one that it found. When ours is put on top again, it must not be
//! called from below and count twice, or call for ever. So there are several
//! trampolines (`LEVELS`): each stands for what it was put over, and only the
//! one on top counts.
//!
//! The lock is taken with all signals blocked, and no memory is allocated or
//! freed under it: so a program's handler may change a disposition, which
//! takes the lock, too, whatever it has interrupted.

use super::disposition::{Disposition, SavedAction, Trampoline};
use super::list::{self, HandlerList};
use super::reading;
use super::siginfo::Siginfo;
use super::subscriber::Subscriber;
use crate::errno::{Errno, Result, fail};
use crate::handle;
use crate::in_use::Readers;
use crate::sync::{AtomicI32, AtomicU64, AtomicUsize, ForkMutex, Ordering::*};
use crate::sys::signal::{self, Action, Blocked, END, Mask};
use crate::sys::{SavedErrno, fork, thread};
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

/// How many dispositions of a program's can lie over one another.
pub(super) const LEVELS: usize = 16;

/// A signal: what the handlers look at.
pub(super) struct Signal {
    subscribers: HandlerList<Subscriber>,
    /// The level whose trampoline counts.
    pub top: AtomicUsize,
    /// What each trampoline was put over.
    pub saved_actions: [SavedAction; LEVELS],
    /// How many [`super::NoDefault`]s there are, of this process.
    pub without_default: AtomicUsize,
}

static SIGNALS: [Signal; END] = [const {
    Signal {
        subscribers: HandlerList::new(),
        top: AtomicUsize::new(0),
        saved_actions: [const { SavedAction::new() }; LEVELS],
        without_default: AtomicUsize::new(0),
    }
}; END];

/// Handlers, and others, that look at subscribers and dispositions.
static READERS: Readers = Readers::new();

/// The process that the subscribers belong to: its epoch, and its id. A child
/// that shares the memory, vfork(2), has the epoch of its parent.
static EPOCH: AtomicU64 = AtomicU64::new(0);
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// The signals that have a handler of the library's.
static WATCHED: AtomicU64 = AtomicU64::new(0);
/// Of those, in a forked child, the ones whose disposition is the program's
/// again.
static RESTORED: AtomicU64 = AtomicU64::new(0);

/// What is under the lock, of each signal.
pub(super) struct Hub {
    /// How many [`super::Handler`]s there are.
    pub users: [u32; END],
    /// Whether a trampoline of ours was put over a disposition, and not taken
    /// away again since.
    pub installed: [bool; END],
}

impl Hub {
    const fn new() -> Self {
        Self { users: [0; END], installed: [false; END] }
    }
}

static LOCK: ForkMutex<Hub> = ForkMutex::new(Hub::new());

/// The thread that has the lock; 0: none.
static HOLDER: AtomicUsize = AtomicUsize::new(0);

/// Does something with the lock.
pub(super) fn locked<R>(work: impl FnOnce(&mut Hub) -> R) -> R {
    // Dropped last.
    let _blocked = Blocked::all();
    let mut hub = LOCK.lock();
    HOLDER.store(thread::current(), Relaxed);
    let result = work(&mut hub);
    HOLDER.store(0, Relaxed);
    result
}

/// Whether this thread has the lock.
pub(super) fn is_locked_here() -> bool {
    // Relaxed: only this thread stores its own number, and takes it away.
    HOLDER.load(Relaxed) == thread::current()
}

static TRAMPOLINES: [Trampoline; LEVELS] = [
    trampoline::<0>,
    trampoline::<1>,
    trampoline::<2>,
    trampoline::<3>,
    trampoline::<4>,
    trampoline::<5>,
    trampoline::<6>,
    trampoline::<7>,
    trampoline::<8>,
    trampoline::<9>,
    trampoline::<10>,
    trampoline::<11>,
    trampoline::<12>,
    trampoline::<13>,
    trampoline::<14>,
    trampoline::<15>,
];

/// The handler of a level. It must not take locks nor touch memory of the
/// thread's.
extern "C-unwind" fn trampoline<const LEVEL: usize>(
    number: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(one) = signal_of(number) else { return };
    let errno = SavedErrno::now();
    // Acquire: what is over it was written before.
    let is_top = one.top.load(Acquire) == LEVEL || is_installed(number, LEVEL);
    let is_ours = is_ours();
    let disposition = if is_ours {
        // SAFETY: null, or what the kernel has handed to this handler.
        let info = unsafe { info.as_ref() };
        one.arrived(LEVEL, is_top, info)
    } else {
        // What a child shares with its parent it does not change.
        let is_shared = EPOCH.load(Relaxed) == fork::current();
        let is_used_up = |found: &Disposition| is_top && !is_shared && found.is_for_once();
        one.saved_action(LEVEL).map(|action| action.use_up_from_outside(is_used_up))
    };
    errno.restore();
    let is_nothing = |found: &Disposition| is_ours && found.is_default() && one.has_no_default();
    if let Some(disposition) = disposition.filter(|found| !is_nothing(found)) {
        disposition.call(number, address(LEVEL), info, context);
    }
}

impl Signal {
    /// Has all subscribers count a signal, if the trampoline that it came to is
    /// on top; what the program does with it.
    fn arrived(
        &self,
        level: usize,
        is_top: bool,
        info: Option<&libc::siginfo_t>,
    ) -> Option<Disposition> {
        // Another handler might not come back (longjmp), and threads that
        // wait for this one would wait for ever.
        let _blocked = Blocked::all();
        let _reading = READERS.enter();
        if is_top {
            let info: Option<Siginfo> = info.map(Into::into);
            // SAFETY: the readers were entered.
            unsafe { self.subscribers.each(|subscriber| subscriber.notify(info.as_ref(), -1)) };
        }
        let is_used_up = |found: &Disposition| is_top && found.is_for_once();
        self.saved_action(level).map(|action| action.use_up(is_used_up))
    }
}

/// Whether this is the process that the subscribers are of, and not a child
/// that has not made its first call, or shares its parent's memory.
pub(super) fn is_ours() -> bool {
    let epoch = EPOCH.load(Relaxed);
    epoch != 0 && epoch == fork::current() && PROCESS.load(Relaxed) == thread::process()
}

/// Whether the kernel has a level's trampoline, since the program put that
/// back.
fn is_installed(number: c_int, level: usize) -> bool {
    signal::query(number).is_ok_and(|found| found.sa_sigaction == address(level))
}

/// The address of a level's trampoline, as an action has it.
pub(super) fn address(level: usize) -> usize {
    TRAMPOLINES.get(level).map_or(0, |trampoline| *trampoline as usize)
}

/// The level of a disposition that is a trampoline of ours.
pub(super) fn level_of(action: &Action) -> Option<usize> {
    TRAMPOLINES.iter().position(|trampoline| *trampoline as usize == action.sa_sigaction)
}

pub(super) fn signal_of(number: c_int) -> Option<&'static Signal> {
    usize::try_from(number).ok().and_then(|number| SIGNALS.get(number))
}

/// Whether a number can be that of a signal that is watched.
pub(crate) fn check(number: u64) -> Result<c_int> {
    match c_int::try_from(number) {
        Ok(number @ (libc::SIGKILL | libc::SIGSTOP)) => {
            fail!(EINVAL, "signal {} cannot be watched", number)
        }
        Ok(number) if number > 0 && signal_of(number).is_some() => Ok(number),
        _ => Err(crate::errno::error!(Errno::EINVAL, "{} is no signal", number as i64)),
    }
}

/// Puts a subscriber into the list of a signal; the process that it is of.
pub(super) fn insert(
    number: c_int,
    node: NonNull<list::HandlerListNode<Subscriber>>,
) -> fork::Epoch {
    handle::set_fork_hook(handle::ForkHook::Signals, after_fork);
    let epoch = handle::epoch();
    locked(|_| {
        EPOCH.store(epoch, Relaxed);
        PROCESS.store(thread::process(), Relaxed);
        if let Some(signal) = signal_of(number) {
            // SAFETY: with the lock; the subscription owns the node, and
            // removes it before it is freed.
            unsafe { signal.subscribers.insert(node) };
        }
    });
    epoch
}

/// Takes a subscriber out; when this returns no handler and no thread looks at
/// it.
pub(super) fn remove(number: c_int, node: NonNull<list::HandlerListNode<Subscriber>>) {
    locked(|_| {
        if let Some(signal) = signal_of(number) {
            // SAFETY: with the lock; `insert` put it into this list.
            unsafe { signal.subscribers.remove(node, &READERS) };
        }
    });
    reading::wait();
}

/// A signal that a signalfd had: all its subscribers count it.
///
/// # Safety
/// [`remove`] waits for the caller.
pub(super) unsafe fn notify(info: &Siginfo, awake: i64) {
    if let Some(signal) = signal_of(info.signo) {
        // SAFETY: this function's contract.
        unsafe { signal.subscribers.each(|subscriber| subscriber.notify(Some(info), awake)) };
    }
}

impl Signal {
    /// Whether a loop watches it in the default action's place.
    fn has_no_default(&self) -> bool {
        self.without_default.load(Relaxed) != 0
    }

    /// What is under the trampoline of a level.
    pub fn saved_action(&self, level: usize) -> Option<&SavedAction> {
        self.saved_actions.get(level)
    }

    /// Changes that, with the lock.
    pub fn wrap(&self, _hub: &Hub, level: usize, disposition: &Disposition) {
        if let Some(action) = self.saved_action(level) {
            action.write(disposition, || READERS.wait());
        }
    }
}

/// Whether a signal has a handler of the library's.
pub(super) fn is_watched(number: c_int) -> bool {
    WATCHED.load(Acquire) & signal::bit(number) != 0
}

/// Says so; with the lock.
pub(super) fn set_watched(_hub: &Hub, number: c_int, on: bool) {
    let bit = signal::bit(number);
    if on {
        WATCHED.fetch_or(bit, AcqRel);
    } else {
        WATCHED.fetch_and(!bit, AcqRel);
    }
}

/// Has the C library call [`in_child`]; false: there is no memory for that.
pub(super) fn prepare_for_forks() -> bool {
    static DONE: AtomicI32 = AtomicI32::new(0);
    if DONE.swap(1, Relaxed) != 0 {
        return true;
    }
    // SAFETY: a function that stays.
    let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    if result != 0 {
        DONE.store(0, Relaxed);
    }
    result == 0
}

/// The first thing in a child of fork(3): the dispositions are the program's
/// again, as nothing is watched here. What it executes inherits them.
extern "C" fn in_child() {
    let errno = SavedErrno::now();
    restore(WATCHED.load(Acquire));
    errno.restore();
}

/// Puts the program's dispositions back in the place of trampolines of ours, in
/// a forked child.
fn restore(watched: Mask) {
    for (number, one) in (0..).zip(&SIGNALS) {
        if watched & signal::bit(number) == 0 {
            continue;
        }
        let Ok(found) = signal::query(number) else { continue };
        let action = level_of(&found).and_then(|level| one.saved_action(level));
        if let Some(action) = action
            && signal::set(number, &action.read().action()).is_ok()
        {
            RESTORED.fetch_or(signal::bit(number), Relaxed);
        }
    }
}

/// In a forked child, which has none of the subscribers.
fn after_fork() {
    // One of a kind of fork that does not call `in_child`.
    restore(WATCHED.swap(0, AcqRel));
    let restored = RESTORED.swap(0, Relaxed);
    let mend = |hub: Option<&mut Hub>| {
        let is_sound = hub.is_some();
        let mut fresh = Hub::new();
        let hub = hub.unwrap_or(&mut fresh);
        hub.users = [0; END];
        for (number, installed) in (0..).zip(&mut hub.installed) {
            let is_ours = || signal::query(number).is_ok_and(|found| level_of(&found).is_some());
            *installed = restored & signal::bit(number) == 0
                && if is_sound { *installed } else { is_ours() };
        }
        (!is_sound).then_some(fresh)
    };
    // SAFETY: no other thread is in the library, and this one not in here.
    unsafe { LOCK.recover(mend) };
    // SAFETY: as above.
    unsafe { reading::after_fork() };
    HOLDER.store(0, Relaxed);
    READERS.forget();
    for signal in &SIGNALS {
        signal.subscribers.forget();
        signal.without_default.store(0, Relaxed);
    }
}
