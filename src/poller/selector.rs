//! Selectors: read and write readiness on any of the other interfaces.

use super::Ready;
use super::devpoll::DevPoll;
use super::epoll::Epoll;
use super::fdlist::FdList;
use super::fdmap::{FdEntry, FdMap};
use super::poll::PollSet;
use crate::errno::{Errno, Error, Result, error, fail};
use crate::handle::{Kind, Object, TableObject};
use crate::kqueue::ReadinessQueue;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::clock::Deadline;
use crate::sys::fd;
use crate::util::{Out, try_uninit};
use crate::wait::{interrupted, pause};
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
    engine: SelectorEngine,
    keys: Mutex<Keys>,
}

enum SelectorEngine {
    Select(PollSet),
    Poll(PollSet),
    Epoll(Epoll),
    DevPoll(DevPoll),
    Kqueue(ReadinessQueue),
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
        let Some(memory) = try_uninit() else { fail!(ENOMEM, "no memory for a selector") };
        let engine = match backend {
            Backend::Select => SelectorEngine::Select(PollSet::new()),
            Backend::Poll => SelectorEngine::Poll(PollSet::new()),
            Backend::Epoll => SelectorEngine::Epoll(Epoll::create()?),
            Backend::DevPoll => SelectorEngine::DevPoll(DevPoll::new()),
            Backend::Kqueue => SelectorEngine::Kqueue(ReadinessQueue::new()?),
        };
        let keys = Keys { map: FdMap::new(), always: FdList::new(), last: -1 };
        Ok(Box::write(memory, Self { engine, keys: Mutex::new(keys) }))
    }

    pub fn fileno(&self) -> Result<RawFd> {
        match &self.engine {
            SelectorEngine::Epoll(epoll) => Ok(epoll.fileno()),
            SelectorEngine::DevPoll(devpoll) => devpoll.fileno(),
            SelectorEngine::Kqueue(kqueue) => Ok(kqueue.fileno()),
            SelectorEngine::Select(_) => fail!(ENOTSUP, "a selector on select has no descriptor"),
            SelectorEngine::Poll(_) => fail!(ENOTSUP, "a selector on poll has no descriptor"),
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
        keys.map.set_reserved(fd, FdEntry { events, tag: 0, data });
        Ok(())
    }

    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let mut keys = self.keys();
        if keys.map.get(fd).is_none() {
            return Err(stranger(fd));
        }
        check_open(fd)?;
        match self.engine.modify(fd, events, data) {
            Err(error) if self.is_always_ready(&error) && keys.always.contains(fd) => {}
            Err(error) if error.errno != Errno::ENOENT => return Err(error),
            result => {
                // What was always ready is gone: epoll takes what has its
                // number now.
                self.remove_always(&mut keys, fd);
                result?;
            }
        }
        keys.map.set_reserved(fd, FdEntry { events, tag: 0, data });
        Ok(())
    }

    pub fn unregister(&self, fd: RawFd) -> Result<()> {
        let mut keys = self.keys();
        if !keys.map.remove(fd) {
            return Err(stranger(fd));
        }
        if !self.remove_always(&mut keys, fd) {
            self.engine.remove(fd);
        }
        Ok(())
    }

    /// Whether it was there.
    fn remove_always(&self, keys: &mut Keys, fd: RawFd) -> bool {
        let was_there = keys.always.remove(fd);
        if was_there && keys.always.is_empty() {
            // It was possible before, and what failed now would not be undone.
            let _ = self.engine.set_alarm(false);
        }
        was_there
    }

    pub fn get(&self, fd: RawFd) -> Result<(u32, u64)> {
        let entry = self.keys().map.get(fd);
        entry.map(|entry| (entry.events, entry.data)).ok_or_else(|| stranger(fd))
    }

    pub fn count(&self) -> usize {
        self.keys().map.len()
    }

    fn is_always_ready(&self, error: &Error) -> bool {
        matches!(self.engine, SelectorEngine::Epoll(_)) && error.errno == Errno::EPERM
    }

    fn add_always(&self, keys: &mut Keys, fd: RawFd) -> Result<()> {
        keys.always.insert(fd)?;
        self.engine.set_alarm(true).inspect_err(|_| {
            keys.always.remove(fd);
        })
    }

    /// Waits; what is ready is in `out` then, which was empty.
    pub fn wait(&self, out: &mut Out<Ready>, timeout_ns: i64) -> Result<()> {
        let deadline = Deadline::after(timeout_ns);
        if let SelectorEngine::Epoll(epoll) = &self.engine {
            return self.wait_epoll(epoll, out, deadline);
        }
        loop {
            let left = deadline.left_ns().unwrap_or(-1);
            match &self.engine {
                SelectorEngine::DevPoll(devpoll) => devpoll.wait(out, left)?,
                SelectorEngine::Kqueue(kqueue) => wait_kqueue(kqueue, out, deadline)?,
                SelectorEngine::Select(set) | SelectorEngine::Poll(set) => set.wait(out, left)?,
                SelectorEngine::Epoll(_) => {}
            }
            self.translate(out);
            if out.filled() > 0 || deadline.passed() {
                return Ok(());
            }
        }
    }

    fn wait_epoll(&self, epoll: &Epoll, out: &mut Out<Ready>, deadline: Deadline) -> Result<()> {
        let mut gone = None;
        let mut strange = false;
        loop {
            let fetched = epoll.wait_once(out, deadline, &mut gone)?;
            // Only events of what is not registered, again: left over by a
            // descriptor that was closed while a duplicate of it lives on.
            let only_strange = out.filled() > 0;
            self.translate(out);
            if fetched.alarmed {
                self.append_always(out);
            }
            if out.filled() > 0 || deadline.passed() {
                return Ok(());
            }
            if fetched.noise || only_strange && strange {
                pause(deadline, interrupted)?;
            }
            strange = only_strange;
        }
    }

    /// Turns the engine's events into READ and WRITE as registered; what is
    /// not, or no more, is left out.
    fn translate(&self, out: &mut Out<Ready>) {
        let keys = self.keys();
        let mut kept = 0;
        for from in 0..out.filled() {
            let Some(mut ready) = out.get(from) else { break };
            let Some(key) = keys.map.get(ready.fd) else { continue };
            ready.events = read_write(ready.events) & key.events;
            ready.data = key.data;
            if ready.events != 0 {
                out.set(kept, ready);
                kept += 1;
            }
        }
        out.truncate(kept);
    }

    /// Adds those that are always ready, from the one after the last
    /// reported, as far as there is room.
    fn append_always(&self, out: &mut Out<Ready>) {
        let mut keys = self.keys();
        for _ in 0..keys.always.len() {
            let Some(fd) = keys.always.after(keys.last) else { break };
            if out.is_full() {
                break;
            }
            keys.last = fd;
            if let Some(FdEntry { events, data, .. }) = keys.map.get(fd) {
                out.push(Ready { fd, events, data });
            }
        }
    }
}

