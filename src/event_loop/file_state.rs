//! A loop's file watchers, behind a lock that any thread may take.

use super::event::Event;
use super::own_words::{INOTIFY, INTERNAL};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::file_watch::{FileEvent, Files, PendingTree, WatchRequest, WatchRoot};
use crate::hash::Map;
use crate::sys::{epoll, inotify};
use std::os::fd::RawFd;

/// The word of the inotify in the loop's epoll: after those of the clocks.
pub(super) const WORD: u64 = INTERNAL | INOTIFY as u64;

/// A note that became an event, whose names the program can ask for.
pub(super) struct Shown {
    pub watcher: u32,
    pub note: FileEvent,
    /// It is pending for evloop_wait.
    pub retained: bool,
}

/// A loop's file watchers, behind their lock.
#[derive(Default)]
pub(super) struct FileState {
    pub files: Files,
    pub shown: Map<u64, Shown>,
}

impl FileState {
    /// Adds a watcher, of a tree only its root: what is left of that.
    pub fn start(
        &mut self,
        epoll: RawFd,
        id: u32,
        request: &WatchRequest<'_>,
    ) -> Result<PendingTree> {
        if self.files.descriptor().is_none() {
            let inotify = inotify::create().map_err(explain_create)?;
            epoll::add(epoll, inotify.raw(), libc::EPOLLIN as u32, WORD)?;
            self.files.open(inotify);
        }
        self.files.add(id, request).map_err(|errno| {
            self.close_if_empty(epoll);
            explain(errno, request.root)
        })
    }

    /// Adds some more of it; false: that was all. When this fails there is no
    /// such watcher any more, nor perhaps any other.
    pub fn add_more(
        &mut self,
        id: u32,
        rest: &mut PendingTree,
        at_most: usize,
        root: WatchRoot<'_>,
    ) -> Result<bool> {
        self.files.add_more(id, rest, at_most).map_err(|errno| explain(errno, root))
    }

    /// A watcher could not be added: nothing of it is left.
    pub fn give_up(&mut self, epoll: RawFd, id: u32) {
        self.files.remove(id);
        self.close_if_empty(epoll);
    }

    pub fn close_if_empty(&mut self, epoll: RawFd) -> bool {
        let ends = self.files.is_empty();
        if ends && let Some(inotify) = self.files.close() {
            // A forked child may hold it open.
            let _ = epoll::delete(epoll, inotify.raw());
        }
        ends
    }

    /// What a watcher was added with.
    pub fn request_of(&self, id: u32) -> Option<WatchRequest<'_>> {
        self.files.request_of(id)
    }

    /// The name of an event, or the one that it was before a rename.
    pub fn name(&self, event: &Event, old: bool) -> Result<&[u8]> {
        match self.shown.get(&event.reserved) {
            Some(shown) if old => Ok(&shown.note.old_name),
            Some(shown) => Ok(&shown.note.name),
            // Of the watcher itself.
            None if event.reserved == 0 => Ok(&[]),
            None => fail!(ENOENT, "the loop has waited since the event, whose names are gone"),
        }
    }
}

pub(super) fn explain_create(errno: Errno) -> Error {
    match errno {
        Errno::EMFILE => error!(errno, "no descriptor, or no inotify of the user's, is left"),
        errno => errno.into(),
    }
}

fn explain(errno: Errno, root: WatchRoot<'_>) -> Error {
    match (errno, root) {
        (Errno::EBADF, WatchRoot::Descriptor(fd)) => error!(errno, "fd {} is not open", fd),
        (Errno::ENOTDIR, WatchRoot::Descriptor(fd)) => error!(errno, "fd {} is no directory", fd),
        (Errno::ENOTSUP, _) => error!(errno, "there is no /proc to find the descriptor's file by"),
        (Errno::ENOENT, _) => error!(errno, "there is no such file"),
        (Errno::ENOTDIR, _) => error!(errno, "it, or what leads there, is no directory"),
        (Errno::EACCES, _) => error!(errno, "it may not be read"),
        (Errno::ENOSPC, _) => error!(errno, "the user's max_user_watches is used up"),
        (errno, _) => errno.into(),
    }
}
