//! What is asked of watchers from outside their loop's code, by any thread:
//! done at once where the loop may be touched, else left at its gate.

use super::command::{Change, Command, Registered};
use super::core::Core;
use super::desk::Gate;
use super::event::{Destroy, Event, Target};
use super::flags::*;
use super::io;
use super::letters::Letter;
use super::named::{Named, named};
use super::objects::{self, Watch, Watched, Watching};
use super::record;
use super::record::LIVE;
use super::timers::{self, NewTimer, Setting};
use super::watcher::{Fresh, prepare_timer, set_subject};
use super::{clocks, files, quick};
use crate::errno::{Result, fail};
use crate::file_watch::{Request, Rest};
use crate::handle::{self, Handle, Kind};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::util::alloc::{TryMap, TryVec, try_copy};
use crate::util::{Out, try_box};
use crate::wait::refuse_own;
use std::cell::Cell;
use std::os::fd::RawFd;

/// A record for a watcher that another thread than the loop's adds.
pub(super) fn fresh_at(
    gate: &mut Gate,
    named: &Named,
    source: Source,
    target: Target,
) -> Result<Fresh> {
    gate.expect_commands(3)?;
    if gate.reserve.is_empty() {
        if gate.reserve.try_reserve(record::PER_BLOCK as usize).is_err() {
            fail!(ENOMEM, "no memory for a watcher");
        }
        let block = record::take_block(Some(named.desk))?;
        let first = block * record::PER_BLOCK;
        for index in (first + 1..first + record::PER_BLOCK).rev() {
            gate.reserve.push_reserved(index);
        }
        gate.inbox.push_reserved(Command::Block(block));
    }
    let Some(index) = gate.reserve.pop() else { fail!(ENOMEM, "no memory for a watcher") };
    record::begin_contents();
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

    /// The loop has removed the registration of a descriptor: perhaps that of a
    /// watcher in here.
    pub fn deregistered(&mut self, fd: RawFd) {
        for command in &mut self.inbox {
            if let Command::AddIo(handle, how) | Command::AddObject(handle, how, _) = command
                && matches!(how, Registered::Alone(_))
                && watches(*handle, fd)
            {
                *how = Registered::Shared;
            }
        }
    }

    pub fn publish(&mut self, fresh: &Fresh, named: &Named, command: Command) -> i64 {
        let handle = fresh.handle();
        fresh.record.set_state(LIVE);
        named.desk.count_from_outside(1);
        self.inbox.push_reserved(command);
        handle
    }
}

/// See evloop_add_io.
pub(crate) fn add_io(handle: i64, fd: RawFd, events: u32, target: Target) -> Result<i64> {
    io::check_events(events)?;
    refuse_own(fd)?;
    add_descriptor(handle, Source::Io, fd, events, target, None)
}

/// See evloop_add_tfd and evloop_add_kqueue. The loop is looked at first.
pub(crate) fn add_object(
    handle: i64,
    source: Source,
    watch: impl FnOnce() -> Result<Watch>,
    target: Target,
) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    let watch = watch()?;
    if source == Source::Tfd && named.desk.is_virtual() {
        let timer = watch.handle;
        fail!(ENOTSUP, "loop {} has virtual time, which timer {} does not follow", handle, timer);
    }
    add_watched(handle, source, objects::object(watch)?, target)
}

/// A watcher of something that has a descriptor, and is asked what happened.
pub(super) fn add_watched(
    handle: i64,
    source: Source,
    watched: Box<dyn Watched>,
    target: Target,
) -> Result<i64> {
    let (fd, events) = (watched.fd(), watched.events());
    add_descriptor(handle, source, fd, events, target, Some(watched))
}

