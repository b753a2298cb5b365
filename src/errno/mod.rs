//! Errors: an errno and, in one sentence, what was wrong with the values.
//!
//! The sentence is kept as a template with its values. It is formatted only
//! when the program asks for it: a failing call costs no formatting.

mod number;

pub(crate) use number::Errno;

use crate::util::Out;
use crate::util::alloc::{NoMemory, try_copy};
#[cfg(not(loom))]
use crate::util::per_thread::PerThread;
#[cfg(not(loom))]
use crate::util::try_box;
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::fmt::Write as _;

/// A value in an error's sentence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Int(i64),
    Hex(u32),
    Real(f64),
    Word(&'static str),
    /// A watcher's name, and how much of it fits.
    Name([u8; NAME], usize),
}

const NAME: usize = 40;

impl Value {
    /// A text that may not live as long as the error; cut to fit.
    pub fn name(text: &[u8]) -> Self {
        let mut kept = [0; NAME];
        let len = text.len().min(NAME);
        kept.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        Self::Name(kept, len)
    }
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
        with_own(|own| own.pending().set(errno, template, values));
        Self { errno }
    }
}

/// What an error has to say.
struct ErrorDetail {
    errno: Cell<Errno>,
    /// A sentence with a `{}` for each value; empty: the errno's own.
    template: Cell<&'static str>,
    /// Those that the sentence has no `{}` for are of earlier errors.
    values: [Cell<Value>; 3],
}

impl ErrorDetail {
    const fn new() -> Self {
        let values = [const { Cell::new(Value::Int(0)) }; 3];
        Self { errno: Cell::new(Errno::ENOTRECOVERABLE), template: Cell::new(""), values }
    }

    fn set(&self, errno: Errno, template: &'static str, values: &[Value]) {
        self.errno.set(errno);
        self.template.set(template);
        self.values.iter().zip(values).for_each(|(to, from)| to.set(*from));
    }

    /// Whether it is the sentence of [`refused`] about this errno.
    fn is_refusal(&self, errno: Errno) -> bool {
        self.errno.get() == errno && self.template.get() == REFUSED
    }

    fn write(&self, function: &str, out: &mut ErrorText) {
        let (name, meaning) = name_and_meaning(self.errno.get());
        let template = self.template.get();
        let template = if template.is_empty() { meaning } else { template };
        let mut values = self.values.iter().map(Cell::get);
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
                Some(Value::Name(bytes, len)) => {
                    out.push_bytes(bytes.get(..len).unwrap_or_default());
                    Ok(())
                }
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
struct ErrorText<'a> {
    out: &'a mut Out<u8>,
    len: usize,
}

impl ErrorText<'_> {
    fn push(&mut self, piece: &str) {
        self.push_bytes(piece.as_bytes());
    }

    fn push_bytes(&mut self, piece: &[u8]) {
        self.out.push_text(piece);
        self.len += piece.len();
    }

    /// Ends it with a NUL byte; its whole length.
    fn finish(self) -> usize {
        self.out.end_text();
        self.len
    }
}

impl std::fmt::Write for ErrorText<'_> {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        self.push(piece);
        Ok(())
    }
}

/// The sentence of [`refused`].
const REFUSED: &str = "the kernel, or a sandbox, refuses {}";

/// Has the error that is made of this errno next say which system call was
/// not permitted, or is not there.
#[cold]
pub(crate) fn refused(call: &'static str, errno: Errno) -> Errno {
    if matches!(errno, Errno::EPERM | Errno::ENOSYS) {
        let _ = Error::new(errno, REFUSED, &[call.into()]);
    }
    errno
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        with_own(|own| {
            if !own.pending().is_refusal(errno) {
                own.pending().set(errno, "", &[]);
            }
        });
        Self { errno }
    }
}

impl From<NoMemory> for Errno {
    fn from(_: NoMemory) -> Self {
        Self::ENOMEM
    }
}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        Errno::ENOMEM.into()
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

