//! What is asked of watchers from outside their loop's code, by any thread:
//! done at once where the loop may be touched, else queued in its command
//! queue.

use crate::errno::{Result, fail};
use crate::event_loop::command::{Change, Command, RegisteredAs};
use crate::event_loop::event::{Destroy, Event, Target};
use crate::event_loop::fd_source::{self, AddedSource, FdSource, ObjectRef};
use crate::event_loop::flags::*;
use crate::event_loop::io;
use crate::event_loop::node_list::ListNode;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::shared::CommandQueue;
use crate::event_loop::slot;
use crate::event_loop::slot::LIVE;
use crate::event_loop::state::LoopState;
use crate::event_loop::timers::{self, NewTimer, TimerSetting};
use crate::event_loop::watcher::{NewWatcher, prepare_timer, set_subject};
use crate::event_loop::{clocks, fast_path, files};
use crate::file_watch::{PendingTree, WatchRequest};
use crate::handle::{self, Handle, Kind};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::util::alloc::{TryMap, TryVec, try_copy};
use crate::util::{Out, try_box};
use crate::wait::refuse_own;
use std::cell::Cell;
use std::os::fd::RawFd;

/// A slot for a watcher that another thread than the loop's adds.
pub(in crate::event_loop) fn new_remote_watcher(
    command_queue: &mut CommandQueue,
    resolved: &Resolved,
    source: Source,
    target: Target,
) -> Result<NewWatcher> {
    command_queue.reserve_commands(3)?;
    if command_queue.spare_slots.is_empty() {
        if command_queue.spare_slots.try_reserve(slot::PER_BLOCK as usize).is_err() {
            fail!(ENOMEM, "no memory for a watcher");
        }
        let block = slot::take_block(Some(resolved.shared))?;
        let first = block * slot::PER_BLOCK;
        for index in (first + 1..first + slot::PER_BLOCK).rev() {
            command_queue.spare_slots.push_reserved(index);
        }
        command_queue.commands.push_reserved(Command::Block(block));
    }
    let Some(index) = command_queue.spare_slots.pop() else {
        fail!(ENOMEM, "no memory for a watcher")
    };
    slot::begin_contents();
    NewWatcher::new(resolved.shared, index, source, target)
}

impl CommandQueue {
    /// Makes room, so that nothing fails once something is done.
    pub fn reserve_commands(&mut self, count: usize) -> Result<()> {
        if self.commands.try_reserve(count).is_err() {
            fail!(ENOMEM, "no memory for a command to the loop");
        }
        Ok(())
    }

    /// The loop has removed the registration of a descriptor: perhaps that of a
    /// watcher in here.
    pub fn on_deregistered(&mut self, fd: RawFd) {
        for command in &mut self.commands {
            if let Command::AddIo(handle, registered) | Command::AddObject(handle, registered, _) =
                command
                && matches!(registered, RegisteredAs::Alone(_))
                && is_fd_of(*handle, fd)
            {
                *registered = RegisteredAs::Shared;
            }
        }
    }

    pub fn publish(&mut self, fresh: &NewWatcher, resolved: &Resolved, command: Command) -> i64 {
        let handle = fresh.handle();
        fresh.slot.set_state(LIVE);
        resolved.shared.count_from_outside(1);
        self.commands.push_reserved(command);
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
    object_ref: impl FnOnce() -> Result<ObjectRef>,
    target: Target,
) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let object_ref = object_ref()?;
    if source == Source::Tfd && resolved.shared.is_virtual() {
        let timer = object_ref.handle;
        fail!(ENOTSUP, "loop {} has virtual time, which timer {} does not follow", handle, timer);
    }
    add_fd_source(handle, source, fd_source::object_source(object_ref)?, target)
}

