//! The event loop itself: `evloop_create` to `evloop_after_fork`.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::{guard, signal_safe};
use super::types::*;
use crate::reactor::{self, Event, Mode, Options};

/// Create an event loop.
///
/// A loop waits for the watchers that are added to it and dispatches their
/// events: to a callback or, for a watcher added with a NULL callback, to
/// evloop_wait()'s array. One iteration is, in this order:
///
///   prepare watchers; the wait
///   timers: clock by clock, those of a clock in the order of their deadlines
///   clock_change watchers, async watchers, signal watchers
///   posted calls; defer watchers; what a rate limit has held back
///   file watchers
///   descriptors: io, tfd, kqueue, process and memory_pressure watchers, then
///     those of descriptors that are always ready
///   failures: events with EVLOOP_ERROR that the loop itself has found
///   check watchers; idle watchers, if nothing since the wait was dispatched
///
/// Exit watchers are called at the end of a run. The notifications of
/// evloop_watcher_set_destroy() come before the next callback, whichever that
/// is. Watchers with a priority: see evloop_watcher_set_priority().
///
/// Fairness: an iteration dispatches at most max_timers timers of each
/// clock, max_posts posted calls and max_events descriptors; what is left
/// is for the next one, which does not wait. Descriptors come last: while
/// very many timers are due, as many callbacks as the bounds allow are
/// called between two looks at the descriptors. Where that is too long, set
/// lower bounds. Ready descriptors beyond max_events take turns, those that
/// are always ready (see evloop_add_io()) among them.
///
/// Memory: the places of closed watchers, 64 bytes each, are kept for the
/// next ones, of any loop: how many there are follows from how many watchers
/// were open at once. All else that a loop has is freed with it.
///
/// @param options NULL for the defaults, else see evloop_options_t.
/// @returns the loop, to be closed with evloop_close(). -EINVAL: an unknown
///   flag, a negative bound or time, AUTO_ADVANCE without VIRTUAL_TIME,
///   virtual_grace_ns without AUTO_ADVANCE, or a size that is less than
///   sizeof(size_t), such as 0: it was not set. -E2BIG: the structure is
///   larger than this version's, and not zero there. -EMFILE, -ENFILE: a loop
///   takes two descriptors, one more for each clock with the first timer on
///   it, and one more with evloop_fileno(). -ENOSPC: the user's
///   max_user_watches is used up. -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: see
/// evloop_after_fork(). Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_create(options: *const Options) -> evloop_t {
    guard("evloop_create", || {
        // SAFETY: NULL, or a structure that begins with its size (C's duty).
        let options = unsafe { arg::options(options) }?;
        reactor::create(&options)
    })
}

