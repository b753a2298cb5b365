//! Traces: what a loop did last, in a ring in memory, and as a file when the
//! trace is stopped. So the loop never waits for a disk, whatever happens.

use super::activity::{ASLEEP, Activity};
use super::text::cut;
use super::trace_json::{self, NAME, Page};
use super::trace_ring;
pub(in crate::event_loop) use super::trace_ring::{TraceEntry, TraceRing};
use crate::errno::{Errno, Error, Result, error};
use crate::hash::Map;
use crate::sys::fd::Fd;
use crate::sys::{clock, fd, file};
use crate::util::alloc::{TryDeque, TryMap, TryVec, try_copy};
use crate::util::try_arc::TryArc;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::RawFd;

/// What is in a trace besides callbacks, which have the type of their event.
pub(super) const WAIT: i32 = 64;
pub(super) const POLL: i32 = 65;
pub(super) const ITERATION: i32 = 66;

const DEFAULT_EVENTS: usize = 100_000;

pub(in crate::event_loop) type Names = Map<i64, Box<[u8]>>;

/// A trace, in the command queue.
pub(in crate::event_loop) struct Trace {
    pub ring: TryArc<TraceRing>,
    file: File,
    /// Names of watchers that were closed during the trace, and in which order.
    names: Names,
    closed: VecDeque<i64>,
    began: i64,
    pub stopping: bool,
}

/// The file of a trace, open until that is written. Its descriptor may be
/// another file by then, if the program has closed all that it has.
struct File {
    fd: Fd,
    /// A descriptor of the program's has the marks of that, not ours.
    identity: Option<(u64, u64)>,
}

impl File {
    fn new(fd: Fd) -> Self {
        Self { identity: file::identity(fd.raw()), fd }
    }

    /// The descriptor, unless it is another file.
    fn check(&self) -> std::result::Result<RawFd, Errno> {
        let is_same = self.fd.is_intact() && self.identity == file::identity(self.fd.raw());
        is_same.then_some(self.fd.raw()).ok_or(Errno::EBADF)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.check().is_err() {
            self.fd.set_borrowed();
        }
    }
}

/// Where a trace is written.
pub(crate) enum Output<'a> {
    Path(&'a CStr),
    Descriptor(RawFd),
}

/// A ring for so many events; 0 or less: for as many as usual.
pub(in crate::event_loop) fn new_ring(most: i32) -> Result<TryArc<TraceRing>> {
    let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(DEFAULT_EVENTS);
    match TryArc::new(TraceRing::new(most)?) {
        Some(ring) => Ok(ring),
        None => trace_ring::no_memory(most),
    }
}

impl Output<'_> {
    /// Opens the file.
    pub fn open(&self) -> Result<Fd> {
        let file = match self {
            Output::Path(path) => file::create(path),
            Output::Descriptor(fd) => fd::duplicate_to_write(*fd),
        };
        file.map_err(|errno| refused(errno, self))
    }
}

impl Trace {
    pub fn new(ring: TryArc<TraceRing>, fd: Fd) -> Self {
        let (names, closed, began) = (Names::default(), VecDeque::new(), clock::now_ns());
        Self { ring, file: File::new(fd), names, closed, began, stopping: false }
    }

    /// The descriptor of its file.
    pub fn fd(&self) -> RawFd {
        self.file.fd.raw()
    }

    /// A watcher with a name is closed.
    pub fn keep_name(&mut self, handle: i64, name: Box<[u8]>) {
        if self.names.try_reserve(1).is_err() || self.closed.try_reserve(1).is_err() {
            return;
        }
        // No more than there can be events of: the events of the oldest are
        // gone first, too.
        if self.closed.len() as u64 >= self.ring.entries()
            && let Some(oldest) = self.closed.pop_front()
        {
            self.names.remove(&oldest);
        }
        // Not the rest of a long one.
        let name = match name.len() {
            0..=NAME => name,
            _ => try_copy(cut(&name, NAME)).unwrap_or_default(),
        };
        self.names.insert_reserved(handle, name);
        self.closed.push_back_reserved(handle);
    }

    /// Writes the file; how many events are missing in it.
    pub fn write(
        &self,
        mut entries: Vec<(i32, TraceEntry)>,
        dropped: u64,
        names: &Names,
        running: Option<Activity>,
    ) -> std::result::Result<(), Errno> {
        let now = clock::now_ns();
        if let Some(running) = running.filter(|running| running.kind != ASLEEP) {
            let thread = entries.last().map_or(0, |(thread, _)| *thread);
            let (kind, handle, start) = (running.kind, running.watcher, running.since);
            let end = now.max(start);
            // Room was made for it.
            entries.push_reserved((
                thread,
                TraceEntry { kind, handle, start, end, extra: trace_json::RUNNING },
            ));
        }
        let name = |handle| {
            let name = self.names.get(&handle).or_else(|| names.get(&handle));
            name.map(|name| &**name).unwrap_or_default()
        };
        let mut page = Page::new(self.file.check()?);
        trace_json::write(&mut page, &entries, &name, dropped, [self.began, now])
    }

    /// In a forked child, which may have closed the file, and use the fd for
    /// another one.
    pub fn forget(self) {
        std::mem::forget(self.file);
    }

    /// The loop is closed: what there is is written.
    pub fn finish(self, names: &Names) {
        if let Ok((entries, dropped)) = self.ring.read() {
            // There is no caller to report an error to.
            let _ = self.write(entries, dropped, names, None);
        }
    }
}

fn refused(errno: Errno, output: &Output<'_>) -> Error {
    match output {
        Output::Path(_) => cannot_open(errno),
        Output::Descriptor(fd) => error!(errno, "fd {} cannot be written to", *fd),
    }
}

fn cannot_open(errno: Errno) -> Error {
    match errno {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => errno.into(),
        Errno::ELOOP => error!(errno, "the path is a symbolic link, or leads through too many"),
        Errno::ENXIO => error!(errno, "the path is a FIFO without a reader, or a socket"),
        Errno::EAGAIN => error!(Errno::EBUSY, "another process has a lease of the file"),
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => {
            error!(errno, "the path leads to no directory for the file")
        }
        Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::EISDIR | Errno::ETXTBSY => {
            error!(errno, "the file may not be written to")
        }
        Errno::EBUSY | Errno::ENODEV | Errno::ENOSPC | Errno::EDQUOT | Errno::EIO => {
            error!(errno, "the file cannot be made")
        }
        other => error!(Errno::EIO, "open(2) failed with errno {}", -other.negated()),
    }
}

pub(in crate::event_loop) fn cannot_write(errno: Errno, handle: i64) -> Error {
    match errno {
        Errno::EBADF => error!(errno, "the file of the trace of loop {} was closed", handle),
        Errno::ENOSPC
        | Errno::EDQUOT
        | Errno::EFBIG
        | Errno::EIO
        | Errno::EPIPE
        | Errno::ENOMEM => error!(errno, "the trace of loop {} cannot be written", handle),
        other => {
            let code = -other.negated();
            error!(Errno::EIO, "the trace of loop {} met errno {} of write(2)", handle, code)
        }
    }
}
