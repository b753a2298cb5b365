//! Kqueues as the handle table has them: a queue, or a second handle of one.

use super::collect::Collect;
use super::event::*;
use super::fd_registry;
use super::queue::{Nature, Queue};
use super::source::aio::Request;
use crate::errno::{Errno, Result, error};
use crate::handle::{self, Kind, Object, Pinned, TableObject, try_box};
use crate::sync::{AtomicBool, AtomicI64, Ordering};
use crate::util::bug_or;
use crate::wait::{Listener, Waiters, Watchable};
use std::os::fd::RawFd;

pub(crate) enum Kqueue {
    Own(Box<Queue>),
    Alias(AliasHandle),
}

/// A second handle of a queue.
pub(crate) struct AliasHandle {
    queue: i64,
    fd: RawFd,
    /// Closing it closes the queue.
    owns: AtomicBool,
    keep: bool,
    pub(super) closed: AtomicBool,
    watchers: Waiters,
    /// How many threads wait by it; changed under the queue's lock.
    pub(super) waiting: AtomicI64,
}

/// A kqueue in use: the queue, and the handle it is used by.
pub(crate) struct Use {
    by: Pinned<Kqueue>,
    alias: Option<Pinned<Kqueue>>,
}

impl Kqueue {
    /// A new queue; its handle.
    pub fn create(nature: Nature) -> Result<i64> {
        Ok(Self::make(nature, false)?.0)
    }

    /// A new queue that is known by its descriptor, which the program closes.
    pub fn create_fd(nature: Nature) -> Result<RawFd> {
        Ok(Self::make(nature, true)?.1)
    }

    fn make(nature: Nature, is_the_programs: bool) -> Result<(i64, RawFd)> {
        fd_registry::sweep();
        let queue = fd_registry::with_descriptors(|| Queue::create(nature, fd_registry::pending))?;
        let fd = queue.fd();
        let handle = handle::insert(Self::Own(queue))?;
        let pin = handle::pin::<Self>(handle)?;
        if let Some(queue) = pin.queue() {
            queue.handle.store(handle, Ordering::Relaxed);
        }
        if let Err(error) = fd_registry::add(fd, handle, is_the_programs) {
            handle::close::<Self>(handle)?;
            return Err(error);
        }
        Ok((handle, fd))
    }

    /// A second handle for the queue behind a descriptor; with `owns`,
    /// closing it closes the queue.
    pub fn create_alias(fd: RawFd, owns: bool) -> Result<i64> {
        let pin = fd_registry::resolve(fd)?;
        let Some(queue) = pin.queue() else { return Err(Errno::EBADF.into()) };
        let alias = AliasHandle {
            queue: queue.handle.load(Ordering::Relaxed),
            fd,
            owns: AtomicBool::new(false),
            keep: queue.keep,
            closed: AtomicBool::new(false),
            watchers: Waiters::new(),
            waiting: AtomicI64::new(0),
        };
        let handle = handle::insert(Self::Alias(alias))?;
        if let Self::Alias(alias) = &*handle::pin::<Self>(handle)? {
            alias.owns.store(owns, Ordering::Relaxed);
        }
        Ok(handle)
    }

    /// Listeners that are notified when this handle is closed.
    fn watchers(&self) -> &Waiters {
        match self {
            Self::Own(queue) => &queue.watchers,
            Self::Alias(alias) => &alias.watchers,
        }
    }

    pub(super) fn queue(&self) -> Option<&Queue> {
        match self {
            Self::Own(queue) => Some(queue),
            Self::Alias(_) => None,
        }
    }
}

impl Use {
    #[inline(always)]
    pub fn of(handle: i64) -> Result<Self> {
        let by = handle::pin::<Kqueue>(handle)?;
        let alias = match &*by {
            Kqueue::Own(_) => None,
            Kqueue::Alias(alias) => Some(alias.queue()?),
        };
        Ok(Self { by, alias })
    }

    /// Of what a descriptor is.
    pub fn of_fd(fd: RawFd) -> Result<Self> {
        Ok(Self { by: fd_registry::resolve(fd)?, alias: None })
    }

