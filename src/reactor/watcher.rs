//! What can be done with watchers: add, change, close.

use super::command::{Change, Command, Registered};
use super::core::{Core, Limit};
use super::desk::{self, Gate, Named};
use super::event::{Event, Target};
use super::flags::*;
use super::io;
use super::quick;
use super::record::{self, CLOSING, LIVE, Record};
use super::tfd::Watched;
use super::timers::{self, NewTimer, Setting};
use crate::errno::{Errno, Result, fail};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::table::{self, Handle, Kind};
use crate::timerfd::Timer;
use std::os::fd::RawFd;

/// A new record for a watcher, filled in but not live.
struct Fresh {
    index: u32,
    record: &'static Record,
}

impl Fresh {
    fn new(desk: &'static desk::Desk, index: u32, source: Source, target: Target) -> Result<Self> {
        let Some(record) = record::get(index) else { fail!(ENOMEM, "no memory for a watcher") };
        let records = if target.callback.is_none() { RECORDS } else { 0 };
        record.flags.store(source.bits() | ENABLED | records, Relaxed);
        record.set_desk(desk);
        record.set_target(target);
        Ok(Self { index, record })
    }

    fn handle(&self) -> i64 {
        self.record.handle(Kind::Watcher, self.index)
    }
}

impl Core {
    #[inline]
    fn fresh(&mut self, source: Source, target: Target) -> Result<Fresh> {
        let index = self.slots.take()?;
        Fresh::new(self.desk, index, source, target)
    }

    fn give_back(&mut self, fresh: &Fresh) {
        self.slots.give_back(fresh.index);
    }

    #[inline]
    fn publish(&mut self, fresh: &Fresh) -> i64 {
        fresh.record.set_state(LIVE);
        self.desk.count(1);
        self.count_liveness(fresh.record);
        fresh.handle()
    }

