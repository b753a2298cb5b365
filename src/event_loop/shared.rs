//! A loop as other threads see it: what stays when the loop is gone.
//!
//! A loop's shared part is never freed, only used again, so it can be looked at
//! through a stale handle. Behind it is the loop itself, its state; `ownership`
//! says which thread may use that.

use super::clock_ids;
use super::command::{CommandQueue, Post};
use super::file_state::FileState;
use super::own_fds::OwnFds;
use super::own_words::INTERNAL;
use super::ownership::{Locked, LoopOwner};
use super::pending_work::PendingWork;
use super::sinks::Sinks;
use super::telemetry::{ActivityCell, NAME, WatchedLoop, short_name};
use super::wake_state::{self, Wake, WakeState, Waker};
use crate::hash::Map;
use crate::sync::{
    AtomicI64, AtomicPtr, AtomicU32, AtomicU64, ForkMutex, LineBreak, MutexGuard, Ordering::*,
};
use crate::sys::kept::Identity;
use crate::sys::{SavedErrno, fork, thread};
use crate::wakeup::Wakeup;
use std::ffi::c_char;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Condvar, PoisonError};

/// A loop's state, of which the shared part knows only where it is. `state` has
/// its type. No owner of one drops it: shared parts are never freed.
pub(super) enum OpaqueState {}

/// A loop's state for other threads.
///
/// Laid out by who writes, in groups that share no cache line: what one thread
/// writes all the time does not take from another what that one only reads.
/// Aligned, so that two loops share no line either.
#[repr(C, align(128))]
pub(super) struct LoopShared {
    // Written when a loop is opened, closed or revived, or hardly more often,
    // and read by every call.
    /// The loop's handle; 0: closed.
    pub handle: AtomicI64,
    /// The process whose loop it is.
    pub epoch: AtomicU64,
    /// The next one of all there are.
    pub next: AtomicPtr<LoopShared>,
    /// Virtual time, or [`REAL_TIME`].
    pub virtual_now: AtomicI64,
    /// [`POISONED`] and [`LOST`].
    pub damage: AtomicU32,
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
    pub wake_state: WakeState<Post>,
    /// How it is woken from its wait.
    wakeup: Wakeup,

    // Written by the loop's thread, in each iteration.
    _of_loop: LineBreak,
    pub pending_work: PendingWork,
    /// 1 while the thread that runs it waits, and does not touch the state.
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
    /// What the loop is doing, while telemetry needs to know.
    pub activity: ActivityCell,

    // Written where a run begins or ends, and by those who take a lock.
    _locked: LineBreak,
    pub owner: LoopOwner<OpaqueState, CommandQueue>,
    /// Taken after the command queue's lock, if with that.
    pub files: ForkMutex<FileState>,
    /// The same.
    pub sinks: ForkMutex<Sinks>,
    /// The priorities of watchers that have one, by handle; for threads that
    /// do not run the loop. No other lock is taken with it.
    pub priorities: ForkMutex<Map<i64, i32>>,
    pub others: AtomicI64,
    pub own: OwnFds,
    barrier_done: Condvar,
}

/// A panic left the loop's state unknown.
pub(super) const POISONED: u32 = 1;
/// As a fork in the middle of something did.
const LOST: u32 = 2;
pub(super) const REAL_TIME: i64 = i64::MIN;
pub(super) const UNKNOWN: i64 = i64::MIN;

