//! Who waits in an object with ppoll(2), and how to make them look again.
//!
//! Each waiting thread adds its own eventfd to what it polls. It is made at
//! the thread's first such wait and closed when the thread ends, so an object
//! needs no descriptor for this. A thread that cannot have one (EMFILE)
//! looks again every [`SLICE_NS`] instead.

mod list;

use self::list::List;
use crate::errno::{Errno, Error, Result, fail};
use crate::sys::clock::Deadline;
use crate::sys::fd::Fd;
use crate::sys::{eventfd, file, fork, interrupt, poll};
use crate::util::alloc::NoMemory;
use crate::util::per_thread::PerThread;
use crate::util::try_box;
use std::os::fd::RawFd;

/// How often a thread without an eventfd looks for changes.
const SLICE_NS: i64 = 20_000_000;

/// The threads that wait in one object.
pub(crate) struct Waiters {
    list: List,
}

/// One wait in an object.
pub(crate) struct Visit<'a> {
    waiters: &'a Waiters,
    epoch: fork::Epoch,
    bell: Bell,
    deadline: Deadline,
}

/// An object with a descriptor, kept from being freed, for who watches it.
pub(crate) trait Watchable: Send {
    /// Has an eventfd rung when the object is closed, until `unwatch`.
    fn watch(&self, eventfd: RawFd) -> Result<()>;
    fn unwatch(&self, eventfd: RawFd);
    /// Takes how many times it has happened; 0: not at all.
    fn take(&self) -> Result<u64>;
}

/// How a waiting thread is told of changes.
#[derive(Clone, Copy)]
enum Bell {
    /// By its eventfd, which is in the object's list.
    Eventfd(RawFd),
    /// It has no eventfd yet. It looks without waiting first: the eventfd
    /// could take the number of a descriptor that is registered but closed,
    /// and that would never be seen.
    NotYet,
    /// Not at all: it does not wait, or cannot have an eventfd.
    None,
}

/// This thread's eventfd, and the process that made it: a forked child must
/// not read its parent's.
static EVENTFD: PerThread<Own> = PerThread::new();

/// A descriptor that is only closed in the process that made it: a forked
/// child that has closed all descriptors may use the number for another.
struct Own {
    made_in: fork::Epoch,
    fd: Fd,
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.made_in != fork::current() {
            self.fd.disown();
        }
    }
}

/// This thread's eventfd, if it has one.
fn own_eventfd(epoch: fork::Epoch) -> Option<RawFd> {
    EVENTFD.with(|own| own.filter(|own| own.made_in == epoch).map(|own| own.fd.raw()))
}

/// Makes this thread's eventfd; `None`: it cannot have one.
fn make_eventfd(epoch: fork::Epoch) -> Option<RawFd> {
    let fd = eventfd::create(0).ok()?;
    let raw = fd.raw();
    EVENTFD.set(try_box(Own { made_in: epoch, fd })?).then_some(raw)
}

/// Somebody closed this thread's eventfd: there is none any more.
fn forget_eventfd() {
    if let Some(own) = EVENTFD.take() {
        own.fd.disown();
    }
}

/// Whether a descriptor is one that the library itself waits with: that of
/// the process, or the calling thread's. No object takes these.
pub(crate) fn is_own(fd: RawFd) -> bool {
    let epoch = fork::current();
    let is_known = eventfd::is_always_readable(epoch, fd) || own_eventfd(epoch) == Some(fd);
    // The program may have closed it, and opened a file at its number.
    is_known && file::is_anonymous(fd)
}

/// Refuses such a descriptor.
pub(crate) fn refuse_own(fd: RawFd) -> Result<()> {
    if is_own(fd) { fail!(EINVAL, "fd {} is the library's own", fd) } else { Ok(()) }
}

impl Waiters {
    pub const fn new() -> Self {
        Self { list: List::new() }
    }

    /// Begins a wait: from here on changes are noticed. A caller looks at the
    /// object after this, never before.
    pub fn enter(&self, deadline: Deadline) -> Visit<'_> {
        let epoch = fork::current();
        let bell = match (deadline, own_eventfd(epoch)) {
            (Deadline::Now, _) => Bell::None,
            (_, Some(eventfd)) => self.add(eventfd),
            (_, None) => Bell::NotYet,
        };
        Visit { waiters: self, epoch, bell, deadline }
    }

    fn add(&self, eventfd: RawFd) -> Bell {
        match self.list.add(eventfd) {
            Ok(()) => Bell::Eventfd(eventfd),
            Err(NoMemory) => Bell::None,
        }
    }

    /// Has an eventfd that is not a waiting thread's rung when the object is
    /// closed, until [`Self::unwatch`].
    pub fn watch(&self, eventfd: RawFd) -> Result<()> {
        if self.list.add(eventfd).is_err() {
            fail!(ENOMEM, "no memory to watch the object");
        }
        if self.list.is_closed() {
            self.unwatch(eventfd);
            fail!(ESTALE, "the object is closed");
        }
        Ok(())
    }

    /// Undoes one [`Self::watch`].
    pub fn unwatch(&self, eventfd: RawFd) {
        self.list.remove(eventfd);
    }

    /// Makes all of them look again.
    pub fn wake(&self) {
        self.list.wake(eventfd::signal);
    }

    /// Makes all of them, and those to come, return -ESTALE.
    pub fn close(&self) {
        self.list.close(eventfd::signal);
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

impl Visit<'_> {
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
    /// the thread's eventfd. How many of the others have `revents`.
    ///
    /// An interruption ends it like a change. It may end early: the caller
    /// loops until it has something, or [`Self::is_over`].
    pub fn poll(&mut self, fds: &mut [libc::pollfd]) -> Result<usize> {
        let left = self.deadline.left_ns();
        let slice = Some(left.map_or(SLICE_NS, |left| left.min(SLICE_NS)));
        let (eventfd, timeout) = match self.bell {
            Bell::Eventfd(eventfd) => (eventfd, left),
            Bell::NotYet => (-1, Some(0)),
            Bell::None => (-1, slice),
        };
        if let Some(last) = fds.last_mut() {
            *last = poll::entry(eventfd, libc::POLLIN as u32);
        }
        let mut result = poll::ppoll(fds, timeout);
        if let (Err(Errno::EINVAL), Some((_, others))) = (result, fds.split_last_mut()) {
            // Perhaps one more than RLIMIT_NOFILE allows: do without ours.
            result = poll::ppoll(others, slice);
        }
        if let (Bell::NotYet, Ok(0)) = (self.bell, result) {
            let made = make_eventfd(self.epoch);
            self.bell = made.map_or(Bell::None, |eventfd| self.waiters.add(eventfd));
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
                if poll::revents(last) & libc::POLLNVAL as u32 == 0 {
                    eventfd::clear(eventfd);
                } else {
                    forget_eventfd();
                    self.leave();
                }
                Ok(ready.saturating_sub(1))
            }
            _ => Ok(ready),
        }
    }

    /// Takes the eventfd out of the object's list.
    fn leave(&mut self) {
        let Bell::Eventfd(eventfd) = self.bell else { return };
        self.bell = Bell::NotYet;
        self.waiters.unwatch(eventfd);
    }

    /// Whether the time is out.
    pub fn is_over(&self) -> bool {
        self.deadline.passed()
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // In a child that this wait came back in the list is not ours.
        if fork::current() == self.epoch {
            self.leave();
        }
    }
}

/// Only what nobody here can remove is ready: look again a little later
/// rather than again and again. `interrupted`: what EINTR means.
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
