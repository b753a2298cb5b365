//! What an event loop waits for: `evloop_add_*`.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::{guard, guard_rest, signal_safe};
use super::types::*;
use crate::event_loop::{self, ObjectRef, Source, Target, fast_path};
use crate::handle;
use crate::kqueue::{self, Kqueue};
use crate::timerfd::{self, Timer};

/// Watches a descriptor.
///
/// The watcher is level-triggered, unless events has EVLOOP_EPOLLET. With
/// EVLOOP_EPOLLONESHOT its first event disables it, until
/// evloop_watcher_enable() or evloop_io_modify(). Regular files, directories
/// and /dev/null are always ready: every iteration reports them, with
/// EVLOOP_EPOLLET too. If more than max_events descriptors are ready, these
/// take turns with the others.
///
/// Several watchers may watch one descriptor, but none beside one with
/// EVLOOP_EPOLLEXCLUSIVE. They are all level-triggered if one of them is. So a
/// reader and a writer need not know of each other:
///
///   evloop_add_io(loop, fd, EVLOOP_EPOLLIN, read_some, reader);
///   evloop_add_io(loop, fd, EVLOOP_EPOLLOUT, write_some, writer);
///
/// Three calls check readiness again, as EPOLL_CTL_MOD and EPOLL_CTL_ADD do:
/// enabling a watcher, modifying it (also to the same events), and adding
/// another watcher for its descriptor. What is ready then is reported, although
/// its edge has passed. Edge-triggered watchers that share the descriptor may
/// be reported once more. For watchers with ET or ONESHOT the check costs one
/// system call before the next wait, with EXCLUSIVE two. A disabled watcher
/// with EXCLUSIVE takes no wake-up from other loops.
///
/// So an edge-triggered callback that has read enough for now lets other
/// watchers have their turn, and is called again in the next iteration:
///
///   evloop_io_modify(event->watcher, EVLOOP_EPOLLIN | EVLOOP_EPOLLET);
///   return;
///
/// Close the watcher before the descriptor:
///
///   evloop_watcher_close(watcher, 0);
///   close(fd);
///
/// If the descriptor was closed first, the watcher gets one event with
/// EVLOOP_ERROR and result -EBADF when the loop notices, and is disabled. The
/// kernel reports nothing of a closed descriptor. The loop notices:
/// - when it next changes the registration, for instance after
///   evloop_io_modify() to other events;
/// - when a descriptor with the same fd is added;
/// - with EVLOOP_CHECK_FDS, before each wait.
///
/// The loop does not take a new descriptor with the same fd for the old one.
/// But while a duplicate of the old descriptor is open, the kernel continues to
/// report it under its old fd: event->fd may then be closed, or refer to
/// another file. The loop needs some hundred events to notice that; with
/// EVLOOP_EPOLLET, ONESHOT or EXCLUSIVE it does not notice.
///
/// Event: type EVLOOP_EVENT_IO, fd, events.
///
/// @param loop a loop.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_EPOLL bits; 0 watches for errors and hang-ups.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -EBADF     fd is not open
///   -EINVAL    an unknown bit
///   -EINVAL    a descriptor that the library has made for this loop (that of
///              evloop_fileno(), or of a watcher), or that it waits with
///   -EINVAL    EXCLUSIVE for an epoll descriptor, or with other bits than IN,
///              OUT, ERR, HUP, ET and WAKEUP
///   -EEXIST    another watcher of the loop watches fd, and one of the two is
///              EXCLUSIVE. If a thread calls this that does not run the loop,
///              the error arrives as an event with EVLOOP_ERROR instead
///   -ELOOP     epoll sets would be nested in a circle or too deep
///   -ENOMEM    no memory. If only the loop's own thread finds this, the error
///              arrives as an event with EVLOOP_ERROR, and the watcher is
///              disabled until it is enabled
///   -ENOSPC
///
/// Threads: any; on the thread that runs the loop no lock is taken.
/// Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_io(
    r#loop: evloop_t,
    fd: c_int,
    events: u32,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_io", || {
        let (fd, events) = (arg::fd(fd)?, arg::epoll_events(events)?);
        event_loop::add_io(r#loop, fd, events, Target { callback, user_data })
    })
}

