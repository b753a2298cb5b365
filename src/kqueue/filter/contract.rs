//! What a filter is: of a knote it says what the kernel has to watch for it,
//! and, when there is a reason to ask, whether there is an event.
//!
//! It decides on the queue's store and sources, under the queue's lock.

use super::super::epoll_set::KINDS;
use super::super::event::*;
use super::super::knote::Knote;
use super::super::registration::Registration;
use super::super::source::Sources;
use super::super::source::mount::Mounts;
use super::super::store::Store;
use crate::errno::{Result, fail};
use crate::util::bug_or;

/// What an event says.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(in super::super) struct Outcome {
    pub data: i64,
    pub fflags: u32,
    pub eof: bool,
}

/// Whether there is an event.
pub(in super::super) enum Verdict {
    True(Outcome),
    False,
    /// The descriptor does not look like the one that was registered.
    Gone,
}

pub(in super::super) trait Filter: Sync {
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
    fn attach(&self, _store: &mut Store, _sources: &mut Sources, _id: u32) -> Result<()> {
        Ok(())
    }

    /// A change of an existing knote, all but its udata and whether it is
    /// enabled.
    fn touch(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        change: &Kevent,
    ) -> Result<()> {
        self.take_over(store, id, change)
    }

    /// What most have to do about that: fflags and data become what it says,
    /// and the flags stay what they were when the knote was made.
    fn take_over(&self, store: &mut Store, id: u32, change: &Kevent) -> Result<()> {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Ok(())) };
        let mut wanted = Knote::new(change, knote.flags);
        self.check(&mut wanted)?;
        (knote.flags, knote.fflags, knote.data) = (wanted.flags, wanted.fflags, wanted.data);
        Ok(())
    }

    /// Refuses to be deleted.
    fn may_delete(&self, _store: &Store, _id: u32) -> Result<()> {
        Ok(())
    }

    /// Ends watching. What is left of a descriptor's epoll, of timers and of
    /// the list of those with events is done after this.
    fn detach(&self, _store: &mut Store, _sources: &mut Sources, _id: u32) {}

    /// Its events are delivered from now on, or not.
    fn enabled(&self, _store: &mut Store, _sources: &mut Sources, _id: u32, _on: bool) {}

    /// The kind of registration of its descriptor, and the events of epoll.
    fn interest(&self, _knote: &Knote) -> (usize, u32) {
        (KINDS, 0)
    }

    /// What of inotify(7) its file is to be watched for.
    fn vnode_interest(&self, _knote: &Knote, _registration: &Registration) -> u32 {
        0
    }

    /// Its file was changed or used so: NOTE bits of VNODE, of one happening.
    fn noticed(&self, _store: &mut Store, _id: u32, _notes: u32) {}

    /// This may have happened to its file, as the kernel has lost events.
    fn may_have_missed(&self, store: &mut Store, id: u32, notes: u32) {
        self.noticed(store, id, notes);
    }

    /// There are mounts that were not there, or the other way around: VQ
    /// bits. Asked of all knotes.
    fn mounted(&self, _store: &mut Store, _mounts: &Mounts, _id: u32, _notes: u32) {}

    /// Whether there is an event. `ready`: what an epoll said of its
    /// descriptor just now.
    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        ready: Option<u32>,
    ) -> Verdict;

    /// Its event was delivered. It is not in the list of those with events;
    /// if it still has one, it goes back there.
    fn delivered(&self, _store: &mut Store, _sources: &mut Sources, _id: u32) {}
}

/// Refuses bits of fflags that a filter does not know.
pub(super) fn reject_unknown(knote: &Knote, known: u32) -> Result<()> {
    let unknown = knote.fflags & !known;
    if unknown != 0 {
        fail!(EINVAL, "fflags {} are unknown to the filter", unknown);
    }
    Ok(())
}
