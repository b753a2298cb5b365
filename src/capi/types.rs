//! The C types and constants of the header.
//!
//! Every constant is a plain literal, because the header generator copies
//! expressions verbatim; the assertions below tie each literal to the system's
//! own value.

use crate::event_loop::{self, Event, Source, Stuck};
use crate::handle::Kind;
use std::ffi::{c_int, c_void};

/// Any object of the library: an integer from 1 to 2^53-1, never 0.
///
/// The value encodes the kind of the object and the generation of its table
/// entry. So the library never takes a closed handle for a newer object
/// (-ESTALE), and recognises a handle of another kind (-EDOM). A double
/// represents the value exactly, so JavaScript and Lua can hold it.
#[allow(non_camel_case_types)]
pub type evloop_handle_t = i64;

/// A timer file descriptor; see tfd_create().
#[allow(non_camel_case_types)]
pub type tfd_t = evloop_handle_t;

/// A poll set; see evloop_poll_create().
#[allow(non_camel_case_types)]
pub type evloop_poll_t = evloop_handle_t;

/// An epoll object; see evloop_epoll_create().
#[allow(non_camel_case_types)]
pub type evloop_epoll_t = evloop_handle_t;

/// A /dev/poll object; see evloop_devpoll_create().
#[allow(non_camel_case_types)]
pub type evloop_devpoll_t = evloop_handle_t;

/// A kqueue; see evloop_kqueue_create().
#[allow(non_camel_case_types)]
pub type evloop_kqueue_t = evloop_handle_t;

/// A selector; see evloop_selector_create().
#[allow(non_camel_case_types)]
pub type evloop_selector_t = evloop_handle_t;

/// An event loop; see evloop_create().
#[allow(non_camel_case_types)]
pub type evloop_t = evloop_handle_t;

/// A watcher: one source of events in an event loop; see evloop_add_io().
#[allow(non_camel_case_types)]
pub type evloop_watcher_t = evloop_handle_t;

/// Called by an event loop for each event, one call at a time, on the thread
/// that runs the loop.
///
/// The library holds no lock. The callback may call every function of the
/// library on every object. It may close its own watcher, other watchers that
/// are ready in the same iteration (their events are dropped), or the loop
/// itself. It must return, or end the process: neither longjmp(),
/// pthread_exit() nor a C++ exception may leave it.
///
/// event is valid until the callback returns. user_data is the pointer that was
/// passed with the callback; event->data has the same value, for programs
/// without callbacks. Check event->events for EVLOOP_ERROR first: with it
/// result has the cause, and nothing else happened.
#[allow(non_camel_case_types)]
pub type evloop_callback_t =
    Option<unsafe extern "C" fn(event: *const Event, user_data: *mut c_void)>;

/// Frees what user_data points to; see evloop_post_full(). free(3) is one.
///
/// The library holds no lock, and the function may call every function of the
/// library. It must return: neither longjmp() nor a C++ exception may leave it.
#[allow(non_camel_case_types)]
pub type evloop_destroy_t = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Decides what an interrupted wait does; see evloop_set_interrupt_check().
///
/// Returns 0 to continue the wait with the rest of its timeout, anything else
/// to make the wait return -EINTR. It runs on the waiting thread, and the
/// library holds no lock. It may call every function of the library, and may
/// even close the object that the thread waits in; the wait then returns
/// -ESTALE. It must return: neither longjmp(), pthread_exit() nor a C++
/// exception may leave it.
#[allow(non_camel_case_types)]
pub type evloop_interrupt_check_t = Option<unsafe extern "C" fn(user_data: *mut c_void) -> c_int>;

/// Called by the thread of a watchdog for a callback that is stuck, and once
/// more when that callback has returned; see evloop_set_watchdog().
///
/// stuck is valid until it returns.
#[allow(non_camel_case_types)]
pub type evloop_watchdog_t =
    Option<unsafe extern "C" fn(stuck: *const Stuck, user_data: *mut c_void)>;

