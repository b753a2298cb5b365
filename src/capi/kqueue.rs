//! Kqueues: `evloop_kqueue_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::kqueue_types::*;
use super::types::*;
use crate::kqueue::{Changes, Kevent, OnSignal, Queue, Sink};
use crate::sys::clock::Deadline;
use crate::table;

/// @section Kqueues (FreeBSD's kqueue(2), Python's select.kqueue)
///
/// Create a kqueue.
///
/// @param flags 0 or EVLOOP_KQ_CLOEXEC.
/// @returns the queue, to be closed with evloop_kqueue_close(). -EINVAL: an
///   unknown flag. -EMFILE, -ENFILE: no descriptor left; a queue needs two,
///   and up to six more for what it is made to watch. -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD from
/// everything but close in the child. Since 0.1.0. Source: kqueue(2) of
/// FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_create(flags: u32) -> evloop_kqueue_t {
    guard("evloop_kqueue_create", || {
        arg::flags(flags, EVLOOP_KQ_CLOEXEC)?;
        table::insert(Queue::create()?)
    })
}

/// The descriptor of a kqueue.
///
/// It is only lent: do not close it. It is readable while an event is
/// pending, and can be registered with another kqueue, epoll, poll or
/// select.
///
/// @param kq a kqueue.
/// @returns the descriptor. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_fileno(kq: evloop_kqueue_t) -> c_int {
    guard("evloop_kqueue_fileno", || table::descriptor::<Queue>(kq))
}

/// Change what a kqueue watches, and wait for events.
///
/// First the changes are applied, in their order. One that fails gets an
/// entry in events: EVLOOP_KQ_EV_ERROR in flags, the errno in data, all else
/// as in the change. So does each that has EVLOOP_KQ_EV_RECEIPT, with data
/// 0. If there is any such entry, the call returns at once, and events stay
/// for the next one. If there is no room for an entry, the later changes are
/// not applied, and the call returns the error, or, after a receipt, the
/// number of entries.
///
/// Then events are waited for, unless nevents is 0.
///
/// @param kq a kqueue.
/// @param changes what to change; may be NULL if nchanges is 0.
/// @param nchanges how many changes; 0 or more.
/// @param events where events go; may be NULL if nevents is 0, and may be
///   the same array as changes.
/// @param nevents room in events, in entries; 0 or more. With 0 the changes
///   are applied and nothing is waited for.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits
///   for ever.
/// @returns the number of entries filled; 0 if the time ran out. -EINVAL: a
///   negative count, or an array is NULL. -EINTR: see
///   evloop_set_interrupt_mode(); all changes were applied. -ESTALE: not a
///   live handle, or closed during the wait. -ECHILD: used after fork.
///   -ENOMEM. -EDOM: see "Handles". Of a change: -EBADF: ident is not an
///   open descriptor. -ENOENT: ident is not watched with that filter.
///   -EINVAL: the filter, or something in fflags or data, is unknown.
///   -ENOTSUP: this system cannot watch that. -EMFILE, -ENFILE, -ENOSPC,
///   -ELOOP.
///
/// Blocking: up to timeout_ns, never less. Threads: any, several at once.
/// Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source: kevent(2) of
/// FreeBSD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_kqueue_control(
    kq: evloop_kqueue_t,
    changes: *const Kevent,
    nchanges: c_int,
    events: *mut Kevent,
    nevents: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_kqueue_control", || {
        let queue = table::pin::<Queue>(kq)?;
        let nchanges = arg::entries(changes, nchanges, "changes")?;
        let nevents = arg::entries(events, nevents, "events")?;
        // SAFETY: the caller lends so many entries.
        let mut changes = unsafe { Changes::new(changes, nchanges) };
        // SAFETY: the caller lends room for so many; those that take the
        // place of changes do so after these were read.
        let mut sink = unsafe { Sink::new(events, nevents) };
        let deadline = Deadline::after(timeout_ns);
        arg::count(queue.control(&mut changes, &mut sink, deadline, OnSignal::AsSet)?)
    })
}

/// Close a kqueue.
///
/// @param kq a kqueue.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: works in the child, and changes nothing for the
/// parent. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_close(kq: evloop_kqueue_t) -> c_int {
    guard("evloop_kqueue_close", || table::close::<Queue>(kq).map(|()| 0))
}
