//! Threads that do what io_uring would, where there is none.
//!
//! They are made when there is something to do, up to a few, block all
//! signals, and are joined when the queue goes. Each tries first, so that
//! what is wrong is said at once; where it would block in a pipe or a socket
//! it waits with poll(2), so that it can be called off.

use super::jobs::{Called, Jobs};
use super::{Operation, Request};
use crate::errno::{Errno, Result, error, fail};
use crate::sys::fd::Fd;
use crate::sys::file::{self, Buffer};
use crate::sys::thread::{STACK, Thread};
use crate::sys::{eventfd, poll, signal, socket};
use crate::util::alloc::TryVec;
use crate::util::try_arc::TryArc;
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

struct State {
    jobs: Jobs<Request>,
    idle: usize,
    closing: bool,
    /// The threads' eventfds.
    bells: Vec<RawFd>,
}

impl State {
    const fn new() -> Self {
        Self { jobs: Jobs::new(), idle: 0, closing: false, bells: Vec::new() }
    }
}

impl Pool {
    pub fn new() -> Result<Self> {
        let done = eventfd::create(0)?;
        let shared = Shared { state: Mutex::new(State::new()), changed: Condvar::new(), done };
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

    /// Whether a descriptor is a thread's.
    pub fn is_own(&self, fd: RawFd) -> bool {
        self.shared.lock().bells.contains(&fd) && file::is_anonymous(fd)
    }

    pub fn submit(&mut self, request: Request, tag: u64) -> Result<()> {
        let mut state = self.shared.lock();
        let room = state.jobs.expect_one(THREADS).is_ok();
        if !(room && state.bells.try_reserve(THREADS).is_ok()) {
            fail!(ENOMEM, "no memory for an operation");
        }
        if state.idle <= state.jobs.waiting() && self.threads.len() < THREADS {
            match start(&self.shared, &mut state.bells) {
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
        let mut state = self.shared.lock();
        // Under the lock: else a thread that has come to the next one by then
        // would be called off that.
        match state.jobs.cancel(tag, Errno::ECANCELED.negated()) {
            Called::Done => eventfd::signal(self.shared.done.raw()),
            Called::Working(bell) => eventfd::signal(bell),
            Called::Late => {}
        }
    }

    pub fn next_done(&mut self) -> Option<(u64, i32)> {
        let mut state = self.shared.lock();
        let (next, is_last) = state.jobs.next_done();
        if is_last {
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

/// `bells`: there is room for another one.
fn start(shared: &TryArc<Shared>, bells: &mut Vec<RawFd>) -> std::result::Result<Thread, Errno> {
    let bell = eventfd::create(0)?;
    let (shared, number) = (shared.clone(), bell.raw());
    let thread = Thread::start(c"evloop-aio", STACK, move || shared.work(&bell))?;
    bells.push_reserved(number);
    Ok(thread)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work(&self, bell: &Fd) {
        let mut state = self.lock();
        loop {
            if let Some((request, tag)) = state.jobs.begin(bell.raw()) {
                drop(state);
                let result = self.perform(request, tag, bell.raw());
                state = self.lock();
                state.jobs.end(tag, result);
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

    /// What it returned, or its negative errno.
    fn perform(&self, request: Request, tag: u64, bell: RawFd) -> i32 {
        let result = match request.operation {
            Operation::Read { buffer, count } => {
                self.transfer(&request, Buffer::Into(buffer, count), tag, bell)
            }
            Operation::Write { buffer, count } => {
                self.transfer(&request, Buffer::From(buffer, count), tag, bell)
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
    fn transfer(&self, request: &Request, buffer: Buffer, tag: u64, bell: RawFd) -> Outcome {
        let (fd, mut offset) = (request.fd, request.offset);
        let writes = matches!(buffer, Buffer::From(..));
        let sort = file::stat(fd)?.st_mode & libc::S_IFMT;
        let mut may_wait = matches!(sort, libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR);
        loop {
            let tried = try_once(sort, fd, buffer, offset);
            match tried.or_else(|| may_wait.then(|| finish(fd, buffer, offset))) {
                Some(Err(Errno::EINTR)) => {}
                // What has no positions takes any.
                Some(Err(Errno::ESPIPE)) if offset >= 0 && sort != libc::S_IFSOCK => offset = -1,
                Some(Err(Errno::EAGAIN)) => may_wait = self.wait(fd, writes, tag, bell)?,
                // Not tried, so that it is not known yet what is wrong.
                None if !file::is_open_for(fd, writes)? => return Err(Errno::EBADF),
                None => may_wait = self.wait(fd, writes, tag, bell)?,
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

    /// Until it can be read or written: true. ECANCELED: it was called off.
    fn wait(
        &self,
        fd: RawFd,
        writes: bool,
        tag: u64,
        bell: RawFd,
    ) -> std::result::Result<bool, Errno> {
        let events = if writes { libc::POLLOUT } else { libc::POLLIN };
        let mut fds = [poll::entry(fd, events as u32), poll::entry(bell, libc::POLLIN as u32)];
        match poll::ppoll(&mut fds, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let called = self.lock().jobs.is_called_off(tag);
        if called { Err(Errno::ECANCELED) } else { Ok(true) }
    }
}

type Outcome = std::result::Result<usize, Errno>;

/// An attempt without waiting; `None`: this file cannot be used so.
fn try_once(sort: u32, fd: RawFd, buffer: Buffer, offset: i64) -> Option<Outcome> {
    // SAFETY: lent until the operation is done (see evloop_kqueue_aio_read).
    let nowait = || unsafe { file::transfer_nowait(fd, buffer, offset) };
    match sort {
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
fn finish(fd: RawFd, buffer: Buffer, offset: i64) -> Outcome {
    // SAFETY: as above.
    unsafe { file::transfer(fd, buffer, offset) }
}
