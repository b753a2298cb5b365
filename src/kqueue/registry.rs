//! Which descriptors are queues: for BSD's calls, which have nothing but the
//! number, and for queues that are watched by others.
//!
//! A program closes such a queue with close(2), and nobody is told. Its
//! number is looked at when it is used again, and by and by when others are
//! made; all are when there are no descriptors left. Whether a number still
//! is a queue's is asked of the kernel: only the queue's own epoll holds the
//! queue's inner one.

use super::{Kqueue, Queue};
use crate::errno::{Errno, Result, fail};
use crate::hash::{Map, Seeded};
use crate::sync::ForkMutex;
use crate::sys::{directory, fd};
use crate::table::{self, Pinned};
use crate::util::alloc::{TryMap, TryVec};
use std::os::fd::RawFd;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    handle: i64,
    /// The queue's own number; others are duplicates that were used.
    is_first: bool,
    /// The program closes it.
    is_the_programs: bool,
}

struct Registry {
    numbers: Map<RawFd, Entry>,
    /// All of them, to be looked at in turn.
    order: Vec<RawFd>,
    next: usize,
}

static REGISTRY: ForkMutex<Registry> = ForkMutex::new(Registry::new());

/// How many numbers are looked at when a queue is made.
const AT_A_TIME: usize = 2;

impl Registry {
    const fn new() -> Self {
        let numbers = Map::with_hasher(Seeded::new());
        Self { numbers, order: Vec::new(), next: 0 }
    }

    fn insert(&mut self, fd: RawFd, entry: Entry) -> Result<Option<Entry>> {
        if self.numbers.try_reserve(1).is_err() || self.order.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory for another queue");
        }
        let before = self.numbers.insert_reserved(fd, entry);
        if before.is_none() {
            self.order.push_reserved(fd);
        }
        Ok(before)
    }

    /// Takes a number out, if it is this queue's.
    fn remove(&mut self, fd: RawFd, handle: i64) {
        if self.numbers.get(&fd).is_some_and(|entry| entry.handle == handle) {
            self.numbers.remove(&fd);
            if let Some(place) = self.order.iter().position(|number| *number == fd) {
                self.order.swap_remove(place);
            }
        }
    }

    /// The next one to be looked at.
    fn turn(&mut self) -> Option<(RawFd, Entry)> {
        self.next = if self.next + 1 < self.order.len() { self.next + 1 } else { 0 };
        let fd = *self.order.get(self.next)?;
        Some((fd, *self.numbers.get(&fd)?))
    }
}

/// Makes a queue's number known. What had it before was closed.
pub(super) fn add(fd: RawFd, handle: i64, is_the_programs: bool) -> Result<()> {
    let entry = Entry { handle, is_first: true, is_the_programs };
    let before = REGISTRY.lock().insert(fd, entry)?;
    if let Some(before) = before.filter(|before| before.is_first) {
        bury(fd, before);
    }
    Ok(())
}

/// A queue is closed.
pub(super) fn remove(fd: RawFd, handle: i64) {
    REGISTRY.lock().remove(fd, handle);
}

/// The queue behind a number, which is still its.
pub(crate) fn resolve(fd: RawFd) -> Result<Pinned<Kqueue>> {
    begin();
    let entry = REGISTRY.lock().numbers.get(&fd).copied();
    if let Some(entry) = entry {
        if let Some(queue) = pinned(entry.handle)
            && queue.queue().is_some_and(|queue| queue.is_behind(fd))
        {
            return Ok(queue);
        }
        remove(fd, entry.handle);
        if entry.is_first {
            bury(fd, entry);
        }
    }
    match find_duplicated(fd) {
        Some(queue) => Ok(queue),
        None => fail!(EBADF, "fd {} is not a kqueue", fd),
    }
}

/// Notices if a queue's number was closed.
pub(super) fn look_at(fd: RawFd) {
    // If there is no queue any more, those that wait for it were told.
    drop(resolve(fd));
}

