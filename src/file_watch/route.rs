//! The directories that a path leads through, each of which is watched.
//!
//! The kernel looks a path up name by name, and continues elsewhere at a
//! symbolic link. This does the same, and watches each directory before it
//! looks up the next name there: mostly for the directory's own renaming and
//! deletion; for changes of its entries where the name is a symbolic link, is
//! the last one, or is missing. What changes later is then in inotify's queue.
//!
//! Others decide where links lead, so the work is bounded: by as many links as
//! the kernel follows, and by a number of names.

use super::path::c_str;
use super::places::{BOTH, ITSELF, RoutePlace};
use super::state::Files;
use crate::errno::Errno;
use crate::sys::file;
use crate::util::alloc::{TryVec, TryVecCopy, try_concat, try_copy};

/// How many symbolic links the kernel follows in one path.
const LINKS: usize = 40;
/// How many names are looked up.
const NAMES: usize = 512;

/// A path that is being looked up.
pub(super) struct Route {
    pub places: Vec<RoutePlace>,
    /// The directory that was reached, without symbolic links; empty: "/".
    at: Vec<u8>,
    /// The names that are left, from this place on.
    names: Box<[u8]>,
    next: usize,
    /// How many names and links there were.
    looked_up: usize,
    links: usize,
    follows_last: bool,
    /// The last name was a link, which leads on.
    has_left: bool,
}

enum Entry {
    /// A link: the names are those of its target and of what comes behind.
    Link,
    /// What is to be found by the path.
    Last,
    /// A directory, or nothing.
    Other,
}

enum Watched {
    Yes,
    /// It is not there any more.
    Gone,
    /// For this reason.
    No(Errno),
}

/// Whether there is no such directory.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG)
}

impl Route {
    pub fn new(path: &[u8], follows_last: bool) -> Result<Self, Errno> {
        Ok(Self {
            places: Vec::new(),
            at: Vec::new(),
            names: try_copy(path).ok_or(Errno::ENOMEM)?,
            next: 0,
            looked_up: 0,
            links: 0,
            follows_last,
            has_left: false,
        })
    }

    fn rest(&self) -> &[u8] {
        self.names.get(self.next..).unwrap_or_default()
    }

    /// Takes the next name off; `None`: there are no more, or too many.
    fn next_name(&mut self) -> Result<Option<Box<[u8]>>, Errno> {
        loop {
            let rest = self.rest();
            let Some(name) = rest.split(|byte| *byte == b'/').next().filter(|_| !rest.is_empty())
            else {
                return Ok(None);
            };
            let is_name = !name.is_empty() && name != b".";
            let taken = is_name.then(|| try_copy(name).ok_or(Errno::ENOMEM)).transpose()?;
            self.next += name.len() + 1;
            if taken.is_some() {
                self.looked_up += 1;
                return Ok(taken.filter(|_| self.looked_up <= NAMES));
            }
        }
    }

    fn is_last(&self) -> bool {
        self.rest().split(|byte| *byte == b'/').all(|name| name.is_empty() || name == b".")
    }

    /// The path of an entry of the directory that was reached, with a NUL byte.
    fn path_of(&self, name: &[u8]) -> Result<Box<[u8]>, Errno> {
        try_concat([&self.at, b"/".as_slice(), name, b"\0"].into_iter()).ok_or(Errno::ENOMEM)
    }

    /// The path of that directory itself.
    fn path(&self) -> Result<Box<[u8]>, Errno> {
        let path: &[u8] = if self.at.is_empty() { b"/" } else { &self.at };
        try_concat([path, b"\0"].into_iter()).ok_or(Errno::ENOMEM)
    }

    fn enter(&mut self, name: &[u8]) -> Result<(), Errno> {
        self.at.try_push(b'/')?;
        Ok(self.at.try_copy_from(name)?)
    }

    /// Goes to the directory above; the name of the one that was left.
    fn leave(&mut self) -> Result<Box<[u8]>, Errno> {
        let slash = self.at.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let name = self.at.get(slash + 1..).unwrap_or_default();
        let name = try_copy(name).ok_or(Errno::ENOMEM)?;
        self.at.truncate(slash);
        Ok(name)
    }

