//! A subscription of a loop or a kqueue to a signal, as its owner has it.

use super::hub;
use super::list::HandlerListNode;
use super::siginfo::Siginfo;
use super::subscriber::{SiginfoStore, SignalSink, Subscriber};
use crate::errno::{Result, fail};
use crate::handle::try_box;
use crate::sync::Ordering::Relaxed;
use crate::sys::fork;
use std::ffi::c_int;
use std::ptr::NonNull;

/// A subscription to a signal, until it is dropped.
pub(crate) struct Subscription {
    number: c_int,
    /// The process that it belongs to.
    epoch: fork::Epoch,
    node: NonNull<HandlerListNode<Subscriber>>,
}

// SAFETY: a node that this owns, whose contents are atomics.
unsafe impl Send for Subscription {}
// SAFETY: as above.
unsafe impl Sync for Subscription {}

/// Up to where something has been delivered, or is not to be.
#[derive(Clone, Copy, Default)]
pub(crate) struct Position {
    pub count: u64,
    pub lost: u64,
    /// The place of the next real-time signal.
    pub index: usize,
}

/// Counts a signal from now on, and keeps what comes with it if that is
/// wanted; wakes the owner each time. Whether the signal is seen is another
/// matter: see [`super::Handler`] and [`super::take_pending`].
pub(crate) fn subscribe(
    number: c_int,
    wakeup: SignalSink,
    keeps_siginfo: bool,
) -> Result<Subscription> {
    let subscriber = Subscriber::new(number, wakeup, keeps_siginfo);
    let Some(node) = subscriber.and_then(|subscriber| try_box(HandlerListNode::new(subscriber)))
    else {
        fail!(ENOMEM, "no memory to watch signal {}", number);
    };
    let node = NonNull::from(Box::leak(node));
    let epoch = hub::insert(number, node);
    Ok(Subscription { number, epoch, node })
}

impl Subscription {
    fn subscriber(&self) -> &Subscriber {
        // SAFETY: the node is freed when this is dropped.
        let node = unsafe { self.node.as_ref() };
        &node.value
    }

    /// Whether it is this process's, and not the one's that it was forked from.
    pub fn is_ours(&self) -> bool {
        self.epoch == fork::current()
    }

    /// How many signals came so far.
    pub fn count(&self) -> u64 {
        self.subscriber().counted.count()
    }

    /// How many real-time signals there was no room for.
    pub fn lost(&self) -> u64 {
        self.subscriber().lost.load(Relaxed)
    }

    /// Everything that comes from now on is after this.
    pub fn position(&self) -> Position {
        let index = match &self.subscriber().siginfo {
            SiginfoStore::Each(all) => all.end(),
            _ => 0,
        };
        Position { count: self.count(), lost: self.lost(), index }
    }

    /// The place of the real-time signal that is taken next.
    pub fn next_index(&self) -> usize {
        match &self.subscriber().siginfo {
            SiginfoStore::Each(all) => all.start(),
            _ => 0,
        }
    }

    /// Takes what came with the next real-time signal, or with the last
    /// standard one. Only one thread at a time may take.
    pub fn take(&self) -> Option<Siginfo> {
        match &self.subscriber().siginfo {
            SiginfoStore::NotKept => None,
            SiginfoStore::Last(last) => last.take(),
            SiginfoStore::Each(all) => all.take(),
        }
    }

    /// Changes the number that is passed to wake the owner; below 0: nothing
    /// is woken. An owner that is to be woken looks at the count after this.
    /// A handler may be about to use the number before.
    pub fn set_wakeup(&self, number: i64) {
        self.subscriber().counted.set_number(number);
    }
}

impl Drop for Subscription {
    /// No handler wakes the owner any more when this returns, whatever of its
    /// it is that is closed then.
    fn drop(&mut self) {
        if self.is_ours() {
            hub::remove(self.number, self.node);
        }
        // Else the list of this process does not have it: see
        // `hub::after_fork`.
        // SAFETY: made of a box, and in no list any more.
        drop(unsafe { Box::from_raw(self.node.as_ptr()) });
    }
}