/// How many events a queue that others watch has, if it is one.
pub(super) fn pending(fd: RawFd) -> Option<i64> {
    let entry = REGISTRY.lock().numbers.get(&fd).copied()?;
    let queue = pinned(entry.handle)?;
    Some(queue.queue()?.pending())
}

fn pinned(handle: i64) -> Option<Pinned<Kqueue>> {
    table::pin::<Kqueue>(handle).ok()
}

/// The queue that a number which was never seen is a duplicate of.
fn find_duplicated(fd: RawFd) -> Option<Pinned<Kqueue>> {
    if !fd::is_open(fd) {
        return None;
    }
    let mut nth = 0;
    loop {
        let entry = {
            let registry = REGISTRY.lock();
            let number = registry.order.get(nth)?;
            registry.numbers.get(number).copied()
        };
        nth += 1;
        let Some(entry) = entry.filter(|entry| entry.is_first) else { continue };
        let Some(pin) = pinned(entry.handle) else { continue };
        match pin.queue().map(|queue| queue.ask_behind(fd)) {
            Some(Ok(())) => {
                // Without memory it is looked for again next time.
                let _ = REGISTRY.lock().insert(fd, Entry { is_first: false, ..entry });
                return Some(pin);
            }
            // No epoll at all.
            Some(Err(Errno::EINVAL)) => return None,
            _ => {}
        }
    }
}

/// A queue's number is not its own any more: unless it has another, its
/// owner has closed it.
fn bury(fd: RawFd, entry: Entry) {
    if !entry.is_the_programs {
        return;
    }
    let Some(pin) = pinned(entry.handle) else { return };
    let Some(queue) = pin.queue() else { return };
    let other = directory::find_descriptor(|number| number != fd && queue.is_behind(number));
    match other {
        Some(number) => {
            queue.move_to_number(number);
            let _ = REGISTRY.lock().insert(number, entry);
        }
        None => {
            let _ = table::close::<Kqueue>(entry.handle);
        }
    }
}

/// Looks at a few numbers, whether they are still queues.
pub(super) fn sweep_some() {
    sweep(AT_A_TIME);
}

/// Looks at all; there are no descriptors left.
pub(super) fn sweep_all() {
    begin();
    let count = REGISTRY.lock().order.len();
    sweep(count);
}

fn sweep(count: usize) {
    begin();
    for _ in 0..count {
        let Some((fd, entry)) = REGISTRY.lock().turn() else { return };
        let Some(pin) = pinned(entry.handle) else {
            remove(fd, entry.handle);
            continue;
        };
        if !entry.is_the_programs || pin.queue().is_some_and(|queue| queue.is_behind(fd)) {
            continue;
        }
        drop(pin);
        remove(fd, entry.handle);
        if entry.is_first {
            bury(fd, entry);
        }
    }
}

/// Before the lock is taken by a call that need not have been in the table:
/// it may be a forked child's first, and another thread of the parent's have
/// had it.
fn begin() {
    table::set_fork_hook(table::ForkHook::Kqueues, after_fork);
    table::epoch();
}

/// In a forked child: the queues that come along stay known.
fn after_fork() {
    let mend = |registry: Option<&mut Registry>| {
        let Some(registry) = registry else { return Some(Registry::new()) };
        registry.numbers.retain(|_, entry| table::survived::<Kqueue>(entry.handle));
        let Registry { numbers, order, .. } = registry;
        order.retain(|fd| numbers.contains_key(fd));
        None
    };
    // SAFETY: the hook runs in the first call of a child, with no other
    // thread in the library.
    unsafe { REGISTRY.recover(mend) };
}

/// Runs something that may want for descriptors: once more, if queues that
/// were closed had some.
pub(super) fn with_descriptors<T>(mut make: impl FnMut() -> Result<T>) -> Result<T> {
    match make() {
        Err(error) if matches!(error.errno, Errno::EMFILE | Errno::ENFILE) => {
            sweep_all();
            make()
        }
        result => result,
    }
}

impl Queue {
    /// Whether a number is this queue's epoll.
    fn is_behind(&self, fd: RawFd) -> bool {
        self.ask_behind(fd).is_ok()
    }
}
