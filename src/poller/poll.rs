//! Poll sets: poll(2) with a memory.

use super::Ready;
use super::fdmap::{FdEntry, FdMap};
use crate::errno::{Errno, Result, fail};
use crate::handle::{Kind, Object, TableObject};
use crate::sync::ForkMutex;
use crate::sys::clock::Deadline;
use crate::sys::poll::{ALWAYS_REPORTED, entry, look, revents};
use crate::util::Out;
use crate::util::alloc::TryVec;
use crate::wait::{Waiters, refuse_own};
use std::os::fd::RawFd;

/// A set of descriptors to poll.
pub(crate) struct PollSet {
    /// Locked by `state`; outside it, because a forked child keeps it.
    map: FdMap,
    state: ForkMutex<PollSetState>,
    waiters: Waiters,
}

struct PollSetState {
    /// Counts the changes of the map.
    version: u64,
    /// The array of the last wait, used again if nothing changed since.
    spare: Option<PollSnapshot>,
    /// Where the next report begins, so that a small `max` starves no
    /// descriptor.
    next: RawFd,
}

/// What ppoll(2) wants: the set at some version, and one entry at the end
/// for the waiting thread's epoll.
struct PollSnapshot {
    version: u64,
    fds: Vec<libc::pollfd>,
}

const NEW: PollSetState = PollSetState { version: 0, spare: None, next: 0 };

impl PollSet {
    pub fn new() -> Self {
        Self { map: FdMap::new(), state: ForkMutex::new(NEW), waiters: Waiters::new() }
    }

    /// Changes how a descriptor is registered, from what it was to what
    /// `change` says; waits that are going on see it.
    pub fn update(
        &self,
        fd: RawFd,
        change: impl FnOnce(Option<FdEntry>) -> Result<Option<FdEntry>>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        match change(self.map.get(fd))? {
            Some(entry) => self.map.set(fd, entry)?,
            None => drop(self.map.remove(fd)),
        }
        state.version += 1;
        drop(state);
        self.waiters.wake();
        Ok(())
    }

    pub fn register(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        refuse_own(fd)?;
        self.update(fd, |_| Ok(Some(FdEntry { events, tag: 0, data })))
    }

    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        self.update(fd, |old| match old {
            Some(_) => Ok(Some(FdEntry { events, tag: 0, data })),
            None => fail!(ENOENT, "fd {} is not registered with this poll set", fd),
        })
    }

    pub fn unregister(&self, fd: RawFd) -> Result<()> {
        self.update(fd, |old| match old {
            Some(_) => Ok(None),
            None => fail!(ENOENT, "fd {} is not registered with this poll set", fd),
        })
    }

    /// Calls `visit` with each registration.
    pub fn for_each(&self, visit: impl FnMut(RawFd, FdEntry)) {
        let _state = self.state.lock();
        self.map.for_each(visit);
    }

    /// Waits; what is ready is in `out` then, which was empty.
    pub fn wait(&self, out: &mut Out<Ready>, timeout_ns: i64) -> Result<()> {
        let mut guard = self.waiters.enter(Deadline::after(timeout_ns));
        loop {
            guard.check()?;
            let mut snapshot = self.snapshot()?;
            let ready = match guard.poll(&mut snapshot.fds) {
                Err(error) if error.errno == Errno::EINVAL => poll_in_pieces(&mut snapshot.fds),
                result => result,
            }?;
            // User code ran if it was interrupted: it may have closed the set,
            // or forked, and then this is no place to take a lock.
            guard.check()?;
            let over = guard.is_over();
            if ready > 0 {
                self.report(&snapshot, out);
            }
            self.keep(snapshot);
            if out.filled() > 0 || (over && ready == 0) {
                return Ok(());
            }
        }
    }

    fn snapshot(&self) -> Result<PollSnapshot> {
        let mut state = self.state.lock();
        let version = state.version;
        let mut fds = match state.spare.take() {
            Some(spare) if spare.version == version => return Ok(spare),
            spare => spare.map(|spare| spare.fds).unwrap_or_default(),
        };
        fds.clear();
        if fds.try_reserve(self.map.len() + 1).is_err() {
            fail!(ENOMEM, "no memory to poll {} descriptors", self.map.len() as i64);
        }
        self.map.for_each(|fd, registered| fds.push_reserved(entry(fd, registered.events)));
        fds.push_reserved(entry(-1, 0));
        Ok(PollSnapshot { version, fds })
    }

    fn keep(&self, snapshot: PollSnapshot) {
        self.state.lock().spare = Some(snapshot);
    }

    /// Reports what is ready and still registered, from where the last
    /// report that ran out of room ended.
    fn report(&self, snapshot: &PollSnapshot, out: &mut Out<Ready>) {
        let mut state = self.state.lock();
        let watched = snapshot.fds.split_last().map_or(&[][..], |(_, watched)| watched);
        let (before, from) =
            watched.split_at(watched.partition_point(|polled| polled.fd < state.next));
        state.next = 0;
        for polled in from.iter().chain(before).filter(|polled| polled.revents != 0) {
            let Some(registered) = self.map.get(polled.fd) else { continue };
            let events = revents(polled) & (registered.events | ALWAYS_REPORTED);
            if events == 0 {
                continue;
            }
            if out.is_full() {
                state.next = polled.fd;
                break;
            }
            out.push(Ready { fd: polled.fd, events, data: registered.data });
        }
    }
}

/// More descriptors than RLIMIT_NOFILE: ppoll(2) refuses them together.
/// Most cannot be open, so looking at them in pieces finds an event.
fn poll_in_pieces(fds: &mut [libc::pollfd]) -> Result<usize> {
    const PIECE: usize = 8;
    let mut ready = 0;
    let watched = fds.split_last_mut().map_or(&mut [][..], |(_, watched)| watched);
    for piece in watched.chunks_mut(PIECE) {
        ready += look(piece)?;
    }
    if ready == 0 {
        let count = watched.len() as i64;
        fail!(EINVAL, "{} descriptors are more than RLIMIT_NOFILE allows to wait for", count);
    }
    Ok(ready)
}

impl TableObject for PollSet {
    fn closing(&self) {
        self.waiters.close();
    }

    fn survives_fork(&self) -> bool {
        true
    }

    fn after_fork(&self) {
        // SAFETY: called while no other thread is in the library.
        unsafe { self.state.remake(NEW) };
        // SAFETY: as above.
        unsafe { self.waiters.after_fork() };
        self.map.recount();
    }

    fn abandon(&self) {}
}

// SAFETY: the only type of this kind.
unsafe impl Object for PollSet {
    const KIND: Kind = Kind::Poll;
}