/// A watcher of something that has a descriptor, and is asked what happened.
pub(in crate::event_loop) fn add_fd_source(
    handle: i64,
    source: Source,
    fd_source: Box<dyn FdSource>,
    target: Target,
) -> Result<i64> {
    let (fd, events) = (fd_source.fd(), fd_source.events());
    add_descriptor(handle, source, fd, events, target, Some(fd_source))
}

fn add_descriptor(
    handle: i64,
    source: Source,
    fd: RawFd,
    events: u32,
    target: Target,
    fd_source: Option<Box<dyn FdSource>>,
) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check_epoll_first()?;
    // Taken by one of the two.
    let fd_source = Cell::new(fd_source);
    resolved.with(
        |state| state.add_io(source, fd, events, target, fd_source.take()),
        |command_queue| {
            let mut fd_source = fd_source.take();
            if let Some(fd_source) = &mut fd_source {
                fd_source.begin(resolved.shared.handle())?;
            }
            let fresh = new_remote_watcher(command_queue, &resolved, source, target)?;
            set_subject(fresh.slot, fd_source.as_deref());
            let added = |fd_source| AddedSource { index: fresh.index, fd_source };
            let node = fd_source.map(|fd_source| try_box(ListNode::new(0, added(fd_source))));
            let Some(node) = node.map_or(Some(None), |node| node.map(Some)) else {
                command_queue.spare_slots.push_reserved(fresh.index);
                fail!(ENOMEM, "no memory for a watcher");
            };
            io::fill(fresh.slot, fd, events);
            let registered = match io::register(
                resolved.shared,
                command_queue.epoll,
                fd,
                events,
                fresh.handle(),
            ) {
                Ok(registered) => registered,
                Err(error) => {
                    command_queue.spare_slots.push_reserved(fresh.index);
                    return Err(error);
                }
            };
            match registered {
                RegisteredAs::Alone(_) => {}
                RegisteredAs::Shared => fresh.slot.set(SHARED | JOINS),
                RegisteredAs::NotPollable => fresh.slot.set(NOT_POLLABLE),
            }
            let handle = fresh.handle();
            let command = match node {
                None => Command::AddIo(handle, registered),
                Some(node) => Command::AddObject(handle, registered, node),
            };
            Ok(command_queue.publish(&fresh, &resolved, command))
        },
    )
}

/// Whether a descriptor is that of a watcher, which may be closed already.
fn is_fd_of(handle: i64, fd: RawFd) -> bool {
    let slot = Handle::unpack_as(handle, Kind::Watcher).and_then(|h| slot::get(h.index));
    slot.is_some_and(|slot| io::fd_of(slot) == fd)
}

/// See evloop_add_file and evloop_add_file_fd.
pub(crate) fn add_file(handle: i64, request: &WatchRequest<'_>, target: Target) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check_epoll_first()?;
    let started = resolved.with(
        |state| Ok(Started::Added(state.add_file(request, target)?)),
        |command_queue| {
            let fresh = new_remote_watcher(command_queue, &resolved, Source::File, target)?;
            let started =
                resolved.shared.files.lock().start(command_queue.epoll, fresh.index, request);
            match started {
                Ok(rest) => Ok(Started::Root(fresh, rest)),
                Err(error) => {
                    command_queue.spare_slots.push_reserved(fresh.index);
                    Err(error)
                }
            }
        },
    )?;
    match started {
        Started::Added(watcher) => Ok(watcher),
        Started::Root(fresh, rest) => finish_file(&resolved, &fresh, rest, request),
    }
}

/// How far a file watcher was added.
enum Started {
    Added(i64),
    /// The rest may take long: that is done without the command queue's lock.
    Root(NewWatcher, PendingTree),
}

