//! Queues whose counters are near their ends.

use super::collect::{By, Collect};
use super::event::*;
use super::knote;
use super::queue::{Nature, Queue};
use super::state::QueueState;
use crate::sys::clock::Deadline;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A queue that watches a stream with bytes to read, and one without.
struct QueueFixture {
    queue: Box<Queue>,
    full: (UnixStream, UnixStream),
    _idle: (UnixStream, UnixStream),
}

const USER_IDENT: u64 = 9;

fn change(ident: u64, filter: i16, flags: u16, fflags: u32) -> Kevent {
    Kevent { ident, filter, flags, fflags, ..Kevent::default() }
}

impl QueueFixture {
    fn new(flags: u16) -> Self {
        let (full, idle) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        std::io::Write::write_all(&mut &full.1, b"x").unwrap();
        let queue = Queue::create(Nature::default(), |_| None).unwrap();
        let fds = [full.0.as_raw_fd(), idle.0.as_raw_fd()];
        let fixture = Self { queue, full, _idle: idle };
        for fd in fds {
            fixture.apply(change(fd as u64, FILTER_READ, EV_ADD | flags, 0));
        }
        fixture.apply(change(USER_IDENT, FILTER_USER, EV_ADD | EV_CLEAR, 0));
        fixture
    }

    fn apply(&self, change: Kevent) {
        // SAFETY: one entry, which stays.
        let mut changes = unsafe { Changes::new(&raw const change, 1) };
        let options = Collect { deadline: Deadline::Now, by: By::Handle };
        let mut sink = KeventSink::none();
        self.queue.control(None, &mut changes, &mut sink, options).unwrap();
    }

    /// The idents of the events that there are.
    fn collect(&self, deadline: Deadline) -> Vec<u64> {
        let mut buffer = [MaybeUninit::<Kevent>::uninit(); 8];
        // SAFETY: no entries.
        let mut changes = unsafe { Changes::new(std::ptr::null(), 0) };
        // SAFETY: so much room, which stays.
        let mut sink = unsafe { KeventSink::new(buffer.as_mut_ptr().cast(), buffer.len()) };
        let options = Collect { deadline, by: By::Handle };
        let filled = self.queue.control(None, &mut changes, &mut sink, options).unwrap();
        // SAFETY: so many were filled.
        buffer[..filled].iter().map(|event| unsafe { event.assume_init_ref() }.ident).collect()
    }

    fn with_state(&self, act: impl FnOnce(&mut QueueState)) {
        act(self.queue.state.lock().as_mut().unwrap());
    }

    fn full(&self) -> u64 {
        self.full.0.as_raw_fd() as u64
    }
}

/// A knote that was delivered by call 3 is not taken for one that the call of
/// this number, four thousand million calls later, has delivered.
#[test]
fn a_level_knote_comes_each_time_when_the_numbers_of_calls_begin_again() {
    for calls in 0..8 {
        let fixture = QueueFixture::new(0);
        for _ in 0..3 {
            assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
        }
        fixture.apply(change(fixture.full(), FILTER_READ, EV_DISABLE, 0));
        fixture.with_state(|state| state.call_seq = u32::MAX - 1);
        for _ in 0..calls {
            assert_eq!(fixture.collect(Deadline::Now), []);
        }
        fixture.apply(change(fixture.full(), FILTER_READ, EV_ENABLE, 0));
        assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
    }
}

#[test]
fn an_edge_comes_once_when_the_numbers_of_calls_begin_again() {
    let fixture = QueueFixture::new(EV_CLEAR);
    fixture.with_state(|state| state.call_seq = u32::MAX - 1);
    assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
    for _ in 0..4 {
        assert_eq!(fixture.collect(Deadline::Now), []);
    }
    std::io::Write::write_all(&mut &fixture.full.1, b"y").unwrap();
    assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
}

/// A call that waits has no number while it has not the lock.
#[test]
fn a_wait_survives_all_numbers_of_calls() {
    let fixture = QueueFixture::new(EV_CLEAR);
    assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fixture.collect(Deadline::Never));
        while fixture.queue.state.lock().as_ref().unwrap().waiters.waiting() == 0 {
            std::thread::yield_now();
        }
        // The next number is that of the wait, and of the knote's last event.
        fixture.with_state(|state| {
            let call_seq = state.call_seq;
            let full = state.store.index[&(fixture.full(), knote::DESCRIPTOR)];
            let first = state.store.registrations.get(full).unwrap().first;
            state.store.knotes.get_mut(first).unwrap().call_seq = call_seq;
        });
        std::io::Write::write_all(&mut &fixture.full.1, b"y").unwrap();
        assert_eq!(waiting.join().unwrap(), [fixture.full()]);
    });
}

