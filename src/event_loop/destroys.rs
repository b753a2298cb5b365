//! Destroy notifications: the callbacks of evloop_set_destroy().
//!
//! None is lost where memory runs out: a notification is allocated when it is
//! asked for, and from then on moves between lists that are linked through
//! the notifications.

use super::event::{Destroy, Event};
use super::flags::EXTRA;
use super::node_list::{ListNode, NodeList};
use super::slot::WatcherSlot;
use super::state::LoopState;
use crate::errno::Result;
use crate::handle::Kind;

impl LoopState {
    /// Takes the notifications of closed watchers.
    #[inline]
    pub fn take_destroys(&mut self) -> NodeList<Destroy> {
        std::mem::take(&mut self.destroys)
    }

    /// Whether a notification of this watcher's end is asked for, and there
    /// was no memory to keep that among the extras: then it is taken away.
    fn take_orphan(&mut self, handle: i64) -> Option<Box<ListNode<Destroy>>> {
        if self.orphans.is_empty() {
            return None;
        }
        let mut found = None;
        let mut others = NodeList::new();
        while let Some(node) = self.orphans.take() {
            if node.to() == handle {
                found = Some(node);
            } else {
                others.push(node);
            }
        }
        self.orphans = others;
        found
    }

    /// Keeps a watcher's destroy notification.
    pub fn set_destroy(
        &mut self,
        index: u32,
        slot: &WatcherSlot,
        node: Box<ListNode<Destroy>>,
    ) -> Result<()> {
        self.ctx.extra(index, slot)?.destroy = Some(node);
        drop(self.take_orphan(slot.handle(Kind::Watcher, index)));
        Ok(())
    }

    /// The same, where the call that asked for it has succeeded.
    pub fn set_destroy_late(
        &mut self,
        index: u32,
        slot: &WatcherSlot,
        node: Box<ListNode<Destroy>>,
    ) {
        drop(self.take_orphan(node.to()));
        match self.ctx.extra(index, slot) {
            Ok(extra) => extra.destroy = Some(node),
            Err(_) => {
                // So that it is looked for when the watcher is closed.
                slot.set(EXTRA);
                self.orphans.push(node);
            }
        }
    }

    /// A watcher's destroy notification, if that was asked for.
    pub fn take_destroy(&mut self, index: u32, handle: i64) -> Option<Box<ListNode<Destroy>>> {
        let kept = self.ctx.extras.get_mut(&index).and_then(|extra| extra.destroy.take());
        // What was asked for last counts.
        self.take_orphan(handle).or(kept)
    }

    /// A watcher is closed: its notification will be delivered.
    pub fn note_destroy(&mut self, mut node: Box<ListNode<Destroy>>, event: Event) {
        node.value_mut().event = event;
        if node.value_mut().target.callback.is_some() {
            self.destroys.push(node);
            self.ctx.shared.pending_work.set();
            return;
        }
        if self.instrumented {
            self.probe_closed(&event);
        }
        if self.ctx.pending.try_push_back(event).is_err() {
            self.unqueued_destroys.push(node);
        }
    }
}
