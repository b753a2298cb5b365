//! Watched descriptors: what the kernel has of them, and whether they still
//! are what they were.

use super::epoll_set::*;
use super::filter;
use super::knote::*;
use super::needs::{Need, Needs};
use super::slab::NONE;
use super::state::QueueState;
use super::vnode_watch::{NO_WATCHES, RoleWatch};
use crate::errno::Errno;
use crate::sys::epoll::{self, RoundDetector};
use crate::sys::{file, socket};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// What every delivery looks at comes first.
#[repr(C)]
pub(super) struct Registration {
    pub fd: RawFd,
    /// Its knotes.
    pub first: u32,
    masks: Masks,
    pub needs: Needs,
    /// The type of the file: a bit pattern of stat(2); 0 for an eventfd
    /// and its like.
    pub file_type: u32,
    /// The kind of a socket.
    pub socket: Option<socket::SocketKind>,
    /// The kind that is in the inner epoll.
    in_inner: usize,
    /// No epoll takes it: it is always ready, or asked by us.
    pub is_file: bool,
    /// The descriptor is not this any more, and the kernel is not asked for
    /// anything.
    pub is_gone: bool,
    /// It was made by the change that is going on.
    pub is_fresh: bool,
    /// It is registered edge-triggered, as its reports were spurious.
    is_demoted: bool,
    /// Spurious reports in a row: no knote wanted them.
    spurious: u8,
    /// The device and inode number of its file, if these identify the file.
    identity: Option<(u64, u64)>,
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

impl QueueState {
    fn epoll_entry(&self, registration: u32, kind: usize) -> EpollEntry {
        let in_inner = self.registrations.get(registration).is_some_and(|one| one.in_inner == kind);
        let word = word(registration, self.registrations.generation(registration));
        EpollEntry { kind, in_inner, word }
    }

    /// Which kind of its registration is in the inner epoll.
    pub fn kind_in_inner(&self, id: u32) -> usize {
        self.registrations.get(id).map_or(KINDS, |registration| registration.in_inner)
    }

    /// Has the kernel watch a descriptor for what its knotes need now; true:
    /// that needed the kernel, which knows the descriptor. `changed`: the knote
    /// that needs something else than before; the edges of the one that was
    /// touched come again.
    pub fn refresh(&mut self, id: u32, touched: u32, changed: u32) -> Result<bool, Errno> {
        if self.registrations.get(id).is_none_or(|one| one.is_gone) {
            return Ok(false);
        }
        let was_file = self.is_file(id);
        let asked = self.refresh_epoll(id, touched)?;
        // A file's are other than those of what epoll takes.
        let changed = (was_file == self.is_file(id)).then_some(changed);
        self.refresh_vnode_watches(id, changed)?;
        Ok(asked)
    }

    fn is_file(&self, id: u32) -> bool {
        self.registrations.get(id).is_some_and(|one| one.is_file)
    }

    fn refresh_epoll(&mut self, id: u32, touched: u32) -> Result<bool, Errno> {
        let Some(registration) = self.registrations.get(id) else { return Ok(false) };
        if registration.is_file {
            return Ok(false);
        }
        let (wanted, again) = self.wanted(id, touched);
        let masks = registration.masks;
        let grows = masks.iter().zip(&wanted).any(|(from, to)| *from == 0 && *to != 0);
        if grows && !registration.is_fresh {
            self.verify(id)?;
        }
        let mut asked = self.hand_over(id, &wanted)?;
        // What is new first: if that fails the rest is as it was.
        for is_new in [true, false] {
            for (kind, (was, to)) in masks.into_iter().zip(wanted).enumerate() {
                let from = self.mask(id, kind);
                let again = again == kind && was != 0 && to != 0;
                if (from != to || again) && (was == 0) == is_new {
                    self.set_mask(id, kind, from, to)?;
                    asked = true;
                }
            }
        }
        Ok(asked)
    }

    fn mask(&self, id: u32, kind: usize) -> u32 {
        let registration = self.registrations.get(id);
        registration.and_then(|one| one.masks.get(kind)).copied().unwrap_or(0)
    }