/// Version of this header: incompatible changes.
pub const EVLOOP_VERSION_MAJOR: c_int = 0;
/// Version of this header: additions.
pub const EVLOOP_VERSION_MINOR: c_int = 2;
/// Version of this header: corrections.
pub const EVLOOP_VERSION_PATCH: c_int = 0;
/// The version of this header as one number, for `#if EVLOOP_VERSION >= 2000`:
/// a million for each major version, a thousand for each minor one.
/// evloop_version() returns that of the loaded library.
pub const EVLOOP_VERSION: c_int = 2000;
const _: () = assert!(
    EVLOOP_VERSION
        == EVLOOP_VERSION_MAJOR * 1_000_000 + EVLOOP_VERSION_MINOR * 1000 + EVLOOP_VERSION_PATCH
);

/// evloop_handle_count(): every kind together.
pub const EVLOOP_KIND_ANY: c_int = 0;
/// evloop_handle_kind(): a timer file descriptor.
pub const EVLOOP_KIND_TFD: c_int = 1;
/// evloop_handle_kind(): an event loop.
pub const EVLOOP_KIND_LOOP: c_int = 2;
/// evloop_handle_kind(): a watcher of an event loop.
pub const EVLOOP_KIND_WATCHER: c_int = 3;
/// evloop_handle_kind(): a poll set.
pub const EVLOOP_KIND_POLL: c_int = 4;
/// evloop_handle_kind(): an epoll object.
pub const EVLOOP_KIND_EPOLL: c_int = 5;
/// evloop_handle_kind(): a /dev/poll object.
pub const EVLOOP_KIND_DEVPOLL: c_int = 6;
/// evloop_handle_kind(): a kqueue.
pub const EVLOOP_KIND_KQUEUE: c_int = 7;
/// evloop_handle_kind(): a selector.
pub const EVLOOP_KIND_SELECTOR: c_int = 8;

/// evloop_set_interrupt_mode(): resume interrupted waits (the default).
pub const EVLOOP_EINTR_RESTART: c_int = 0;
/// evloop_set_interrupt_mode(): interrupted waits return -EINTR.
pub const EVLOOP_EINTR_RETURN: c_int = 1;

/// `*_from_fd`: closing the handle also closes the descriptor.
pub const EVLOOP_FD_OWN: u32 = 0x1;

/// CLOCK_REALTIME: the wall clock, which can be set and stepped.
pub const EVLOOP_CLOCK_REALTIME: c_int = 0;
/// CLOCK_MONOTONIC: cannot be set; stops while the system is suspended.
pub const EVLOOP_CLOCK_MONOTONIC: c_int = 1;
/// CLOCK_BOOTTIME: monotonic, and runs while the system is suspended.
pub const EVLOOP_CLOCK_BOOTTIME: c_int = 7;
/// CLOCK_REALTIME_ALARM: the wall clock; a timer wakes a suspended system.
pub const EVLOOP_CLOCK_REALTIME_ALARM: c_int = 8;
/// CLOCK_BOOTTIME_ALARM: boot time; a timer wakes a suspended system.
pub const EVLOOP_CLOCK_BOOTTIME_ALARM: c_int = 9;

/// tfd_create(): tfd_read() returns -EAGAIN instead of waiting.
pub const EVLOOP_TFD_NONBLOCK: u32 = 0x800;
/// tfd_create(): close on exec; always on, accepted for completeness.
pub const EVLOOP_TFD_CLOEXEC: u32 = 0x80000;
/// tfd_settime(): the initial time is a time of the timer's clock.
pub const EVLOOP_TFD_TIMER_ABSTIME: u32 = 0x1;
/// tfd_settime(), with ABSTIME on a wall clock: a clock step cancels the timer.
pub const EVLOOP_TFD_TIMER_CANCEL_ON_SET: u32 = 0x2;

