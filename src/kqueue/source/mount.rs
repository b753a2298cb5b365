//! Mounts: the table of them, and what has changed in it.
//!
//! The kernel reports a change of the table (EPOLLPRI) once, to the first
//! caller that polls it: a program that polls the queue would consume that
//! report. So the table is watched for readability, edge-triggered: it is
//! always readable, and each change is an edge. It is in an epoll of its own,
//! which consumes the first edge.

use super::super::epoll_set::{ET, EpollSet, IN};
use super::super::event::*;
use crate::errno::Errno;
use crate::hash::Seeded;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::mounts;
use crate::util::alloc::TryVec;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::mem::MaybeUninit;

pub(in super::super) struct Mounts {
    watch: Option<MountWatch>,
    /// For so many knotes.
    users: usize,
}

struct MountWatch {
    epoll: Fd,
    table: Fd,
    /// Sorted.
    mounts: Vec<Mount>,
}

/// One mount: its number, and all that it does not keep to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Mount {
    number: u64,
    what: u64,
}

impl Mounts {
    pub const fn new() -> Self {
        Self { watch: None, users: 0 }
    }

    /// Its descriptor in the inner epoll.
    pub fn fd(&self) -> Option<&Fd> {
        self.watch.as_ref().map(|watch| &watch.epoll)
    }

    pub fn fds(&self) -> impl Iterator<Item = &Fd> {
        self.watch.iter().flat_map(|watch| [&watch.epoll, &watch.table])
    }

    /// Forgets its descriptors.
    pub fn clear(&mut self) {
        self.watch = None;
    }

    /// Whether a mount is in the table.
    pub fn has(&self, number: u64) -> bool {
        let watch = self.watch.as_ref();
        watch.is_some_and(|watch| watch.has(number))
    }
}

impl MountWatch {
    fn new() -> Result<Self, Errno> {
        let table = mounts::open()?;
        let epoll = epoll::create()?;
        epoll::add(epoll.raw(), table.raw(), IN | ET, 0)?;
        let mut watch = Self { epoll, table, mounts: Vec::new() };
        watch.take_edge();
        watch.mounts = watch.read()?;
        Ok(watch)
    }

    /// Consumes the edge.
    fn take_edge(&self) {
        let _ = epoll::wait(self.epoll.raw(), &mut [MaybeUninit::uninit()], Some(0));
    }

    fn read(&self) -> Result<Vec<Mount>, Errno> {
        parse(&mounts::read(self.table.raw())?)
    }

    fn has(&self, number: u64) -> bool {
        self.mounts.binary_search_by_key(&number, |mount| mount.number).is_ok()
    }
}

fn parse(text: &[u8]) -> Result<Vec<Mount>, Errno> {
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(mount) = parse_line(line) {
            found.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            found.push_reserved(mount);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// `36 35 98:0 /root /point rw,… shared:1 - ext3 /dev/root rw,…`: not the
/// options, and not the number of the mount that it lies in.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _parent = fields.next()?;
    let mut hasher = Seeded::new().build_hasher();
    for _ in 0..3 {
        fields.next()?.hash(&mut hasher);
    }
    fields.find(|field| *field == b"-")?;
    for _ in 0..2 {
        fields.next()?.hash(&mut hasher);
    }
    Some(Mount { number, what: hasher.finish() })
}

fn difference(before: &[Mount], now: &[Mount]) -> u32 {
    let lacks = |table: &[Mount], one: &Mount| table.binary_search(one).is_err();
    let came = now.iter().any(|one| lacks(before, one));
    let went = before.iter().any(|one| lacks(now, one));
    (if came { VQ_MOUNT } else { 0 }) | (if went { VQ_UNMOUNT } else { 0 })
}

impl Mounts {
    /// For one more knote.
    pub fn hold(&mut self, set: &EpollSet) -> Result<(), Errno> {
        if self.watch.is_none() {
            let watch = MountWatch::new()?;
            set.add_mounts(watch.epoll.raw())?;
            self.watch = Some(watch);
        }
        self.users += 1;
        Ok(())
    }

    /// For one less.
    pub fn release(&mut self, set: &EpollSet) {
        self.users = self.users.saturating_sub(1);
        if self.users == 0
            && let Some(watch) = self.watch.take()
        {
            // A forked child may hold it open.
            let _ = epoll::delete(set.inner(), watch.epoll.raw());
        }
    }

    /// In a child that goes on using the queue.
    pub fn renew(&mut self, set: &EpollSet) -> Result<(), Errno> {
        if self.users > 0 && self.watch.is_none() {
            let watch = MountWatch::new()?;
            set.add_mounts(watch.epoll.raw())?;
            self.watch = Some(watch);
        }
        Ok(())
    }

    /// What has changed: bits of VQ.
    pub fn take(&mut self) -> u32 {
        let Some(watch) = &mut self.watch else { return 0 };
        watch.take_edge();
        // Without memory there is a next time.
        let Ok(now) = watch.read() else { return 0 };
        let before = std::mem::replace(&mut watch.mounts, now);
        difference(&before, &watch.mounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"36 35 98:0 /r /m rw,noatime master:1 - ext3 /dev/root rw,errors=continue
21 20 0:5 / /proc rw - proc proc rw
";

    #[test]
    fn mounts_come_and_go() {
        let before = parse(TABLE).unwrap();
        assert_eq!(before.iter().map(|one| one.number).collect::<Vec<_>>(), [21, 36]);
        assert_eq!(difference(&before, &before), 0);
        assert_eq!(difference(&before, &before[..1]), VQ_UNMOUNT);
        assert_eq!(difference(&before[..1], &before), VQ_MOUNT);
    }

    #[test]
    fn a_number_used_again_is_another_mount() {
        let text = String::from_utf8(TABLE.to_vec()).unwrap();
        let before = parse(TABLE).unwrap();
        let elsewhere = parse(text.replace("/m rw", "/n rw").as_bytes()).unwrap();
        assert_eq!(difference(&before, &elsewhere), VQ_MOUNT | VQ_UNMOUNT);
        let read_only = parse(text.replace("rw,noatime", "ro").as_bytes()).unwrap();
        assert_eq!(difference(&before, &read_only), 0);
    }

    #[test]
    fn what_is_no_mount_is_left_out() {
        assert_eq!(parse(b"\n36 35\nx y z\n36 35 98:0 / / rw shared:1\n").unwrap(), []);
    }
}
