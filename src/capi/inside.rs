//! Seeing inside an event loop: `evloop_stats*`, `evloop_trace_*`,
//! `evloop_set_watchdog`.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::{Result, fail};
use crate::reactor::{self, Output, Stats, Which};
use crate::util::Out;
use crate::waiters;

const _: () = assert!(EVLOOP_STATS_BUCKETS as usize == reactor::BUCKETS);

fn which(which: c_int) -> Result<Which> {
    match which {
        EVLOOP_STATS_LATENESS => Ok(Which::Lateness),
        EVLOOP_STATS_CALLBACK => Ok(Which::Callback),
        _ => fail!(EINVAL, "histogram {} is unknown", which),
    }
}

/// Have an event loop count what it does, or no more.
///
/// It begins with zeros. Until this is first called nothing is counted, and
/// nothing is spent on it. While it counts, a callback costs one more reading
/// of the processor's counter (of the clock, where the kernel does not trust
/// that one): some twenty to thirty nanoseconds.
///
/// A callback is counted when it has returned, and only if it was called
/// while the loop counted: one that calls this is not. What was counted
/// stays to be read when it is turned off.
///
/// @param loop a loop.
/// @param on 1 or 0; nothing happens if it is so already.
/// @returns 0. -EINVAL: on is neither. -ENOMEM: 150 KB are needed. -ECHILD:
///   used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; from another thread than that which runs the
/// loop it begins, and ends, before the loop next dispatches. Signals: not
/// safe. Fork: -ECHILD; the child of evloop_after_fork() goes on counting.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_set_stats(r#loop: evloop_t, on: c_int) -> c_int {
    guard("evloop_set_stats", || {
        if !matches!(on, 0 | 1) {
            fail!(EINVAL, "on is {}, neither 0 nor 1", on);
        }
        reactor::set_stats(r#loop, on == 1).map(|()| 0)
    })
}

/// What an event loop has done since it began to count.
///
/// The loop is not stopped, and does not notice. Each figure is right, but
/// they are read one after the other: one may have an event in it that
/// another has not. Callbacks of descriptors are counted some at a time: a
/// thread that does not run the loop may miss up to 32 of them until the
/// loop next waits, or calls a callback of another kind. The thread that
/// runs it misses none but the one that is running.
///
/// iterations are the loop's calls of epoll_wait(), those that were not to
/// wait included; wakeups are only those that were to, whether something had
/// happened by then or not. Events that evloop_wait() returns are counted
/// when they are kept for it. What is called without the loop being run (a
/// notification of evloop_watcher_set_destroy(), inside the call that closes
/// a watcher of an idle loop) is not counted, nor traced, nor looked at by a
/// watchdog.
///
/// Of all callbacks only the longest has a name, that of
/// evloop_watcher_set_name(): give names, and make a trace for the others.
///
/// Times are real ones with EVLOOP_VIRTUAL_TIME, too; but lateness is on the
/// timer's clock, so it is virtual there.
///
/// @param loop a loop.
/// @param out_stats its size is to be set; filled up to that. What is beyond
///   this version's evloop_stats_t becomes 0.
/// @returns 0. -EINVAL: out_stats is NULL, or its size less than
///   sizeof(size_t), such as 0: it was not set. -ENOENT: evloop_set_stats()
///   was never called. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_stats(r#loop: evloop_t, out_stats: *mut Stats) -> c_int {
    guard("evloop_stats", || {
        // SAFETY: NULL, or a structure that begins with its size (C's duty).
        let size = unsafe { arg::out_size(out_stats, "out_stats") }?;
        let stats = Stats { size, ..reactor::stats(r#loop)? };
        // SAFETY: as above; as many bytes are writable.
        unsafe { arg::write_sized(out_stats, size, stats) };
        Ok(0)
    })
}

/// Begin to count at zero again.
///
/// A callback that is running is not counted when it returns; of a sleep,
/// what comes after this is.
///
/// @param loop a loop.
/// @returns 0. -ENOENT: evloop_set_stats() was never called. -ECHILD: used
///   after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; done when it returns. Signals: not safe.
/// Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stats_reset(r#loop: evloop_t) -> c_int {
    guard("evloop_stats_reset", || reactor::stats_reset(r#loop).map(|()| 0))
}

/// How many times of each length an event loop has counted.
///
/// Buckets have two significant decimal digits: the first 100 are for 0 to
/// 99 ns, the next 90 for 100 ns, 110 ns and so on to 990 ns, the next 90 for
/// 1 us to 9.9 us, and so on; see evloop_stats_bucket_ns().
///
/// @param loop a loop.
/// @param which EVLOOP_STATS_LATENESS or EVLOOP_STATS_CALLBACK.
/// @param out_counts filled from the front; may be NULL if cap is 0.
/// @param cap room in out_counts, in buckets.
/// @returns the number of buckets there are, EVLOOP_STATS_BUCKETS. -EINVAL:
///   an unknown histogram, a negative cap, or out_counts is NULL. -ENOENT:
///   evloop_set_stats() was never called. -ECHILD: used after fork. -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking, threads, signals, fork: as evloop_stats(). Since 0.1.0.
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
        arg::count(reactor::stats_histogram(r#loop, which, &mut out)?)
    })
}

/// The least time that a bucket of a histogram is for.
///
/// @param bucket 0 to EVLOOP_STATS_BUCKETS; a bucket ends where the next one
///   begins.
/// @returns nanoseconds. -EINVAL: no such bucket.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stats_bucket_ns(bucket: c_int) -> i64 {
    guard("evloop_stats_bucket_ns", || match usize::try_from(bucket) {
        Ok(at) if at <= reactor::BUCKETS => Ok(reactor::bucket_least(at)),
        _ => fail!(EINVAL, "there is no bucket {}", bucket),
    })
}

