//! Posting calls to a loop.

use crate::errno::{Errno, Result, error, fail};
use crate::event_loop::command::{Destroyer, Post};
use crate::event_loop::event::{Callback, Target};
use crate::event_loop::node_list::{ListNode, NodeList};
use crate::event_loop::notify::destroy_posts;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::state::LoopState;
use crate::handle::{self, Kind};
use crate::sync::Ordering::SeqCst;
use crate::sync::fence;
use crate::sys::fork;
use std::ffi::c_void;

/// See evloop_post.
pub(crate) fn post(handle: i64, callback: Option<Callback>, user_data: *mut c_void) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    send(&resolved, Post { target: Target { callback, user_data }, destroy: None })
}

/// See evloop_post_full.
pub(crate) fn post_full(
    handle: i64,
    callback: Option<Callback>,
    user_data: *mut c_void,
    destroy: Option<unsafe extern "C" fn(*mut c_void)>,
) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    if callback.is_none() && destroy.is_some() {
        fail!(EINVAL, "callback is NULL, but there is a destroy function");
    }
    let destroy = destroy.map(|call| Destroyer { call, epoch: fork::current() });
    send(&resolved, Post { target: Target { callback, user_data }, destroy })?;
    if destroy.is_some() {
        reclaim_if_closed(&resolved);
    }
    Ok(())
}

#[inline(always)]
fn send(resolved: &Resolved, post: Post) -> Result<()> {
    let no_memory = || error!(Errno::ENOMEM, "no memory for a call");
    let node = ListNode::new(resolved.handle.pack(), post);
    let node = handle::try_box(node).ok_or_else(no_memory)?;
    if resolved.shared.is_mine() {
        let direct = |state: &mut LoopState| {
            if state.ctx.shared.wake_state.has_posts() {
                // Those came before.
                state.take_posts();
            }
            state.posts.push(node);
            state.publish_posts();
            Ok(())
        };
        // SAFETY: as was just asked.
        return unsafe { resolved.with_mine(direct) };
    }
    drop(resolved.shared.wake_state.post(resolved.shared, node));
    Ok(())
}

/// The loop may have been closed while a call was posted to it, and not have
/// seen that. Where another loop uses its memory by now that one will.
fn reclaim_if_closed(resolved: &Resolved) {
    // Against `registry::tear_down`.
    fence(SeqCst);
    if resolved.shared.handle.load(SeqCst) == resolved.handle.pack() {
        return;
    }
    let command_queue = resolved.shared.lock_commands();
    if resolved.shared.wake_state.loop_handle() != 0 {
        // It is being closed by its run, or is used again.
        return;
    }
    let mut posts = NodeList::new();
    drop(resolved.shared.wake_state.take_posts(0, |node| posts.put_first(node)));
    drop(command_queue);
    destroy_posts(&mut posts);
}
