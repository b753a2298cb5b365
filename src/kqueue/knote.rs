//! Knotes: one for each identifier and filter that a queue watches.

use super::event::*;
use super::needs::Need;
use super::slab::{NONE, Slab};
use crate::hash::Map;
use crate::timer_queue::Node;
use crate::util::bug_or;

/// Its events are not delivered for now.
pub(super) const DISABLED: u8 = 0x1;
/// It has, or may have, an event; its filter is asked at delivery.
pub(super) const ACTIVE: u8 = 0x2;
/// It is in the list of those with events: active, and not disabled.
pub(super) const QUEUED: u8 = 0x4;
/// It fires whatever its filter says.
pub(super) const FORCED: u8 = 0x8;

/// One thing that is watched. What every delivery looks at comes first, and
/// fits in a cache line.
#[repr(C)]
pub(super) struct Knote {
    pub ident: u64,
    pub udata: u64,
    /// Only where it is not all zero.
    pub ext: Option<Box<[u64; 4]>>,
    pub fflags: u32,
    /// Those that last: ONESHOT, CLEAR, DISPATCH and their like.
    pub flags: u16,
    pub filter: i16,
    /// The descriptor's record, for the filters of descriptors.
    pub registration: u32,
    /// The next of the same descriptor, or of the same ident and filter.
    pub next: u32,
    /// The collecting call that delivered it last.
    pub call_seq: u32,
    pub status: u8,
    /// The clock that its time is one of.
    pub clock: u8,
    /// What it is counted for among the needs of its registration.
    pub need: Need,
    /// How the filter is to work, with fflags: as the last change set it.
    pub data: i64,
    /// A number of the filter's own.
    pub state: i64,
    before: u32,
    after: u32,
    /// The one before it in the list that `next` is of.
    pub previous: u32,
    /// The timer's; that of a second look, where a filter needs one.
    pub node: Node,
}

/// With 16 bytes of the slab before it.
const _: () = assert!(std::mem::offset_of!(Knote, data) <= 48);

impl Knote {
    pub fn new(change: &Kevent, flags: u16) -> Self {
        Self {
            ident: change.ident,
            udata: change.udata,
            data: change.data,
            fflags: change.fflags,
            flags: flags & !EV_ACTIONS,
            filter: change.filter,
            state: 0,
            registration: NONE,
            next: NONE,
            previous: NONE,
            before: NONE,
            after: NONE,
            call_seq: 0,
            status: if flags & EV_DISABLE != 0 { DISABLED } else { 0 },
            clock: 0,
            need: Need::default(),
            node: Node::new(),
            ext: None,
        }
    }

    pub fn is(&self, status: u8) -> bool {
        self.status & status != 0
    }

    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// An event of it, to be filled in.
    pub fn event(&self) -> Kevent {
        Kevent {
            ident: self.ident,
            filter: self.filter,
            flags: self.flags,
            fflags: 0,
            data: 0,
            udata: self.udata,
            ext: self.ext.as_deref().copied().unwrap_or_default(),
        }
    }
}

/// The knotes with events, in the order in which they got them.
pub(super) struct ActiveList {
    first: u32,
    last: u32,
    len: usize,
}

impl ActiveList {
    pub const fn new() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn first(&self) -> u32 {
        self.first
    }

    pub fn append(&mut self, knotes: &mut Slab<Knote>, id: u32) {
        let Some(knote) = knotes.get_mut(id) else { bug_or!(return) };
        knote.status |= QUEUED;
        (knote.before, knote.after) = (self.last, NONE);
        match knotes.get_mut(self.last) {
            Some(last) => last.after = id,
            None => self.first = id,
        }
        self.last = id;
        self.len += 1;
    }

    pub fn remove(&mut self, knotes: &mut Slab<Knote>, id: u32) {
        let Some(knote) = knotes.get_mut(id) else { bug_or!(return) };
        knote.status &= !QUEUED;
        let (before, after) = (knote.before, knote.after);
        match knotes.get_mut(before) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match knotes.get_mut(after) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }
}

/// Where the records of idents are: of descriptors, under `DESCRIPTOR`, and
/// the first knotes of other idents, under their filter.
pub(super) type Index = Map<(u64, i16), u32>;

/// Where the knotes are that have their udata in their key: by ident, filter
/// and udata.
pub(super) type SpecificIndex = Map<(u64, i16, u64), u32>;

/// In an [`Index`], in place of a filter.
pub(super) const DESCRIPTOR: i16 = 0;