/// A time that so many of those counted were not longer than.
///
/// @param loop a loop.
/// @param which EVLOOP_STATS_LATENESS or EVLOOP_STATS_CALLBACK.
/// @param percent 0 to 100: 50 is the median, 100 the longest.
/// @returns nanoseconds: of the longest its own, else the last of the bucket
///   that the time is in, so up to a tenth more. -EINVAL: an unknown histogram,
///   or percent is not from 0 to 100. -ENOENT: nothing was counted. -ECHILD:
///   used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking, threads, signals, fork: as evloop_stats(). Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stats_percentile_ns(r#loop: evloop_t, which: c_int, percent: f64) -> i64 {
    guard("evloop_stats_percentile_ns", || {
        let which = self::which(which)?;
        if !(0.0..=100.0).contains(&percent) {
            fail!(EINVAL, "percent is not from 0 to 100");
        }
        reactor::stats_percentile(r#loop, which, percent)
    })
}

/// Begin to write down what an event loop does.
///
/// Its waits, its callbacks with the names of their watchers, and its
/// iterations, each from the end of a wait to the beginning of the next one,
/// are kept in memory: the last max_events of them. evloop_trace_stop()
/// writes them to the file, as JSON for ui.perfetto.dev and Chrome's
/// about:tracing. So the loop never waits for a disk, and a trace can be left
/// running until something has happened. Callbacks that are running when it
/// begins, and the iteration that they are in, are not in it.
///
/// A slice is called by its watcher's name, see evloop_watcher_set_name(),
/// else "timer 844424930131969" and the like, by its type and its watcher;
/// a posted call is "post". A wait is "wait", or "look" if it was not to
/// sleep, and an iteration "iteration". The category (cat) is the type in any
/// case. Its args are, of callbacks, watcher, the handle; of timers, late_us;
/// of io watchers, fd and events, bits of EVLOOP_EPOLLIN and the like; of
/// waits, found, how many descriptors were ready, the loop's own among them;
/// of iterations, dispatched, how many events were.
/// Names are kept of the last max_events watchers that were closed.
///
/// A trace that is running when the loop is closed is written then, by the
/// thread that closes the loop or ends its run, if there is memory for the
/// text; a failure is not reported. Nothing is written if the process ends
/// before.
///
/// Names are cut at 128 bytes of UTF-8, and the file has at most 1200 bytes
/// for each of max_events, and 2400 more.
///
/// @param loop a loop.
/// @param path a file, which is made, or emptied, now. Only this user may
///   read a file that is made. A symbolic link is not followed (for
///   /dev/stdout see evloop_trace_start_fd()).
/// @param max_events how many are kept, of 40 bytes each; 0: 100000.
/// @returns 0. -EEXIST: a trace of the loop is being made, or started,
///   already; the file is not touched. -EINVAL: path is NULL, or max_events
///   negative. -ENOENT, -ENOTDIR, -ENAMETOOLONG: path leads to no directory
///   for the file. -ELOOP: it is a symbolic link, or leads through too many.
///   -EACCES, -EPERM, -EROFS, -EISDIR, -ETXTBSY: it may not be written to.
///   -ENXIO: it is a FIFO without a reader, or a socket. -EBUSY: another
///   process has a lease of the file (fcntl(2)), or it is a device in use.
///   -ENODEV, -ENOSPC, -EDQUOT, -EIO: the file cannot be made, or opened.
///   -EMFILE, -ENFILE, -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM:
///   see "Handles".
///
/// Blocking: as long as the file system takes to open a file; for no other
/// process. Threads: any; from another thread than that which runs the loop
/// it begins before the loop next dispatches. Signals: not safe. Fork:
/// -ECHILD; not continued in the child of evloop_after_fork(). Since 0.1.0.
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
        reactor::trace_start(r#loop, Output::Path(path), max_events).map(|()| 0)
    })
}

