//! The threads that wait in an object with ppoll(2), and how they are woken.
//!
//! Each waiting thread adds an epoll of its own to what it polls, which others
//! make readable (see `wakeup`). It is made at the thread's first such
//! wait and closed when the thread ends, so an object needs no descriptor for
//! this. A thread that cannot have one (EMFILE) looks again every [`SLICE_NS`]
//! instead.
//!
//! When a wait begins, and after its epoll was readable, the thread asks the
//! kernel whether the fd still is that epoll, and so does the thread that
//! wakes it: the program may have closed it, and then another is made.

mod list;

use self::list::ListenerList;
use crate::errno::{Errno, Error, Result, error, fail};
use crate::sys::clock::Deadline;
use crate::sys::fd::Fd;
use crate::sys::kept::Identity;
use crate::sys::{epoll, eventfd, fork, interrupt, poll};
use crate::util::per_thread::PerThread;
use crate::util::try_box;
use crate::wakeup;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// How often a thread without an epoll looks for changes.
const SLICE_NS: i64 = 20_000_000;

/// The threads that wait in one object, and others that it notifies.
pub(crate) struct Waiters {
    list: ListenerList<Listener>,
}

/// A listener: what is woken when an object is changed.
#[derive(Clone, Copy)]
pub(crate) enum Listener {
    /// A thread, by its epoll.
    Thread(Identity),
    /// Something else with a number, which is handed to the function.
    Other(fn(i64), i64),
}

/// One wait in an object; dropping it removes the thread's listener.
pub(crate) struct WaitGuard<'a> {
    waiters: &'a Waiters,
    epoch: fork::Epoch,
    wakeup_by: ThreadWakeup,
    deadline: Deadline,
}

/// An object with a descriptor, kept from being freed, for who watches it.
pub(crate) trait Watchable: Send {
    /// Has a listener woken when the object is closed, until `unwatch`.
    fn watch(&self, listener: Listener) -> Result<()>;
    fn unwatch(&self, listener: Listener);
    /// Takes how many times it has happened; 0: not at all.
    fn take(&self) -> Result<u64>;
}

/// How a waiting thread is woken.
#[derive(Clone, Copy)]
enum ThreadWakeup {
    /// By its epoll, which is in the object's list.
    Epoll(Identity),
    /// It has no epoll yet. It looks without waiting first: the epoll could
    /// take the number of a descriptor that is registered but closed, and that
    /// would never be seen.
    Unregistered,
    /// Not at all: it does not wait, or cannot have an epoll.
    None,
}

/// This thread's epoll, and the process that made it: a forked child must not
/// touch its parent's.
static EPOLL: PerThread<ThreadEpoll> = PerThread::new();

/// A descriptor that is only closed in the process that made it.
struct ThreadEpoll {
    made_in: fork::Epoch,
    fd: Fd,
}

impl Drop for ThreadEpoll {
    fn drop(&mut self) {
        if self.made_in != fork::current() {
            self.fd.set_borrowed();
        }
    }
}

/// This thread's epoll, if it has one that is what it was.
fn own_epoll(epoch: fork::Epoch) -> Option<Identity> {
    let is_own = |own: &&ThreadEpoll| own.made_in == epoch && own.fd.is_intact();
    EPOLL.with(|own| own.filter(is_own).map(|own| own.fd.identity()))
}

/// Makes this thread's epoll; `None`: it cannot have one.
fn make_epoll(epoch: fork::Epoch) -> Option<Identity> {
    let fd = epoll::create().ok()?;
    wakeup::register(fd.raw(), eventfd::always_readable().ok()?.fd(), 0).ok()?;
    let identity = fd.identity();
    EPOLL.set(try_box(ThreadEpoll { made_in: epoch, fd })?).then_some(identity)
}

/// What the calling thread waits with, made if there is none.
pub(crate) fn own() -> Option<Identity> {
    let epoch = fork::current();
    own_epoll(epoch).or_else(|| make_epoll(epoch))
}