fn finish_file(
    resolved: &Resolved,
    fresh: &NewWatcher,
    rest: PendingTree,
    request: &WatchRequest<'_>,
) -> Result<i64> {
    let added = files::add_rest(resolved, fresh.index, rest, request.root);
    let published = added.and_then(|()| {
        resolved.with(
            |state| Ok(state.publish_file(fresh)),
            |command_queue| {
                command_queue.reserve_commands(1)?;
                Ok(command_queue.publish(fresh, resolved, Command::AddFile(fresh.handle())))
            },
        )
    });
    if published.is_err() {
        // Or the loop is closed, and all that it had.
        let _ = resolved.with(
            |state| {
                state.give_up_file(fresh);
                Ok(())
            },
            |command_queue| {
                resolved.shared.files.lock().give_up(command_queue.epoll, fresh.index);
                // Other threads may have filled it since.
                if command_queue.spare_slots.try_reserve(1).is_ok() {
                    command_queue.spare_slots.push_reserved(fresh.index);
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
    let resolved = resolve(event.watcher, Kind::Watcher)?;
    resolved.check()?;
    let state = resolved.shared.files.lock();
    let name = state.name(event, old)?;
    out.push_text(name);
    out.end_text();
    Ok(name.len())
}

/// See evloop_add_timer.
pub(crate) fn add_timer(handle: i64, new: NewTimer, target: Target) -> Result<i64> {
    if let Some(watcher) = fast_path::add_timer(handle, &new, target) {
        return Ok(watcher);
    }
    let NewTimer { clock, setting, tolerance } = new;
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.with(
        |state| state.add_timer(clock, &setting, tolerance, target),
        |command_queue| {
            let deadline = remote_deadline(command_queue, &resolved, clock, &setting)?;
            let fresh = new_remote_watcher(command_queue, &resolved, Source::Timer, target)?;
            prepare_timer(fresh.slot, clock, &setting);
            let default = resolved.shared.timer_tolerance.load(Relaxed);
            fresh.slot.node.set_tolerance(if tolerance == 0 { default } else { tolerance });
            if setting.initial >= 0 {
                fresh.slot.set(COMING);
            }
            let handle = fresh.handle();
            let command = Command::AddTimer { handle, setting, deadline };
            Ok(command_queue.publish(&fresh, &resolved, command))
        },
    )
}

/// When a timer expires that another thread than the loop's sets now.
fn remote_deadline(
    command_queue: &mut CommandQueue,
    resolved: &Resolved,
    clock: usize,
    setting: &TimerSetting,
) -> Result<i64> {
    let queue = timers::queue_of(clock, setting);
    let known = resolved.shared.clocks.load(Relaxed) | command_queue.clocks;
    if !resolved.shared.is_virtual() && known >> queue & 1 == 0 {
        command_queue.reserve_commands(1)?;
        let fd = clocks::create_fd(queue)?;
        command_queue.commands.push_reserved(Command::Clock(queue, fd));
        command_queue.clocks |= 1 << queue;
    }
    if setting.absolute {
        return Ok(setting.initial);
    }
    Ok(resolved.shared.now(queue).saturating_add(setting.initial))
}

/// See evloop_add_async and its like.
pub(crate) fn add_plain(handle: i64, source: Source, target: Target) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.with(
        |state| state.add_plain(source, target),
        |command_queue| {
            if source == Source::ClockChange {
                let never = TimerSetting {
                    absolute: true,
                    period: timers::Period::Skip,
                    initial: 0,
                    interval: 0,
                };
                remote_deadline(command_queue, &resolved, clocks::REALTIME, &never)?;
            }
            let fresh = new_remote_watcher(command_queue, &resolved, source, target)?;
            fresh.slot.aux.store(0, Relaxed);
            if source == Source::Defer {
                fresh.slot.set(COMING);
            }
            let handle = fresh.handle();
            Ok(command_queue.publish(&fresh, &resolved, Command::Add(handle)))
        },
    )
}

/// Makes a change to a watcher.
#[inline]
pub(crate) fn change(handle: i64, change: Change) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    resolved.with(
        |state| state.change(resolved.handle.index, resolved.slot, change),
        |command_queue| {
            command_queue.reserve_commands(1)?;
            command_queue.commands.push_reserved(Command::Change(handle, change));
            Ok(())
        },
    )
}

fn of_source(handle: i64, source: Source) -> Result<Resolved> {
    let found = resolve(handle, Kind::Watcher)?;
    if Source::of(found.slot.flags.load(Relaxed)) == source {
        return Ok(found);
    }
    // Or it was closed by now, and is another watcher's.
    resolve(handle, Kind::Watcher)?;
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
pub(crate) fn timer_set(handle: i64, setting: TimerSetting) -> Result<()> {
    let resolved = of_source(handle, Source::Timer)?;
    resolved.with(
        |state| state.timer_set(resolved.handle.index, resolved.slot, &setting, None),
        |command_queue| {
            command_queue.reserve_commands(2)?;
            let clock = resolved.slot.flags.load(Relaxed) >> CLOCK_SHIFT & CLOCK_MASK;
            let deadline = remote_deadline(command_queue, &resolved, clock as usize, &setting)?;
            command_queue.commands.push_reserved(Command::Set(handle, setting, deadline));
            Ok(())
        },
    )
}

/// See evloop_timer_again.
#[inline]
pub(crate) fn timer_again(handle: i64) -> Result<()> {
    let resolved = of_source(handle, Source::Timer)?;
    resolved.with(
        |state| state.timer_again(resolved.handle.index, resolved.slot, None),
        |command_queue| {
            command_queue.reserve_commands(1)?;
            let flags = resolved.slot.flags.load(Relaxed);
            let mut queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
            let mut period = resolved.slot.aux.load(Relaxed).cast_signed();
            let mut allowed = flags & AGAIN != 0;
            // What was asked for and not done yet counts, too.
            if let Some(setting) =
                command_queue.commands.iter().rev().find_map(|c| c.sets(handle)?.0)
            {
                queue = timers::queue_of((flags >> CLOCK_SHIFT & CLOCK_MASK) as usize, &setting);
                period = setting.period_ns();
                allowed = setting.initial >= 0 && setting.may_start_again();
            }
            if !allowed {
                return Err(timers::never_relative());
            }
            let now = resolved.shared.now(queue);
            command_queue
                .commands
                .push_reserved(Command::Again(handle, now.saturating_add(period)));
            Ok(())
        },
    )
}

/// See evloop_timer_remaining_ns.
pub(crate) fn timer_remaining(handle: i64) -> Result<i64> {
    let resolved = of_source(handle, Source::Timer)?;
    resolved.with(
        |state| Ok(state.timer_remaining(resolved.handle.index, resolved.slot)),
        |command_queue| {
            let flags = resolved.slot.flags.load(Relaxed);
            let mut queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
            let mut deadline = resolved.slot.node.deadline().filter(|_| flags & SET != 0);
            // What was asked for and not done yet counts, too.
            if let Some((setting, asked)) =
                command_queue.commands.iter().rev().find_map(|c| c.sets(handle))
            {
                if let Some(setting) = setting {
                    let clock = (flags >> CLOCK_SHIFT & CLOCK_MASK) as usize;
                    queue = timers::queue_of(clock, &setting);
                }
                deadline = asked;
            }
            let now = resolved.shared.now(queue);
            Ok(deadline.map_or(i64::MAX, |deadline| deadline.saturating_sub(now).max(0)))
        },
    )
}

/// See evloop_watcher_loop.
pub(crate) fn loop_of(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Watcher)?;
    resolved.with(|state| Ok(state.shared.handle()), |_| Ok(resolved.shared.handle()))
}

/// See evloop_watcher_set_name.
pub(crate) fn set_name(handle: i64, name: Option<&[u8]>) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    let bytes = name.unwrap_or_default();
    let Some(copy) = try_copy(bytes) else {
        fail!(ENOMEM, "no memory for a name of {} bytes", bytes.len() as i64);
    };
    let mut command_queue = resolved.lock()?;
    if name.is_none() {
        command_queue.names.remove(&handle);
        return Ok(());
    }
    if command_queue.names.try_put(handle, copy).is_err() {
        fail!(ENOMEM, "no memory for a name");
    }
    drop(command_queue);
    // So that closing it forgets the name; if it was closed by now:
    change(handle, Change::Named).inspect_err(|_| {
        resolved.shared.lock_commands().names.remove(&handle);
    })
}

/// See evloop_watcher_get_name.
pub(crate) fn get_name(handle: i64, out: &mut Out<u8>) -> Result<usize> {
    let resolved = resolve(handle, Kind::Watcher)?;
    let command_queue = resolved.lock()?;
    let name = command_queue.names.get(&handle).map(|name| &**name).unwrap_or_default();
    out.push_text(name);
    out.end_text();
    Ok(name.len())
}

/// See evloop_watcher_set_destroy.
pub(crate) fn set_destroy(handle: i64, target: Target) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    // Taken by one of the two.
    let node = Cell::new(Some(Destroy::of(handle, target)?));
    resolved.with(
        |state| match node.take() {
            Some(node) => state.set_destroy(resolved.handle.index, resolved.slot, node),
            None => Ok(()),
        },
        |command_queue| {
            command_queue.reserve_commands(1)?;
            if let Some(node) = node.take() {
                command_queue.commands.push_reserved(Command::Destroy(node));
            }
            Ok(())
        },
    )
}

