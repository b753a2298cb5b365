//! Threads that do what io_uring would, where there is none.
//!
//! They are made when there is something to do, up to a few, block all
//! signals, and are joined when the queue is closed. Each tries first, so that
//! an error is reported at once. Where the operation would block in a pipe or a
//! socket, the thread waits with poll(2), so that it can be cancelled.

use super::super::super::epoll_set::{self, EpollSet};
use super::jobs::{Called, Jobs};
use super::request::{Operation, Request};
use crate::errno::{Errno, Result, error, fail};
use crate::sys::clock::Deadline;
use crate::sys::fd::Fd;
use crate::sys::file::{self, Buffer};
use crate::sys::kept::Identity;
use crate::sys::thread::{STACK, Thread};
use crate::sys::{eventfd, poll, signal, socket};
use crate::util::alloc::TryVec;
use crate::util::try_arc::TryArc;
use crate::wait::{self, Waiters};
use crate::wakeup::Wakeup;
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many threads a queue has at most.
const THREADS: usize = 4;

pub(super) struct WorkerPool {
    shared: TryArc<WorkerShared>,
    threads: Vec<Thread>,
}

struct WorkerShared {
    state: Mutex<WorkerState>,
    changed: Condvar,
    /// What the queue is woken by when something is done; always readable.
    eventfd: Fd,
    wakeup: Wakeup,
    /// Threads that wait for a descriptor, to be woken when one of their
    /// operations is called off.
    waiters: Waiters,
}

struct WorkerState {
    jobs: Jobs<Request>,
    idle: usize,
    closing: bool,
    /// What the threads wait with.
    own: Vec<Identity>,
}

impl WorkerPool {
    pub fn new() -> Result<Self> {
        let mut own = Vec::new();
        if own.try_reserve_exact(THREADS).is_err() {
            fail!(ENOMEM, "no memory for {} threads", THREADS as i64);
        }
        let shared = WorkerShared {
            state: Mutex::new(WorkerState { jobs: Jobs::new(), idle: 0, closing: false, own }),
            changed: Condvar::new(),
            eventfd: eventfd::create(1)?,
            wakeup: Wakeup::new(),
            waiters: Waiters::new(),
        };
        let mut threads = Vec::new();
        match TryArc::new(shared) {
            Some(shared) if threads.try_reserve_exact(THREADS).is_ok() => {
                Ok(Self { shared, threads })
            }
            _ => fail!(ENOMEM, "no memory for {} threads", THREADS as i64),
        }
    }

    /// Of what the queue is woken by.
    pub fn identity(&self) -> Identity {
        self.shared.eventfd.identity()
    }

    /// Whether a descriptor is what one of the threads waits with.
    pub fn is_own(&self, fd: RawFd) -> bool {
        self.shared.lock().own.iter().any(|own| own.fd() == fd && own.is_intact())
    }

    pub fn aim_at(&self, set: &EpollSet) {
        self.shared.wakeup.aim(set.identity(), self.shared.eventfd.raw());
    }

    pub fn submit(&mut self, request: Request, tag: u64) -> Result<()> {
        let mut state = self.shared.lock();
        if state.jobs.expect_one(THREADS).is_err() {
            fail!(ENOMEM, "no memory for an operation");
        }
        if state.idle <= state.jobs.waiting() && self.threads.len() < THREADS {
            match start(&self.shared) {
                Ok(thread) => self.threads.push_reserved(thread),
                // Those that there are will come to it.
                Err(_) if !self.threads.is_empty() => {}
                Err(errno) => return Err(error!(errno, "no thread for an operation")),
            }
        }
        state.jobs.submit(request, tag);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    pub fn cancel(&mut self, tag: u64) {
        let called = self.shared.lock().jobs.cancel(tag, Errno::ECANCELED.negated());
        match called {
            Called::Done => self.shared.wake_queue(),
            Called::Working => self.shared.waiters.wake(),
            Called::Late => {}
        }
    }

    pub fn next_done(&mut self) -> Option<(u64, i32)> {
        self.shared.lock().jobs.next_done()
    }

    pub fn finish(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            thread.join();
        }
    }
}

fn start(shared: &TryArc<WorkerShared>) -> std::result::Result<Thread, Errno> {
    let shared = shared.clone();
    Thread::start(c"evloop-aio", STACK, move || shared.work())
}

