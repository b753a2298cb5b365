//! Selectors: read and write readiness on any of the other interfaces.

use super::devpoll::DevPoll;
use super::epoll::Epoll;
use super::fdlist::FdList;
use super::fdmap::{Entry, FdMap};
use super::poll::PollSet;
use super::{Ready, Sink};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::kqueue::Readiness;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::clock::Deadline;
use crate::sys::fd;
use crate::table::{Kind, Object, Shared, try_room};
use crate::waiters::{interrupted, pause};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::PoisonError;

/// What a selector is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    Select,
    Poll,
    Epoll,
    DevPoll,
    Kqueue,
}

/// A selector.
pub(crate) struct Selector {
    engine: Engine,
    keys: Mutex<Keys>,
}

enum Engine {
    Select(PollSet),
    Poll(PollSet),
    Epoll(Epoll),
    DevPoll(DevPoll),
    Kqueue(Readiness),
}

/// What is registered.
struct Keys {
    map: FdMap,
    /// Descriptors that epoll refuses because they are always ready.
    always: FdList,
    /// The one reported last: the next report begins after it.
    last: RawFd,
}

const READ: u32 = 1;
const WRITE: u32 = 2;
/// What select(2) takes for readable and for writable.
const SELECT_READ: u32 = (libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND) as u32;
const SELECT_WRITE: u32 = (libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND) as u32;

impl Selector {
    pub fn create(backend: Backend) -> Result<Box<Self>> {
        let Some(room) = try_room() else { fail!(ENOMEM, "no memory for a selector") };
        let engine = match backend {
            Backend::Select => Engine::Select(PollSet::new()),
            Backend::Poll => Engine::Poll(PollSet::new()),
            Backend::Epoll => Engine::Epoll(Epoll::create()?),
            Backend::DevPoll => Engine::DevPoll(DevPoll::new()),
            Backend::Kqueue => Engine::Kqueue(Readiness::new()?),
        };
        let keys = Keys { map: FdMap::new(), always: FdList::new(), last: -1 };
        Ok(Box::write(room, Self { engine, keys: Mutex::new(keys) }))
    }

    pub fn fileno(&self) -> Result<RawFd> {
        match &self.engine {
            Engine::Epoll(epoll) => Ok(epoll.fileno()),
            Engine::DevPoll(devpoll) => devpoll.fileno(),
            Engine::Kqueue(kqueue) => Ok(kqueue.fileno()),
            Engine::Select(_) => fail!(ENOTSUP, "a selector on select has no descriptor"),
            Engine::Poll(_) => fail!(ENOTSUP, "a selector on poll has no descriptor"),
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let mut keys = self.keys();
        if keys.map.get(fd).is_some() {
            fail!(EEXIST, "fd {} is already registered with this selector", fd);
        }
        check_open(fd)?;
        keys.map.reserve(fd)?;
        match self.engine.add(fd, events, data) {
            Err(error) if self.is_always_ready(&error) => self.add_always(&mut keys, fd)?,
            result => result?,
        }
        keys.map.set(fd, Entry { events, tag: 0, data })
    }

    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let keys = self.keys();
        if keys.map.get(fd).is_none() {
            return Err(stranger(fd));
        }
        check_open(fd)?;
        if !keys.always.contains(fd) {
            self.engine.modify(fd, events, data)?;
        }
        keys.map.set(fd, Entry { events, tag: 0, data })
    }

    pub fn unregister(&self, fd: RawFd) -> Result<()> {
        let mut keys = self.keys();
        if !keys.map.remove(fd) {
            return Err(stranger(fd));
        }
        if !keys.always.remove(fd) {
            self.engine.remove(fd);
        } else if keys.always.is_empty() {
            // It was possible before, and what failed now would not be undone.
            let _ = self.engine.set_alarm(false);
        }
        Ok(())
    }

    pub fn get(&self, fd: RawFd) -> Result<(u32, u64)> {
        let entry = self.keys().map.get(fd);
        entry.map(|entry| (entry.events, entry.data)).ok_or_else(|| stranger(fd))
    }

    pub fn count(&self) -> usize {
        self.keys().map.len()
    }