    fn add_io(
        &mut self,
        source: Source,
        fd: RawFd,
        events: u32,
        target: Target,
        tfd: i64,
    ) -> Result<i64> {
        if self.owns(fd) {
            fail!(EINVAL, "fd {} is the loop's own", fd);
        }
        let fresh = self.fresh(source, target)?;
        io::fill(fresh.record, fd, events);
        let added = self.watch_tfd(&fresh, tfd).and_then(|()| {
            let how = io::register(self.epoll(), fd, events, fresh.handle())?;
            if matches!(how, Registered::Shared) {
                self.io_may_join(fd, events, 0)?;
            }
            let added = self.io_added(fresh.index, fresh.record, how);
            if added.is_err() && matches!(how, Registered::Alone(_)) {
                let _ = epoll::delete(self.epoll(), fd);
            }
            added
        });
        match added {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.tfds.remove(&fresh.index);
                self.give_back(&fresh);
                Err(error)
            }
        }
    }

    fn watch_tfd(&mut self, fresh: &Fresh, tfd: i64) -> Result<()> {
        match tfd {
            0 => Ok(()),
            _ => self.keep_tfd(fresh.index, Watched::new(tfd, self.eventfd())?),
        }
    }

    fn add_timer(
        &mut self,
        clock: usize,
        setting: &Setting,
        tolerance: i64,
        target: Target,
    ) -> Result<i64> {
        let fresh = self.fresh(Source::Timer, target)?;
        prepare_timer(fresh.record, clock, setting);
        fresh.record.node.set_tolerance(tolerance);
        match self.timer_set(fresh.index, fresh.record, setting, None) {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.uncount(fresh.record);
                self.give_back(&fresh);
                Err(error)
            }
        }
    }

    fn add_plain(&mut self, source: Source, target: Target) -> Result<i64> {
        if source == Source::ClockChange {
            self.ensure_clock(timers::REALTIME)?;
        }
        let fresh = self.fresh(source, target)?;
        if source == Source::Async {
            fresh.record.aux.store(0, Relaxed);
        }
        if let Err(error) = self.add_to_list(fresh.index, fresh.record) {
            self.give_back(&fresh);
            return Err(error);
        }
        Ok(self.publish(&fresh))
    }

    /// Notes a watcher of a kind that is called in turn.
    pub fn add_to_list(&mut self, index: u32, record: &Record) -> Result<()> {
        let source = Source::of(record.flags.load(Relaxed));
        if let Some(list) = self.list(source) {
            if list.try_reserve(1).is_err() {
                fail!(ENOMEM, "no memory for a watcher");
            }
            list.push(index);
        }
        match source {
            Source::ClockChange => self.timers.recheck |= 1 << timers::REALTIME,
            Source::Idle => self.idlers += 1,
            Source::Defer => {
                self.deferred += 1;
                record.set(WAITING | NEXT_TIME);
                self.count_liveness(record);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes a change to a watcher.
    pub fn change(&mut self, index: u32, record: &Record, change: Change) -> Result<()> {
        match change {
            Change::Enable => self.enable(index, record),
            Change::Disable => self.disable(index, record),
            Change::Priority(priority) => {
                self.extra(index, record)?.priority = priority;
                let ranked = record.has(RANKED);
                if priority != 0 && !ranked {
                    record.set(RANKED);
                    self.ranked += 1;
                } else if priority == 0 && ranked {
                    record.unset(RANKED);
                    self.ranked -= 1;
                }
                Ok(())
            }
            Change::RateLimit { interval, burst } => self.limit(index, record, interval, burst),
            Change::Named => {
                record.set(NAMED);
                Ok(())
            }
            Change::Data(data) => {
                record.data.store(data, Relaxed);
                Ok(())
            }
            Change::Ref => {
                record.unset(UNREF);
                self.count_liveness(record);
                Ok(())
            }
            Change::Unref => {
                record.set(UNREF);
                self.count_liveness(record);
                Ok(())
            }
            Change::Destroy(target) => {
                self.extra(index, record)?.destroy = Some(target);
                Ok(())
            }
            Change::Events(events) => self.io_modify(index, record, events),
        }
    }

    fn limit(&mut self, index: u32, record: &Record, interval: i64, burst: i32) -> Result<()> {
        // It wakes the loop when a watcher may go on.
        self.ensure_clock(timers::MONOTONIC)?;
        if self.suspended.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory for a watcher");
        }
        let extra = self.extra(index, record)?;
        if interval > 0 {
            extra.limit = Some(Limit { interval, burst, since: i64::MIN, count: 0 });
            record.set(LIMITED);
        } else {
            extra.limit = None;
            record.unset(LIMITED);
            if record.has(SUSPENDED) {
                // What was kept comes now.
                self.suspended.retain(|(_, suspended)| *suspended != index);
                self.suspended.push((i64::MIN, index));
            }
        }
        Ok(())
    }

    #[inline]
    fn enable(&mut self, index: u32, record: &Record) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        let source = Source::of(flags);
        if flags & ENABLED != 0 {
            return Ok(());
        }
        record.set(ENABLED);
        match source {
            Source::Io | Source::Tfd => {
                record.unset(SPENT);
                self.io_touch(index, record);
                self.fail_if_dead(index, record);
            }
            Source::Timer => {
                if let Err(error) = self.timer_enable(index, record) {
                    record.unset(ENABLED);
                    return Err(error);
                }
            }
            Source::Async if record.is_sent() && off_stack(flags) => self.sent_to_disabled(index),
            Source::Idle => self.idlers += 1,
            Source::Defer => {
                record.set(WAITING | NEXT_TIME);
                self.deferred += 1;
            }
            _ => {}
        }
        self.count_liveness(record);
        if flags & EXTRA != 0 {
            self.deliver_kept(index, record);
        }
        Ok(())
    }

    /// What was kept while the watcher was disabled comes now.
    fn deliver_kept(&mut self, index: u32, record: &Record) {
        let kept = self.extras.get(&index).is_some_and(|extra| extra.kept.is_some());
        if kept && !record.has(SUSPENDED) && self.suspended.try_reserve(1).is_ok() {
            record.set(SUSPENDED);
            self.suspended.push((i64::MIN, index));
        }
    }

    #[inline]
    fn disable(&mut self, index: u32, record: &Record) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        if flags & ENABLED == 0 {
            if Source::of(flags).is_descriptor() {
                record.unset(SPENT);
            }
            return Ok(());
        }
        match Source::of(flags) {
            Source::Io | Source::Tfd => self.io_touch(index, record),
            Source::Timer => self.timer_disable(index, record)?,
            Source::Idle => self.idlers -= 1,
            Source::Defer if flags & WAITING != 0 => self.deferred -= 1,
            _ => {}
        }
        record.unset(ENABLED);
        self.count_liveness(record);
        Ok(())
    }

    /// Was sent to while it was disabled, and is enabled now.
    fn sent_to_disabled(&mut self, index: u32) {
        if self.sent.try_reserve(1).is_ok() {
            self.sent.push(index);
        }
    }

    fn uncount(&mut self, record: &Record) {
        if record.has(COUNTED) {
            record.unset(COUNTED);
            self.active -= 1;
        }
    }

    /// Closes a watcher; its state is what it was.
    #[inline]
    fn close(&mut self, named: &Named) -> Result<()> {
        let record = named.record;
        if Source::of(record.flags.load(Relaxed)) == Source::Async {
            // Others may be sending to it at this moment.
            if !record.close(named.handle) {
                return table::stale(named.handle.pack());
            }
        } else {
            record.set_state(CLOSING);
        }
        self.desk.count(-1);
        self.finish_close(named.handle.index, record, false);
        Ok(())
    }

    /// Takes a watcher that is marked closing out of everything; `told`: its
    /// registration was removed already.
    pub fn finish_close(&mut self, index: u32, record: &Record, told: bool) {
        let flags = record.flags.load(Relaxed);
        self.uncount(record);
        match Source::of(flags) {
            Source::Io => self.io_close(index, record, told),
            Source::Tfd => {
                self.io_close(index, record, told);
                self.tfds.remove(&index);
            }
            Source::Timer => self.timer_stop(index, record),
            source => self.remove_from_list(index, record, source),
        }
        if flags & (EXTRA | NAMED | HELD) != 0 {
            self.close_extras(index, record);
        }
        if record.is_sent() && !off_stack(flags) {
            // It is on the stack of those sent to, or will be in a moment.
            record.set(FINISHED);
            return;
        }
        self.slots.give_back(index);
    }

    fn remove_from_list(&mut self, index: u32, record: &Record, source: Source) {
        let flags = record.flags.load(Relaxed);
        if let Some(list) = self.list(source)
            && let Some(place) = list.iter().position(|other| *other == index)
        {
            list.remove(place);
            match source {
                Source::Idle if flags & ENABLED != 0 => self.idlers -= 1,
                Source::Defer if flags & (ENABLED | WAITING) == ENABLED | WAITING => {
                    self.deferred -= 1;
                }
                _ => {}
            }
        }
    }

    #[cold]
    fn close_extras(&mut self, index: u32, record: &Record) {
        let handle = record.handle(Kind::Watcher, index);
        if record.has(NAMED) && self.unnamed.try_reserve(1).is_ok() {
            self.unnamed.push(handle);
        }
        if record.has(RANKED) {
            self.ranked -= 1;
        }
        if record.has(SUSPENDED) {
            self.suspended.retain(|(_, suspended)| *suspended != index);
        }
        if record.has(HELD) {
            self.held.retain(|event| event.watcher != handle);
        }
        let Some(extra) = self.extras.remove(&index) else { return };
        if self.extras.capacity() > 1024 && self.extras.capacity() > 8 * self.extras.len() {
            self.extras.shrink_to_fit();
        }
        if let Some(target) = extra.destroy {
            self.note_destroy(target, closed_event(index, record));
        }
    }
}

