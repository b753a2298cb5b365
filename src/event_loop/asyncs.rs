//! Async watchers: who was sent to.

use super::core::Core;
use super::event::Event;
use super::flags::*;
use super::named::named_quietly;
use super::record::{self, CLOSING, LIVE, Record};
use super::running::Run;
use super::sent_stack::{Links, NOBODY};
use crate::errno::{Errno, Result};
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;

impl Run {
    pub fn asyncs(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if !self.desk.mail.has_sent() && !core.has_sent() {
            return Ok(());
        }
        core.take_sent();
        if self.desk.has_inbox() {
            // What was asked for before one was sent to comes before.
            core.receive(&mut self.desk.gate());
        }
        // SAFETY: as above.
        while let Some((index, record)) = unsafe { self.core() }.next_arrived() {
            self.sent_to(index, record)?;
        }
        Ok(())
    }

    fn sent_to(&self, index: u32, record: &Record) -> Result<()> {
        // SAFETY: no other reference to the core.
        if unsafe { self.core() }.was_sent(index, record) {
            let handle = record.handle(Kind::Watcher, index);
            self.emit(Event::new(handle, Source::Async as i32), record)?;
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

    /// One that was sent to while it was disabled, and taken off the stack, is
    /// enabled: it is put there again.
    pub fn send_again(&mut self, index: u32, record: &Record) {
        record.unset(OFF_STACK);
        // The loop is there: its stack takes it.
        self.push_again(index);
    }

    /// Whether some that were sent to are off the stack already.
    #[inline]
    pub fn has_sent(&self) -> bool {
        self.arrived != NOBODY
    }

    /// Takes all async watchers that were sent to off the stack, for
    /// `next_arrived`, the first one first.
    fn take_sent(&mut self) {
        // Those of an iteration that a fork ended come before.
        if self.arrived != NOBODY {
            return;
        }
        let mut index = self.desk.mail.take_sent();
        while let Some(record) = record::get(index).filter(|_| index != NOBODY) {
            let before = link(record);
            InRecords.set_next(index, self.arrived);
            self.arrived = index;
            index = before;
        }
    }

    fn next_arrived(&mut self) -> Option<(u32, &'static Record)> {
        let index = self.arrived;
        let record = record::get(index).filter(|_| index != NOBODY)?;
        self.arrived = link(record);
        Some((index, record))
    }

    /// In a forked child: a thread of the parent's may have marked a watcher
    /// and not put it on the stack yet. It never will here, and as long as the
    /// mark is there no other sender would.
    pub fn find_sent(&mut self) {
        let mail = &self.desk.mail;
        // No thread of this process sleeps in the loop: none is to be woken.
        mail.wake();
        self.slots.all().filter(|(_, record)| is_async(record)).for_each(|(_, record)| {
            record.aux.store(link(record).into(), Relaxed);
        });
        let mut newest = mail.take_sent();
        mark_listed(self.arrived);
        mark_listed(newest);
        let is_lost = |record: &Record| {
            let flags = record.flags.load(Relaxed);
            is_async(record) && record.is_sent() && !off_stack(flags) && !is_listed(record)
        };
        let lost = self.slots.all().filter(|(_, record)| is_lost(record));
        lost.for_each(|(index, _)| self.push_again(index));
        // Back to where they were, in their order.
        let mut oldest = NOBODY;
        while let Some(record) = record::get(newest).filter(|_| newest != NOBODY) {
            let before = link(record);
            InRecords.set_next(newest, oldest);
            (oldest, newest) = (newest, before);
        }
        while let Some(record) = record::get(oldest).filter(|_| oldest != NOBODY) {
            let after = link(record);
            self.push_again(oldest);
            oldest = after;
        }
    }

    fn push_again(&self, index: u32) {
        let mail = &self.desk.mail;
        drop(mail.push(self.desk, &InRecords, index, mail.sent_tag()));
    }

    /// For a loop whose watchers are all closed: takes those off the stack
    /// that were sent to, and has every later push refused.
    pub fn forget_sent(&mut self) {
        let mut index = self.desk.mail.close_sent();
        while let Some(record) = record::get(index).filter(|_| index != NOBODY) {
            index = link(record);
            record.receive();
        }
        // What an iteration has left.
        while let Some((_, record)) = self.next_arrived() {
            record.receive();
        }
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

fn is_async(record: &Record) -> bool {
    matches!(record.state(), LIVE | CLOSING)
        && Source::of(record.flags.load(Relaxed)) == Source::Async
}

/// Beside the link, while the stack is put right: it is in a list.
const LISTED: u64 = 1 << 32;

fn mark_listed(mut index: u32) {
    while let Some(record) = record::get(index).filter(|_| index != NOBODY) {
        record.aux.store(record.aux.load(Relaxed) | LISTED, Relaxed);
        index = link(record);
    }
}

fn is_listed(record: &Record) -> bool {
    record.aux.load(Relaxed) & LISTED != 0
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
    let tag = desk.mail.sent_tag();
    match record.send(named) {
        None => refuse_send(handle),
        Some(false) => Ok(()),
        Some(true) => match desk.mail.push(desk, &InRecords, named.index, tag) {
            Some(wake) => wake.now(),
            None => {
                // The loop was closed since, and has left the record to this.
                record::refuse_sent(named.index, record);
                Err(Errno::ESTALE)
            }
        },
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