/// Data to read.
pub const EVLOOP_POLLIN: u32 = 0x1;
/// Urgent (out-of-band) data, or an exceptional condition.
pub const EVLOOP_POLLPRI: u32 = 0x2;
/// Room to write.
pub const EVLOOP_POLLOUT: u32 = 0x4;
/// Error; always reported, need not be requested.
pub const EVLOOP_POLLERR: u32 = 0x8;
/// Hang-up; always reported, need not be requested.
pub const EVLOOP_POLLHUP: u32 = 0x10;
/// Not an open descriptor; always reported, need not be requested.
pub const EVLOOP_POLLNVAL: u32 = 0x20;
/// Normal data to read.
pub const EVLOOP_POLLRDNORM: u32 = 0x40;
/// Priority band data to read.
pub const EVLOOP_POLLRDBAND: u32 = 0x80;
/// Room to write normal data.
pub const EVLOOP_POLLWRNORM: u32 = 0x100;
/// Room to write priority data.
pub const EVLOOP_POLLWRBAND: u32 = 0x200;
/// Unused by Linux; accepted.
pub const EVLOOP_POLLMSG: u32 = 0x400;
/// The peer shut down its writing half.
pub const EVLOOP_POLLRDHUP: u32 = 0x2000;
/// What Python's poll objects watch by default: IN, PRI and OUT.
pub const EVLOOP_POLL_DEFAULT: u32 = 0x7;

/// Data to read.
pub const EVLOOP_EPOLLIN: u32 = 0x1;
/// Urgent (out-of-band) data, or an exceptional condition.
pub const EVLOOP_EPOLLPRI: u32 = 0x2;
/// Room to write.
pub const EVLOOP_EPOLLOUT: u32 = 0x4;
/// Error; always reported, need not be requested.
pub const EVLOOP_EPOLLERR: u32 = 0x8;
/// Hang-up; always reported, need not be requested.
pub const EVLOOP_EPOLLHUP: u32 = 0x10;
/// Normal data to read.
pub const EVLOOP_EPOLLRDNORM: u32 = 0x40;
/// Priority band data to read.
pub const EVLOOP_EPOLLRDBAND: u32 = 0x80;
/// Room to write normal data.
pub const EVLOOP_EPOLLWRNORM: u32 = 0x100;
/// Room to write priority data.
pub const EVLOOP_EPOLLWRBAND: u32 = 0x200;
/// Unused by Linux; accepted.
pub const EVLOOP_EPOLLMSG: u32 = 0x400;
/// The peer shut down its writing half.
pub const EVLOOP_EPOLLRDHUP: u32 = 0x2000;
/// Wake only some of the epoll sets that watch this descriptor.
pub const EVLOOP_EPOLLEXCLUSIVE: u32 = 0x10000000;
/// Keep the system awake while the event is pending (CAP_BLOCK_SUSPEND).
pub const EVLOOP_EPOLLWAKEUP: u32 = 0x20000000;
/// Disable the registration after one event, until it is modified.
pub const EVLOOP_EPOLLONESHOT: u32 = 0x40000000;
/// Edge-triggered.
pub const EVLOOP_EPOLLET: u32 = 0x80000000;
/// What Python's epoll objects watch by default: IN, PRI and OUT.
pub const EVLOOP_EPOLL_DEFAULT: u32 = 0x7;
/// evloop_epoll_create(): close on exec; always on, accepted.
pub const EVLOOP_EPOLL_CLOEXEC: u32 = 0x80000;

