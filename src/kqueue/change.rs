//! Changes of a queue: knotes that are added, changed and deleted.

use super::event::*;
use super::filter::{self, Filter, Verdict};
use super::knote::*;
use super::registration::Registration;
use super::slab::NONE;
use super::source::aio::Request;
use super::state::QueueState;
use super::store::no_memory;
use crate::errno::{Errno, Error, Result, error, fail};
use crate::handle::try_box;
use crate::sys::fd;
use crate::util::alloc::TryMap;
use crate::util::bug_or;
use std::os::fd::RawFd;

impl QueueState {
    /// Applies one change.
    pub fn change(&mut self, change: &Kevent) -> Result<()> {
        if change.filter == 0 {
            // As FreeBSD has it: an empty entry.
            return Ok(());
        }
        let filter = filter::find(change.filter)?;
        let flags = change.flags & !EV_SYSFLAGS;
        if flags & (EV_ENABLE | EV_DISABLE) == EV_ENABLE | EV_DISABLE {
            fail!(EINVAL, "flags {} both enable and disable", u32::from(flags));
        }
        let change = Kevent { flags, ..*change };
        if filter.is_of_descriptor() {
            self.change_descriptor(filter, &change)
        } else {
            self.change_other(filter, &change)
        }
    }

    /// Applies a change whose ident is not a descriptor.
    fn change_other(&mut self, filter: &'static dyn Filter, change: &Kevent) -> Result<()> {
        let first = self.store.first_of(change.ident, change.filter);
        let found = self.store.find(first, change);
        match found {
            Some(id) if change.flags & EV_DELETE != 0 => {
                filter.may_delete(&self.store, id)?;
                self.remove(id);
                Ok(())
            }
            Some(id) => self.modify(filter, id, change),
            None if change.flags & EV_ADD != 0 => self.add(filter, change, NONE),
            None => Err(unknown(change)),
        }
    }

    fn change_descriptor(&mut self, filter: &'static dyn Filter, change: &Kevent) -> Result<()> {
        let Some(fd) = RawFd::try_from(change.ident).ok() else {
            fail!(EBADF, "ident {} is no descriptor", change.ident as i64);
        };
        self.prepare_vnode_watches(change.ident);
        let Some(registration) = self.store.index.get(&(change.ident, DESCRIPTOR)).copied() else {
            return self.add_descriptor(filter, change, fd);
        };
        let first = self.store.registrations.get(registration).map_or(NONE, |one| one.first);
        let result = match self.store.find(first, change) {
            Some(id) if change.flags & EV_DELETE != 0 => {
                let asked = self.unlink(id);
                self.settle_registration(registration, asked)
            }
            Some(id) => self.modify(filter, id, change),
            None if change.flags & EV_ADD != 0 => self.add_beside(filter, change, registration),
            None => {
                Err(self.verify(registration).err().map_or_else(|| unknown(change), Error::from))
            }
        };
        match result {
            // The program has closed the descriptor, and perhaps opened
            // another file that has it now.
            Err(error) if self.failed_as_gone(registration, fd, &error) => {
                self.forget(registration);
                match error.errno {
                    Errno::EBADF => fail!(EBADF, "fd {} is not open", fd),
                    _ => self.add_descriptor(filter, change, fd),
                }
            }
            result => result,
        }
    }

    /// Adds a knote to a descriptor that has a registration.
    fn add_beside(
        &mut self,
        filter: &dyn Filter,
        change: &Kevent,
        registration: u32,
    ) -> Result<()> {
        // For other filters the refresh of the registration checks that.
        if filter.looks_at_file_type() {
            self.verify(registration)?;
        }
        self.add(filter, change, registration)
    }

    /// Whether a change failed because the descriptor is another by now.
    fn failed_as_gone(&mut self, registration: u32, fd: RawFd, error: &Error) -> bool {
        match error.errno {
            Errno::EBADF => !fd::is_open(fd),
            Errno::ENOENT => self.verify(registration).is_err(),
            _ => false,
        }
    }