    /// The queue, and the second handle that it is used by.
    #[inline(always)]
    fn parts(&self) -> Result<(&Queue, Option<&AliasHandle>)> {
        match (&*self.by, self.alias.as_deref()) {
            (Kqueue::Own(queue), _) => Ok((queue, None)),
            (Kqueue::Alias(alias), Some(Kqueue::Own(queue))) => Ok((queue, Some(alias))),
            // An alias is of a queue.
            (Kqueue::Alias(_), _) => bug_or!(Err(Errno::ESTALE.into())),
        }
    }

    /// See evloop_kqueue_aio_read.
    pub fn begin_operation(&self, request: Request, ident: u64, udata: u64) -> Result<()> {
        let (queue, by) = self.parts()?;
        queue.begin_operation(by, request, ident, udata)
    }

    /// See evloop_kqueue_aio_cancel.
    pub fn cancel_operation(&self, ident: u64) -> Result<()> {
        let (queue, by) = self.parts()?;
        queue.cancel_operation(by, ident)
    }

    /// Applies changes and waits for events, as evloop_kqueue_control() has
    /// it; how many entries were filled.
    #[inline(always)]
    pub fn control(
        &self,
        changes: &mut Changes,
        sink: &mut KeventSink,
        options: Collect,
    ) -> Result<usize> {
        let (queue, by) = self.parts()?;
        queue.control(by, changes, sink, options)
    }
}

impl AliasHandle {
    fn queue(&self) -> Result<Pinned<Kqueue>> {
        handle::pin(self.queue).map_err(|error| match error.errno {
            Errno::ESTALE => error!(Errno::EBADF, "the kqueue of fd {} was closed", self.fd),
            _ => error,
        })
    }

    fn closing(&self) {
        let Ok(pin) = handle::pin::<Kqueue>(self.queue) else { return };
        if let Some(queue) = pin.queue() {
            queue.wake_alias(self);
        }
    }
}

impl Drop for AliasHandle {
    fn drop(&mut self) {
        if self.owns.load(Ordering::Relaxed) {
            // It may be closed already, and that is all that is wanted.
            let _ = handle::close::<Kqueue>(self.queue);
        }
    }
}

impl Drop for Kqueue {
    fn drop(&mut self) {
        if let Self::Own(queue) = self {
            fd_registry::remove(queue.fd(), queue.handle.load(Ordering::Relaxed));
        }
    }
}

impl TableObject for Kqueue {
    fn closing(&self) {
        self.watchers().close();
        match self {
            Self::Own(queue) => queue.closing(),
            Self::Alias(alias) => alias.closing(),
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Own(queue) => queue.fd(),
            Self::Alias(alias) => alias.fd,
        }
    }

    fn survives_fork(&self) -> bool {
        match self {
            Self::Own(queue) => queue.keep && !queue.is_lost(),
            Self::Alias(alias) => alias.keep,
        }
    }

    fn after_fork(&self) {
        // SAFETY: the first call of a child: no other thread is in the
        // library.
        unsafe { self.watchers().after_fork() };
        match self {
            Self::Own(queue) => queue.after_fork(),
            Self::Alias(alias) => alias.waiting.store(0, Ordering::Relaxed),
        }
    }

    fn abandon(&self) {
        if let Self::Own(queue) = self {
            queue.abandon();
        }
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for Kqueue {
    const KIND: Kind = Kind::Kqueue;
}

impl Watchable for Pinned<Kqueue> {
    fn watch(&self, listener: Listener) -> Result<()> {
        self.watchers().watch(listener)
    }

    fn unwatch(&self, listener: Listener) {
        self.watchers().unwatch(listener);
    }

    /// Its events stay where they are.
    fn take(&self) -> Result<u64> {
        Ok(1)
    }
}

/// A kqueue, for an object that watches it.
pub(crate) fn watchable(handle: i64) -> Result<Box<dyn Watchable>> {
    match try_box(handle::pin::<Kqueue>(handle)?) {
        Some(kqueue) => Ok(kqueue),
        None => Err(Errno::ENOMEM.into()),
    }
}
