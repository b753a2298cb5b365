//! The nodes of a loop's timers, for its timer queues.

use crate::event_loop::flags::*;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot;
use crate::sync::Ordering::Relaxed;
use crate::sys::memory;
use crate::timer_queue::{self, Node};

/// The nodes of slots, for the queue with this number of this loop. A stale
/// entry of the queue has no node, whatever its slot is used for now.
pub(in crate::event_loop) struct TimerNodes(pub &'static LoopShared, pub usize);

impl timer_queue::NodeLookup for TimerNodes {
    #[inline(always)]
    fn node(&self, id: u32) -> Option<&Node> {
        const MASK: u32 = SOURCE | CLOCK_MASK << QUEUE_SHIFT;
        let slot = slot::get(id)?;
        let ours = slot.shared().is_some_and(|shared| std::ptr::eq(shared, self.0));
        let wanted = Source::Timer as u32 | (self.1 as u32) << QUEUE_SHIFT;
        (ours && slot.flags.load(Relaxed) & MASK == wanted).then_some(&slot.node)
    }

    #[inline(always)]
    fn prefetch(&self, id: u32) {
        if let Some(slot) = slot::get(id) {
            memory::prefetch(slot);
        }
    }
}
