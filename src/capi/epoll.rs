//! Epoll objects: `evloop_epoll_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::poller::Ready;
use crate::poller::epoll::Epoll;
use crate::reactor;
use crate::table;

/// Create an epoll object.
///
/// @param flags 0 or EVLOOP_EPOLL_CLOEXEC; CLOEXEC is always on.
/// @returns the epoll object, to be closed with evloop_epoll_close().
///   -EINVAL: an unknown flag. -EMFILE, -ENFILE: no descriptor left (the
///   first one of a process takes two, see "Descriptors"). -ENOSPC: the
///   user's max_user_watches is used up. -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD from
/// everything but close in the child, because the kernel would let it
/// change its parent's set. Since 0.1.0. Source: epoll_create1(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_create(flags: u32) -> evloop_epoll_t {
    guard("evloop_epoll_create", || {
        arg::flags(flags, EVLOOP_EPOLL_CLOEXEC)?;
        table::insert(Epoll::create()?)
    })
}

/// Use an epoll descriptor that something else created.
///
/// Registrations made through this object and by raw epoll_ctl(2) can be
/// mixed. For an event of a registration that the object does not know,
/// fd is -1 and data is the kernel's data word as its owner stored it. The
/// object takes one more descriptor, an eventfd, until it is closed.
///
/// @param fd an epoll descriptor. It stays the caller's, who closes it
///   after the handle; with EVLOOP_FD_OWN it is the handle's, and
///   evloop_epoll_close() closes it.
/// @param flags 0 or EVLOOP_FD_OWN.
/// @returns the epoll object. -EBADF: fd is not open. -EINVAL: fd is no
///   epoll descriptor, one of the library's own (but for that of
///   evloop_fileno()), or an unknown flag. -EMFILE, -ENFILE: no descriptor
///   left for the eventfd. -ENOSPC, -ENOMEM: as evloop_epoll_create(). On
///   failure fd stays the caller's.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: as
/// evloop_epoll_create(); a child that inherited fd can call this.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_from_fd(fd: c_int, flags: u32) -> evloop_epoll_t {
    guard("evloop_epoll_from_fd", || {
        arg::flags(flags, EVLOOP_FD_OWN)?;
        reactor::refuse_own(fd)?;
        let handle = table::insert(Epoll::adopt(fd)?)?;
        // Only now: an object that found no place leaves it open.
        if flags & EVLOOP_FD_OWN != 0 {
            table::pin::<Epoll>(handle)?.own_fd();
        }
        Ok(handle)
    })
}

/// The descriptor of an epoll object.
///
/// It is only lent: do not close it. It is readable while an event is
/// pending, and can be registered with another epoll, poll or select.
///
/// @param ep an epoll object.
/// @returns the descriptor. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_fileno(ep: evloop_epoll_t) -> c_int {
    guard("evloop_epoll_fileno", || table::descriptor::<Epoll>(ep))
}

/// Watch a descriptor.
///
/// Applies to a wait that is going on in another thread, too. Closing the
/// descriptor ends the registration, unless a duplicate of it is open
/// (epoll(7), Q6): unregister before close(2).
///
/// @param ep an epoll object.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_EPOLL bits; EVLOOP_EPOLL_DEFAULT is what Python
///   watches by default.
/// @param data handed back with each event, not looked at.
/// @returns 0. -EEXIST: fd is registered already. -EBADF: fd is not open.
///   -EPERM: fd cannot be waited for (a regular file, a directory, /dev/null;
///   a selector takes them). -EINVAL: an unknown bit, the epoll object
///   itself, one of the library's own descriptors, or EXCLUSIVE for an epoll
///   descriptor or with other bits than IN, OUT, ERR, HUP, ET and WAKEUP.
///   -ELOOP: epoll sets nested too deep or in a circle. -ENOSPC:
///   max_user_watches. -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0. Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_register(
    ep: evloop_epoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_epoll_register", || {
        let epoll = table::pin::<Epoll>(ep)?;
        epoll.register(arg::fd(fd)?, arg::epoll_events(events)?, data).map(|()| 0)
    })
}

