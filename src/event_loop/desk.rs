//! A loop as other threads see it: what stays when the loop is gone.
//!
//! A desk is never freed, only used again, so it can be looked at through a
//! stale handle. Behind it is the loop itself, a [`Core`]; `lease` says whose
//! that is.

use super::command::{Command, Post};
use super::core::{Core, INTERNAL};
use super::files::FileState;
use super::inside::{Kept, Published, Trace, Watchdog};
use super::lease::{Lease, Locked};
use super::mailbox::{self, Mailbox, Wake, Waker};
use super::own_fds::OwnFds;
use super::pending_work::{PendingWork, Requests};
use super::place::Place;
use super::sinks::Sinks;
use crate::errno::Result;
use crate::handle;
use crate::hash::Map;
use crate::sync::{
    AtomicI64, AtomicPtr, AtomicU32, AtomicU64, ForkMutex, LineBreak, MutexGuard, Ordering::*,
};
use crate::sys::kept::Identity;
use crate::sys::{SavedErrno, fork, thread};
use crate::wakeup::Wakeup;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Condvar, PoisonError};

/// How many clocks timers can have.
pub(super) const CLOCKS: usize = 5;

/// A loop's state for other threads.
///
/// Laid out by who writes, in groups that share no cache line: what one thread
/// writes all the time does not take from another what that one only reads.
/// Aligned, so that two loops share no line either.
#[repr(C, align(128))]
pub(super) struct Desk {
    // Written when a loop is opened, closed or revived, or hardly more often,
    // and read by every call.
    /// The loop's handle; 0: closed.
    pub handle: AtomicI64,
    /// The process whose loop it is.
    pub epoch: AtomicU64,
    /// The next one of all there are.
    pub next: AtomicPtr<Desk>,
    /// Virtual time, or [`REAL_TIME`].
    pub virtual_now: AtomicI64,
    /// [`POISONED`] and [`LOST`].
    pub state: AtomicU32,
    /// The clocks whose timer exists, as bits.
    pub clocks: AtomicU32,
    /// The flags that it was made with.
    pub options: AtomicU32,
    /// The tolerance of timers that are added without one; ns.
    pub timer_tolerance: AtomicI64,
    /// How its epoll polls network devices, see `BusyPoll::pack`.
    pub busy_poll: AtomicU64,
    /// How many times its virtual time is held.
    pub holds: AtomicI64,

    // Written by those who send.
    _senders: LineBreak,
    pub mail: Mailbox<Post>,
    /// How it is woken from its wait.
    wakeup: Wakeup,

    // Written by the loop's thread, in each iteration.
    _of_loop: LineBreak,
    pub attention: PendingWork,
    /// 1 while the thread that runs it waits, and does not touch the core.
    pub waiting: AtomicU32,
    /// The time of this iteration, or [`UNKNOWN`].
    pub time: AtomicI64,
    /// How many posted calls the loop has taken, and not made.
    pub posts: AtomicU32,
    /// How many failures are to be reported, or at least one.
    pub failures: AtomicU32,
    /// How many watchers are open: those that the loop's own thread counts,
    /// with plain loads and stores; and in `others` what others changed about
    /// it.
    pub watchers: AtomicI64,
    /// What the loop is at, while somebody watches it.
    pub published: Published,

    // Written where a run begins or ends, and by those who take a lock.
    _at_gate: LineBreak,
    pub lease: Lease<Core, Gate>,
    /// Taken after the gate's lock, if with that.
    pub files: ForkMutex<FileState>,
    /// The same.
    pub sinks: ForkMutex<Sinks>,
    /// The priorities of watchers that have one, by handle; for threads that
    /// do not run the loop. No other lock is taken with it.
    pub priorities: ForkMutex<Map<i64, i32>>,
    pub others: AtomicI64,
    pub own: OwnFds,
    answered: Condvar,
}