#[test]
fn the_bell_survives_all_numbers_of_its_settings() {
    let fixture = QueueFixture::new(EV_CLEAR);
    assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
    fixture.with_state(|state| state.sources.set.set_seq(u64::MAX - 5));
    for _ in 0..10 {
        fixture.apply(change(USER_IDENT, FILTER_USER, 0, NOTE_TRIGGER));
        assert!(fixture.queue.state.lock().as_ref().unwrap().sources.set.is_raised());
        assert_eq!(fixture.collect(Deadline::Never), [USER_IDENT]);
        assert_eq!(fixture.collect(Deadline::Now), []);
    }
}

#[test]
fn a_registration_is_known_when_its_generations_begin_again() {
    let fixture = QueueFixture::new(0);
    let fd = fixture.full();
    for generation in [(1 << 31) - 2, (1 << 31) - 1, 1] {
        fixture.with_state(|state| {
            let id = state.store.index[&(fd, knote::DESCRIPTOR)];
            state.store.registrations.set_generation(id, generation);
        });
        // Its word is another now.
        for flags in [EV_DISABLE, EV_ENABLE, EV_DELETE, EV_ADD] {
            fixture.apply(change(fd, FILTER_READ, flags, 0));
        }
        assert_eq!(fixture.collect(Deadline::Now), [fd]);
    }
}

#[test]
fn what_a_wait_of_many_generations_returns_is_looked_at() {
    let fixture = QueueFixture::new(EV_CLEAR);
    assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fixture.collect(Deadline::Never));
        while fixture.queue.state.lock().as_ref().unwrap().waiters.waiting() == 0 {
            std::thread::yield_now();
        }
        fixture.with_state(|state| state.store.registrations.set_removed(1 << 40));
        std::io::Write::write_all(&mut &fixture.full.1, b"y").unwrap();
        assert_eq!(waiting.join().unwrap(), [fixture.full()]);
    });
}

/// What is left of a descriptor that was closed, while a duplicate is open,
/// goes on being reported, with a generation that comes again one day.
#[test]
fn what_is_left_over_is_gone_when_its_generation_comes_again() {
    let fixture = QueueFixture::new(0);
    let fd = fixture.full();
    let id = |state: &QueueState| state.store.index[&(fd, knote::DESCRIPTOR)];
    let mut before = 0;
    fixture.with_state(|state| before = state.store.registrations.generation(id(state)));
    let duplicate = fixture.full.0.try_clone().unwrap();
    let (quiet, _peer) = UnixStream::pair().unwrap();
    quiet.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &quiet, &[0; 4096]).is_ok() {}
    // SAFETY: both are open; the first is closed, and the other gets its fd.
    assert_eq!(unsafe { libc::dup2(quiet.as_raw_fd(), fd as i32) }, fd as i32);
    fixture.full.1.shutdown(std::net::Shutdown::Both).unwrap();
    fixture.apply(change(fd, FILTER_WRITE, EV_ADD, 0));
    fixture.with_state(|state| {
        assert_ne!(state.store.registrations.generation(id(state)), before);
        state.store.registrations.set_removed(1 << 31);
    });
    // The set is rebuilt here, as so many registrations were removed.
    assert_eq!(fixture.collect(Deadline::Now), []);
    fixture.with_state(|state| {
        let id = id(state);
        state.store.registrations.set_generation(id, before);
    });
    for flags in [EV_DISABLE, EV_ENABLE] {
        fixture.apply(change(fd, FILTER_WRITE, flags, 0));
    }
    assert_eq!(fixture.collect(Deadline::Now), []);
    drop(duplicate);
}

#[test]
fn timers_keep_their_order_when_their_numbers_are_used_up() {
    const LAST: u64 = (1 << 40) - 1;
    let fixture = QueueFixture::new(EV_CLEAR);
    assert_eq!(fixture.collect(Deadline::Now), [fixture.full()]);
    let now = crate::sys::clock::read_ns(libc::CLOCK_REALTIME);
    let arm = |ident| {
        let add = change(ident, FILTER_TIMER, EV_ADD | EV_ONESHOT, NOTE_ABSTIME | NOTE_NSECONDS);
        fixture.apply(Kevent { data: now + 50_000_000, ..add });
    };
    (1..=3).for_each(arm);
    fixture.with_state(|state| state.sources.timers.set_seq(LAST - 1));
    (4..=6).for_each(arm);
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.extend(fixture.collect(Deadline::Never));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}