/// Whether an async watcher that was sent to is not on the stack of those.
pub(super) fn off_stack(flags: u32) -> bool {
    Source::of(flags) == Source::Async && flags & OFF_STACK != 0
}

/// The event of a watcher that is closed.
pub(super) fn closed_event(index: u32, record: &Record) -> Event {
    let mut event = Event::new(record.handle(Kind::Watcher, index), CLOSED);
    event.data = record.data.load(Relaxed);
    event
}

fn prepare_timer(record: &Record, clock: usize, setting: &Setting) {
    let queue = timers::queue_of(clock, setting);
    record.set((clock as u32) << CLOCK_SHIFT | (queue as u32) << QUEUE_SHIFT);
    record.node.reset();
    record.aux.store(0, Relaxed);
}

/// A record for a watcher that another thread than the loop's adds.
fn fresh_at(gate: &mut Gate, named: &Named, source: Source, target: Target) -> Result<Fresh> {
    gate.expect_commands(3)?;
    if gate.reserve.is_empty() {
        if gate.reserve.try_reserve(record::PER_BLOCK as usize).is_err() {
            fail!(ENOMEM, "no memory for a watcher");
        }
        let block = record::take_block()?;
        let first = block * record::PER_BLOCK;
        gate.reserve.extend((first + 1..first + record::PER_BLOCK).rev());
        gate.inbox.push(Command::Block(block));
    }
    let Some(index) = gate.reserve.pop() else { fail!(ENOMEM, "no memory for a watcher") };
    Fresh::new(named.desk, index, source, target)
}