    /// Applies a change of a descriptor that has no registration.
    fn add_descriptor(
        &mut self,
        filter: &'static dyn Filter,
        change: &Kevent,
        fd: RawFd,
    ) -> Result<()> {
        let Some(fresh) = Registration::of(fd) else {
            fail!(EBADF, "fd {} is not open", fd);
        };
        if change.flags & EV_ADD == 0 {
            return Err(unknown(change));
        }
        if self.is_own(fd) {
            fail!(EINVAL, "fd {} is the library's own", fd);
        }
        self.store.reserve_index()?;
        let Some(registration) = self.store.registrations.insert(fresh, NONE) else {
            return Err(no_memory());
        };
        self.store.index.insert_reserved((change.ident, DESCRIPTOR), registration);
        let added = self.add(filter, change, registration);
        if added.is_err() {
            self.forget(registration);
        }
        if let Some(registration) = self.store.registrations.get_mut(registration) {
            registration.is_fresh = false;
        }
        added
    }

    /// Adds a knote; of a descriptor if it has a registration.
    fn add(&mut self, filter: &dyn Filter, change: &Kevent, registration: u32) -> Result<()> {
        let mut knote = Knote::new(change, change.flags);
        knote.registration = registration;
        knote.ext = kept_ext(change)?;
        filter.check(&mut knote)?;
        self.store.reserve_index()?;
        let id = self.store.insert(knote)?;
        self.store.link(id, change);
        if let Err(error) = self.start(filter, (id, registration), change) {
            // The first error counts.
            let _ = self.unlink(id);
            return Err(error);
        }
        Ok(())
    }

    fn start(
        &mut self,
        filter: &dyn Filter,
        (id, registration): (u32, u32),
        change: &Kevent,
    ) -> Result<()> {
        filter.attach(&mut self.store, &mut self.sources, id)?;
        if registration != NONE {
            self.refresh_of(id, registration)?;
            self.activate_file(id);
        }
        if change.flags & EV_FORCEONESHOT != 0 {
            self.force(id);
        }
        Ok(())
    }

    /// Changes a knote. On failure it is as before.
    fn modify(&mut self, filter: &dyn Filter, id: u32, change: &Kevent) -> Result<()> {
        let Some(knote) = self.store.knotes.get(id) else { bug_or!(return Ok(())) };
        let (registration, before) = (knote.registration, Settings::of(knote));
        let ext = kept_ext(change)?;
        if let Err(error) = self.try_settings(filter, (id, registration), change) {
            self.set_back((id, registration), &before);
            return Err(error);
        }
        if let Some(knote) = self.store.knotes.get_mut(id)
            && change.flags & EV_KEEPUDATA == 0
        {
            (knote.udata, knote.ext) = (change.udata, ext);
        }
        if change.flags & EV_FORCEONESHOT != 0 {
            self.force(id);
        }
        if registration != NONE {
            self.activate_file(id);
        }
        Ok(())
    }

    /// The part of a change that can fail.
    fn try_settings(
        &mut self,
        filter: &dyn Filter,
        (id, registration): (u32, u32),
        change: &Kevent,
    ) -> Result<()> {
        filter.touch(&mut self.store, &mut self.sources, id, change)?;
        if change.flags & (EV_ADD | EV_ENABLE | EV_DISABLE) != 0 {
            self.set_enabled(id, change.flags & EV_DISABLE == 0);
        }
        if registration == NONE { Ok(()) } else { self.refresh_of(id, registration) }
    }

    /// Restores the settings of a knote after a change that failed. This needs
    /// no memory: the knote watched for the same before.
    fn set_back(&mut self, (id, registration): (u32, u32), before: &Settings) {
        self.set_enabled(id, before.enabled);
        let Some(knote) = self.store.knotes.get_mut(id) else { return };
        (knote.flags, knote.fflags, knote.data) = (before.flags, before.fflags, before.data);
        self.count_need(id);
        if registration != NONE {
            let _ = self.refresh(registration, NONE, NONE);
        }
    }

