//! Threads that do what io_uring would, where there is none.
//!
//! They are made when there is something to do, up to a few, block all
//! signals, and are joined when the queue goes. One that would block in a
//! pipe or a socket waits with poll(2) first, so that it can be called off.

use super::{Operation, Request};
use crate::errno::{Errno, Result, error, fail};
use crate::sys::fd::Fd;
use crate::sys::thread::{STACK, Thread};
use crate::sys::{eventfd, file, poll};
use crate::util::alloc::{TryDeque, TryVec};
use crate::util::try_arc::TryArc;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many threads a queue has at most.
const THREADS: usize = 4;

pub(super) struct Pool {
    shared: TryArc<Shared>,
    threads: Vec<Thread>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable while something is done.
    done: Fd,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Request, u64)>,
    working: Vec<Job>,
    done: VecDeque<(u64, i32)>,
    idle: usize,
    closing: bool,
}

/// What a thread is at, and the eventfd that calls it off.
struct Job {
    tag: u64,
    bell: RawFd,
    cancelled: bool,
}

impl Pool {
    pub fn new() -> Result<Self> {
        let done = eventfd::create(0)?;
        let shared = Shared { state: Mutex::new(State::default()), changed: Condvar::new(), done };
        let mut threads = Vec::new();
        match TryArc::new(shared) {
            Some(shared) if threads.try_reserve_exact(THREADS).is_ok() => {
                Ok(Self { shared, threads })
            }
            _ => fail!(ENOMEM, "no memory for {} threads", THREADS as i64),
        }
    }

    pub fn descriptor(&self) -> RawFd {
        self.shared.done.raw()
    }

    pub fn submit(&mut self, request: Request, tag: u64) -> Result<()> {
        let mut state = self.shared.lock();
        let all = state.waiting.len() + state.working.len() + state.done.len() + 1;
        let room = state.waiting.try_reserve(1).is_ok()
            && state.working.try_reserve(THREADS).is_ok()
            && state.done.try_reserve(all).is_ok();
        if !room {
            fail!(ENOMEM, "no memory for an operation");
        }
        if state.idle <= state.waiting.len() && self.threads.len() < THREADS {
            match start(&self.shared) {
                Ok(thread) => self.threads.push_reserved(thread),
                // Those that there are will come to it.
                Err(_) if !self.threads.is_empty() => {}
                Err(errno) => return Err(error!(errno, "no thread for an operation")),
            }
        }
        state.waiting.push_back_reserved((request, tag));
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    pub fn cancel(&mut self, tag: u64) {
        let mut state = self.shared.lock();
        if let Some(place) = state.waiting.iter().position(|(_, waiting)| *waiting == tag) {
            state.waiting.remove(place);
            state.done.push_back_reserved((tag, Errno::ECANCELED.negated()));
            eventfd::signal(self.shared.done.raw());
        } else if let Some(job) = state.working.iter_mut().find(|job| job.tag == tag) {
            job.cancelled = true;
            eventfd::signal(job.bell);
        }
    }

    pub fn next_done(&mut self) -> Option<(u64, i32)> {
        let mut state = self.shared.lock();
        let next = state.done.pop_front();
        if state.done.is_empty() {
            // Under the lock: what is done later rings it again.
            eventfd::clear(self.shared.done.raw());
        }
        next
    }

    pub fn finish(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            thread.join();
        }
    }
}

fn start(shared: &TryArc<Shared>) -> std::result::Result<Thread, Errno> {
    let bell = eventfd::create(0)?;
    let shared = shared.clone();
    Thread::start(c"evloop-aio", STACK, move || shared.work(&bell))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work(&self, bell: &Fd) {
        let mut state = self.lock();
        loop {
            if let Some((request, tag)) = state.waiting.pop_front() {
                state.working.push_reserved(Job { tag, bell: bell.raw(), cancelled: false });
                drop(state);
                let result = self.perform(request, tag, bell.raw());
                state = self.lock();
                state.working.retain(|job| job.tag != tag);
                state.done.push_back_reserved((tag, result));
                eventfd::clear(bell.raw());
                eventfd::signal(self.done.raw());
            } else if state.closing {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn perform(&self, request: Request, tag: u64, bell: RawFd) -> i32 {
        let events = match request.operation {
            Operation::Read { .. } => libc::POLLIN as u32,
            Operation::Write { .. } => libc::POLLOUT as u32,
            Operation::Sync { .. } => 0,
        };
        let blocks = events != 0 && file::may_block(request.fd);
        loop {
            if blocks {
                let mut fds =
                    [poll::entry(request.fd, events), poll::entry(bell, libc::POLLIN as u32)];
                match poll::ppoll(&mut fds, None) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return errno.negated(),
                }
                let called = self.lock().working.iter().any(|job| job.tag == tag && job.cancelled);
                if called {
                    return Errno::ECANCELED.negated();
                }
            }
            match once(request, blocks) {
                Err(Errno::EINTR) => {}
                // Another thread was faster; the descriptor is asked again.
                Err(Errno::EAGAIN) if blocks => {}
                Ok(count) => return i32::try_from(count).unwrap_or(i32::MAX),
                Err(errno) => return errno.negated(),
            }
        }
    }
}

/// Does it; `without_waiting`: as far as that needs no waiting.
fn once(request: Request, without_waiting: bool) -> std::result::Result<usize, Errno> {
    let Request { fd, operation, offset } = request;
    match operation {
        Operation::Read { buffer, count } => {
            // SAFETY: lent until the operation is done.
            unsafe { file::read_at(fd, buffer, count, offset, without_waiting) }
        }
        Operation::Write { buffer, count } => {
            // SAFETY: as above.
            unsafe { file::write_at(fd, buffer, count, offset, without_waiting) }
        }
        Operation::Sync { data_only } => file::sync(fd, data_only),
    }
}