impl Gate {
    /// Makes room, so that nothing fails once something is done.
    pub fn expect_commands(&mut self, count: usize) -> Result<()> {
        if self.inbox.try_reserve(count).is_err() {
            fail!(ENOMEM, "no memory for a command to the loop");
        }
        Ok(())
    }

    fn publish(&mut self, fresh: &Fresh, named: &Named, command: Command) -> i64 {
        let handle = fresh.handle();
        fresh.record.set_state(LIVE);
        named.desk.count_from_outside(1);
        self.inbox.push(command);
        handle
    }
}

/// See evloop_add_io.
pub(crate) fn add_io(handle: i64, fd: RawFd, events: u32, target: Target) -> Result<i64> {
    io::check_events(events)?;
    add_descriptor(handle, Source::Io, fd, events, target, 0)
}

/// See evloop_add_tfd.
pub(crate) fn add_tfd(handle: i64, tfd: i64, target: Target) -> Result<i64> {
    let named = desk::named(handle, Kind::Loop)?;
    named.check()?;
    let fd = table::descriptor::<Timer>(tfd)?;
    if named.desk.virtual_now.load(Relaxed) != desk::REAL_TIME {
        fail!(ENOTSUP, "loop {} has virtual time, which timer {} does not follow", handle, tfd);
    }
    add_descriptor(handle, Source::Tfd, fd, libc::EPOLLIN as u32, target, tfd)
}

fn add_descriptor(
    handle: i64,
    source: Source,
    fd: RawFd,
    events: u32,
    target: Target,
    tfd: i64,
) -> Result<i64> {
    let named = desk::named(handle, Kind::Loop)?;
    named.with(
        |core| core.add_io(source, fd, events, target, tfd),
        |gate| {
            let watched = match tfd {
                0 => None,
                _ => Some(Watched::new(tfd, named.desk.eventfd())?),
            };
            let fresh = fresh_at(gate, &named, source, target)?;
            io::fill(fresh.record, fd, events);
            let how = match io::register(gate.epoll, fd, events, fresh.handle()) {
                Ok(how) => how,
                Err(error) => {
                    gate.reserve.push(fresh.index);
                    return Err(error);
                }
            };
            match how {
                Registered::Alone(_) => {}
                Registered::Shared => fresh.record.set(SHARED),
                Registered::Always => fresh.record.set(ALWAYS),
            }
            let handle = fresh.handle();
            let command = match watched {
                None => Command::AddIo(handle, how),
                Some(watched) => Command::AddTfd(handle, how, watched),
            };
            Ok(gate.publish(&fresh, &named, command))
        },
    )
}