impl LoopShared {
    pub fn new() -> Self {
        Self {
            handle: AtomicI64::new(0),
            epoch: AtomicU64::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            virtual_now: AtomicI64::new(REAL_TIME),
            damage: AtomicU32::new(0),
            clocks: AtomicU32::new(0),
            options: AtomicU32::new(0),
            timer_tolerance: AtomicI64::new(0),
            busy_poll: AtomicU64::new(0),
            holds: AtomicI64::new(0),
            _senders: LineBreak,
            wake_state: WakeState::new(),
            wakeup: Wakeup::new(),
            _of_loop: LineBreak,
            pending_work: PendingWork::new(),
            waiting: AtomicU32::new(0),
            time: AtomicI64::new(UNKNOWN),
            posts: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            watchers: AtomicI64::new(0),
            activity: ActivityCell::new(),
            _locked: LineBreak,
            owner: LoopOwner::new(),
            files: ForkMutex::new(FileState::default()),
            sinks: ForkMutex::new(Sinks::default()),
            priorities: ForkMutex::new(Map::default()),
            others: AtomicI64::new(0),
            own: OwnFds::new(),
            barrier_done: Condvar::new(),
        }
    }

    /// Whether this thread runs the loop.
    #[inline(always)]
    pub fn is_mine(&self) -> bool {
        self.owner.is_run_by(thread::current()) && self.epoch.load(Relaxed) == fork::current()
    }

