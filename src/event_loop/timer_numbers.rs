//! Other numbers for the timers of a loop: those that say in which order they
//! were set come to an end.

use super::{Nodes, Timers};
use crate::event_loop::desk::Desk;
use crate::event_loop::record;
use crate::timer_queue;

/// No timer that is set has this number.
const OUTDATED: u64 = 0;

impl Timers {
    /// Looks whether it is time to; to be called where no event waits to be
    /// dispatched.
    #[inline(always)]
    pub fn renumber_if_many(&mut self, desk: &'static Desk) {
        if self.seq >= timer_queue::MANY {
            self.renumber(desk);
        }
    }

    /// Gives all timers that are set other numbers, in the same order. An
    /// event that waits to be dispatched knows its timer by the number: there
    /// are none at this time. Without memory it is left to the next time.
    #[cold]
    fn renumber(&mut self, desk: &'static Desk) {
        let mut armed = timer_queue::Armed::none();
        if self.list_armed(desk, &mut armed).is_err() {
            return;
        }
        self.seq = armed.number(|id| record::get(id).map(|record| &record.node));
        for arming in self.arming.iter_mut().filter(|arming| arming.seq != OUTDATED) {
            arming.seq = record::get(arming.index).map_or(OUTDATED, |record| record.node.seq());
        }
        for (at, clock) in self.clocks.iter_mut().enumerate() {
            clock.queue.renumber(&Nodes(desk, at));
        }
    }

    fn list_armed(
        &mut self,
        desk: &'static Desk,
        armed: &mut timer_queue::Armed,
    ) -> std::result::Result<(), timer_queue::NoMemory> {
        for (at, clock) in self.clocks.iter().enumerate() {
            clock.queue.list_armed(&Nodes(desk, at), armed)?;
        }
        for arming in &mut self.arming {
            let node = record::get(arming.index).map(|record| &record.node);
            match node.filter(|node| node.deadline().is_none() && node.seq() == arming.seq) {
                Some(_) => armed.push(arming.seq, arming.index)?,
                None => arming.seq = OUTDATED,
            }
        }
        Ok(())
    }
}
