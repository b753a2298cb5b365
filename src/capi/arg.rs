//! The checks of what C hands over: pointers, flags, sizes, descriptors.

use super::types::*;
use crate::errno::{Errno, Error, Result, error, fail};
use crate::event_loop::{self, Event, Options};
use crate::handle::{self, Kind};
use crate::poller::selector::Backend;
use crate::sys::clock::{self, Deadline, NS_PER_S};
use crate::sys::epoll::BusyPoll;
use crate::sys::interrupt::InterruptMode;
use crate::util::Out;
use crate::util::alloc::TryVecCopy;
use std::ffi::{CStr, c_char, c_int, c_void};

/// Refuses unknown bits.
pub(super) fn flags(flags: u32, known: u32) -> Result<()> {
    if flags & !known != 0 {
        fail!(EINVAL, "flags {} are unknown; {} are known", flags & !known, known);
    }
    Ok(())
}

/// The flags of `tfd_settime`.
pub(super) fn settime_flags(bits: u32) -> Result<u32> {
    flags(bits, EVLOOP_TFD_TIMER_ABSTIME | EVLOOP_TFD_TIMER_CANCEL_ON_SET)?;
    Ok(bits)
}

const POLL_EVENTS: u32 = EVLOOP_POLLIN
    | EVLOOP_POLLPRI
    | EVLOOP_POLLOUT
    | EVLOOP_POLLERR
    | EVLOOP_POLLHUP
    | EVLOOP_POLLNVAL
    | EVLOOP_POLLRDNORM
    | EVLOOP_POLLRDBAND
    | EVLOOP_POLLWRNORM
    | EVLOOP_POLLWRBAND
    | EVLOOP_POLLMSG
    | EVLOOP_POLLRDHUP;

const EPOLL_EVENTS: u32 = (POLL_EVENTS & !EVLOOP_POLLNVAL)
    | EVLOOP_EPOLLEXCLUSIVE
    | EVLOOP_EPOLLWAKEUP
    | EVLOOP_EPOLLONESHOT
    | EVLOOP_EPOLLET;

pub(super) fn poll_events(events: u32) -> Result<u32> {
    flags(events, POLL_EVENTS)?;
    Ok(events)
}

pub(super) fn epoll_events(events: u32) -> Result<u32> {
    flags(events, EPOLL_EVENTS)?;
    Ok(events)
}

pub(super) fn selector_events(events: u32) -> Result<u32> {
    flags(events, EVLOOP_SELECTOR_READ | EVLOOP_SELECTOR_WRITE)?;
    if events == 0 {
        fail!(EINVAL, "no events: READ, WRITE or both are needed");
    }
    Ok(events)
}

pub(super) fn fd(fd: c_int) -> Result<c_int> {
    if fd < 0 {
        fail!(EBADF, "fd {} is negative", fd);
    }
    Ok(fd)
}

pub(super) fn interrupt_mode(mode: c_int) -> Result<InterruptMode> {
    match mode {
        EVLOOP_EINTR_RESTART => Ok(InterruptMode::Restart),
        EVLOOP_EINTR_RETURN => Ok(InterruptMode::Return),
        _ => fail!(EINVAL, "interrupt mode {} is unknown", mode),
    }
}

pub(super) fn kind(code: c_int) -> Result<Kind> {
    match handle::kind_from_code(code) {
        Some(kind) => Ok(kind),
        None => fail!(EINVAL, "kind {} is unknown", code),
    }
}

pub(super) fn backend(code: c_int) -> Result<Backend> {
    match code {
        EVLOOP_SELECTOR_DEFAULT | EVLOOP_SELECTOR_EPOLL => Ok(Backend::Epoll),
        EVLOOP_SELECTOR_SELECT => Ok(Backend::Select),
        EVLOOP_SELECTOR_POLL => Ok(Backend::Poll),
        EVLOOP_SELECTOR_DEVPOLL => Ok(Backend::DevPoll),
        EVLOOP_SELECTOR_KQUEUE => Ok(Backend::Kqueue),
        _ => fail!(EINVAL, "selector backend {} is unknown", code),
    }
}

