//! Posting calls to a loop.

use super::command::{Destroyer, Post};
use super::core::Core;
use super::event::{Callback, Target};
use super::letters::{Letter, Letters};
use super::named::{Named, destroy_posts, named};
use crate::errno::{Errno, Result, error, fail};
use crate::handle::{self, Kind};
use crate::sync::Ordering::SeqCst;
use crate::sync::fence;
use crate::sys::fork;
use std::ffi::c_void;

/// See evloop_post.
pub(crate) fn post(handle: i64, callback: Option<Callback>, user_data: *mut c_void) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    send(&named, Post { target: Target { callback, user_data }, destroy: None })
}

/// See evloop_post_full.
pub(crate) fn post_full(
    handle: i64,
    callback: Option<Callback>,
    user_data: *mut c_void,
    destroy: Option<unsafe extern "C" fn(*mut c_void)>,
) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    if callback.is_none() && destroy.is_some() {
        fail!(EINVAL, "callback is NULL, but there is a destroy function");
    }
    let destroy = destroy.map(|call| Destroyer { call, epoch: fork::current() });
    send(&named, Post { target: Target { callback, user_data }, destroy })?;
    if destroy.is_some() {
        take_back_if_closed(&named);
    }
    Ok(())
}

#[inline(always)]
fn send(named: &Named, post: Post) -> Result<()> {
    let no_memory = || error!(Errno::ENOMEM, "no memory for a call");
    let letter = Letter::new(named.handle.pack(), post);
    let letter = handle::try_box(letter).ok_or_else(no_memory)?;
    if named.desk.is_mine() {
        let direct = |core: &mut Core| {
            if core.desk.mail.has_letters() {
                // Those came before.
                core.take_letters();
            }
            core.posts.push(letter);
            core.publish_posts();
            Ok(())
        };
        // SAFETY: as was just asked.
        return unsafe { named.with_mine(direct) };
    }
    drop(named.desk.mail.post(named.desk, letter));
    Ok(())
}

/// The loop may have been closed while a call was posted to it, and not have
/// seen that. Where another loop uses its memory by now that one will.
fn take_back_if_closed(named: &Named) {
    // Against `registry::tear_down`.
    fence(SeqCst);
    if named.desk.handle.load(SeqCst) == named.handle.pack() {
        return;
    }
    let gate = named.desk.gate();
    if named.desk.mail.owner() != 0 {
        // It is being closed by its run, or is used again.
        return;
    }
    let mut posts = Letters::new();
    drop(named.desk.mail.take_letters(0, |letter| posts.put_first(letter)));
    drop(gate);
    destroy_posts(&mut posts);
}
