//! The filters, by their numbers: what can be watched, and how.

mod aio;
mod contract;
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

pub(super) use self::contract::{Filter, Outcome, Verdict};
pub(super) use self::empty::look_at_drained;
pub(super) use self::netdev::linked;

use super::event::*;
use super::knote::Knote;
use super::source::Sources;
use super::store::Store;
use crate::errno::{Result, fail};

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
pub(super) fn of_id(store: &Store, id: u32) -> &'static dyn Filter {
    store.knotes.get(id).map_or(&user::UserFilter, of)
}

/// The mounts may have changed: the filters of all knotes learn how.
pub(super) fn take_mounts(store: &mut Store, sources: &mut Sources) {
    let notes = sources.mounts.take();
    let mut cursor = 0;
    while let Some(id) = store.knotes.next_from(cursor).filter(|_| notes != 0) {
        cursor = id + 1;
        of_id(store, id).mounted(store, &sources.mounts, id, notes);
    }
}
