//! FS: file systems were mounted or unmounted.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::source::mount::Mounts;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict};
use super::vnode;
use crate::errno::{Result, fail};
use crate::util::bug_or;

pub(super) struct FsFilter;

const POSSIBLE: u32 = VQ_MOUNT | VQ_UNMOUNT;
/// Those that FreeBSD has.
const KNOWN: u32 = 0xff;

impl Filter for FsFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        let (unknown, impossible) = (knote.fflags & !KNOWN, knote.fflags & KNOWN & !POSSIBLE);
        if unknown != 0 {
            fail!(EINVAL, "fflags {} are unknown to the filter", unknown);
        }
        if impossible != 0 {
            fail!(ENOTSUP, "fflags {} cannot be seen", impossible);
        }
        knote.flags |= EV_CLEAR;
        Ok(())
    }

    fn attach(&self, _store: &mut Store, sources: &mut Sources, _id: u32) -> Result<()> {
        sources.mounts.hold(&sources.set).map_err(vnode::explain)
    }

    fn detach(&self, _store: &mut Store, sources: &mut Sources, _id: u32) {
        sources.mounts.release(&sources.set);
    }

    fn mounted(&self, store: &mut Store, _mounts: &Mounts, id: u32, notes: u32) {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        let wanted = if knote.fflags == 0 { POSSIBLE } else { knote.fflags };
        if notes & wanted != 0 {
            knote.state |= i64::from(notes & wanted);
            store.activate(id);
        }
    }

    fn evaluate(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        match store.knotes.get(id).map_or(0, |knote| knote.state as u32) {
            0 => Verdict::False,
            fflags => Verdict::True(Outcome { fflags, ..Outcome::default() }),
        }
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        if let Some(knote) = store.knotes.get_mut(id) {
            knote.state = 0;
        }
    }
}
