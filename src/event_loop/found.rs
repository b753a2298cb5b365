//! What a wait has found: the loop's own events, what others have left, and
//! whether descriptors still are what was registered.

use super::clocks;
use super::core::Core;
use super::dispatch::live;
use super::{files, io, mailbox, signals};
use crate::errno::Errno;
use crate::sys::fd::Fd;
use crate::sys::{epoll, timerfd};

/// How many events pass before a registration is looked at.
const CHECK_EVERY: u32 = 256;
/// How many iterations in a row may bring events of nobody.
const STRAYS: u32 = 3;

impl Core {
    /// The loop's own events among those found, and others' commands.
    #[inline]
    pub fn sort_out(&mut self, found: usize) {
        self.dispatched = 0;
        let mut own = 0;
        for event in self.events.iter().take(found) {
            // SAFETY: the kernel filled in as many as were found.
            let word = unsafe { event.assume_init_ref() }.u64;
            own |= if io::is_internal(word) { 1u64 << (word & 63) } else { 0 };
        }
        while own != 0 {
            self.own_event(own.trailing_zeros() as usize, found == 1);
            own &= own - 1;
        }
        let desk = self.desk;
        if desk.mail.has_letters() {
            self.take_letters();
        }
        if desk.mail.peek() & (mailbox::INBOX | mailbox::SIGNALS) != 0 {
            self.take_work();
        }
        self.forget_details();
        // What callbacks of this iteration post is for the next one.
        self.posts_due = self.posts.len();
    }

    /// What others have left at the gate, and handlers of signals.
    #[cold]
    fn take_work(&mut self) {
        let desk = self.desk;
        if desk.has_inbox() {
            self.receive(&mut desk.gate());
        }
        if desk.mail.take(mailbox::SIGNALS) != 0 {
            self.signals.due = true;
        }
    }

    #[inline]
    pub fn has_more_than_descriptors(&self) -> bool {
        self.timers.due != 0
            || self.clock_changed
            || self.posts_due > 0
            || self.deferred > 0
            || self.has_sent()
            || self.signals.due
            || !self.suspended.is_empty()
            || self.files.is_active()
    }

    /// An event that the last wait found.
    #[inline(always)]
    pub fn found(&self, at: usize) -> Option<epoll::Event> {
        // SAFETY: the kernel filled as many as were found.
        self.events.get(at).map(|event| unsafe { event.assume_init() })
    }

    /// Looks, now and then, whether what is reported is still what was
    /// registered.
    #[inline]
    pub fn look_after(&mut self, found: usize) {
        self.io.unchecked = self.io.unchecked.wrapping_add(found as u32);
        if self.io.unchecked >= CHECK_EVERY || self.io.strays != 0 {
            self.look_closer(found);
        }
    }

    #[cold]
    fn look_closer(&mut self, found: usize) {
        self.stir();
        let nobody = self.io.strays & 1 << 31 != 0;
        self.io.strays = if nobody { (self.io.strays & !(1 << 31)) + 1 } else { 0 };
        if self.io.strays == 1 {
            // Perhaps the whole set is the program's.
            let desk = self.desk;
            self.has_own_epoll(&mut desk.gate());
        } else if self.io.strays >= STRAYS {
            self.rebuild();
        }
        if self.io.unchecked >= CHECK_EVERY && found > 0 {
            // Not always the same one.
            let at = (self.io.unchecked / CHECK_EVERY) as usize % found;
            self.io.unchecked %= CHECK_EVERY;
            let word = self.found(at).map_or(0, |event| event.u64);
            if let Some((_, record)) = live(word.cast_signed()) {
                self.io_check(record);
            }
        }
    }

    /// An event of one of the loop's own descriptors; `alone`: the only one.
    fn own_event(&mut self, number: usize, alone: bool) {
        if number == signals::SIGNALFD {
            return self.take_signalfd();
        }
        let Some(clock) = number.checked_sub(1) else {
            if !self.objects.is_empty() {
                self.look_at_objects();
            }
            return;
        };
        if number == files::NUMBER {
            self.files.bits |= files::DUE;
            return;
        }
        self.timers.due |= 1 << clock;
        let entry = self.timers.clock(clock);
        entry.armed = i64::MAX;
        entry.pace.ended_wait(alone);
        let fd = entry.fd.as_ref().and_then(Fd::check);
        if clock == clocks::REALTIME
            && let Some(fd) = fd
            && timerfd::read(fd) == Err(Errno::ECANCELED)
        {
            self.clock_changed = true;
        }
    }
}
