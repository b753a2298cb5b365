//! Which descriptors are queues: for BSD's calls, which have nothing but the
//! number, and for queues that are watched by others.
//!
//! A program closes such a queue with close(2), which the library cannot
//! notice. All descriptors are looked at when a queue is made, when there are
//! no descriptors left, and now and then by threads that wait in a queue. The
//! kernel is asked whether a descriptor still is a queue's: only the queue's
//! own epoll holds the queue's inner one.

use super::object::Kqueue;
use super::queue::Queue;
use crate::errno::{Errno, Result, fail};
use crate::handle::{self, Pinned};
use crate::hash::{Map, Seeded};
use crate::sync::{AtomicI64, AtomicUsize, ForkMutex, Ordering};
use crate::sys::{clock, directory, fd};
use crate::util::alloc::{TryMap, TryVec};
use std::ops::ControlFlow;
use std::os::fd::RawFd;

#[derive(Clone, Copy, PartialEq, Eq)]
struct QueueFd {
    handle: i64,
    /// The queue's own descriptor; others are duplicates that were used.
    is_first: bool,
    /// The program closes it.
    is_the_programs: bool,
}

struct Registry {
    fds: Map<RawFd, QueueFd>,
    /// All of them, to be looked at in turn.
    order: Vec<RawFd>,
    next: usize,
}

static REGISTRY: ForkMutex<Registry> = ForkMutex::new(Registry::new());

/// How many descriptors there are that programs close; changed under the lock.
static PROGRAMS: AtomicUsize = AtomicUsize::new(0);

/// How many descriptors are looked at in one call.
const AT_ONCE: usize = 1024;

impl Registry {
    const fn new() -> Self {
        let fds = Map::with_hasher(Seeded::new());
        Self { fds, order: Vec::new(), next: 0 }
    }

    fn insert(&mut self, fd: RawFd, entry: QueueFd) -> Result<Option<QueueFd>> {
        if self.fds.try_reserve(1).is_err() || self.order.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory for another queue");
        }
        let before = self.fds.insert_reserved(fd, entry);
        if before.is_none() {
            self.order.push_reserved(fd);
        }
        PROGRAMS.fetch_add(usize::from(entry.is_the_programs), Ordering::Relaxed);
        let replaced = before.is_some_and(|before| before.is_the_programs);
        PROGRAMS.fetch_sub(usize::from(replaced), Ordering::Relaxed);
        Ok(before)
    }

    /// Takes a descriptor out, if it is this queue's.
    fn remove(&mut self, fd: RawFd, handle: i64) {
        if let Some(entry) = self.fds.get(&fd).copied().filter(|one| one.handle == handle) {
            self.fds.remove(&fd);
            PROGRAMS.fetch_sub(usize::from(entry.is_the_programs), Ordering::Relaxed);
            if let Some(index) = self.order.iter().position(|known_fd| *known_fd == fd) {
                self.order.swap_remove(index);
            }
        }
    }

    /// Those that programs close: at most [`AT_ONCE`], in turn.
    fn programs(&mut self) -> Vec<(RawFd, QueueFd)> {
        let mut list = Vec::new();
        let count = self.order.len().min(AT_ONCE);
        if list.try_reserve(count).is_err() {
            return list;
        }
        for _ in 0..count {
            self.next = if self.next + 1 < self.order.len() { self.next + 1 } else { 0 };
            let Some(fd) = self.order.get(self.next).copied() else { continue };
            if let Some(entry) = self.fds.get(&fd).filter(|entry| entry.is_the_programs) {
                list.push_reserved((fd, *entry));
            }
        }
        list
    }
}

/// Makes a queue's descriptor known. What had it before was closed.
pub(super) fn add(fd: RawFd, handle: i64, is_the_programs: bool) -> Result<()> {
    let entry = QueueFd { handle, is_first: true, is_the_programs };
    let before = REGISTRY.lock().insert(fd, entry)?;
    if let Some(before) = before.filter(|before| before.is_first) {
        close_orphan(fd, before);
    }
    Ok(())
}

/// A queue is closed.
pub(super) fn remove(fd: RawFd, handle: i64) {
    REGISTRY.lock().remove(fd, handle);
}

/// The queue behind a descriptor, which is still its.
pub(crate) fn resolve(fd: RawFd) -> Result<Pinned<Kqueue>> {
    begin();
    let entry = REGISTRY.lock().fds.get(&fd).copied();
    if let Some(entry) = entry {
        if let Some(queue) = pinned(entry.handle)
            && queue.queue().is_some_and(|queue| queue.has_fd(fd))
        {
            return Ok(queue);
        }
        remove(fd, entry.handle);
        if entry.is_first {
            close_orphan(fd, entry);
        }
    }
    match find_duplicated(fd) {
        Some(queue) => Ok(queue),
        None => fail!(EBADF, "fd {} is not a kqueue", fd),
    }
}

/// Notices if a queue's descriptor was closed.
pub(super) fn look_at(fd: RawFd) {
    // If the queue was closed, its closing has woken the threads that wait.
    drop(resolve(fd));
}

/// How many events a queue that others watch has, if it is one.
pub(super) fn pending(fd: RawFd) -> Option<i64> {
    let entry = REGISTRY.lock().fds.get(&fd).copied()?;
    let queue = pinned(entry.handle)?;
    Some(queue.queue()?.pending())
}

