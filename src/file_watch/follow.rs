//! Watchers that follow their path: what has it is watched, whatever that is.
//!
//! Besides that file the directories are watched that the path leads through
//! (`route`). Whenever an entry that it uses changes, or such a directory is
//! renamed or deleted, the path is looked up again. inotify says by the number
//! of the watch whether it still leads to the same file. The program gets
//! events of the file alone: what is reported of directories is for the
//! watcher.

use super::events::Outgoing;
use super::node::DirectoryId;
use super::path::{c_str, terminated};
use super::places::RoutePlace;
use super::queue::QueuedEvent;
use super::route::Route;
use super::state::{Files, Watcher};
use super::types::{GONE, REPLACED};
use crate::errno::Errno;
use crate::util::alloc::TryVec;

/// How often the route is looked up again, if it changes.
const TRIES: usize = 4;

/// What an event is for a watcher that follows its path.
#[derive(Clone, Copy)]
struct Role {
    /// It is about the file: the watcher is notified of it.
    is_reported: bool,
    /// It is about the path: the path is looked up again.
    is_followed: bool,
}

/// Whether a path leads to nothing now.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR)
}

impl Watcher {
    /// Whether it may be notified of something, now or later.
    pub(super) fn is_watching(&self) -> bool {
        self.root >= 0 || self.follow.is_some()
    }

    fn role_of(&self, event: &QueuedEvent) -> Option<Role> {
        let follow = self.follow.as_ref()?;
        Some(Role {
            is_reported: event.watch == self.root && event.end > follow.since,
            is_followed: follow.places.iter().any(|index| index.concerns(event)),
        })
    }
}

impl Files {
    /// Watches what a new watcher follows, and its path. It may be that the
    /// file is not there yet, nor its directory.
    pub(super) fn attach_follower(&mut self, id: u32) -> Result<(), Errno> {
        self.watch_route(id)?;
        let watched = self.watch_followed(id);
        let Some(follow) = self.watchers.get_mut(&id).and_then(|one| one.follow.as_mut()) else {
            return Ok(());
        };
        let is_new = std::mem::take(&mut follow.is_new);
        follow.is_gone = watched.is_err();
        match watched {
            Err(errno) if errno == Errno::ENOENT || !is_new && is_absent(errno) => Ok(()),
            watched => watched.map(drop),
        }
    }