    fn is_always_ready(&self, error: &Error) -> bool {
        matches!(self.engine, Engine::Epoll(_)) && error.errno == Errno::EPERM
    }

    fn add_always(&self, keys: &mut Keys, fd: RawFd) -> Result<()> {
        keys.always.insert(fd)?;
        self.engine.set_alarm(true).inspect_err(|_| {
            keys.always.remove(fd);
        })
    }

    /// Waits; how many entries of `room` were filled.
    pub fn wait(&self, room: &mut [MaybeUninit<Ready>], timeout_ns: i64) -> Result<usize> {
        let deadline = Deadline::after(timeout_ns);
        if let Engine::Epoll(epoll) = &self.engine {
            return self.wait_epoll(epoll, room, deadline);
        }
        loop {
            let left = deadline.left_ns().unwrap_or(-1);
            let filled = match &self.engine {
                Engine::DevPoll(devpoll) => devpoll.wait(room, left)?,
                Engine::Kqueue(kqueue) => wait_kqueue(kqueue, room, deadline)?,
                Engine::Select(set) | Engine::Poll(set) => set.wait(room, left)?,
                Engine::Epoll(_) => 0,
            };
            let filled = self.translate(room, filled);
            if filled > 0 || deadline.passed() {
                return Ok(filled);
            }
        }
    }

    fn wait_epoll(
        &self,
        epoll: &Epoll,
        room: &mut [MaybeUninit<Ready>],
        deadline: Deadline,
    ) -> Result<usize> {
        let mut gone = None;
        let mut strange = false;
        loop {
            let fetched = epoll.wait_once(room, deadline, &mut gone)?;
            let mut filled = self.translate(room, fetched.filled);
            if fetched.alarmed {
                filled = self.append_always(room, filled);
            }
            if filled > 0 || deadline.passed() {
                return Ok(filled);
            }
            // Only events of what is not registered, again: left over by a
            // descriptor that was closed while a duplicate of it lives on.
            let only_strange = fetched.filled > 0;
            if fetched.noise || only_strange && strange {
                pause(deadline, interrupted)?;
            }
            strange = only_strange;
        }
    }

    /// Turns the engine's events into READ and WRITE as registered; what is
    /// not, or no more, is left out. How many are left.
    fn translate(&self, room: &mut [MaybeUninit<Ready>], filled: usize) -> usize {
        let keys = self.keys();
        let mut kept = 0;
        for from in 0..filled {
            let Some(entry) = room.get(from) else { break };
            // SAFETY: the engine filled that many entries.
            let mut ready = unsafe { entry.assume_init() };
            let Some(key) = keys.map.get(ready.fd) else { continue };
            ready.events = read_write(ready.events) & key.events;
            ready.data = key.data;
            if ready.events != 0
                && let Some(place) = room.get_mut(kept)
            {
                place.write(ready);
                kept += 1;
            }
        }
        kept
    }

    /// Adds those that are always ready, from the one after the last
    /// reported, as far as there is room.
    fn append_always(&self, room: &mut [MaybeUninit<Ready>], filled: usize) -> usize {
        let mut keys = self.keys();
        let mut sink = Sink { room, filled };
        for _ in 0..keys.always.len() {
            let Some(fd) = keys.always.after(keys.last) else { break };
            if sink.is_full() {
                break;
            }
            keys.last = fd;
            if let Some(Entry { events, data, .. }) = keys.map.get(fd) {
                sink.push(Ready { fd, events, data });
            }
        }
        sink.filled
    }
}

impl Engine {
    fn add(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let bits = self.asked(events);
        match self {
            Self::Select(set) | Self::Poll(set) => set.register(fd, bits, data),
            Self::Epoll(epoll) => epoll.register(fd, bits, data),
            Self::DevPoll(devpoll) => devpoll.modify(fd, bits, data),
            Self::Kqueue(kqueue) => kqueue.watch(fd, events & READ != 0, events & WRITE != 0),
        }
    }

