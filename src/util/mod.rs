//! Memory: that may be lacking, which ends programs that use std alone; and
//! that C lends.

pub(crate) mod alloc;
#[cfg(not(loom))]
pub(crate) mod bug;
#[cfg(not(loom))]
pub(crate) mod heap;
pub(crate) mod out;
#[cfg(not(loom))]
pub(crate) mod per_thread;
#[cfg(not(loom))]
pub(crate) mod try_arc;

#[cfg_attr(loom, allow(unused_imports))]
pub(crate) use alloc::{try_box, try_uninit};
#[cfg(not(loom))]
pub(crate) use bug::bug_or;
pub(crate) use out::Out;
