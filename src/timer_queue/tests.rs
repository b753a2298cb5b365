//! The queue against a sorted list.

use super::*;
use crate::util::heap::failing;
use std::collections::{BTreeMap, BTreeSet};

struct TimerFixture {
    nodes: Vec<Node>,
    tolerances: Vec<i64>,
}

impl NodeLookup for TimerFixture {
    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize)
    }
    fn prefetch(&self, id: u32) {
        crate::sys::memory::prefetch(&self.nodes[id as usize]);
    }
}

impl TimerFixture {
    fn new(timers: usize) -> Self {
        let nodes = (0..timers).map(|_| Node::new()).collect();
        Self { nodes, tolerances: vec![0; timers] }
    }
}

/// The oracle.
#[derive(Default)]
struct Plain {
    order: BTreeSet<(i64, u64, u32)>,
    armed: BTreeMap<u32, (i64, u64)>,
}

impl Plain {
    fn disarm(&mut self, id: u32) {
        if let Some((deadline, seq)) = self.armed.remove(&id) {
            self.order.remove(&(deadline, seq, id));
        }
    }
    fn arm(&mut self, id: u32, deadline: i64, seq: u64) {
        self.disarm(id);
        self.armed.insert(id, (deadline, seq));
        self.order.insert((deadline, seq, id));
    }
    fn next(&self) -> Option<(i64, u64, u32)> {
        self.order.first().copied()
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    /// Of any magnitude up to 2^bits.
    fn magnitude(&mut self, bits: u64) -> i64 {
        let bits = self.below(bits + 1);
        (self.next() & ((1u64 << bits) - 1)).cast_signed()
    }
}

struct Both {
    queue: TimerQueue,
    fixture: TimerFixture,
    plain: Plain,
    now: i64,
    seq: u64,
    /// How many allocations of each call succeed.
    memory: usize,
    /// The oracle's number, which does not begin again.
    total: u64,
}

impl Both {
    fn new(timers: usize, now: i64) -> Self {
        let (queue, fixture) = (TimerQueue::new(), TimerFixture::new(timers));
        Self { queue, fixture, plain: Plain::default(), now, seq: 0, memory: usize::MAX, total: 0 }
    }

    /// Calls the queue with so much memory.
    fn lean<R>(&mut self, call: impl FnOnce(&mut TimerQueue, &TimerFixture) -> R) -> R {
        let Self { queue, fixture, memory, .. } = self;
        failing::after(*memory, || call(queue, fixture))
    }

    fn arm(&mut self, id: u32, deadline: i64) {
        self.seq += 1;
        self.total += 1;
        let (seq, total) = (self.seq, self.total);
        match self.lean(|queue, fixture| queue.arm(fixture, id, deadline, seq)) {
            Ok(()) => self.plain.arm(id, deadline.max(i64::MIN + 1), total),
            Err(NoMemory) => assert!(self.memory < usize::MAX),
        }
    }

    fn disarm(&mut self, id: u32) {
        self.queue.disarm(&self.fixture, id);
        self.plain.disarm(id);
    }

    /// As owners of queues do when half of the numbers are used.
    fn renumber(&mut self) {
        let mut armed = Armed::none();
        if self.lean(|queue, fixture| queue.list_armed(fixture, &mut armed)).is_err() {
            return assert!(self.memory < usize::MAX);
        }
        let last = armed.number(|id| self.fixture.node(id));
        assert!(last <= 3 * self.fixture.nodes.len() as u64 + 66, "{last}");
        self.seq = last;
        self.queue.renumber(&self.fixture);
    }