/// A panic left the core in an unknown state.
pub(super) const POISONED: u32 = 1;
/// As a fork in the middle of something did.
const LOST: u32 = 2;
pub(super) const REAL_TIME: i64 = i64::MIN;
pub(super) const UNKNOWN: i64 = i64::MIN;

/// What other threads leave for the loop, and what may be used by both.
#[derive(Default)]
pub(super) struct Gate {
    pub inbox: Vec<Command>,
    /// Watchers were closed for which there was no room in there: they are
    /// marked.
    pub unlisted: bool,
    /// Bits of the clocks whose timerfds are in there.
    pub clocks: u32,
    /// Records for the watchers that others add.
    pub reserve: Vec<u32>,
    /// The kernel's set; only changed under the lock.
    pub epoll: RawFd,
    /// By handle.
    pub names: Map<i64, Box<[u8]>>,
    /// For the end of the current callback.
    pub requests: Requests,
    /// For those who look inside.
    pub stats: Option<Kept>,
    pub trace: Option<Trace>,
    /// One is about to be there: its file is being opened.
    pub trace_begins: bool,
    pub watchdog: Option<Watchdog>,
}

impl Gate {
    /// Whether other threads have left anything for the loop.
    #[inline(always)]
    pub fn has_commands(&self) -> bool {
        !self.inbox.is_empty() || self.unlisted
    }
}

impl Desk {
    pub fn new() -> Self {
        Self {
            handle: AtomicI64::new(0),
            epoch: AtomicU64::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            virtual_now: AtomicI64::new(REAL_TIME),
            state: AtomicU32::new(0),
            clocks: AtomicU32::new(0),
            options: AtomicU32::new(0),
            timer_tolerance: AtomicI64::new(0),
            busy_poll: AtomicU64::new(0),
            holds: AtomicI64::new(0),
            _senders: LineBreak,
            mail: Mailbox::new(),
            wakeup: Wakeup::new(),
            _of_loop: LineBreak,
            attention: PendingWork::new(),
            waiting: AtomicU32::new(0),
            time: AtomicI64::new(UNKNOWN),
            posts: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            watchers: AtomicI64::new(0),
            published: Published::new(),
            _at_gate: LineBreak,
            lease: Lease::new(),
            files: ForkMutex::new(FileState::default()),
            sinks: ForkMutex::new(Sinks::default()),
            priorities: ForkMutex::new(Map::default()),
            others: AtomicI64::new(0),
            own: OwnFds::new(),
            answered: Condvar::new(),
        }
    }

    /// Whether this thread runs the loop.
    #[inline(always)]
    pub fn is_mine(&self) -> bool {
        self.lease.is_run_by(thread::current()) && self.epoch.load(Relaxed) == fork::current()
    }

    /// The same, if one look tells; for the quick ways.
    #[inline(always)]
    pub fn is_surely_mine(&self) -> bool {
        self.lease.is_run_by(thread::current()) && fork::is_surely(self.epoch.load(Relaxed))
    }

    /// Whether its loop is open, and this process's.
    #[inline(always)]
    pub fn is_usable(&self) -> bool {
        self.handle() != 0 && self.epoch.load(Relaxed) == fork::current()
    }

    pub fn is_virtual(&self) -> bool {
        self.virtual_now.load(Relaxed) != REAL_TIME
    }

    /// Whether others have left something that comes before what is done now.
    #[inline(always)]
    pub fn has_inbox(&self) -> bool {
        self.mail.peek() & mailbox::INBOX != 0
    }

    /// Borrows the loop itself.
    ///
    /// # Safety
    /// As [`Lease::with`].
    #[inline(always)]
    pub unsafe fn with_core<R>(&self, act: impl FnOnce(&mut Core) -> R) -> Result<R> {
        // SAFETY: this function's contract is the same.
        match unsafe { self.lease.with(act) } {
            Some(result) => Ok(result),
            None => handle::stale(self.handle.load(Relaxed)),
        }
    }

