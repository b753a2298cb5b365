//! The timer queue.
use crate::sync::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::collections::BTreeSet;

const NONE: i64 = i64::MIN;

pub(crate) struct Node {
    deadline: AtomicI64,
    entry: AtomicI64,
    seq: AtomicU64,
}

impl Node {
    pub fn reset(&self) {
        self.deadline.store(NONE, Relaxed);
        self.entry.store(NONE, Relaxed);
        self.seq.store(0, Relaxed);
    }
    pub fn deadline(&self) -> Option<i64> {
        Some(self.deadline.load(Relaxed)).filter(|d| *d != NONE)
    }
    pub fn seq(&self) -> u64 {
        self.seq.load(Relaxed)
    }
    pub fn set_seq(&self, seq: u64) {
        self.seq.store(seq, Relaxed);
    }
    pub fn spare(&self) -> &AtomicU64 {
        &self.seq
    }
}

pub(crate) trait Timers {
    fn node(&self, id: u32) -> Option<&Node>;
    fn tolerance(&self, id: u32) -> i64;
}

pub(crate) struct NoMemory;

pub(crate) enum Popped {
    Due {
        id: u32,
        deadline: i64,
    },
    #[allow(dead_code)]
    Later,
    None,
}

#[derive(Default)]
pub(crate) struct TimerQueue(BTreeSet<(i64, u64, u32)>);

impl TimerQueue {
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }
    pub fn arm<T: Timers>(
        &mut self,
        t: &T,
        id: u32,
        deadline: i64,
        seq: u64,
    ) -> Result<(), NoMemory> {
        self.disarm(t, id);
        let n = t.node(id).ok_or(NoMemory)?;
        n.deadline.store(deadline.max(NONE + 1), Relaxed);
        n.seq.store(seq, Relaxed);
        self.0.insert((deadline.max(NONE + 1), seq, id));
        Ok(())
    }
    pub fn disarm<T: Timers>(&mut self, t: &T, id: u32) {
        let Some(n) = t.node(id) else { return };
        if let Some(d) = n.deadline() {
            let seq = n.seq();
            if !self.0.remove(&(d, seq, id)) {
                let found = self.0.iter().find(|e| e.2 == id).copied();
                found.map(|e| self.0.remove(&e));
            }
        }
        n.deadline.store(NONE, Relaxed);
    }
    pub fn next_wake<T: Timers>(&mut self, t: &T) -> Option<i64> {
        self.0.iter().map(|e| e.0.saturating_add(t.tolerance(e.2))).min()
    }
    pub fn next_deadline<T: Timers>(&mut self, _: &T) -> Option<i64> {
        self.0.first().map(|e| e.0)
    }
    pub fn pop<T: Timers>(&mut self, t: &T, now: i64, _: &mut u32) -> Popped {
        match self.0.first().copied() {
            Some((deadline, _, id)) if deadline <= now => {
                self.disarm(t, id);
                Popped::Due { id, deadline }
            }
            _ => Popped::None,
        }
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
