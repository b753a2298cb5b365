//! What a watcher is and how it stands: the bits of a slot's flags.

/// What a watcher waits for; the numbers are those of EVLOOP_EVENT_*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Source {
    Io = 1,
    Timer = 2,
    Tfd = 3,
    Async = 4,
    Idle = 5,
    Prepare = 6,
    Check = 7,
    Defer = 8,
    Exit = 9,
    ClockChange = 10,
    Kqueue = 13,
    Signal = 14,
    Process = 15,
    File = 16,
    MemoryPressure = 17,
}

/// Types of events that no watcher has.
pub(crate) const POST: i32 = 11;
pub(crate) const CLOSED: i32 = 12;
/// The bit of an event's `events` that the system does not have.
pub(crate) const ERROR: u32 = 0x100_0000;

pub(super) const SOURCE: u32 = 0x1f;

impl Source {
    #[inline(always)]
    pub fn of(flags: u32) -> Self {
        match flags & SOURCE {
            1 => Self::Io,
            2 => Self::Timer,
            3 => Self::Tfd,
            4 => Self::Async,
            5 => Self::Idle,
            6 => Self::Prepare,
            7 => Self::Check,
            8 => Self::Defer,
            9 => Self::Exit,
            13 => Self::Kqueue,
            14 => Self::Signal,
            15 => Self::Process,
            16 => Self::File,
            17 => Self::MemoryPressure,
            _ => Self::ClockChange,
        }
    }

    #[inline(always)]
    pub fn bits(self) -> u32 {
        self as u32
    }

    pub fn is_descriptor(self) -> bool {
        self == Self::Io || self.is_fd_source()
    }

    /// Whether the loop polls it when its descriptor is ready; see `FdSource`.
    pub fn is_fd_source(self) -> bool {
        matches!(self, Self::Tfd | Self::Kqueue | Self::Process | Self::MemoryPressure)
    }

    /// Whether polling it takes away what that reports: it comes only once.
    pub fn is_reported_once(self) -> bool {
        matches!(self, Self::Tfd | Self::Process | Self::MemoryPressure)
    }
}

pub(super) const ENABLED: u32 = 1 << 5;
/// Does not keep the loop alive.
pub(super) const UNREF: u32 = 1 << 6;
/// Is counted among those that keep the loop alive.
pub(super) const COUNTED: u32 = 1 << 7;
/// There is more about it among the loop's extras.
pub(super) const EXTRA: u32 = 1 << 8;
/// Has no callback: its events are records.
pub(super) const RECORDS: u32 = 1 << 9;
/// A record of it is pending for evloop_wait.
pub(super) const HAS_PENDING: u32 = 1 << 10;
/// Has a rate limit.
pub(super) const HAS_RATE_LIMIT: u32 = 1 << 11;
/// Over its rate limit; what happens is kept.
pub(super) const RATE_LIMITED_NOW: u32 = 1 << 12;
/// Has a name.
pub(super) const NAMED: u32 = 1 << 13;
/// Has a priority other than 0.
pub(super) const HAS_PRIORITY: u32 = 1 << 14;
/// A failure of it is to be reported.
pub(super) const FAILED: u32 = 1 << 15;

/// io: one of several watchers of its descriptor.
pub(super) const SHARED: u32 = 1 << 16;
/// io: disabled by its first event.
pub(super) const ONESHOT: u32 = 1 << 17;
/// io: its registration may have to be changed.
pub(super) const DIRTY: u32 = 1 << 18;
/// io: the kernel must not report it for now, though it is enabled.
pub(super) const SUPPRESSED: u32 = 1 << 19;
/// io: not for epoll, always ready.
pub(super) const NOT_POLLABLE: u32 = 1 << 20;
/// io: its descriptor is gone; file: what is watched.
pub(super) const FD_LOST: u32 = 1 << 21;
/// io: the kernel reported it while it wanted no event.
pub(super) const SPURIOUS: u32 = 1 << 22;
/// io, file: disabled by ONESHOT, by an error or by its end, not by the
/// program.
pub(super) const AUTO_DISABLED: u32 = 1 << 23;

/// io: enabled, changed or added since the last flush. An edge may have passed
/// by then, so that an edge-triggered registration is armed again.
pub(super) const REARM: u32 = 1 << 26;

/// io: another thread has added it, to a registration that was there, and the
/// loop has not taken it in yet.
pub(super) const JOINS: u32 = 1 << 27;

/// io: not among the loop's descriptors yet, and not registered, for want of
/// memory: tried again when it is enabled. It is not till then.
pub(super) const UNTAKEN: u32 = 1 << 28;

/// process: it has ended, and the loop has made its last event.
pub(super) const FINISHED: u32 = 1 << 24;
/// process: it has ended, and is waited for when that is delivered.
pub(super) const REAPS: u32 = 1 << 25;

/// timer: will expire.
pub(super) const SET: u32 = 1 << 16;
/// timer: set in this iteration; see `Timers::settle`.
pub(super) const ARMING: u32 = 1 << 17;
/// timer: counts from when it was set.
pub(super) const RELATIVE: u32 = 1 << 18;
pub(super) const PERIODIC: u32 = 1 << 19;
pub(super) const BURST: u32 = 1 << 20;
pub(super) const DELAY: u32 = 1 << 21;
/// timer: its time is among the extras while it is disabled.
pub(super) const PARKED: u32 = 1 << 22;
/// timer, defer: another thread has added it to be set, and the loop has not
/// taken it in yet.
pub(super) const COMING: u32 = 1 << 23;
/// timer: can be started again.
pub(super) const AGAIN: u32 = 1 << 24;
/// timer: the clock it was made for, and the one whose queue it is in.
pub(super) const CLOCK_SHIFT: u32 = 26;
pub(super) const QUEUE_SHIFT: u32 = 29;
pub(super) const CLOCK_MASK: u32 = 7;

/// defer: to be called in the next iteration.
pub(super) const WAITING: u32 = 1 << 16;

/// defer: since this iteration: not to be called in it.
pub(super) const NEXT_TIME: u32 = 1 << 17;

/// defer: its event is about to be dispatched.
pub(super) const DUE: u32 = 1 << 18;

/// async: sent to while it was disabled, and taken off the stack.
pub(super) const UNLINKED: u32 = 1 << 16;

/// async: closed, and taken out of everything but the stack.
pub(super) const CLOSED_ON_STACK: u32 = 1 << 18;

/// Everything that makes an io event more than a call of its callback.
pub(super) const NOT_PLAIN: u32 =
    EXTRA_WORK | SHARED | ONESHOT | SUPPRESSED | NOT_POLLABLE | FD_LOST;
/// The same, for any source.
pub(super) const EXTRA_WORK: u32 = RECORDS | HAS_RATE_LIMIT | RATE_LIMITED_NOW | REAPS;
/// The flags that are compared with [`PLAIN_IO`], to recognise a plain io
/// watcher.
pub(super) const PLAIN_MASK: u32 = SOURCE | ENABLED | NOT_PLAIN;
pub(super) const PLAIN_IO: u32 = Source::Io as u32 | ENABLED;

/// Whether a watcher with these flags keeps its loop alive.
#[inline]
pub(super) fn keeps_alive(flags: u32) -> bool {
    flags & (ENABLED | UNREF) == ENABLED
        && match Source::of(flags) {
            Source::Timer => flags & SET != 0,
            Source::Defer => flags & WAITING != 0,
            Source::Exit | Source::ClockChange => false,
            source if source.is_descriptor() || source == Source::File => flags & FD_LOST == 0,
            _ => true,
        }
}
