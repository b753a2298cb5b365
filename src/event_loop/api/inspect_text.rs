//! What a loop has, in words: evloop_dump.

use crate::errno::{Errno, Result, error, fail};
use crate::event_loop::api::inspect::{WatcherInfo, keeps_loop_alive, read};
use crate::event_loop::event::KEEP_ALIVE;
use crate::event_loop::flags::*;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::WatcherSlot;
use crate::event_loop::source::pressure;
use crate::file_watch::WatchRoot;
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;
use crate::sys::{clock, sigpipe};
use std::fmt::{self, Write as _};
use std::ops::ControlFlow;
use std::os::fd::RawFd;

/// Lines are collected up to this many bytes, then written.
const BUFFER_BYTES: usize = 1024;
/// No line is longer.
const LINE: usize = 512;
/// So much of a name is shown, and of a path.
const NAME: usize = 64;
const PATH: usize = 128;
/// How often a lock is tried for a name.
const TRIES: usize = 1000;

/// See evloop_dump; how many watchers there are.
pub(crate) fn dump(handle: i64, fd: RawFd) -> Result<usize> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let mut text = DumpWriter::new(fd);
    let (mut count, mut alive) = (0, 0);
    resolved.each_watcher(|_, _, slot| {
        count += 1;
        alive += usize::from(keeps_loop_alive(resolved.shared, slot));
        ControlFlow::Continue(())
    });
    let mut result = text.line(|text| describe_loop(text, &resolved, count, alive));
    let mut written = 0;
    resolved.each_watcher(|watcher, _, slot| {
        if result.is_ok() {
            result = text.line(|text| describe(text, &resolved, watcher, slot));
            written += 1;
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match result.and_then(|()| text.flush()) {
        Ok(()) if resolved.is_open() => Ok(written),
        Ok(()) => fail!(ESTALE, "loop {} was closed during the call", handle),
        Err(errno) => Err(error!(errno, "fd {} could not be written to", fd)),
    }
}

/// Text on its way to a descriptor; needs no memory but its own.
struct DumpWriter {
    fd: RawFd,
    buffer: [u8; BUFFER_BYTES],
    len: usize,
}

impl fmt::Write for DumpWriter {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        piece.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

impl DumpWriter {
    fn new(fd: RawFd) -> Self {
        Self { fd, buffer: [0; BUFFER_BYTES], len: 0 }
    }

    fn push(&mut self, byte: u8) {
        if let Some(out) = self.buffer.get_mut(self.len) {
            *out = byte;
            self.len += 1;
        }
    }

    /// One line, for which there is room.
    fn line(
        &mut self,
        write: impl FnOnce(&mut Self) -> fmt::Result,
    ) -> std::result::Result<(), Errno> {
        if self.len + LINE > BUFFER_BYTES {
            self.flush()?;
        }
        // What does not fit is cut: there is no error to see.
        let _ = write(self);
        self.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), Errno> {
        let text = self.buffer.get(..self.len).unwrap_or_default();
        self.len = 0;
        sigpipe::write_all(self.fd, text)
    }
}

fn describe_loop(
    text: &mut DumpWriter,
    resolved: &Resolved,
    count: usize,
    alive: usize,
) -> fmt::Result {
    let shared = resolved.shared;
    write!(text, "loop {}: {count} watchers, {alive} keep it alive", resolved.handle.pack())?;
    match shared.posts.load(Relaxed) {
        0 if shared.wake_state.has_posts() => text.write_str(", posted calls")?,
        0 => {}
        posts => write!(text, ", {posts} posted calls")?,
    }
    if shared.options.load(Relaxed) & KEEP_ALIVE != 0 {
        text.write_str(", KEEP_ALIVE")?;
    }
    if shared.failures.load(Relaxed) > 0 {
        text.write_str(", errors to be reported")?;
    }
    Ok(())
}

fn describe(
    text: &mut DumpWriter,
    resolved: &Resolved,
    watcher: i64,
    slot: &WatcherSlot,
) -> fmt::Result {
    let shared = resolved.shared;
    let flags = slot.flags.load(Relaxed);
    let look = |slot: &WatcherSlot| (read(shared, slot), slot.node.third_spare().load(Relaxed));
    let Some((_, (info, subject))) = slot.read_live(shared, look) else {
        return write!(text, "  watcher {watcher}: was just closed");
    };
    write!(text, "  {} {watcher}", word(Source::of(flags)))?;
    if flags & NAMED != 0 {
        push_name(text, shared, watcher);
    }
    text.write_char(':')?;
    match Source::of(flags) {
        Source::File => describe_file(text, shared, watcher)?,
        Source::MemoryPressure => pressure::describe(text, subject)?,
        _ => describe_source(text, shared, &info, flags)?,
    }
    describe_state(text, &info, flags)
}

fn describe_source(
    text: &mut DumpWriter,
    shared: &LoopShared,
    info: &WatcherInfo,
    flags: u32,
) -> fmt::Result {
    match Source::of(flags) {
        Source::Io => {
            write!(text, " fd {}, events", info.fd)?;
            describe_events(text, info.events)?;
            text.write_char(',')
        }
        Source::Timer => describe_timer(text, shared, info, flags),
        Source::Signal => write!(text, " signal {},", info.subject),
        Source::Process => write!(text, " process {},", info.subject),
        Source::Tfd | Source::Kqueue => write!(text, " of handle {},", info.subject),
        _ => Ok(()),
    }
}

/// Its path, flags and bits, if they can be had without waiting.
fn describe_file(text: &mut DumpWriter, shared: &LoopShared, watcher: i64) -> fmt::Result {
    const FLAGS: [(u32, &str); 2] =
        [(libc::IN_ONLYDIR, "ONLYDIR"), (libc::IN_DONT_FOLLOW, "DONT_FOLLOW")];
    const NAMES: [(u32, &str); 12] = [
        (libc::IN_ACCESS, "ACCESS"),
        (libc::IN_MODIFY, "MODIFY"),
        (libc::IN_ATTRIB, "ATTRIB"),
        (libc::IN_CLOSE_WRITE, "CLOSE_WRITE"),
        (libc::IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"),
        (libc::IN_OPEN, "OPEN"),
        (libc::IN_MOVED_FROM, "MOVED_FROM"),
        (libc::IN_MOVED_TO, "MOVED_TO"),
        (libc::IN_CREATE, "CREATE"),
        (libc::IN_DELETE, "DELETE"),
        (libc::IN_DELETE_SELF, "DELETE_SELF"),
        (libc::IN_MOVE_SELF, "MOVE_SELF"),
    ];
    let Some(state) = without_waiting(|| shared.files.try_lock()) else { return Ok(()) };
    let Some(request) = Handle::unpack(watcher).and_then(|handle| state.request_of(handle.index))
    else {
        return Ok(());
    };
    if let WatchRoot::Path(path) = request.root {
        text.write_str(" path")?;
        push_quoted(text, path, PATH);
    }
    text.write_str(if request.recursive { " RECURSIVE" } else { "" })?;
    text.write_str(if request.follows { " FOLLOW" } else { "" })?;
    describe_bits(text, request.flags, &FLAGS)?;
    text.write_str(", events")?;
    match request.mask {
        libc::IN_ALL_EVENTS => text.write_str(" ALL")?,
        mask => describe_bits(text, mask, &NAMES)?,
    }
    text.write_char(',')
}

fn describe_bits(text: &mut DumpWriter, bits: u32, names: &[(u32, &str)]) -> fmt::Result {
    names
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .try_for_each(|(_, name)| write!(text, " {name}"))
}

fn describe_events(text: &mut DumpWriter, events: u32) -> fmt::Result {
    const NAMES: [(u32, &str); 9] = [
        (libc::EPOLLIN as u32, "IN"),
        (libc::EPOLLOUT as u32, "OUT"),
        (libc::EPOLLPRI as u32, "PRI"),
        (libc::EPOLLERR as u32, "ERR"),
        (libc::EPOLLHUP as u32, "HUP"),
        (libc::EPOLLRDHUP as u32, "RDHUP"),
        (libc::EPOLLET as u32, "ET"),
        (libc::EPOLLONESHOT as u32, "ONESHOT"),
        (libc::EPOLLEXCLUSIVE as u32, "EXCLUSIVE"),
    ];
    describe_bits(text, events, &NAMES)?;
    let left = NAMES.iter().fold(events, |left, (bit, _)| left & !bit);
    if left != 0 || events == 0 { write!(text, " {left:#x}") } else { Ok(()) }
}

fn describe_timer(
    text: &mut DumpWriter,
    shared: &LoopShared,
    info: &WatcherInfo,
    flags: u32,
) -> fmt::Result {
    if flags & (SET | COMING) == 0 {
        return text.write_str(" not set,");
    }
    if info.deadline_ns == i64::MAX {
        text.write_str(" set,")?;
    } else {
        let now = shared.now((flags >> QUEUE_SHIFT & CLOCK_MASK) as usize);
        let left = info.deadline_ns.saturating_sub(now);
        let what = if left > 0 { "due in" } else { "due since" };
        write!(text, " {what} {},", Seconds(left))?;
    }
    if info.interval_ns > 0 {
        write!(text, " every {},", Seconds(info.interval_ns))?;
    }
    Ok(())
}

/// Nanoseconds of either sign, as seconds.
struct Seconds(i64);

impl fmt::Display for Seconds {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.unsigned_abs();
        let per_second = clock::NS_PER_S.unsigned_abs();
        write!(to, "{}.{:06} s", ns / per_second, ns % per_second / 1000)
    }
}

fn describe_state(text: &mut DumpWriter, info: &WatcherInfo, flags: u32) -> fmt::Result {
    let is_descriptor = Source::of(flags).is_descriptor() || Source::of(flags) == Source::File;
    if is_descriptor && flags & FD_LOST != 0 {
        text.write_str(" what it watched is gone,")?;
    }
    if flags & RATE_LIMITED_NOW != 0 {
        text.write_str(" over its rate limit,")?;
    }
    if flags & RECORDS != 0 {
        text.write_str(" for evloop_wait,")?;
    }
    if info.enabled == 0 {
        text.write_str(" disabled,")?;
    }
    if info.referenced == 0 {
        text.write_str(" unreferenced,")?;
    }
    let is_alive = info.alive != 0 || flags & RATE_LIMITED_NOW != 0;
    text.write_str(if is_alive { " keeps the loop alive" } else { " does not keep the loop alive" })
}

/// Its name in quotes, on one line, if that can be had without waiting.
fn push_name(text: &mut DumpWriter, shared: &LoopShared, watcher: i64) {
    let Some(command_queue) = without_waiting(|| shared.owner.try_lock()) else { return };
    if let Some(name) = command_queue.names.get(&watcher) {
        push_quoted(text, name, NAME);
    }
}

/// Tries to get something a few times, as another thread may just have it.
fn without_waiting<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..TRIES {
        if let Some(found) = attempt() {
            return Some(found);
        }
        std::thread::yield_now();
    }
    None
}

/// The end of something, up to so many bytes, in quotes and on one line.
fn push_quoted(text: &mut DumpWriter, bytes: &[u8], most: usize) {
    text.push(b' ');
    text.push(b'"');
    let left_out = bytes.len().saturating_sub(most);
    if left_out > 0 {
        let _ = text.write_str("...");
    }
    for byte in bytes.iter().skip(left_out) {
        text.push(if byte.is_ascii_control() { b'?' } else { *byte });
    }
    text.push(b'"');
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Io => "io",
        Source::Timer => "timer",
        Source::Tfd => "tfd",
        Source::Async => "async",
        Source::Idle => "idle",
        Source::Prepare => "prepare",
        Source::Check => "check",
        Source::Defer => "defer",
        Source::Exit => "exit",
        Source::ClockChange => "clock_change",
        Source::Kqueue => "kqueue",
        Source::Signal => "signal",
        Source::Process => "process",
        Source::File => "file",
        Source::MemoryPressure => "memory_pressure",
    }
}