    fn modify(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let bits = self.asked(events);
        match self {
            Self::Select(set) | Self::Poll(set) => set.modify(fd, bits, data),
            Self::Epoll(epoll) => epoll.modify(fd, bits, data),
            Self::DevPoll(devpoll) => devpoll.modify(fd, bits, data),
            Self::Kqueue(kqueue) => kqueue.watch(fd, events & READ != 0, events & WRITE != 0),
        }
    }

    /// The descriptor may be closed already, and the kernel have forgotten
    /// it: that is as good as removed.
    fn remove(&self, fd: RawFd) {
        let _ = match self {
            Self::Select(set) | Self::Poll(set) => set.unregister(fd),
            Self::Epoll(epoll) => epoll.unregister(fd),
            Self::DevPoll(devpoll) => devpoll.unregister(fd),
            Self::Kqueue(kqueue) => kqueue.watch(fd, false, false),
        };
    }

    fn set_alarm(&self, on: bool) -> Result<()> {
        match self {
            Self::Epoll(epoll) => epoll.set_alarm(on),
            _ => Ok(()),
        }
    }

    fn asked(&self, events: u32) -> u32 {
        let (read, write) = match self {
            Self::Select(_) => (SELECT_READ, SELECT_WRITE),
            _ => (libc::POLLIN as u32, libc::POLLOUT as u32),
        };
        (if events & READ != 0 { read } else { 0 }) | (if events & WRITE != 0 { write } else { 0 })
    }
}

/// Waits on a kqueue, which has an event each for reading and for writing:
/// one entry for each descriptor.
fn wait_kqueue(
    kqueue: &Readiness,
    room: &mut [MaybeUninit<Ready>],
    deadline: Deadline,
) -> Result<usize> {
    let mut sink = Sink::new(room);
    kqueue.wait(sink.room.len(), deadline, |fd, reads| {
        let events = if reads { libc::POLLIN } else { libc::POLLOUT } as u32;
        sink.push(Ready { fd, events, data: 0 });
    })?;
    let filled = sink.filled;
    let Some(entries) = room.get_mut(..filled) else { return Ok(0) };
    // SAFETY: they were filled; the type needs no other care.
    let entries = unsafe { &mut *(&raw mut *entries as *mut [Ready]) };
    entries.sort_unstable_by_key(|ready| ready.fd);
    let mut kept = 0usize;
    for at in 0..filled {
        let Some(ready) = entries.get(at).copied() else { break };
        let before = kept.checked_sub(1).and_then(|last| entries.get_mut(last));
        match before.filter(|before| before.fd == ready.fd) {
            Some(before) => before.events |= ready.events,
            None => {
                if let Some(place) = entries.get_mut(kept) {
                    *place = ready;
                }
                kept += 1;
            }
        }
    }
    Ok(kept)
}

/// What reading and writing would find: everything that is not plain
/// writability also ends a read's wait, and the other way round.
fn read_write(bits: u32) -> u32 {
    let read = bits & !SELECT_WRITE != 0;
    let write = bits & !SELECT_READ != 0;
    (if read { READ } else { 0 }) | (if write { WRITE } else { 0 })
}

fn check_open(fd: RawFd) -> Result<()> {
    if fd::is_open(fd) {
        return Ok(());
    }
    fail!(EBADF, "fd {} is not open", fd)
}

fn stranger(fd: RawFd) -> Error {
    error!(Errno::ENOENT, "fd {} is not registered with this selector", fd)
}

impl Shared for Selector {
    fn closing(&self) {
        match &self.engine {
            Engine::Select(set) | Engine::Poll(set) => set.closing(),
            Engine::Epoll(epoll) => epoll.closing(),
            Engine::DevPoll(devpoll) => devpoll.closing(),
            Engine::Kqueue(kqueue) => kqueue.closing(),
        }
    }

    fn survives_fork(&self) -> bool {
        false
    }

    fn abandon(&self) {
        match &self.engine {
            Engine::Select(set) | Engine::Poll(set) => set.abandon(),
            Engine::Epoll(epoll) => epoll.abandon(),
            Engine::DevPoll(devpoll) => devpoll.abandon(),
            Engine::Kqueue(kqueue) => kqueue.abandon(),
        }
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for Selector {
    const KIND: Kind = Kind::Selector;
}
