//! Watched descriptors: what the kernel has of them, and whether they still
//! are what they were.

use super::epoll_set::*;
use super::needs::Needs;
use super::slab::NONE;
use crate::errno::Errno;
use crate::sys::{file, socket};
use std::os::fd::RawFd;

/// What a registration has a watch of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    File,
    Parent,
}

/// What a registration has here, in one role.
#[derive(Clone, Copy)]
pub(super) struct RoleWatch {
    pub watch: i32,
    pub mask: u32,
    /// The next of the same watch.
    pub next: u32,
}

pub(super) const NO_WATCH: RoleWatch = RoleWatch { watch: -1, mask: 0, next: NONE };
pub(super) const NO_WATCHES: [RoleWatch; 2] = [NO_WATCH; 2];

/// What every delivery looks at comes first.
#[repr(C)]
pub(super) struct Registration {
    pub fd: RawFd,
    /// Its knotes.
    pub first: u32,
    pub masks: Masks,
    pub needs: Needs,
    /// The type of the file: a bit pattern of stat(2); 0 for an eventfd
    /// and its like.
    pub file_type: u32,
    /// The kind of a socket.
    pub socket: Option<socket::SocketKind>,
    /// The kind that is in the inner epoll.
    pub in_inner: usize,
    /// No epoll takes it: it is always ready, or asked by us.
    pub is_file: bool,
    /// The descriptor is not this any more, and the kernel is not asked for
    /// anything.
    pub is_gone: bool,
    /// It was made by the change that is going on.
    pub is_fresh: bool,
    /// It is registered edge-triggered, as its reports were spurious.
    pub is_demoted: bool,
    /// Spurious reports in a row: no knote wanted them.
    pub spurious: u8,
    /// The device and inode number of its file, if these identify the file.
    pub identity: Option<(u64, u64)>,
    pub role_watch: [RoleWatch; 2],
}

impl Registration {
    /// `None`: there is no such descriptor.
    pub fn of(fd: RawFd) -> Option<Self> {
        let stat = file::stat(fd).ok()?;
        let file_type = stat.st_mode & libc::S_IFMT;
        let is_socket = file_type == libc::S_IFSOCK;
        Some(Self {
            fd,
            first: NONE,
            file_type,
            socket: is_socket.then(|| socket::kind(fd).unwrap_or(socket::SocketKind::Message)),
            identity: (file_type != 0).then_some((stat.st_dev, stat.st_ino)),
            masks: [0; KINDS],
            needs: Needs::default(),
            role_watch: NO_WATCHES,
            in_inner: KINDS,
            is_file: false,
            is_gone: false,
            is_fresh: true,
            is_demoted: false,
            spurious: 0,
        })
    }
}

impl Registration {
    /// Whether it is level-triggered, and its last report was not spurious.
    #[inline]
    pub fn is_level(&self) -> bool {
        self.spurious == 0 && !self.is_demoted
    }

    /// Whether the kernel reports only what happens.
    pub fn is_edge(&self, kind: usize) -> bool {
        self.masks.get(kind).is_some_and(|mask| mask & ET != 0)
    }

    /// Whether the descriptor still is the one that was registered: ENOENT,
    /// another file has its fd; EBADF, it is closed.
    #[inline]
    pub fn verify(&self, set: &EpollSet) -> Result<(), Errno> {
        match self.masks.iter().position(|mask| *mask != 0) {
            Some(kind) if kind == self.in_inner => probe(set.inner(), self.fd),
            Some(kind) => probe(set.nested(kind).unwrap_or(-1), self.fd),
            None => self.compare(),
        }
    }

    /// Whether the descriptor still is this file's, by looking at the file.
    pub fn compare(&self) -> Result<(), Errno> {
        let stat = file::stat(self.fd)?;
        if self.is_of(&stat) { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Whether it is of a file that looks like this.
    pub fn is_of(&self, stat: &libc::stat) -> bool {
        // The type is compared, too: another file may soon get the inode number
        // of a file that is gone.
        stat.st_mode & libc::S_IFMT == self.file_type
            && self.identity.is_none_or(|identity| identity == (stat.st_dev, stat.st_ino))
    }

    /// Whether inotify watches its file.
    pub fn has_vnode_watch(&self) -> bool {
        let [file, _parent] = &self.role_watch;
        file.watch >= 0
    }
}