fn add_descriptor(
    handle: i64,
    source: Source,
    fd: RawFd,
    events: u32,
    target: Target,
    watched: Option<Box<dyn Watched>>,
) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.check_epoll_first()?;
    // Taken by one of the two.
    let watched = Cell::new(watched);
    named.with(
        |core| core.add_io(source, fd, events, target, watched.take()),
        |gate| {
            let mut watched = watched.take();
            if let Some(watched) = &mut watched {
                watched.begin(named.desk.handle())?;
            }
            let fresh = fresh_at(gate, &named, source, target)?;
            set_subject(fresh.record, watched.as_deref());
            let watching = |watched| Watching { index: fresh.index, watched };
            let letter = watched.map(|watched| try_box(Letter::new(0, watching(watched))));
            let Some(letter) = letter.map_or(Some(None), |letter| letter.map(Some)) else {
                gate.reserve.push_reserved(fresh.index);
                fail!(ENOMEM, "no memory for a watcher");
            };
            io::fill(fresh.record, fd, events);
            let how = match io::register(named.desk, gate.epoll, fd, events, fresh.handle()) {
                Ok(how) => how,
                Err(error) => {
                    gate.reserve.push_reserved(fresh.index);
                    return Err(error);
                }
            };
            match how {
                Registered::Alone(_) => {}
                Registered::Shared => fresh.record.set(SHARED | JOINS),
                Registered::Always => fresh.record.set(ALWAYS),
            }
            let handle = fresh.handle();
            let command = match letter {
                None => Command::AddIo(handle, how),
                Some(letter) => Command::AddObject(handle, how, letter),
            };
            Ok(gate.publish(&fresh, &named, command))
        },
    )
}

/// Whether a descriptor is that of a watcher, which may be closed already.
fn watches(handle: i64, fd: RawFd) -> bool {
    let record = Handle::unpack_as(handle, Kind::Watcher).and_then(|h| record::get(h.index));
    record.is_some_and(|record| io::fd_of(record) == fd)
}

/// See evloop_add_file and evloop_add_file_fd.
pub(crate) fn add_file(handle: i64, request: &Request<'_>, target: Target) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.check_epoll_first()?;
    let started = named.with(
        |core| Ok(Started::Added(core.add_file(request, target)?)),
        |gate| {
            let fresh = fresh_at(gate, &named, Source::File, target)?;
            let started = named.desk.files.lock().start(gate.epoll, fresh.index, request);
            match started {
                Ok(rest) => Ok(Started::Root(fresh, rest)),
                Err(error) => {
                    gate.reserve.push_reserved(fresh.index);
                    Err(error)
                }
            }
        },
    )?;
    match started {
        Started::Added(watcher) => Ok(watcher),
        Started::Root(fresh, rest) => finish_file(&named, &fresh, rest, request),
    }
}

/// How far a file watcher was added.
enum Started {
    Added(i64),
    /// The rest may take long: that is done without the gate's lock.
    Root(Fresh, Rest),
}

fn finish_file(named: &Named, fresh: &Fresh, rest: Rest, request: &Request<'_>) -> Result<i64> {
    let added = files::add_rest(named, fresh.index, rest, request.root);
    let published = added.and_then(|()| {
        named.with(
            |core| Ok(core.publish_file(fresh)),
            |gate| {
                gate.expect_commands(1)?;
                Ok(gate.publish(fresh, named, Command::AddFile(fresh.handle())))
            },
        )
    });
    if published.is_err() {
        // Or the loop is closed, and all that it had.
        let _ = named.with(
            |core| {
                core.give_up_file(fresh);
                Ok(())
            },
            |gate| {
                named.desk.files.lock().give_up(gate.epoll, fresh.index);
                // Others may have filled it meanwhile.
                if gate.reserve.try_reserve(1).is_ok() {
                    gate.reserve.push_reserved(fresh.index);
                }
                Ok(())
            },
        );
    }
    published
}

/// See evloop_event_name and evloop_event_old_name.
pub(crate) fn event_name(event: &Event, old: bool, out: &mut Out<u8>) -> Result<usize> {
    if event.r#type != Source::File as i32 {
        fail!(EINVAL, "an event of type {} has no name", event.r#type);
    }
    let named = named(event.watcher, Kind::Watcher)?;
    named.check()?;
    let state = named.desk.files.lock();
    let name = state.name(event, old)?;
    out.push_text(name);
    out.end_text();
    Ok(name.len())
}