/// Close an event loop and all its watchers.
///
/// The handle and those of all its watchers are stale at once. If the loop
/// is not running, everything is freed and the destroy notifications run
/// inside this call. If it is running, in another thread or because this is
/// one of its callbacks, this returns at once: the run then does that, after
/// the callback it is in, if any, and returns -ESTALE.
///
/// Posted calls that were not made yet are never made; if their user_data has
/// to be freed post them with evloop_post_full(). Everything that was handed
/// to the loop can be freed once it is closed and its run, if there is one,
/// has returned.
///
/// @param loop a loop.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child,
/// and changes nothing for the parent; the child's destroy notifications do
/// not run. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_close(r#loop: evloop_t) -> c_int {
    guard("evloop_close", || reactor::close(r#loop).map(|()| 0))
}

/// Run an event loop on this thread.
///
/// UNTIL_DONE runs until evloop_stop(), or until nothing is left that keeps
/// the loop alive. ONCE waits until something happened, dispatches that and
/// returns; calls of prepare, check and idle watchers are not something, and
/// if nothing keeps the loop alive it does not wait. NOWAIT dispatches what
/// is ready and returns. Events of watchers without a callback are kept for
/// evloop_wait(), added up to one for each watcher, but for real-time
/// signals.
///
/// A loop is kept alive by posted calls and by each watcher that is enabled,
/// but not by a timer that is not set (any more), a defer watcher that was
/// called, a process watcher whose process has ended, exit and clock_change
/// watchers, and what evloop_watcher_unref() was called for.
///
/// A callback cannot run its own loop (-EBUSY). What needs that, such as a
/// dialogue that returns only when it is answered, runs another loop, and has
/// this one embedded in it: see evloop_fileno(). Or it waits itself:
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
/// @returns 1 if something is left that keeps the loop alive, else 0.
///   -EBUSY: the loop is running already, here (in a callback) or in
///   another thread. -EINVAL: an unknown mode. -ESTALE: not a live handle,
///   or closed during the run. -EINTR: see evloop_set_interrupt_mode().
///   -ECHILD: used after fork; also in the child of a callback that forked,
///   unless it called evloop_after_fork(). -EBADF: the program has closed
///   the loop's own descriptors. -ENOMEM. -EDOM: see "Handles".
///
/// Blocking: as the mode says. Threads: any, one at a time; not always the
/// same. Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_run(r#loop: evloop_t, mode: c_int) -> c_int {
    guard("evloop_run", || {
        let mode = match mode {
            EVLOOP_RUN_UNTIL_DONE => Mode::UntilDone,
            EVLOOP_RUN_ONCE => Mode::Once,
            EVLOOP_RUN_NOWAIT => Mode::NoWait,
            _ => return Err(arg::unknown_mode(mode)),
        };
        reactor::run(r#loop, mode).map(c_int::from)
    })
}

/// Run an event loop on this thread for some time.
///
/// As evloop_run(UNTIL_DONE), and returns at the end of the time too. If
/// nothing keeps the loop alive it returns at once, and virtual time is not
/// moved: evloop_advance_ns() does that.
///
/// @param loop a loop.
/// @param duration_ns nanoseconds of the loop's time (virtual ones, with
///   EVLOOP_VIRTUAL_TIME); 0 is one iteration that does not wait, negative
///   means no limit.
/// @returns as evloop_run().
///
/// Blocking: up to duration_ns. Threads, Signals, Fork: as evloop_run().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_run_for_ns(r#loop: evloop_t, duration_ns: i64) -> c_int {
    guard("evloop_run_for_ns", || reactor::run(r#loop, Mode::For(duration_ns)).map(c_int::from))
}

/// Run an event loop on this thread until there are events to return.
///
/// Returns the events of watchers that were added with a NULL callback;
/// callbacks of others run as in evloop_run(). A call returns as many
/// events as are there and fit; the others are kept for the next one.
///
/// @param loop a loop.
/// @param out_events filled from the front, as many as returned.
/// @param max room in out_events, in events; at least 1.
/// @param timeout_ns nanoseconds of the loop's time to wait; 0 does not
///   wait, negative waits for ever.
/// @returns the number of events; 0 if the time ran out, evloop_stop() or
///   evloop_wakeup() was called, or nothing is left that keeps the loop
///   alive (evloop_run(NOWAIT) tells whether it is that). -EINVAL: max is 0
///   or less, or out_events is NULL. Others: as evloop_run().
///
/// Blocking: up to timeout_ns. Threads: any, one at a time (-EBUSY), and
/// every call may come from another thread. Signals: not safe. Fork:
/// -ECHILD. Since 0.1.0.
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
        reactor::wait(r#loop, &mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Make the run of an event loop return.
///
/// The iteration that is going on is finished first, with all its callbacks;
/// then the run returns 1 or 0, as usual. (To end at once close the loop.)
/// A stop is remembered: if the loop is not running, its next run or wait
/// returns at once, dispatching nothing. Any number of stops count as one,
/// and end one run.
///
/// Embedded in another loop, each evloop_embed_dispatch() is such a run. A
/// stop has evloop_embed_prepare() return 1; the dispatch that follows
/// dispatches nothing, and that is all: whoever runs the foreign loop has to
/// be told by other means.
///
/// @param loop a loop.
/// @returns 0. -ECHILD: used after fork. -EBADF: as evloop_wakeup(). -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: safe (evloop_last_error() is not
/// set). Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_stop(r#loop: evloop_t) -> c_int {
    signal_safe(reactor::stop(r#loop))
}

/// Make a waiting event loop go round once.
///
/// The wait in progress ends, or the next one does if none is: so the loop
/// runs its prepare and check watchers, and evloop_wait() and a ONCE run
/// return. Any number of wake-ups before that count as one. An iteration
/// that does not wait (a NOWAIT run, a timeout of 0,
/// evloop_embed_dispatch()) uses a wake-up up, too.
///
/// @param loop a loop.
/// @returns 0. -ECHILD: used after fork. -EBADF: the loop waits, and cannot
///   be woken, as the program has closed its own descriptors. -ESTALE, -EDOM:
///   see "Handles".
///
/// Blocking: no. Threads: any. Signals: safe (evloop_last_error() is not
/// set). Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_wakeup(r#loop: evloop_t) -> c_int {
    signal_safe(reactor::wakeup(r#loop))
}

/// Have a function called once by an event loop.
///
/// Calls posted by one thread are made in that order, each exactly once
/// unless the loop is closed before: then they are never made, and nothing
/// frees user_data (see evloop_close()). A call posted by a callback is made
/// in the next iteration. A pending call keeps the loop alive.
///
/// @param loop a loop.
/// @param callback called with an EVLOOP_EVENT_POST event, whose watcher is
///   0; NULL delivers that event to evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns 0. -ENOMEM: not posted. -ECHILD: used after fork. -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe (see evloop_wakeup() and
/// evloop_async_send()). Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_post(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_post", || reactor::post(r#loop, callback, user_data).map(|()| 0))
}

/// Have a function called once by an event loop, and what it needs freed.
///
/// As evloop_post(), in one order with its calls; and destroy is called with
/// user_data exactly once: on the thread that runs the loop, when callback
/// has returned; or, where the loop is closed before, callback is never
/// called, and destroy is by what closes the loop (evloop_close(), or the run
/// that it ends). A post that raced with evloop_close() and came too late,
/// though 0 is returned, is destroyed too, by this call or by a thread that
/// runs another loop. What fails calls neither.
///
///   evloop_post_full(loop, use, strdup("a copy"), free);
///
/// @param loop a loop.
/// @param callback as evloop_post(); not NULL if destroy is not.
/// @param user_data handed to callback, in the event's data, then handed to
///   destroy; may be NULL.
/// @param destroy see evloop_destroy_t; NULL: as evloop_post().
/// @returns 0. -EINVAL: callback is NULL, and destroy is not. -ENOMEM: not
///   posted. -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD; of a call
/// that is pending at a fork the child makes neither its callback nor
/// destroy, after evloop_after_fork() too. Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_post_full(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
    destroy: evloop_destroy_t,
) -> c_int {
    guard("evloop_post_full", || {
        reactor::post_full(r#loop, callback, user_data, destroy).map(|()| 0)
    })
}

/// The time of an event loop.
///
/// Inside a callback: the time of this iteration, which is read when it is
/// first asked for and then stays the same until the next wait; so it may
/// be a little before the time from which a timer counts that is set in the
/// same callback. Else the clock is read. With EVLOOP_VIRTUAL_TIME: the
/// virtual time, which begins with 0.
///
/// @param loop a loop.
/// @returns nanoseconds of CLOCK_MONOTONIC, or of virtual time. -ECHILD:
///   used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_now_ns(r#loop: evloop_t) -> i64 {
    guard("evloop_now_ns", || reactor::now(r#loop))
}

/// Move the time of an event loop with virtual time.
///
/// Timers that become due are dispatched by the next run or wait, in the
/// order of their deadlines; one that is in progress is woken.
///
/// @param loop a loop made with EVLOOP_VIRTUAL_TIME.
/// @param ns nanoseconds to add to all its clocks; not negative.
/// @returns 0. -EINVAL: ns is negative. -ENOTSUP: the loop has real time.
///   -ECHILD: used after fork. -ENOMEM. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_advance_ns(r#loop: evloop_t, ns: i64) -> c_int {
    guard("evloop_advance_ns", || reactor::advance(r#loop, ns).map(|()| 0))
}

/// Keep virtual time from jumping, or no more.
///
/// While something real is under way (a thread computes, a request is sent to
/// another process) a loop with EVLOOP_AUTO_ADVANCE should not run ahead of
/// it: hold it, and let go when the answer is there. It then waits in real
/// time for whatever wakes it. Holds are counted: as long as there is one,
/// the time jumps no more; evloop_advance_ns() moves it all the same. A loop
/// that does not jump only counts.
///
///   evloop_virtual_hold(loop, +1);     before the work is given away
///   evloop_virtual_hold(loop, -1);     in what its answer calls
///
/// @param loop a loop made with EVLOOP_VIRTUAL_TIME.
/// @param change +1 or -1.
/// @returns 0. -EINVAL: change is neither, or -1 where there is no hold.
///   -ENOTSUP: the loop has real time. -ECHILD: used after fork. -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD; the child
/// of evloop_after_fork() has the holds that there were. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_virtual_hold(r#loop: evloop_t, change: c_int) -> c_int {
    guard("evloop_virtual_hold", || reactor::virtual_hold(r#loop, change).map(|()| 0))
}

/// How long an event loop may wait for its next timer.
///
/// Counted are timers, by their deadlines (tolerances are not added), and
/// watchers that a rate limit holds back, whether they keep the loop alive
/// or not. Left out is all that descriptors tell of: io and tfd watchers,
/// ready or not. Timers that callbacks of the same iteration have set have
/// all their time left.
///
/// @param loop a loop.
/// @returns nanoseconds of the loop's time until the earliest timer, 0 if
///   something is due already or need not be waited for (posted calls,
///   async watchers that were sent to, enabled idle and defer watchers,
///   descriptors that are always ready, events kept for evloop_wait(), a
///   stop or a wake-up), INT64_MAX if there is nothing to wait for but
///   descriptors and other threads. (A timer that is set to INT64_MAX, never,
///   counts as one that is due when the clock shows that.) -EBUSY: another
///   thread is running the loop. -ECHILD: used after fork. -ESTALE, -EDOM:
///   see "Handles".
///
/// Blocking: no. Threads: any, but not while another runs the loop.
/// Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_next_timeout_ns(r#loop: evloop_t) -> i64 {
    guard("evloop_next_timeout_ns", || reactor::next_timeout(r#loop))
}

/// Limit how long the next wait of an event loop may last.
///
/// To be called in a prepare watcher: the wait that follows is at most that
/// long, in real time, whatever timers there are. For what has to be looked
/// at from time to time and has neither a descriptor nor a timer. The
/// iteration goes on as if it was woken; a ONCE run goes on until something
/// was dispatched. Of several limits the shortest holds. Called by another
/// callback, or while nobody runs the loop, it is for the next wait that
/// there is. Embedded in another loop, it is in evloop_next_timeout_ns()
/// until the next dispatch.
///
/// @param loop a loop.
/// @param ns nanoseconds of real time; 0 does not wait.
/// @returns 0. -EINVAL: ns is negative. -EBUSY: another thread is running
///   the loop. -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any, but not while another runs the loop.
/// Signals: not safe. Fork: -ECHILD. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_limit_wait_ns(r#loop: evloop_t, ns: i64) -> c_int {
    guard("evloop_limit_wait_ns", || {
        reactor::limit_wait(r#loop, arg::not_negative(ns, "ns")?).map(|()| 0)
    })
}

/// Have the waits of an event loop poll the queues of network devices.
///
/// For servers that give a core away for less latency: instead of waiting for
/// an interrupt the kernel looks at the queues that its sockets' packets came
/// from. See EPIOCSPARAMS of ioctl_eventpoll(2).
///
/// @param loop a loop.
/// @param usecs microseconds to look before it waits; 0: not at all.
/// @param budget packets at a time, up to 65535; 0: the kernel's choice, 8.
///   Above 64 it takes CAP_NET_ADMIN.
/// @param prefer 1 to keep the device's interrupts off meanwhile, else 0.
/// @returns 0. -EINVAL: usecs is above 2^31-1, budget is negative or too
///   large, or prefer neither 0 nor 1. -ENOTSUP: before Linux 6.9, or without
///   CONFIG_NET_RX_BUSY_POLL. -EPERM: the kernel refuses the budget.
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD; kept by
/// evloop_after_fork(). Since 0.2.0. Source: ioctl_eventpoll(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_set_busy_poll(
    r#loop: evloop_t,
    usecs: u32,
    budget: c_int,
    prefer: c_int,
) -> c_int {
    guard("evloop_set_busy_poll", || {
        reactor::set_busy_poll(r#loop, arg::busy_poll(usecs, budget, prefer)?).map(|()| 0)
    })
}

/// A descriptor that is readable while an event loop has something to do.
///
/// For embedding the loop in another one, that of a toolkit, say: have that
/// wait for this descriptor to be readable; call evloop_embed_prepare()
/// before each of its waits and evloop_embed_dispatch() after it. The
/// descriptor is only lent: do not close it.
///
/// @param loop a loop.
/// @returns the descriptor. -EMFILE, -ENFILE, -ENOSPC, -ENOMEM: as
///   evloop_create(); it is made by the first call. -EBUSY: another thread
///   is running the loop. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD; another
/// descriptor after evloop_after_fork(). Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_fileno(r#loop: evloop_t) -> c_int {
    guard("evloop_fileno", || reactor::fileno(r#loop))
}

/// Get an event loop ready for a wait by somebody else.
///
/// Tells the kernel of all changes, sets the timers and runs the prepare
/// watchers. From now until evloop_embed_dispatch() whatever happens makes
/// the descriptor of evloop_fileno() readable: what is called on the loop in
/// between is told to the kernel at once where that is possible, and else
/// makes it readable.
///
/// It may be called again without a dispatch in between, as a foreign loop
/// does that looks at its own sources several times before it waits; the
/// prepare watchers run each time:
///
///   evloop_embed_prepare(loop);
///   evloop_add_io(loop, fd, EVLOOP_EPOLLIN, callback, NULL);
///   int due = evloop_embed_prepare(loop);       counts from here
///
///
/// @param loop a loop.
/// @returns 1 if there is something to dispatch already (or evloop_stop()
///   was called), so that the foreign loop must not block; the descriptor
///   is readable then, but with EVLOOP_VIRTUAL_TIME need not be. Else 0.
///   Errors: as evloop_run().
///
/// Blocking: no. Threads: any, one at a time (-EBUSY). Signals: not safe.
/// Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_embed_prepare(r#loop: evloop_t) -> c_int {
    guard("evloop_embed_prepare", || reactor::embed_prepare(r#loop).map(c_int::from))
}

/// Dispatch what is ready, after a wait by somebody else.
///
/// As evloop_run(NOWAIT), but for the prepare watchers, which ran in
/// evloop_embed_prepare().
///
/// @param loop a loop.
/// @returns as evloop_run().
///
/// Blocking: no. Threads: any, one at a time (-EBUSY). Signals: not safe.
/// Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_embed_dispatch(r#loop: evloop_t) -> c_int {
    guard("evloop_embed_dispatch", || reactor::run(r#loop, Mode::Embedded).map(c_int::from))
}

/// Make an event loop usable in a forked child.
///
/// In a child every call on an inherited loop and its watchers, but for
/// closing them, is -ECHILD until this is called. It makes the loop's own
/// descriptors anew and registers what is watched with them: the child goes
/// on with a copy of the loop, and the parent is not disturbed.
///
/// Descriptors are registered by their numbers: a watcher whose descriptor
/// the child has closed gets one EVLOOP_ERROR event, but if the number is
/// another file's by then that file is watched. So call this before closing
/// what was inherited.
///
/// Calls that other threads posted just before the fork may be missing in
/// the child. This may be called in the callback that forked: the child's
/// run then goes on.
///
/// @param loop a loop that was made before the fork.
/// @returns 0; also if there is nothing to do. -EBUSY: another thread of
///   the parent was in a callback of the loop, or in a call on it, at the
///   fork: its state was lost, it can only be closed. -EMFILE, -ENFILE,
///   -ENOSPC, -ENOMEM: some of it could not be done, be it for one watcher
///   alone. The loop stays the parent's, nothing is lost, and this can be
///   called again until it succeeds. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_after_fork(r#loop: evloop_t) -> c_int {
    guard("evloop_after_fork", || reactor::revive(r#loop).map(|()| 0))
}
