//! Errors: an errno and, in one sentence, what was wrong with the values.
//!
//! The sentence is kept as a template with its values, and put into words
//! only when somebody asks: a failing call costs no formatting.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::fmt::Write as _;
use std::num::NonZeroI32;

/// An error number of the system; positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(NonZeroI32);

impl Errno {
    /// From a number; anything that is none becomes ENOTRECOVERABLE.
    pub const fn new(code: c_int) -> Self {
        match NonZeroI32::new(code) {
            Some(code) if code.get() > 0 => Self(code),
            _ => Self::new(libc::ENOTRECOVERABLE),
        }
    }

    /// What the C API returns for it.
    pub const fn negated(self) -> c_int {
        -self.0.get()
    }

    /// Whether something was used up, of which there may be more later.
    pub const fn is_shortage(self) -> bool {
        matches!(self, Self::ENOMEM | Self::ENOSPC | Self::EMFILE | Self::ENFILE)
    }

    pub const E2BIG: Self = Self::new(libc::E2BIG);
    pub const EAGAIN: Self = Self::new(libc::EAGAIN);
    pub const EBADF: Self = Self::new(libc::EBADF);
    pub const EBUSY: Self = Self::new(libc::EBUSY);
    pub const ECANCELED: Self = Self::new(libc::ECANCELED);
    pub const ECHILD: Self = Self::new(libc::ECHILD);
    pub const EDEADLK: Self = Self::new(libc::EDEADLK);
    pub const EDOM: Self = Self::new(libc::EDOM);
    pub const EEXIST: Self = Self::new(libc::EEXIST);
    pub const EINTR: Self = Self::new(libc::EINTR);
    pub const EINVAL: Self = Self::new(libc::EINVAL);
    pub const ELOOP: Self = Self::new(libc::ELOOP);
    pub const EMFILE: Self = Self::new(libc::EMFILE);
    pub const ENFILE: Self = Self::new(libc::ENFILE);
    pub const ENOBUFS: Self = Self::new(libc::ENOBUFS);
    pub const EACCES: Self = Self::new(libc::EACCES);
    pub const ENOSPC: Self = Self::new(libc::ENOSPC);
    pub const ENXIO: Self = Self::new(libc::ENXIO);
    pub const ENODEV: Self = Self::new(libc::ENODEV);
    pub const ENAMETOOLONG: Self = Self::new(libc::ENAMETOOLONG);
    pub const EXDEV: Self = Self::new(libc::EXDEV);
    pub const ENOENT: Self = Self::new(libc::ENOENT);
    pub const ENOMEM: Self = Self::new(libc::ENOMEM);
    pub const ENOSYS: Self = Self::new(libc::ENOSYS);
    pub const ENOTDIR: Self = Self::new(libc::ENOTDIR);
    pub const ENOTRECOVERABLE: Self = Self::new(libc::ENOTRECOVERABLE);
    pub const ENOTSUP: Self = Self::new(libc::ENOTSUP);
    pub const ENOTTY: Self = Self::new(libc::ENOTTY);
    pub const EOVERFLOW: Self = Self::new(libc::EOVERFLOW);
    pub const EPERM: Self = Self::new(libc::EPERM);
    pub const ESRCH: Self = Self::new(libc::ESRCH);
    pub const ESTALE: Self = Self::new(libc::ESTALE);
}

/// A value in an error's sentence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Int(i64),
    Hex(u32),
    Real(f64),
    Word(&'static str),
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

/// Bits: every unsigned number of the API that is reported is a flag word.
impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Hex(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Word(value)
    }
}

/// Why a call failed: a number. Its sentence is left with the thread when it
/// is made, so that results stay as small as they can be.
///
/// As wide as a pointer: a narrower one makes the compiler take results with
/// pins in them apart in pieces of four bytes, ten nanoseconds a call.
#[derive(Debug)]
#[repr(align(8))]
pub(crate) struct Error {
    pub errno: Errno,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[cold]
    pub fn new(errno: Errno, template: &'static str, values: &[Value]) -> Self {
        let mut kept = [Value::Int(0); 3];
        for (to, from) in kept.iter_mut().zip(values) {
            *to = *from;
        }
        // A thread that is ending has nobody left to ask.
        let _ = PENDING.try_with(|pending| pending.set(Detail { errno, template, values: kept }));
        Self { errno }
    }
}

/// What an error has to say.
#[derive(Clone, Copy)]
struct Detail {
    errno: Errno,
    /// A sentence with a `{}` for each value; empty: the errno's own.
    template: &'static str,
    values: [Value; 3],
}

const NO_DETAIL: Detail =
    Detail { errno: Errno::ENOTRECOVERABLE, template: "", values: [Value::Int(0); 3] };

