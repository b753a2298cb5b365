//! Calls of the program's functions that need no loop: destroy notifications of
//! watchers and of posted calls.

use super::command::Post;
use super::event::{Callback, Destroy, Event};
use super::node_list::NodeList;
use crate::sys::cancel::Uncancelled;
use std::ffi::c_void;

/// Calls a callback of a watcher: the one place where that is done.
///
/// # Safety
/// Nothing borrows the state of the watcher's loop: the callback may come back
/// to it.
#[inline(always)]
pub(super) unsafe fn invoke(callback: Callback, event: &Event, user_data: *mut c_void) {
    // SAFETY: the program's function and argument, as it promised.
    unsafe { callback(event, user_data) };
}

/// What is left of a loop that was closed: the destroy callbacks to notify, and
/// the posted calls that were not made.
pub(super) struct ClosedLoop {
    pub destroys: NodeList<Destroy>,
    pub posts: NodeList<Post>,
}

impl ClosedLoop {
    /// Calls the program's functions; no lock is held.
    pub fn notify(mut self) {
        notify(self.destroys);
        destroy_posts(&mut self.posts);
    }
}

/// Calls the destroy functions of posted calls that are not made; no lock is
/// held.
pub(super) fn destroy_posts(posts: &mut NodeList<Post>) {
    if posts.is_empty() {
        return;
    }
    let _uncancelled = Uncancelled::begin();
    while let Some(post) = posts.pop() {
        post.destroy();
    }
}

/// Notifies the destroy callbacks of closed watchers; no lock is held.
pub(super) fn notify(mut closed: NodeList<Destroy>) {
    if closed.is_empty() {
        return;
    }
    let _uncancelled = Uncancelled::begin();
    while let Some(Destroy { target, event }) = closed.pop() {
        if let Some(callback) = target.callback {
            // SAFETY: no lock is held, and nothing of a loop's is borrowed.
            unsafe { invoke(callback, &event, target.user_data) };
        }
    }
}