/// What happened last.
#[derive(Clone, Copy)]
enum LastError {
    Nothing,
    /// This function failed.
    Failure(&'static str),
    Panic(&'static [u8]),
}

/// What each thread has to say; made for its first error.
///
/// Not a `thread_local!`: where the library was loaded by dlopen(3), the C
/// library makes a thread's variables when it first uses one, and ends the
/// process where there is no memory for them.
#[cfg(not(loom))]
static OWN: PerThread<ThreadErrors> = PerThread::new();

/// For threads that found no memory for that, the last few of them.
#[cfg(not(loom))]
static SPARE: std::sync::Mutex<[(usize, ThreadErrors); SPARES]> =
    std::sync::Mutex::new([const { (0, ThreadErrors::new()) }; SPARES]);
#[cfg(not(loom))]
const SPARES: usize = 4;

struct ThreadErrors {
    /// Of the error made last, which may yet be dealt with, and of the call
    /// that failed last; or the other way round.
    details: [ErrorDetail; 2],
    is_second_pending: Cell<bool>,
    last: Cell<LastError>,
}

impl ThreadErrors {
    const fn new() -> Self {
        Self {
            details: [const { ErrorDetail::new() }; 2],
            is_second_pending: Cell::new(false),
            last: Cell::new(LastError::Nothing),
        }
    }

    /// Of the error made last.
    fn pending(&self) -> &ErrorDetail {
        let [first, second] = &self.details;
        if self.is_second_pending.get() { second } else { first }
    }

    /// Of the call that failed last.
    fn failed(&self) -> &ErrorDetail {
        let [first, second] = &self.details;
        if self.is_second_pending.get() { first } else { second }
    }

    /// The error made last is that of a call.
    fn fail(&self, function: &'static str) {
        self.is_second_pending.set(!self.is_second_pending.get());
        self.pending().set(Errno::ENOTRECOVERABLE, "", &[]);
        self.last.set(LastError::Failure(function));
    }
}

#[cfg(not(loom))]
fn with_own(act: impl FnOnce(&ThreadErrors)) {
    let not_done = OWN.with(|own| match own {
        Some(own) => {
            act(own);
            None
        }
        None => Some(act),
    });
    if let Some(act) = not_done {
        with_new_own(act);
    }
}

#[cfg(not(loom))]
#[cold]
fn with_new_own(act: impl FnOnce(&ThreadErrors)) {
    if make_own() {
        OWN.with(|own| own.map(act));
    } else {
        with_spare(true, |own| act(own));
    }
}

/// Makes what this thread has to say, with what it said without memory.
#[cfg(not(loom))]
fn make_own() -> bool {
    let Some(mut own) = try_box(ThreadErrors::new()) else { return false };
    with_spare(false, |spare| std::mem::swap(&mut *own, spare));
    OWN.set(own)
}

/// `make`: takes the place of the thread that came first, if this one has
/// none.
#[cfg(not(loom))]
fn with_spare(make: bool, act: impl FnOnce(&mut ThreadErrors)) {
    // SAFETY: always safe.
    let this = unsafe { libc::pthread_self() } as usize;
    // Not waited for: the thread that has it may be lost in a fork.
    let Ok(mut spare) = SPARE.try_lock() else { return };
    match spare.iter_mut().find(|(thread, _)| *thread == this) {
        Some((_, own)) => act(own),
        None if !make => {}
        None => {
            spare.rotate_right(1);
            let [first, ..] = &mut *spare;
            *first = (this, ThreadErrors::new());
            act(&mut first.1);
        }
    }
}

#[cfg(loom)]
fn with_own(_act: impl FnOnce(&ThreadErrors)) {}

/// Keeps a failure for `evloop_last_error`: the error made last.
#[cold]
pub(crate) fn record(function: &'static str) {
    with_own(|own| own.fail(function));
}

/// Keeps a failure that comes from an earlier one, unless that is kept.
#[cold]
pub(crate) fn record_if_first(function: &'static str) {
    with_own(|own| {
        if matches!(own.last.get(), LastError::Nothing) {
            own.fail(function);
        }
    });
}

/// Keeps the message of a panic, a bug of ours, for `evloop_last_error`; it
/// is never freed.
#[cold]
pub(crate) fn record_panic(message: impl std::fmt::Display) {
    let mut buffer = [0; 512];
    // SAFETY: the array is used through this until the text is there.
    let mut out = unsafe { Out::new(buffer.as_mut_ptr(), buffer.len()) };
    // A Text takes everything: no error to see.
    let _ = write!(ErrorText { out: &mut out, len: 0 }, "{message}");
    let kept = try_copy(buffer.get(..out.filled()).unwrap_or_default());
    let text = kept.map_or(&b"a bug of libevloop (ENOTRECOVERABLE)"[..], |kept| Box::leak(kept));
    with_own(|own| own.last.set(LastError::Panic(text)));
}

/// Writes the sentence, NUL-terminated and cut to fit; returns its length.
pub(crate) fn last_error_into(out: &mut Out<u8>) -> c_int {
    let mut text = ErrorText { out, len: 0 };
    with_own(|own| match own.last.get() {
        LastError::Nothing => {}
        LastError::Failure(function) => own.failed().write(function, &mut text),
        LastError::Panic(message) => text.push_bytes(message),
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
    (libc::EDQUOT, c"EDQUOT: the user's disk quota is used up"),
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
    (libc::ENAMETOOLONG, c"ENAMETOOLONG: the path, or a name in it, is too long"),
    (libc::ENFILE, c"ENFILE: no descriptor left for the system"),
    (libc::ENOBUFS, c"ENOBUFS: no buffer space left"),
    (libc::ENODEV, c"ENODEV: no such device"),
    (libc::ENOENT, c"ENOENT: not registered"),
    (libc::ENOMEM, c"ENOMEM: out of memory"),
    (libc::ENOSPC, c"ENOSPC: the user's limit of watches is used up"),
    (libc::ENOSYS, c"ENOSYS: the kernel lacks or forbids the system call"),
    (libc::ENOTDIR, c"ENOTDIR: not a directory"),
    (libc::ENOTRECOVERABLE, c"ENOTRECOVERABLE: a bug of the library; the object is unusable"),
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
    (libc::ETXTBSY, c"ETXTBSY: the file is a program that is running"),
];

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(_: Error) -> String {
        let mut buffer = [0; 200];
        // SAFETY: the array is used through this until the text is there.
        let mut out = unsafe { Out::new(buffer.as_mut_ptr(), buffer.len()) };
        let mut text = ErrorText { out: &mut out, len: 0 };
        with_own(|own| own.pending().write("f", &mut text));
        let len = text.finish();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    fn last(capacity: usize) -> (c_int, Vec<u8>) {
        let mut buf = vec![b'#'; capacity];
        // SAFETY: as above.
        let mut out = unsafe { Out::new(buf.as_mut_ptr(), buf.len()) };
        (last_error_into(&mut out), buf)
    }

    #[test]
    fn sentence_has_function_values_and_name() {
        let error = error!(Errno::EINVAL, "max is {}, flags {}, kind {}", 7, 0x10u32, "poll");
        assert_eq!(sentence(error), "f: max is 7, flags 0x10, kind poll (EINVAL)");
        assert_eq!(sentence(Errno::EBADF.into()), "f: not an open descriptor (EBADF)");
    }

    #[test]
    fn a_refused_call_is_named_once_and_for_its_errno_only() {
        let of = |errno| sentence(Error::from(refused("epoll_create1(2)", errno)));
        let named = "f: the kernel, or a sandbox, refuses epoll_create1(2)";
        assert_eq!(of(Errno::EPERM), format!("{named} (EPERM)"));
        assert_eq!(of(Errno::ENOSYS), format!("{named} (ENOSYS)"));
        assert_eq!(of(Errno::EMFILE), "f: no descriptor left for this process (EMFILE)");
        refused("epoll_create1(2)", Errno::EPERM);
        record("f");
        assert!(!sentence(Errno::EPERM.into()).contains("epoll_create1"));
        refused("epoll_create1(2)", Errno::EPERM);
        assert!(!sentence(Errno::ENOSYS.into()).contains("epoll_create1"));
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

    /// The errors that a text speaks of as results: "-EBADF".
    fn results(text: &str) -> impl Iterator<Item = &str> {
        text.match_indices("-E").filter_map(|(index, _)| {
            let rest = &text[index + 1..];
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = rest.split(|c| !is_of_name(c)).next()?;
            let is_word = name.chars().all(|c| !c.is_ascii_lowercase());
            (is_word && !name.contains('_')).then_some(name)
        })
    }

    #[test]
    fn every_error_that_the_header_names_has_a_text() {
        let header = include_str!("../../include/evloop.h");
        let known = |name: &str| {
            let begins = |text: &CStr| text.to_str().unwrap().split_once(": ").unwrap().0 == name;
            TEXTS.iter().any(|(_, text)| begins(text))
        };
        let unknown: Vec<&str> = results(header).filter(|name| !known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(results(header).count() > 100);
    }

    #[test]
    fn a_thread_without_memory_has_its_sentence_too() {
        use crate::util::heap::failing;
        let whole = || {
            let (len, text) = last(100);
            String::from_utf8(text[..len as usize].to_vec()).unwrap()
        };
        for memory in [0, 1] {
            std::thread::spawn(move || {
                let _ = failing::after(0, || error!(Errno::EINVAL, "{} is wrong", 7));
                failing::after(memory, || record("f"));
                assert_eq!(whole(), "f: 7 is wrong (EINVAL)");
                let _ = Error::from(Errno::ENOENT);
                record("g");
                assert_eq!(whole(), "g: not registered (ENOENT)");
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn texts_are_found_with_either_sign() {
        assert_eq!(describe(-libc::EBADF), describe(libc::EBADF));
        assert_eq!(describe(c_int::MIN), c"unknown error");
        assert!(TEXTS.iter().all(|(_, text)| text.to_str().unwrap().contains(": ")));
    }
}