/// Changes the events that an io watcher watches for.
///
/// The loop changes the kernel's registration before its next wait, if the
/// events differ by then. What is ready is reported, although its edge has
/// passed: see evloop_add_io(). If the kernel refuses the change, the error
/// arrives as one event with EVLOOP_ERROR.
///
/// The call enables a watcher that an EVLOOP_EPOLLONESHOT event or an error has
/// disabled. It does not enable one that evloop_watcher_disable() has disabled.
///
/// @param watcher an io watcher.
/// @param events as evloop_add_io(). With 0 every iteration still reports
///   errors and hang-ups; to report none call evloop_watcher_disable().
/// @returns 0.
///
/// Errors:
///   -EINVAL    an unknown bit, or EXCLUSIVE with ONESHOT or RDHUP. Other
///              combinations that evloop_add_io() refuses arrive as an event
///   -EINVAL    not an io watcher
///   -EEXIST    as evloop_add_io()
///   -ENOMEM
///
/// Threads: any; on the thread that runs the loop no lock is taken; from
/// another thread it takes effect before the loop next dispatches.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_io_modify(watcher: evloop_watcher_t, events: u32) -> c_int {
    if fast_path::io_modify(watcher, events) {
        return 0;
    }
    guard_rest("evloop_io_modify", || {
        event_loop::io_modify(watcher, arg::epoll_events(events)?).map(|()| 0)
    })
}

/// Sets the events of an io watcher, where 0 disables it.
///
/// Adapters to other libraries need this. With 0 it is
/// evloop_watcher_disable(); with other events it is evloop_io_modify() and
/// then evloop_watcher_enable().
///
/// @param watcher an io watcher.
/// @param events as evloop_add_io(); 0 disables the watcher, which then reports
///   no errors and hang-ups either.
/// @returns 0; errors as evloop_io_modify() and evloop_watcher_enable().
///
/// Threads: as evloop_io_modify().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_io_set(watcher: evloop_watcher_t, events: u32) -> c_int {
    if fast_path::io_set(watcher, events) {
        return 0;
    }
    guard_rest("evloop_io_set", || {
        event_loop::io_set(watcher, arg::epoll_events(events)?).map(|()| 0)
    })
}

/// Watches a timer file descriptor.
///
/// The loop reads it; no other reader should. If the timer is closed before the
/// watcher, its descriptor stays open until the loop has run and noticed.
///
/// Event: type EVLOOP_EVENT_TFD; count, the expirations. With EVLOOP_ERROR,
/// result is:
/// - -ECANCELED: a step of the clock has cancelled the timer; the watcher stays
///   enabled;
/// - -ESTALE: the timer was closed.
///
/// @param loop a loop.
/// @param tfd a timer; it stays the caller's, who closes the watcher first.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -ENOTSUP   the loop has virtual time, which the kernel's timers do not
///              follow
///   -EBADF, -EEXIST  as evloop_add_io()
///   -ENOSPC, -ENOMEM
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_tfd(
    r#loop: evloop_t,
    tfd: tfd_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_tfd", || {
        let object_ref = || {
            let fd = handle::descriptor::<Timer>(tfd)?;
            Ok(ObjectRef { handle: tfd, fd, pin: timerfd::watchable })
        };
        event_loop::add_object(r#loop, Source::Tfd, object_ref, Target { callback, user_data })
    })
}

/// Watches a kqueue.
///
/// The loop calls the callback while the queue has events. The callback takes
/// them with evloop_kqueue_control() and a timeout of 0.
///
/// Event: type EVLOOP_EVENT_KQUEUE; events is 0, fd -1. If the queue is closed
/// there is one event with EVLOOP_ERROR and result -ESTALE; then the watcher is
/// disabled.
///
/// @param loop a loop.
/// @param kq a kqueue. It stays the caller's, and is freed when the watcher is
///   closed too. Of a handle of evloop_kqueue_from_fd() the loop notices only
///   that this handle is closed.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -EEXIST    as evloop_add_io()
///   -ENOSPC, -ENOMEM
///
/// Threads: any; on the thread that runs the loop no lock is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_kqueue(
    r#loop: evloop_t,
    kq: evloop_kqueue_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_kqueue", || {
        let object_ref = || {
            let fd = handle::descriptor::<Kqueue>(kq)?;
            Ok(ObjectRef { handle: kq, fd, pin: kqueue::watchable })
        };
        event_loop::add_object(r#loop, Source::Kqueue, object_ref, Target { callback, user_data })
    })
}

