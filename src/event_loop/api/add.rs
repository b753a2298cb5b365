//! Entry points that add watchers, from any thread: done at once where the loop
//! may be touched, else queued in its command queue.

use super::fast_path;
use crate::errno::{Result, fail};
use crate::event_loop::adding::{NewWatcher, prepare_timer, set_subject};
use crate::event_loop::clock_ids::REALTIME;
use crate::event_loop::command::{Command, CommandQueue, RegisteredAs};
use crate::event_loop::event::Target;
use crate::event_loop::fd_source::{AddedSource, FdSource};
use crate::event_loop::flags::*;
use crate::event_loop::node_list::ListNode;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::sinks::{NewSignal, SignalMode};
use crate::event_loop::slot::{self, LIVE};
use crate::event_loop::source::io_epoll;
use crate::event_loop::source::io_slot;
use crate::event_loop::source::object::{self, ObjectRef};
use crate::event_loop::source::pressure::pressure_source;
use crate::event_loop::source::process::process_source;
use crate::event_loop::source::{clocks, signals};
use crate::event_loop::timer_setting::{self, NewTimer, TimerSetting};
use crate::file_watch::{PendingTree, WatchRequest, WatchRoot};
use crate::handle::{self, Kind};
use crate::signal_hub;
use crate::sync::Ordering::Relaxed;
use crate::sys::pressure::Trigger;
use crate::sys::signal;
use crate::util::alloc::TryVec;
use crate::util::try_box;
use crate::wait::refuse_own;
use std::cell::Cell;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// A slot for a watcher that another thread than the loop's adds.
fn new_remote_watcher(
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

/// Makes a watcher live that another thread than the loop's adds.
fn publish(
    command_queue: &mut CommandQueue,
    fresh: &NewWatcher,
    resolved: &Resolved,
    command: Command,
) -> i64 {
    let handle = fresh.handle();
    fresh.slot.set_state(LIVE);
    resolved.shared.count_from_outside(1);
    command_queue.commands.push_reserved(command);
    handle
}

/// See evloop_add_io.
pub(crate) fn add_io(handle: i64, fd: RawFd, events: u32, target: Target) -> Result<i64> {
    io_slot::check_events(events)?;
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
    add_fd_source(handle, source, object::object_source(object_ref)?, target)
}

/// A watcher of something that has a descriptor, and is asked what happened.
fn add_fd_source(
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
            io_slot::fill(fresh.slot, fd, events);
            let registered = match io_epoll::register(
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
            Ok(publish(command_queue, &fresh, &resolved, command))
        },
    )
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

/// How much of a tree is read before the loop may look at its files.
const IN_A_PIECE: usize = 1024;

/// Adds what is left of a tree, from another thread. The command queue's lock
/// is not held: the loop goes on.
fn add_rest(
    resolved: &Resolved,
    id: u32,
    mut rest: PendingTree,
    root: WatchRoot<'_>,
) -> Result<()> {
    loop {
        let mut file_state = resolved.shared.files.lock();
        // Under the lock: it is another loop's otherwise.
        resolved.check()?;
        if resolved.shared.handle() != resolved.handle.pack() {
            return handle::stale(resolved.handle.pack());
        }
        if !file_state.add_more(id, &mut rest, IN_A_PIECE, root)? {
            return Ok(());
        }
        drop(file_state);
        std::thread::yield_now();
    }
}

fn finish_file(
    resolved: &Resolved,
    fresh: &NewWatcher,
    rest: PendingTree,
    request: &WatchRequest<'_>,
) -> Result<i64> {
    let added = add_rest(resolved, fresh.index, rest, request.root);
    let published = added.and_then(|()| {
        resolved.with(
            |state| Ok(state.publish_file(fresh)),
            |command_queue| {
                command_queue.reserve_commands(1)?;
                Ok(publish(command_queue, fresh, resolved, Command::AddFile(fresh.handle())))
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
            Ok(publish(command_queue, &fresh, &resolved, command))
        },
    )
}

/// When a timer expires that another thread than the loop's sets now.
pub(super) fn remote_deadline(
    command_queue: &mut CommandQueue,
    resolved: &Resolved,
    clock: usize,
    setting: &TimerSetting,
) -> Result<i64> {
    let queue = timer_setting::queue_of(clock, setting);
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
                    period: timer_setting::Period::Skip,
                    initial: 0,
                    interval: 0,
                };
                remote_deadline(command_queue, &resolved, REALTIME, &never)?;
            }
            let fresh = new_remote_watcher(command_queue, &resolved, source, target)?;
            fresh.slot.aux.store(0, Relaxed);
            if source == Source::Defer {
                fresh.slot.set(COMING);
            }
            let handle = fresh.handle();
            Ok(publish(command_queue, &fresh, &resolved, Command::Add(handle)))
        },
    )
}

/// See evloop_add_signal.
pub(crate) fn add_signal(
    handle: i64,
    number: c_int,
    mode: SignalMode,
    target: Target,
) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let signal = signal_hub::check(i64::from(number).cast_unsigned())?;
    if mode == SignalMode::Blocked {
        check_blocked(signal)?;
    }
    resolved.with(
        |state| state.add_signal(signal, mode, target),
        |command_queue| {
            let signalfd = match mode {
                SignalMode::Blocked => Some(signal::descriptor(signal::bit(signal))?),
                SignalMode::Handler { .. } => None,
            };
            let (claim, seen) = signals::claim(resolved.shared, signal, mode)?;
            let fresh = new_remote_watcher(command_queue, &resolved, Source::Signal, target)?;
            fresh.slot.node.third_spare().store(signal.into(), Relaxed);
            let command = Command::AddSignal(fresh.handle(), NewSignal { claim, seen, signalfd });
            Ok(publish(command_queue, &fresh, &resolved, command))
        },
    )
}

fn check_blocked(signal: c_int) -> Result<()> {
    if signal::query(signal).is_err() {
        fail!(EINVAL, "signal {} cannot be watched", signal);
    }
    if signal::blocked() & signal::bit(signal) == 0 {
        fail!(EBUSY, "this thread has not blocked signal {}", signal);
    }
    Ok(())
}

/// See evloop_add_process.
pub(crate) fn add_process(handle: i64, pid: c_int, reap: bool, target: Target) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let process = process_source(pid, reap, &resolved.shared.own)?;
    add_fd_source(handle, Source::Process, process, target)
}

/// See evloop_add_memory_pressure.
pub(crate) fn add_memory_pressure(
    handle: i64,
    path: Option<&[u8]>,
    trigger: Trigger,
    target: Target,
) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let pressure = pressure_source(path, trigger, &resolved.shared.own)?;
    add_fd_source(handle, Source::MemoryPressure, pressure, target)
}
