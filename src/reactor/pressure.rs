//! Memory pressure: a watcher has a file of the kernel's with a trigger set.

use super::calls::add_watched;
use super::event::{Event, Target};
use super::flags::Source;
use super::named::named;
use super::objects::{Answer, Watched};
use crate::errno::{Errno, Result, fail};
use crate::sys::fd::{self, Fd};
use crate::sys::file;
use crate::sys::pressure::{self, Trigger};
use crate::table::{self, Kind};
use std::ffi::CString;
use std::os::fd::RawFd;

const SHORTEST_WINDOW: i64 = 500_000;
const LONGEST_WINDOW: i64 = 10_000_000;

struct Pressure {
    file: Fd,
    /// `None`: the system's.
    path: Option<CString>,
    trigger: Trigger,
    /// What the descriptor is of.
    identity: Option<(u64, u64)>,
}

impl Pressure {
    fn open(&self) -> std::result::Result<Fd, Errno> {
        pressure::watch(self.path.as_deref().unwrap_or(pressure::SYSTEM), &self.trigger)
    }
}

/// See evloop_add_memory_pressure.
pub(crate) fn add_memory_pressure(
    handle: i64,
    path: Option<&[u8]>,
    trigger: Trigger,
    target: Target,
) -> Result<i64> {
    named(handle, Kind::Loop)?.check()?;
    check(&trigger)?;
    let path = path.map(copy).transpose()?;
    let mut made = Pressure { file: Fd::borrowed(-1), path, trigger, identity: None };
    made.file = match made.open() {
        Ok(file) => file,
        Err(errno) => return explain(errno, made.path.is_none(), trigger.window),
    };
    made.identity = file::identity(made.file.raw());
    match table::try_box(made) {
        Some(made) => add_watched(handle, Source::MemoryPressure, made, target),
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
    let mut copy = Vec::new();
    if copy.try_reserve_exact(path.len() + 1).is_err() {
        fail!(ENOMEM, "no memory for a path of {} bytes", path.len() as i64);
    }
    copy.extend_from_slice(path);
    match CString::new(copy) {
        Ok(path) => Ok(path),
        Err(_) => fail!(EINVAL, "the path has a NUL byte in it"),
    }
}

fn explain<T>(errno: Errno, is_systems: bool, window: i64) -> Result<T> {
    match errno {
        Errno::ENOENT | Errno::ENOTSUP if is_systems => {
            fail!(ENOTSUP, "this kernel has no pressure stall information")
        }
        Errno::EINVAL => fail!(
            EINVAL,
            "no file of memory pressure, or the window of {} us is no multiple of 2 s",
            window
        ),
        errno => Err(errno.into()),
    }
}

impl Watched for Pressure {
    fn fd(&self) -> RawFd {
        self.file.raw()
    }

    fn events(&self) -> u32 {
        libc::EPOLLPRI as u32
    }

    fn ask(&mut self, ready: u32, _event: &mut Event) -> Answer {
        if ready & libc::EPOLLERR as u32 != 0 {
            return Answer::Gone(Errno::ENODEV);
        }
        Answer::Event
    }

    fn revive(&mut self) -> std::result::Result<(), Errno> {
        // A file of its own: of this one, either process would be told what
        // the other one then is not.
        let raw = self.file.raw();
        let is_same = self.identity.is_some() && file::identity(raw) == self.identity;
        let replaced = if is_same {
            self.open().and_then(|fresh| fd::replace(&fresh, raw))
        } else {
            Err(Errno::EBADF)
        };
        replaced.inspect_err(|_| {
            if !is_same {
                self.file.disown();
            }
        })
    }

    fn abandon(&self) {
        self.file.abandon();
    }
}
