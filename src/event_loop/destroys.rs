//! Destroy notifications: the callbacks of evloop_set_destroy().
//!
//! None is lost where memory runs out: a notification is allocated when it is
//! asked for, and from then on moves between lists that are linked through
//! the notifications.

use super::core::Core;
use super::event::{Destroy, Event};
use super::flags::EXTRA;
use super::letters::{Letter, Letters};
use super::record::Record;
use crate::errno::Result;
use crate::handle::Kind;

impl Core {
    /// Takes the notifications of closed watchers.
    #[inline]
    pub fn take_destroys(&mut self) -> Letters<Destroy> {
        std::mem::replace(&mut self.destroys, Letters::new())
    }

    /// Whether a notification of this watcher's end is asked for, and there
    /// was no memory to keep that among the extras: then it is taken away.
    fn take_orphan(&mut self, handle: i64) -> Option<Box<Letter<Destroy>>> {
        if self.orphans.is_empty() {
            return None;
        }
        let mut found = None;
        let mut others = Letters::new();
        while let Some(letter) = self.orphans.take() {
            if letter.to() == handle {
                found = Some(letter);
            } else {
                others.push(letter);
            }
        }
        self.orphans = others;
        found
    }

    /// Keeps a watcher's destroy notification.
    pub fn set_destroy(
        &mut self,
        index: u32,
        record: &Record,
        letter: Box<Letter<Destroy>>,
    ) -> Result<()> {
        self.extra(index, record)?.destroy = Some(letter);
        drop(self.take_orphan(record.handle(Kind::Watcher, index)));
        Ok(())
    }

    /// The same, where the call that asked for it has succeeded.
    pub fn set_destroy_late(&mut self, index: u32, record: &Record, letter: Box<Letter<Destroy>>) {
        drop(self.take_orphan(letter.to()));
        match self.extra(index, record) {
            Ok(extra) => extra.destroy = Some(letter),
            Err(_) => {
                // So that it is looked for when the watcher is closed.
                record.set(EXTRA);
                self.orphans.push(letter);
            }
        }
    }

    /// A watcher's destroy notification, if that was asked for.
    pub fn take_destroy(&mut self, index: u32, handle: i64) -> Option<Box<Letter<Destroy>>> {
        let kept = self.extras.get_mut(&index).and_then(|extra| extra.destroy.take());
        // What was asked for last counts.
        self.take_orphan(handle).or(kept)
    }

    /// A watcher is closed: its notification will be delivered.
    pub fn note_destroy(&mut self, mut letter: Box<Letter<Destroy>>, event: Event) {
        letter.content_mut().event = event;
        if letter.content_mut().target.callback.is_some() {
            self.destroys.push(letter);
            self.desk.attention.set();
            return;
        }
        if self.watched {
            self.watch_closed(&event);
        }
        if self.held.try_push_back(event).is_err() {
            self.unheld.push(letter);
        }
    }
}
