//! A trace as JSON, in the form that Perfetto and Chrome read.

use super::trace::{self, TraceEntry};
use crate::errno::Errno;
use crate::event_loop::flags::{CLOSED, POST, Source};
use crate::hash::Set;
use crate::sys::file;
use crate::util::alloc::TrySet;
use std::fmt::{self, Write as _};
use std::os::fd::RawFd;

/// The extra of a callback that had not returned.
pub(super) const RUNNING: u64 = u64::MAX;

/// Text on its way into a file, some of it at a time: the file may be large,
/// and there may be no memory.
pub(super) struct Page {
    fd: RawFd,
    text: [u8; 2048],
    len: usize,
    failed: Option<Errno>,
}

impl Page {
    pub fn new(fd: RawFd) -> Self {
        Self { fd, text: [0; 2048], len: 0, failed: None }
    }

    fn flush(&mut self) -> fmt::Result {
        let text = self.text.get(..self.len).unwrap_or_default();
        self.len = 0;
        if let Err(errno) = file::write_all(self.fd, text) {
            self.failed = Some(errno);
            return Err(fmt::Error);
        }
        Ok(())
    }
}

impl fmt::Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.len == self.text.len() {
                self.flush()?;
            }
            let free = self.text.get_mut(self.len..).unwrap_or_default();
            let count = free.len().min(rest.len());
            for (to, from) in free.iter_mut().zip(rest) {
                *to = *from;
            }
            self.len += count;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }
}

/// So many bytes of UTF-8 of a name are written, and no more.
pub(in crate::event_loop) const NAME: usize = 128;

/// A string of JSON, cut at [`NAME`] bytes, not inside a character; what is
/// not UTF-8 in it becomes U+FFFD.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_char('"')?;
        let mut free = NAME;
        let fits = |c: &char| match free.checked_sub(c.len_utf8()) {
            Some(rest) => {
                free = rest;
                true
            }
            None => false,
        };
        for c in characters(self.0).take_while(fits) {
            match c {
                '"' | '\\' => write!(to, "\\{c}")?,
                '\0'..='\x1f' | '\x7f' => write!(to, "\\u{:04x}", u32::from(c))?,
                _ => to.write_char(c)?,
            }
        }
        to.write_char('"')
    }
}

/// The characters of a text; what is not UTF-8 in it is U+FFFD.
fn characters(text: &[u8]) -> impl Iterator<Item = char> {
    text.utf8_chunks().flat_map(|chunk| {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    })
}

/// Microseconds, with the nanoseconds behind the point.
struct Micros(i64);

impl fmt::Display for Micros {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}.{:03}", self.0 / 1000, (self.0 % 1000).abs())
    }
}

/// What an event's type is called.
pub(super) fn name_of(kind: i32) -> &'static str {
    const NAMES: [(i32, &str); 20] = [
        (Source::Io as i32, "io"),
        (Source::Timer as i32, "timer"),
        (Source::Tfd as i32, "tfd"),
        (Source::Async as i32, "async"),
        (Source::Idle as i32, "idle"),
        (Source::Prepare as i32, "prepare"),
        (Source::Check as i32, "check"),
        (Source::Defer as i32, "defer"),
        (Source::Exit as i32, "exit"),
        (Source::ClockChange as i32, "clock_change"),
        (POST, "post"),
        (CLOSED, "closed"),
        (Source::Kqueue as i32, "kqueue"),
        (14, "signal"),
        (15, "process"),
        (16, "file"),
        (17, "memory_pressure"),
        (trace::WAIT, "wait"),
        (trace::POLL, "look"),
        (trace::ITERATION, "iteration"),
    ];
    NAMES.iter().find(|(known, _)| *known == kind).map_or("callback", |(_, name)| name)
}

/// Writes all of it.
pub(super) fn write<'a>(
    page: &mut Page,
    entries: &[(i32, TraceEntry)],
    name: &dyn Fn(i64) -> &'a [u8],
    dropped: u64,
    [began, ended]: [i64; 2],
) -> Result<(), Errno> {
    let written = head(page, dropped, began, ended)
        .and_then(|()| threads(page, entries))
        .and_then(|()| entries.iter().try_for_each(|(thread, one)| entry(page, *thread, one, name)))
        .and_then(|()| page.write_str("\n]}\n"))
        .and_then(|()| page.flush());
    match written {
        Ok(()) => Ok(()),
        Err(fmt::Error) => Err(page.failed.unwrap_or(Errno::ENOTRECOVERABLE)),
    }
}

fn head(page: &mut Page, dropped: u64, began: i64, ended: i64) -> fmt::Result {
    let process = std::process::id();
    write!(
        page,
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"made by\":\"libevloop {}\",\
         \"clock\":\"CLOCK_MONOTONIC\",\"began_us\":{},\"ended_us\":{},\
         \"dropped_events\":{dropped}}},\n\"traceEvents\":[\n",
        env!("CARGO_PKG_VERSION"),
        Micros(began),
        Micros(ended),
    )?;
    let mut buffer = [0; 64];
    let command = file::read_start(c"/proc/self/comm", &mut buffer).unwrap_or_default();
    write!(
        page,
        "{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{process},\"tid\":0,\
         \"args\":{{\"name\":{}}}}}",
        Quoted(command.trim_ascii()),
    )?;
    if dropped > 0 {
        write!(
            page,
            ",\n{{\"ph\":\"i\",\"s\":\"p\",\"name\":\"{dropped} earlier events were dropped\",\
             \"ts\":{},\"pid\":{process},\"tid\":0}}",
            Micros(began),
        )?;
    }
    Ok(())
}

