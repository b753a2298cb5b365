//! Seeing inside an event loop: `evloop_stats*`, `evloop_trace_*`,
//! `evloop_set_watchdog`.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::{Result, fail};
use crate::event_loop::{self, HistogramKind, Output, Stats};
use crate::util::Out;
use crate::wait;

const _: () = assert!(EVLOOP_STATS_BUCKETS as usize == event_loop::BUCKETS);

fn which(which: c_int) -> Result<HistogramKind> {
    match which {
        EVLOOP_STATS_LATENESS => Ok(HistogramKind::Lateness),
        EVLOOP_STATS_CALLBACK => Ok(HistogramKind::Callback),
        _ => fail!(EINVAL, "histogram {} is unknown", which),
    }
}

/// Turns the counters of an event loop on or off.
///
/// Turning them on sets them to zero. Before the first call the loop counts
/// nothing, at no cost. While it counts, each callback costs one more read of
/// the processor's time stamp counter (of the clock, where the kernel does not
/// trust that counter): some twenty to thirty nanoseconds.
///
/// A callback is counted when it has returned, and only if it was called while
/// the counters were on; so a callback that turns them on is not counted. After
/// they are turned off the values can still be read.
///
/// @param loop a loop.
/// @param on 1 or 0; nothing happens if they are in that state already.
/// @returns 0.
///
/// Errors:
///   -EINVAL    on is neither 1 nor 0
///   -ENOMEM    no memory; 150 KB are needed
///
/// Threads: any; from a thread that does not run the loop it takes effect
/// before the loop next dispatches.
/// Fork: after evloop_after_fork() the child's loop continues to count.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_set_stats(r#loop: evloop_t, on: c_int) -> c_int {
    guard("evloop_set_stats", || {
        if !matches!(on, 0 | 1) {
            fail!(EINVAL, "on is {}, neither 0 nor 1", on);
        }
        event_loop::set_stats(r#loop, on == 1).map(|()| 0)
    })
}