fn pinned(handle: i64) -> Option<Pinned<Kqueue>> {
    handle::pin::<Kqueue>(handle).ok()
}

/// The queue that an fd which was never seen is a duplicate of.
fn find_duplicated(fd: RawFd) -> Option<Pinned<Kqueue>> {
    if !fd::is_open(fd) {
        return None;
    }
    let mut nth = 0;
    loop {
        let entry = {
            let registry = REGISTRY.lock();
            let known_fd = registry.order.get(nth)?;
            registry.fds.get(known_fd).copied()
        };
        nth += 1;
        let Some(entry) = entry.filter(|entry| entry.is_first) else { continue };
        let Some(pin) = pinned(entry.handle) else { continue };
        match pin.queue().map(|queue| queue.verify_fd(fd)) {
            Some(Ok(())) => {
                // Without memory it is looked for again next time.
                let _ = REGISTRY.lock().insert(fd, QueueFd { is_first: false, ..entry });
                return Some(pin);
            }
            // No epoll at all.
            Some(Err(Errno::EINVAL)) => return None,
            _ => {}
        }
    }
}

/// A queue's descriptor is not its own any more: unless it has a duplicate, the
/// program has closed the queue.
fn close_orphan(fd: RawFd, entry: QueueFd) {
    if let Some(one) = Orphan::of(fd, entry) {
        close_orphans(&mut [Some(one)]);
    }
}

/// A queue whose descriptor the program has closed.
struct Orphan {
    fd: RawFd,
    entry: QueueFd,
    pin: Pinned<Kqueue>,
}

impl Orphan {
    fn of(fd: RawFd, entry: QueueFd) -> Option<Self> {
        let pin = pinned(entry.handle).filter(|_| entry.is_the_programs)?;
        Some(Self { fd, entry, pin })
    }
}

fn close_orphans(list: &mut [Option<Orphan>]) {
    if list.is_empty() {
        return;
    }
    directory::each_descriptor(|fd| {
        let is_inner = |one: &Orphan| one.pin.queue().is_some_and(|queue| queue.inner() == fd);
        if !list.iter().flatten().any(is_inner) {
            adopt_duplicate(fd, list);
        }
        if list.iter().all(Option::is_none) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    for Orphan { entry, pin, .. } in list.iter_mut().filter_map(Option::take) {
        drop(pin);
        let _ = handle::close::<Kqueue>(entry.handle);
    }
}

/// If a descriptor is a duplicate of one of these queues, it goes on under
/// that.
fn adopt_duplicate(fd: RawFd, list: &mut [Option<Orphan>]) {
    for slot in list {
        let Some(one) = slot else { continue };
        match one.pin.queue().map(|queue| queue.verify_fd(fd)) {
            Some(Ok(())) if one.fd != fd => {
                if let Some(queue) = one.pin.queue() {
                    queue.rebind_fd(fd);
                }
                let _ = REGISTRY.lock().insert(fd, one.entry);
                *slot = None;
                return;
            }
            // No epoll at all.
            Some(Err(Errno::EINVAL | Errno::EBADF)) => return,
            _ => {}
        }
    }
}

/// Looks at all descriptors, whether they are still queues.
pub(super) fn sweep() {
    begin();
    let fds = REGISTRY.lock().programs();
    let mut closed = Vec::new();
    for (fd, entry) in fds {
        let pin = pinned(entry.handle);
        if pin.is_some_and(|pin| pin.queue().is_some_and(|queue| queue.has_fd(fd))) {
            continue;
        }
        // Without memory it is looked at again next time.
        if closed.try_reserve(1).is_ok() {
            remove(fd, entry.handle);
            closed.push_reserved(Orphan::of(fd, entry).filter(|_| entry.is_first));
        }
    }
    close_orphans(&mut closed);
}

/// The same for threads that wait: not all the time. `own`: so many of the
/// descriptors are known to be good.
#[inline]
pub(super) fn sweep_now_and_then(own: usize) {
    static NEXT_NS: AtomicI64 = AtomicI64::new(0);
    const PAUSE_NS: i64 = 1_000_000;
    if PROGRAMS.load(Ordering::Relaxed) > own {
        let now = clock::now_ns();
        if now >= NEXT_NS.load(Ordering::Relaxed) {
            NEXT_NS.store(now.saturating_add(PAUSE_NS), Ordering::Relaxed);
            sweep();
        }
    }
}

/// Before the lock is taken by a call that need not have been in the table:
/// it may be a forked child's first, and another thread of the parent's have
/// had it.
fn begin() {
    handle::set_fork_hook(handle::ForkHook::Kqueues, after_fork);
    handle::epoch();
}

/// In a forked child: the queues that come along stay known.
fn after_fork() {
    let mend = |registry: Option<&mut Registry>| {
        let Some(registry) = registry else {
            PROGRAMS.store(0, Ordering::Relaxed);
            return Some(Registry::new());
        };
        registry.fds.retain(|_, entry| handle::survived::<Kqueue>(entry.handle));
        let Registry { fds, order, .. } = registry;
        order.retain(|fd| fds.contains_key(fd));
        let programs = fds.values().filter(|entry| entry.is_the_programs).count();
        PROGRAMS.store(programs, Ordering::Relaxed);
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
            sweep();
            make()
        }
        result => result,
    }
}

impl Queue {
    /// Whether a descriptor is this queue's epoll.
    fn has_fd(&self, fd: RawFd) -> bool {
        self.verify_fd(fd).is_ok()
    }
}
