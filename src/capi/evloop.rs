//! The event loop itself: `evloop_create` to `evloop_after_fork`.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::{guard, guard_close, signal_safe};
use super::types::*;
use crate::event_loop::{self, Event, Options, RunMode};

/// Creates an event loop.
///
/// A loop waits for its watchers and dispatches their events: to the watcher's
/// callback or, for a watcher that was added with a NULL callback, to the array
/// of evloop_wait(). One iteration does the following, in this order:
///
///   prepare watchers; the wait
///   timers: clock by clock, those of a clock in the order of their deadlines
///   clock_change watchers, async watchers, signal watchers
///   posted calls; defer watchers; events that a rate limit has delayed
///   file watchers
///   descriptors: io, tfd, kqueue, process and memory_pressure watchers, then
///     those of descriptors that are always ready
///   failures: events with EVLOOP_ERROR that the loop itself has found
///   check watchers; idle watchers, if nothing since the wait was dispatched
///
/// Exit watchers are called at the end of a run. The notifications of
/// evloop_watcher_set_destroy() come before the next callback of any kind. A
/// priority changes the order: see evloop_watcher_set_priority().
///
/// Fairness: an iteration dispatches at most max_timers timers of each clock,
/// max_posts posted calls and max_events descriptors. The next iteration
/// dispatches the rest, and does not wait. Descriptors come last: while very
/// many timers are due, as many callbacks as the limits allow run between two
/// polls of the descriptors. If that is too long, set lower limits. If more
/// than max_events descriptors are ready they take turns, including those that
/// are always ready (see evloop_add_io()).
///
/// Memory: the library keeps the slots of closed watchers, 64 bytes each, for
/// the next watchers of any loop. So their number is the greatest number of
/// watchers that were open at once. All other memory of a loop is freed with
/// it.
///
/// @param options NULL for the defaults, else see evloop_options_t.
/// @returns the loop; close it with evloop_close().
///
/// Errors:
///   -EINVAL    an unknown flag
///   -EINVAL    a limit or a time is negative
///   -EINVAL    AUTO_ADVANCE without VIRTUAL_TIME, or virtual_grace_ns without
///              AUTO_ADVANCE
///   -EINVAL    size is less than sizeof(size_t), such as 0: it was not set
///   -E2BIG     the structure is larger than this version's, and not zero there
///   -EMFILE, -ENFILE  a loop takes two descriptors, one more for each clock
///              with the first timer on it, and one more with evloop_fileno()
///   -ENOSPC, -ENOMEM
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_create(options: *const Options) -> evloop_t {
    guard("evloop_create", || {
        // SAFETY: NULL, or a structure that begins with its size (C's duty).
        let options = unsafe { arg::options(options) }?;
        event_loop::create(&options)
    })
}

/// Closes an event loop and all its watchers.
///
/// The handles of the loop and of all its watchers are stale at once. If the
/// loop is not running, this call frees everything and runs the destroy
/// notifications. If it is running, in another thread or because this is one of
/// its callbacks, the call returns at once. The run then frees everything,
/// after its current callback, and returns -ESTALE.
///
/// Posted calls that were not made yet are never made. If their user_data must
/// be freed, post them with evloop_post_full(). Everything that was passed to
/// the loop can be freed when the loop is closed and its run, if there is one,
/// has returned.
///
/// @param loop a loop.
/// @returns 0.
///
/// Fork: works in the child, and changes nothing for the parent. The child's
/// destroy notifications do not run.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_close(r#loop: evloop_t) -> c_int {
    guard_close("evloop_close", r#loop, || event_loop::close(r#loop).map(|()| 0))
}