impl SelectorEngine {
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
fn wait_kqueue(kqueue: &ReadinessQueue, out: &mut Out<Ready>, deadline: Deadline) -> Result<()> {
    kqueue.wait(out.capacity(), deadline, |fd, reads| {
        let events = if reads { libc::POLLIN } else { libc::POLLOUT } as u32;
        out.push(Ready { fd, events, data: 0 });
    })?;
    out.with_filled(|filled| filled.sort_unstable_by_key(|ready| ready.fd));
    let mut kept = 0usize;
    for i in 0..out.filled() {
        let Some(ready) = out.get(i) else { break };
        let before = kept.checked_sub(1).and_then(|last| Some((last, out.get(last)?)));
        match before.filter(|(_, before)| before.fd == ready.fd) {
            Some((last, before)) => {
                out.set(last, Ready { events: before.events | ready.events, ..before });
            }
            None => {
                out.set(kept, ready);
                kept += 1;
            }
        }
    }
    out.truncate(kept);
    Ok(())
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

impl TableObject for Selector {
    fn closing(&self) {
        match &self.engine {
            SelectorEngine::Select(set) | SelectorEngine::Poll(set) => set.closing(),
            SelectorEngine::Epoll(epoll) => epoll.closing(),
            SelectorEngine::DevPoll(devpoll) => devpoll.closing(),
            SelectorEngine::Kqueue(kqueue) => kqueue.closing(),
        }
    }

    fn survives_fork(&self) -> bool {
        false
    }

    fn abandon(&self) {
        match &self.engine {
            SelectorEngine::Select(set) | SelectorEngine::Poll(set) => set.abandon(),
            SelectorEngine::Epoll(epoll) => epoll.abandon(),
            SelectorEngine::DevPoll(devpoll) => devpoll.abandon(),
            SelectorEngine::Kqueue(kqueue) => kqueue.abandon(),
        }
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for Selector {
    const KIND: Kind = Kind::Selector;
}
