//! Memory that may be lacking: what std only has for programs that end then.

pub(crate) mod alloc;
#[cfg(not(loom))]
pub(crate) mod try_arc;

pub(crate) use alloc::try_box;
