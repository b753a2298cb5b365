//! Going round while there is nothing but ready descriptors.
//!
//! Most loops wait for descriptors most of the time. An iteration of theirs
//! needs no look at timers, posts, lists and whatever else there may be, as
//! long as nothing was changed since the last full iteration found none of it
//! worth a look. Whatever changes a loop on its own thread ends that
//! ([`Core::stir`]); what others leave is in the mailbox, which is looked at
//! before each wait and after it.

use super::core::Core;
use super::desk;
use super::io;
use super::running::Run;
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;

impl Core {
    /// Something of the loop is changed: the next iteration is a full one.
    #[inline(always)]
    pub fn stir(&mut self) {
        self.quiet = false;
    }

    /// Whether nothing but descriptors can bring events, as far as the loop's
    /// own thread knows.
    fn is_quiet(&self) -> bool {
        let lists = self.lists.prepare.is_empty() && self.lists.check.is_empty();
        self.slow_waits == 0
            && !self.collecting
            && self.active > 0
            && self.ranked == 0
            && lists
            && self.suspended.is_empty()
            && self.timers.due == 0
            && self.timers.recheck == 0
            && self.io.always.is_empty()
            && !self.has_news()
    }

    /// Whether one of the events found is of the loop's own descriptors.
    #[inline]
    fn has_found_own(&self, found: usize) -> bool {
        let mut all = 0;
        for event in self.events.iter().take(found) {
            // SAFETY: the kernel filled in as many as were found.
            all |= unsafe { event.assume_init_ref() }.u64;
        }
        io::is_internal(all)
    }
}

impl Run {
    /// Goes round, without a limit of time, until there is more to do than to
    /// call the callbacks of ready descriptors; right after an iteration.
    pub fn go_round_quietly(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if self.is_attention_due() || !core.is_quiet() {
            return Ok(());
        }
        core.quiet = true;
        loop {
            self.desk.time.store(desk::UNKNOWN, Relaxed);
            if !self.desk.mail.sleep() {
                return Ok(());
            }
            let found = self.sleep_until(None)?;
            // SAFETY: as above; not kept.
            let core = unsafe { self.core() };
            if found == 0 || self.desk.mail.has_work() || core.has_found_own(found) {
                return self.dispatch(found);
            }
            core.dispatched = 0;
            self.descriptors(found)?;
            // SAFETY: as above.
            if !unsafe { self.core() }.quiet {
                return self.finish_round(found);
            }
        }
    }
}