/// See evloop_add_timer.
pub(crate) fn add_timer(handle: i64, new: NewTimer, target: Target) -> Result<i64> {
    if let Some(watcher) = quick::add_timer(handle, &new, target) {
        return Ok(watcher);
    }
    let NewTimer { clock, setting, tolerance } = new;
    let named = named(handle, Kind::Loop)?;
    named.with(
        |core| core.add_timer(clock, &setting, tolerance, target),
        |gate| {
            let deadline = remote_deadline(gate, &named, clock, &setting)?;
            let fresh = fresh_at(gate, &named, Source::Timer, target)?;
            prepare_timer(fresh.record, clock, &setting);
            let default = named.desk.timer_tolerance.load(Relaxed);
            fresh.record.node.set_tolerance(if tolerance == 0 { default } else { tolerance });
            if setting.initial >= 0 {
                fresh.record.set(COMING);
            }
            let handle = fresh.handle();
            let command = Command::AddTimer { handle, setting, deadline };
            Ok(gate.publish(&fresh, &named, command))
        },
    )
}

/// When a timer expires that another thread than the loop's sets now.
fn remote_deadline(gate: &mut Gate, named: &Named, clock: usize, setting: &Setting) -> Result<i64> {
    let queue = timers::queue_of(clock, setting);
    let known = named.desk.clocks.load(Relaxed) | gate.clocks;
    if !named.desk.is_virtual() && known >> queue & 1 == 0 {
        gate.expect_commands(1)?;
        let fd = clocks::create_fd(queue)?;
        gate.inbox.push_reserved(Command::Clock(queue, fd));
        gate.clocks |= 1 << queue;
    }
    if setting.absolute {
        return Ok(setting.initial);
    }
    Ok(named.desk.now(queue).saturating_add(setting.initial))
}

/// See evloop_add_async and its like.
pub(crate) fn add_plain(handle: i64, source: Source, target: Target) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
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
                remote_deadline(gate, &named, clocks::REALTIME, &never)?;
            }
            let fresh = fresh_at(gate, &named, source, target)?;
            fresh.record.aux.store(0, Relaxed);
            if source == Source::Defer {
                fresh.record.set(COMING);
            }
            let handle = fresh.handle();
            Ok(gate.publish(&fresh, &named, Command::Add(handle)))
        },
    )
}

/// Makes a change to a watcher.
#[inline]
pub(crate) fn change(handle: i64, change: Change) -> Result<()> {
    let named = named(handle, Kind::Watcher)?;
    named.with(
        |core| core.change(named.handle.index, named.record, change),
        |gate| {
            gate.expect_commands(1)?;
            gate.inbox.push_reserved(Command::Change(handle, change));
            Ok(())
        },
    )
}

fn of_source(handle: i64, source: Source) -> Result<Named> {
    let found = named(handle, Kind::Watcher)?;
    if Source::of(found.record.flags.load(Relaxed)) == source {
        return Ok(found);
    }
    // Or it was closed by now, and is another watcher's.
    named(handle, Kind::Watcher)?;
    let wanted = if source == Source::Io { "an io watcher" } else { "a timer" };
    fail!(EINVAL, "watcher {} is not {}", handle, wanted)
}

/// See evloop_io_modify.
pub(crate) fn io_modify(handle: i64, events: u32) -> Result<()> {
    of_source(handle, Source::Io)?;
    io::check_events(events)?;
    change(handle, Change::Events(events))
}

/// See evloop_io_set.
pub(crate) fn io_set(handle: i64, events: u32) -> Result<()> {
    of_source(handle, Source::Io)?;
    io::check_events(events)?;
    change(handle, Change::IoSet(events))
}

/// See evloop_timer_set_tolerance.
pub(crate) fn timer_set_tolerance(handle: i64, tolerance: i64) -> Result<()> {
    of_source(handle, Source::Timer)?;
    change(handle, Change::Tolerance(tolerance))
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
            gate.inbox.push_reserved(Command::Set(handle, setting, deadline));
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
            let now = named.desk.now(queue);
            gate.inbox.push_reserved(Command::Again(handle, now.saturating_add(period)));
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
            let now = named.desk.now(queue);
            Ok(deadline.map_or(i64::MAX, |deadline| deadline.saturating_sub(now).max(0)))
        },
    )
}

/// See evloop_watcher_loop.
pub(crate) fn loop_of(handle: i64) -> Result<i64> {
    let named = named(handle, Kind::Watcher)?;
    named.with(|core| Ok(core.desk.handle()), |_| Ok(named.desk.handle()))
}

