//! What a loop watches besides the program's descriptors: objects of the
//! library (timer file descriptors and kqueues), and descriptors that the
//! library has made for one watcher.
//!
//! Their descriptors lie in the loop's epoll as those of the program do; when
//! one is ready the loop asks what happened.
//!
//! Closing an object removes it from the kernel's set without an event. So the
//! loop keeps it from being freed, and is woken when it is closed.

use super::api::loops::wake_for_object;
use super::event::Event;
use super::flags::{ERROR, FINISHED, REAPS};
use super::node_list::{ListNode, NodeList};
use super::payload::EventPayload;
use super::slot::{self, WatcherSlot};
use super::state::LoopState;
use crate::errno::{Errno, Result, error, fail};
use crate::handle::{self, Kind};
use crate::sys::{epoll, fork};
use crate::util::alloc::TryMap;
use crate::wait::{Listener, Watchable};
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;

/// What a watcher watches. Dropped when the watcher is closed, after its
/// descriptor was taken out of the loop's epoll.
pub(crate) trait FdSource: Send {
    fn fd(&self) -> RawFd;

    /// What the program calls it: a handle, or a process id. Of memory
    /// pressure: what `pressure` can describe.
    fn subject(&self) -> i64 {
        0
    }

    /// What the descriptor is registered for.
    fn events(&self) -> u32 {
        libc::EPOLLIN as u32
    }

    /// It is about to be watched by this loop.
    fn begin(&mut self, _loop: i64) -> Result<()> {
        Ok(())
    }

    /// What happened, now that the descriptor is ready for that.
    fn poll(&mut self, ready: u32, event: &mut Event) -> Readiness;

    /// Of a loop whose descriptor others poll: what it became ready for, if
    /// that may have been taken from the loop.
    fn was_consumed(&mut self) -> Option<u32> {
        None
    }

    /// Called before its last event is delivered, and may change that; only if
    /// `poll` asked for it, see [`Readiness::Final`]. Returns the payload, if
    /// that has changed, too.
    fn deliver(&mut self, _event: &mut Event) -> Option<EventPayload> {
        None
    }

    /// Whether the program has closed the object. The close has woken the loop.
    fn is_closed(&self) -> bool {
        false
    }

    /// In a forked child. After an error that is a shortage this can be called
    /// again. Any other error is reported to the watcher, and this is dropped:
    /// it must not close its fd then, which may be another file by now.
    fn revive(&mut self) -> std::result::Result<(), Errno>;

    /// Of a loop whose memory has to stay: gives back its descriptor.
    fn abandon(&self);
}

/// Result of polling a source whose descriptor was ready.
pub(crate) enum Readiness {
    /// There is no event.
    NotReady,
    /// The event is to be delivered.
    Ready,
    /// The event is to be delivered, and is the last one: the descriptor is not
    /// needed any more. With the payload, for which an event has no room; and
    /// whether `deliver` is to be called when the event is delivered.
    Final(EventPayload, bool),
    /// What is watched is gone: this error is reported to the watcher, and the
    /// loop watches it no more.
    Lost(Errno),
}

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

/// What a watcher watches, and which watcher.
pub(super) struct AddedSource {
    pub index: u32,
    pub fd_source: Box<dyn FdSource>,
}