/// Runs an event loop on the calling thread.
///
/// - UNTIL_DONE runs until evloop_stop(), or until nothing keeps the loop
///   alive. If nothing does at its beginning, it runs no iteration.
/// - ONCE returns after the first iteration that dispatched an event, or after
///   evloop_wakeup() or evloop_stop(). Calls of prepare, check and idle
///   watchers do not count as events. If nothing keeps the loop alive it does
///   not wait.
/// - NOWAIT runs one iteration that does not wait. What exceeds the limits of
///   evloop_options_t remains for the next one.
///
/// If a watcher has no callback the loop stores its event, and evloop_wait()
/// returns it later. Events of one watcher are merged into one; real-time
/// signals are not merged. A stored event does not end a ONCE run. When
/// evloop_wait() returns it, the descriptor may no longer be ready. Disabling
/// or closing an io watcher drops its stored event.
///
/// A loop is kept alive by posted calls and by each enabled watcher, except:
/// - a timer that is not set, or has expired for the last time;
/// - a defer watcher that was called;
/// - a process watcher whose process has ended;
/// - exit and clock_change watchers;
/// - a watcher after evloop_watcher_unref().
///
/// A callback cannot run its own loop (-EBUSY). A dialogue that returns only
/// when it is answered needs that. It runs another loop with this one embedded
/// in it, see evloop_fileno(), or waits itself:
///
///   while (!answered) {           in a callback of another loop
///     int due = evloop_embed_prepare(loop);
///     struct pollfd fd = {evloop_fileno(loop), POLLIN, 0};
///     if (due == 0) poll(&fd, 1, -1);
///     evloop_embed_dispatch(loop);
///   }
///
/// @param loop a loop.
/// @param mode EVLOOP_RUN_UNTIL_DONE, ONCE or NOWAIT.
/// @returns 1 if something still keeps the loop alive, else 0.
///
/// Errors:
///   -EBUSY     the loop is running already, on this thread (in a callback) or
///              on another
///   -EINVAL    an unknown mode
///   -ECHILD    also in the child of a callback that forked, unless the
///              callback called evloop_after_fork()
///   -EBADF     the program has closed the loop's own descriptors
///   -EINTR, -ENOMEM
///
/// Blocking: as the mode says.
/// Threads: any, one at a time, and not always the same one.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_run(r#loop: evloop_t, mode: c_int) -> c_int {
    guard("evloop_run", || {
        let mode = match mode {
            EVLOOP_RUN_UNTIL_DONE => RunMode::UntilDone,
            EVLOOP_RUN_ONCE => RunMode::Once,
            EVLOOP_RUN_NOWAIT => RunMode::NoWait,
            _ => return Err(arg::unknown_mode(mode)),
        };
        event_loop::run(r#loop, mode).map(c_int::from)
    })
}

/// Runs an event loop on the calling thread for a limited time.
///
/// As evloop_run(UNTIL_DONE), and it also returns at the end of the time. If
/// nothing keeps the loop alive it returns at once and does not move virtual
/// time; evloop_advance_ns() does that.
///
/// @param loop a loop.
/// @param duration_ns nanoseconds of the loop's time (virtual time with
///   EVLOOP_VIRTUAL_TIME); 0 runs one iteration that does not wait, negative
///   means no limit.
/// @returns as evloop_run().
///
/// Blocking: up to duration_ns.
/// Threads: as evloop_run().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_run_for_ns(r#loop: evloop_t, duration_ns: i64) -> c_int {
    guard("evloop_run_for_ns", || {
        event_loop::run(r#loop, RunMode::For(duration_ns)).map(c_int::from)
    })
}