/// The names of the threads, each once.
fn threads(page: &mut Page, entries: &[(i32, TraceEntry)]) -> fmt::Result {
    let mut last = 0;
    let mut named = Set::default();
    for (thread, _) in entries {
        // Mostly it is always the same one. Without memory some are named
        // again.
        if *thread == last || named.contains(thread) {
            continue;
        }
        last = *thread;
        if named.try_reserve(1).is_ok() {
            named.insert_reserved(*thread);
        }
        let mut path = [0; 48];
        // Room for every number, and for the NUL byte behind it.
        let _ = std::io::Write::write_fmt(
            &mut path.as_mut_slice(),
            format_args!("/proc/self/task/{thread}/comm"),
        );
        let path = std::ffi::CStr::from_bytes_until_nul(&path).unwrap_or(c"");
        let mut buffer = [0; 64];
        let name = file::read_start(path, &mut buffer).unwrap_or(b"(ended)");
        write!(
            page,
            ",\n{{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":{},\"tid\":{thread},\
             \"args\":{{\"name\":{}}}}}",
            std::process::id(),
            Quoted(name.trim_ascii()),
        )?;
    }
    Ok(())
}

fn entry<'a>(
    page: &mut Page,
    thread: i32,
    entry: &TraceEntry,
    name: &dyn Fn(i64) -> &'a [u8],
) -> fmt::Result {
    let &TraceEntry { kind, handle, start, end, extra } = entry;
    let category = name_of(kind);
    page.write_str(",\n{\"ph\":\"X\",\"name\":")?;
    match name(handle) {
        b"" if handle != 0 => write!(page, "\"{category} {handle}\"")?,
        b"" => write!(page, "\"{category}\"")?,
        name => write!(page, "{}", Quoted(name))?,
    }
    write!(
        page,
        ",\"cat\":\"{category}\",\"pid\":{},\"tid\":{thread},\"ts\":{},\"dur\":{},\"args\":{{",
        std::process::id(),
        Micros(start),
        Micros(end.saturating_sub(start).max(0)),
    )?;
    if handle != 0 {
        write!(page, "\"watcher\":{handle}")?;
    }
    let comma = if handle != 0 { "," } else { "" };
    match kind {
        _ if extra == RUNNING => write!(page, "{comma}\"running\":true")?,
        trace::WAIT | trace::POLL => write!(page, "\"found\":{extra}")?,
        trace::ITERATION => write!(page, "\"dispatched\":{extra}")?,
        kind if kind == Source::Timer as i32 => {
            write!(page, ",\"late_us\":{}", Micros(extra.cast_signed()))?;
        }
        kind if kind == Source::Io as i32 => {
            let (events, fd) = ((extra >> 32) as u32, extra as u32 as i32);
            write!(page, ",\"fd\":{fd},\"events\":{events}")?;
        }
        _ => {}
    }
    page.write_str("}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_escaped() {
        let quoted = |name| Quoted(name).to_string();
        assert_eq!(quoted(b"plain"), "\"plain\"");
        assert_eq!(quoted(b"a\"b\\c\n\x01\x7f"), r#""a\"b\\c\u000a\u0001\u007f""#);
        assert_eq!(quoted(b"\xff\xc3\xa4"), "\"\u{fffd}\u{e4}\"");
        assert_eq!(format!("{} {}", Micros(1_234_567), Micros(5)), "1234.567 0.005");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let cut_to = |name: &[u8]| {
            let quoted = Quoted(name).to_string();
            quoted.chars().filter(|c| *c != '"').collect::<String>()
        };
        assert_eq!(cut_to(&[b'x'; 1 << 20]), "x".repeat(128));
        // Of two bytes, three and four.
        for c in ["\u{e4}", "\u{20ac}", "\u{1f4a9}"] {
            for before in 0..4 {
                let name = "y".repeat(before) + &c.repeat(200);
                let count = (128 - before) / c.len();
                assert_eq!(cut_to(name.as_bytes()), "y".repeat(before) + &c.repeat(count));
            }
        }
        assert_eq!(cut_to(&[0xff; 1000]), "\u{fffd}".repeat(42));
    }

    /// As the header has it.
    const MOST: usize = 1200;

    #[test]
    fn an_event_takes_no_more_bytes_than_the_header_says() {
        let file = std::fs::File::from(memfd());
        let mut page = Page::new(std::os::fd::AsRawFd::as_raw_fd(&file));
        let handle = (1i64 << 53) - 1;
        for kind in -1..80 {
            let extra = u64::MAX - 1;
            let one = TraceEntry { kind, handle, start: i64::MIN, end: i64::MAX, extra };
            entry(&mut page, i32::MIN, &one, &|_| &[1; 4096]).unwrap();
            page.flush().unwrap();
            let line = file.metadata().unwrap().len() as usize;
            file.set_len(0).unwrap();
            std::io::Seek::rewind(&mut &file).unwrap();
            assert!(line > 800 && line < MOST - 200, "{line} bytes for an event of type {kind}");
        }
    }

    fn memfd() -> std::os::fd::OwnedFd {
        // SAFETY: the name is NUL-terminated.
        let fd = unsafe { libc::memfd_create(c"trace".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: it has just been made.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
    }
}