    /// Where the kind that is in `inner` goes and another one comes, it takes
    /// that place: this needs no memory of the kernel's. True: it has.
    fn hand_over(&mut self, id: u32, wanted: &Masks) -> Result<bool, Errno> {
        let Some(one) = self.registrations.get_mut(id) else { return Ok(false) };
        let goes = one.in_inner;
        let mut kinds = one.masks.iter().zip(wanted);
        let comes = kinds.position(|(from, to)| *from == 0 && *to != 0);
        let (Some(comes), Some(&0)) = (comes, wanted.get(goes)) else { return Ok(false) };
        let to = wanted.get(comes).copied().unwrap_or(0);
        let (fd, from) = (one.fd, self.mask(id, goes));
        let entry = EpollEntry { kind: comes, in_inner: true, ..self.epoll_entry(id, goes) };
        self.set.set(entry, fd, from, to)?;
        if let Some(one) = self.registrations.get_mut(id) {
            one.in_inner = comes;
            for (kind, mask) in one.masks.iter_mut().enumerate() {
                match kind {
                    _ if kind == comes => *mask = to,
                    _ if kind == goes => *mask = 0,
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    /// Whether a knote's edges are those of others, too, that the kernel knows
    /// already.
    pub fn shares_edges(&self, id: u32) -> bool {
        let Some(knote) = self.knotes.get(id) else { return false };
        let Some(registration) = self.registrations.get(knote.registration) else { return false };
        let (kind, _) = filter::of(knote).interest(knote);
        let mask = registration.masks.get(kind).copied().unwrap_or(0);
        kind != LEVEL && mask & ET != 0 && !knote.is(DISABLED) && registration.needs.is_shared(kind)
    }

    /// Counts what a knote needs now, after a change of it.
    pub fn count_need(&mut self, id: u32) {
        let Some(knote) = self.knotes.get_mut(id) else { return };
        let Some(registration) = self.registrations.get_mut(knote.registration) else { return };
        let (kind, mask) = filter::of(knote).interest(knote);
        let need = if knote.is(DISABLED) { Need::default() } else { Need::new(kind, mask) };
        if need != knote.need {
            registration.needs.change(std::mem::replace(&mut knote.need, need), need);
        }
    }

    /// A knote is about to be removed.
    pub fn forget_need(&mut self, id: u32) {
        let Some(knote) = self.knotes.get_mut(id) else { return };
        if let Some(registration) = self.registrations.get_mut(knote.registration) {
            registration.needs.change(std::mem::take(&mut knote.need), Need::default());
        }
    }

    /// The masks that its knotes need, and the kind of the one touched.
    fn wanted(&self, id: u32, touched: u32) -> (Masks, usize) {
        let Some(registration) = self.registrations.get(id) else { return ([0; KINDS], KINDS) };
        let touched = self.knotes.get(touched).filter(|knote| knote.registration == id);
        let again = touched.map_or(KINDS, |knote| filter::of(knote).interest(knote).0);
        let mut wanted = registration.needs.masks();
        let [level, read_edge, ..] = &mut wanted;
        if registration.is_demoted && *level != 0 {
            *level |= ET;
        }
        if *read_edge & IN != 0 && registration.socket == Some(socket::SocketKind::Tcp) {
            // The filter READ counts in another way where there is an urgent
            // byte.
            *read_edge |= PRI;
        }
        // A file without an identity stays registered while no knote needs
        // anything: the kernel's registration is what identifies it.
        let nothing = wanted == [0; KINDS] && registration.first != NONE;
        let kind = if registration.in_inner < KINDS { registration.in_inner } else { LEVEL };
        if let Some(slot) = wanted.get_mut(kind).filter(|_| nothing)
            && registration.identity.is_none()
        {
            *slot = PARKED;
        }
        (wanted, again)
    }

    fn set_mask(&mut self, id: u32, kind: usize, from: u32, to: u32) -> Result<(), Errno> {
        let Some(registration) = self.registrations.get_mut(id) else { return Ok(()) };
        let fd = registration.fd;
        if from == 0 && registration.in_inner == KINDS {
            registration.in_inner = kind;
        }
        let entry = self.epoll_entry(id, kind);
        let result = match self.set.set(entry, fd, from, to) {
            Err(Errno::EEXIST) if self.processes.has_pidfd(fd) => Err(Errno::EINVAL),
            // A duplicate of what was closed came back to this number.
            Err(Errno::EEXIST) => self.set.set(entry, fd, to, to),
            result => result,
        };
        let Some(registration) = self.registrations.get_mut(id) else { return Ok(()) };
        let now = if result.is_ok() { to } else { from };
        if let Some(mask) = registration.masks.get_mut(kind) {
            *mask = now;
        }
        if now == 0 && registration.in_inner == kind {
            registration.in_inner = KINDS;
        }
        if result != Err(Errno::EPERM) {
            return result;
        }
        // What an epoll took once was another.
        if registration.masks != [0; KINDS] || registration.compare().is_err() {
            return Err(Errno::ENOENT);
        }
        registration.is_file = true;
        Ok(())
    }

    /// Whether the descriptor still is the one that was registered: ENOENT,
    /// another file has its fd; EBADF, it is closed.
    pub fn verify(&self, id: u32) -> Result<(), Errno> {
        self.registrations.get(id).map_or(Ok(()), |one| one.verify(&self.set))
    }

    /// The descriptor is another by now: its knotes go without a word, as
    /// they do on BSD when it is closed.
    pub fn forget(&mut self, id: u32) {
        while let Some(registration) = self.registrations.get_mut(id) {
            registration.is_gone = true;
            let first = registration.first;
            self.remove(first);
            self.drop_if_unused(id);
        }
    }

    /// Has another set of epolls watch everything that still is what it was.
    /// What was reported is not reported again; the old set. On failure it is
    /// as before.
    pub fn move_quietly_to(&mut self, mut fresh: EpollSet) -> Result<EpollSet, Errno> {
        self.copy_registrations(&mut fresh)?;
        // What the new epolls report at once was reported before: it is
        // discarded. What the old epolls have yet to report was not. In this
        // order no event is lost between the two sets, and an event that
        // occurs between the steps is in both.
        self.each_report(fresh.epolls(), |_, _, _| {});
        self.copy_sources(&fresh)?;
        self.each_report(self.set.epolls(), Self::activate_edges);
        self.each_report(fresh.epolls(), Self::activate_edges);
        self.stale_events = 0;
        self.removed_before = self.registrations.removed();
        // An expiry of a timerfd may have been reported to either set.
        self.timers.forget_setting();
        let old = std::mem::replace(&mut self.set, fresh);
        self.aim_wakeups();
        // Those may have been woken by way of the old one.
        self.take_signals();
        self.take_operations();
        Ok(old)
    }

    /// Has handlers and threads wake this set from now on; none is waking the
    /// one before any more.
    fn aim_wakeups(&self) {
        self.signals.aim_at(&self.set);
        if let Some(aio) = &self.aio {
            aio.aim_at(&self.set);
        }
    }

    /// Registrations of descriptors that were closed do not come along.
    pub fn copy_registrations(&mut self, fresh: &mut EpollSet) -> Result<(), Errno> {
        let mut cursor = 0;
        while let Some(id) = self.registrations.next_from(cursor) {
            cursor = id + 1;
            if self.verify(id).is_err() {
                self.forget(id);
                continue;
            }
            self.copy_to(fresh, id)?;
        }
        Ok(())
    }

    /// The queue's own descriptors.
    fn copy_sources(&self, fresh: &EpollSet) -> Result<(), Errno> {
        self.timers.add_to(fresh)?;
        self.signals.add_to(fresh)?;
        self.add_processes_to(fresh)?;
        if let Some(aio) = &self.aio {
            aio.add_to(fresh)?;
        }
        if let Some(inotify) = &self.vnode_watches.fd {
            fresh.add_vnode_watches(inotify.raw())?;
        }
        if let Some(mounts) = self.mounts.fd() {
            fresh.add_mounts(mounts.raw())?;
        }
        match &self.netlink.fd {
            Some(links) => fresh.add_netlink(links.raw()),
            None => Ok(()),
        }
    }

    /// Takes what a set's epolls report of registrations, all of it; `take`
    /// is given the registration, its generation and kind.
    fn each_report(
        &mut self,
        epolls: [(usize, RawFd); KINDS + 1],
        take: impl Fn(&mut Self, (u32, u32), usize),
    ) {
        let mut buffer = [MaybeUninit::uninit(); 64];
        for (kind, epoll) in epolls {
            let mut rounds = RoundDetector::new();
            while let Ok(events) = epoll::wait(epoll, &mut buffer, Some(0))
                && !events.is_empty()
            {
                for event in events {
                    if let EventSource::Registration(id, generation) = source(event) {
                        let kind = if kind < KINDS { kind } else { self.kind_in_inner(id) };
                        take(self, (id, generation), kind);
                    }
                }
                if rounds.is_over(events) {
                    break;
                }
            }
        }
    }

    /// Activates the knotes whose events the kernel does not report again.
    fn activate_edges(&mut self, (id, generation): (u32, u32), kind: usize) {
        let known = self.registrations.get_of(id, generation);
        if known.is_some_and(|one| one.is_edge(kind)) {
            self.activate_all(id, kind);
        }
    }

    /// Has all knotes that this kind of registration is for looked at.
    fn activate_all(&mut self, id: u32, kind: usize) {
        let mut cursor = self.registrations.get(id).map_or(NONE, |one| one.first);
        while let Some(knote) = self.knotes.get(cursor) {
            let (id, next) = (cursor, knote.next);
            if filter::of(knote).interest(knote).0 == kind && !knote.is(DISABLED) {
                self.activate(id);
            }
            cursor = next;
        }
    }

    fn copy_to(&self, fresh: &mut EpollSet, id: u32) -> Result<(), Errno> {
        let Some(registration) = self.registrations.get(id) else { return Ok(()) };
        for (kind, mask) in registration.masks.into_iter().enumerate() {
            fresh.set(self.epoll_entry(id, kind), registration.fd, 0, mask)?;
        }
        Ok(())
    }

    /// A registration without knotes goes.
    pub fn drop_if_unused(&mut self, id: u32) {
        if let Some(registration) = self.registrations.get(id).filter(|one| one.first == NONE) {
            let fd = registration.fd;
            self.drop_vnode_watches(id);
            self.index.remove(&(fd as u64, DESCRIPTOR));
            self.registrations.remove(id);
        }
    }

    /// The kernel reported it; `wanted`: a knote had a use for that.
    pub fn was_reported(&mut self, id: u32, wanted: bool) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        registration.spurious = if wanted { 0 } else { registration.spurious.saturating_add(1) };
        if registration.spurious >= 2 {
            self.demote_to_edge(id, true);
        } else if wanted && registration.is_demoted {
            self.demote_to_edge(id, false);
        }
    }

    /// Makes it edge-triggered, or level-triggered again.
    fn demote_to_edge(&mut self, id: u32, demote_to_edge: bool) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        registration.spurious = 0;
        if registration.is_demoted != demote_to_edge {
            registration.is_demoted = demote_to_edge;
            if self.refresh(id, NONE, NONE).is_err() {
                self.forget(id);
            }
        }
    }
}

impl Registration {
    /// Whether it is level-triggered, and its last report was not spurious.
    #[inline]
    pub fn is_level(&self) -> bool {
        self.spurious == 0 && !self.is_demoted
    }

    /// Whether the kernel reports only what happens.
    fn is_edge(&self, kind: usize) -> bool {
        self.masks.get(kind).is_some_and(|mask| mask & ET != 0)
    }

    /// See [`QueueState::verify`].
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
}