/// Runs an event loop on the calling thread until it has events to return.
///
/// It returns the events of watchers that were added with a NULL callback;
/// callbacks of other watchers run as in evloop_run(). A call returns all
/// events that are there and fit. The loop stores the others for the next
/// call, which returns them at once and runs no iteration.
///
/// @param loop a loop.
/// @param out_events filled from the front, as many as returned.
/// @param max size of out_events, in events; at least 1.
/// @param timeout_ns nanoseconds of the loop's time to wait; 0 does not wait,
///   negative waits for ever.
/// @returns the number of events. 0 if the time ran out, evloop_stop() or
///   evloop_wakeup() was called, or nothing keeps the loop alive
///   (evloop_run(NOWAIT) returns whether it is that).
///
/// Errors, besides those of evloop_run():
///   -EINVAL    max is 0 or less, or out_events is NULL
///
/// Blocking: up to timeout_ns.
/// Threads: any, one at a time (-EBUSY); each call may come from another
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_wait(
    r#loop: evloop_t,
    out_events: *mut Event,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_wait", || {
        // SAFETY: the caller lends room for `max` events at `out_events`.
        let mut out = unsafe { arg::results_out(out_events, max, "out_events") }?;
        event_loop::wait(r#loop, &mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Ends the run of an event loop.
///
/// The run finishes its current iteration, with all its callbacks, and returns
/// 1 or 0 as usual. (To end it at once, close the loop.) If the loop is not
/// running, the stop is remembered: the next run or wait returns without an
/// iteration. In both cases an UNTIL_DONE run still calls the exit watchers.
/// Several stops before that count as one, and end one run.
///
/// evloop_wait() first returns the events that the loop has stored. The first
/// call without any returns 0 for the stop.
///
/// Posted calls that this iteration does not make stay pending, for the next
/// run or the end of the loop. To stop after them, post a last call that calls
/// evloop_stop(): the calls that the same thread has posted before are made
/// first.
///
/// In an embedded loop each evloop_embed_dispatch() is such a run. After a stop
/// evloop_embed_prepare() returns 1 and the next dispatch dispatches nothing;
/// the stop is then used up. It does not stop the outer loop: the program must
/// do that by other means.
///
/// @param loop a loop.
/// @returns 0.
///
/// Errors:
///   -EBADF     as evloop_wakeup()
///
/// Signals: safe (evloop_last_error() is not set).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stop(r#loop: evloop_t) -> c_int {
    signal_safe(event_loop::stop(r#loop))
}

/// Wakes an event loop that waits.
///
/// The current wait ends, or the next one does if the loop does not wait. So
/// the loop runs its prepare and check watchers, and evloop_wait() and a ONCE
/// run return. Several wake-ups before that count as one. An iteration that
/// does not wait (a NOWAIT run, a timeout of 0, evloop_embed_dispatch()) uses
/// up a wake-up too.
///
/// @param loop a loop.
/// @returns 0.
///
/// Errors:
///   -EBADF     the loop waits and cannot be woken, because the program has
///              closed the loop's own descriptors
///
/// Signals: safe (evloop_last_error() is not set).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_wakeup(r#loop: evloop_t) -> c_int {
    signal_safe(event_loop::wakeup(r#loop))
}

/// Queues one call of a function on the thread that runs an event loop.
///
/// The loop makes the calls of one posting thread in their order, each exactly
/// once. If the loop is closed first it never makes them, and nothing frees
/// user_data (see evloop_close()). A call that a callback posts is made in the
/// next iteration; a call that a prepare callback posts, in the same one. A
/// pending call keeps the loop alive.
/// A posted call cannot be withdrawn: for that use an async or a defer watcher,
/// which can be closed.
///
/// @param loop a loop.
/// @param callback called with an EVLOOP_EVENT_POST event, whose watcher is 0;
///   NULL: evloop_wait() returns that event.
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns 0.
///
/// Errors:
///   -ENOMEM    the call is not queued
///
/// Signals: not safe; use evloop_wakeup() or evloop_async_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_post(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_post", || event_loop::post(r#loop, callback, user_data).map(|()| 0))
}

/// Queues one call of a function, with a function that frees its data.
///
/// As evloop_post(), in one order with its calls. destroy is called with
/// user_data exactly once:
/// - on the thread that runs the loop, when callback has returned;
/// - if the loop is closed first, by the call that closes it (evloop_close(),
///   or the run that ends); callback is then never called;
/// - if this call races with evloop_close() and comes too late, by this call or
///   by a thread that runs another loop; this call has returned 0 all the same.
///
/// On failure neither function is called.
///
///   evloop_post_full(loop, use, strdup("a copy"), free);
///
/// @param loop a loop.
/// @param callback as evloop_post(); not NULL if destroy is not.
/// @param user_data passed to callback, in the event's data, then to destroy;
///   may be NULL.
/// @param destroy see evloop_destroy_t; NULL: as evloop_post().
/// @returns 0.
///
/// Errors:
///   -EINVAL    callback is NULL, and destroy is not
///   -ENOMEM    the call is not queued
///
/// Fork: of a call that is pending at a fork the child calls neither callback
/// nor destroy, also after evloop_after_fork().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_post_full(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
    destroy: evloop_destroy_t,
) -> c_int {
    guard("evloop_post_full", || {
        event_loop::post_full(r#loop, callback, user_data, destroy).map(|()| 0)
    })
}

/// Returns the time of an event loop.
///
/// In a callback it is the time of the iteration. The loop reads the clock when
/// the time is first needed, and the time then stays the same until the next
/// wait or evloop_advance_ns(). So it may be slightly before the time from
/// which a timer counts that the same callback sets. Outside of callbacks this
/// call reads the clock.
///
/// @param loop a loop.
/// @returns nanoseconds of CLOCK_MONOTONIC or, with EVLOOP_VIRTUAL_TIME, of
///   virtual time, which begins with 0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_now_ns(r#loop: evloop_t) -> i64 {
    guard("evloop_now_ns", || event_loop::now(r#loop))
}

/// Moves the virtual time of an event loop.
///
/// The next run or wait dispatches the timers that become due: clock by clock,
/// those of a clock in the order of their deadlines. A time beyond INT64_MAX
/// becomes INT64_MAX. A run that waits in another thread is woken.
///
/// @param loop a loop with EVLOOP_VIRTUAL_TIME.
/// @param ns nanoseconds to add to all its clocks; not negative.
/// @returns 0.
///
/// Errors:
///   -EINVAL    ns is negative
///   -ENOTSUP   the loop has real time
///   -ENOMEM
#[unsafe(no_mangle)]
pub extern "C" fn evloop_advance_ns(r#loop: evloop_t, ns: i64) -> c_int {
    guard("evloop_advance_ns", || event_loop::advance(r#loop, ns).map(|()| 0))
}

/// Adds or removes a hold that keeps virtual time from jumping.
///
/// A loop with EVLOOP_AUTO_ADVANCE must not jump ahead of work in real time,
/// such as a thread that computes or a request to another process. Hold the
/// time before the work begins, and release it when the result is there. The
/// loop then waits in real time. Holds are counted: while there is one, the
/// time does not jump; evloop_advance_ns() still moves it. A loop without
/// AUTO_ADVANCE only counts.
///
///   evloop_virtual_hold(loop, +1);     before the work is queued
///   evloop_virtual_hold(loop, -1);     in the callback of its result
///
/// @param loop a loop with EVLOOP_VIRTUAL_TIME.
/// @param change +1 or -1.
/// @returns 0.
///
/// Errors:
///   -EINVAL    change is neither +1 nor -1
///   -EINVAL    change is -1 and there is no hold
///   -ENOTSUP   the loop has real time
///
/// Fork: after evloop_after_fork() the child's loop has the same holds.
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_virtual_hold(r#loop: evloop_t, change: c_int) -> c_int {
    guard("evloop_virtual_hold", || event_loop::virtual_hold(r#loop, change).map(|()| 0))
}

/// Returns how long an event loop may wait for its next timer.
///
/// It considers timers by their deadlines, without tolerances and without the
/// time for which timers share wake-ups, and watchers that a rate limit delays,
/// whether they keep the loop alive or not. It ignores what only descriptors
/// report: io and tfd watchers, ready or not. Timers that callbacks of the same
/// iteration have set have all their time left.
///
/// @param loop a loop.
/// @returns nanoseconds of the loop's time until the earliest timer. 0 if a
///   timer is due, or the loop need not wait for another reason: posted calls,
///   triggered async watchers, enabled idle and defer watchers, descriptors
///   that are always ready, events kept for evloop_wait(), a stop or a wake-up.
///   INT64_MAX if the loop waits only for descriptors and other threads. (A
///   timer that is set to INT64_MAX, never, counts as due when the clock shows
///   that.)
///
/// Errors:
///   -EBUSY     another thread is running the loop
///
/// Threads: any, but not while another thread runs the loop.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_next_timeout_ns(r#loop: evloop_t) -> i64 {
    guard("evloop_next_timeout_ns", || event_loop::next_timeout(r#loop))
}

/// Limits how long the next wait of an event loop may last.
///
/// Call it in a prepare watcher: the wait that follows lasts at most that long,
/// in real time, whatever timers there are. It is for sources that must be
/// polled from time to time and have neither a descriptor nor a timer. After
/// the limited wait the iteration continues as after a wake-up; a ONCE run
/// continues until an event was dispatched. Of several limits the shortest
/// holds. A limit that another callback sets, or that is set while the loop is
/// not running, holds for the next wait. In an embedded loop
/// evloop_next_timeout_ns() includes the limit until the next dispatch.
///
/// @param loop a loop.
/// @param ns nanoseconds of real time; 0 does not wait.
/// @returns 0.
///
/// Errors:
///   -EINVAL    ns is negative
///   -EBUSY     another thread is running the loop
///
/// Threads: any, but not while another thread runs the loop.
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_limit_wait_ns(r#loop: evloop_t, ns: i64) -> c_int {
    guard("evloop_limit_wait_ns", || {
        event_loop::limit_wait(r#loop, arg::not_negative(ns, "ns")?).map(|()| 0)
    })
}

/// Lets the waits of an event loop busy-poll the queues of network devices.
///
/// It is for servers that spend a processor core to reduce latency. Instead of
/// waiting for an interrupt, the kernel polls the queues that the packets of
/// the loop's sockets came from. See EPIOCSPARAMS of ioctl_eventpoll(2).
///
/// @param loop a loop.
/// @param usecs microseconds to poll before it waits; 0: not at all.
/// @param budget packets at a time, up to 65535; 0: the kernel's choice, 8. A
///   budget above 64 needs CAP_NET_ADMIN.
/// @param prefer 1 to keep the device's interrupts off while polling, else 0.
/// @returns 0.
///
/// Errors:
///   -EINVAL    usecs is above 2^31-1, budget is negative or too large, or
///              prefer is neither 0 nor 1
///   -ENOTSUP   before Linux 6.9, or without CONFIG_NET_RX_BUSY_POLL
///   -EPERM     the kernel refuses the budget
///
/// Fork: evloop_after_fork() keeps the setting.
/// Since 0.2.0.
/// Source: ioctl_eventpoll(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_set_busy_poll(
    r#loop: evloop_t,
    usecs: u32,
    budget: c_int,
    prefer: c_int,
) -> c_int {
    guard("evloop_set_busy_poll", || {
        event_loop::set_busy_poll(r#loop, arg::busy_poll(usecs, budget, prefer)?).map(|()| 0)
    })
}

/// Returns a descriptor that is readable while a loop has events.
///
/// It embeds the loop in another event loop, such as that of a toolkit. The
/// outer loop waits for this descriptor to be readable. The program calls
/// evloop_embed_prepare() before each wait of the outer loop, and
/// evloop_embed_dispatch() after it. The descriptor belongs to the loop: do not
/// close it.
///
/// @param loop a loop.
/// @returns the descriptor; the first call makes it.
///
/// Errors:
///   -EBUSY     another thread is running the loop
///   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
///
/// Fork: it is another descriptor after evloop_after_fork().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_fileno(r#loop: evloop_t) -> c_int {
    guard("evloop_fileno", || event_loop::fileno(r#loop))
}

/// Prepares an event loop for a wait of an outer loop.
///
/// It submits all changes to the kernel, sets the timers and runs the prepare
/// watchers. From now until evloop_embed_dispatch() every event makes the
/// descriptor of evloop_fileno() readable. Calls on the loop in between are
/// submitted to the kernel at once where that is possible; otherwise they make
/// the descriptor readable.
///
/// It may be called again before a dispatch, as an outer loop does that polls
/// its own sources several times before it waits. The prepare watchers run each
/// time:
///
///   evloop_embed_prepare(loop);
///   evloop_add_io(loop, fd, EVLOOP_EPOLLIN, callback, NULL);
///   int due = evloop_embed_prepare(loop);       counts from here
///
/// @param loop a loop.
/// @returns 1 if something is ready to dispatch, or evloop_stop() was called:
///   the outer loop must not block then. The descriptor is readable then too,
///   but not always with EVLOOP_VIRTUAL_TIME. Else 0. Errors as evloop_run().
///
/// Threads: any, one at a time (-EBUSY).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_embed_prepare(r#loop: evloop_t) -> c_int {
    guard("evloop_embed_prepare", || event_loop::embed_prepare(r#loop).map(c_int::from))
}

/// Dispatches what is ready, after a wait of an outer loop.
///
/// As evloop_run(NOWAIT), without the prepare watchers, which
/// evloop_embed_prepare() has run.
///
/// @param loop a loop.
/// @returns as evloop_run().
///
/// Threads: any, one at a time (-EBUSY).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_embed_dispatch(r#loop: evloop_t) -> c_int {
    guard("evloop_embed_dispatch", || event_loop::run(r#loop, RunMode::Embedded).map(c_int::from))
}

/// Makes an event loop usable in a forked child.
///
/// In a child every call on an inherited loop and its watchers returns -ECHILD
/// until this call; only closing them works. The call makes new descriptors for
/// the loop and registers what it watches with them. The child continues with a
/// copy of the loop, and the parent's loop is not affected.
///
/// The loop registers descriptors by their fds. A watcher whose descriptor the
/// child has closed gets one EVLOOP_ERROR event; but if the fd refers to
/// another file by then, the loop watches that file. So call this before
/// closing inherited descriptors.
///
/// The child may miss calls that other threads posted just before the fork. The
/// callback that forked may make this call: the child's run then continues.
///
/// @param loop a loop that was made before the fork.
/// @returns 0; also if there is nothing to do.
///
/// Errors:
///   -EBUSY     at the fork another thread of the parent was in a callback of
///              the loop, or in a call on it. The state was lost: the loop can
///              only be closed
///   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM  it could not do all of it, perhaps for
///              only one watcher. The loop still belongs to the parent and
///              nothing is lost: call this again until it succeeds
#[unsafe(no_mangle)]
pub extern "C" fn evloop_after_fork(r#loop: evloop_t) -> c_int {
    guard("evloop_after_fork", || event_loop::revive(r#loop).map(|()| 0))
}