/// An interval, which is positive.
pub(super) fn interval(interval: i64) -> Result<i64> {
    if interval < 1 {
        fail!(EINVAL, "interval_ns is {}, not at least 1", interval);
    }
    Ok(interval)
}

/// The error for a mode of evloop_run that there is not.
pub(super) fn unknown_mode(mode: c_int) -> Error {
    error!(Errno::EINVAL, "mode {} is unknown", mode)
}

/// The error for flags that exclude each other.
pub(super) fn contradiction(flags: &'static str) -> Error {
    error!(Errno::EINVAL, "the flags {} exclude each other", flags)
}

pub(super) fn not_negative(number: i64, name: &'static str) -> Result<i64> {
    if number < 0 {
        fail!(EINVAL, "{} is {}, negative", name, number);
    }
    Ok(number)
}

pub(super) fn burst(interval: i64, burst: c_int) -> Result<c_int> {
    if interval > 0 && burst < 1 {
        fail!(EINVAL, "burst is {}, not at least 1", burst);
    }
    Ok(burst)
}

/// How network devices are polled.
pub(super) fn busy_poll(usecs: u32, budget: c_int, prefer: c_int) -> Result<BusyPoll> {
    let Ok(budget) = u16::try_from(budget) else {
        fail!(EINVAL, "budget is {}, not from 0 to 65535", budget);
    };
    if i32::try_from(usecs).is_err() {
        fail!(EINVAL, "usecs is {}, more than 2147483647", i64::from(usecs));
    }
    if !matches!(prefer, 0 | 1) {
        fail!(EINVAL, "prefer is {}, neither 0 nor 1", prefer);
    }
    Ok(BusyPoll { usecs, budget, prefer: prefer == 1 })
}

/// The index of a clock.
pub(super) fn clock(id: c_int) -> Result<usize> {
    match event_loop::clock_index(id) {
        Some(index) => Ok(index),
        None => fail!(EINVAL, "clock {} is unknown", id),
    }
}

const LOOP_FLAGS: u32 = EVLOOP_VIRTUAL_TIME
    | EVLOOP_AUTO_ADVANCE
    | EVLOOP_PRECISE
    | EVLOOP_KEEP_ALIVE
    | EVLOOP_INTERRUPTIBLE
    | EVLOOP_CHECK_FDS;

/// The options of a new loop, checked.
///
/// # Safety
/// `options` is NULL or valid for reading as many bytes as it says it has.
pub(super) unsafe fn options(options: *const Options) -> Result<Options> {
    let mut own = Options::default();
    if options.is_null() {
        return Ok(own);
    }
    // SAFETY: not NULL, so its first member, the size, is readable.
    let size = unsafe { options.cast::<usize>().read() };
    if size < size_of::<usize>() {
        fail!(EINVAL, "size is {}, less than that of the member itself", size as i64);
    }
    let known = size.min(size_of::<Options>());
    let bytes = options.cast::<u8>();
    // SAFETY: `known` bytes are readable (this function's contract), and any
    // bytes are valid options.
    unsafe { std::ptr::copy_nonoverlapping(bytes, (&raw mut own).cast(), known) };
    for i in known..size {
        // SAFETY: as many bytes are readable as `size` says.
        let byte = unsafe { bytes.add(i) };
        // SAFETY: as above.
        if unsafe { byte.read() } != 0 {
            fail!(E2BIG, "size is {}, and byte {} is not zero", size as i64, i as i64);
        }
    }
    flags(own.flags, LOOP_FLAGS)?;
    not_negative(own.max_events.into(), "max_events")?;
    not_negative(own.max_timers.into(), "max_timers")?;
    not_negative(own.max_posts.into(), "max_posts")?;
    not_negative(own.timer_tolerance_ns, "timer_tolerance_ns")?;
    not_negative(own.virtual_grace_ns, "virtual_grace_ns")?;
    Ok(own)
}

