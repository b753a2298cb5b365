//! What goes in and out of a queue: one structure for changes and events.

use crate::errno::Errno;
use crate::util::alloc::TryVec;
use std::mem::MaybeUninit;

/// A change to a queue, or an event from it.
///
/// It has the layout of FreeBSD's struct kevent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Kevent {
    /// What the knote is about: a descriptor, a signal, a process id, or a
    /// number that the caller chooses; the filter says which.
    pub ident: u64,
    /// One of EVLOOP_KQ_FILTER.
    pub filter: i16,
    /// EVLOOP_KQ_EV bits.
    pub flags: u16,
    /// EVLOOP_KQ_NOTE bits of the filter.
    pub fflags: u32,
    /// A value of the filter; an errno if flags has EV_ERROR.
    pub data: i64,
    /// The caller's value, returned with each event.
    pub udata: u64,
    /// The filter's values (0 and 1, if it uses them) and the caller's.
    pub ext: [u64; 4],
}

pub(crate) const FILTER_READ: i16 = -1;
pub(crate) const FILTER_WRITE: i16 = -2;
pub(crate) const FILTER_AIO: i16 = -3;
pub(crate) const FILTER_VNODE: i16 = -4;
pub(crate) const FILTER_PROC: i16 = -5;
pub(crate) const FILTER_SIGNAL: i16 = -6;
pub(crate) const FILTER_TIMER: i16 = -7;
pub(crate) const FILTER_FS: i16 = -9;
pub(crate) const FILTER_USER: i16 = -11;
pub(crate) const FILTER_EMPTY: i16 = -13;
pub(crate) const FILTER_NETDEV: i16 = -16;
pub(crate) const FILTER_EXCEPT: i16 = -17;
/// All filters that there are anywhere, these and those of FreeBSD that
/// cannot be had here.
pub(crate) const FILTERS: std::ops::Range<i16> = FILTER_EXCEPT..0;

pub(crate) const EV_ADD: u16 = 0x1;
pub(crate) const EV_DELETE: u16 = 0x2;
pub(crate) const EV_ENABLE: u16 = 0x4;
pub(crate) const EV_DISABLE: u16 = 0x8;
pub(crate) const EV_ONESHOT: u16 = 0x10;
pub(crate) const EV_CLEAR: u16 = 0x20;
pub(crate) const EV_RECEIPT: u16 = 0x40;
pub(crate) const EV_DISPATCH: u16 = 0x80;
pub(crate) const EV_FORCEONESHOT: u16 = 0x100;
pub(crate) const EV_KEEPUDATA: u16 = 0x200;
pub(crate) const EV_UDATA_SPECIFIC: u16 = 0x400;
pub(crate) const EV_SYSFLAGS: u16 = 0xf000;
pub(crate) const EV_ERROR: u16 = 0x4000;
pub(crate) const EV_EOF: u16 = 0x8000;

/// What a change does once, as opposed to what it sets.
pub(super) const EV_ACTIONS: u16 =
    EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE | EV_FORCEONESHOT | EV_KEEPUDATA;

pub(crate) const NOTE_LOWAT: u32 = 0x1;
pub(crate) const NOTE_FILE_POLL: u32 = 0x2;

pub(crate) const NOTE_OOB: u32 = 0x2;

pub(crate) const NOTE_DELETE: u32 = 0x1;
pub(crate) const NOTE_WRITE: u32 = 0x2;
pub(crate) const NOTE_EXTEND: u32 = 0x4;
pub(crate) const NOTE_ATTRIB: u32 = 0x8;
pub(crate) const NOTE_LINK: u32 = 0x10;
pub(crate) const NOTE_RENAME: u32 = 0x20;
pub(crate) const NOTE_REVOKE: u32 = 0x40;
pub(crate) const NOTE_OPEN: u32 = 0x80;
pub(crate) const NOTE_CLOSE: u32 = 0x100;
pub(crate) const NOTE_CLOSE_WRITE: u32 = 0x200;
pub(crate) const NOTE_READ: u32 = 0x400;

pub(crate) const VQ_MOUNT: u32 = 0x8;
pub(crate) const VQ_UNMOUNT: u32 = 0x10;

pub(crate) const NOTE_LINKUP: u32 = 0x1;
pub(crate) const NOTE_LINKDOWN: u32 = 0x2;
pub(crate) const NOTE_LINKINV: u32 = 0x4;
pub(crate) const NOTE_EXIT: u32 = 0x8000_0000;
pub(crate) const NOTE_FORK: u32 = 0x4000_0000;
pub(crate) const NOTE_EXEC: u32 = 0x2000_0000;
pub(crate) const NOTE_EXITSTATUS: u32 = 0x0400_0000;
pub(crate) const NOTE_EXITUNKNOWN: u32 = 0x0010_0000;
pub(crate) const NOTE_TRACK: u32 = 0x1;
pub(crate) const NOTE_TRACKERR: u32 = 0x2;
pub(crate) const NOTE_CHILD: u32 = 0x4;
/// macOS has them, and they cannot be had here: REAP, SIGNAL, EXIT_DETAIL.
pub(crate) const NOTE_PROC_OTHERS: u32 = 0x1a00_0000;

