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
use super::pending_work::PendingWork;
use super::sinks::Sinks;
use crate::errno::Result;
use crate::hash::Map;
use crate::sync::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, ForkMutex, MutexGuard, Ordering::*};
use crate::sys::kept::Identity;
use crate::sys::{SavedErrno, fork, thread};
use crate::table;
use crate::wakeup::Wakeup;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Condvar, PoisonError};

/// How many clocks timers can have.
pub(super) const CLOCKS: usize = 5;

/// A loop's state for other threads.
pub(super) struct Desk {
    /// The next one of all there are.
    pub next: AtomicPtr<Desk>,
    pub lease: Lease<Core, Gate>,
    /// The process whose loop it is.
    pub epoch: AtomicU64,
    pub attention: PendingWork,
    pub mail: Mailbox<Post>,
    /// Taken after the gate's lock, if with that.
    pub files: ForkMutex<FileState>,
    /// The same.
    pub sinks: ForkMutex<Sinks>,
    /// The loop's handle; 0: closed.
    pub handle: AtomicI64,
    /// [`POISONED`] and [`LOST`].
    pub state: AtomicU32,
    /// 1 while the thread that runs it waits, and does not touch the core.
    pub waiting: AtomicU32,
    /// Virtual time, or [`REAL_TIME`].
    pub virtual_now: AtomicI64,
    /// The time of this iteration, or [`UNKNOWN`].
    pub time: AtomicI64,
    /// How many posted calls the loop has taken, and not made.
    pub posts: AtomicU32,
    /// How many failures are to be reported, or at least one.
    pub failures: AtomicU32,
    /// The flags that it was made with.
    pub options: AtomicU32,
    /// The tolerance of timers that are added without one; ns.
    pub timer_tolerance: AtomicI64,
    /// How its epoll polls network devices, see `BusyPoll::pack`.
    pub busy_poll: AtomicU64,
    /// How many times its virtual time is held.
    pub holds: AtomicI64,
    /// The priorities of watchers that have one, by handle; for threads that
    /// do not run the loop. No other lock is taken with it.
    pub priorities: ForkMutex<Map<i64, i32>>,
    /// The clocks whose timer exists, as bits.
    pub clocks: AtomicU32,
    /// How many watchers are open: those that the loop's own thread counts,
    /// with plain loads and stores, and what others changed about it.
    pub watchers: AtomicI64,
    pub others: AtomicI64,
    /// How it is woken from its wait.
    wakeup: Wakeup,
    pub own: OwnFds,
    /// What the loop is at, while somebody watches it.
    pub published: Published,
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
    /// How many watchers were closed for which there was no room in there;
    /// they are marked.
    pub unlisted: u32,
    /// Bits of the clocks whose timerfds are in there.
    pub clocks: u32,
    /// Records for the watchers that others add.
    pub reserve: Vec<u32>,
    /// The kernel's set; only changed under the lock.
    pub epoll: RawFd,
    /// By handle.
    pub names: Map<i64, Box<[u8]>>,
    /// How many times somebody asked for the current callback's end, and up
    /// to which of them the loop has answered.
    pub asked: u64,
    pub answered: u64,
    /// For those who look inside.
    pub stats: Option<Kept>,
    pub trace: Option<Trace>,
    /// One is about to be there: its file is being opened.
    pub trace_begins: bool,
    pub watchdog: Option<Watchdog>,
}

impl Desk {
    pub fn new() -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            lease: Lease::new(),
            epoch: AtomicU64::new(0),
            attention: PendingWork::new(),
            mail: Mailbox::new(),
            files: ForkMutex::new(FileState::default()),
            sinks: ForkMutex::new(Sinks::default()),
            handle: AtomicI64::new(0),
            state: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            virtual_now: AtomicI64::new(REAL_TIME),
            time: AtomicI64::new(UNKNOWN),
            posts: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            options: AtomicU32::new(0),
            timer_tolerance: AtomicI64::new(0),
            busy_poll: AtomicU64::new(0),
            holds: AtomicI64::new(0),
            priorities: ForkMutex::new(Map::default()),
            clocks: AtomicU32::new(0),
            watchers: AtomicI64::new(0),
            others: AtomicI64::new(0),
            wakeup: Wakeup::new(),
            own: OwnFds::new(),
            published: Published::new(),
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
            None => table::stale(self.handle.load(Relaxed)),
        }
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
        if gate.answered != gate.asked {
            gate.answered = gate.asked;
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
        gate.asked += 1;
        let ticket = gate.asked;
        let wake = self.mail.leave(self, self.handle(), mailbox::ASKED);
        self.attention.set();
        drop(wake);
        let epoch = fork::current();
        while gate.answered < ticket && fork::current() == epoch {
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
        let mend = |gate: Option<&mut Locked<Gate>>| match gate {
            Some(gate) => {
                if gate.running && !forked_in_callback {
                    // Between two waits its state was anything.
                    lost = !waited;
                    gate.running = false;
                    gate.answered = gate.asked;
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
