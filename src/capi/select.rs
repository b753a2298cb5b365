//! `evloop_select`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use crate::poller::select::select;

/// Waits until descriptors are ready, with lists instead of sets.
///
/// On return each list holds only its ready descriptors, in their order and
/// with duplicates, and its count is set. Descriptors of any value are allowed,
/// also at and above FD_SETSIZE. With three empty lists the call sleeps.
///
/// A descriptor is ready
/// - to read when a read would not block (data, end of file, hang-up, error);
/// - to write when a write would not block (room, error);
/// - exceptional when it has urgent data.
///
/// @param rlist descriptors to watch for reading; may be NULL if the count is
///   0.
/// @param nr number of entries in rlist, in and out; NULL counts as 0.
/// @param wlist descriptors to watch for writing; as rlist.
/// @param nw number of entries in wlist; as nr.
/// @param xlist descriptors to watch for urgent data; as rlist.
/// @param nx number of entries in xlist; as nr.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
///   ever.
/// @returns how many entries are left in the three lists together; 0, and three
///   counts of 0, if the time ran out.
///
/// Errors. On failure the lists and the counts are unchanged:
///   -EBADF     a descriptor is negative or not open
///   -EINVAL    a count is negative
///   -EINVAL    a list is NULL and its count is not 0
///   -EINTR, -ENOMEM
///
/// Blocking: up to timeout_ns, never less.
/// Source: select(2). It is built on pselect6(2), whose sets have no
/// FD_SETSIZE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_select(
    rlist: *mut c_int,
    nr: *mut c_int,
    wlist: *mut c_int,
    nw: *mut c_int,
    xlist: *mut c_int,
    nx: *mut c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_select", || {
        // SAFETY: the caller lends `*nr` integers at `rlist`, and `nr`.
        let read = unsafe { arg::SelectFds::new(rlist, nr, "nr") }?;
        // SAFETY: as above, for wlist.
        let write = unsafe { arg::SelectFds::new(wlist, nw, "nw") }?;
        // SAFETY: as above, for xlist.
        let except = unsafe { arg::SelectFds::new(xlist, nx, "nx") }?;
        let mut lists = [read, write, except];
        let ready = select(lists.each_mut().map(|list| &mut list.fds), timeout_ns)?;
        let ready = arg::count(ready)?;
        lists.iter().for_each(arg::SelectFds::store);
        Ok(ready)
    })
}