/// Makes a thread's epoll readable, if it is what it was.
fn wake_thread(thread: Identity) {
    if !thread.is_intact() {
        return;
    }
    let Ok(eventfd) = eventfd::always_readable() else { return };
    if wakeup::wake(thread.fd(), eventfd.fd(), 0).is_err()
        && wakeup::register(thread.fd(), eventfd.fd(), 0).is_ok()
    {
        // The eventfd that it knew was closed, and another one made.
        let _ = wakeup::wake(thread.fd(), eventfd.fd(), 0);
    }
}

/// Makes it unreadable.
fn clear(thread: Identity) {
    if thread.is_intact() {
        let _ = epoll::wait(thread.fd(), &mut [MaybeUninit::uninit()], Some(0));
    }
}

impl Listener {
    fn wake(self) {
        match self {
            Self::Thread(thread) => wake_thread(thread),
            Self::Other(wake, number) => wake(number),
        }
    }

    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Thread(one), Self::Thread(other)) => one == other,
            // Handles: no two of them have the same number.
            (Self::Other(_, one), Self::Other(_, other)) => one == other,
            _ => false,
        }
    }
}

/// Whether a descriptor is one that the library itself waits with: that of
/// the process, or the calling thread's. No object takes these.
pub(crate) fn is_own(fd: RawFd) -> bool {
    // The kernel is only asked if the fd is the same.
    let is_threads = |own: &ThreadEpoll| own.fd.is(fd) && own.made_in == fork::current();
    eventfd::is_always_readable(fd) || EPOLL.with(|own| own.is_some_and(is_threads))
}

/// Refuses such a descriptor.
pub(crate) fn refuse_own(fd: RawFd) -> Result<()> {
    if is_own(fd) { Err(refusal_of_own(fd)) } else { Ok(()) }
}

#[cold]
fn refusal_of_own(fd: RawFd) -> Error {
    error!(Errno::EINVAL, "fd {} is the library's own", fd)
}

impl Waiters {
    pub const fn new() -> Self {
        Self { list: ListenerList::new() }
    }

    /// Begins a wait: from here on changes are noticed. A caller looks at the
    /// object after this, never before.
    pub fn enter(&self, deadline: Deadline) -> WaitGuard<'_> {
        let epoch = fork::current();
        let wakeup_by = match deadline {
            Deadline::Now => ThreadWakeup::None,
            _ => {
                own_epoll(epoch).map_or(ThreadWakeup::Unregistered, |thread| self.enter_by(thread))
            }
        };
        WaitGuard { waiters: self, epoch, wakeup_by, deadline }
    }

    fn enter_by(&self, thread: Identity) -> ThreadWakeup {
        let added = self.list.add(Listener::Thread(thread));
        if added.is_ok() { ThreadWakeup::Epoll(thread) } else { ThreadWakeup::None }
    }

    /// Has a listener that is no waiting thread woken when the object is
    /// closed, until [`Self::unwatch`].
    pub fn watch(&self, listener: Listener) -> Result<()> {
        if self.list.add(listener).is_err() {
            fail!(ENOMEM, "no memory to watch the object");
        }
        if self.list.is_closed() {
            self.unwatch(listener);
            fail!(ESTALE, "the object is closed");
        }
        Ok(())
    }

    /// Undoes one [`Self::watch`].
    pub fn unwatch(&self, listener: Listener) {
        self.list.remove(|known| known.is_same(listener));
    }

    /// Makes all of them look again.
    pub fn wake(&self) {
        self.list.wake(Listener::wake);
    }

    /// Makes all of them, and those to come, return -ESTALE.
    pub fn close(&self) {
        self.list.close(Listener::wake);
    }

    /// For `Shared::after_fork`.
    ///
    /// # Safety
    /// As [`ForkMutex::remake`].
    ///
    /// [`ForkMutex::remake`]: crate::sync::ForkMutex::remake
    pub unsafe fn after_fork(&self) {
        // SAFETY: this function's contract is the same.
        unsafe { self.list.forget() };
    }
}

