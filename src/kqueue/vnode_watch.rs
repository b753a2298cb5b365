//! Which files a queue watches: what the filters of a descriptor's knotes want
//! to know of its file.

use super::filter;
use super::knote::*;
use super::registration::*;
use super::slab::NONE;
use super::source::vnode::{FRESH, NEEDED, PARENT, VnodeWatch, file_of, snapshot, watch};
use super::state::QueueState;
use crate::errno::Errno;
use crate::sys::inotify::Of;
use crate::util::alloc::TryMap;
use crate::util::bug_or;

impl QueueState {
    /// Has inotify watch for what a descriptor's knotes need now. `changed`:
    /// the only knote that needs something else than before; `None`: perhaps
    /// all.
    pub fn refresh_vnode_watches(&mut self, id: u32, changed: Option<u32>) -> Result<(), Errno> {
        let wanted = self.wanted_vnode_bits(id, changed);
        if wanted == 0 && !self.has_vnode_watches(id) {
            return Ok(());
        }
        match self.refresh_role(id, Role::File, wanted & !(PARENT | NEEDED)) {
            Err(Errno::EACCES | Errno::ENOTSUP) if wanted & NEEDED == 0 => {}
            result => result?,
        }
        let parent = if wanted & PARENT != 0 { libc::IN_DELETE | libc::IN_ONLYDIR } else { 0 };
        self.refresh_role(id, Role::Parent, parent)
    }

    fn wanted_vnode_bits(&self, id: u32, changed: Option<u32>) -> u32 {
        let Some(registration) = self.store.registrations.get(id) else { bug_or!(return 0) };
        let of = |knote: &Knote| filter::of(knote).vnode_interest(knote, registration);
        let changed_one = changed.and_then(|changed| self.store.knotes.get(changed));
        let mut wanted = changed_one.filter(|knote| knote.registration == id).map_or(0, of);
        let mut cursor = registration.first;
        // The others need no more than what is watched for.
        while (changed.is_none() || !self.covers_vnode_bits(id, wanted))
            && let Some(knote) = self.store.knotes.get(cursor)
        {
            wanted |= of(knote);
            cursor = knote.next;
        }
        wanted
    }

    /// Whether this is all that is watched for, or more.
    fn covers_vnode_bits(&self, id: u32, wanted: u32) -> bool {
        let parent = self.store.role_watch(id, Role::Parent).mask != 0;
        self.store.role_watch(id, Role::File).mask & !wanted == 0
            && (!parent || wanted & PARENT != 0)
    }

    fn has_vnode_watches(&self, id: u32) -> bool {
        let registration = self.store.registrations.get(id);
        registration.is_some_and(|one| one.role_watch.iter().any(|role_watch| role_watch.mask != 0))
    }

    /// Before a change of a descriptor: what has happened until now is not
    /// for what comes, and what was closed is forgotten.
    pub fn prepare_vnode_watches(&mut self, ident: u64) {
        let known = self.store.index.get(&(ident, DESCRIPTOR)).copied();
        let Some(id) = known.filter(|id| {
            self.store.registrations.get(*id).is_some_and(Registration::has_vnode_watch)
        }) else {
            return;
        };
        self.take_vnode_events();
        if self.store.registrations.get(id).is_some_and(|one| one.compare().is_err()) {
            self.forget(id);
        }
    }

    fn refresh_role(&mut self, id: u32, role: Role, wanted: u32) -> Result<(), Errno> {
        let role_watch = self.store.role_watch(id, role);
        if wanted == role_watch.mask {
            return Ok(());
        }
        if role_watch.watch < 0 {
            return self.add_vnode_watch(id, role, wanted);
        }
        if wanted == 0 {
            self.sources.vnode.drop_watch(&mut self.store, &self.sources.set, id, role);
            return Ok(());
        }
        self.store.set_role_watch(id, role, RoleWatch { mask: wanted, ..role_watch });
        self.look_at(role_watch.watch);
        let result = self.sources.vnode.set_mask(
            &self.store,
            role_watch.watch,
            Some(file_of(&self.store, id, role)),
        );
        if result.is_err() {
            // The list may be another by now.
            let now = self.store.role_watch(id, role);
            self.store.set_role_watch(id, role, RoleWatch { mask: role_watch.mask, ..now });
        }
        result
    }

    /// Gives a registration a watch in a role.
    pub fn add_vnode_watch(&mut self, id: u32, role: Role, mask: u32) -> Result<(), Errno> {
        // Another's by now?
        self.store.registrations.get(id).map_or(Ok(()), Registration::compare)?;
        let watch = self.join_watch(file_of(&self.store, id, role), mask)?;
        if self.store.registrations.get(id).is_none_or(|one| one.is_gone) {
            // It was closed, as was just seen.
            self.sources.vnode.end_unless_used(&self.sources.set, watch);
            return Err(Errno::EBADF);
        }
        let now = snapshot(&self.store, id);
        let is_first = self.sources.vnode.first(watch, Role::File) == NONE;
        let known = self.sources.vnode.watches.try_entry(watch)?;
        if let Some(now) = now.filter(|_| is_first && role == Role::File) {
            known.seen = now;
        }
        if let Some(first) = known.first.get_mut(role as usize) {
            let next = std::mem::replace(first, id);
            self.store.set_role_watch(id, role, RoleWatch { watch, mask, next });
        }
        Ok(())
    }

    /// A watch of a file, for these bits too: an old one, or a new one. The
    /// registrations that had it are notified first of what happened before.
    fn join_watch(&mut self, of: Of, mask: u32) -> Result<i32, Errno> {
        loop {
            self.sources.vnode.open(&self.sources.set)?;
            let added = self.sources.vnode.watches.try_reserve(1).map_err(|_| Errno::ENOMEM);
            let added =
                added.and_then(|()| watch(self.sources.vnode.raw(), of, mask | libc::IN_MASK_ADD));
            let number =
                added.inspect_err(|_| self.sources.vnode.close_if_unused(&self.sources.set))?;
            let Some(known) = self.sources.vnode.watches.get_mut(&number) else {
                self.sources.vnode.watches.insert_reserved(number, VnodeWatch { mask, ..FRESH });
                return Ok(number);
            };
            known.mask |= mask;
            self.take_vnode_events();
            self.look_at(number);
            if self.sources.vnode.watches.contains_key(&number) {
                return Ok(number);
            }
            // Those that had it turned out to be gone, and it with them.
        }
    }
}