/// The same, into a descriptor.
///
/// @param loop a loop.
/// @param fd open for writing. It is duplicated: the caller may close it.
/// @param max_events as evloop_trace_start().
/// @returns as evloop_trace_start(). -EBADF: not open, or not for writing.
///   -EINVAL: one of the library's own descriptors. -EMFILE.
///
/// Blocking: no. Threads, signals, fork: as evloop_trace_start().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_trace_start_fd(r#loop: evloop_t, fd: c_int, max_events: c_int) -> c_int {
    guard("evloop_trace_start_fd", || {
        let fd = arg::fd(fd)?;
        arg::not_negative(max_events.into(), "max_events")?;
        reactor::refuse_own(fd)?;
        waiters::refuse_own(fd)?;
        reactor::trace_start(r#loop, Output::Descriptor(fd), max_events).map(|()| 0)
    })
}

/// End a trace, and write it to its file.
///
/// A callback that is running is in it, with "running": so this tells of one
/// that is stuck, too. Events that came before the last max_events are not;
/// how many is returned, and said in the file.
///
/// @param loop a loop.
/// @returns how many events are missing. -ENOENT: no trace is being made.
///   -ENOMEM: nothing more is recorded, and nothing was written: stop it
///   again. -ENOSPC, -EDQUOT, -EFBIG, -EPIPE, -EIO (whatever else write(2)
///   says): the trace has ended, but the file is not complete. -EBADF: it has
///   ended, and its file's descriptor was closed: nothing was written. -ECHILD:
///   used after fork. -ESTALE: not a live handle; or closed meanwhile, and the
///   file written by that. -EDOM: see "Handles".
///
/// Blocking: until the file is written. A pipe without a reader raises
/// SIGPIPE, as with write(2). Threads: any. Signals: not safe. Fork:
/// -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_trace_stop(r#loop: evloop_t) -> i64 {
    guard("evloop_trace_stop", || reactor::trace_stop(r#loop))
}

/// Be told of callbacks that run for too long, by another thread.
///
/// A thread, "evloop-watchdog", which blocks all signals and has a stack of
/// 2 MiB whatever the environment says, looks what the loop is at. A callback
/// that is running when it is set, also one that sets it itself, is not
/// looked at; those that begin later are. It tells of a callback once, when
/// that has run for longer than the limit, and once more when it has returned
/// (not if the watchdog is removed before). So it needs no help of a loop
/// that is stuck. It wakes up once in limit_ns.
///
/// callback runs on that thread. No lock of the library is held; it may call
/// every function on every object, this one and evloop_close() too, but must
/// not wait for the callback that is stuck (EVLOOP_CLOSE_WAIT does) if that
/// may wait for the watchdog's end. It must return: neither longjmp() nor a
/// C++ exception may leave it.
///
/// @param loop a loop.
/// @param limit_ns nanoseconds of real time; 0 removes the watchdog.
/// @param callback see evloop_watchdog_t; NULL removes the watchdog.
/// @param user_data handed to callback; may be NULL. It must stay valid
///   until another call of this, or evloop_close(), has returned, and if the
///   loop is running at the latter, its run.
/// @returns 0. -EINVAL: limit_ns is negative. -EAGAIN: no thread can be
///   made. -ENOMEM; the watchdog then is what it was. -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking: until the watchdog's callback, if it is running, has returned
/// (unless this is that callback); evloop_close(), and the end of the run of
/// a closed loop, too. Threads: any; a callback that is running when it is
/// set is not looked at. Signals: not safe. Fork: -ECHILD; the child of
/// evloop_after_fork() has a thread of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_set_watchdog(
    r#loop: evloop_t,
    limit_ns: i64,
    callback: evloop_watchdog_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_set_watchdog", || {
        let limit = arg::not_negative(limit_ns, "limit_ns")?;
        reactor::set_watchdog(r#loop, limit, callback, user_data).map(|()| 0)
    })
}
