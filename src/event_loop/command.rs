//! What one thread asks of a loop that another one runs.

use super::event::{Destroy, Target};
use super::fd_source::AddedSource;
use super::node_list::ListNode;
use super::pending_work::Barrier;
use super::sinks::NewSignal;
use super::telemetry::{LoopStats, ProbeChange, Trace, Watchdog};
use super::timer_setting::TimerSetting;
use crate::errno::{Result, fail};
use crate::hash::Map;
use crate::sys::fd::Fd;
use crate::sys::fork;
use std::ffi::c_void;
use std::os::fd::RawFd;

/// A change to a watcher.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    Enable,
    Disable,
    Priority(i32),
    RateLimit {
        interval: i64,
        burst: i32,
    },
    Data(u64),
    Ref,
    Unref,
    Events(u32),
    /// It has a name now.
    Named,
    /// An io watcher's: none disables it, others enable it, too.
    IoSet(u32),
    /// A timer's, in nanoseconds.
    Tolerance(i64),
}

/// A call to be made by the loop.
pub(super) struct Post {
    pub target: Target,
    /// What is called after it, or instead of it if the loop is closed.
    pub destroy: Option<Destroyer>,
}

/// A function of the program's that frees what a posted call was for; of the
/// process that posted it, which alone may call either.
#[derive(Clone, Copy)]
pub(super) struct Destroyer {
    pub call: unsafe extern "C" fn(*mut c_void),
    pub epoch: fork::Epoch,
}

impl Post {
    /// Whether it is a copy, in a forked child, of one that its parent makes.
    pub fn is_copy(&self) -> bool {
        self.destroy.is_some_and(|destroy| destroy.epoch != fork::current())
    }

    /// Frees what it was for. No lock is held, and nothing of the loop's is
    /// borrowed.
    pub fn destroy(self) {
        if let Some(destroy) = self.destroy.filter(|_| !self.is_copy()) {
            // SAFETY: the program's function and argument, as it promised.
            unsafe { (destroy.call)(self.target.user_data) };
        }
    }
}

/// How the descriptor of a new watcher was registered.
#[derive(Clone, Copy)]
pub(super) enum RegisteredAs {
    /// With this mask, as the first watcher of that descriptor.
    Alone(u32),
    /// Not: another watcher's registration is there.
    Shared,
    /// Not: it cannot be waited for.
    NotPollable,
}

pub(super) enum Command {
    /// A block of slots was taken for new watchers.
    Block(u32),
    /// The timer of a clock.
    Clock(usize, Fd),
    /// A watcher was added; its slot is live.
    Add(i64),
    AddFile(i64),
    AddIo(i64, RegisteredAs),
    AddObject(i64, RegisteredAs, Box<ListNode<AddedSource>>),
    AddSignal(i64, NewSignal),
    AddTimer {
        handle: i64,
        setting: TimerSetting,
        deadline: i64,
    },
    /// A watcher was marked closing; true: and its registration removed.
    Close(i64, bool),
    Change(i64, Change),
    /// A watcher's destroy notification.
    Destroy(Box<ListNode<Destroy>>),
    /// A timer is set; the deadline was found at the call.
    Set(i64, TimerSetting, i64),
    Again(i64, i64),
    Advance(i64),
    /// Statistics, a trace or a watchdog is started or stopped.
    Probe(ProbeChange),
}

impl Command {
    /// If it sets this timer: how, where that changes, and until when (`None`:
    /// it stops it).
    pub fn sets(&self, timer: i64) -> Option<(Option<TimerSetting>, Option<i64>)> {
        match self {
            Self::AddTimer { handle, setting, deadline } | Self::Set(handle, setting, deadline)
                if *handle == timer =>
            {
                Some((Some(*setting), (setting.initial >= 0).then_some(*deadline)))
            }
            Self::Again(handle, deadline) if *handle == timer => Some((None, Some(*deadline))),
            _ => None,
        }
    }
}

/// What other threads leave for the loop, and what may be used by both.
#[derive(Default)]
pub(super) struct CommandQueue {
    pub commands: Vec<Command>,
    /// Watchers were closed for which there was no room in there: they are
    /// marked.
    pub unlisted: bool,
    /// Bits of the clocks whose timerfds are in there.
    pub clocks: u32,
    /// Slots for the watchers that others add.
    pub spare_slots: Vec<u32>,
    /// The kernel's set; only changed under the lock.
    pub epoll: RawFd,
    /// By handle.
    pub names: Map<i64, Box<[u8]>>,
    /// For the end of the current callback.
    pub barrier: Barrier,
    /// For telemetry.
    pub stats: Option<LoopStats>,
    pub trace: Option<Trace>,
    /// One is about to be there: its file is being opened.
    pub trace_begins: bool,
    pub watchdog: Option<Watchdog>,
}

impl CommandQueue {
    /// Makes room, so that nothing fails once something is done.
    pub fn reserve_commands(&mut self, count: usize) -> Result<()> {
        if self.commands.try_reserve(count).is_err() {
            fail!(ENOMEM, "no memory for a command to the loop");
        }
        Ok(())
    }

    /// Whether other threads have left anything for the loop.
    #[inline]
    pub fn has_commands(&self) -> bool {
        !self.commands.is_empty() || self.unlisted
    }
}