/// evloop_selector_create(): the best backend, today EPOLL.
pub const EVLOOP_SELECTOR_DEFAULT: c_int = 0;
/// evloop_selector_create(): the events of select(2), on a poll set.
pub const EVLOOP_SELECTOR_SELECT: c_int = 1;
/// evloop_selector_create(): on a poll set.
pub const EVLOOP_SELECTOR_POLL: c_int = 2;
/// evloop_selector_create(): on an epoll object.
pub const EVLOOP_SELECTOR_EPOLL: c_int = 3;
/// evloop_selector_create(): on a /dev/poll object.
pub const EVLOOP_SELECTOR_DEVPOLL: c_int = 4;
/// evloop_selector_create(): on a kqueue.
pub const EVLOOP_SELECTOR_KQUEUE: c_int = 5;
/// Selector event: a read would not block.
pub const EVLOOP_SELECTOR_READ: u32 = 0x1;
/// Selector event: a write would not block.
pub const EVLOOP_SELECTOR_WRITE: u32 = 0x2;

/// evloop_options_t: the loop's time is virtual. It stands still until
/// evloop_advance_ns() or EVLOOP_AUTO_ADVANCE moves it.
pub const EVLOOP_VIRTUAL_TIME: u32 = 0x1;
/// evloop_options_t: virtual time jumps to the next deadline (of a timer, a
/// timeout or a rate limit) when a run would have to wait: the loop has polled
/// the descriptors, none is ready, and no call is posted. It does not jump with
/// EVLOOP_RUN_NOWAIT, with a time of 0 (evloop_wait(), evloop_run_for_ns()), or
/// while an idle watcher is enabled.
pub const EVLOOP_AUTO_ADVANCE: u32 = 0x2;
/// evloop_options_t: the loop wakes up early for timers and spins until they
/// are due, up to 0.12 ms each time. Timers are less late, at the cost of
/// processor time.
pub const EVLOOP_PRECISE: u32 = 0x4;
/// evloop_options_t: a run does not end, and a wait does not return, because
/// nothing keeps the loop alive. For loops of worker threads, which wait for
/// posted calls; evloop_stop() ends them. Since 0.2.0.
pub const EVLOOP_KEEP_ALIVE: u32 = 0x8;
/// evloop_options_t: a wait of this loop that a signal handler interrupts
/// returns -EINTR. This holds for every thread that runs the loop, whatever it
/// has chosen with evloop_set_interrupt_mode() or evloop_set_interrupt_check().
/// Since 0.2.0.
pub const EVLOOP_INTERRUPTIBLE: u32 = 0x10;
/// evloop_options_t: the loop checks all descriptors that it watches, before
/// each wait and every 100 milliseconds of a longer one; for tests and
/// debugging. A watcher whose descriptor was closed, or refers to another file
/// now, gets its event with EVLOOP_ERROR and -EBADF at once, even if a
/// duplicate of the descriptor is open. In its callback evloop_last_error() has
/// a sentence with the descriptor and the watcher's name. The check costs one
/// system call for each descriptor and wait; it does not re-arm an
/// edge-triggered or ONESHOT registration. Since 0.2.0.
pub const EVLOOP_CHECK_FDS: u32 = 0x20;

/// evloop_run(): run until nothing keeps the loop alive, or evloop_stop().
pub const EVLOOP_RUN_UNTIL_DONE: c_int = 0;
/// evloop_run(): run until at least one event was dispatched.
pub const EVLOOP_RUN_ONCE: c_int = 1;
/// evloop_run(): dispatch what is ready, without waiting.
pub const EVLOOP_RUN_NOWAIT: c_int = 2;