/// The size that a caller's structure says it has.
///
/// # Safety
/// `out` is NULL or begins with a readable size.
pub(super) unsafe fn out_size<T>(out: *const T, name: &'static str) -> Result<usize> {
    if out.is_null() {
        fail!(EINVAL, "{} is NULL", name);
    }
    // SAFETY: not NULL, so its first member, the size, is readable.
    let size = unsafe { out.cast::<usize>().read() };
    if size < size_of::<usize>() {
        fail!(EINVAL, "size is {}, less than that of the member itself", size as i64);
    }
    Ok(size)
}

/// Fills a caller's structure as far as it goes; what this version does not
/// know of becomes zero.
///
/// # Safety
/// `size` bytes at `out` are writable.
pub(super) unsafe fn write_sized<T>(out: *mut T, size: usize, value: T) {
    let known = size.min(size_of::<T>());
    let bytes = out.cast::<u8>();
    // SAFETY: as many bytes are writable (this function's contract).
    unsafe { std::ptr::copy_nonoverlapping((&raw const value).cast(), bytes, known) };
    // SAFETY: inside what is writable, or just behind it.
    let rest = unsafe { bytes.add(known) };
    // SAFETY: as above.
    unsafe { rest.write_bytes(0, size - known) };
}

/// The caller's path.
///
/// # Safety
/// `path` is NULL or NUL-terminated, and stays so for as long as `'a`.
pub(super) unsafe fn path<'a>(path: *const c_char) -> Result<&'a CStr> {
    if path.is_null() {
        fail!(EINVAL, "path is NULL");
    }
    // SAFETY: not NULL, so NUL-terminated (this function's contract).
    Ok(unsafe { CStr::from_ptr(path) })
}

/// The caller's array for events or other results of a wait.
///
/// # Safety
/// `out` is NULL or valid for writing `max` entries for as long as the result
/// is used.
pub(super) unsafe fn results_out<T: Copy>(
    out: *mut T,
    max: c_int,
    name: &'static str,
) -> Result<Out<T>> {
    if max <= 0 {
        fail!(EINVAL, "max is {}, not at least 1", max);
    }
    if out.is_null() {
        fail!(EINVAL, "{} is NULL", name);
    }
    // SAFETY: not NULL, so valid for `max` entries (this function's contract).
    Ok(unsafe { Out::new(out, usize::try_from(max).unwrap_or_default()) })
}

