//! Calls of the program's functions that need no loop: destroy notifications of
//! watchers and of posted calls.

use super::command::Post;
use super::event::Destroy;
use super::node_list::NodeList;
use crate::sys::cancel::Uncancelled;

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
            // SAFETY: the program's function and argument, as it promised.
            unsafe { callback(&event, target.user_data) };
        }
    }
}
