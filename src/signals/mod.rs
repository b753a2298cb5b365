//! Signals that are counted, for whoever subscribes, while the program's own
//! dispositions go on working.
//!
//! A signal with subscribers has a handler of ours, which counts it for each
//! of them, rings them, and then does what would have been done:
//! calls the program's handler, nothing, or the default.
//!
//! A program may install a handler over ours, and call ours from it: it is
//! the one that it found. When ours is put on top again, it must not be
//! called from below and count twice, or call for ever. So there are several
//! entries (`LEVELS`): each stands for what it was put over, and only the
//! one on top counts.

mod action;
mod infos;
mod siginfo;
mod subscriber;

use self::action::{Chained, Entry, keep};
use self::subscriber::Subscriber;
use crate::errno::{Errno, Result, fail};
use crate::sync::{AtomicPtr, AtomicUsize, ForkMutex, Ordering};
use crate::sys::SavedErrno;
use crate::sys::signal::{self, Action, END};
use crate::table;
use std::ffi::{c_int, c_void};

pub use self::siginfo::Siginfo;
pub(crate) use self::subscriber::{Bell, QUEUED, Subscription, is_real_time};

/// How many dispositions of a program's can lie over one another.
const LEVELS: usize = 16;

/// A signal: what the handlers look at. All of it is only changed under
/// [`LOCK`], but for a disposition that is for one time only.
struct Signal {
    /// Everyone who ever subscribed; records are used again.
    subscribers: AtomicPtr<Subscriber>,
    /// The level whose entry counts.
    top: AtomicUsize,
    /// What each entry was put over.
    chained: [AtomicPtr<Chained>; LEVELS],
}

static SIGNALS: [Signal; END] = [const {
    Signal {
        subscribers: AtomicPtr::new(std::ptr::null_mut()),
        top: AtomicUsize::new(0),
        chained: [const { AtomicPtr::new(std::ptr::null_mut()) }; LEVELS],
    }
}; END];

/// For changes; of each signal, whether an entry of ours was put over a
/// disposition, and not taken away again since.
static LOCK: ForkMutex<[bool; END]> = ForkMutex::new([false; END]);

/// In a forked child, which has the handlers and none of the subscribers.
fn after_fork() {
    let mend = |contents: Option<&mut [bool; END]>| match contents {
        Some(_) => None,
        None => {
            let mut installed = [false; END];
            for (number, installed) in (0..).zip(&mut installed) {
                let found = signal::query(number);
                *installed = found.is_ok_and(|found| level_of(&found).is_some());
            }
            Some(installed)
        }
    };
    // SAFETY: no other thread is in the library, and this one not in here.
    unsafe { LOCK.recover(mend) };
    // Until somebody subscribes, no handler of this process looks at them.
    SIGNALS.iter().for_each(|signal| subscriber::after_fork(&signal.subscribers));
}

static ENTRIES: [Entry; LEVELS] = [
    entry::<0>,
    entry::<1>,
    entry::<2>,
    entry::<3>,
    entry::<4>,
    entry::<5>,
    entry::<6>,
    entry::<7>,
    entry::<8>,
    entry::<9>,
    entry::<10>,
    entry::<11>,
    entry::<12>,
    entry::<13>,
    entry::<14>,
    entry::<15>,
];

/// The handler of a level. It must not take locks nor touch memory of the
/// thread's.
extern "C-unwind" fn entry<const LEVEL: usize>(
    number: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(one) = usize::try_from(number).ok().and_then(|number| SIGNALS.get(number)) else {
        return;
    };
    // Acquire, here and below: what is pointed to was written before.
    let is_top = one.top.load(Ordering::Acquire) == LEVEL || is_installed(number, LEVEL);
    let Some(place) = one.chained.get(LEVEL) else { return };
    // SAFETY: null, or a record that is never freed.
    let chained = unsafe { place.load(Ordering::Acquire).as_ref() };
    if is_top {
        // SAFETY: null, or what the kernel has handed to this handler.
        let info = unsafe { info.as_ref() };
        let alone = chained.is_some_and(Chained::blocks_all);
        subscriber::tell(&one.subscribers, info, alone);
    }
    let Some(chained) = chained else { return };
    if is_top && chained.is_for_once() {
        place.store(std::ptr::from_ref(&action::DEFAULT).cast_mut(), Ordering::Release);
    }
    chained.call(number, address(LEVEL), info, context);
}

/// Whether the kernel has a level's entry, since the program put that back.
fn is_installed(number: c_int, level: usize) -> bool {
    let errno = SavedErrno::now();
    let found = signal::query(number);
    errno.restore();
    found.is_ok_and(|found| found.sa_sigaction == address(level))
}

/// The address of a level's entry, as an action has it.
fn address(level: usize) -> usize {
    ENTRIES.get(level).map_or(0, |entry| *entry as usize)
}

/// The level of a disposition that is an entry of ours.
fn level_of(action: &Action) -> Option<usize> {
    ENTRIES.iter().position(|entry| *entry as usize == action.sa_sigaction)
}

fn of(number: c_int) -> Result<&'static Signal> {
    match usize::try_from(number).ok().filter(|number| *number > 0) {
        Some(index) if index < END => match SIGNALS.get(index) {
            Some(signal) => Ok(signal),
            None => fail!(EINVAL, "{} is no signal", number),
        },
        _ => fail!(EINVAL, "{} is no signal", number),
    }
}

