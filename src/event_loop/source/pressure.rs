//! Memory pressure: a watcher has a file of the kernel's with a trigger set.
//!
//! The kernel begins a trigger of a process without CAP_SYS_RESOURCE with a
//! wrong total: it fires at the first stall of any length, and once or twice
//! after that. There the total that the file shows decides.
//!
//! Polling a trigger takes its event away, and polling the descriptor of an
//! embedded loop polls what is in its epoll, whichever thread does it. So there
//! is a second trigger, with the same stall and window. It is in no epoll, and
//! only the loop polls it.

use crate::errno::{Errno, Error, Result, error, fail};
use crate::event_loop::event::Event;
use crate::event_loop::fd_source::{FdSource, Readiness};
use crate::event_loop::own_fds::{OwnFds, WatcherFd};
use crate::handle;
use crate::sys::fd::{self, Fd};
use crate::sys::file;
use crate::sys::pressure::{self, Refusal, Trigger};
use crate::util::alloc::{NoMemory, try_c_string};
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::RawFd;

const SHORTEST_WINDOW: i64 = 500_000;
const LONGEST_WINDOW: i64 = 10_000_000;
const _: () = assert!(LONGEST_WINDOW < 1 << WINDOW_SHIFT);

struct PressureSource {
    file: WatcherFd,
    /// The one that is in no epoll. Made after the other, as the kernel looks
    /// at the newest first: when the other fires this one has.
    second: WatcherFd,
    /// `None`: the system's.
    path: Option<CString>,
    trigger: Trigger,
    /// What the descriptor is of.
    identity: Option<(u64, u64)>,
    /// What decides whether tasks were stalled where the kernel may be wrong.
    stalled: Option<Stalled>,
}

/// The file's total when the trigger fired before.
///
/// A stall may have begun before the trigger fired for the last time, if that
/// was in vain; so it may be counted from the time before.
struct Stalled {
    since: u64,
    last: u64,
}

impl Stalled {
    fn new(total: u64) -> Self {
        Self { since: total, last: total }
    }

    /// Whether tasks were stalled for so long, now that the trigger fired.
    fn has_reached(&mut self, total: u64, stall: u64) -> bool {
        let reached = total.saturating_sub(self.since) >= stall;
        self.since = if reached { total } else { self.last };
        self.last = total;
        reached
    }
}

/// What is opened for a watcher.
struct Opened {
    file: Fd,
    second: Fd,
    stalled: Option<Stalled>,
}

/// Sets both triggers.
fn open(path: Option<&CStr>, trigger: &Trigger) -> std::result::Result<Opened, Refusal> {
    let path = path.unwrap_or(pressure::SYSTEM);
    let (file, total) = pressure::watch(path, trigger)?;
    let (second, _) = pressure::watch(path, trigger)?;
    let stalled = if pressure::counts_rightly() { None } else { Some(Stalled::new(total)) };
    Ok(Opened { file, second, stalled })
}

impl PressureSource {
    /// Whether the trigger fired with reason.
    fn has_reason(&mut self) -> bool {
        let Some(stalled) = &mut self.stalled else { return true };
        let stall = self.trigger.stall.unsigned_abs();
        match pressure::total(self.file.raw(), self.trigger.full) {
            Ok(total) => stalled.has_reached(total, stall),
            // The control group is gone, which its descriptor reports as well.
            Err(Errno::ENODEV) => false,
            Err(_) => true,
        }
    }

    /// Sets both triggers again; the one in the epoll keeps its fd.
    fn reopen(&mut self) -> std::result::Result<(), Errno> {
        let opened = open(self.path.as_deref(), &self.trigger).map_err(|why| why.errno())?;
        fd::replace(&opened.file, self.file.raw())?;
        self.second.replace(opened.second);
        self.stalled = opened.stalled;
        Ok(())
    }
}

/// What watches for pressure, for a loop with these descriptors of its own.
pub(in crate::event_loop) fn pressure_source(
    path: Option<&[u8]>,
    trigger: Trigger,
    own: &'static OwnFds,
) -> Result<Box<dyn FdSource>> {
    check(&trigger)?;
    let path = path.map(copy).transpose()?;
    let Opened { file, second, stalled } = match open(path.as_deref(), &trigger) {
        Ok(opened) => opened,
        Err(refusal) => return Err(explain(&refusal, path.is_none(), trigger.window)),
    };
    let (file, second) = (WatcherFd::new(file, own)?, WatcherFd::unregistered(second, own)?);
    let identity = file::identity(file.raw());
    match handle::try_box(PressureSource { file, second, path, trigger, identity, stalled }) {
        Some(made) => Ok(made),
        None => fail!(ENOMEM, "no memory to watch for pressure"),
    }
}

