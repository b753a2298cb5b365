//! io_uring(7).

use super::request::{Operation, Request};
use crate::errno::Errno;
use crate::sys::cancel::Uncancelled;
use crate::sys::kept::Identity;
use crate::sys::{fd, poll};
use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;

pub(super) struct AioRing {
    /// Dropped with cancellation disabled: it closes its descriptor by
    /// close(3).
    ring: ManuallyDrop<IoUring>,
    identity: Identity,
    /// The kernel had no memory for what is in the submission queue.
    left: bool,
}

impl Drop for AioRing {
    fn drop(&mut self) {
        let _uncancelled = Uncancelled::begin();
        // SAFETY: once, here.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

/// The tag of all cancellations: their own completions are ignored.
const CANCELLATION: u64 = u64::MAX;
/// How often a wait that the kernel refuses is tried again, and when: together
/// half a second.
const REFUSALS: u32 = 500;
const PAUSE_NS: i64 = 1_000_000;
/// Entries of the submission queue: each is submitted at once.
const ENTRIES: u32 = 8;

fn errno(error: &std::io::Error) -> Errno {
    Errno::new(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The same ring, with a descriptor that is none of the standard streams.
fn above_streams(ring: IoUring) -> Result<IoUring, Errno> {
    let Some(fd) = fd::above_streams(ring.as_raw_fd())? else { return Ok(ring) };
    let (raw, params) = (fd.raw(), ring.params().clone());
    fd.set_borrowed();
    // SAFETY: a descriptor of this ring, with its parameters; from here on it
    // is the new object's.
    unsafe { IoUring::from_fd(raw, params) }.map_err(|error| errno(&error))
}

fn entry(request: Request) -> Entry {
    let fd = types::Fd(request.fd);
    // As the kernel has it: all ones is the file's position.
    let offset = if request.offset < 0 { u64::MAX } else { request.offset.cast_unsigned() };
    let length = |count: usize| count.min(i32::MAX as usize) as u32;
    match request.operation {
        Operation::Read { buffer, count } => {
            opcode::Read::new(fd, buffer, length(count)).offset(offset).build()
        }
        Operation::Write { buffer, count } => {
            opcode::Write::new(fd, buffer, length(count)).offset(offset).build()
        }
        Operation::Sync { data_only } => {
            let flags =
                if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
            opcode::Fsync::new(fd).flags(flags).build()
        }
    }
}

impl AioRing {
    /// `most`: how many operations will be in flight.
    pub fn new(most: usize) -> Result<Self, Errno> {
        let _uncancelled = Uncancelled::begin();
        let ring = IoUring::builder()
            // Nothing of it is for a forked child.
            .dontfork()
            .setup_clamp()
            .setup_cqsize(most as u32)
            .build(ENTRIES)
            .map_err(|error| errno(&error))?;
        let ring = above_streams(ring)?;
        let identity = Identity::mark(ring.as_raw_fd())?;
        Ok(Self { ring: ManuallyDrop::new(ring), identity, left: false })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn submit(&mut self, request: Request, tag: u64) -> Result<(), Errno> {
        self.push(&entry(request).user_data(tag))
    }

    fn push(&mut self, entry: &Entry) -> Result<(), Errno> {
        self.go_on();
        // SAFETY: the caller's memory stays until the operation is done (see
        // evloop_kqueue_aio_read).
        if unsafe { self.ring.submission().push(entry) }.is_err() {
            return Err(Errno::EAGAIN);
        }
        self.left = true;
        self.go_on();
        Ok(())
    }

    /// Submits what is left. What the kernel has no memory for now stays, and
    /// is tried again.
    fn go_on(&mut self) {
        while self.left {
            match self.ring.submit() {
                Ok(_) => self.left = false,
                Err(error) if errno(&error) == Errno::EINTR => {}
                Err(_) => return,
            }
        }
    }

    /// Whether entries wait to be submitted again, and no event will report
    /// when the kernel accepts them.
    pub fn is_stuck(&self) -> bool {
        self.left
    }

    pub fn cancel(&mut self, tag: u64) -> Result<(), Errno> {
        self.push(&opcode::AsyncCancel::new(tag).build().user_data(CANCELLATION))
    }

    pub fn next_done(&mut self) -> Option<(u64, i32)> {
        self.go_on();
        loop {
            let done = self.ring.completion().next()?;
            if done.user_data() != CANCELLATION {
                return Some((done.user_data(), done.result()));
            }
        }
    }

    /// Waits for all that is in flight. Where the kernel refuses that for good,
    /// as a sandbox may have it do by now, the rest is left: the kernel ends it
    /// when the ring is closed.
    pub fn finish(&mut self, mut in_flight: usize) {
        let mut refusals = 0;
        while in_flight > 0 && refusals < REFUSALS {
            match self.ring.submit_and_wait(1).map_err(|error| errno(&error)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => {
                    refusals += 1;
                    let _ = poll::ppoll(&mut [], Some(PAUSE_NS));
                }
            }
            while self.next_done().is_some() {
                in_flight = in_flight.saturating_sub(1);
            }
        }
    }
}
