//! NETDEV: a network interface's link went up or down.
//!
//! `state` has what the link is now, and what it became since the last event.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use crate::errno::{Error, Result, fail};
use crate::sys::netlink::LinkState;
use crate::util::bug_or;

pub(super) struct NetdevFilter;

const KNOWN: u32 = NOTE_LINKUP | NOTE_LINKDOWN | NOTE_LINKINV;

/// In `state`: what happened, above what it is now.
const HAPPENED: u32 = 8;
/// In `state`: the queue's netlink socket is held for it.
const HOLDS: i64 = 1 << 17;
/// In `state`: there is no such interface any more.
const GONE: i64 = 1 << 16;

impl Filter for NetdevFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, KNOWN)
    }

    fn attach(&self, store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
        let ident = store.knotes.get(id).map_or(0, |knote| knote.ident);
        let index = u32::try_from(ident).ok().filter(|index| (1..=MAX_INDEX).contains(index));
        let Some(index) = index else {
            fail!(ENXIO, "there is no network interface {}", ident as i64);
        };
        sources.netlink.hold(&sources.set)?;
        if let Some(knote) = store.knotes.get_mut(id) {
            knote.state |= HOLDS;
        }
        let asked = sources.netlink.query(store, index, linked);
        let link_state = store.knotes.get(id).map_or(0, |knote| knote.state);
        if asked.is_err() || link_state & i64::from(KNOWN) == 0 || link_state & GONE != 0 {
            store.deactivate(id);
            asked.map_err(Error::from)?;
            fail!(ENXIO, "there is no network interface {}", i64::from(index));
        }
        Ok(())
    }

    fn detach(&self, store: &mut Store, sources: &mut Sources, id: u32) {
        if store.knotes.get(id).is_some_and(|knote| knote.state & HOLDS != 0) {
            sources.netlink.release(&sources.set);
        }
    }

    fn evaluate(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        let link_state = store.knotes.get(id).map_or(0, |knote| knote.state);
        let (data, fflags) =
            (link_state & i64::from(KNOWN), (link_state >> HAPPENED) as u32 & KNOWN);
        let eof = link_state & GONE != 0;
        match fflags != 0 || eof {
            true => Verdict::True(Outcome { data, fflags, eof }),
            false => Verdict::False,
        }
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        if knote.has(EV_CLEAR) {
            knote.state &= i64::from(KNOWN) | HOLDS;
        } else {
            store.activate(id);
        }
    }
}

/// The link of a knote's network interface is so, perhaps as before.
pub(in super::super) fn linked(store: &mut Store, id: u32, link_state: LinkState) {
    let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
    let now = match link_state {
        LinkState::Up => NOTE_LINKUP,
        LinkState::Down => NOTE_LINKDOWN,
        LinkState::Unknown | LinkState::Gone => NOTE_LINKINV,
    };
    let before = knote.state as u32 & KNOWN;
    let happened = if before == now || before == 0 { 0 } else { now & knote.fflags };
    knote.state &= !i64::from(KNOWN);
    knote.state |= i64::from(now | happened << HAPPENED);
    if link_state == LinkState::Gone {
        knote.state |= GONE | i64::from((now & knote.fflags) << HAPPENED);
        knote.flags |= EV_ONESHOT;
    }
    if happened != 0 || link_state == LinkState::Gone {
        store.activate(id);
    }
}

/// The kernel's numbers are positive.
const MAX_INDEX: u32 = i32::MAX as u32;