/// See evloop_add_timer.
pub(crate) fn add_timer(handle: i64, new: NewTimer, target: Target) -> Result<i64> {
    if let Some(watcher) = quick::add_timer(handle, &new, target) {
        return Ok(watcher);
    }
    let NewTimer { clock, setting, tolerance } = new;
    let named = desk::named(handle, Kind::Loop)?;
    named.with(
        |core| core.add_timer(clock, &setting, tolerance, target),
        |gate| {
            let deadline = remote_deadline(gate, &named, clock, &setting)?;
            let fresh = fresh_at(gate, &named, Source::Timer, target)?;
            prepare_timer(fresh.record, clock, &setting);
            fresh.record.node.set_tolerance(tolerance);
            let handle = fresh.handle();
            let command = Command::AddTimer { handle, setting, deadline };
            Ok(gate.publish(&fresh, &named, command))
        },
    )
}

/// When a timer expires that another thread than the loop's sets now.
fn remote_deadline(gate: &mut Gate, named: &Named, clock: usize, setting: &Setting) -> Result<i64> {
    let queue = timers::queue_of(clock, setting);
    let virtual_now = named.desk.virtual_now.load(Relaxed);
    if virtual_now == desk::REAL_TIME && named.desk.clocks.load(Relaxed) >> queue & 1 == 0 {
        gate.expect_commands(1)?;
        let fd = timers::create_fd(queue)?;
        gate.inbox.push(Command::Clock(queue, fd));
    }
    if setting.absolute {
        return Ok(setting.initial);
    }
    let now = if virtual_now == desk::REAL_TIME { timers::read(queue) } else { virtual_now };
    Ok(now.saturating_add(setting.initial))
}

/// See evloop_add_async and its like.
pub(crate) fn add_plain(handle: i64, source: Source, target: Target) -> Result<i64> {
    let named = desk::named(handle, Kind::Loop)?;
    named.with(
        |core| core.add_plain(source, target),
        |gate| {
            if source == Source::ClockChange {
                let never = Setting {
                    absolute: true,
                    period: timers::Period::Skip,
                    initial: 0,
                    interval: 0,
                };
                remote_deadline(gate, &named, timers::REALTIME, &never)?;
            }
            let fresh = fresh_at(gate, &named, source, target)?;
            fresh.record.aux.store(0, Relaxed);
            let handle = fresh.handle();
            Ok(gate.publish(&fresh, &named, Command::Add(handle)))
        },
    )
}

/// Makes a change to a watcher.
#[inline]
pub(crate) fn change(handle: i64, change: Change) -> Result<()> {
    let named = desk::named(handle, Kind::Watcher)?;
    named.with(
        |core| core.change(named.handle.index, named.record, change),
        |gate| {
            gate.expect_commands(1)?;
            gate.inbox.push(Command::Change(handle, change));
            Ok(())
        },
    )
}

fn of_source(handle: i64, source: Source) -> Result<Named> {
    let named = desk::named(handle, Kind::Watcher)?;
    if Source::of(named.record.flags.load(Relaxed)) == source {
        return Ok(named);
    }
    // Or it was closed by now, and is another watcher's.
    desk::named(handle, Kind::Watcher)?;
    let wanted = if source == Source::Io { "an io watcher" } else { "a timer" };
    fail!(EINVAL, "watcher {} is not {}", handle, wanted)
}