impl WaitGuard<'_> {
    /// Whether the object may still be waited in; to be asked before each
    /// look at it, and after user code ran.
    pub fn check(&self) -> Result<()> {
        if fork::current() != self.epoch {
            fail!(ECHILD, "the process forked during the wait, and this is the child");
        }
        if self.waiters.list.is_closed() {
            fail!(ESTALE, "the object was closed during the wait");
        }
        Ok(())
    }

    /// Waits for an event, a change of the object or the end of the time;
    /// `fds` has one entry more than there are descriptors, at its end, for
    /// the thread's epoll. How many of the others have `revents`.
    ///
    /// An interruption ends it like a change. It may end early: the caller
    /// loops until it has something, or [`Self::is_over`].
    pub fn poll(&mut self, fds: &mut [libc::pollfd]) -> Result<usize> {
        let left = self.deadline.left_ns();
        let slice = Some(left.map_or(SLICE_NS, |left| left.min(SLICE_NS)));
        let (own, timeout) = match self.wakeup_by {
            ThreadWakeup::Epoll(thread) => (thread.fd(), left),
            ThreadWakeup::Unregistered => (-1, Some(0)),
            ThreadWakeup::None => (-1, slice),
        };
        if let Some(last) = fds.last_mut() {
            *last = poll::entry(own, libc::POLLIN as u32);
        }
        let mut result = poll::ppoll(fds, timeout);
        if let (Err(Errno::EINVAL), Some((_, others))) = (result, fds.split_last_mut()) {
            // Perhaps one more than RLIMIT_NOFILE allows: do without ours.
            result = poll::ppoll(others, slice);
        }
        if let (ThreadWakeup::Unregistered, Ok(0)) = (self.wakeup_by, result) {
            let made = make_epoll(self.epoch);
            self.wakeup_by =
                made.map_or(ThreadWakeup::None, |thread| self.waiters.enter_by(thread));
        }
        let ready = match result {
            Ok(ready) => ready,
            Err(Errno::EINTR) => {
                interrupted()?;
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        match fds.last() {
            Some(last) if last.revents != 0 => {
                self.was_woken();
                Ok(ready.saturating_sub(1))
            }
            _ => Ok(ready),
        }
    }

    /// The thread's epoll is readable, or another file by now.
    fn was_woken(&mut self) {
        let ThreadWakeup::Epoll(thread) = self.wakeup_by else { return };
        if own_epoll(self.epoch) == Some(thread) {
            clear(thread);
        } else {
            self.leave();
        }
    }

    /// Takes the epoll out of the object's list.
    fn leave(&mut self) {
        let ThreadWakeup::Epoll(thread) = self.wakeup_by else { return };
        self.wakeup_by = ThreadWakeup::Unregistered;
        self.waiters.unwatch(Listener::Thread(thread));
    }

    /// Whether the time is out.
    pub fn is_over(&self) -> bool {
        self.deadline.passed()
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        // In a child that this wait came back in the list is not ours.
        if fork::current() == self.epoch {
            self.leave();
        }
    }
}

/// Waits a little before the caller looks again, so that it does not spin:
/// only events are ready that it can neither deliver nor remove.
/// `interrupted`: what EINTR means.
pub(crate) fn pause(deadline: Deadline, interrupted: impl FnOnce() -> Result<()>) -> Result<()> {
    const PAUSE_NS: i64 = 10_000_000;
    let left = deadline.left_ns().map_or(PAUSE_NS, |left| left.min(PAUSE_NS));
    match poll::ppoll(&mut [], Some(left)) {
        Err(Errno::EINTR) => interrupted(),
        _ => Ok(()),
    }
}

/// After EINTR, with no lock held: `Ok` to go on waiting.
pub(crate) fn interrupted() -> Result<()> {
    interrupt::resume()
        .map_err(|errno| Error::new(errno, "a signal handler interrupted the wait", &[]))
}