/// evloop_event_t type: a descriptor is ready.
pub const EVLOOP_EVENT_IO: c_int = 1;
/// evloop_event_t type: a timer expired.
pub const EVLOOP_EVENT_TIMER: c_int = 2;
/// evloop_event_t type: a timer file descriptor expired.
pub const EVLOOP_EVENT_TFD: c_int = 3;
/// evloop_event_t type: evloop_async_send() was called.
pub const EVLOOP_EVENT_ASYNC: c_int = 4;
/// evloop_event_t type: the iteration dispatched nothing else.
pub const EVLOOP_EVENT_IDLE: c_int = 5;
/// evloop_event_t type: the loop is about to wait.
pub const EVLOOP_EVENT_PREPARE: c_int = 6;
/// evloop_event_t type: the loop has waited and dispatched.
pub const EVLOOP_EVENT_CHECK: c_int = 7;
/// evloop_event_t type: a deferred call.
pub const EVLOOP_EVENT_DEFER: c_int = 8;
/// evloop_event_t type: evloop_run() is about to return.
pub const EVLOOP_EVENT_EXIT: c_int = 9;
/// evloop_event_t type: the wall clock was set.
pub const EVLOOP_EVENT_CLOCK_CHANGE: c_int = 10;
/// evloop_event_t type: a call of evloop_post() without a callback.
pub const EVLOOP_EVENT_POST: c_int = 11;
/// evloop_event_t type: the watcher is closed, and the loop does not use it any
/// more.
pub const EVLOOP_EVENT_CLOSED: c_int = 12;
/// evloop_event_t type: a kqueue has events.
pub const EVLOOP_EVENT_KQUEUE: c_int = 13;
/// evloop_event_t type: a signal arrived.
pub const EVLOOP_EVENT_SIGNAL: c_int = 14;
/// evloop_event_t type: a process ended.
pub const EVLOOP_EVENT_PROCESS: c_int = 15;

/// evloop_event_t events: the watcher's source failed, and result has the
/// cause:
/// - -EBADF: the descriptor was closed while the loop watched it;
/// - an error of epoll_ctl(2) after evloop_io_modify();
/// - -EEXIST, -EMFILE or -ENOMEM: the loop could not do what another thread
///   requested;
/// - what the comment of the evloop_add function lists, as evloop_add_tfd().
///
/// It disables an io watcher. The system has no such bit: an error of a socket
/// is EVLOOP_EPOLLERR.
pub const EVLOOP_ERROR: u32 = 0x1000000;

/// evloop_add_timer(): the initial time is a time of the timer's clock.
pub const EVLOOP_TIMER_ABSTIME: u32 = 0x1;
/// evloop_add_timer(): one event for each missed expiration.
pub const EVLOOP_TIMER_BURST: u32 = 0x2;
/// evloop_add_timer(): the interval begins at the end of the callbacks.
pub const EVLOOP_TIMER_DELAY: u32 = 0x4;
/// evloop_add_timer(): one event for all missed expirations (the default).
pub const EVLOOP_TIMER_SKIP: u32 = 0x0;
/// evloop_add_timer(): the loop wakes up at the deadline, however dense its
/// timers are. Since 0.2.0.
pub const EVLOOP_TIMER_EXACT: u32 = 0x10;

/// evloop_add_signal(): the signal is blocked, and the loop reads it from a
/// signalfd.
pub const EVLOOP_SIGNAL_FD: u32 = 0x1;
/// evloop_add_signal(): the default action of the signal happens as well.
pub const EVLOOP_SIGNAL_KEEP_DEFAULT: u32 = 0x2;

/// evloop_add_process(): wait for the child when it has ended.
pub const EVLOOP_PROCESS_REAP: u32 = 0x1;
/// evloop_event_t events, of a process: its status is not known.
pub const EVLOOP_PROCESS_STATUS_UNKNOWN: u32 = 0x1;
/// evloop_process_t how: it returned from main, or called exit(3).
pub const EVLOOP_PROCESS_EXITED: c_int = 1;
/// evloop_process_t how: a signal ended it.
pub const EVLOOP_PROCESS_KILLED: c_int = 2;
/// evloop_process_t how: a signal ended it, with a core dump.
pub const EVLOOP_PROCESS_DUMPED: c_int = 3;

/// evloop_watcher_close(): return when no callback of the watcher is running.
pub const EVLOOP_CLOSE_WAIT: u32 = 0x1;