/// The caller's string.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and stays so for as long as `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Result<Option<&'a [u8]>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, so NUL-terminated (this function's contract).
    Ok(Some(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// A number of things, as C returns it.
pub(super) fn count(count: usize) -> Result<c_int> {
    match c_int::try_from(count) {
        Ok(count) => Ok(count),
        Err(_) => fail!(EOVERFLOW, "more than an int can count"),
    }
}

/// The event that a function returns more about; `out` is the place for that.
///
/// # Safety
/// `event` is NULL or valid.
pub(super) unsafe fn event<'a, T>(event: *const Event, out: *mut T) -> Result<&'a Event> {
    // SAFETY: NULL or valid (this function's contract).
    match unsafe { event.as_ref() } {
        None => fail!(EINVAL, "event is NULL"),
        Some(_) if out.is_null() => fail!(EINVAL, "the place for the result is NULL"),
        Some(event) => Ok(event),
    }
}

/// Stores an output that may be NULL.
///
/// # Safety
/// `out` is NULL or valid for writing a `T`.
pub(super) unsafe fn write_out<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: not NULL, so valid (this function's contract).
        unsafe { out.write(value) };
    }
}

/// The number of entries of an array that is not there if there are none.
pub(super) fn entries<T>(array: *const T, count: c_int, name: &'static str) -> Result<usize> {
    let Ok(entries) = usize::try_from(count) else {
        fail!(EINVAL, "the number of {} is {}, negative", name, count);
    };
    if entries > 0 && array.is_null() {
        fail!(EINVAL, "{} is NULL, but their number {}", name, count);
    }
    Ok(entries)
}

/// The end of a wait of so much time; NULL: none.
///
/// # Safety
/// `timeout` is NULL or valid for reading.
pub(super) unsafe fn deadline(timeout: *const libc::timespec) -> Result<Deadline> {
    // SAFETY: NULL or valid (this function's contract).
    let Some(timeout) = (unsafe { timeout.as_ref() }) else { return Ok(Deadline::Never) };
    if timeout.tv_sec < 0 || !(0..NS_PER_S).contains(&timeout.tv_nsec) {
        let (seconds, nanoseconds) = (timeout.tv_sec, timeout.tv_nsec);
        fail!(EINVAL, "timeout is {} s and {} ns", seconds, nanoseconds);
    }
    Ok(Deadline::after(clock::to_ns(timeout)))
}

/// The length of a caller's buffer for data.
pub(super) fn buffer(buffer: *const c_void, count: i64) -> Result<usize> {
    let count = usize::try_from(not_negative(count, "count")?).unwrap_or(usize::MAX);
    if count > 0 && buffer.is_null() {
        fail!(EINVAL, "buffer is NULL, but count {}", count as i64);
    }
    Ok(count)
}

/// The caller's buffer for text.
///
/// # Safety
/// `buf` is NULL or valid for writing `cap` bytes for as long as the result is
/// used.
pub(super) unsafe fn bytes_out(buf: *mut c_char, cap: usize) -> Result<Out<u8>> {
    match (buf.is_null(), cap) {
        (_, 0) => Ok(Out::none()),
        (true, _) => fail!(EINVAL, "buf is NULL"),
        // SAFETY: valid for `cap` bytes (this function's contract).
        (false, _) => Ok(unsafe { Out::new(buf.cast(), cap) }),
    }
}

/// One of select's lists: a copy to work on, since C may pass one array for
/// two lists, and a failed call must leave it as it was.
pub(super) struct SelectFds {
    pub fds: Vec<c_int>,
    array: *mut c_int,
    count: *mut c_int,
}

impl SelectFds {
    /// # Safety
    /// `count` is NULL or valid for reading and writing while this lives, and
    /// `array` NULL or valid for as many entries.
    pub unsafe fn new(array: *mut c_int, count: *mut c_int, name: &'static str) -> Result<Self> {
        let mut list = Self { fds: Vec::new(), array, count };
        if count.is_null() {
            return Ok(list);
        }
        // SAFETY: not NULL, so readable (this function's contract).
        let given = unsafe { count.read() };
        let Ok(len) = usize::try_from(given) else {
            fail!(EINVAL, "the count {} is {}, negative", name, given);
        };
        if len == 0 {
            return Ok(list);
        }
        if array.is_null() {
            fail!(EINVAL, "the list is NULL but its count {} is {}", name, given);
        }
        // SAFETY: that many entries are readable (this function's contract).
        let given_fds = unsafe { std::slice::from_raw_parts(array, len) };
        if list.fds.try_copy_from(given_fds).is_err() {
            fail!(ENOMEM, "no memory for {} descriptors", given);
        }
        Ok(list)
    }

    /// Writes back what is left of the list.
    pub fn store(&self) {
        if self.count.is_null() {
            return;
        }
        // SAFETY: the list only ever gets shorter, so it fits (contract of
        // `new`); `array` may be NULL only for an empty one.
        unsafe { std::ptr::copy(self.fds.as_ptr(), self.array, self.fds.len()) };
        let left = c_int::try_from(self.fds.len()).unwrap_or(c_int::MAX);
        // SAFETY: not NULL, so writable (contract of `new`).
        unsafe { self.count.write(left) };
    }
}