/// Counts a signal from now on, and keeps what comes with it if that is
/// wanted; rings for each.
pub(crate) fn subscribe(number: c_int, bell: Bell, with_infos: bool) -> Result<Subscription> {
    table::set_fork_hook(table::ForkHook::Signals, after_fork);
    let signal = of(number)?;
    let mut installed = LOCK.lock();
    let subscriber = subscriber::take(&signal.subscribers, number, bell, with_infos)?;
    let subscription = Subscription { number, subscriber };
    if let Err(error) = install(signal, number, &mut installed) {
        drop(installed);
        drop(subscription);
        return Err(error);
    }
    Ok(subscription)
}

/// Puts an entry of ours over what there is, if that is not one.
fn install(signal: &Signal, number: c_int, installed: &mut [bool; END]) -> Result<()> {
    let Some(installed) = installed.get_mut(number.unsigned_abs() as usize) else { return Ok(()) };
    let found = match signal::query(number) {
        Ok(found) => found,
        Err(_) => fail!(EINVAL, "signal {} cannot be watched", number),
    };
    if let Some(level) = level_of(&found) {
        // Where the program put an older one back, that counts now.
        signal.top.store(level, Ordering::Release);
        *installed = true;
        return Ok(());
    }
    let level = level_for(signal, &found, *installed);
    let Some(place) = signal.chained.get(level) else {
        fail!(EBUSY, "signal {} has {} handlers, one over the other", number, LEVELS as i64);
    };
    let Some(chained) = keep(&found) else {
        fail!(ENOMEM, "no memory for the handler of signal {}", number);
    };
    place.store(std::ptr::from_ref(chained).cast_mut(), Ordering::Release);
    let before = signal.top.swap(level, Ordering::AcqRel);
    match signal::set(number, &action::over(&found, number, address(level))) {
        Ok(old) if !action::is_same(&old, &found) => overtaken(place, number, &old, level),
        Ok(_) => {}
        Err(_) => {
            signal.top.store(before, Ordering::Release);
            fail!(EINVAL, "signal {} cannot be watched", number);
        }
    }
    *installed = true;
    Ok(())
}

/// Another thread put its handler where ours is now: that is what ours lies
/// over.
fn overtaken(place: &AtomicPtr<Chained>, number: c_int, old: &Action, level: usize) {
    if level_of(old).is_none()
        && let Some(chained) = keep(old)
    {
        place.store(std::ptr::from_ref(chained).cast_mut(), Ordering::Release);
        // As a moment ago, with other flags.
        let _ = signal::set(number, &action::over(old, number, address(level)));
    }
}

/// The level for an entry over a disposition: that which is over the same
/// already, or one that nobody can have found.
fn level_for(signal: &Signal, found: &Action, installed: bool) -> usize {
    let top = signal.top.load(Ordering::Relaxed);
    let is_over_it = |place: &AtomicPtr<Chained>| {
        // SAFETY: null, or a record that is never freed.
        let chained = unsafe { place.load(Ordering::Acquire).as_ref() };
        chained.is_some_and(|chained| action::is_same(&chained.action, found))
    };
    let known = signal.chained.iter().take(top + 1).position(is_over_it);
    known.unwrap_or(if installed { top + 1 } else { top })
}

impl Subscription {
    /// Puts our handler back over one that the program has put over it.
    pub fn renew(&self) -> Result<()> {
        let signal = of(self.number)?;
        let found = signal::query(self.number);
        let level = found.ok().and_then(|found| level_of(&found));
        if level == Some(signal.top.load(Ordering::Relaxed)) {
            return Ok(());
        }
        install(signal, self.number, &mut LOCK.lock())
    }
}

impl Drop for Subscription {
    /// The last one of a signal puts back what was there, if our handler is
    /// still in place.
    fn drop(&mut self) {
        let Ok(signal) = of(self.number) else { return };
        if !self.subscriber.is_ours() {
            // Of the process that this one was forked from.
            return;
        }
        let mut installed = LOCK.lock();
        self.subscriber.leave();
        if subscriber::any(&signal.subscribers) {
            return;
        }
        let Ok(found) = signal::query(self.number) else { return };
        let Some(level) = level_of(&found) else { return };
        // SAFETY: null, or a record that is never freed.
        let chained = signal
            .chained
            .get(level)
            .and_then(|place| unsafe { place.load(Ordering::Acquire).as_ref() });
        if let Some(chained) = chained
            && signal::set(self.number, &chained.action).is_ok()
            && let Some(installed) = installed.get_mut(self.number.unsigned_abs() as usize)
        {
            signal.top.store(level, Ordering::Release);
            *installed = false;
        }
    }
}

/// Whether a number can be that of a signal that is watched.
pub(crate) fn check(number: u64) -> Result<c_int> {
    match c_int::try_from(number) {
        Ok(number @ (libc::SIGKILL | libc::SIGSTOP)) => {
            fail!(EINVAL, "signal {} cannot be watched", number)
        }
        Ok(number) => of(number).map(|_| number),
        Err(_) => Err(crate::errno::error!(Errno::EINVAL, "{} is no signal", number as i64)),
    }
}