/// Adds a watcher that any thread, and any signal handler, can trigger.
///
/// evloop_async_send() triggers it. It keeps the loop alive while it is
/// enabled. To have each single call delivered use evloop_post().
///
/// Event: type EVLOOP_EVENT_ASYNC.
///
/// @param loop a loop.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -ENOMEM
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_async(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_async", || {
        event_loop::add_plain(r#loop, Source::Async, Target { callback, user_data })
    })
}

/// Triggers an async watcher.
///
/// The thread that runs the loop calls the callback. A callback that begins
/// after this call sees all writes that the calling thread made before the
/// call. Several calls before the callback begins count as one. A disabled
/// watcher delivers the event when it is enabled.
///
/// @param watcher an async watcher.
/// @returns 0.
///
/// Errors:
///   -EINVAL    not an async watcher
///   -EBADF     as evloop_wakeup()
///
/// Signals: safe (evloop_last_error() is not set).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_async_send(watcher: evloop_watcher_t) -> c_int {
    signal_safe(event_loop::async_send(watcher))
}

/// Adds a watcher that is called while nothing else is ready.
///
/// It is called in each iteration that dispatched no timer, clock_change, async
/// or defer watcher, posted call or descriptor. While one is enabled the loop
/// is alive and does not wait, so disable or close it when its work is done. An
/// idle watcher without a callback is for evloop_wait(), which returns its
/// event; evloop_run() would spin and keep the processor busy.
///
/// Event: type EVLOOP_EVENT_IDLE.
///
/// Parameters, result and errors: as evloop_add_async().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_idle(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_idle", || {
        event_loop::add_plain(r#loop, Source::Idle, Target { callback, user_data })
    })
}

/// Adds a watcher that is called before each wait.
///
/// It keeps the loop alive while it is enabled. A library that adds one (or a
/// check watcher) for its own purposes should unreference it. The loop then
/// ends when the program's watchers do:
///
///   evloop_watcher_t before = evloop_add_prepare(loop, flush, state);
///   evloop_watcher_unref(before);
///
/// Event: type EVLOOP_EVENT_PREPARE.
///
/// Parameters, result and errors: as evloop_add_async().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_prepare(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_prepare", || {
        event_loop::add_plain(r#loop, Source::Prepare, Target { callback, user_data })
    })
}

/// Adds a watcher that is called after each wait.
///
/// It is called when everything that the wait found was dispatched. It keeps
/// the loop alive while it is enabled. A library that adds one for its own
/// purposes calls evloop_watcher_unref(), as with evloop_add_prepare().
///
/// Event: type EVLOOP_EVENT_CHECK.
///
/// Parameters, result and errors: as evloop_add_async().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_check(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_check", || {
        event_loop::add_plain(r#loop, Source::Check, Target { callback, user_data })
    })
}

/// Adds a watcher that is called once, in the next iteration.
///
/// It is then disabled; after evloop_watcher_enable() it is called once more.
///
/// Event: type EVLOOP_EVENT_DEFER.
///
/// Parameters, result and errors: as evloop_add_async().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_defer(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_defer", || {
        event_loop::add_plain(r#loop, Source::Defer, Target { callback, user_data })
    })
}

/// Adds a watcher that is called when a run ends.
///
/// It is called just before evloop_run(UNTIL_DONE) or evloop_run_for_ns()
/// returns 0 or 1: because nothing keeps the loop alive, the time is over, or
/// evloop_stop() was called. Exit watchers are called in the order of their
/// priorities. They do not keep the loop alive.
///
/// Event: type EVLOOP_EVENT_EXIT.
///
/// Parameters, result and errors: as evloop_add_async().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_exit(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_exit", || {
        event_loop::add_plain(r#loop, Source::Exit, Target { callback, user_data })
    })
}

/// Adds a watcher that is called when the wall clock is set.
///
/// It is called when CLOCK_REALTIME makes a step, by clock_settime(2) or after
/// a suspend; not when the clock is slewed, and never with EVLOOP_VIRTUAL_TIME.
/// It does not keep the loop alive.
///
/// Event: type EVLOOP_EVENT_CLOCK_CHANGE.
///
/// @param loop, callback, user_data as evloop_add_async().
/// @returns the watcher, enabled.
///
/// Errors:
///   -EMFILE, -ENFILE, -ENOSPC  the first of a loop takes a descriptor
///   -ENOMEM
///
/// Source: TFD_TIMER_CANCEL_ON_SET of timerfd_create(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_clock_change(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_clock_change", || {
        event_loop::add_plain(r#loop, Source::ClockChange, Target { callback, user_data })
    })
}
