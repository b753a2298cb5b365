//! /dev/poll objects: the meanings of Solaris' device, on a poll set.
//!
//! Waits poll the set, because only poll(2) has the device's meanings: a
//! registration belongs to the descriptor and not to its file, and a closed
//! descriptor is reported. The epoll set that stands in for the device's
//! descriptor is made when the caller asks for it, and only its readiness is
//! used.

use super::Ready;
use super::fdlist::FdList;
use super::fdmap::FdEntry;
use super::poll::PollSet;
use crate::errno::{Errno, Result, error, fail};
use crate::handle::{Kind, Object, TableObject};
use crate::sync::Mutex;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::kept::{Identity, SharedIdentity};
use crate::util::Out;
use crate::wait::refuse_own;
use crate::wakeup::Alarm;
use std::os::fd::RawFd;
use std::sync::PoisonError;

/// A /dev/poll object.
pub(crate) struct DevPoll {
    set: PollSet,
    /// Locked for every change, so that both halves agree.
    mirror: Mutex<Option<Mirror>>,
    /// The mirror's descriptor; for `abandon`, which cannot lock.
    fileno: SharedIdentity,
}

/// The epoll set whose descriptor is readable while the object is ready.
struct Mirror {
    epoll: Fd,
    /// On while `always` is not empty.
    alarm: Alarm,
    /// Registrations that epoll cannot watch, because they are always ready
    /// (regular files) or not open (reported as such).
    always: FdList,
}

/// What makes a descriptor that epoll refuses ready in poll(2).
const READY_FILE: u32 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM) as u32;

impl DevPoll {
    pub fn new() -> Self {
        Self {
            set: PollSet::new(),
            mirror: Mutex::new(None),
            fileno: SharedIdentity::of(Identity::none()),
        }
    }

    pub fn fileno(&self) -> Result<RawFd> {
        let mut slot = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mirror) = slot.as_ref() {
            return Ok(mirror.epoll.raw());
        }
        let mut mirror = Mirror::new()?;
        let mut result = Ok(());
        self.set.for_each(|fd, entry| {
            if result.is_ok() {
                result = mirror.set(fd, Some(entry.events));
            }
        });
        result?;
        let epoll = &slot.insert(mirror).epoll;
        self.fileno.set(epoll.identity());
        Ok(epoll.raw())
    }

    /// Adds to what is registered.
    pub fn register(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        refuse_own(fd)?;
        self.change(fd, |old| {
            let events = events | old.map_or(0, |old| old.events);
            Some(FdEntry { events, tag: 0, data })
        })
    }

    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        refuse_own(fd)?;
        self.change(fd, |_| Some(FdEntry { events, tag: 0, data }))
    }

    pub fn unregister(&self, fd: RawFd) -> Result<()> {
        self.change(fd, |_| None)
    }

    fn change(
        &self,
        fd: RawFd,
        change: impl FnOnce(Option<FdEntry>) -> Option<FdEntry>,
    ) -> Result<()> {
        let mut mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut old, mut new) = (None, None);
        self.set.update(fd, |registered| {
            old = registered;
            new = change(registered);
            Ok(new)
        })?;
        let Some(mirror) = mirror.as_mut() else { return Ok(()) };
        mirror.set(fd, new.map(|entry| entry.events)).inspect_err(|_| {
            // Back to what it was; that much memory is there.
            let _ = self.set.update(fd, |_| Ok(old));
        })
    }

    /// Waits; what is ready is in `out` then, which was empty.
    pub fn wait(&self, out: &mut Out<Ready>, timeout_ns: i64) -> Result<()> {
        self.set.wait(out, timeout_ns)
    }
}

impl Mirror {
    fn new() -> Result<Self> {
        let epoll = epoll::create()?;
        let alarm = Alarm::shared(epoll.raw(), 0)?;
        Ok(Self { epoll, alarm, always: FdList::new() })
    }

    /// Watches a descriptor for these events, or no more.
    fn set(&mut self, fd: RawFd, events: Option<u32>) -> Result<()> {
        let Some(epoll) = self.epoll.check() else {
            fail!(EBADF, "the program closed the object's fd {}", self.epoll.raw())
        };
        let was_always = self.always.remove(fd);
        match events {
            // A descriptor that is not known or not open needs no removal.
            None => drop(epoll::delete(epoll, fd)),
            Some(events) => match watch(epoll, fd, events) {
                Ok(()) => {}
                Err(Errno::EPERM) if events & READY_FILE == 0 => {}
                Err(Errno::EPERM | Errno::EBADF) => self.always.insert(fd)?,
                Err(errno) => {
                    if was_always {
                        self.always.insert(fd)?;
                    }
                    return Err(match errno {
                        Errno::EINVAL => error!(errno, "fd {} would wait for itself", fd),
                        Errno::ELOOP => {
                            error!(errno, "fd {} would nest in a circle, too deep or too often", fd)
                        }
                        _ => errno.into(),
                    });
                }
            },
        }
        Ok(self.alarm.set(epoll, !self.always.is_empty(), 0)?)
    }
}

/// Registered or not: the number may have been reused since.
fn watch(epoll: RawFd, fd: RawFd, events: u32) -> std::result::Result<(), Errno> {
    let events = events & !(libc::POLLNVAL as u32);
    match epoll::modify(epoll, fd, events, 0) {
        Err(Errno::ENOENT) => epoll::add(epoll, fd, events, 0),
        result => result,
    }
}

impl TableObject for DevPoll {
    fn closing(&self) {
        self.set.closing();
    }

    fn survives_fork(&self) -> bool {
        false
    }

    fn abandon(&self) {
        // The lock may be held by a thread that the fork left behind.
        let fileno = self.fileno.get();
        if fileno.is_intact() {
            drop(Fd::owned(fileno.fd()));
        }
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for DevPoll {
    const KIND: Kind = Kind::DevPoll;
}