/// evloop_stats_histogram(): how late timers were, on their clocks, when their
/// callbacks were called.
pub const EVLOOP_STATS_LATENESS: c_int = 0;
/// evloop_stats_histogram(): the duration of callbacks.
pub const EVLOOP_STATS_CALLBACK: c_int = 1;
/// The number of buckets of a histogram; later versions may have more.
pub const EVLOOP_STATS_BUCKETS: c_int = 1630;

/// The number of bytes that a pipe takes without blocking when it is reported
/// writable.
pub const EVLOOP_PIPE_BUF: c_int = 4096;

// The literals above are the handle table's and, on the targets we support,
// the system's values.
const _: () = {
    assert!(EVLOOP_KIND_TFD == Kind::Tfd as c_int);
    assert!(EVLOOP_KIND_LOOP == Kind::Loop as c_int);
    assert!(EVLOOP_KIND_WATCHER == Kind::Watcher as c_int);
    assert!(EVLOOP_KIND_POLL == Kind::Poll as c_int);
    assert!(EVLOOP_KIND_EPOLL == Kind::Epoll as c_int);
    assert!(EVLOOP_KIND_DEVPOLL == Kind::DevPoll as c_int);
    assert!(EVLOOP_KIND_KQUEUE == Kind::Kqueue as c_int);
    assert!(EVLOOP_KIND_SELECTOR == Kind::Selector as c_int);
    assert!(EVLOOP_VIRTUAL_TIME == event_loop::VIRTUAL_TIME);
    assert!(EVLOOP_AUTO_ADVANCE == event_loop::AUTO_ADVANCE);
    assert!(EVLOOP_PRECISE == event_loop::PRECISE);
    assert!(EVLOOP_KEEP_ALIVE == event_loop::KEEP_ALIVE);
    assert!(EVLOOP_INTERRUPTIBLE == event_loop::INTERRUPTIBLE);
    assert!(EVLOOP_CHECK_FDS == event_loop::CHECK_FDS);
    assert!(EVLOOP_EVENT_IO == Source::Io as c_int);
    assert!(EVLOOP_EVENT_TIMER == Source::Timer as c_int);
    assert!(EVLOOP_EVENT_TFD == Source::Tfd as c_int);
    assert!(EVLOOP_EVENT_ASYNC == Source::Async as c_int);
    assert!(EVLOOP_EVENT_IDLE == Source::Idle as c_int);
    assert!(EVLOOP_EVENT_PREPARE == Source::Prepare as c_int);
    assert!(EVLOOP_EVENT_CHECK == Source::Check as c_int);
    assert!(EVLOOP_EVENT_DEFER == Source::Defer as c_int);
    assert!(EVLOOP_EVENT_EXIT == Source::Exit as c_int);
    assert!(EVLOOP_EVENT_CLOCK_CHANGE == Source::ClockChange as c_int);
    assert!(EVLOOP_EVENT_POST == event_loop::POST);
    assert!(EVLOOP_EVENT_CLOSED == event_loop::CLOSED);
    assert!(EVLOOP_EVENT_KQUEUE == Source::Kqueue as c_int);
    assert!(EVLOOP_EVENT_SIGNAL == Source::Signal as c_int);
    assert!(EVLOOP_EVENT_PROCESS == Source::Process as c_int);
    assert!(EVLOOP_PROCESS_STATUS_UNKNOWN == event_loop::STATUS_UNKNOWN);
    assert!(EVLOOP_PROCESS_EXITED == libc::CLD_EXITED);
    assert!(EVLOOP_PROCESS_KILLED == libc::CLD_KILLED);
    assert!(EVLOOP_PROCESS_DUMPED == libc::CLD_DUMPED);
    assert!(EVLOOP_ERROR == event_loop::ERROR);
    assert!(EVLOOP_POLL_DEFAULT == EVLOOP_POLLIN | EVLOOP_POLLPRI | EVLOOP_POLLOUT);
    assert!(EVLOOP_EPOLL_DEFAULT == EVLOOP_EPOLLIN | EVLOOP_EPOLLPRI | EVLOOP_EPOLLOUT);
    assert!(EVLOOP_CLOCK_REALTIME == libc::CLOCK_REALTIME);
    assert!(EVLOOP_CLOCK_MONOTONIC == libc::CLOCK_MONOTONIC);
    assert!(EVLOOP_CLOCK_BOOTTIME == libc::CLOCK_BOOTTIME);
    assert!(EVLOOP_CLOCK_REALTIME_ALARM == libc::CLOCK_REALTIME_ALARM);
    assert!(EVLOOP_CLOCK_BOOTTIME_ALARM == libc::CLOCK_BOOTTIME_ALARM);
    assert!(EVLOOP_TFD_NONBLOCK == libc::TFD_NONBLOCK as u32);
    assert!(EVLOOP_TFD_CLOEXEC == libc::TFD_CLOEXEC as u32);
    assert!(EVLOOP_TFD_TIMER_ABSTIME == libc::TFD_TIMER_ABSTIME as u32);
    assert!(EVLOOP_TFD_TIMER_CANCEL_ON_SET == libc::TFD_TIMER_CANCEL_ON_SET as u32);
    assert!(EVLOOP_POLLIN == libc::POLLIN as u32);
    assert!(EVLOOP_POLLPRI == libc::POLLPRI as u32);
    assert!(EVLOOP_POLLOUT == libc::POLLOUT as u32);
    assert!(EVLOOP_POLLERR == libc::POLLERR as u32);
    assert!(EVLOOP_POLLHUP == libc::POLLHUP as u32);
    assert!(EVLOOP_POLLNVAL == libc::POLLNVAL as u32);
    assert!(EVLOOP_POLLRDNORM == libc::POLLRDNORM as u32);
    assert!(EVLOOP_POLLRDBAND == libc::POLLRDBAND as u32);
    assert!(EVLOOP_POLLWRNORM == libc::POLLWRNORM as u32);
    assert!(EVLOOP_POLLWRBAND == libc::POLLWRBAND as u32);
    assert!(EVLOOP_POLLRDHUP == libc::POLLRDHUP as u32);
    assert!(EVLOOP_EPOLLIN == libc::EPOLLIN as u32);
    assert!(EVLOOP_EPOLLPRI == libc::EPOLLPRI as u32);
    assert!(EVLOOP_EPOLLOUT == libc::EPOLLOUT as u32);
    assert!(EVLOOP_EPOLLERR == libc::EPOLLERR as u32);
    assert!(EVLOOP_EPOLLHUP == libc::EPOLLHUP as u32);
    assert!(EVLOOP_EPOLLRDNORM == libc::EPOLLRDNORM as u32);
    assert!(EVLOOP_EPOLLRDBAND == libc::EPOLLRDBAND as u32);
    assert!(EVLOOP_EPOLLWRNORM == libc::EPOLLWRNORM as u32);
    assert!(EVLOOP_EPOLLWRBAND == libc::EPOLLWRBAND as u32);
    assert!(EVLOOP_EPOLLMSG == libc::EPOLLMSG as u32);
    assert!(EVLOOP_EPOLLRDHUP == libc::EPOLLRDHUP as u32);
    assert!(EVLOOP_EPOLLEXCLUSIVE == libc::EPOLLEXCLUSIVE as u32);
    assert!(EVLOOP_EPOLLWAKEUP == libc::EPOLLWAKEUP as u32);
    assert!(EVLOOP_EPOLLONESHOT == libc::EPOLLONESHOT as u32);
    assert!(EVLOOP_EPOLLET == libc::EPOLLET as u32);
    assert!(EVLOOP_EPOLL_CLOEXEC == libc::EPOLL_CLOEXEC as u32);
    assert!(EVLOOP_PIPE_BUF == libc::PIPE_BUF as c_int);
};
