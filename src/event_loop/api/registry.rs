//! Entry points of loops as a whole: made, closed, and revived in a forked child.

use super::watchers::watcher_close;
use crate::errno::{Result, fail};
use crate::event_loop::command::CommandQueue;
use crate::event_loop::file_state::FileState;
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::ownership::Locked;
use crate::event_loop::registry::{after_fork, count, kind_of, recycle, take, tear_down};
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::shared::{LoopShared, REAL_TIME, UNKNOWN};
use crate::event_loop::sinks::Sinks;
use crate::event_loop::slot::{self, LOOP};
use crate::event_loop::state::LoopState;
use crate::handle::{self, Handle, Kind};
use crate::hash::Map;
use crate::sync::{MutexGuard, Ordering::*};
use crate::sys::{fork, thread};

/// Loops and watchers, for the table of all handles.
static EXTERNAL_OBJECTS: handle::ExternalObjects =
    handle::ExternalObjects { after_fork, kind_of, count, close: close_any };

fn close_any(handle: i64) -> Result<()> {
    match Handle::unpack(handle) {
        Some(Handle { kind: Kind::Loop, .. }) => close(handle),
        _ => watcher_close(handle, false),
    }
}

/// A new loop; its handle.
pub(super) fn open(
    make: impl FnOnce(&'static LoopShared) -> Result<Box<LoopState>>,
) -> Result<i64> {
    let epoch = handle::epoch();
    handle::set_external_objects(&EXTERNAL_OBJECTS);
    let (shared, index) = take()?;
    let state = match make(shared) {
        Ok(state) => state,
        Err(error) => {
            recycle(Some(shared), index);
            return Err(error);
        }
    };
    let Some(slot) = slot::get(index) else { return handle::stale(0) };
    let handle = slot.handle(Kind::Loop, index);
    let mut command_queue = shared.lock_commands();
    command_queue.epoll = state.ctx.epoll();
    state.ctx.be_woken();
    shared.own.clear();
    shared.own.set(OwnFd::Epoll, state.ctx.epoll());
    shared.own.set(OwnFd::Eventfd, state.ctx.eventfd.raw());
    shared.epoch.store(epoch, Relaxed);
    shared.damage.store(0, Relaxed);
    shared.time.store(UNKNOWN, Relaxed);
    shared.posts.store(0, Relaxed);
    shared.failures.store(0, Relaxed);
    shared.options.store(state.options, Relaxed);
    shared.timer_tolerance.store(state.timers.tolerance, Relaxed);
    shared.holds.store(0, Relaxed);
    shared.busy_poll.store(0, Relaxed);
    shared.virtual_now.store(if state.ctx.virtual_time { 0 } else { REAL_TIME }, Relaxed);
    // SAFETY: no thread uses the shared part yet, and this thread has the lock.
    unsafe { shared.lifecycle().begin(&mut command_queue, state, handle) };
    drop(command_queue);
    slot.set_shared(shared);
    slot.set_state(LOOP);
    Ok(handle)
}

/// Closes a loop: now, or when the run that is going on notices.
pub(crate) fn close(handle: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let shared = resolved.shared;
    let mut command_queue = resolved.lock_any()?;
    if shared.epoch.load(Relaxed) != fork::current() {
        abandon(&resolved, command_queue);
        return Ok(());
    }
    if !command_queue.running {
        if shared.damage.load(Relaxed) == 0 {
            // SAFETY: no thread runs the loop, and this one has the command
            // queue's lock.
            unsafe { shared.with_state(|state| state.apply_commands(&mut command_queue)) }?;
        }
        resolved.slot.free();
        tear_down(shared, command_queue).notify();
        return Ok(());
    }
    let wake = shared.lifecycle().close_running(&mut command_queue, shared, resolved.slot.word());
    drop(command_queue);
    drop(wake);
    Ok(())
}

/// Closes a loop of the parent process, in a child: its descriptors here,
/// and no more, since it may be in the middle of something.
fn abandon(resolved: &Resolved, mut command_queue: MutexGuard<'static, Locked<CommandQueue>>) {
    let shared = resolved.shared;
    resolved.slot.free();
    shared.handle.store(0, Relaxed);
    shared.wake_state.assign(0);
    shared.disable_wakeups();
    let is_sound = shared.damage.load(Relaxed) == 0;
    // SAFETY: no other thread of this process uses the parent's loop; where it
    // forked in a callback, its run borrows nothing of the state.
    let _ = unsafe { shared.with_state(|state| state.abandon(is_sound)) };
    command_queue.names = Map::default();
    *shared.priorities.lock() = Map::default();
    *shared.files.lock() = FileState::default();
    *shared.sinks.lock() = Sinks::default();
    let telemetry =
        (command_queue.stats.take(), command_queue.trace.take(), command_queue.watchdog.take());
    drop(command_queue);
    drop(telemetry);
}

/// Makes a loop of the parent process this one's.
pub(crate) fn revive(handle: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let shared = resolved.shared;
    let mut command_queue = resolved.lock_any()?;
    let epoch = fork::current();
    if shared.epoch.load(Relaxed) == epoch {
        return Ok(());
    }
    if shared.damage.load(Relaxed) != 0 {
        fail!(EBUSY, "loop {} was in use by another thread when the process forked", handle);
    }
    if !command_queue.running {
        // In the child no call has ended the activity of the callback that
        // forked.
        shared.activity.exit();
    }
    let watchdog_handle = super::telemetry::revive(&mut command_queue)?;
    let act = |state: &mut LoopState| -> Result<()> {
        state.revive(&mut command_queue)?;
        state.revive_probe(&mut command_queue, watchdog_handle);
        state.ctx.be_woken();
        command_queue.epoll = state.ctx.epoll();
        Ok(())
    };
    // SAFETY: no other thread of this process uses the loop yet, and this one
    // has the command queue's lock; where it forked in a callback, its run
    // borrows nothing of the state.
    unsafe { shared.with_state(act) }??;
    if command_queue.running {
        shared.owner.adopt(thread::current());
    }
    shared.epoch.store(epoch, Relaxed);
    // The run that the fork ended may have taken the word, and left what it
    // stood for.
    shared.pending_work.set();
    Ok(())
}