    /// Pops everything that is due, or until the corrections are used up.
    fn pop_all(&mut self, mut corrections: u32) {
        loop {
            let now = self.now;
            match self.lean(|queue, fixture| queue.pop(fixture, now, &mut corrections)) {
                Popped::Due { id, deadline } => {
                    let expected = self.plain.next().unwrap();
                    assert_eq!((deadline, id), (expected.0, expected.2));
                    assert!(deadline <= self.now, "early");
                    self.plain.disarm(id);
                }
                Popped::Later => return assert_eq!(corrections, 0),
                Popped::None => {
                    let next = self.plain.next();
                    assert!(next.is_none_or(|next| next.0 > self.now), "{next:?} at {}", self.now);
                    return;
                }
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.queue.len(), self.plain.armed.len());
        assert!(self.queue.entries <= 3 * self.fixture.nodes.len() + 66 + self.queue.armed);
        let deadline =
            |id: u32, deadline: i64| deadline.saturating_add(self.fixture.tolerances[id as usize]);
        let latest = self.plain.order.iter().map(|(time, _, id)| deadline(*id, *time)).min();
        let wake = self.queue.next_wake();
        assert_eq!(wake.is_some(), latest.is_some());
        assert!(wake <= latest, "{wake:?} is after {latest:?}");
        if let Some(first) = wake {
            [0, 1 << 16, 1 << 20, 1 << 30].iter().for_each(|more| self.check_shared(first, *more));
        }
    }

    /// A shared wake-up is for as many as can be, and too late for none.
    fn check_shared(&self, first: i64, more: i64) {
        let until = first.saturating_add(more);
        // More than nothing for some, and less than the whole time.
        let latest = |id: u32, tolerance: i64, deadline: i64| {
            let late = if tolerance == 0 { i64::from(id % 3) << 15 } else { tolerance };
            deadline.saturating_add(late)
        };
        let latest_of = |(time, _, id): &(i64, u64, u32)| {
            latest(*id, self.fixture.nodes[*id as usize].tolerance(), *time)
        };
        let bound = self.plain.order.iter().map(latest_of).min().map_or(until, |l| l.min(until));
        let deadlines = self.plain.order.iter().map(|(time, _, _)| *time);
        let last = deadlines.filter(|time| *time <= bound).max().map_or(first, |l| l.max(first));
        let shared = self.queue.share_wake(&self.fixture, first, until, |id, node, deadline| {
            latest(id, node.tolerance(), deadline)
        });
        assert!(first <= shared.wake && shared.wake <= last, "{shared:?}, not {last}");
        if self.queue.entries <= share::MOST_VISITED {
            assert_eq!(shared.wake, last);
        }
    }

    fn step(&mut self, random: &mut Random) {
        let timers = self.fixture.nodes.len() as u64;
        let id = random.below(timers) as u32;
        match random.below(16) {
            0..=5 => {
                let delay = random.magnitude(40);
                self.arm(id, self.now.saturating_add(delay));
            }
            6 => self.arm(id, self.now.saturating_sub(random.magnitude(30))),
            7 => {
                let deadline = random.next().cast_signed();
                self.arm(id, deadline);
            }
            8 => self.arm(id, self.now),
            9 => {
                // Rounded, so that there are ties.
                let delay = random.magnitude(30) >> 20 << 20;
                self.arm(id, (self.now >> 20 << 20).saturating_add(delay));
            }
            10 | 11 => self.disarm(id),
            12 => {
                // The record is used for another timer.
                self.disarm(id);
                self.fixture.nodes[id as usize].reset();
                let tolerance = if random.below(4) == 0 { random.magnitude(30) } else { 0 };
                self.fixture.nodes[id as usize].set_tolerance(tolerance);
                self.fixture.tolerances[id as usize] = tolerance;
            }
            13 => {
                self.now = self.now.saturating_add(random.magnitude(35));
                self.pop_all(u32::MAX);
            }
            14 => {
                self.now = self.now.saturating_add(random.magnitude(20));
                self.pop_all(random.below(8) as u32);
            }
            _ => match random.below(40) {
                0 => self.now = self.now.saturating_sub(random.magnitude(40)),
                1 => self.now = self.now.saturating_add(random.magnitude(58)),
                2..6 => {
                    let next = self.plain.next().map(|next| next.0);
                    let found = self.lean(|queue, fixture| queue.next_deadline(fixture));
                    assert_eq!(found, next);
                }
                _ => self.check(),
            },
        }
    }
}

/// How many of something a test has: fewer where it takes so much longer.
fn many(release: usize, debug: usize) -> usize {
    match () {
        () if cfg!(miri) => debug.min(100.max(debug / 200)),
        () if cfg!(debug_assertions) => debug,
        () => release,
    }
}

#[test]
fn millions_of_random_operations_are_as_with_a_sorted_list() {
    let operations = many(1_000_000, 60_000);
    let sizes = [(3, 0), (40, 1 << 40), (700, -(1 << 30)), (5000, 1_700_000_000 << 30)];
    // To look at them all takes long under Miri.
    for (timers, start) in sizes.into_iter().take(if cfg!(miri) { 2 } else { sizes.len() }) {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ timers as u64);
        let mut both = Both::new(timers, start);
        for _ in 0..operations {
            both.step(&mut random);
        }
        both.now = i64::MAX;
        both.pop_all(u32::MAX);
        assert_eq!(both.queue.len(), 0);
    }
}

proptest::proptest! {
    #[test]
    fn any_operations_are_as_with_a_sorted_list(seed in 1u64.., timers in 1usize..60, start: i64) {
        let mut random = Random(seed);
        let mut both = Both::new(timers, start);
        for _ in 0..many(400, 400) {
            both.step(&mut random);
        }
    }
}

/// The numbers come to their end again and again.
#[test]
fn timers_keep_their_order_when_their_numbers_are_used_up() {
    let sizes = [(1, 3), (2, 40), (3, 700), (4, 5000)];
    for (seed, timers) in sizes.into_iter().take(if cfg!(miri) { 2 } else { sizes.len() }) {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut both = Both::new(timers, 1 << 50);
        let begin = MANY - 20;
        for step in 0..many(300_000, 30_000) {
            if step % 500 == 0 {
                // As if so many had been armed.
                both.seq = begin.max(both.seq);
                both.memory = if random.below(3) == 0 { 0 } else { usize::MAX };
            }
            if both.seq >= MANY {
                both.renumber();
            }
            both.step(&mut random);
        }
        both.memory = usize::MAX;
        both.now = i64::MAX;
        both.pop_all(u32::MAX);
        assert_eq!(both.queue.len(), 0);
    }
}

#[test]
fn those_with_one_deadline_keep_their_order_when_numbers_begin_again() {
    let all = many(1000, 1000) as u32;
    let mut both = Both::new(all as usize, 0);
    both.seq = MANY - u64::from(all) / 2;
    for id in 0..all {
        // In each of the run, the heap and the wheel, and outdated ones.
        both.arm(id * 7919 % all, [0, 1 << 12, 1 << 20, 1 << 40][id as usize % 4]);
        if id % 3 == 0 {
            both.arm(id, 1 << 40);
        }
        if both.seq >= MANY {
            both.renumber();
        }
    }
    assert!(both.seq < MANY);
    both.now = 1 << 20;
    both.pop_all(u32::MAX);
    both.renumber();
    both.now = 1 << 40;
    both.pop_all(u32::MAX);
    assert_eq!(both.queue.len(), 0);
}

/// What is armed comes up in time and in order, however little memory there is.
#[test]
fn memory_comes_and_goes_and_timers_stay() {
    for (seed, timers) in [(1, 5), (2, 40), (3, 700), (4, 3000)] {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut both = Both::new(timers, 1 << 50);
        for step in 0..many(300_000, 30_000) {
            if step % 64 == 0 {
                let memory = random.below(6) as usize;
                both.memory = if memory < 3 { memory } else { usize::MAX };
            }
            both.step(&mut random);
        }
        both.memory = usize::MAX;
        both.now = i64::MAX;
        both.pop_all(u32::MAX);
        assert_eq!(both.queue.len(), 0);
    }
}

#[test]
fn a_timer_that_comes_up_is_armed_again_without_memory() {
    const MANY: u32 = 300;
    let mut both = Both::new(MANY as usize, 0);
    for id in 0..MANY {
        both.arm(id, 5_000_000 + i64::from(id) * 1000);
    }
    for round in 1..20 {
        both.now = both.plain.order.last().unwrap().0;
        let now = both.now;
        both.memory = 0;
        for _ in 0..MANY {
            let popped = both.lean(|queue, fixture| queue.pop(fixture, now, &mut u32::MAX.clone()));
            let Popped::Due { id, .. } = popped else { panic!("{popped:?} in round {round}") };
            both.plain.disarm(id);
            // To where no timer was yet, so that nothing of the wheel is there.
            both.arm(id, now + (1i64 << (10 + round * 2)));
            assert!(both.plain.armed.contains_key(&id), "timer {id} in round {round}");
        }
        both.pop_all(u32::MAX);
        both.check();
    }
}

#[test]
fn the_ends_of_time_are_times() {
    let mut both = Both::new(4, i64::MIN + 5);
    both.arm(0, i64::MAX);
    both.arm(1, i64::MIN);
    both.arm(2, i64::MAX - 1);
    both.arm(3, 0);
    both.pop_all(u32::MAX);
    assert_eq!(both.queue.len(), 3);
    both.now = i64::MAX - 1;
    both.pop_all(u32::MAX);
    assert_eq!(both.queue.len(), 1);
    both.now = i64::MAX;
    both.pop_all(u32::MAX);
    assert_eq!(both.queue.len(), 0);
}

#[test]
fn many_with_one_deadline_come_in_the_order_of_arming() {
    let many = many(200_000, 200_000) as u32;
    let fixture = TimerFixture::new(many as usize);
    let mut queue = TimerQueue::new();
    // Not in the order of their ids.
    let id = |n: u32| (u64::from(n) * 7919 % u64::from(many)) as u32;
    for n in 0..many {
        queue.arm(&fixture, id(n), 1 << 33, n.into()).unwrap();
    }
    let mut corrections = 0;
    for n in 0..many {
        let due = Popped::Due { id: id(n), deadline: 1 << 33 };
        assert_eq!(queue.pop(&fixture, 1 << 33, &mut corrections), due);
    }
    assert_eq!(queue.pop(&fixture, i64::MAX, &mut corrections), Popped::None);
}

#[test]
fn dense_timers_come_in_order() {
    let many = many(400_000, 20_000);
    let mut random = Random(99);
    let mut both = Both::new(many, 12_345);
    for id in 0..many as u32 {
        both.arm(id, 20_000_000 + random.below(10_000_000).cast_signed());
    }
    for _ in 0..100 {
        both.now += 300_000;
        both.pop_all(0);
    }
    assert_eq!(both.queue.len(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "slow there, and about sizes only")]
fn memory_comes_back_after_a_burst() {
    let fixture = TimerFixture::new(300_000);
    let mut queue = TimerQueue::new();
    for id in 0..300_000 {
        queue.arm(&fixture, id, i64::from(id) << 12, id.into()).unwrap();
    }
    let held = |queue: &TimerQueue| queue.chunks.held();
    assert!(held(&queue) > 9_000);
    for id in 0..300_000 {
        queue.disarm(&fixture, id);
    }
    // Only the entries are left: the next one sweeps them out.
    queue.arm(&fixture, 5, 1 << 50, 0).unwrap_or_default();
    queue.arm(&fixture, 5, 1, 0).unwrap_or_default();
    assert!(held(&queue) <= 64, "{}", held(&queue));
    assert_eq!(queue.entries, 2);
}

/// Timers of 10 ms that are 10 us apart share a wake-up as far as the first of
/// them lets them, and one that is alone has its own.
#[test]
fn timers_that_are_near_each_other_share_a_wake_up() {
    const US: i64 = 1000;
    let mut both = Both::new(102, 1 << 50);
    let begin = both.now + 10_000 * US;
    (0..100).for_each(|id| both.arm(id, begin + i64::from(id) * 10 * US));
    both.arm(100, begin + 5_000 * US);
    // Brings the others down to the ticks.
    both.arm(101, begin - US);
    both.now = begin - US;
    both.pop_all(u32::MAX);
    let until = |first: i64| first + 1_000 * US;
    let share = |both: &Both, late: i64| {
        let first = both.queue.next_wake().unwrap();
        both.queue.share_wake(&both.fixture, first, until(first), |_, _, deadline| deadline + late)
    };
    assert_eq!(share(&both, 0), Shared { wake: begin, saved: 0 });
    assert_eq!(share(&both, 105 * US).wake, begin + 100 * US);
    let all = share(&both, 1_000 * US);
    assert_eq!(all.wake, begin + 990 * US);
    assert!((14..=16).contains(&all.saved), "{all:?}");
    both.now = all.wake;
    both.pop_all(u32::MAX);
    assert_eq!(both.queue.len(), 1);
    assert_eq!(share(&both, 1_000 * US), Shared { wake: begin + 5_000 * US, saved: 0 });
}

/// Where a great many come up at once not all of them are looked at.
#[test]
fn a_great_many_timers_share_the_wake_up_of_the_first_of_them() {
    let timers = 40_000u32;
    let mut both = Both::new(timers as usize, 1 << 50);
    let begin = both.now + (1 << 30);
    (0..timers).for_each(|id| both.arm(id, begin + i64::from(id) * 50));
    both.now = begin - 1;
    both.pop_all(u32::MAX);
    both.check_shared(both.queue.next_wake().unwrap(), 1_000_000);
}
