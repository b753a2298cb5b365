//! Subscription of a loop or a kqueue to a signal.

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

/// A subscription to a signal. Dropping it unsubscribes.
pub(crate) struct Subscription {
    number: c_int,
    /// The process that it belongs to.
    epoch: fork::Epoch,
    node: NonNull<HandlerListNode<Subscriber>>,
}

// SAFETY: it owns its node, which handlers in any thread use as well; the
// counts are atomics, and the stores are made for one reader, see below.
unsafe impl Send for Subscription {}
// SAFETY: a shared reference only reads atomics; `take`, which there may be
// one of at a time, needs an exclusive one.
unsafe impl Sync for Subscription {}

/// The position in a signal's events up to which the owner has delivered them,
/// or does not want them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Position {
    pub count: u64,
    pub lost: u64,
    /// The place of the next real-time signal.
    pub index: usize,
}

/// Subscribes to a signal: counts it, keeps its siginfo if that is wanted, and
/// wakes the owner each time. It installs no handler and reads no signalfd: see
/// [`super::Handler`] and [`super::take_pending`].
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

    /// Whether this process made the subscription, and not its parent.
    pub fn is_ours(&self) -> bool {
        self.epoch == fork::current()
    }

    /// The number of signals so far.
    pub fn count(&self) -> u64 {
        self.subscriber().counted.count()
    }

    /// The number of real-time signals for which there was no room.
    pub fn lost(&self) -> u64 {
        self.subscriber().lost.load(Relaxed)
    }

    /// The present position: signals that come from now on are after it.
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
    /// standard one.
    pub fn take(&mut self) -> Option<Siginfo> {
        match &self.subscriber().siginfo {
            SiginfoStore::NotKept => None,
            SiginfoStore::Last(last) => last.take(),
            SiginfoStore::Each(all) => all.take(),
        }
    }

    /// Changes the number that is passed to wake the owner; negative: signals
    /// wake nothing. An owner that is to be woken looks at the count after
    /// this. A handler that is running may still use the previous number.
    pub fn set_wakeup(&self, number: i64) {
        self.subscriber().counted.set_number(number);
    }
}

impl Drop for Subscription {
    /// Unsubscribes. When this returns, no handler wakes the owner any more:
    /// what the owner is woken by may be closed then.
    fn drop(&mut self) {
        if self.is_ours() {
            hub::remove(self.number, self.node);
        }
        // Else the list is a copy of the parent's: handlers of this process do
        // not walk it (`hub::is_ours`), and `hub::after_fork` forgets it without
        // looking at its nodes.
        // SAFETY: made of a box, and in no list that is walked.
        drop(unsafe { Box::from_raw(self.node.as_ptr()) });
    }
}
