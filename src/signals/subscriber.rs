//! Those who count a signal.

use super::infos::{Info, Infos};
use crate::errno::{Result, fail};
use crate::sync::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sys::signal;
use crate::sys::{SavedErrno, fork};
use crate::table::try_box;
use std::ffi::c_int;

/// How many of what came with a standard signal are kept: the last one
/// counts, and others are put at the same time. And how many real-time
/// signals wait to be taken.
const STANDARD: usize = 16;
pub(crate) const QUEUED: usize = 512;

/// How a subscriber is told that something is there, by a handler: a number
/// of its own is handed to the function; one below 0 is not.
#[derive(Clone, Copy)]
pub(crate) struct Bell {
    pub ring: fn(i64),
    pub number: i64,
}

/// A record in a signal's list; never freed, as a handler may be looking at
/// it, but used again.
pub(super) struct Subscriber {
    /// The process that it is of; 0: of nobody.
    epoch: AtomicU64,
    count: AtomicU64,
    /// Real-time signals that there was no room for.
    lost: AtomicU64,
    ring: AtomicPtr<()>,
    number: AtomicI64,
    /// Where what came with the signals is put, if that is wanted; and what
    /// was made for that once.
    infos: AtomicPtr<Infos>,
    made: AtomicPtr<Infos>,
    /// Handlers that are at it.
    busy: AtomicU32,
    next: *const Self,
}

// SAFETY: atomics, and a pointer that never changes to what is never freed.
unsafe impl Sync for Subscriber {}

/// In a handler: counts a signal for everybody. `alone`: no other handler can
/// interrupt it.
pub(super) fn tell(first: &AtomicPtr<Subscriber>, info: Option<&Info>, alone: bool) {
    let errno = SavedErrno::now();
    // Another handler might not come back (longjmp), and nobody must wait
    // for `busy` then.
    let before = if alone { None } else { Some(signal::block(signal::ALL)) };
    let epoch = fork::current();
    each(first, |one| {
        one.tell(epoch, info);
        true
    });
    if let Some(before) = before {
        signal::block(before);
    }
    errno.restore();
}

/// Whether each of these is an event of its own.
pub(crate) fn is_real_time(number: c_int) -> bool {
    number >= 32
}

/// Looks at all, until that is false.
fn each(first: &AtomicPtr<Subscriber>, mut look: impl FnMut(&'static Subscriber) -> bool) {
    // Acquire: they were filled in before they were put there.
    let mut at = first.load(Ordering::Acquire).cast_const();
    // SAFETY: null, or a record that is never freed.
    while let Some(one) = unsafe { at.as_ref() } {
        if !look(one) {
            return;
        }
        at = one.next;
    }
}

/// Whether there are any of this process.
pub(super) fn any(first: &AtomicPtr<Subscriber>) -> bool {
    let mut found = false;
    each(first, |one| {
        found = one.is_ours();
        !found
    });
    found
}

/// In a forked child: handlers that were at work are the parent's.
pub(super) fn after_fork(first: &AtomicPtr<Subscriber>) {
    each(first, |one| {
        one.busy.store(0, Ordering::Relaxed);
        true
    });
}

/// A record for a new one; under the lock of the module.
pub(super) fn take(
    first: &AtomicPtr<Subscriber>,
    number: c_int,
    bell: Bell,
    with_infos: bool,
) -> Result<&'static Subscriber> {
    let mut free = None;
    each(first, |one| {
        free = (!one.is_ours()).then_some(one);
        free.is_none()
    });
    let one = match free {
        Some(one) => one,
        None => {
            let next = first.load(Ordering::Relaxed);
            let Some(fresh) = try_box(Subscriber::new(next)) else {
                fail!(ENOMEM, "no memory to watch signal {}", number);
            };
            let fresh = Box::leak(fresh);
            // Release: who finds it finds it filled in.
            first.store(fresh, Ordering::Release);
            &*fresh
        }
    };
    let infos = if with_infos { one.infos(number)? } else { std::ptr::null_mut() };
    one.infos.store(infos, Ordering::Relaxed);
    one.count.store(0, Ordering::Relaxed);
    one.lost.store(0, Ordering::Relaxed);
    one.ring.store(bell.ring as *mut (), Ordering::Relaxed);
    one.number.store(bell.number, Ordering::Relaxed);
    // Release: a handler that counts it sees the rest.
    one.epoch.store(fork::current(), Ordering::Release);
    Ok(one)
}