fn check(trigger: &Trigger) -> Result<()> {
    let (stall, window) = (trigger.stall, trigger.window);
    if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
        fail!(EINVAL, "the window is {} us, not between 500 ms and 10 s", window);
    }
    if !(1..=window).contains(&stall) {
        fail!(EINVAL, "the stall is {} us, of a window of {} us", stall, window);
    }
    Ok(())
}

fn copy(path: &[u8]) -> Result<CString> {
    match try_c_string(path) {
        Ok(path) => Ok(path),
        Err(Some(NoMemory)) => fail!(ENOMEM, "no memory for a path of {} bytes", path.len() as i64),
        Err(None) => fail!(EINVAL, "the path has a NUL byte in it"),
    }
}

fn explain(refusal: &Refusal, is_systems: bool, window: i64) -> Error {
    match *refusal {
        Refusal::Path(Errno::ENOENT) | Refusal::Trigger(Errno::ENOTSUP) if is_systems => {
            error!(Errno::ENOTSUP, "this kernel has no pressure stall information")
        }
        Refusal::OtherFile => error!(Errno::EINVAL, "the path leads to no file of memory pressure"),
        Refusal::Trigger(errno @ Errno::EINVAL) => error!(
            errno,
            "a window of {} us, which is no multiple of 2 s, needs CAP_SYS_RESOURCE", window
        ),
        // Of a control group that is just being removed.
        Refusal::Path(Errno::ENOENT | Errno::ENODEV) | Refusal::Trigger(Errno::ENODEV) => {
            error!(Errno::ENOENT, "there is no such file")
        }
        Refusal::Path(errno @ (Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG)) => {
            error!(errno, "the path leads nowhere")
        }
        Refusal::Path(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => {
            error!(errno, "the file may not be written to")
        }
        Refusal::Path(errno) | Refusal::Trigger(errno) => match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => errno.into(),
            _ => error!(Errno::ENOTSUP, "the kernel takes no trigger ({})", errno.negated()),
        },
    }
}

/// The parts of what is stored for threads that ask.
const WINDOW_SHIFT: u32 = 24;
const FULL: i64 = 1 << 48;
const GROUP: i64 = 1 << 49;

/// What a watcher watches for, in words, of what was stored.
pub(in crate::event_loop) fn describe(text: &mut dyn fmt::Write, subject: i64) -> fmt::Result {
    let part = (1 << WINDOW_SHIFT) - 1;
    let (stall, window) = (subject & part, subject >> WINDOW_SHIFT & part);
    let which = if subject & FULL != 0 { "all" } else { "some" };
    let of = if subject & GROUP != 0 { "a control group" } else { "the system" };
    write!(text, " {which} tasks of {of} stalled for {stall} us of {window} us,")
}

impl FdSource for PressureSource {
    fn fd(&self) -> RawFd {
        self.file.raw()
    }

    fn subject(&self) -> i64 {
        let Trigger { full, stall, window } = self.trigger;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        // Neither time is longer than LONGEST_WINDOW.
        stall | window << WINDOW_SHIFT | flag(full, FULL) | flag(self.path.is_some(), GROUP)
    }

    fn events(&self) -> u32 {
        libc::EPOLLPRI as u32
    }

    fn poll(&mut self, ready: u32, _event: &mut Event) -> Readiness {
        if ready & libc::EPOLLERR as u32 != 0 {
            return Readiness::Lost(Errno::ENODEV);
        }
        // It fired, too.
        pressure::has_fired(self.second.raw());
        if self.has_reason() { Readiness::Ready } else { Readiness::NotReady }
    }

    fn revive(&mut self) -> std::result::Result<(), Errno> {
        // A file of its own: an event of this one that either process polls is
        // not reported to the other one.
        let raw = self.file.raw();
        let is_still = |fd| self.identity.is_some() && file::identity(fd) == self.identity;
        let is_same = is_still(raw);
        if !is_still(self.second.raw()) {
            self.second.set_borrowed();
        }
        let replaced = if is_same { self.reopen() } else { Err(Errno::EBADF) };
        replaced.inspect_err(|_| {
            if !is_same {
                self.file.set_borrowed();
            }
        })
    }

    fn was_consumed(&mut self) -> Option<u32> {
        pressure::has_fired(self.second.raw()).then_some(libc::EPOLLPRI as u32)
    }

    fn abandon(&self) {
        self.file.close_now();
        self.second.close_now();
    }
}