/// See evloop_watcher_close.
pub(crate) fn watcher_close(handle: i64, wait: bool) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    if resolved.shared.is_mine() {
        let close = |state: &mut LoopState| {
            if wait && state.current == handle {
                fail!(EDEADLK, "watcher {} would wait for its own callback", handle);
            }
            state.close(&resolved)
        };
        // SAFETY: as was just asked.
        return unsafe { resolved.with_mine(close) };
    }
    let mut command_queue = resolved.lock_any()?;
    if resolved.shared.is_inherited() {
        close_inherited(&resolved);
        return Ok(());
    }
    // An epoll that is not the loop's any more is not changed.
    let _ = resolved.check_epoll(&mut command_queue);
    if !command_queue.running {
        return resolved.with_idle(command_queue, |state| state.close(&resolved));
    }
    let wake = resolved.shared.set_has_commands();
    let closed = close_remotely(&mut command_queue, &resolved);
    if wait && closed.is_ok() {
        drop(wake);
        resolved.shared.wait_for_callback(command_queue);
    } else {
        drop(command_queue);
        drop(wake);
    }
    closed
}

/// Closes a watcher of a loop that another thread runs.
fn close_remotely(command_queue: &mut CommandQueue, resolved: &Resolved) -> Result<()> {
    let slot = resolved.slot;
    let flags = slot.flags.load(Relaxed);
    let deregistered = Source::of(flags).is_descriptor() && io::is_registered(flags);
    // Closing does not fail: without memory for a command the slot says it.
    let is_listed = command_queue.reserve_commands(1).is_ok();
    let is_closed = match is_listed {
        true => slot.close(resolved.handle),
        false => slot.close_unlisted(resolved.handle, deregistered),
    };
    if !is_closed {
        return handle::stale(resolved.handle.pack());
    }
    resolved.shared.count_from_outside(-1);
    if deregistered && resolved.shared.has_epoll() {
        // If others watch it, too, the loop registers it again for them.
        // Closed before, perhaps: then the kernel knows it no more.
        let _ = epoll::delete(command_queue.epoll, io::fd_of(slot));
    }
    if is_listed {
        command_queue.commands.push_reserved(Command::Close(resolved.handle.pack(), deregistered));
    } else {
        command_queue.unlisted = true;
    }
    Ok(())
}

/// Closes a watcher of the parent's loop, in a child, where that loop cannot
/// be touched: only the handle.
fn close_inherited(resolved: &Resolved) {
    if resolved.slot.close(resolved.handle) {
        resolved.shared.count_from_outside(-1);
    }
}
