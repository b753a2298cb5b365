//! What a program asks to be done in the background.

use crate::sys::file;
use std::os::fd::RawFd;

/// What to do with a descriptor.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Read { buffer: *mut u8, count: usize },
    Write { buffer: *const u8, count: usize },
    Sync { data_only: bool },
}

/// An operation to be done.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub fd: RawFd,
    pub operation: Operation,
    /// Where in the file; negative: where its position is.
    pub offset: i64,
}

impl Request {
    /// Whether its file can be read, or written, by no means.
    pub fn is_impossible(&self) -> bool {
        match self.operation {
            Operation::Read { .. } => !file::can_be_used(self.fd, false),
            Operation::Write { .. } => !file::can_be_used(self.fd, true),
            Operation::Sync { .. } => false,
        }
    }
}

// SAFETY: the caller lends the memory that it points to until the operation is
// done, on whichever thread that is (see evloop_kqueue_aio_read).
unsafe impl Send for Request {}
