//! Other numbers for the timers of a loop: those that say in which order they
//! were set come to an end.

use super::TimerSource;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot;
use crate::event_loop::source::timer_nodes::TimerNodes;
use crate::timer_queue;

/// No timer that is set has this number.
const OUTDATED: u64 = 0;

impl TimerSource {
    /// Looks whether it is time to; to be called where no event waits to be
    /// dispatched.
    #[inline(always)]
    pub fn renumber_if_many(&mut self, shared: &'static LoopShared) {
        if self.seq >= timer_queue::MANY {
            self.renumber(shared);
        }
    }

    /// Gives all timers that are set other numbers, in the same order. An
    /// event that waits to be dispatched knows its timer by the number: there
    /// are none at this time. Without memory it is left to the next time.
    #[cold]
    fn renumber(&mut self, shared: &'static LoopShared) {
        let mut armed = timer_queue::Armed::none();
        if self.list_armed(shared, &mut armed).is_err() {
            return;
        }
        self.seq = armed.number(|id| slot::get(id).map(|slot| &slot.node));
        for arming in self.arming.iter_mut().filter(|arming| arming.seq != OUTDATED) {
            arming.seq = slot::get(arming.index).map_or(OUTDATED, |slot| slot.node.seq());
        }
        for (i, clock) in self.clocks.iter_mut().enumerate() {
            clock.queue.renumber(&TimerNodes(shared, i));
        }
    }

    fn list_armed(
        &mut self,
        shared: &'static LoopShared,
        armed: &mut timer_queue::Armed,
    ) -> std::result::Result<(), timer_queue::NoMemory> {
        for (i, clock) in self.clocks.iter().enumerate() {
            clock.queue.list_armed(&TimerNodes(shared, i), armed)?;
        }
        for arming in &mut self.arming {
            let node = slot::get(arming.index).map(|slot| &slot.node);
            match node.filter(|node| node.deadline().is_none() && node.seq() == arming.seq) {
                Some(_) => armed.push(arming.seq, arming.index)?,
                None => arming.seq = OUTDATED,
            }
        }
        Ok(())
    }
}
