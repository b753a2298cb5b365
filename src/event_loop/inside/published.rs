//! What a loop is at, for whoever looks from another thread.
//!
//! Written by the loop's thread alone, and only while somebody wants to know.

use crate::sync::{AtomicI32, AtomicI64, AtomicU64, Ordering::*};

/// What it is at besides callbacks, which have the type of their event.
pub(super) const ASLEEP: i32 = 64;

/// A word that is odd while the loop is at something, and what that is.
pub(in crate::event_loop) struct Published {
    turn: AtomicU64,
    kind: AtomicI32,
    watcher: AtomicI64,
    since: AtomicI64,
}

/// What a loop was at when somebody looked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::event_loop) struct Glance {
    pub turn: u64,
    pub kind: i32,
    pub watcher: i64,
    pub since: i64,
}

impl Published {
    pub fn new() -> Self {
        Self {
            turn: AtomicU64::new(0),
            kind: AtomicI32::new(0),
            watcher: AtomicI64::new(0),
            since: AtomicI64::new(0),
        }
    }

    /// Begins something; what came before has ended, and was left.
    pub fn enter(&self, kind: i32, watcher: i64, since: i64) {
        // Release, each of them: who sees one knows that the last turn ended.
        self.kind.store(kind, Release);
        self.watcher.store(watcher, Release);
        self.since.store(since, Release);
        self.turn.store(self.turn.load(Relaxed).wrapping_add(2) | 1, Release);
    }

    /// Ends it; what is counted about it comes after. Its turn.
    pub fn leave(&self) {
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(turn & 1), Release);
    }

    /// The same, in one order with the watchdog's accesses.
    pub fn leave_watched(&self) -> u64 {
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(turn & 1), SeqCst);
        turn
    }

    /// The turn it is at, or was at last; on the loop's thread.
    pub fn turn(&self) -> u64 {
        self.turn.load(Relaxed)
    }

    /// Whether it is still at what it was at.
    pub fn is_at(&self, turn: u64) -> bool {
        self.turn.load(SeqCst) == turn
    }

    /// What the loop is at, if it is at something.
    pub fn look(&self) -> Option<Glance> {
        loop {
            let turn = self.turn.load(Acquire);
            if turn & 1 == 0 {
                return None;
            }
            let glance = Glance {
                turn,
                kind: self.kind.load(Acquire),
                watcher: self.watcher.load(Acquire),
                since: self.since.load(Acquire),
            };
            if self.turn.load(Relaxed) == turn {
                return Some(glance);
            }
        }
    }
}

/// A thread that looks while the loop's thread goes from one callback to the
/// next, and what a watchdog and the loop's thread say to each other.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicI64, AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;

    /// As `enter`, with another order of its stores.
    fn enter_in_any_order(published: &Published, turn: i64) {
        published.kind.store(turn as i32, Relaxed);
        published.watcher.store(turn, Relaxed);
        published.since.store(turn, Relaxed);
        published.turn.store(published.turn.load(Relaxed).wrapping_add(2) | 1, Release);
    }

    fn what_is_seen_is_of_one_turn(enter: fn(&Published, i64)) {
        loom::model(move || {
            let published = Arc::new(Published::new());
            // loom gives a load every value that it may have, but does not
            // move a load behind a later store: so the one that looks runs
            // second.
            let watchdog = {
                let published = published.clone();
                thread::spawn(move || published.look())
            };
            for turn in [7, 8] {
                enter(&published, turn);
                published.leave();
            }
            if let Some(glance) = watchdog.join().unwrap() {
                let kind = i64::from(glance.kind);
                assert_eq!((kind, kind), (glance.watcher, glance.since), "half of another turn");
            }
        });
    }

    #[test]
    fn loom_what_a_loop_is_at_is_seen_whole() {
        what_is_seen_is_of_one_turn(|published, turn| published.enter(turn as i32, turn, turn));
    }

    #[test]
    #[should_panic(expected = "half of another turn")]
    fn loom_twin_a_store_in_any_order_is_seen_half() {
        what_is_seen_is_of_one_turn(enter_in_any_order);
    }

    /// The watchdog announces which turn it reports, then looks whether that
    /// still goes on; the loop's thread ends the turn, then looks whether it
    /// was announced. `ordered`: both in one order.
    fn a_report_is_followed_by_its_end(ordered: bool) {
        loom::model(move || {
            let published = Arc::new(Published::new());
            let reported = Arc::new(AtomicU64::new(0));
            let ended = Arc::new(AtomicI64::new(0));
            published.enter(1, 1, 1);
            let turn = published.turn();
            let the_loop = {
                let (published, reported, ended) =
                    (published.clone(), reported.clone(), ended.clone());
                thread::spawn(move || {
                    let turn = if ordered {
                        published.leave_watched()
                    } else {
                        let turn = published.turn();
                        published.leave();
                        turn
                    };
                    fence(ordered);
                    if reported.load(SeqCst) == turn {
                        ended.store(5, Ordering::Relaxed);
                    }
                })
            };
            reported.store(turn, SeqCst);
            fence(ordered);
            let goes_on = published.is_at(turn);
            the_loop.join().unwrap();
            let has_ended = ended.load(Ordering::Relaxed) != 0;
            assert!(!goes_on || has_ended, "a report without its end");
        });
    }

    /// loom has the one order of sequentially consistent accesses only for
    /// fences.
    fn fence(ordered: bool) {
        if ordered {
            loom::sync::atomic::fence(SeqCst);
        }
    }

    #[test]
    fn loom_a_report_of_a_watchdog_is_followed_by_the_end() {
        a_report_is_followed_by_its_end(true);
    }

    #[test]
    #[should_panic(expected = "a report without its end")]
    fn loom_twin_without_one_order_a_report_has_no_end() {
        a_report_is_followed_by_its_end(false);
    }
}