impl WorkerShared {
    fn lock(&self) -> MutexGuard<'_, WorkerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((request, tag)) = state.jobs.begin() {
                drop(state);
                let result = self.perform(request, tag);
                state = self.lock();
                state.jobs.end(tag, result);
                drop(state);
                self.wake_queue();
                state = self.lock();
            } else if state.closing {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// Makes what this thread waits with; with the lock, as the queue is to
    /// know it as soon as it is there.
    fn make_own(&self) {
        let mut state = self.lock();
        if let Some(own) = wait::own()
            && !state.own.contains(&own)
        {
            state.own.push_reserved(own);
        }
    }

    fn wake_queue(&self) {
        // If the queue's descriptors were closed, its calls report that.
        let _ = self.wakeup.wake(epoll_set::AIO);
    }

    fn is_cancelled(&self, tag: u64) -> bool {
        self.lock().jobs.is_called_off(tag)
    }

    /// What it returned, or its negative errno.
    fn perform(&self, request: Request, tag: u64) -> i32 {
        let result = match request.operation {
            Operation::Read { buffer, count } => {
                self.transfer(&request, Buffer::Into(buffer, count), tag)
            }
            Operation::Write { buffer, count } => {
                self.transfer(&request, Buffer::From(buffer, count), tag)
            }
            Operation::Sync { data_only } => file::sync(request.fd, data_only),
        };
        match result {
            Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
            Err(errno) => errno.negated(),
        }
    }

    /// As io_uring does it: at once, if that is possible; else it is waited
    /// for.
    fn transfer(&self, request: &Request, buffer: Buffer, tag: u64) -> Transferred {
        let (fd, mut offset) = (request.fd, request.offset);
        let writes = matches!(buffer, Buffer::From(..));
        let file_type = file::stat(fd)?.st_mode & libc::S_IFMT;
        let mut may_wait = matches!(file_type, libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR);
        loop {
            let tried = try_once(file_type, fd, buffer, offset);
            match tried.or_else(|| may_wait.then(|| finish(fd, buffer, offset))) {
                Some(Err(Errno::EINTR)) => {}
                // What has no positions takes any.
                Some(Err(Errno::ESPIPE)) if offset >= 0 && file_type != libc::S_IFSOCK => {
                    offset = -1
                }
                Some(Err(Errno::EAGAIN)) => may_wait = self.wait(fd, writes, tag)?,
                // Not tried, so that it is not known yet what is wrong.
                None if !file::is_open_for(fd, writes)? => return Err(Errno::EBADF),
                None => may_wait = self.wait(fd, writes, tag)?,
                Some(result) => {
                    if result == Err(Errno::EPIPE) {
                        // This thread blocks the signal.
                        signal::send_to_process(libc::SIGPIPE);
                    }
                    return result;
                }
            }
        }
    }

    /// Whether it can be read or written: not, if another operation of the
    /// pool was called off. ECANCELED: this one was.
    fn wait(&self, fd: RawFd, writes: bool, tag: u64) -> std::result::Result<bool, Errno> {
        let events = if writes { libc::POLLOUT } else { libc::POLLIN };
        let mut fds = [poll::entry(fd, events as u32), poll::entry(-1, 0)];
        self.make_own();
        let mut guard = self.waiters.enter(Deadline::Never);
        // Not before it has entered: from then on a cancelling thread wakes it.
        if self.is_cancelled(tag) {
            return Err(Errno::ECANCELED);
        }
        let is_ready = match guard.poll(&mut fds).map_err(|error| error.errno) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(errno),
        };
        if self.is_cancelled(tag) { Err(Errno::ECANCELED) } else { Ok(is_ready) }
    }
}

type Transferred = std::result::Result<usize, Errno>;

/// An attempt without waiting; `None`: this file cannot be used so.
fn try_once(file_type: u32, fd: RawFd, buffer: Buffer, offset: i64) -> Option<Transferred> {
    // SAFETY: lent until the operation is done (see evloop_kqueue_aio_read).
    let nowait = || unsafe { file::transfer_nowait(fd, buffer, offset) };
    match file_type {
        libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR => None,
        libc::S_IFSOCK if offset > 0 => Some(Err(Errno::ESPIPE)),
        // SAFETY: as above.
        libc::S_IFSOCK => Some(unsafe { socket::transfer_nowait(fd, buffer) }),
        // That is done at once.
        libc::S_IFIFO | libc::S_IFCHR if buffer.is_empty() => Some(finish(fd, buffer, -1)),
        _ => nowait(),
    }
}

/// The operation of a file, or of what was ready just now.
fn finish(fd: RawFd, buffer: Buffer, offset: i64) -> Transferred {
    // SAFETY: as above.
    unsafe { file::transfer(fd, buffer, offset) }
}
