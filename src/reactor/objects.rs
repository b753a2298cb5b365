//! What a loop watches besides the program's descriptors: objects of the
//! library (timer file descriptors and kqueues), and descriptors that the
//! library has made for one watcher.
//!
//! Their descriptors lie in the loop's epoll as those of the program do; when
//! one is ready the loop asks what happened.
//!
//! Closing an object removes it from the kernel's set without a word. So the
//! loop keeps it from being freed, and is rung when it is closed.

use super::api::ring_objects;
use super::core::Core;
use super::details::Content;
use super::event::Event;
use super::flags::{ERROR, OVER, REAPS};
use super::record::{self, Record};
use crate::errno::{Errno, Result, error};
use crate::table::{self, Kind};
use crate::waiters::{Listener, Watchable};
use std::os::fd::RawFd;

/// What a watcher watches. Dropped when the watcher is closed, after its
/// descriptor was taken out of the loop's epoll.
pub(crate) trait Watched {
    fn fd(&self) -> RawFd;

    /// What the descriptor is registered for.
    fn events(&self) -> u32 {
        libc::EPOLLIN as u32
    }

    /// It is about to be watched by this loop.
    fn begin(&mut self, _loop: i64) -> Result<()> {
        Ok(())
    }

    /// What happened, now that the descriptor is ready for that.
    fn ask(&mut self, ready: u32, event: &mut Event) -> Answer;

    /// Its last event is delivered; only asked of what wants to hear it.
    fn delivered(&mut self) {}

    /// Whether it was closed by somebody else, who has rung the loop.
    fn is_closed(&self) -> bool {
        false
    }

    /// In a forked child. An error is reported to the watcher, and this is
    /// dropped: it must not close what has its descriptor's number and may be
    /// another file by now.
    fn revive(&mut self) -> std::result::Result<(), Errno>;

    /// Of a loop whose memory has to stay: gives back its descriptor.
    fn abandon(&self);
}

/// What is to be told of something that was ready.
pub(crate) enum Answer {
    Nothing,
    /// The event.
    Event,
    /// The event, and no other will come: its descriptor is not needed any
    /// more. With what is longer than an event, and whether it wants to hear
    /// when that is delivered.
    Last(Content, bool),
    /// It is there no more: the watcher is told this error, and is done.
    Gone(Errno),
}

/// An object of the library, by its handle.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    pub handle: i64,
    /// Its descriptor.
    pub fd: RawFd,
    /// Keeps it from being freed.
    pub pin: fn(i64) -> Result<Box<dyn Watchable>>,
}

/// One that is watched; not freed, and heard of, while this is pinned.
struct Object {
    watch: Watch,
    pinned: Option<(Box<dyn Watchable>, i64)>,
}

/// An object to be watched.
pub(super) fn object(watch: Watch) -> Result<Box<dyn Watched>> {
    match table::try_box(Object { watch, pinned: None }) {
        Some(object) => Ok(object),
        None => Err(error!(Errno::ENOMEM, "no memory to watch handle {}", watch.handle)),
    }
}

impl Watched for Object {
    fn fd(&self) -> RawFd {
        self.watch.fd
    }

    fn begin(&mut self, of_loop: i64) -> Result<()> {
        let object = (self.watch.pin)(self.watch.handle)?;
        object.watch(Listener::Other(ring_objects, of_loop))?;
        self.pinned = Some((object, of_loop));
        Ok(())
    }

    fn ask(&mut self, _ready: u32, event: &mut Event) -> Answer {
        let Some((object, _)) = &self.pinned else { return Answer::Nothing };
        match object.take() {
            Ok(0) => return Answer::Nothing,
            Ok(count) => event.count = count,
            // That is noticed by whoever asks.
            Err(error) if error.errno == Errno::ESTALE => return Answer::Nothing,
            Err(error) => {
                event.events = ERROR;
                event.result = error.errno.negated();
            }
        }
        Answer::Event
    }