/// Change how a registered descriptor is watched.
///
/// It also re-arms a ONESHOT registration. An event that another thread's
/// wait picks up at the same moment may carry the old or the new data.
///
/// @param ep an epoll object.
/// @param fd a registered descriptor.
/// @param events as evloop_epoll_register().
/// @param data as evloop_epoll_register(); replaces the old one.
/// @returns 0. -ENOENT: fd is not registered. -EINVAL: an unknown bit, the
///   epoll object itself, one of the library's own descriptors, or the old or
///   the new registration is EXCLUSIVE (unregister and register instead).
///   -EBADF: fd is not open. -EPERM: as evloop_epoll_register(). -ENOMEM.
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0. Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_modify(
    ep: evloop_epoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_epoll_modify", || {
        let epoll = table::pin::<Epoll>(ep)?;
        epoll.modify(arg::fd(fd)?, arg::epoll_events(events)?, data).map(|()| 0)
    })
}

/// Stop watching a descriptor.
///
/// @param ep an epoll object.
/// @param fd a registered descriptor.
/// @returns 0. -ENOENT: fd is not registered. -EBADF: fd is not open (the
///   kernel has forgotten it, unless a duplicate is open). -EINVAL: the
///   epoll object itself, or one of the library's own descriptors. -EPERM: fd
///   can never have been registered. -ECHILD: used after fork. -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0. Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_unregister(ep: evloop_epoll_t, fd: c_int) -> c_int {
    guard("evloop_epoll_unregister", || {
        table::pin::<Epoll>(ep)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Wait until registered descriptors are ready.
///
/// @param ep an epoll object.
/// @param out_ready filled from the front, as many entries as returned;
///   events holds EVLOOP_EPOLL bits. For a registration that the object
///   does not know (see evloop_epoll_from_fd()) fd is -1; also for one
///   whose descriptor was closed, not unregistered, and its number
///   registered again, as long as a duplicate is open; and from then on for
///   an event that was picked up just before its registration ended.
/// @param max room in out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits
///   for ever.
/// @returns the number of entries filled; 0 if the time ran out. -EINVAL:
///   max is 0 or less, or out_ready is NULL. -EBADF: the borrowed
///   descriptor was closed. -EINTR: see evloop_set_interrupt_mode().
///   -ESTALE: not a live handle, or closed during the wait. -ECHILD: used
///   after fork. -ENOMEM. -EDOM: see "Handles".
///
/// Blocking: up to timeout_ns, never less. Threads: any, several at once.
/// Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source: epoll_pwait2(2)
/// where the kernel has it (5.11), else ppoll(2) and epoll_pwait(2), to the
/// nanosecond both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_epoll_wait(
    ep: evloop_epoll_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_epoll_wait", || {
        let epoll = table::pin::<Epoll>(ep)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        epoll.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Close an epoll object.
///
/// The descriptor is closed (unless it is only borrowed) as soon as no
/// other thread is in a call with it. What was registered with a borrowed
/// one stays in the kernel's set.
///
/// @param ep an epoll object.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: works in the child, and changes nothing for the
/// parent. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_close(ep: evloop_epoll_t) -> c_int {
    guard("evloop_epoll_close", || table::close::<Epoll>(ep).map(|()| 0))
}

/// Give up an epoll object, but keep its descriptor.
///
/// The handle is stale, as after evloop_epoll_close(), and the descriptor is
/// the caller's from now on, who closes it. What is registered stays so, but
/// the words that epoll_wait(2) then reports with events are the library's:
/// set them anew with EPOLL_CTL_MOD.
///
/// @param ep an epoll object.
/// @returns the descriptor. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: -ECHILD. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_release(ep: evloop_epoll_t) -> c_int {
    guard("evloop_epoll_release", || table::release::<Epoll, _>(ep, Epoll::give_fd_away))
}
