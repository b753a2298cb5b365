//! Traces: what a loop did last, in a ring in memory, and as a file when the
//! trace is stopped. So the loop never waits for a disk, whatever happens.

use super::activity::{ASLEEP, Activity};
use super::trace_json::{self, NAME, Page};
use super::trace_ring;
pub(in crate::event_loop) use super::trace_ring::{TraceEntry, TraceRing};
use super::{ProbeChange, cut, send_probe_change};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::resolve::resolve;
use crate::event_loop::shared::CommandQueue;
use crate::handle::Kind;
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

type Names = Map<i64, Box<[u8]>>;

/// A trace, in the command queue.
pub(in crate::event_loop) struct Trace {
    ring: TryArc<TraceRing>,
    file: File,
    /// Names of watchers that were closed during the trace, and in which order.
    names: Names,
    closed: VecDeque<i64>,
    began: i64,
    stopping: bool,
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

impl Trace {
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
    fn write(
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

/// See evloop_trace_start.
pub(crate) fn trace_start(handle: i64, output: Output<'_>, most: i32) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(DEFAULT_EVENTS);
    let Some(ring) = TryArc::new(TraceRing::new(most)?) else { return trace_ring::no_memory(most) };
    claim(&mut *resolved.lock()?, handle)?;
    let file = match output {
        Output::Path(path) => file::create(path),
        Output::Descriptor(fd) => fd::duplicate_to_write(fd),
    };
    // If the loop was closed since, it has nothing that was claimed.
    let mut command_queue = resolved.lock()?;
    command_queue.trace_begins = false;
    let file = File::new(file.map_err(|errno| refused(errno, &output))?);
    command_queue.reserve_commands(1)?;
    let (names, closed, began) = (Map::default(), VecDeque::new(), clock::now_ns());
    let ours = ring.clone();
    resolved.shared.own.set(OwnFd::Trace, file.fd.raw());
    command_queue.trace = Some(Trace { ring: ours, file, names, closed, began, stopping: false });
    send_probe_change(&resolved, command_queue, ProbeChange::Trace(Some(ring)))
}

/// Before a file is emptied, which takes its time: one at a time.
fn claim(command_queue: &mut CommandQueue, handle: i64) -> Result<()> {
    if command_queue.trace.is_some() || command_queue.trace_begins {
        fail!(EEXIST, "a trace of loop {} is being made already", handle);
    }
    command_queue.trace_begins = true;
    Ok(())
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

fn cannot_write(errno: Errno, handle: i64) -> Error {
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

/// See evloop_trace_stop; how many events are missing in the file.
pub(crate) fn trace_stop(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    command_queue.reserve_commands(1)?;
    let activity = resolved.shared.activity.read();
    let ring = match &mut command_queue.trace {
        Some(trace) if !trace.stopping => {
            trace.stopping = true;
            trace.ring.clone()
        }
        _ => fail!(ENOENT, "no trace of loop {} is being made", handle),
    };
    send_probe_change(&resolved, command_queue, ProbeChange::Trace(None))?;
    let read = ring.read();
    let mut command_queue = resolved.lock()?;
    // If the loop was closed since, the trace was written then.
    let Some(trace) = &mut command_queue.trace else { return crate::handle::stale(handle) };
    // Without memory it can be stopped again.
    trace.stopping = false;
    let (entries, dropped) = read?;
    let handles = entries.iter().map(|(_, entry)| entry.handle);
    let names = names_of(&command_queue, handles.chain(activity.map(|activity| activity.watcher)))?;
    let Some(trace) = command_queue.trace.take() else { return crate::handle::stale(handle) };
    resolved.shared.own.set(OwnFd::Trace, -1);
    drop(command_queue);
    match trace.write(entries, dropped, &names, activity) {
        Ok(()) => Ok(dropped.cast_signed()),
        Err(errno) => Err(cannot_write(errno, handle)),
    }
}

/// Copies of the names of these watchers.
fn names_of(command_queue: &CommandQueue, handles: impl Iterator<Item = i64>) -> Result<Names> {
    let mut names = Names::default();
    for handle in handles {
        let Some(name) = command_queue.names.get(&handle).filter(|_| !names.contains_key(&handle))
        else {
            continue;
        };
        let copied =
            try_copy(cut(name, NAME)).is_some_and(|copy| names.try_put(handle, copy).is_ok());
        if !copied {
            fail!(ENOMEM, "no memory for the names of watchers");
        }
    }
    Ok(names)
}