/// Returns the counters of an event loop.
///
/// The call neither stops nor delays the loop. Each value is correct, but the
/// values are read one after the other: one may include an event that another
/// does not. The loop counts callbacks of descriptors in groups: a thread that
/// does not run the loop may miss up to 32 of them until the loop next waits,
/// or calls a callback of another kind. The thread that runs the loop misses
/// only the callback that is running.
///
/// iterations counts all calls of epoll_wait(); wakeups counts those that were
/// to wait, whether an event ended them or not. Events that evloop_wait()
/// returns are counted when the loop stores them for it. Callbacks outside of a
/// run (a notification of evloop_watcher_set_destroy() in the call that closes
/// a watcher of an idle loop) are not counted, not traced, and not seen by a
/// watchdog.
///
/// Only the longest callback has a name here, that of
/// evloop_watcher_set_name(). For the others set names and make a trace.
///
/// Times are real time with EVLOOP_VIRTUAL_TIME too; but lateness is on the
/// timer's clock, so it is virtual there.
///
/// @param loop a loop.
/// @param out_stats set its size first; it is filled up to that. What is beyond
///   this version's evloop_stats_t becomes 0.
/// @returns 0.
///
/// Errors:
///   -EINVAL    out_stats is NULL
///   -EINVAL    size is less than sizeof(size_t), such as 0: it was not set
///   -ENOENT    evloop_set_stats() was never called
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_stats(r#loop: evloop_t, out_stats: *mut Stats) -> c_int {
    guard("evloop_stats", || {
        // SAFETY: NULL, or a structure that begins with its size (C's duty).
        let size = unsafe { arg::out_size(out_stats, "out_stats") }?;
        let stats = Stats { size, ..event_loop::stats(r#loop)? };
        // SAFETY: as above; as many bytes are writable.
        unsafe { arg::write_sized(out_stats, size, stats) };
        Ok(0)
    })
}

/// Resets the counters of an event loop to zero.
///
/// A callback that is running is not counted when it returns; of a wait in
/// progress the rest is counted.
///
/// @param loop a loop.
/// @returns 0.
///
/// Errors:
///   -ENOENT    evloop_set_stats() was never called
///
/// Threads: any; it has taken effect when it returns.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stats_reset(r#loop: evloop_t) -> c_int {
    guard("evloop_stats_reset", || event_loop::stats_reset(r#loop).map(|()| 0))
}

/// Returns a histogram of an event loop: how many times of each length.
///
/// Buckets have two significant decimal digits: the first 100 are for 0 to 99
/// ns, the next 90 for 100 ns, 110 ns and so on to 990 ns, the next 90 for 1 us
/// to 9.9 us, and so on; see evloop_stats_bucket_ns().
///
/// @param loop a loop.
/// @param which EVLOOP_STATS_LATENESS or EVLOOP_STATS_CALLBACK.
/// @param out_counts filled from the front; may be NULL if cap is 0.
/// @param cap size of out_counts, in buckets.
/// @returns the number of buckets that there are, EVLOOP_STATS_BUCKETS.
///
/// Errors:
///   -EINVAL    an unknown histogram
///   -EINVAL    cap is negative, or out_counts is NULL and cap is not 0
///   -ENOENT    evloop_set_stats() was never called
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_stats_histogram(
    r#loop: evloop_t,
    which: c_int,
    out_counts: *mut u64,
    cap: c_int,
) -> c_int {
    guard("evloop_stats_histogram", || {
        let which = self::which(which)?;
        let cap = arg::entries(out_counts, cap, "out_counts")?;
        // SAFETY: the caller lends room for `cap` numbers at `out_counts`.
        let mut out = unsafe { Out::new(out_counts, cap) };
        arg::count(event_loop::stats_histogram(r#loop, which, &mut out)?)
    })
}

/// Returns the lower bound of a bucket of a histogram.
///
/// @param bucket 0 to EVLOOP_STATS_BUCKETS; a bucket ends where the next one
///   begins.
/// @returns nanoseconds.
///
/// Errors:
///   -EINVAL    there is no such bucket
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stats_bucket_ns(bucket: c_int) -> i64 {
    guard("evloop_stats_bucket_ns", || match usize::try_from(bucket) {
        Ok(index) if index <= event_loop::BUCKETS => Ok(event_loop::bucket_least(index)),
        _ => fail!(EINVAL, "there is no bucket {}", bucket),
    })
}

/// Returns a percentile of a histogram.
///
/// It is the time that this percentage of the counted times did not exceed.
///
/// @param loop a loop.
/// @param which EVLOOP_STATS_LATENESS or EVLOOP_STATS_CALLBACK.
/// @param percent 0 to 100: 50 is the median, 100 the maximum.
/// @returns nanoseconds: the maximum exactly, other percentiles as the last
///   value of their bucket, so up to a tenth more.
///
/// Errors:
///   -EINVAL    an unknown histogram
///   -EINVAL    percent is not from 0 to 100
///   -ENOENT    nothing was counted
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stats_percentile_ns(r#loop: evloop_t, which: c_int, percent: f64) -> i64 {
    guard("evloop_stats_percentile_ns", || {
        let which = self::which(which)?;
        if !(0.0..=100.0).contains(&percent) {
            fail!(EINVAL, "percent is not from 0 to 100");
        }
        event_loop::stats_percentile(r#loop, which, percent)
    })
}

/// Starts a trace of an event loop.
///
/// The loop records its waits, its callbacks with the names of their watchers,
/// and its iterations, each from the end of a wait to the beginning of the next
/// one. It keeps the last max_events of them in memory. evloop_trace_stop()
/// writes them to the file, as JSON for ui.perfetto.dev and Chrome's
/// about:tracing. So the loop never waits for a disk, and a trace can run until
/// something has happened. The trace does not include callbacks that are
/// running when it starts, nor their iteration.
///
/// The slices of the trace:
/// - A callback has the name of its watcher, see evloop_watcher_set_name().
///   Without a name it has the type and the handle, such as "timer
///   844424930131969"; a posted call is "post".
/// - A wait is "wait", or "look" if it was not to sleep; an iteration is
///   "iteration".
/// - The category (cat) is always the type.
/// - The args of callbacks are watcher, the handle; of timers late_us; of io
///   watchers fd and events, bits of EVLOOP_EPOLLIN and the like; of waits
///   found, the number of ready descriptors, the loop's own included; of
///   iterations dispatched, the number of events.
///
/// The loop keeps the names of the last max_events watchers that were closed.
///
/// If a trace is running when the loop is closed, the thread that closes the
/// loop or ends its run writes it, if there is memory for the text. A failure
/// of that is not reported. If the process ends first, nothing is written.
///
/// Names are cut at 128 bytes of UTF-8. The file has at most 1200 bytes for
/// each of max_events, and 2400 more.
///
/// @param loop a loop.
/// @param path a file, which this call creates or empties. Only this user may
///   read a file that it creates. A symbolic link is not followed (for
///   /dev/stdout see evloop_trace_start_fd()).
/// @param max_events the number of events to keep, 40 bytes each; 0: 100000.
/// @returns 0.
///
/// Errors:
///   -EEXIST    a trace of the loop is running or starting; the file is
///              unchanged
///   -EINVAL    path is NULL, or max_events is negative
///   -ENOENT, -ENOTDIR, -ENAMETOOLONG  path leads to no directory for the file
///   -ELOOP     path is a symbolic link, or leads through too many
///   -EACCES, -EPERM, -EROFS, -EISDIR, -ETXTBSY  the file is not writable
///   -ENXIO     path is a FIFO without a reader, or a socket
///   -EBUSY     another process has a lease of the file (fcntl(2)), or it is a
///              device in use
///   -ENODEV, -ENOSPC, -EDQUOT, -EIO  the file cannot be created or opened
///   -EMFILE, -ENFILE, -ENOMEM
///
/// Blocking: while the file system opens a file; it waits for no other process.
/// Threads: any; from a thread that does not run the loop the trace starts
/// before the loop next dispatches.
/// Fork: the trace does not continue in the child of evloop_after_fork().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_trace_start(
    r#loop: evloop_t,
    path: *const c_char,
    max_events: c_int,
) -> c_int {
    guard("evloop_trace_start", || {
        // SAFETY: NULL or a NUL-terminated string (C's duty).
        let path = unsafe { arg::path(path) }?;
        arg::not_negative(max_events.into(), "max_events")?;
        event_loop::trace_start(r#loop, Output::Path(path), max_events).map(|()| 0)
    })
}

/// Starts a trace of an event loop that goes to a descriptor.
///
/// As evloop_trace_start(), with a descriptor in place of the path.
///
/// @param loop a loop.
/// @param fd open for writing. It is duplicated: the caller may close it.
/// @param max_events as evloop_trace_start().
/// @returns 0.
///
/// Errors:
///   -EEXIST    a trace of the loop is running or starting
///   -EBADF     fd is not open, or not for writing
///   -EINVAL    max_events is negative, or fd is one of the library's own
///   -EMFILE, -ENOMEM
///
/// Threads, fork: as evloop_trace_start().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_trace_start_fd(r#loop: evloop_t, fd: c_int, max_events: c_int) -> c_int {
    guard("evloop_trace_start_fd", || {
        let fd = arg::fd(fd)?;
        arg::not_negative(max_events.into(), "max_events")?;
        event_loop::refuse_own(fd)?;
        wait::refuse_own(fd)?;
        event_loop::trace_start(r#loop, Output::Descriptor(fd), max_events).map(|()| 0)
    })
}

/// Stops a trace and writes it to its file.
///
/// The trace includes a callback that is running, marked "running", so it shows
/// a stuck callback too. Events before the last max_events are missing; the
/// result and the file have their number.
///
/// @param loop a loop.
/// @returns the number of missing events.
///
/// Errors:
///   -ENOENT    no trace is running
///   -ENOMEM    no memory. Recording has stopped and nothing was written: call
///              this again
///   -ENOSPC, -EDQUOT, -EFBIG, -EPIPE, -EIO  the trace has ended, but the file
///              is not complete; also other errors of write(2)
///   -EBADF     the trace has ended, and its descriptor was closed: nothing was
///              written
///   -ESTALE    also if another thread closed the loop during the call, and so
///              wrote the file
///
/// Blocking: until the file is written. A pipe without a reader raises SIGPIPE,
/// as with write(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_trace_stop(r#loop: evloop_t) -> i64 {
    guard("evloop_trace_stop", || event_loop::trace_stop(r#loop))
}

/// Sets a watchdog: a thread that reports callbacks which run too long.
///
/// The thread, "evloop-watchdog", checks the loop once in limit_ns. It blocks
/// all signals and has a stack of 2 MiB, whatever the environment says. It
/// calls callback once for a callback of the loop that has run longer than the
/// limit, and once more when that has returned (not if the watchdog is removed
/// first). So it needs no help from a stuck loop. It does not check a callback
/// that is running when the watchdog is set, also not the one that sets it, but
/// all later ones.
///
/// callback runs on the watchdog's thread. The library holds no lock, and
/// callback may call every function on every object, also this one and
/// evloop_close(). It must not wait for the stuck callback (EVLOOP_CLOSE_WAIT
/// does that) if that one may wait for the end of the watchdog. It must return:
/// neither longjmp() nor a C++ exception may leave it.
///
/// @param loop a loop.
/// @param limit_ns nanoseconds of real time; 0 removes the watchdog.
/// @param callback see evloop_watchdog_t; NULL removes the watchdog.
/// @param user_data passed to callback; may be NULL. It must stay valid until
///   another call of this, or evloop_close(), has returned; if the loop is
///   running at evloop_close(), until its run has returned.
/// @returns 0.
///
/// Errors:
///   -EINVAL    limit_ns is negative
///   -EAGAIN    no thread can be created
///   -ENOMEM    no memory; the previous watchdog stays
///
/// Blocking: until a running call of the watchdog's callback has returned,
/// unless this is that callback. So do evloop_close(), and the end of the run
/// of a closed loop.
/// Fork: after evloop_after_fork() the child's loop has a thread of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_set_watchdog(
    r#loop: evloop_t,
    limit_ns: i64,
    callback: evloop_watchdog_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_set_watchdog", || {
        let limit = arg::not_negative(limit_ns, "limit_ns")?;
        event_loop::set_watchdog(r#loop, limit, callback, user_data).map(|()| 0)
    })
}