impl Subscriber {
    fn new(next: *const Self) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            count: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            ring: AtomicPtr::new(std::ptr::null_mut()),
            number: AtomicI64::new(-1),
            infos: AtomicPtr::new(std::ptr::null_mut()),
            made: AtomicPtr::new(std::ptr::null_mut()),
            busy: AtomicU32::new(0),
            next,
        }
    }

    /// Whether it is of this process: not what a forked child inherited.
    pub fn is_ours(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == fork::current()
    }

    /// Room for what comes with this signal; under the lock of the module,
    /// while it is nobody's.
    fn infos(&self, number: c_int) -> Result<*mut Infos> {
        let made = self.made.load(Ordering::Relaxed);
        // SAFETY: null, or what is never freed.
        if let Some(infos) = unsafe { made.as_ref() } {
            infos.clear();
            return Ok(made);
        }
        let room = if is_real_time(number) { QUEUED } else { STANDARD };
        let fresh = Box::into_raw(Infos::new(room)?);
        self.made.store(fresh, Ordering::Relaxed);
        Ok(fresh)
    }

    /// In a handler.
    fn tell(&self, epoch: fork::Epoch, info: Option<&Info>) {
        if self.epoch.load(Ordering::Acquire) != epoch {
            return;
        }
        // SeqCst, here and in `leave`: either this sees that it is nobody's,
        // or the other one that a handler is at it.
        self.busy.fetch_add(1, Ordering::SeqCst);
        if self.epoch.load(Ordering::SeqCst) == epoch {
            self.put(info);
            // Release: who was rung sees it.
            self.count.fetch_add(1, Ordering::Release);
            self.ring();
        }
        self.busy.fetch_sub(1, Ordering::Release);
    }

    fn put(&self, info: Option<&Info>) {
        // SAFETY: null, or what is never freed.
        let infos = unsafe { self.infos.load(Ordering::Relaxed).as_ref() };
        let Some((infos, info)) = infos.zip(info) else { return };
        if infos.put(info) {
            return;
        }
        if is_real_time(info.si_signo) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            // The last one counts.
            let _ = infos.take();
            infos.put(info);
        }
    }

    fn ring(&self) {
        let number = self.number.load(Ordering::SeqCst);
        let ring = self.ring.load(Ordering::Relaxed);
        if number >= 0 && !ring.is_null() {
            // SAFETY: a function of this type, which `take` stored.
            let ring = unsafe { std::mem::transmute::<*mut (), fn(i64)>(ring) };
            ring(number);
        }
    }

    /// It is nobody's from now on, and no handler will ring what is
    /// about to be closed.
    pub fn leave(&self) {
        self.epoch.store(0, Ordering::SeqCst);
        // One write of a handler in another thread that nothing interrupts.
        while self.busy.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}

/// Somebody's count of a signal.
pub(crate) struct Subscription {
    pub(super) number: c_int,
    pub(super) subscriber: &'static Subscriber,
}

impl Subscription {
    /// The count, which begins anew.
    pub fn take(&self) -> u64 {
        self.subscriber.count.swap(0, Ordering::Acquire)
    }

    pub fn has_count(&self) -> bool {
        self.subscriber.count.load(Ordering::Acquire) != 0
    }

    /// What is rung from now on has this number; -1: nothing is.
    pub fn set_bell(&self, number: i64) {
        self.subscriber.number.store(number, Ordering::SeqCst);
    }

    /// What came with the next signal that was not taken yet.
    pub fn next(&self) -> Option<Info> {
        // SAFETY: null, or what is never freed.
        unsafe { self.subscriber.infos.load(Ordering::Relaxed).as_ref() }?.take()
    }

    /// How many real-time signals there was no room for, which begins anew.
    pub fn take_lost(&self) -> u64 {
        self.subscriber.lost.swap(0, Ordering::Relaxed)
    }
}
