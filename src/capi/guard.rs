//! What every export runs in: no panic and no Rust error gets out.

use crate::errno::{self, Errno, Result};
use crate::sys::SavedErrno;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

/// Runs the body of an export and turns its result into the C value; errno
/// is left as it was.
///
/// A panic is a bug of ours: it becomes -ENOTRECOVERABLE, and the objects it
/// unwound through were poisoned when their pins were dropped.
#[inline]
pub(super) fn guard<T: From<c_int>>(function: &'static str, body: impl FnOnce() -> Result<T>) -> T {
    guard_with(function, errno::record, body)
}

/// The same of a function that closes a handle. A program that cleans up also
/// closes what a constructor did not make: the sentence of that failure stays.
#[inline]
pub(super) fn guard_close(
    function: &'static str,
    handle: i64,
    body: impl FnOnce() -> Result<c_int>,
) -> c_int {
    guard_with(function, if handle > 0 { errno::record } else { errno::record_if_first }, body)
}

#[inline]
fn guard_with<T: From<c_int>>(
    function: &'static str,
    record: fn(&'static str),
    body: impl FnOnce() -> Result<T>,
) -> T {
    let errno_before = SavedErrno::now();
    // Unwind safety: what a panic leaves half done is in a poisoned object.
    let result = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            // "Nothing yet" is an answer, not a failure.
            if error.errno != Errno::EAGAIN {
                record(function);
            }
            T::from(error.errno.negated())
        }
        Err(_) => T::from(Errno::ENOTRECOVERABLE.negated()),
    };
    errno_before.restore();
    result
}

/// The same, after the fast path did not apply: out of line, so that the fast
/// path needs no stack frame. What cannot fail needs no guard.
#[cold]
#[inline(never)]
pub(super) fn guard_rest<T: From<c_int>>(
    function: &'static str,
    body: impl FnOnce() -> Result<T>,
) -> T {
    guard(function, body)
}

/// The C value of a function that a signal handler may call: nothing of the
/// thread's is touched (errno only where the loop is woken, which restores it),
/// and the error has no sentence.
#[inline(always)]
pub(super) fn signal_safe(result: std::result::Result<(), Errno>) -> c_int {
    result.map_or_else(Errno::negated, |()| 0)
}

/// Runs when the library is loaded.
///
/// The panic hook is that of the Rust runtime inside the library, which no
/// other code uses. It keeps the message for `evloop_last_error` instead of
/// printing it: the library prints nothing.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        // A box of nothing, which needs no memory.
        #[allow(clippy::disallowed_methods)]
        std::panic::set_hook(Box::new(keep_message));
    }
    at_load
};

#[cfg_attr(test, allow(dead_code, unused_imports))]
fn keep_message(info: &PanicHookInfo<'_>) {
    errno::record_panic(format_args!("a bug of libevloop: {info} (ENOTRECOVERABLE)"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle;
    use crate::poller::poll::PollSet;
    use crate::util::Out;

    #[test]
    fn a_panic_becomes_enotrecoverable_and_poisons_what_was_in_use() {
        let set = handle::insert(PollSet::new()).unwrap();
        let other = handle::insert(PollSet::new()).unwrap();
        let code: c_int = guard("test", || {
            let _pinned = handle::pin::<PollSet>(set)?;
            panic!("on purpose");
        });
        assert_eq!(code, -libc::ENOTRECOVERABLE);
        let errno = |handle| handle::pin::<PollSet>(handle).map(drop).map_err(|error| error.errno);
        assert_eq!(errno(set), Err(Errno::ENOTRECOVERABLE));
        assert_eq!(errno(other), Ok(()));
        assert!(handle::close::<PollSet>(set).is_ok());
        assert_eq!(errno(set), Err(Errno::ESTALE));
        assert!(handle::close::<PollSet>(other).is_ok());
    }

    #[test]
    fn an_error_becomes_its_number_and_eagain_is_not_kept() {
        let fails = |errno: Errno| guard::<i64>("f", || Err(errno.into()));
        assert_eq!(fails(Errno::EBADF), i64::from(-libc::EBADF));
        assert_eq!(fails(Errno::EAGAIN), i64::from(-libc::EAGAIN));
        let mut text = [0; 64];
        // SAFETY: the array is used through this until the text is there.
        let mut out = unsafe { Out::new(text.as_mut_ptr(), text.len()) };
        let len = errno::last_error_into(&mut out) as usize;
        assert_eq!(&text[..len], b"f: not an open descriptor (EBADF)");
    }
}