    fn is_closed(&self) -> bool {
        table::kind_of_quietly(self.watch.handle).is_none()
    }

    fn revive(&mut self) -> std::result::Result<(), Errno> {
        let Some((before, of_loop)) = self.pinned.take() else { return Ok(()) };
        if self.begin(of_loop).is_err() {
            // Its pin was forgotten in the fork, as all were.
            self.pinned = Some((before, of_loop));
        }
        Ok(())
    }

    fn abandon(&self) {}
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some((object, of_loop)) = &self.pinned {
            object.unwatch(Listener::Other(ring_objects, *of_loop));
        }
    }
}

impl Core {
    /// Keeps what is watched with its watcher.
    pub fn keep_object(&mut self, index: u32, watched: Box<dyn Watched>) -> Result<()> {
        if self.objects.try_reserve(1).is_err() {
            return Err(Errno::ENOMEM.into());
        }
        self.objects.insert(index, watched);
        Ok(())
    }

    /// Tells the watchers whose objects were closed. The loop was rung.
    pub fn look_at_objects(&mut self) {
        while let Some(index) = self.find_object(|watched| watched.is_closed()) {
            self.object_gone(index, Errno::ESTALE);
        }
    }

    fn find_object(&self, is_it: impl Fn(&dyn Watched) -> bool) -> Option<u32> {
        self.objects.iter().find_map(|(index, watched)| is_it(&**watched).then_some(*index))
    }

    /// What a watcher watches is there no more: it is told.
    fn object_gone(&mut self, index: u32, errno: Errno) {
        if let Some(record) = record::get(index) {
            self.io_gone(index, record);
            self.fail(record.handle(Kind::Watcher, index), errno);
        }
        // Its descriptor is closed here.
        self.objects.remove(&index);
    }

    /// In a forked child.
    pub fn revive_objects(&mut self) {
        let mut gone = Vec::new();
        for (index, watched) in &mut self.objects {
            if let Err(errno) = watched.revive()
                && gone.try_reserve(1).is_ok()
            {
                gone.push((*index, errno));
            }
        }
        for (index, errno) in gone {
            self.object_gone(index, errno);
        }
        self.look_at_objects();
    }

    /// The watcher is not reported any more, and has no descriptor.
    fn forget_object(&mut self, index: u32, record: &Record, stays: bool) {
        record.set(if stays { OVER | REAPS } else { OVER });
        self.io_gone(index, record);
        // A thread that closes the watcher removes its descriptor's number
        // from the kernel's set, with this lock: it either has, or sees that
        // there is nothing to remove. From here on the number can be used
        // again.
        drop(self.desk.gate());
        if !stays {
            self.objects.remove(&index);
        }
    }

    /// The last event of a watcher is delivered.
    pub fn object_delivered(&mut self, index: u32, record: &Record) {
        record.unset(REAPS);
        if let Some(mut watched) = self.objects.remove(&index) {
            watched.delivered();
        }
    }
}

/// Asks what happened to what a watcher watches; false: nothing to tell.
pub(super) fn ask(
    core: &mut Core,
    index: u32,
    record: &Record,
    ready: u32,
    event: &mut Event,
) -> bool {
    let Some(watched) = core.objects.get_mut(&index) else { return false };
    match watched.ask(ready, event) {
        Answer::Event => true,
        Answer::Last(content, hears) => {
            event.reserved = core.details.add(event.watcher, content);
            core.forget_object(index, record, hears);
            true
        }
        Answer::Gone(errno) => {
            core.io_gone(index, record);
            // A thread that closes the watcher removes the number from the
            // kernel's set with this lock: it has, or sees that it need not.
            drop(core.desk.gate());
            core.object_gone(index, errno);
            false
        }
        Answer::Nothing => {
            if watched.is_closed() {
                core.look_at_objects();
            }
            false
        }
    }
}
