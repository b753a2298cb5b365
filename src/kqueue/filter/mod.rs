//! Filters: what can be watched, and how.
//!
//! A filter says of a knote what the kernel has to watch for it, and, when
//! there is a reason to ask, whether there is an event. All run under the
//! queue's lock.

mod aio;
mod empty;
mod except;
mod fs;
mod netdev;
mod process;
mod read;
mod ready;
mod signal;
mod timer;
mod user;
mod vnode;
mod waiting;
mod write;

use super::epoll_set::KINDS;
use super::event::*;
use super::knote::Knote;
use super::registration::Registration;
use super::state::QueueState;
use crate::errno::{Result, fail};
use crate::sys::netlink::LinkState;

/// What an event says.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub data: i64,
    pub fflags: u32,
    pub eof: bool,
}

/// Whether there is an event.
pub(super) enum Verdict {
    True(Outcome),
    False,
    /// The descriptor does not look like the one that was registered.
    Gone,
}

pub(super) trait Filter: Sync {
    /// Whether its idents are descriptors.
    fn is_of_descriptor(&self) -> bool {
        false
    }

    /// Whether it looks at the type of a descriptor's file as it begins to
    /// watch: it must be certain by then that it is the one registered.
    fn looks_at_file_type(&self) -> bool {
        false
    }

    /// Refuses what is not possible, and sets what the filter always sets:
    /// of a new knote, or of one as a change would make it.
    fn check(&self, knote: &mut Knote) -> Result<()>;

    /// Begins to watch. What a descriptor's filter needs of epoll is done
    /// after this.
    fn attach(&self, _core: &mut QueueState, _id: u32) -> Result<()> {
        Ok(())
    }

    /// A change of an existing knote, all but its udata and whether it is
    /// enabled.
    fn touch(&self, state: &mut QueueState, id: u32, change: &Kevent) -> Result<()> {
        self.take_over(state, id, change)
    }

    /// What most have to do about that: fflags and data become what it says,
    /// and the flags stay what they were when the knote was made.
    fn take_over(&self, state: &mut QueueState, id: u32, change: &Kevent) -> Result<()> {
        let Some(knote) = state.store.knotes.get_mut(id) else { return Ok(()) };
        let mut wanted = Knote::new(change, knote.flags);
        self.check(&mut wanted)?;
        (knote.flags, knote.fflags, knote.data) = (wanted.flags, wanted.fflags, wanted.data);
        Ok(())
    }

    /// Refuses to be deleted.
    fn may_delete(&self, _core: &QueueState, _id: u32) -> Result<()> {
        Ok(())
    }

    /// Ends watching. What is left of a descriptor's epoll, of timers and of
    /// the list of those with events is done after this.
    fn detach(&self, _core: &mut QueueState, _id: u32) {}

    /// Its events are delivered from now on, or not.
    fn enabled(&self, _core: &mut QueueState, _id: u32, _on: bool) {}

    /// The kind of registration of its descriptor, and the events of epoll.
    fn interest(&self, _knote: &Knote) -> (usize, u32) {
        (KINDS, 0)
    }

    /// What of inotify(7) its file is to be watched for.
    fn vnode_interest(&self, _knote: &Knote, _registration: &Registration) -> u32 {
        0
    }

    /// Its file was changed or used so: NOTE bits of VNODE, of one happening.
    fn noticed(&self, _core: &mut QueueState, _id: u32, _notes: u32) {}

    /// This may have happened to its file, as the kernel has lost events.
    fn may_have_missed(&self, state: &mut QueueState, id: u32, notes: u32) {
        self.noticed(state, id, notes);
    }

    /// There are mounts that were not there, or the other way around: VQ
    /// bits. Asked of all knotes.
    fn mounted(&self, _core: &mut QueueState, _id: u32, _notes: u32) {}

    /// Its network interface's link is so, perhaps as before.
    fn linked(&self, _core: &mut QueueState, _id: u32, _state: LinkState) {}

    /// Whether there is an event. `ready`: what an epoll said of its
    /// descriptor just now.
    fn evaluate(&self, state: &mut QueueState, id: u32, ready: Option<u32>) -> Verdict;

    /// Its event was delivered. It is not in the list of those with events;
    /// if it still has one, it goes back there.
    fn delivered(&self, _core: &mut QueueState, _id: u32) {}
}

/// Refuses bits of fflags that a filter does not know.
fn reject_unknown(knote: &Knote, known: u32) -> Result<()> {
    let unknown = knote.fflags & !known;
    if unknown != 0 {
        fail!(EINVAL, "fflags {} are unknown to the filter", unknown);
    }
    Ok(())
}

/// The filter of this number.
pub(super) fn find(number: i16) -> Result<&'static dyn Filter> {
    match by_number(number) {
        Some(filter) => Ok(filter),
        None if FILTERS.contains(&number) => {
            fail!(ENOTSUP, "filter {} is not supported", i32::from(number))
        }
        None => fail!(EINVAL, "filter {} is unknown", i32::from(number)),
    }
}

fn by_number(number: i16) -> Option<&'static dyn Filter> {
    match number {
        FILTER_AIO => Some(&aio::AioFilter),
        FILTER_READ => Some(&read::ReadFilter),
        FILTER_WRITE => Some(&write::WriteFilter),
        FILTER_VNODE => Some(&vnode::VnodeFilter),
        FILTER_FS => Some(&fs::FsFilter),
        FILTER_NETDEV => Some(&netdev::NetdevFilter),
        FILTER_EMPTY => Some(&empty::EmptyFilter),
        FILTER_EXCEPT => Some(&except::ExceptFilter),
        FILTER_PROC => Some(&process::ProcessFilter),
        FILTER_SIGNAL => Some(&signal::SignalFilter),
        FILTER_TIMER => Some(&timer::TimerFilter),
        FILTER_USER => Some(&user::UserFilter),
        _ => None,
    }
}

/// A knote's.
#[inline]
pub(super) fn of(knote: &Knote) -> &'static dyn Filter {
    by_number(knote.filter).unwrap_or(&user::UserFilter)
}

/// The same, by the knote's number.
#[inline]
pub(super) fn of_id(state: &QueueState, id: u32) -> &'static dyn Filter {
    state.store.knotes.get(id).map_or(&user::UserFilter, of)
}