pub(crate) const NOTE_TRIGGER: u32 = 0x0100_0000;
pub(crate) const NOTE_FFNOP: u32 = 0;
pub(crate) const NOTE_FFAND: u32 = 0x4000_0000;
pub(crate) const NOTE_FFOR: u32 = 0x8000_0000;
pub(crate) const NOTE_FFCOPY: u32 = 0xc000_0000;
pub(crate) const NOTE_FFCTRLMASK: u32 = 0xc000_0000;
pub(crate) const NOTE_FFLAGSMASK: u32 = 0x00ff_ffff;

pub(crate) const NOTE_SECONDS: u32 = 0x1;
pub(crate) const NOTE_MSECONDS: u32 = 0x2;
pub(crate) const NOTE_USECONDS: u32 = 0x4;
pub(crate) const NOTE_NSECONDS: u32 = 0x8;
pub(crate) const NOTE_ABSTIME: u32 = 0x10;

/// The caller's changes. They are read one after the other, since the same
/// array may take the events.
pub(crate) struct Changes {
    next: *const Kevent,
    left: usize,
}

impl Changes {
    /// # Safety
    /// `count` entries at `start` stay readable while this is used; a
    /// [`KeventSink`] may write those that were read.
    pub unsafe fn new(start: *const Kevent, count: usize) -> Self {
        Self { next: start, left: count }
    }

    pub fn take(&mut self) -> Option<Kevent> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: one of the entries (contract of `new`), not read before.
        let change = unsafe { self.next.read() };
        // SAFETY: at most the end of the entries.
        self.next = unsafe { self.next.add(1) };
        Some(change)
    }
}

/// The caller's room for events, filled from the front.
pub(crate) struct KeventSink {
    start: *mut MaybeUninit<Kevent>,
    capacity: usize,
    filled: usize,
    /// What the first places held, as long as the call may fail.
    replaced: Replaced,
    /// The number of the collecting call that fills it; 0: it has none yet.
    pub call_seq: u32,
}

/// So many are kept without memory being asked for.
const FEW: usize = 4;

struct Replaced {
    few: [MaybeUninit<Kevent>; FEW],
    more: Vec<MaybeUninit<Kevent>>,
}

impl KeventSink {
    /// # Safety
    /// `capacity` entries at `start` stay writable while this is used.
    pub unsafe fn new(start: *mut Kevent, capacity: usize) -> Self {
        let replaced = Replaced { few: [const { MaybeUninit::uninit() }; FEW], more: Vec::new() };
        Self { start: start.cast(), capacity, filled: 0, replaced, call_seq: 0 }
    }

    /// No room.
    pub fn none() -> Self {
        // SAFETY: no entries.
        unsafe { Self::new(std::ptr::null_mut(), 0) }
    }

    pub fn is_full(&self) -> bool {
        self.filled >= self.capacity
    }

    /// For how many it has room.
    pub fn left(&self) -> usize {
        self.capacity - self.filled
    }

    pub fn filled(&self) -> usize {
        self.filled
    }

    /// One of the places, or just behind the last.
    fn slot(&self, index: usize) -> *mut MaybeUninit<Kevent> {
        // SAFETY: callers stay below `capacity`.
        unsafe { self.start.add(index) }
    }

    /// Fills in an event, after which the call does not fail. False: it is
    /// full.
    pub fn push(&mut self, event: Kevent) -> bool {
        if self.is_full() {
            return false;
        }
        let slot = self.slot(self.filled);
        // SAFETY: one of the entries (contract of `new`).
        unsafe { slot.write(MaybeUninit::new(event)) };
        self.filled += 1;
        true
    }

    /// Fills in an entry that is taken back if the call fails. ENOMEM: what
    /// is there cannot be kept. False: it is full.
    pub fn push_entry(&mut self, entry: Kevent) -> Result<bool, Errno> {
        if self.is_full() {
            return Ok(false);
        }
        // SAFETY: one of the entries (contract of `new`).
        let before = unsafe { self.slot(self.filled).read() };
        match self.replaced.few.get_mut(self.filled) {
            Some(slot) => *slot = before,
            None => {
                self.replaced.more.try_push(before)?;
            }
        }
        Ok(self.push(entry))
    }

    /// Has the array be what it was before the entries.
    pub fn take_back(&mut self) {
        let before = self.replaced.few.iter().chain(&self.replaced.more);
        for (index, before) in before.take(self.filled).enumerate() {
            // SAFETY: one of the entries (contract of `new`).
            unsafe { self.slot(index).write(*before) };
        }
        self.filled = 0;
    }
}