    fn look_up(&mut self, name: &[u8], is_last: bool) -> Result<Entry, Errno> {
        let path = self.path_of(name)?;
        // Not on the stack, of which a call takes little.
        let mut buffer = Vec::new();
        buffer.try_lengthen(libc::PATH_MAX as usize, 0)?;
        let target = match file::link_target(c_str(&path)?, &mut buffer) {
            Ok(target) => target,
            Err(Errno::EINVAL) if is_last => return Ok(Entry::Last),
            Err(_) => return Ok(Entry::Other),
        };
        if is_last && !self.follows_last || self.links == LINKS {
            return Ok(Entry::Last);
        }
        self.links += 1;
        self.has_left |= is_last;
        if target.starts_with(b"/") {
            self.at.clear();
        }
        let names = try_concat([target, b"/".as_slice(), self.rest()].into_iter());
        (self.names, self.next) = (names.ok_or(Errno::ENOMEM)?, 0);
        Ok(Entry::Link)
    }
}

impl Files {
    /// Watches the directories on a route; those that are watched when this
    /// fails are among its places, too.
    pub(super) fn take_route(&mut self, id: u32, route: &mut Route) -> Result<(), Errno> {
        while let Some(name) = route.next_name()? {
            if *name == *b".." {
                route.leave()?;
                continue;
            }
            let is_last = route.is_last();
            if !is_last && self.pass(id, route, &name)? {
                continue;
            }
            let is_own = is_last && !route.has_left;
            let watched = self.watch_entries(id, route, &name)?;
            match (route.look_up(&name, is_last)?, watched) {
                (Entry::Last | Entry::Link, Watched::No(errno)) if is_own => return Err(errno),
                (Entry::Link, _) => {}
                (Entry::Last, _) => return Ok(()),
                (Entry::Other, _) if !is_last && self.pass(id, route, &name)? => {}
                // What is missing has to be waited for.
                (Entry::Other, Watched::No(errno)) => return Err(errno),
                (Entry::Other, _) => return self.watch_parent(id, route),
            }
        }
        Ok(())
    }

    /// Goes into a directory and watches it; false: it is none.
    fn pass(&mut self, id: u32, route: &mut Route, name: &[u8]) -> Result<bool, Errno> {
        let path = route.path_of(name)?;
        let entered = self.join_above(id, c_str(&path)?, ITSELF);
        match entered {
            Ok(watch) => self.add_place(id, route, (watch, ITSELF, b""))?,
            Err(errno) if errno.is_shortage() => return Err(errno),
            Err(errno) if is_missing(errno) => return Ok(false),
            // It may not be read, but perhaps be passed.
            Err(_) => {}
        }
        route.enter(name)?;
        Ok(true)
    }

    /// Watches the entries of the directory that was reached.
    fn watch_entries(&mut self, id: u32, route: &mut Route, name: &[u8]) -> Result<Watched, Errno> {
        let path = route.path()?;
        match self.join_above(id, c_str(&path)?, BOTH) {
            Ok(watch) => {
                self.add_place(id, route, (watch, BOTH, name))?;
                Ok(Watched::Yes)
            }
            Err(errno) if errno.is_shortage() => Err(errno),
            Err(errno) if is_missing(errno) => Ok(Watched::Gone),
            Err(errno) => Ok(Watched::No(errno)),
        }
    }

    /// Watches the entry of an empty directory, too: the kernel does not
    /// report the deletion of one that a process has open.
    fn watch_parent(&mut self, id: u32, route: &mut Route) -> Result<(), Errno> {
        let name = route.leave()?;
        if !name.is_empty() {
            self.watch_entries(id, route, &name)?;
        }
        Ok(())
    }

    fn add_place(
        &mut self,
        id: u32,
        route: &mut Route,
        (watch, mask, name): (i32, u32, &[u8]),
    ) -> Result<(), Errno> {
        self.know(id, watch)?;
        let name = try_copy(name).ok_or(Errno::ENOMEM)?;
        Ok(route.places.try_push(RoutePlace { watch, mask, name })?)
    }
}