    /// Watches what has the path; whether that is another file.
    fn watch_followed(&mut self, id: u32) -> Result<bool, Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(false) };
        let (path, flags, before) = (terminated(&watcher.path)?, watcher.flags, watcher.root);
        let root = self.join_path(id, c_str(&path)?, flags)?;
        if root == before {
            return Ok(false);
        }
        self.know(id, root)?;
        let since = self.since_now(id, root);
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.root = root;
            if let Some(follow) = &mut watcher.follow {
                follow.since = since;
            }
        }
        self.forget_unless_used(id, before);
        Ok(true)
    }

    /// From where in inotify's queue on a watch is for a watcher that takes it
    /// for its file now: it may have it for a directory already.
    fn since_now(&self, id: u32, number: i32) -> u64 {
        let follow = self.watchers.get(&id).and_then(|one| one.follow.as_ref());
        let is_on_route = follow.is_some_and(|follow| follow.wanted(number) != 0);
        if is_on_route { self.end_of_queue() } else { self.since(id, number) }
    }

    /// Watches the directories that the path leads through, or those of them
    /// that are there.
    fn watch_route(&mut self, id: u32) -> Result<(), Errno> {
        for tried in 1..=TRIES {
            let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
            let follows_last = watcher.flags & libc::IN_DONT_FOLLOW == 0;
            let mut route = Route::new(&watcher.path, follows_last)?;
            let taken = self.take_route(id, &mut route);
            let is_same = self.take_places(id, route.places, taken.is_ok(), tried < TRIES);
            taken?;
            if is_same {
                break;
            }
            // One may have changed before it was watched.
        }
        Ok(())
    }

    /// Has these be the directories on the route, and watches no others;
    /// whether they are what they were. `is_whole`: there are no more of them.
    /// `may_narrow`: the route is looked up once more if this is false.
    fn take_places(
        &mut self,
        id: u32,
        indices: Vec<RoutePlace>,
        is_whole: bool,
        may_narrow: bool,
    ) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else { return true };
        let root = watcher.root;
        let Some(follow) = &mut watcher.follow else { return true };
        let mut before = std::mem::replace(&mut follow.places, indices);
        if !is_whole {
            // The others are still watched.
            let _ = follow.places.try_extend(std::mem::take(&mut before).into_iter());
        }
        if before == follow.places {
            return true;
        }
        for index in before.iter().filter(|index| index.watch != root) {
            let follow = self.watchers.get(&id).and_then(|one| one.follow.as_ref());
            let wanted = follow.map_or(0, |follow| follow.wanted(index.watch));
            if wanted == 0 || may_narrow && index.mask & !wanted != 0 {
                self.forget(id, index.watch);
            }
        }
        false
    }

    /// Takes a watch among those of a watcher.
    pub(super) fn know(&mut self, id: u32, number: i32) -> Result<(), Errno> {
        let is_known = self.watchers.get(&id).is_some_and(|one| one.nodes.contains_key(&number));
        if is_known {
            Ok(())
        } else {
            self.insert(id, number, (-1, b""), (0, DirectoryId::default()))
        }
    }

    fn forget_unless_used(&mut self, id: u32, number: i32) {
        let follow = self.watchers.get(&id).and_then(|one| one.follow.as_ref());
        if number >= 0 && follow.is_some_and(|follow| follow.wanted(number) == 0) {
            self.forget(id, number);
        }
    }

    /// Looks up again what a following watcher follows.
    pub(super) fn look_again(&mut self, id: u32) {
        if self.watchers.get(&id).is_none_or(|watcher| watcher.follow.is_none()) {
            return;
        }
        let result = self.watch_route(id).and_then(|()| self.watch_followed(id));
        let failed = result.err().filter(|errno| !is_absent(*errno));
        let Some(follow) = self.watchers.get_mut(&id).and_then(|one| one.follow.as_mut()) else {
            return;
        };
        let had_failed = std::mem::replace(&mut follow.failed, failed);
        let is_gone = if failed.is_some() { follow.is_gone } else { result.is_err() };
        let was_gone = std::mem::replace(&mut follow.is_gone, is_gone);
        match result {
            Err(errno) if failed.is_some() && failed != had_failed => {
                self.report_failure(id, -1, b"", errno);
            }
            Err(_) if is_gone && !was_gone => self.notify(id, Outgoing::entry(GONE, -1, b"")),
            Ok(is_other) if is_other || was_gone => {
                self.notify(id, Outgoing::entry(REPLACED, -1, b""))
            }
            _ => {}
        }
    }

    /// Deals with an event, or a rename, that is reported to a watcher which
    /// follows its path; false: it is none.
    pub(super) fn take_followed(
        &mut self,
        id: u32,
        event: &QueuedEvent,
        to: Option<&QueuedEvent>,
    ) -> bool {
        let Some(watcher) = self.watchers.get(&id) else { return false };
        let Some(role) = watcher.role_of(event) else { return false };
        let other = to.and_then(|to| Some((to, watcher.role_of(to)?)));
        match other {
            Some((to, other)) if role.is_reported && other.is_reported => {
                self.notify_move(id, event, to);
            }
            _ => {
                let events = [Some((event, role)), other];
                for (event, _) in events.into_iter().flatten().filter(|(_, role)| role.is_reported)
                {
                    self.notify(id, Outgoing::entry(event.mask, event.watch, &event.name));
                }
            }
        }
        if role.is_followed || other.is_some_and(|(_, other)| other.is_followed) {
            self.look_again(id);
        }
        true
    }

    /// A watch has ended; false: it is not that of a watcher which follows its
    /// path.
    pub(super) fn take_followed_end(&mut self, id: u32, number: i32) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else { return false };
        let Some(follow) = &mut watcher.follow else { return false };
        if watcher.root == number {
            watcher.root = -1;
        }
        follow.places.retain(|index| index.watch != number);
        self.forget(id, number);
        self.look_again(id);
        true
    }
}