/// See evloop_io_modify.
pub(crate) fn io_modify(handle: i64, events: u32) -> Result<()> {
    of_source(handle, Source::Io)?;
    io::check_events(events)?;
    change(handle, Change::Events(events))
}

/// See evloop_timer_set.
pub(crate) fn timer_set(handle: i64, setting: Setting) -> Result<()> {
    let named = of_source(handle, Source::Timer)?;
    named.with(
        |core| core.timer_set(named.handle.index, named.record, &setting, None),
        |gate| {
            gate.expect_commands(2)?;
            let clock = named.record.flags.load(Relaxed) >> CLOCK_SHIFT & CLOCK_MASK;
            let deadline = remote_deadline(gate, &named, clock as usize, &setting)?;
            gate.inbox.push(Command::Set(handle, setting, deadline));
            Ok(())
        },
    )
}

/// See evloop_timer_again.
#[inline]
pub(crate) fn timer_again(handle: i64) -> Result<()> {
    let named = of_source(handle, Source::Timer)?;
    named.with(
        |core| core.timer_again(named.handle.index, named.record, None),
        |gate| {
            gate.expect_commands(1)?;
            let flags = named.record.flags.load(Relaxed);
            let mut queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
            let mut period = named.record.aux.load(Relaxed).cast_signed();
            let mut allowed = flags & AGAIN != 0;
            // What was asked for and not done yet counts, too.
            if let Some(setting) = gate.inbox.iter().rev().find_map(|c| c.sets(handle)?.0) {
                queue = timers::queue_of((flags >> CLOCK_SHIFT & CLOCK_MASK) as usize, &setting);
                period = setting.period_ns();
                allowed = setting.initial >= 0 && setting.may_start_again();
            }
            if !allowed {
                return Err(timers::never_relative());
            }
            let now = match named.desk.virtual_now.load(Relaxed) {
                desk::REAL_TIME => timers::read(queue),
                now => now,
            };
            gate.inbox.push(Command::Again(handle, now.saturating_add(period)));
            Ok(())
        },
    )
}

/// See evloop_timer_remaining_ns.
pub(crate) fn timer_remaining(handle: i64) -> Result<i64> {
    let named = of_source(handle, Source::Timer)?;
    named.with(
        |core| Ok(core.timer_remaining(named.handle.index, named.record)),
        |gate| {
            let flags = named.record.flags.load(Relaxed);
            let mut queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
            let mut deadline = named.record.node.deadline().filter(|_| flags & SET != 0);
            // What was asked for and not done yet counts, too.
            if let Some((setting, asked)) = gate.inbox.iter().rev().find_map(|c| c.sets(handle)) {
                if let Some(setting) = setting {
                    let clock = (flags >> CLOCK_SHIFT & CLOCK_MASK) as usize;
                    queue = timers::queue_of(clock, &setting);
                }
                deadline = asked;
            }
            let now = match named.desk.virtual_now.load(Relaxed) {
                desk::REAL_TIME => timers::read(queue),
                now => now,
            };
            Ok(deadline.map_or(i64::MAX, |deadline| deadline.saturating_sub(now).max(0)))
        },
    )
}

/// See evloop_watcher_loop.
pub(crate) fn loop_of(handle: i64) -> Result<i64> {
    let named = desk::named(handle, Kind::Watcher)?;
    named.with(|core| Ok(core.desk.handle()), |_| Ok(named.desk.handle()))
}

/// See evloop_watcher_set_name.
pub(crate) fn set_name(handle: i64, name: Option<&[u8]>) -> Result<()> {
    let named = desk::named(handle, Kind::Watcher)?;
    let mut copy = Vec::new();
    let bytes = name.unwrap_or_default();
    if copy.try_reserve_exact(bytes.len()).is_err() {
        fail!(ENOMEM, "no memory for a name of {} bytes", bytes.len() as i64);
    }
    copy.extend_from_slice(bytes);
    let mut gate = named.lock()?;
    if name.is_none() {
        gate.names.remove(&handle);
        return Ok(());
    }
    if gate.names.try_reserve(1).is_err() {
        fail!(ENOMEM, "no memory for a name");
    }
    gate.names.insert(handle, copy.into_boxed_slice());
    drop(gate);
    // So that closing it forgets the name.
    change(handle, Change::Named)
}

