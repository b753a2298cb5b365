//! What a loop has, in words: evloop_dump.

use super::desk::Desk;
use super::flags::*;
use super::inspect::{WatcherInfo, keeps_loop_alive, read};
use super::named::{Named, named};
use super::record::Record;
use crate::errno::{Errno, Result, error, fail};
use crate::sync::Ordering::Relaxed;
use crate::sys::{clock, sigpipe};
use crate::table::Kind;
use std::fmt::{self, Write as _};
use std::ops::ControlFlow;
use std::os::fd::RawFd;

/// Lines are collected up to this many bytes, then written.
const ROOM: usize = 1024;
/// No line is longer.
const LINE: usize = 512;
/// So much of a name is shown.
const NAME: usize = 64;
/// How often a lock is tried for a name.
const TRIES: usize = 1000;

/// See evloop_dump; how many watchers there are.
pub(crate) fn dump(handle: i64, fd: RawFd) -> Result<usize> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    let mut text = Text::new(fd);
    let (mut count, mut alive) = (0, 0);
    named.each_watcher(|_, _, record| {
        count += 1;
        alive += usize::from(keeps_loop_alive(named.desk, record));
        ControlFlow::Continue(())
    });
    let mut result = text.line(|text| describe_loop(text, &named, count, alive));
    let mut written = 0;
    named.each_watcher(|watcher, _, record| {
        if result.is_ok() {
            result = text.line(|text| describe(text, &named, watcher, record));
            written += 1;
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match result.and_then(|()| text.flush()) {
        Ok(()) if named.is_open() => Ok(written),
        Ok(()) => fail!(ESTALE, "loop {} was closed during the call", handle),
        Err(errno) => Err(error!(errno, "fd {} could not be written to", fd)),
    }
}

/// Text on its way to a descriptor; needs no memory but its own.
struct Text {
    fd: RawFd,
    room: [u8; ROOM],
    len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        piece.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

impl Text {
    fn new(fd: RawFd) -> Self {
        Self { fd, room: [0; ROOM], len: 0 }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.room.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// One line, for which there is room.
    fn line(
        &mut self,
        write: impl FnOnce(&mut Self) -> fmt::Result,
    ) -> std::result::Result<(), Errno> {
        if self.len + LINE > ROOM {
            self.flush()?;
        }
        // What does not fit is cut: there is no error to see.
        let _ = write(self);
        self.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), Errno> {
        let text = self.room.get(..self.len).unwrap_or_default();
        self.len = 0;
        sigpipe::write_all(self.fd, text)
    }
}

fn describe_loop(text: &mut Text, named: &Named, count: usize, alive: usize) -> fmt::Result {
    let desk = named.desk;
    write!(text, "loop {}: {count} watchers, {alive} keep it alive", named.handle.pack())?;
    match desk.posts.load(Relaxed) {
        0 if desk.mail.has_letters() => text.write_str(", posted calls")?,
        0 => {}
        posts => write!(text, ", {posts} posted calls")?,
    }
    if desk.options.load(Relaxed) & super::KEEP_ALIVE != 0 {
        text.write_str(", KEEP_ALIVE")?;
    }
    if desk.failures.load(Relaxed) > 0 {
        text.write_str(", errors to be reported")?;
    }
    Ok(())
}

fn describe(text: &mut Text, named: &Named, watcher: i64, record: &Record) -> fmt::Result {
    let desk = named.desk;
    let flags = record.flags.load(Relaxed);
    let Some((_, info)) = record.look(desk, |record| read(desk, record)) else {
        return write!(text, "  watcher {watcher}: was just closed");
    };
    write!(text, "  {} {watcher}", word(Source::of(flags)))?;
    if flags & NAMED != 0 {
        push_name(text, desk, watcher);
    }
    text.write_char(':')?;
    describe_source(text, desk, &info, flags)?;
    describe_state(text, &info, flags)
}

fn describe_source(text: &mut Text, desk: &Desk, info: &WatcherInfo, flags: u32) -> fmt::Result {
    match Source::of(flags) {
        Source::Io => {
            write!(text, " fd {}, events", info.fd)?;
            describe_events(text, info.events)?;
            text.write_char(',')
        }
        Source::Timer => describe_timer(text, desk, info, flags),
        Source::Signal => write!(text, " signal {},", info.subject),
        Source::Process => write!(text, " process {},", info.subject),
        Source::Tfd | Source::Kqueue => write!(text, " of handle {},", info.subject),
        _ => Ok(()),
    }
}

fn describe_events(text: &mut Text, events: u32) -> fmt::Result {
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
    let mut left = events;
    for (bit, name) in NAMES.iter().filter(|(bit, _)| events & bit != 0) {
        write!(text, " {name}")?;
        left &= !bit;
    }
    if left != 0 || events == 0 { write!(text, " {left:#x}") } else { Ok(()) }
}

fn describe_timer(text: &mut Text, desk: &Desk, info: &WatcherInfo, flags: u32) -> fmt::Result {
    if flags & (SET | COMING) == 0 {
        return text.write_str(" not set,");
    }
    if info.deadline_ns == i64::MAX {
        text.write_str(" set,")?;
    } else {
        let now = desk.now((flags >> QUEUE_SHIFT & CLOCK_MASK) as usize);
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

fn describe_state(text: &mut Text, info: &WatcherInfo, flags: u32) -> fmt::Result {
    let is_descriptor = Source::of(flags).is_descriptor() || Source::of(flags) == Source::File;
    if is_descriptor && flags & DEAD != 0 {
        text.write_str(" what it watched is gone,")?;
    }
    if flags & SUSPENDED != 0 {
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
    let is_alive = info.alive != 0 || flags & SUSPENDED != 0;
    text.write_str(if is_alive { " keeps the loop alive" } else { " does not keep the loop alive" })
}

/// Its name in quotes, on one line, if that can be had without waiting.
fn push_name(text: &mut Text, desk: &Desk, watcher: i64) {
    for _ in 0..TRIES {
        let Some(gate) = desk.lease.try_lock() else {
            std::thread::yield_now();
            continue;
        };
        let Some(name) = gate.names.get(&watcher) else { return };
        text.push(b' ');
        text.push(b'"');
        for byte in name.iter().take(NAME) {
            text.push(if byte.is_ascii_control() { b'?' } else { *byte });
        }
        return text.push(b'"');
    }
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