    /// What has to do with how a loop begins and ends.
    #[inline(always)]
    pub fn place(&self) -> Place<'_, Core, Gate, Post> {
        let Self { handle, lease, mail, attention, .. } = self;
        Place { handle, lease, mail, attention }
    }

    #[inline(always)]
    pub fn handle(&self) -> i64 {
        self.handle.load(Relaxed)
    }

    pub fn gate(&self) -> MutexGuard<'_, Locked<Gate>> {
        self.lease.lock()
    }

    /// Adds to the number of open watchers; for who may change the loop.
    #[inline(always)]
    pub fn count(&self, change: i64) {
        self.watchers.store(self.watchers.load(Relaxed) + change, Relaxed);
    }

    /// The same, for others.
    pub fn count_from_outside(&self, change: i64) {
        self.others.fetch_add(change, Relaxed);
    }

    pub fn open_watchers(&self) -> i64 {
        self.watchers.load(Relaxed) + self.others.load(Relaxed)
    }

    /// Wakes the loop; false: its descriptors were closed. A signal handler
    /// may do this.
    pub fn ring(&self) -> bool {
        let errno_before = SavedErrno::now();
        let woken = self.wakeup.wake(INTERNAL).is_ok();
        errno_before.restore();
        if !woken {
            self.mail.not_rung();
        }
        woken
    }

    /// Has the loop woken in this epoll from now on, by this eventfd in it; no
    /// thread is waking it in another one any more.
    pub fn wake_in(&self, epoll: Identity, eventfd: RawFd) {
        self.wakeup.aim(epoll, eventfd);
    }

    /// No thread wakes it any more: its descriptors can be closed.
    pub fn silence(&self) {
        self.wakeup.stop();
    }

    /// The loop has lost its epoll: whatever wakes it fails.
    pub fn lose_epoll(&self) {
        self.wakeup.lose();
    }

    /// Whether the loop's epoll is what it was, as far as that is known: see
    /// `sys::kept`.
    #[inline]
    pub fn has_epoll(&self) -> bool {
        self.wakeup.is_intact()
    }

    /// Answers those who wait for the end of the current callback. Notifying a
    /// condition that no thread waits for is a system call, too.
    pub fn answer(&self, gate: &mut Gate) {
        if gate.requests.answer() {
            self.answered.notify_all();
        }
    }

    /// Whether it is a loop of the parent process, that nobody revived.
    pub fn is_inherited(&self) -> bool {
        self.epoch.load(Relaxed) != fork::current()
    }

    /// Says that there is something at the gate, whose lock is held. What is
    /// returned wakes the loop: it is dropped when the lock was given back.
    pub fn leave_work(&self) -> Option<Wake<'_, Self>> {
        self.mail.leave(self, self.handle(), mailbox::INBOX)
    }

    /// Waits until the callback that is running, if any, has returned.
    pub fn await_callback(&'static self, mut gate: MutexGuard<'static, Locked<Gate>>) {
        let number = gate.requests.ask();
        let wake = self.mail.leave(self, self.handle(), mailbox::ASKED);
        self.attention.set();
        drop(wake);
        let epoch = fork::current();
        while !gate.requests.is_answered(number) && fork::current() == epoch {
            gate = self.answered.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Waker for Desk {
    #[inline(always)]
    fn wake_loop(&self) -> bool {
        self.ring()
    }
}

impl Desk {
    pub fn after_fork(&self) {
        self.wakeup.after_fork();
        let forked_in_callback = self.lease.is_run_by(thread::current());
        let waited = self.waiting.swap(0, Relaxed) != 0;
        let mut lost = false;
        // The threads that asked for the end of a callback are not here.
        self.mail.take(mailbox::ASKED);
        let mend = |gate: Option<&mut Locked<Gate>>| match gate {
            Some(gate) => {
                gate.requests.answer();
                if gate.running && !forked_in_callback {
                    // Between two waits its state was anything.
                    lost = !waited;
                    gate.running = false;
                }
                None
            }
            None => {
                lost = true;
                Some(Locked::default())
            }
        };
        // SAFETY: the first call of a child: nobody else is in the library.
        unsafe { self.lease.recover(mend) };
        let mend = |files: Option<&mut FileState>| {
            // A thread was changing them.
            lost |= files.is_none();
            files.is_none().then(FileState::default)
        };
        // SAFETY: as above.
        unsafe { self.files.recover(mend) };
        let mend = |priorities: Option<&mut Map<i64, i32>>| match priorities {
            Some(_) => None,
            None => Some(Map::default()),
        };
        // SAFETY: as above.
        unsafe { self.priorities.recover(mend) };
        let mend = |sinks: Option<&mut Sinks>| {
            lost |= sinks.is_none();
            sinks.is_none().then(Sinks::default)
        };
        // SAFETY: as above.
        unsafe { self.sinks.recover(mend) };
        // SAFETY: as above.
        unsafe { self.own.after_fork() };
        if lost {
            self.state.fetch_or(LOST, Relaxed);
        }
        if !forked_in_callback {
            self.lease.withdraw();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    const LINE: usize = 128;

    /// The lines from one field's first byte to another's last.
    fn lines(from: usize, to: usize, size: usize) -> std::ops::RangeInclusive<usize> {
        from / LINE..=(to + size - 1) / LINE
    }

    #[test]
    fn what_different_threads_write_shares_no_cache_line() {
        macro_rules! group {
            ($first:ident, $last:ident: $of_last:ty) => {
                lines(offset_of!(Desk, $first), offset_of!(Desk, $last), size_of::<$of_last>())
            };
        }
        let groups = [
            group!(handle, holds: AtomicI64),
            group!(mail, wakeup: Wakeup),
            group!(attention, published: Published),
            group!(lease, answered: Condvar),
        ];
        assert!(groups.iter().take(3).all(|lines| lines.start() == lines.end()), "{groups:?}");
        assert!(groups.windows(2).all(|two| two[0].end() < two[1].start()), "{groups:?}");
        assert_eq!((size_of::<Desk>() % LINE, align_of::<Desk>() % LINE), (0, 0));
        assert_eq!((size_of::<Core>() % LINE, align_of::<Core>() % LINE), (0, 0));
    }

    #[test]
    fn every_field_is_in_the_group_of_those_who_write_it() {
        let line = |offset: usize| offset / LINE;
        let read_mostly = [
            offset_of!(Desk, handle),
            offset_of!(Desk, epoch),
            offset_of!(Desk, next),
            offset_of!(Desk, virtual_now),
            offset_of!(Desk, state),
            offset_of!(Desk, clocks),
            offset_of!(Desk, options),
            offset_of!(Desk, timer_tolerance),
            offset_of!(Desk, busy_poll),
            offset_of!(Desk, holds),
        ];
        let senders = [offset_of!(Desk, mail), offset_of!(Desk, wakeup)];
        let of_loop = [
            offset_of!(Desk, attention),
            offset_of!(Desk, waiting),
            offset_of!(Desk, time),
            offset_of!(Desk, posts),
            offset_of!(Desk, failures),
            offset_of!(Desk, watchers),
            offset_of!(Desk, published),
        ];
        assert!(read_mostly.into_iter().all(|offset| line(offset) == 0));
        assert!(senders.into_iter().all(|offset| line(offset) == 1));
        assert!(of_loop.into_iter().all(|offset| line(offset) == 2));
        let at_gate = [
            offset_of!(Desk, lease),
            offset_of!(Desk, files),
            offset_of!(Desk, sinks),
            offset_of!(Desk, priorities),
            offset_of!(Desk, others),
            offset_of!(Desk, own),
            offset_of!(Desk, answered),
        ];
        assert!(at_gate.into_iter().all(|offset| line(offset) >= 3));
    }
}
