//! What a loop is doing, for other threads to read.
//!
//! Only the loop's thread writes it, and only while telemetry needs it.

use crate::sync::{AtomicI32, AtomicI64, AtomicU64, Ordering::*};

/// What it is at besides callbacks, which have the type of their event.
pub(super) const ASLEEP: i32 = 64;

/// What a loop is doing, as a seqlock: the sequence number is odd while it does
/// something.
pub(in crate::event_loop) struct ActivityCell {
    seq: AtomicU64,
    kind: AtomicI32,
    watcher: AtomicI64,
    since: AtomicI64,
}

/// What a loop was doing at a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::event_loop) struct Activity {
    pub seq: u64,
    pub kind: i32,
    pub watcher: i64,
    pub since: i64,
}

impl ActivityCell {
    pub fn new() -> Self {
        Self {
            seq: AtomicU64::new(0),
            kind: AtomicI32::new(0),
            watcher: AtomicI64::new(0),
            since: AtomicI64::new(0),
        }
    }

    /// Begins something; what came before has ended, and was left.
    pub fn enter(&self, kind: i32, watcher: i64, since: i64) {
        // Release, each of them: a thread that sees one knows that the last
        // activity ended.
        self.kind.store(kind, Release);
        self.watcher.store(watcher, Release);
        self.since.store(since, Release);
        self.seq.store(self.seq.load(Relaxed).wrapping_add(2) | 1, Release);
    }

    /// Ends it; what is counted about it comes after.
    pub fn exit(&self) {
        let seq = self.seq.load(Relaxed);
        self.seq.store(seq.wrapping_add(seq & 1), Release);
    }

    /// The same, in one order with the watchdog's accesses; its sequence
    /// number.
    pub fn exit_ordered(&self) -> u64 {
        let seq = self.seq.load(Relaxed);
        self.seq.store(seq.wrapping_add(seq & 1), SeqCst);
        seq
    }

    /// The sequence number of what it is doing, or did last; on the loop's
    /// thread.
    pub fn seq(&self) -> u64 {
        self.seq.load(Relaxed)
    }

    /// Whether it is still at what it was at.
    pub fn is_at(&self, seq: u64) -> bool {
        self.seq.load(SeqCst) == seq
    }

    /// What the loop is at, if it is at something.
    pub fn read(&self) -> Option<Activity> {
        loop {
            let seq = self.seq.load(Acquire);
            if seq & 1 == 0 {
                return None;
            }
            let current = Activity {
                seq,
                kind: self.kind.load(Acquire),
                watcher: self.watcher.load(Acquire),
                since: self.since.load(Acquire),
            };
            if self.seq.load(Relaxed) == seq {
                return Some(current);
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
    fn enter_in_any_order(activity: &ActivityCell, seq: i64) {
        activity.kind.store(seq as i32, Relaxed);
        activity.watcher.store(seq, Relaxed);
        activity.since.store(seq, Relaxed);
        activity.seq.store(activity.seq.load(Relaxed).wrapping_add(2) | 1, Release);
    }

    fn what_is_seen_is_of_one_turn(enter: fn(&ActivityCell, i64)) {
        loom::model(move || {
            let activity = Arc::new(ActivityCell::new());
            // loom gives a load every value that it may have, but does not
            // move a load behind a later store: so the one that looks runs
            // second.
            let watchdog = {
                let activity = activity.clone();
                thread::spawn(move || activity.read())
            };
            for seq in [7, 8] {
                enter(&activity, seq);
                activity.exit();
            }
            if let Some(current) = watchdog.join().unwrap() {
                let kind = i64::from(current.kind);
                assert_eq!((kind, kind), (current.watcher, current.since), "half of another turn");
            }
        });
    }

    #[test]
    fn loom_what_a_loop_is_at_is_seen_whole() {
        what_is_seen_is_of_one_turn(|activity, seq| activity.enter(seq as i32, seq, seq));
    }

    #[test]
    #[should_panic(expected = "half of another turn")]
    fn loom_twin_a_store_in_any_order_is_seen_half() {
        what_is_seen_is_of_one_turn(enter_in_any_order);
    }

    /// The watchdog announces which activity it reports, then looks whether
    /// that still goes on; the loop's thread ends the activity, then looks
    /// whether it was announced. `ordered`: both in one order.
    fn a_report_is_followed_by_its_end(ordered: bool) {
        loom::model(move || {
            let activity = Arc::new(ActivityCell::new());
            let reported = Arc::new(AtomicU64::new(0));
            let ended = Arc::new(AtomicI64::new(0));
            activity.enter(1, 1, 1);
            let seq = activity.seq();
            let the_loop = {
                let (activity, reported, ended) =
                    (activity.clone(), reported.clone(), ended.clone());
                thread::spawn(move || {
                    let seq = if ordered {
                        activity.exit_ordered()
                    } else {
                        let seq = activity.seq();
                        activity.exit();
                        seq
                    };
                    fence(ordered);
                    if reported.load(SeqCst) == seq {
                        ended.store(5, Ordering::Relaxed);
                    }
                })
            };
            reported.store(seq, SeqCst);
            fence(ordered);
            let goes_on = activity.is_at(seq);
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
