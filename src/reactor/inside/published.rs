//! What a loop is at, for whoever looks from another thread.
//!
//! Written by the loop's thread alone, and only while somebody wants to know.

use crate::sync::{AtomicI32, AtomicI64, AtomicU64, Ordering::*};

/// What it is at besides callbacks, which have the type of their event.
pub(super) const ASLEEP: i32 = 64;

/// A word that is odd while the loop is at something, and what that is.
pub(in crate::reactor) struct Published {
    turn: AtomicU64,
    kind: AtomicI32,
    watcher: AtomicI64,
    since: AtomicI64,
}

/// What a loop was at when somebody looked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::reactor) struct Glance {
    pub turn: u64,
    pub kind: i32,
    pub watcher: i64,
    pub since: i64,
}

impl Published {
    pub const fn new() -> Self {
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
