//! The subscribers of an inotify watch.

use crate::errno::Errno;
use crate::util::alloc::TryVec;

/// A watcher that gets a watch's events.
#[derive(Clone, Copy)]
pub(super) struct WatchSubscriber {
    pub watcher: u32,
    /// The events that it wants of inotify.
    pub mask: u32,
    /// The order in which watchers were added.
    pub serial: u64,
    /// Events before this position of inotify's queue are not for it.
    pub since: u64,
}

/// No watcher: this one has unsubscribed.
const UNSUBSCRIBED: u32 = u32::MAX;

/// A watch of inotify's.
#[derive(Default)]
pub(super) struct InotifyWatch {
    /// What inotify was asked for.
    pub mask: u32,
    /// In the order in which the watchers were added. Those that have left
    /// keep their places until they are the most.
    pub subscribers: Vec<WatchSubscriber>,
    pub unsubscribed: usize,
}

impl InotifyWatch {
    pub fn subscribers(&self) -> impl Iterator<Item = &WatchSubscriber> {
        self.subscribers.iter().filter(|subscriber| subscriber.watcher != UNSUBSCRIBED)
    }

    pub fn is_unused(&self) -> bool {
        self.subscribers.len() == self.unsubscribed
    }

    pub fn index_of(&self, serial: u64) -> Result<usize, usize> {
        self.subscribers.binary_search_by_key(&serial, |subscriber| subscriber.serial)
    }

    pub fn subscriber(&self, serial: u64) -> Option<&WatchSubscriber> {
        let subscriber = self.subscribers.get(self.index_of(serial).ok()?)?;
        (subscriber.watcher != UNSUBSCRIBED).then_some(subscriber)
    }

    pub fn add(&mut self, subscriber: WatchSubscriber) -> Result<(), Errno> {
        match self.index_of(subscriber.serial) {
            Err(index) => self.subscribers.try_insert(index, subscriber)?,
            Ok(index) => {
                if let Some(before) = self.subscribers.get_mut(index) {
                    self.unsubscribed -= usize::from(before.watcher == UNSUBSCRIBED);
                    *before = subscriber;
                }
            }
        }
        self.mask |= subscriber.mask;
        Ok(())
    }

    /// A user wants these bits, too.
    pub fn widen(&mut self, serial: u64, mask: u32) {
        let index = self.index_of(serial).unwrap_or(usize::MAX);
        if let Some(subscriber) = self.subscribers.get_mut(index) {
            subscriber.mask |= mask;
            self.mask |= mask;
        }
    }

    pub fn remove(&mut self, serial: u64) {
        let index = self.index_of(serial).unwrap_or(usize::MAX);
        let Some(subscriber) =
            self.subscribers.get_mut(index).filter(|subscriber| subscriber.watcher != UNSUBSCRIBED)
        else {
            return;
        };
        subscriber.watcher = UNSUBSCRIBED;
        self.unsubscribed += 1;
        if self.unsubscribed > self.subscribers.len() / 2 {
            self.subscribers.retain(|subscriber| subscriber.watcher != UNSUBSCRIBED);
            self.unsubscribed = 0;
        }
    }

    /// Whether inotify was asked for more than the subscribers want.
    pub fn is_wider(&self) -> bool {
        let mut missing = self.mask;
        // The first few have it all, mostly.
        self.subscribers().all(|subscriber| {
            missing &= !subscriber.mask;
            missing != 0
        })
    }

    pub fn wanted(&self) -> u32 {
        self.subscribers().fold(0, |mask, subscriber| mask | subscriber.mask)
    }
}
