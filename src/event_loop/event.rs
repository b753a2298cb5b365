//! The event that a loop delivers to the program: one type for every source.

use super::flags::CLOSED;
use super::node_list::ListNode;
use crate::errno::{Result, fail};
use crate::util::try_box;
use std::ffi::{c_int, c_void};

/// What happened to a watcher. It has 64 bytes, the same for every kind of
/// source. A field that the comment of the evloop_add function does not mention
/// is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The watcher; 0 for a posted call.
    pub watcher: i64,
    /// The watcher's data: its user_data, or see evloop_watcher_set_data().
    pub data: u64,
    /// EVLOOP_EVENT_IO or another EVLOOP_EVENT constant.
    pub r#type: c_int,
    /// IO: EVLOOP_EPOLL bits. FILE: EVLOOP_FILE bits. PROCESS:
    /// EVLOOP_PROCESS_STATUS_UNKNOWN. Any: EVLOOP_ERROR.
    pub events: u32,
    /// IO: the descriptor; else -1.
    pub fd: c_int,
    /// With EVLOOP_ERROR: the cause, -errno. SIGNAL: the signal. PROCESS: the
    /// wait status of waitpid(2).
    pub result: c_int,
    /// TIMER, TFD: the number of expirations. SIGNAL: the number of signals.
    /// Else 1.
    pub count: u64,
    /// TIMER: when the loop found that it was due, on its clock.
    pub time_ns: i64,
    /// TIMER: when it was due, on its clock.
    pub deadline_ns: i64,
    /// SIGNAL, PROCESS, FILE: the key by which evloop_event_siginfo(),
    /// evloop_event_process() and evloop_event_name() find the rest; else 0.
    pub reserved: u64,
}

impl Event {
    /// Adds what happened later to the same watcher.
    pub(super) fn merge(&mut self, later: &Self) {
        self.events |= later.events;
        self.count = self.count.saturating_add(later.count);
        self.time_ns = later.time_ns;
        if later.result != 0 {
            self.result = later.result;
        }
    }

    pub(super) fn new(watcher: i64, r#type: c_int) -> Self {
        Self {
            watcher,
            data: 0,
            r#type,
            events: 0,
            fd: -1,
            result: 0,
            count: 1,
            time_ns: 0,
            deadline_ns: 0,
            reserved: 0,
        }
    }
}

/// How an event loop is made. Set the structure to zero, then `size`, then the
/// fields that should not have their defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// sizeof(evloop_options_t).
    pub size: usize,
    /// EVLOOP_VIRTUAL_TIME, EVLOOP_AUTO_ADVANCE, EVLOOP_PRECISE,
    /// EVLOOP_KEEP_ALIVE, EVLOOP_INTERRUPTIBLE, EVLOOP_CHECK_FDS.
    pub flags: u32,
    /// The most descriptors that one iteration dispatches; 0: 1024.
    pub max_events: c_int,
    /// The most timers that one iteration dispatches; 0: 4096.
    pub max_timers: c_int,
    /// The most posted calls that one iteration makes; 0: 4096.
    pub max_posts: c_int,
    /// Since 0.2.0: the tolerance, in nanoseconds, of timers that are added
    /// with a tolerance of 0; see evloop_add_timer(). 0: none.
    pub timer_tolerance_ns: i64,
    /// Since 0.2.0, with EVLOOP_AUTO_ADVANCE: virtual time jumps only when
    /// nothing has happened for this many nanoseconds of real time. For tests
    /// with threads, processes or sockets, which need real time to respond.
    /// Each jump takes that time, also the jump to a timer's deadline. 0: it
    /// jumps at once. See also evloop_virtual_hold().
    pub virtual_grace_ns: i64,
}

/// Flags of [`Options`].
pub(crate) const VIRTUAL_TIME: u32 = 1;
pub(crate) const AUTO_ADVANCE: u32 = 2;
pub(crate) const PRECISE: u32 = 4;
pub(crate) const KEEP_ALIVE: u32 = 8;
pub(crate) const INTERRUPTIBLE: u32 = 16;
pub(crate) const CHECK_FDS: u32 = 32;

/// Where a watcher's events go.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub callback: Option<Callback>,
    pub user_data: *mut c_void,
}

// SAFETY: a function and its argument, which are only handed on here. The
// program gives them to be called on the thread that runs the loop, whichever
// that is: that they may go there is its own matter.
unsafe impl Send for Target {}

/// That a watcher is closed, to be reported to the program: made when that was
/// asked for, so that closing needs no memory.
pub(super) struct Destroy {
    pub target: Target,
    pub event: Event,
}

impl Destroy {
    /// Of a watcher that is open yet.
    pub fn of(watcher: i64, target: Target) -> Result<Box<ListNode<Self>>> {
        let node = ListNode::new(watcher, Self { target, event: Event::new(watcher, CLOSED) });
        match try_box(node) {
            Some(node) => Ok(node),
            None => fail!(ENOMEM, "no memory for a notification"),
        }
    }
}

/// A function of the program's.
pub(crate) type Callback = unsafe extern "C" fn(*const Event, *mut c_void);

const _: () = assert!(size_of::<Event>() == 64);
