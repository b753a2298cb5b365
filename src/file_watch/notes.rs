//! What is made of inotify's notes: whom they are told, and what becomes of
//! the trees.

use super::queue::Raw;
use super::watches::User;
use super::{ENTERED, ENTRIES, ERROR, Files, GONE, MOVED, Note, REPLACED};
use crate::errno::Errno;
use crate::util::alloc::{TryDeque, TryVec};

/// What is to be told, by places in a tree.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub mask: u32,
    pub errno: Option<Errno>,
    pub at: (i32, &'a [u8]),
    pub before: Option<(i32, &'a [u8])>,
}

/// An entry of a directory, and how much inotify had said when it had told of
/// it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub watch: i32,
    pub name: &'a [u8],
    pub end: u64,
}

impl<'a> Place<'a> {
    fn of(note: &'a Raw) -> Self {
        Self { watch: note.watch, name: &note.name, end: note.end }
    }
}

impl<'a> Told<'a> {
    pub fn entry(mask: u32, watch: i32, name: &'a [u8]) -> Self {
        Self { mask, errno: None, at: (watch, name), before: None }
    }
}

// What is told.
impl Files {
    /// Tells a watcher what it asked for, and what is told to all.
    pub(super) fn tell(&mut self, id: u32, told: Told<'_>) {
        const ALWAYS: u32 =
            ERROR | REPLACED | GONE | libc::IN_Q_OVERFLOW | libc::IN_IGNORED | libc::IN_UNMOUNT;
        let Some(watcher) = self.watchers.get(&id) else { return };
        let mask = told.mask & (watcher.mask | ALWAYS);
        if mask == 0 {
            return;
        }
        let both = mask & MOVED == MOVED;
        let name = watcher.below(told.at.0, told.at.1);
        let old_name = match told.before.filter(|_| both) {
            Some((watch, name)) => watcher.below(watch, name),
            None => Ok(Box::default()),
        };
        let room = self.told.try_reserve(1).is_ok();
        let (Ok(name), Ok(old_name), true) = (name, old_name, room) else {
            return self.miss(id, told.mask);
        };
        let note = Note {
            mask: mask | told.mask & libc::IN_ISDIR,
            errno: told.errno,
            name,
            old_name,
            ..self.number(0)
        };
        self.told.push_back_reserved((id, note));
    }

    /// There is no memory to tell something: that events were lost is told
    /// as soon as there is.
    fn miss(&mut self, id: u32, mask: u32) {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.has_lost = true;
            watcher.has_ended |= mask & libc::IN_IGNORED != 0;
            self.missed = true;
        }
    }

    /// A directory, or this entry of it, could not be watched, or not be read.
    pub(super) fn tell_failure(&mut self, id: u32, watch: i32, name: &[u8], errno: Errno) {
        self.tell(id, Told { errno: Some(errno), ..Told::entry(ERROR, watch, name) });
    }

    /// Nothing more will be told.
    pub(super) fn tell_end(&mut self, id: u32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let root = std::mem::replace(&mut watcher.root, -1);
        self.end_renewal(id);
        self.claims.retain(|scan| scan.watcher != id);
        self.backlog.drop_watcher(id);
        self.forget(id, root);
        self.tell(id, Told::entry(libc::IN_IGNORED, -1, b""));
    }
}

// What inotify says.
impl Files {
    pub(super) fn take(&mut self, note: &Raw) {
        match note.mask {
            mask if mask & libc::IN_Q_OVERFLOW != 0 => self.take_overflow(),
            mask if mask & libc::IN_IGNORED != 0 => self.take_end(note.watch),
            _ => self.for_users(note, |files, id| files.take_for(id, note)),
        }
    }

    /// A rename, both of whose directories are watched.
    pub(super) fn take_pair(&mut self, from: &Raw, to: &Raw) {
        // Before either half is taken, which may change what is watched.
        let mut others = self.users_of(to);
        others.retain(|user| !self.is_user(user.watcher, from.watch));
        self.for_users(from, |files, id| {
            if files.is_user(id, to.watch) {
                files.take_move(id, from, to)
            } else {
                files.take_for(id, from)
            }
        });
        for user in others {
            self.take_for(user.watcher, to);
        }
    }

