//! Objects of the library that a loop watches: timer file descriptors and
//! kqueues.
//!
//! Closing an object removes it from the kernel's set without an event. So the
//! loop keeps it from being freed, and is woken when it is closed.

use crate::errno::{Errno, Result, error};
use crate::event_loop::event::Event;
use crate::event_loop::fd_source::{FdSource, Readiness};
use crate::event_loop::flags::ERROR;
use crate::event_loop::resolve::wake_for_object;
use crate::handle;
use crate::sys::fork;
use crate::wait::{Listener, Watchable};
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;

/// An object of the library, by its handle.
#[derive(Clone, Copy)]
pub(crate) struct ObjectRef {
    pub handle: i64,
    /// Its descriptor.
    pub fd: RawFd,
    /// Keeps it from being freed.
    pub pin: fn(i64) -> Result<Box<dyn Watchable>>,
}

/// One that is watched. While it is pinned it is not freed, and closing it
/// wakes the loop.
struct ObjectSource {
    object_ref: ObjectRef,
    pinned: Option<ObjectPin>,
}

/// An object that is pinned, the loop that is woken when it is closed, and the
/// process in which that happens.
struct ObjectPin {
    object: Box<dyn Watchable>,
    of_loop: i64,
    epoch: fork::Epoch,
}

impl ObjectPin {
    /// In a forked child, where all pins are forgotten: frees its memory, and
    /// nothing else.
    fn forget(self) {
        let object = Box::into_raw(self.object) as *mut ManuallyDrop<dyn Watchable>;
        // SAFETY: of a box, with the same layout; what is in it is not dropped.
        drop(unsafe { Box::from_raw(object) });
    }
}

/// An object to be watched.
pub(in crate::event_loop) fn object_source(object_ref: ObjectRef) -> Result<Box<dyn FdSource>> {
    match handle::try_box(ObjectSource { object_ref, pinned: None }) {
        Some(object) => Ok(object),
        None => Err(error!(Errno::ENOMEM, "no memory to watch handle {}", object_ref.handle)),
    }
}

impl FdSource for ObjectSource {
    fn fd(&self) -> RawFd {
        self.object_ref.fd
    }

    fn subject(&self) -> i64 {
        self.object_ref.handle
    }

    fn begin(&mut self, of_loop: i64) -> Result<()> {
        let object = (self.object_ref.pin)(self.object_ref.handle)?;
        object.watch(Listener::Other(wake_for_object, of_loop))?;
        self.pinned = Some(ObjectPin { object, of_loop, epoch: fork::current() });
        Ok(())
    }

    fn poll(&mut self, _ready: u32, event: &mut Event) -> Readiness {
        let Some(ObjectPin { object, .. }) = &self.pinned else { return Readiness::NotReady };
        match object.take() {
            Ok(0) => return Readiness::NotReady,
            Ok(count) => event.count = count,
            // The object is closed: `poll_source` asks for that.
            Err(error) if error.errno == Errno::ESTALE => return Readiness::NotReady,
            Err(error) => {
                event.events = ERROR;
                event.result = error.errno.negated();
            }
        }
        Readiness::Ready
    }

    fn is_closed(&self) -> bool {
        handle::kind_of_quietly(self.object_ref.handle).is_none()
    }

    fn revive(&mut self) -> std::result::Result<(), Errno> {
        // It may have been done by an attempt that failed later.
        let inherited = |pin: &mut ObjectPin| pin.epoch != fork::current();
        let Some(before) = self.pinned.take_if(inherited) else { return Ok(()) };
        match self.begin(before.of_loop) {
            Ok(()) => before.forget(),
            Err(error) => {
                self.pinned = Some(before);
                return if error.errno.is_shortage() { Err(error.errno) } else { Ok(()) };
            }
        }
        Ok(())
    }

    fn abandon(&self) {}
}

impl Drop for ObjectSource {
    fn drop(&mut self) {
        if let Some(ObjectPin { object, of_loop, .. }) = &self.pinned {
            object.unwatch(Listener::Other(wake_for_object, *of_loop));
        }
    }
}