/// An object to be watched.
pub(super) fn object_source(object_ref: ObjectRef) -> Result<Box<dyn FdSource>> {
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

impl LoopState {
    /// Keeps what is watched with its watcher.
    pub fn insert_fd_source(&mut self, index: u32, fd_source: Box<dyn FdSource>) -> Result<()> {
        self.fd_sources.try_put(index, fd_source)?;
        Ok(())
    }

    /// The same, of one that another thread has added: without memory it stays
    /// in its node, until there is some.
    pub fn insert_fd_source_late(&mut self, node: Box<ListNode<AddedSource>>) {
        self.late_fd_sources.push(node);
        self.settle_fd_sources();
    }

    /// Tries again what there was no memory for.
    fn settle_fd_sources(&mut self) {
        while !self.late_fd_sources.is_empty() && self.fd_sources.try_reserve(1).is_ok() {
            let Some(AddedSource { index, fd_source }) = self.late_fd_sources.pop() else { return };
            self.fd_sources.insert_reserved(index, fd_source);
        }
    }

    /// Takes what a watcher watches away from it.
    pub fn take_fd_source(&mut self, index: u32) -> Option<Box<dyn FdSource>> {
        let mut found = self.fd_sources.remove(&index);
        if !self.late_fd_sources.is_empty() {
            let mut others = NodeList::new();
            while let Some(mut node) = self.late_fd_sources.take() {
                if node.value_mut().index == index {
                    found = Some(node.into_value().fd_source);
                } else {
                    others.push(node);
                }
            }
            self.late_fd_sources = others;
        }
        found
    }

    /// Reports an error to the watchers whose objects were closed. The loop was
    /// woken.
    pub fn check_fd_sources(&mut self) {
        self.settle_fd_sources();
        while let Some(index) = self.find_fd_source(|fd_source| fd_source.is_closed()) {
            self.fd_source_lost(index, Errno::ESTALE);
        }
    }

    fn find_fd_source(&self, is_it: impl Fn(&dyn FdSource) -> bool) -> Option<u32> {
        self.fd_sources.iter().find_map(|(index, fd_source)| is_it(&**fd_source).then_some(*index))
    }

    /// What a watcher watches is gone: reports this error to the watcher.
    fn fd_source_lost(&mut self, index: u32, errno: Errno) {
        if let Some(slot) = slot::get(index) {
            self.io_detach(index, slot);
            self.fail(slot.handle(Kind::Watcher, index), errno);
        }
        // Its descriptor is closed here.
        self.take_fd_source(index);
    }

    /// After a look that found so many events, where others poll the loop's
    /// descriptor: adds those that they have taken. How many there are then.
    #[cold]
    pub fn add_consumed(&mut self, found: usize) -> usize {
        let mut count = found;
        for (index, fd_source) in &mut self.fd_sources {
            let Some(slot) = slot::get(*index) else { continue };
            let word = slot.handle(Kind::Watcher, *index).cast_unsigned();
            let (events, rest) = self.events.split_at_mut(count.min(self.events.len()));
            // SAFETY: as many are filled in.
            let is_found = events.iter().any(|event| unsafe { event.assume_init() }.u64 == word);
            if let Some(out) = rest.first_mut().filter(|_| !is_found)
                && let Some(events) = fd_source.was_consumed()
            {
                out.write(epoll::Event { events, u64: word });
                count += 1;
            }
        }
        count
    }

    /// In a forked child; can be tried again.
    pub fn revive_fd_sources(&mut self) -> Result<()> {
        self.settle_fd_sources();
        if !self.late_fd_sources.is_empty() {
            fail!(ENOMEM, "no memory for what the loop watches");
        }
        let mut fd_sources = std::mem::take(&mut self.fd_sources);
        let mut result = Ok(());
        fd_sources.retain(|index, fd_source| match fd_source.revive() {
            Ok(()) => true,
            Err(errno) if errno.is_shortage() => {
                result = Err(errno.into());
                true
            }
            Err(errno) => {
                self.fd_source_lost(*index, errno);
                false
            }
        });
        self.fd_sources = fd_sources;
        self.check_fd_sources();
        result
    }

    /// The watcher is not reported any more, and has no descriptor.
    fn finish_fd_source(&mut self, index: u32, slot: &WatcherSlot, stays: bool) {
        slot.set(if stays { FINISHED | REAPS } else { FINISHED });
        self.io_detach(index, slot);
        // A thread that closes the watcher removes its fd from the kernel's
        // set, with this lock: it either has, or sees that there is nothing to
        // remove. From here on the fd can be used again.
        drop(self.shared.lock_commands());
        if !stays {
            self.take_fd_source(index);
        }
    }

    /// The last event of a watcher is about to be delivered.
    pub fn deliver_fd_source(&mut self, index: u32, slot: &WatcherSlot, event: &mut Event) {
        slot.unset(REAPS);
        if let Some(mut fd_source) = self.take_fd_source(index)
            && let Some(payload) = fd_source.deliver(event)
        {
            self.payloads.replace(event.reserved, payload);
        }
    }
}

/// Polls the source of a watcher; false: there is no event to deliver.
pub(super) fn poll_source(
    state: &mut LoopState,
    index: u32,
    slot: &WatcherSlot,
    ready: u32,
    event: &mut Event,
) -> bool {
    state.settle_fd_sources();
    let Some(fd_source) = state.fd_sources.get_mut(&index) else { return false };
    match fd_source.poll(ready, event) {
        Readiness::Ready => true,
        Readiness::Final(payload, reaps) => {
            event.reserved = state.payloads.add(event.watcher, payload);
            state.finish_fd_source(index, slot, reaps);
            true
        }
        Readiness::Lost(errno) => {
            state.io_detach(index, slot);
            // A thread that closes the watcher removes the fd from the kernel's
            // set, with this lock: it has, or sees that it need not.
            drop(state.shared.lock_commands());
            state.fd_source_lost(index, errno);
            false
        }
        Readiness::NotReady => {
            if fd_source.is_closed() {
                state.check_fd_sources();
            }
            false
        }
    }
}