    /// Does something for those who hear of this.
    fn for_users(&mut self, note: &Raw, mut tell: impl FnMut(&mut Self, u32)) {
        for user in self.users_of(note) {
            tell(self, user.watcher);
        }
    }

    fn users_of(&mut self, note: &Raw) -> Vec<User> {
        let mut users = Vec::new();
        let Some(watch) = self.watches.get(&note.watch) else { return users };
        let hears = |user: &User| note.end > user.since;
        if users.try_extend(watch.users().copied().filter(hears)).is_err() {
            self.lost = true;
            users.clear();
        }
        users
    }

    fn take_for(&mut self, id: u32, note: &Raw) {
        if self.take_followed(id, note, None) {
            return;
        }
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let told = Told::entry(note.mask, note.watch, &note.name);
        if note.name.is_empty() {
            let is_root = watcher.root == note.watch;
            // Of a directory in a tree, that which it lies in tells the rest.
            if is_root || note.mask & libc::IN_UNMOUNT != 0 {
                self.tell(id, told);
            }
            if note.mask & libc::IN_UNMOUNT != 0 {
                self.note_unmount(id, note.watch);
            }
            if is_root && note.mask & libc::IN_MOVE_SELF != 0 {
                self.take_root_moved(id);
            }
            return;
        }
        if !watcher.recursive {
            return self.tell(id, told);
        }
        if note.mask & ENTRIES == 0 {
            return self.tell(id, told);
        }
        let displaced = watcher.take_displaced(note.watch, &note.name);
        self.tell(id, told);
        if note.is_directory() {
            self.take_directory(id, note, displaced);
        }
    }

    /// A directory came into another one, or went.
    fn take_directory(&mut self, id: u32, note: &Raw, displaced: Option<i32>) {
        let place = Place::of(note);
        if note.mask & MOVED != 0 {
            self.look_up_later(id, note.watch, &note.name);
        }
        match note.mask {
            mask if mask & ENTERED != 0 => self.arrive(id, place),
            mask if mask & libc::IN_MOVED_FROM != 0 => self.lose(id, place, displaced),
            _ => self.bury(id, place),
        }
    }

    /// A name was changed, of something that stays where the watcher hears
    /// of it.
    fn take_move(&mut self, id: u32, from: &Raw, to: &Raw) {
        if self.take_followed(id, from, Some(to)) {
            return;
        }
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let displaced = watcher.take_displaced(from.watch, &from.name);
        watcher.take_displaced(to.watch, &to.name);
        let recursive = watcher.recursive;
        self.tell_move(id, from, to);
        if recursive && to.is_directory() {
            self.look_up_later(id, from.watch, &from.name);
            self.look_up_later(id, to.watch, &to.name);
            self.follow(id, Place::of(from), Place::of(to), displaced);
        }
    }

    pub(super) fn tell_move(&mut self, id: u32, from: &Raw, to: &Raw) {
        let Some(watcher) = self.watchers.get(&id) else { return };
        let (before, at) = ((from.watch, &*from.name), (to.watch, &*to.name));
        let both = Told::entry(from.mask | to.mask, at.0, at.1);
        let asked = watcher.mask & MOVED;
        let told = if asked == libc::IN_MOVED_FROM { Told { at: before, ..both } } else { both };
        self.tell(id, Told { before: Some(before), ..told });
    }

    /// The root of a watcher has another name: a tree is found by it.
    fn take_root_moved(&mut self, id: u32) {
        let is_tree = self.watchers.get(&id).is_some_and(|watcher| watcher.recursive);
        if is_tree && self.is_root_lost(id) {
            self.tell_end(id);
        }
    }

    /// A watch is gone: its file was deleted, or unmounted.
    fn take_end(&mut self, number: i32) {
        let Some(watch) = self.watches.remove(&number) else { return };
        for user in watch.users() {
            let root = self.watchers.get(&user.watcher).map(|watcher| watcher.root);
            if self.take_followed_end(user.watcher, number) {
                continue;
            }
            if root == Some(number) {
                self.tell_end(user.watcher);
            } else {
                self.forget_ended(user.watcher, number);
            }
        }
    }
}
