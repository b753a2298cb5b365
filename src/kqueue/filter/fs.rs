//! FS: file systems were mounted or unmounted.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::state::QueueState;
use super::{Filter, Outcome, Verdict, vnode};
use crate::errno::{Result, fail};

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

    fn attach(&self, state: &mut QueueState, _id: u32) -> Result<()> {
        state.hold_mounts().map_err(vnode::explain)
    }

    fn detach(&self, state: &mut QueueState, _id: u32) {
        state.release_mounts();
    }

    fn mounted(&self, state: &mut QueueState, id: u32, notes: u32) {
        let Some(knote) = state.store.knotes.get_mut(id) else { return };
        let wanted = if knote.fflags == 0 { POSSIBLE } else { knote.fflags };
        if notes & wanted != 0 {
            knote.state |= i64::from(notes & wanted);
            state.store.activate(id);
        }
    }

    fn evaluate(&self, state: &mut QueueState, id: u32, _ready: Option<u32>) -> Verdict {
        match state.store.knotes.get(id).map_or(0, |knote| knote.state as u32) {
            0 => Verdict::False,
            fflags => Verdict::True(Outcome { fflags, ..Outcome::default() }),
        }
    }

    fn delivered(&self, state: &mut QueueState, id: u32) {
        if let Some(knote) = state.store.knotes.get_mut(id) {
            knote.state = 0;
        }
    }
}