/// See evloop_watcher_set_name.
pub(crate) fn set_name(handle: i64, name: Option<&[u8]>) -> Result<()> {
    let named = named(handle, Kind::Watcher)?;
    let bytes = name.unwrap_or_default();
    let Some(copy) = try_copy(bytes) else {
        fail!(ENOMEM, "no memory for a name of {} bytes", bytes.len() as i64);
    };
    let mut gate = named.lock()?;
    if name.is_none() {
        gate.names.remove(&handle);
        return Ok(());
    }
    if gate.names.try_put(handle, copy).is_err() {
        fail!(ENOMEM, "no memory for a name");
    }
    drop(gate);
    // So that closing it forgets the name; if it was closed by now:
    change(handle, Change::Named).inspect_err(|_| {
        named.desk.gate().names.remove(&handle);
    })
}

/// See evloop_watcher_get_name.
pub(crate) fn get_name(handle: i64, out: &mut Out<u8>) -> Result<usize> {
    let named = named(handle, Kind::Watcher)?;
    let gate = named.lock()?;
    let name = gate.names.get(&handle).map(|name| &**name).unwrap_or_default();
    out.push_text(name);
    out.end_text();
    Ok(name.len())
}

/// See evloop_watcher_set_destroy.
pub(crate) fn set_destroy(handle: i64, target: Target) -> Result<()> {
    let named = named(handle, Kind::Watcher)?;
    // Taken by one of the two.
    let letter = Cell::new(Some(Destroy::of(handle, target)?));
    named.with(
        |core| match letter.take() {
            Some(letter) => core.set_destroy(named.handle.index, named.record, letter),
            None => Ok(()),
        },
        |gate| {
            gate.expect_commands(1)?;
            if let Some(letter) = letter.take() {
                gate.inbox.push_reserved(Command::Destroy(letter));
            }
            Ok(())
        },
    )
}

/// See evloop_watcher_close.
pub(crate) fn watcher_close(handle: i64, wait: bool) -> Result<()> {
    let named = named(handle, Kind::Watcher)?;
    if named.desk.is_mine() {
        let close = |core: &mut Core| {
            if wait && core.current == handle {
                fail!(EDEADLK, "watcher {} would wait for its own callback", handle);
            }
            core.close(&named)
        };
        // SAFETY: as was just asked.
        return unsafe { named.with_mine(close) };
    }
    let mut gate = named.lock_any()?;
    if named.desk.is_inherited() {
        close_inherited(&named);
        return Ok(());
    }
    // An epoll that is not the loop's any more is not changed.
    let _ = named.check_epoll(&mut gate);
    if !gate.running {
        return named.with_idle(gate, |core| core.close(&named));
    }
    let wake = named.desk.leave_work();
    let closed = close_remotely(&mut gate, &named);
    if wait && closed.is_ok() {
        drop(wake);
        named.desk.await_callback(gate);
    } else {
        drop(gate);
        drop(wake);
    }
    closed
}

/// Closes a watcher of a loop that another thread runs.
fn close_remotely(gate: &mut Gate, named: &Named) -> Result<()> {
    let record = named.record;
    let flags = record.flags.load(Relaxed);
    let told = Source::of(flags).is_descriptor() && io::is_registered(flags);
    // Closing does not fail: without memory for a command the record says it.
    let is_listed = gate.expect_commands(1).is_ok();
    let is_closed = match is_listed {
        true => record.close(named.handle),
        false => record.close_unlisted(named.handle, told),
    };
    if !is_closed {
        return handle::stale(named.handle.pack());
    }
    named.desk.count_from_outside(-1);
    if told && named.desk.has_epoll() {
        // If others watch it, too, the loop registers it again for them.
        // Closed before, perhaps: then the kernel knows it no more.
        let _ = epoll::delete(gate.epoll, io::fd_of(record));
    }
    if is_listed {
        gate.inbox.push_reserved(Command::Close(named.handle.pack(), told));
    } else {
        gate.unlisted = true;
    }
    Ok(())
}

/// Closes a watcher of the parent's loop, in a child, where that loop cannot
/// be touched: only the handle.
fn close_inherited(named: &Named) {
    if named.record.close(named.handle) {
        named.desk.count_from_outside(-1);
    }
}
