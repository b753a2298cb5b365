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
use super::letters::{Letter, Letters};
use super::record::{self, Record};
use crate::errno::{Errno, Result, error, fail};
use crate::handle::{self, Kind};
use crate::sys::{epoll, fork};
use crate::util::alloc::TryMap;
use crate::wait::{Listener, Watchable};
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;

/// What a watcher watches. Dropped when the watcher is closed, after its
/// descriptor was taken out of the loop's epoll.
pub(crate) trait Watched: Send {
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
    fn ask(&mut self, ready: u32, event: &mut Event) -> Answer;

    /// Of a loop whose descriptor others poll: what it became ready for, if
    /// that may have been taken from the loop.
    fn was_taken(&mut self) -> Option<u32> {
        None
    }

    /// Its last event is about to be delivered, and may be changed; only asked
    /// of what wants to hear it. What is longer than an event, if that has
    /// changed, too.
    fn deliver(&mut self, _event: &mut Event) -> Option<Content> {
        None
    }

    /// Whether it was closed by somebody else, who has rung the loop.
    fn is_closed(&self) -> bool {
        false
    }

    /// In a forked child. Where something is short it can be tried again. With
    /// another error the watcher is told that, and this is dropped: it must
    /// not close what has its descriptor's number and may be another file by
    /// now.
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
    pinned: Option<Held>,
}

/// An object that is pinned, the loop that hears when it is closed, and the
/// process in which it does.
struct Held {
    object: Box<dyn Watchable>,
    of_loop: i64,
    epoch: fork::Epoch,
}

impl Held {
    /// In a forked child, where all pins are forgotten: frees its memory, and
    /// nothing else.
    fn forget(self) {
        let object = Box::into_raw(self.object) as *mut ManuallyDrop<dyn Watchable>;
        // SAFETY: of a box, with the same layout; what is in it is not dropped.
        drop(unsafe { Box::from_raw(object) });
    }
}

/// What a watcher watches, and which watcher.
pub(super) struct Watching {
    pub index: u32,
    pub watched: Box<dyn Watched>,
}

/// An object to be watched.
pub(super) fn object(watch: Watch) -> Result<Box<dyn Watched>> {
    match handle::try_box(Object { watch, pinned: None }) {
        Some(object) => Ok(object),
        None => Err(error!(Errno::ENOMEM, "no memory to watch handle {}", watch.handle)),
    }
}

impl Watched for Object {
    fn fd(&self) -> RawFd {
        self.watch.fd
    }

    fn subject(&self) -> i64 {
        self.watch.handle
    }

    fn begin(&mut self, of_loop: i64) -> Result<()> {
        let object = (self.watch.pin)(self.watch.handle)?;
        object.watch(Listener::Other(ring_objects, of_loop))?;
        self.pinned = Some(Held { object, of_loop, epoch: fork::current() });
        Ok(())
    }

    fn ask(&mut self, _ready: u32, event: &mut Event) -> Answer {
        let Some(Held { object, .. }) = &self.pinned else { return Answer::Nothing };
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
        handle::kind_of_quietly(self.watch.handle).is_none()
    }

    fn revive(&mut self) -> std::result::Result<(), Errno> {
        // It may have been done by an attempt that failed later.
        let inherited = |held: &mut Held| held.epoch != fork::current();
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

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(Held { object, of_loop, .. }) = &self.pinned {
            object.unwatch(Listener::Other(ring_objects, *of_loop));
        }
    }
}

impl Core {
    /// Keeps what is watched with its watcher.
    pub fn keep_object(&mut self, index: u32, watched: Box<dyn Watched>) -> Result<()> {
        self.objects.try_put(index, watched)?;
        Ok(())
    }

    /// The same, of one that another thread has added: without memory it stays
    /// in its letter, until there is some.
    pub fn keep_object_late(&mut self, letter: Box<Letter<Watching>>) {
        self.late_objects.push(letter);
        self.settle_objects();
    }

    /// Tries again what there was no memory for.
    fn settle_objects(&mut self) {
        while !self.late_objects.is_empty() && self.objects.try_reserve(1).is_ok() {
            let Some(Watching { index, watched }) = self.late_objects.pop() else { return };
            self.objects.insert_reserved(index, watched);
        }
    }

    /// Takes what a watcher watches away from it.
    pub fn take_object(&mut self, index: u32) -> Option<Box<dyn Watched>> {
        let mut found = self.objects.remove(&index);
        if !self.late_objects.is_empty() {
            let mut others = Letters::new();
            while let Some(mut letter) = self.late_objects.take() {
                if letter.content_mut().index == index {
                    found = Some(letter.into_content().watched);
                } else {
                    others.push(letter);
                }
            }
            self.late_objects = others;
        }
        found
    }

    /// Tells the watchers whose objects were closed. The loop was rung.
    pub fn look_at_objects(&mut self) {
        self.settle_objects();
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
        self.take_object(index);
    }

    /// After a look that found so many events, where others poll the loop's
    /// descriptor: adds those that they have taken. How many there are then.
    #[cold]
    pub fn add_taken(&mut self, found: usize) -> usize {
        let mut count = found;
        for (index, watched) in &mut self.objects {
            let Some(record) = record::get(*index) else { continue };
            let word = record.handle(Kind::Watcher, *index).cast_unsigned();
            let (events, rest) = self.events.split_at_mut(count.min(self.events.len()));
            // SAFETY: as many are filled in.
            let is_found = events.iter().any(|event| unsafe { event.assume_init() }.u64 == word);
            if let Some(room) = rest.first_mut().filter(|_| !is_found)
                && let Some(events) = watched.was_taken()
            {
                room.write(epoll::Event { events, u64: word });
                count += 1;
            }
        }
        count
    }

    /// In a forked child; can be tried again.
    pub fn revive_objects(&mut self) -> Result<()> {
        self.settle_objects();
        if !self.late_objects.is_empty() {
            fail!(ENOMEM, "no memory for what the loop watches");
        }
        let mut objects = std::mem::take(&mut self.objects);
        let mut result = Ok(());
        objects.retain(|index, watched| match watched.revive() {
            Ok(()) => true,
            Err(errno) if errno.is_shortage() => {
                result = Err(errno.into());
                true
            }
            Err(errno) => {
                self.object_gone(*index, errno);
                false
            }
        });
        self.objects = objects;
        self.look_at_objects();
        result
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
            self.take_object(index);
        }
    }

    /// The last event of a watcher is about to be delivered.
    pub fn deliver_object(&mut self, index: u32, record: &Record, event: &mut Event) {
        record.unset(REAPS);
        if let Some(mut watched) = self.take_object(index)
            && let Some(content) = watched.deliver(event)
        {
            self.details.replace(event.reserved, content);
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
    core.settle_objects();
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
