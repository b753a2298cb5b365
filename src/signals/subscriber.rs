//! Those who count a signal.

use crate::sync::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sys::signal;
use crate::sys::{SavedErrno, eventfd, fork};
use crate::table::try_box;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// A record in a signal's list; never freed, as a handler may be looking at
/// it, but used again.
pub(super) struct Subscriber {
    /// The process that it is of; 0: of nobody.
    epoch: AtomicU64,
    count: AtomicU64,
    eventfd: AtomicI32,
    /// Handlers that are at it.
    busy: AtomicU32,
    next: *const Self,
}

// SAFETY: atomics, and a pointer that never changes to what is never freed.
unsafe impl Sync for Subscriber {}
// SAFETY: as above.
unsafe impl Send for Subscriber {}

/// In a handler: counts a signal for everybody.
pub(super) fn tell(first: &AtomicPtr<Subscriber>) {
    let errno = SavedErrno::now();
    // Another handler might not come back (longjmp), and nobody must wait
    // for `busy` then.
    let before = signal::block(signal::ALL);
    let epoch = fork::current();
    each(first, |one| {
        one.tell(epoch);
        true
    });
    signal::block(before);
    errno.restore();
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

/// A record for a new one; under the lock of the module.
pub(super) fn take(first: &AtomicPtr<Subscriber>, eventfd: RawFd) -> Option<&'static Subscriber> {
    let mut free = None;
    each(first, |one| {
        free = (!one.is_ours()).then_some(one);
        free.is_none()
    });
    let one = match free {
        Some(one) => one,
        None => {
            let next = first.load(Ordering::Relaxed);
            let fresh = Box::leak(try_box(Subscriber::new(next))?);
            // Release: who finds it finds it filled in.
            first.store(fresh, Ordering::Release);
            &*fresh
        }
    };
    if one.epoch.load(Ordering::Relaxed) != 0 {
        // Of the parent of this forked child: its handlers are not here.
        one.busy.store(0, Ordering::Relaxed);
    }
    one.count.store(0, Ordering::Relaxed);
    one.eventfd.store(eventfd, Ordering::Relaxed);
    // Release: a handler that counts it sees the rest.
    one.epoch.store(fork::current(), Ordering::Release);
    Some(one)
}

impl Subscriber {
    fn new(next: *const Self) -> Self {
        Self {
            epoch: AtomicU64::new(0),
            count: AtomicU64::new(0),
            eventfd: AtomicI32::new(-1),
            busy: AtomicU32::new(0),
            next,
        }
    }

    /// Whether it is of this process: not what a forked child inherited.
    pub fn is_ours(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == fork::current()
    }

    /// In a handler.
    fn tell(&self, epoch: fork::Epoch) {
        if self.epoch.load(Ordering::Acquire) != epoch {
            return;
        }
        // SeqCst, here and in `leave`: either this sees that it is nobody's,
        // or the other one that a handler is at it.
        self.busy.fetch_add(1, Ordering::SeqCst);
        if self.epoch.load(Ordering::SeqCst) == epoch {
            // Release: who was rung sees it.
            self.count.fetch_add(1, Ordering::Release);
            let eventfd = self.eventfd.load(Ordering::SeqCst);
            if eventfd >= 0 {
                eventfd::signal(eventfd);
            }
        }
        self.busy.fetch_sub(1, Ordering::Release);
    }

    /// It is nobody's from now on, and no handler will ring its eventfd,
    /// which is about to be closed.
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

    /// What to ring from now on; -1: nothing.
    pub fn set_eventfd(&self, eventfd: RawFd) {
        self.subscriber.eventfd.store(eventfd, Ordering::SeqCst);
    }
}