    /// Has the kernel watch for a knote what it now needs, and makes sure
    /// that its descriptor still is the one that it was.
    fn refresh_of(&mut self, id: u32, registration: u32) -> Result<()> {
        self.count_need(id);
        let shares = self.shares_edges(id);
        let asked = self.refresh(registration, if shares { NONE } else { id }, id);
        self.settle_registration(registration, asked)?;
        if shares {
            self.look_now(id);
        }
        Ok(())
    }

    /// Activates a knote whose event has occurred. The kernel will not report
    /// the present state, as it has reported it for other knotes.
    fn look_now(&mut self, id: u32) {
        if let Verdict::True(_) =
            filter::of_id(&self.store, id).evaluate(&mut self.store, &mut self.sources, id, None)
        {
            self.store.activate(id);
        }
    }

    /// Activates a knote of a file that no epoll watches: its filter has to
    /// look.
    fn activate_file(&mut self, id: u32) {
        let Some(knote) = self.store.knotes.get(id) else { return };
        let is_file =
            self.store.registrations.get(knote.registration).is_some_and(|one| one.is_file);
        if is_file && filter::of(knote).interest(knote).1 != 0 {
            self.store.activate(id);
        }
    }

    /// Finishes a refresh: verifies the descriptor if the kernel was not asked,
    /// and drops a registration that is not used any more.
    fn settle_registration(
        &mut self,
        registration: u32,
        asked: std::result::Result<bool, Errno>,
    ) -> Result<()> {
        let fd = self.store.registrations.get(registration).map_or(-1, |one| one.fd);
        let result = match asked {
            Ok(false) => self.verify(registration),
            Ok(true) => Ok(()),
            Err(errno) => Err(errno),
        };
        self.drop_if_unused(registration);
        result.map_err(|errno| explain(errno, fd))
    }

    fn force(&mut self, id: u32) {
        if let Some(knote) = self.store.knotes.get_mut(id) {
            knote.flags |= EV_ONESHOT;
            knote.status |= FORCED;
            self.store.activate(id);
        }
    }

    /// Begins an operation.
    pub fn begin_operation(&mut self, request: Request, ident: u64, udata: u64) -> Result<()> {
        if self.store.index.contains_key(&(ident, FILTER_AIO)) {
            fail!(EEXIST, "operation {} is in flight, or was not collected yet", ident as i64);
        }
        // The ring is made before the fd is checked: it may get this very fd.
        self.sources.aio.open(&self.sources.set)?;
        if self.is_own(request.fd) {
            fail!(EINVAL, "fd {} is the library's own", request.fd);
        }
        self.sources.aio.begin(&mut self.store, request, (ident, udata))
    }
}

/// What a change of a knote may replace.
struct Settings {
    flags: u16,
    fflags: u32,
    data: i64,
    enabled: bool,
}

impl Settings {
    fn of(knote: &Knote) -> Self {
        let Knote { flags, fflags, data, .. } = *knote;
        Self { flags, fflags, data, enabled: !knote.is(DISABLED) }
    }
}

fn kept_ext(change: &Kevent) -> Result<Option<Box<[u64; 4]>>> {
    if change.ext == [0; 4] {
        return Ok(None);
    }
    try_box(change.ext).map(Some).ok_or_else(no_memory)
}

fn unknown(change: &Kevent) -> Error {
    let (ident, filter) = (change.ident as i64, i32::from(change.filter));
    error!(Errno::ENOENT, "ident {} is not watched with filter {}", ident, filter)
}

fn explain(errno: Errno, fd: RawFd) -> Error {
    match errno {
        Errno::EBADF => error!(errno, "fd {} is not open", fd),
        Errno::EINVAL => error!(errno, "fd {} is the queue itself", fd),
        Errno::ELOOP => {
            error!(errno, "fd {} would nest queues in a circle, too deep or too often", fd)
        }
        Errno::EACCES => error!(errno, "fd {}: its file, or directory, may not be read", fd),
        Errno::ENOSPC => error!(errno, "fd {}: there are no watches of inotify left", fd),
        Errno::ENOTSUP => error!(errno, "fd {}: there is no /proc to watch files by", fd),
        _ => errno.into(),
    }
}
