//! Async watchers: who was sent to.

use super::core::Core;
use super::event::Event;
use super::flags::*;
use super::mailbox::{self, Links};
use super::named::named_quietly;
use super::record::{self, LIVE, Record};
use super::running::Run;
use crate::errno::{Errno, Result};
use crate::sync::Ordering::Relaxed;
use crate::table::{Handle, Kind};

impl Run {
    pub fn asyncs(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if !self.desk.mail.has_sent() && core.sent.is_empty() {
            return Ok(());
        }
        let own = core.sent.len();
        let sent = core.take_sent();
        if self.desk.has_inbox() {
            // What was asked for before one was sent to comes before.
            core.receive(&mut self.desk.gate());
        }
        for (place, index) in sent.into_iter().enumerate() {
            let Some(record) = record::get(index) else { continue };
            if place < own && !off_stack(record.flags.load(Relaxed)) {
                // Of a watcher that is closed, and its record another's.
                continue;
            }
            // SAFETY: as above.
            if unsafe { self.core() }.was_sent(index, record) {
                let handle = record.handle(Kind::Watcher, index);
                self.emit(Event::new(handle, Source::Async as i32), record)?;
            }
        }
        Ok(())
    }
}

impl Core {
    pub fn async_put_back(&mut self, record: &Record) {
        // If it was sent to since, it is on the stack again.
        if !record.send_again() {
            record.set(OFF_STACK);
        }
    }

    /// Takes all async watchers that were sent to, the first one first.
    fn take_sent(&mut self) -> Vec<u32> {
        let mut taken = std::mem::take(&mut self.sent);
        let own = taken.len();
        let mut index = self.desk.mail.take_sent();
        while index != mailbox::NOBODY {
            let next = record::get(index).map_or(mailbox::NOBODY, link);
            if taken.try_reserve(1).is_ok() {
                taken.push(index);
            } else {
                // Back, until there is memory; nobody needs to be woken.
                let _ = self.desk.mail.push(&InRecords, index);
            }
            index = next;
        }
        if let Some(others) = taken.get_mut(own..) {
            others.reverse();
        }
        taken
    }

    /// Whether an async watcher that was sent to is to be called.
    fn was_sent(&mut self, index: u32, record: &Record) -> bool {
        let ours = record.desk().is_some_and(|desk| std::ptr::eq(desk, self.desk));
        let flags = record.flags.load(Relaxed);
        if !ours || Source::of(flags) != Source::Async {
            return false;
        }
        if record.state() != LIVE {
            // Closed: freed by who comes last, this or the command to close it.
            if record.receive() && flags & FINISHED != 0 {
                self.slots.give_back(index);
            }
            return false;
        }
        if flags & ENABLED == 0 {
            record.set(OFF_STACK);
            return false;
        }
        record.unset(OFF_STACK);
        record.receive()
    }
}

/// The next of the stack of async watchers that were sent to.
fn link(record: &Record) -> u32 {
    record.aux.load(Relaxed) as u32
}

/// See evloop_async_send. A signal handler may call this.
#[inline(always)]
pub(crate) fn async_send(handle: i64) -> std::result::Result<(), Errno> {
    let Some(named) = Handle::unpack_as(handle, Kind::Watcher) else { return refuse_send(handle) };
    let Some(record) = record::get(named.index) else { return refuse_send(handle) };
    let is_async = Source::of(record.flags.load(Relaxed)) == Source::Async;
    let Some(desk) = record.desk().filter(|desk| is_async && desk.is_usable()) else {
        return refuse_send(handle);
    };
    match record.send(named) {
        None => refuse_send(handle),
        Some(false) => Ok(()),
        Some(true) => {
            if desk.mail.push(&InRecords, named.index) {
                desk.ring();
            }
            Ok(())
        }
    }
}

#[cold]
fn refuse_send(handle: i64) -> std::result::Result<(), Errno> {
    named_quietly(handle, Kind::Watcher)?;
    Err(Errno::EINVAL)
}

/// The stack of async watchers that were sent to is linked in their records.
struct InRecords;

impl Links for InRecords {
    fn set_next(&self, id: u32, next: u32) {
        if let Some(record) = record::get(id) {
            record.aux.store(next.into(), Relaxed);
        }
    }
}

/// Whether an async watcher that was sent to is not on the stack of those.
pub(super) fn off_stack(flags: u32) -> bool {
    Source::of(flags) == Source::Async && flags & OFF_STACK != 0
}