/// See evloop_watcher_get_name.
pub(crate) fn get_name(handle: i64, room: &mut [u8]) -> Result<usize> {
    let named = desk::named(handle, Kind::Watcher)?;
    let gate = named.lock()?;
    let name = gate.names.get(&handle).map(|name| &**name).unwrap_or_default();
    if let Some(last) = room.len().checked_sub(1) {
        let len = name.len().min(last);
        for (to, from) in room.iter_mut().zip(name.iter().take(len).chain(&[0])) {
            *to = *from;
        }
    }
    Ok(name.len())
}

/// See evloop_watcher_close.
pub(crate) fn watcher_close(handle: i64, wait: bool) -> Result<()> {
    let named = desk::named(handle, Kind::Watcher)?;
    if named.desk.is_mine() {
        return named.with(
            |core| {
                if wait && core.current == handle {
                    fail!(EDEADLK, "watcher {} would wait for its own callback", handle);
                }
                core.close(&named)
            },
            |_| table::stale(handle),
        );
    }
    let mut gate = named.lock_any()?;
    if named.desk.is_inherited() {
        close_inherited(&named);
        return Ok(());
    }
    if !gate.running {
        return named.with_idle(gate, |core| core.close(&named));
    }
    let rings = named.desk.leave_work();
    close_remotely(&mut gate, &named)?;
    if wait {
        named.desk.await_callback(gate, rings);
    } else {
        drop(gate);
        if rings {
            named.desk.ring();
        }
    }
    Ok(())
}

/// Closes a watcher of a loop that another thread runs.
fn close_remotely(gate: &mut Gate, named: &Named) -> Result<()> {
    gate.expect_commands(1)?;
    let record = named.record;
    let flags = record.flags.load(Relaxed);
    if !record.close(named.handle) {
        return table::stale(named.handle.pack());
    }
    named.desk.count_from_outside(-1);
    let told = Source::of(flags).is_descriptor() && io::is_registered(flags);
    if told {
        // If others watch it, too, the loop registers it again for them.
        // Closed before, perhaps: then the kernel knows it no more.
        let _ = epoll::delete(gate.epoll, io::fd_of(record));
    }
    gate.inbox.push(Command::Close(named.handle.pack(), told));
    Ok(())
}

/// Closes a watcher of the parent's loop, in a child, where that loop cannot
/// be touched: only the handle.
fn close_inherited(named: &Named) {
    if named.record.close(named.handle) {
        named.desk.count_from_outside(-1);
    }
}

/// See evloop_async_send. A signal handler may call this.
#[inline(always)]
pub(crate) fn async_send(handle: i64) -> std::result::Result<(), Errno> {
    let Some(named) = Handle::unpack_as(handle, Kind::Watcher) else { return refuse_send(handle) };
    let Some(record) = record::get(named.index) else { return refuse_send(handle) };
    let is_async = Source::of(record.flags.load(Relaxed)) == Source::Async;
    let Some(desk) = record.desk().filter(|desk| is_async && desk.is_usable()) else {
        return refuse_send(handle);
    };
    match record.send(named) {
        None => refuse_send(handle),
        Some(false) => Ok(()),
        Some(true) => {
            if desk.mail.push(&super::AsyncLinks, named.index) {
                desk.ring();
            }
            Ok(())
        }
    }
}

#[cold]
fn refuse_send(handle: i64) -> std::result::Result<(), Errno> {
    desk::named_quietly(handle, Kind::Watcher)?;
    Err(Errno::EINVAL)
}