impl Detail {
    fn write(&self, function: &str, out: &mut Text) {
        let (name, meaning) = name_and_meaning(self.errno);
        let template = if self.template.is_empty() { meaning } else { self.template };
        let mut values = self.values.iter();
        let mut pieces = template.split("{}");
        out.push(function);
        out.push(": ");
        out.push(pieces.next().unwrap_or_default());
        for piece in pieces {
            // A Text takes everything: no error to see.
            let _ = match values.next() {
                Some(Value::Int(value)) => write!(out, "{value}"),
                Some(Value::Hex(value)) => write!(out, "{value:#x}"),
                Some(Value::Real(value)) => write!(out, "{value}"),
                Some(Value::Word(value)) => write!(out, "{value}"),
                None => Ok(()),
            };
            out.push(piece);
        }
        out.push(" (");
        out.push(name);
        out.push(")");
    }
}

/// Text in a buffer that may be too small, and its whole length; it allocates
/// nothing, since memory may be what was lacking.
struct Text<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Text<'_> {
    fn push(&mut self, piece: &str) {
        // One byte is kept for the end.
        let room = self.room.len().saturating_sub(1);
        let fits = room.saturating_sub(self.len).min(piece.len());
        if let (Some(to), Some(from)) =
            (self.room.get_mut(self.len..self.len + fits), piece.as_bytes().get(..fits))
        {
            to.copy_from_slice(from);
        }
        self.len += piece.len();
    }

    /// Ends it with a NUL byte; its whole length.
    fn finish(self) -> usize {
        let end = self.len.min(self.room.len().saturating_sub(1));
        if let Some(end) = self.room.get_mut(end) {
            *end = 0;
        }
        self.len
    }
}

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        self.push(piece);
        Ok(())
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(errno, "", &[])
    }
}

/// `error!(EBADF, "fd {} is not open", fd)`: an [`Error`] with its values.
macro_rules! error {
    ($errno:expr, $template:literal $(, $value:expr)* $(,)?) => {
        $crate::errno::Error::new($errno, $template, &[$($crate::errno::Value::from($value)),*])
    };
}
pub(crate) use error;

/// `fail!(EBADF, …)`: return that error.
macro_rules! fail {
    ($errno:ident, $($rest:tt)*) => {
        return Err($crate::errno::error!($crate::errno::Errno::$errno, $($rest)*))
    };
}
pub(crate) use fail;

