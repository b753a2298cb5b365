//! Processing of inotify's events: the order of its steps.

use super::moves;
use super::queue::Next;
use super::state::Files;
use super::types::{AT_A_TIME, LATER_NS, More};
use crate::sys::clock;

impl Files {
    /// Processes inotify's events and collects what the watchers are notified
    /// of. Each call handles a bounded number. Returns when the next call is
    /// due.
    pub fn work(&mut self) -> More {
        let mut left = AT_A_TIME;
        while left > 0 {
            if self.outgoing.len() >= AT_A_TIME {
                return More::Now;
            }
            if !self.backlog.is_empty() {
                left = left.saturating_sub(self.step());
                continue;
            }
            self.finish_rescans();
            if std::mem::take(&mut self.lost) {
                self.take_overflow();
                if self.lost {
                    // Retried later, when there may be memory again.
                    return More::At(clock::now_ns().saturating_add(LATER_NS));
                }
                continue;
            }
            if self.retry_moves(false) {
                continue;
            }
            left -= 1;
            self.since_retry += 1;
            match self.next_queued() {
                Next::One(event) => self.take(&event),
                Next::Pair(from, to) => self.take_pair(&from, &to),
                Next::At(time) => return More::At(time),
                Next::None if self.retry_moves(true) || self.look_up_one() => {}
                Next::None if self.unwatch_more() => return More::Now,
                Next::None => return More::Nothing,
            }
        }
        More::Now
    }

    fn next_queued(&mut self) -> Next {
        let inotify = self.raw();
        let Self { queue, watches, watchers, .. } = self;
        queue.next(inotify, clock::now_ns(), |queue, from, end| {
            moves::is_settled((watches, watchers), queue, from, end)
        })
    }
}
