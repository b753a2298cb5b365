//! What other threads have queued for a loop is done here, on the thread that may
//! touch its state.

use super::command::{Command, CommandQueue};
use super::flags::*;
use super::slot::{self, CLOSING, WatcherSlot};
use super::state::LoopState;
use super::wake_state;
use crate::errno::Result;
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;

/// Room for more commands than this is not kept.
const MANY_COMMANDS: usize = 1024;

impl LoopState {
    /// Does what others queued in the command queue.
    #[inline]
    pub fn apply_commands(&mut self, command_queue: &mut CommandQueue) {
        self.mark_changed();
        self.ctx.slots.settle();
        if self.ctx.shared.has_commands() || command_queue.has_commands() || self.instrumented {
            self.receive_all(command_queue);
        }
    }

    #[inline(never)]
    fn receive_all(&mut self, command_queue: &mut CommandQueue) {
        self.ctx.shared.wake_state.take(wake_state::HAS_COMMANDS);
        if self.instrumented {
            // What came before what they may ask for.
            self.probe_flush_locked(command_queue);
        }
        // Others' timers count from their calls: nothing is left to be found
        // out about them.
        let in_callback = std::mem::replace(&mut self.ctx.in_callback, false);
        command_queue.clocks = 0;
        for command in command_queue.commands.drain(..) {
            self.apply(command);
        }
        if command_queue.commands.capacity() > MANY_COMMANDS {
            command_queue.commands.try_shrink(0);
        }
        if std::mem::take(&mut command_queue.unlisted) {
            self.close_unlisted();
        }
        self.ctx.in_callback = in_callback;
    }

    /// Takes the calls that others posted.
    pub fn take_posts(&mut self) {
        let shared = self.ctx.shared;
        let mut taken = shared.wake_state.take_posts(shared.handle(), |stale| {
            if stale.value().destroy.is_some() {
                self.stale_posts.push(stale);
            }
        });
        if !self.stale_posts.is_empty() {
            shared.pending_work.set();
        }
        self.posts.append(&mut taken);
        self.publish_posts();
        if shared.has_commands() {
            // What was asked for before something was posted comes before.
            self.apply_commands(&mut shared.lock_commands());
        }
    }

    fn apply(&mut self, command: Command) {
        let result = match command {
            Command::Block(block) => {
                self.ctx.slots.attach_block(block);
                Ok(())
            }
            Command::Clock(clock, fd) => self
                .timers
                .adopt_clock(&mut self.ctx, &mut self.io, clock, fd)
                .map_err(|error| (0, error)),
            Command::Add(handle) => self.on_new_watcher(handle, |state, index, slot| {
                if Source::of(slot.flags.load(Relaxed)) == Source::Defer {
                    slot.unset(COMING);
                }
                state.add_to_list(index, slot)
            }),
            Command::AddFile(handle) => self.on_new_watcher(handle, |state, index, _| {
                state.files.added(&mut state.ctx, &mut state.io, index);
                Ok(())
            }),
            Command::AddIo(handle, registered) => self
                .on_new_watcher(handle, |state, index, slot| {
                    state.io.added_late(&mut state.ctx, index, slot, registered)
                }),
            Command::AddObject(handle, registered, node) => {
                self.on_new_watcher(handle, |state, index, slot| {
                    state.fd_sources.insert_late(node);
                    state.io.added_late(&mut state.ctx, index, slot, registered)
                })
            }
            Command::AddSignal(handle, new) => self.on_new_watcher(handle, |state, index, slot| {
                state.signals.added(&mut state.ctx, &mut state.io, index, slot, new)
            }),
            Command::AddTimer { handle, setting, deadline } => {
                self.on_new_watcher(handle, |state, index, slot| {
                    slot.unset(COMING);
                    state.set_timer(index, slot, &setting, Some(deadline))
                })
            }
            Command::Close(handle, deregistered) => {
                if let Some((index, slot)) = closing(handle) {
                    self.finish_close(index, slot, deregistered);
                }
                Ok(())
            }
            Command::Change(handle, change) => {
                self.on_watcher(handle, |state, index, slot| state.change(index, slot, change))
            }
            Command::Destroy(node) => {
                let handle = node.to();
                self.on_watcher(handle, |state, index, slot| {
                    state.set_destroy_late(index, slot, node);
                    Ok(())
                })
            }
            Command::Set(handle, setting, deadline) => self
                .on_watcher(handle, |state, index, slot| {
                    state.set_timer(index, slot, &setting, Some(deadline))
                }),
            Command::Again(handle, deadline) => self.on_watcher(handle, |state, index, slot| {
                state.timers.again(&mut state.ctx, index, slot, Some(deadline))
            }),
            Command::Advance(ns) => {
                self.advance(ns);
                Ok(())
            }
            Command::Probe(change) => {
                self.change_probe(change);
                Ok(())
            }
        };
        if let Err((handle, error)) = result {
            self.ctx.fail(handle, error.errno);
        }
    }

    /// For a watcher that another thread made.
    fn on_new_watcher(
        &mut self,
        handle: i64,
        add: impl FnOnce(&mut Self, u32, &'static WatcherSlot) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        self.on_watcher(handle, |state, index, slot| {
            if slot.has(RECORDS) {
                // If there is no memory, it is looked for again when an event
                // is there.
                state.ctx.pending.expect_watcher();
            }
            add(state, index, slot)
        })
    }

    /// For a watcher that another thread made or changed, and perhaps closed
    /// since: then what it asked for before still counts.
    fn on_watcher(
        &mut self,
        handle: i64,
        change: impl FnOnce(&mut Self, u32, &'static WatcherSlot) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        let live = slot::live(handle);
        let Some((index, slot)) = live.or_else(|| closing(handle)) else { return Ok(()) };
        self.ctx.count_liveness(slot);
        change(self, index, slot).map_err(|error| (handle, error))
    }
}

/// The watcher of a handle that is marked closing.
fn closing(handle: i64) -> Option<(u32, &'static WatcherSlot)> {
    let handle = Handle::unpack_as(handle, Kind::Watcher)?;
    let slot = slot::get(handle.index).filter(|slot| slot.is(handle, CLOSING))?;
    Some((handle.index, slot))
}