#[derive(Clone, Copy)]
enum Last {
    Nothing,
    Failure(&'static str, Detail),
    Panic(&'static str),
}

// Without destructors: the C library needs memory to note one, and ends the
// process where there is none.
thread_local! {
    /// Of the error made last, which may yet be dealt with.
    static PENDING: Cell<Detail> = const { Cell::new(NO_DETAIL) };
    /// Of the call that failed last.
    static LAST: Cell<Last> = const { Cell::new(Last::Nothing) };
}

/// Keeps a failure for `evloop_last_error`: the error made last.
#[cold]
pub(crate) fn record(function: &'static str) {
    let detail = PENDING.try_with(Cell::get).unwrap_or(NO_DETAIL);
    let _ = LAST.try_with(|last| last.set(Last::Failure(function, detail)));
}

/// Keeps the message of a panic, a bug of ours, for `evloop_last_error`; it
/// is never freed.
#[cold]
pub(crate) fn record_panic(message: String) {
    let _ = LAST.try_with(|last| last.set(Last::Panic(message.leak())));
}

/// Writes the sentence, NUL-terminated and cut to fit; returns its length.
pub(crate) fn last_error_into(buf: &mut [u8]) -> c_int {
    let mut text = Text { room: buf, len: 0 };
    let _ = LAST.try_with(|last| match last.get() {
        Last::Nothing => {}
        Last::Failure(function, detail) => detail.write(function, &mut text),
        Last::Panic(message) => text.push(message),
    });
    c_int::try_from(text.finish()).unwrap_or(c_int::MAX)
}

fn name_and_meaning(errno: Errno) -> (&'static str, &'static str) {
    let text = describe(errno.negated()).to_str().unwrap_or_default();
    text.split_once(": ").unwrap_or((text, ""))
}

/// "NAME: meaning" of an error number of either sign.
pub(crate) fn describe(code: c_int) -> &'static CStr {
    if code == 0 {
        return c"success";
    }
    let code = code.checked_abs().unwrap_or(0);
    TEXTS.iter().find(|(known, _)| *known == code).map_or(c"unknown error", |(_, text)| text)
}

/// The errors that a function of the library can return, in its own terms,
/// and those that a kernel might add.
const TEXTS: &[(c_int, &CStr)] = &[
    (libc::E2BIG, c"E2BIG: the structure is from a newer version and uses what this one lacks"),
    (libc::EACCES, c"EACCES: permission denied"),
    (libc::EAGAIN, c"EAGAIN: nothing yet, and the call does not block"),
    (libc::EBADF, c"EBADF: not an open descriptor"),
    (libc::EBUSY, c"EBUSY: in use, or entered again"),
    (libc::ECANCELED, c"ECANCELED: the clock was stepped"),
    (libc::ECHILD, c"ECHILD: used after fork, in the child"),
    (libc::ECONNREFUSED, c"ECONNREFUSED: connection refused"),
    (libc::ECONNRESET, c"ECONNRESET: connection reset by the peer"),
    (libc::EDEADLK, c"EDEADLK: would wait for itself"),
    (libc::EDOM, c"EDOM: the handle is live but of another kind"),
    (libc::EEXIST, c"EEXIST: registered already"),
    (libc::EFAULT, c"EFAULT: bad address"),
    (libc::EFBIG, c"EFBIG: too large"),
    (libc::EINTR, c"EINTR: interrupted by a signal handler"),
    (libc::EINVAL, c"EINVAL: invalid argument"),
    (libc::EIO, c"EIO: input or output error"),
    (libc::EISDIR, c"EISDIR: is a directory"),
    (libc::ELOOP, c"ELOOP: nested too deep, or in a circle"),
    (libc::EMFILE, c"EMFILE: no descriptor left for this process"),
    (libc::ENFILE, c"ENFILE: no descriptor left for the system"),
    (libc::ENAMETOOLONG, c"ENAMETOOLONG: the path or a name in it is too long"),
    (libc::ENOBUFS, c"ENOBUFS: no buffer space left"),
    (libc::ENODEV, c"ENODEV: no such device"),
    (libc::ENOENT, c"ENOENT: not registered"),
    (libc::ENOMEM, c"ENOMEM: out of memory"),
    (libc::ENOSPC, c"ENOSPC: the user's limit of watches is used up"),
    (libc::ENOSYS, c"ENOSYS: the kernel lacks or forbids the system call"),
    (libc::ENOTRECOVERABLE, c"ENOTRECOVERABLE: a bug of the library; the object is unusable"),
    (libc::ENOTDIR, c"ENOTDIR: no directory"),
    (libc::ENOTSUP, c"ENOTSUP: not supported here"),
    (libc::ENOTTY, c"ENOTTY: not supported by this kind of descriptor"),
    (libc::ENXIO, c"ENXIO: no such device or address"),
    (libc::EOVERFLOW, c"EOVERFLOW: the value is out of range"),
    (libc::EPERM, c"EPERM: not permitted, or not possible for this descriptor"),
    (libc::EPIPE, c"EPIPE: broken pipe"),
    (libc::ERANGE, c"ERANGE: the result is out of range"),
    (libc::EROFS, c"EROFS: the file system is read-only"),
    (libc::ESPIPE, c"ESPIPE: cannot seek"),
    (libc::ESRCH, c"ESRCH: no such process"),
    (libc::ESTALE, c"ESTALE: the handle is not live"),
    (libc::ETIMEDOUT, c"ETIMEDOUT: timed out"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(_: Error) -> String {
        let mut room = [0; 200];
        let mut text = Text { room: &mut room, len: 0 };
        PENDING.get().write("f", &mut text);
        let len = text.finish();
        String::from_utf8(room[..len].to_vec()).unwrap()
    }

    fn last(room: usize) -> (c_int, Vec<u8>) {
        let mut buf = vec![b'#'; room];
        (last_error_into(&mut buf), buf)
    }

    #[test]
    fn sentence_has_function_values_and_name() {
        let error = error!(Errno::EINVAL, "max is {}, flags {}, kind {}", 7, 0x10u32, "poll");
        assert_eq!(sentence(error), "f: max is 7, flags 0x10, kind poll (EINVAL)");
        assert_eq!(sentence(Errno::EBADF.into()), "f: not an open descriptor (EBADF)");
    }

    #[test]
    fn last_error_is_cut_and_terminated() {
        assert_eq!(last(3), (0, b"\0##".to_vec()));
        let _ = Error::from(Errno::ENOENT);
        record("f");
        let whole = "f: not registered (ENOENT)";
        assert_eq!(last(4), (26, b"f: \0".to_vec()));
        assert_eq!(last(0).0, 26);
        assert_eq!(last(27), (26, format!("{whole}\0").into_bytes()));
    }

    #[test]
    fn texts_are_found_with_either_sign() {
        assert_eq!(describe(-libc::EBADF), describe(libc::EBADF));
        assert_eq!(describe(c_int::MIN), c"unknown error");
        assert!(TEXTS.iter().all(|(_, text)| text.to_str().unwrap().contains(": ")));
    }
}