    /// The same, if one comparison shows it; for the fast paths.
    #[inline(always)]
    pub fn is_mine_fast(&self) -> bool {
        self.owner.is_run_by(thread::current()) && fork::is_current_fast(self.epoch.load(Relaxed))
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
    pub fn has_commands(&self) -> bool {
        self.wake_state.peek() & wake_state::HAS_COMMANDS != 0
    }

    /// The time of a clock, or virtual time.
    pub fn now(&self, clock: usize) -> i64 {
        match self.virtual_now.load(Relaxed) {
            REAL_TIME => clock_ids::read(clock),
            now => now,
        }
    }

    #[inline(always)]
    pub fn handle(&self) -> i64 {
        self.handle.load(Relaxed)
    }

    pub fn lock_commands(&self) -> MutexGuard<'_, Locked<CommandQueue>> {
        self.owner.lock()
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
    pub fn wake(&self) -> bool {
        let errno_before = SavedErrno::now();
        let woken = self.wakeup.wake(INTERNAL).is_ok();
        errno_before.restore();
        if !woken {
            self.wake_state.wake_failed();
        }
        woken
    }

    /// Has the loop woken in this epoll from now on, by this eventfd in it; no
    /// thread is waking it in another one any more.
    pub fn wake_in(&self, epoll: Identity, eventfd: RawFd) {
        self.wakeup.aim(epoll, eventfd);
    }

    /// No thread wakes it any more: its descriptors can be closed.
    pub fn disable_wakeups(&self) {
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

    /// Wakes the threads that wait for the end of the current callback.
    /// Notifying a condition that no thread waits for is a system call, too.
    pub fn complete_barrier(&self, command_queue: &mut CommandQueue) {
        if command_queue.barrier.complete() {
            self.barrier_done.notify_all();
        }
    }

    /// Whether it is a loop of the parent process that this one has not
    /// revived.
    pub fn is_inherited(&self) -> bool {
        self.epoch.load(Relaxed) != fork::current()
    }

    /// Says that there is something in the command queue, whose lock is held.
    /// What is returned wakes the loop: it is dropped when the lock was given
    /// back.
    pub fn set_has_commands(&self) -> Option<Wake<'_, Self>> {
        self.wake_state.set_pending(self, self.handle(), wake_state::HAS_COMMANDS)
    }

    /// Waits until the callback that is running, if any, has returned.
    pub fn wait_for_callback(
        &'static self,
        mut command_queue: MutexGuard<'static, Locked<CommandQueue>>,
    ) {
        let number = command_queue.barrier.request();
        let wake = self.wake_state.set_pending(self, self.handle(), wake_state::BARRIER);
        self.pending_work.set();
        drop(wake);
        let epoch = fork::current();
        while !command_queue.barrier.is_completed(number) && fork::current() == epoch {
            command_queue =
                self.barrier_done.wait(command_queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Waker for LoopShared {
    #[inline(always)]
    fn wake_loop(&self) -> bool {
        self.wake()
    }
}

impl WatchedLoop for LoopShared {
    fn activity(&self) -> &ActivityCell {
        &self.activity
    }

    fn name_of(&self, handle: i64, watcher: i64) -> [c_char; NAME] {
        let command_queue = self.lock_commands();
        // The shared part may be another loop's by now.
        let ours = self.wake_state.loop_handle() == handle;
        let name = command_queue.names.get(&watcher).filter(|_| ours);
        short_name(name.map(|name| &**name).unwrap_or_default())
    }
}

impl LoopShared {
    pub fn after_fork(&self) {
        self.wakeup.after_fork();
        let forked_in_callback = self.owner.is_run_by(thread::current());
        let waited = self.waiting.swap(0, Relaxed) != 0;
        let mut lost = false;
        // The threads that asked for the end of a callback are not here.
        self.wake_state.take(wake_state::BARRIER);
        let mend = |command_queue: Option<&mut Locked<CommandQueue>>| match command_queue {
            Some(command_queue) => {
                command_queue.barrier.complete();
                if command_queue.running && !forked_in_callback {
                    // Between two waits its state was anything.
                    lost = !waited;
                    command_queue.running = false;
                }
                None
            }
            None => {
                lost = true;
                Some(Locked::default())
            }
        };
        // SAFETY: the first call of a child: no other thread is in the library.
        unsafe { self.owner.recover(mend) };
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
            self.damage.fetch_or(LOST, Relaxed);
        }
        if !forked_in_callback {
            self.owner.revoke();
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
                lines(
                    offset_of!(LoopShared, $first),
                    offset_of!(LoopShared, $last),
                    size_of::<$of_last>(),
                )
            };
        }
        let groups = [
            group!(handle, holds: AtomicI64),
            group!(wake_state, wakeup: Wakeup),
            group!(pending_work, activity: ActivityCell),
            group!(owner, barrier_done: Condvar),
        ];
        assert!(groups.iter().take(3).all(|lines| lines.start() == lines.end()), "{groups:?}");
        assert!(groups.windows(2).all(|two| two[0].end() < two[1].start()), "{groups:?}");
        assert_eq!((size_of::<LoopShared>() % LINE, align_of::<LoopShared>() % LINE), (0, 0));
    }

    #[test]
    fn every_field_is_in_the_group_of_those_who_write_it() {
        let line = |offset: usize| offset / LINE;
        let read_mostly = [
            offset_of!(LoopShared, handle),
            offset_of!(LoopShared, epoch),
            offset_of!(LoopShared, next),
            offset_of!(LoopShared, virtual_now),
            offset_of!(LoopShared, damage),
            offset_of!(LoopShared, clocks),
            offset_of!(LoopShared, options),
            offset_of!(LoopShared, timer_tolerance),
            offset_of!(LoopShared, busy_poll),
            offset_of!(LoopShared, holds),
        ];
        let senders = [offset_of!(LoopShared, wake_state), offset_of!(LoopShared, wakeup)];
        let of_loop = [
            offset_of!(LoopShared, pending_work),
            offset_of!(LoopShared, waiting),
            offset_of!(LoopShared, time),
            offset_of!(LoopShared, posts),
            offset_of!(LoopShared, failures),
            offset_of!(LoopShared, watchers),
            offset_of!(LoopShared, activity),
        ];
        assert!(read_mostly.into_iter().all(|offset| line(offset) == 0));
        assert!(senders.into_iter().all(|offset| line(offset) == 1));
        assert!(of_loop.into_iter().all(|offset| line(offset) == 2));
        let locked = [
            offset_of!(LoopShared, owner),
            offset_of!(LoopShared, files),
            offset_of!(LoopShared, sinks),
            offset_of!(LoopShared, priorities),
            offset_of!(LoopShared, others),
            offset_of!(LoopShared, own),
            offset_of!(LoopShared, barrier_done),
        ];
        assert!(locked.into_iter().all(|offset| line(offset) >= 3));
    }
}
