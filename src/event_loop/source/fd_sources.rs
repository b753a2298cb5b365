//! What a loop watches besides the program's descriptors; see [`FdSource`].
//!
//! Their descriptors lie in the loop's epoll as those of the program do; when
//! one is ready the loop asks what happened.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::event::Event;
use crate::event_loop::fd_source::{AddedSource, FdSource, Readiness};
use crate::event_loop::flags::{FINISHED, REAPS};
use crate::event_loop::node_list::{ListNode, NodeList};
use crate::event_loop::slot::{self, WatcherSlot};
use crate::event_loop::state::LoopState;
use crate::handle::Kind;
use crate::sys::epoll;
use crate::util::alloc::TryMap;

impl LoopState {
    /// Keeps what is watched with its watcher.
    pub fn insert_fd_source(&mut self, index: u32, fd_source: Box<dyn FdSource>) -> Result<()> {
        self.fd_sources.try_put(index, fd_source)?;
        Ok(())
    }

    /// The same, of one that another thread has added: without memory it stays
    /// in its node, until there is some.
    pub fn insert_fd_source_late(&mut self, node: Box<ListNode<AddedSource>>) {
        self.late_fd_sources.push(node);
        self.settle_fd_sources();
    }

    /// Tries again what there was no memory for.
    fn settle_fd_sources(&mut self) {
        while !self.late_fd_sources.is_empty() && self.fd_sources.try_reserve(1).is_ok() {
            let Some(AddedSource { index, fd_source }) = self.late_fd_sources.pop() else { return };
            self.fd_sources.insert_reserved(index, fd_source);
        }
    }

    /// Takes what a watcher watches away from it.
    pub fn take_fd_source(&mut self, index: u32) -> Option<Box<dyn FdSource>> {
        let mut found = self.fd_sources.remove(&index);
        if !self.late_fd_sources.is_empty() {
            let mut others = NodeList::new();
            while let Some(mut node) = self.late_fd_sources.take() {
                if node.value_mut().index == index {
                    found = Some(node.into_value().fd_source);
                } else {
                    others.push(node);
                }
            }
            self.late_fd_sources = others;
        }
        found
    }

    /// Reports an error to the watchers whose objects were closed. The loop was
    /// woken.
    pub fn check_fd_sources(&mut self) {
        self.settle_fd_sources();
        while let Some(index) = self.find_fd_source(|fd_source| fd_source.is_closed()) {
            self.fd_source_lost(index, Errno::ESTALE);
        }
    }

    fn find_fd_source(&self, is_it: impl Fn(&dyn FdSource) -> bool) -> Option<u32> {
        self.fd_sources.iter().find_map(|(index, fd_source)| is_it(&**fd_source).then_some(*index))
    }

    /// What a watcher watches is gone: reports this error to the watcher.
    fn fd_source_lost(&mut self, index: u32, errno: Errno) {
        if let Some(slot) = slot::get(index) {
            self.io.detach(&mut self.ctx, index, slot);
            self.ctx.fail(slot.handle(Kind::Watcher, index), errno);
        }
        // Its descriptor is closed here.
        self.take_fd_source(index);
    }

    /// After a look that found so many events, where others poll the loop's
    /// descriptor: adds those that they have taken. How many there are then.
    #[cold]
    pub fn add_consumed(&mut self, found: usize) -> usize {
        let mut count = found;
        for (index, fd_source) in &mut self.fd_sources {
            let Some(slot) = slot::get(*index) else { continue };
            let word = slot.handle(Kind::Watcher, *index).cast_unsigned();
            let (events, rest) = self.events.split_at_mut(count.min(self.events.len()));
            // SAFETY: as many are filled in.
            let is_found = events.iter().any(|event| unsafe { event.assume_init() }.u64 == word);
            if let Some(out) = rest.first_mut().filter(|_| !is_found)
                && let Some(events) = fd_source.was_consumed()
            {
                out.write(epoll::Event { events, u64: word });
                count += 1;
            }
        }
        count
    }

    /// In a forked child; can be tried again.
    pub fn revive_fd_sources(&mut self) -> Result<()> {
        self.settle_fd_sources();
        if !self.late_fd_sources.is_empty() {
            fail!(ENOMEM, "no memory for what the loop watches");
        }
        let mut fd_sources = std::mem::take(&mut self.fd_sources);
        let mut result = Ok(());
        fd_sources.retain(|index, fd_source| match fd_source.revive() {
            Ok(()) => true,
            Err(errno) if errno.is_shortage() => {
                result = Err(errno.into());
                true
            }
            Err(errno) => {
                self.fd_source_lost(*index, errno);
                false
            }
        });
        self.fd_sources = fd_sources;
        self.check_fd_sources();
        result
    }

    /// The watcher is not reported any more, and has no descriptor.
    fn finish_fd_source(&mut self, index: u32, slot: &WatcherSlot, stays: bool) {
        slot.set(if stays { FINISHED | REAPS } else { FINISHED });
        self.io.detach(&mut self.ctx, index, slot);
        // A thread that closes the watcher removes its fd from the kernel's
        // set, with this lock: it either has, or sees that there is nothing to
        // remove. From here on the fd can be used again.
        drop(self.ctx.shared.lock_commands());
        if !stays {
            self.take_fd_source(index);
        }
    }

    /// The last event of a watcher is about to be delivered.
    pub fn deliver_fd_source(&mut self, index: u32, slot: &WatcherSlot, event: &mut Event) {
        slot.unset(REAPS);
        if let Some(mut fd_source) = self.take_fd_source(index)
            && let Some(payload) = fd_source.deliver(event)
        {
            self.ctx.payloads.replace(event.reserved, payload);
        }
    }
}

/// Polls the source of a watcher; false: there is no event to deliver.
pub(in crate::event_loop) fn poll_source(
    state: &mut LoopState,
    index: u32,
    slot: &WatcherSlot,
    ready: u32,
    event: &mut Event,
) -> bool {
    state.settle_fd_sources();
    let Some(fd_source) = state.fd_sources.get_mut(&index) else { return false };
    match fd_source.poll(ready, event) {
        Readiness::Ready => true,
        Readiness::Final(payload, reaps) => {
            event.reserved = state.ctx.payloads.add(event.watcher, payload);
            state.finish_fd_source(index, slot, reaps);
            true
        }
        Readiness::Lost(errno) => {
            state.io.detach(&mut state.ctx, index, slot);
            // A thread that closes the watcher removes the fd from the kernel's
            // set, with this lock: it has, or sees that it need not.
            drop(state.ctx.shared.lock_commands());
            state.fd_source_lost(index, errno);
            false
        }
        Readiness::NotReady => {
            if fd_source.is_closed() {
                state.check_fd_sources();
            }
            false
        }
    }
}
