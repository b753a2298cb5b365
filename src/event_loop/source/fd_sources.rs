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
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::io::Io;
use crate::handle::Kind;
use crate::hash::Map;
use crate::sys::epoll;
use crate::util::alloc::TryMap;
use std::mem::MaybeUninit;

/// What the watchers of a loop watch that watch more than a descriptor.
#[derive(Default)]
pub(in crate::event_loop) struct FdSources {
    /// By the slots of their watchers.
    map: Map<u32, Box<dyn FdSource>>,
    /// Those for which there was no room in that yet.
    late: NodeList<AddedSource>,
}

impl FdSources {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// See `LoopState::abandon`.
    pub fn abandon(&self) {
        self.map.values().for_each(|fd_source| fd_source.abandon());
    }

    /// Keeps what is watched with its watcher.
    pub fn insert(&mut self, index: u32, fd_source: Box<dyn FdSource>) -> Result<()> {
        self.map.try_put(index, fd_source)?;
        Ok(())
    }

    /// The same, of one that another thread has added: without memory it stays
    /// in its node, until there is some.
    pub fn insert_late(&mut self, node: Box<ListNode<AddedSource>>) {
        self.late.push(node);
        self.settle();
    }

    /// Tries again what there was no memory for.
    fn settle(&mut self) {
        while !self.late.is_empty() && self.map.try_reserve(1).is_ok() {
            let Some(AddedSource { index, fd_source }) = self.late.pop() else { return };
            self.map.insert_reserved(index, fd_source);
        }
    }

    /// Takes what a watcher watches away from it.
    pub fn take(&mut self, index: u32) -> Option<Box<dyn FdSource>> {
        let mut found = self.map.remove(&index);
        if !self.late.is_empty() {
            let mut others = NodeList::new();
            while let Some(mut node) = self.late.take() {
                if node.value_mut().index == index {
                    found = Some(node.into_value().fd_source);
                } else {
                    others.push(node);
                }
            }
            self.late = others;
        }
        found
    }

    /// Reports an error to the watchers whose objects were closed. The loop was
    /// woken.
    pub fn check(&mut self, ctx: &mut SourceCtx, io: &mut Io) {
        self.settle();
        while let Some(index) = self.find(|fd_source| fd_source.is_closed()) {
            self.lost(ctx, io, index, Errno::ESTALE);
        }
    }

    fn find(&self, is_it: impl Fn(&dyn FdSource) -> bool) -> Option<u32> {
        self.map.iter().find_map(|(index, fd_source)| is_it(&**fd_source).then_some(*index))
    }

    /// What a watcher watches is gone: reports this error to the watcher.
    fn lost(&mut self, ctx: &mut SourceCtx, io: &mut Io, index: u32, errno: Errno) {
        if let Some(slot) = slot::get(index) {
            io.detach(ctx, index, slot);
            ctx.fail(slot.handle(Kind::Watcher, index), errno);
        }
        // Its descriptor is closed here.
        self.take(index);
    }

    /// After a look that found so many events, where others poll the loop's
    /// descriptor: adds those that they have taken. How many there are then.
    #[cold]
    pub fn add_consumed(
        &mut self,
        events: &mut [MaybeUninit<epoll::Event>],
        found: usize,
    ) -> usize {
        let mut count = found;
        for (index, fd_source) in &mut self.map {
            let Some(slot) = slot::get(*index) else { continue };
            let word = slot.handle(Kind::Watcher, *index).cast_unsigned();
            let (known, rest) = events.split_at_mut(count.min(events.len()));
            // SAFETY: as many are filled in.
            let is_found = known.iter().any(|event| unsafe { event.assume_init() }.u64 == word);
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
    pub fn revive(&mut self, ctx: &mut SourceCtx, io: &mut Io) -> Result<()> {
        self.settle();
        if !self.late.is_empty() {
            fail!(ENOMEM, "no memory for what the loop watches");
        }
        let mut fd_sources = std::mem::take(&mut self.map);
        let mut result = Ok(());
        fd_sources.retain(|index, fd_source| match fd_source.revive() {
            Ok(()) => true,
            Err(errno) if errno.is_shortage() => {
                result = Err(errno.into());
                true
            }
            Err(errno) => {
                self.lost(ctx, io, *index, errno);
                false
            }
        });
        self.map = fd_sources;
        self.check(ctx, io);
        result
    }

    /// The watcher is not reported any more, and has no descriptor.
    fn finish(
        &mut self,
        ctx: &mut SourceCtx,
        io: &mut Io,
        index: u32,
        slot: &WatcherSlot,
        stays: bool,
    ) {
        slot.set(if stays { FINISHED | REAPS } else { FINISHED });
        io.detach(ctx, index, slot);
        // A thread that closes the watcher removes its fd from the kernel's
        // set, with this lock: it either has, or sees that there is nothing to
        // remove. From here on the fd can be used again.
        drop(ctx.shared.lock_commands());
        if !stays {
            self.take(index);
        }
    }

    /// The last event of a watcher is about to be delivered.
    pub fn deliver(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        event: &mut Event,
    ) {
        slot.unset(REAPS);
        if let Some(mut fd_source) = self.take(index)
            && let Some(payload) = fd_source.deliver(event)
        {
            ctx.payloads.replace(event.reserved, payload);
        }
    }

    /// Polls the source of a watcher; false: there is no event to deliver.
    pub fn poll(
        &mut self,
        ctx: &mut SourceCtx,
        io: &mut Io,
        index: u32,
        slot: &WatcherSlot,
        ready: u32,
        event: &mut Event,
    ) -> bool {
        self.settle();
        let Some(fd_source) = self.map.get_mut(&index) else { return false };
        match fd_source.poll(ready, event) {
            Readiness::Ready => true,
            Readiness::Final(payload, reaps) => {
                event.reserved = ctx.payloads.add(event.watcher, payload);
                self.finish(ctx, io, index, slot, reaps);
                true
            }
            Readiness::Lost(errno) => {
                io.detach(ctx, index, slot);
                // A thread that closes the watcher removes the fd from the kernel's
                // set, with this lock: it has, or sees that it need not.
                drop(ctx.shared.lock_commands());
                self.lost(ctx, io, index, errno);
                false
            }
            Readiness::NotReady => {
                if fd_source.is_closed() {
                    self.check(ctx, io);
                }
                false
            }
        }
    }
}
