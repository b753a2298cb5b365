//! What the kernel watches for the knotes of a descriptor, kept up to date; and
//! knotes that go.

use super::epoll_set::*;
use super::filter;
use super::knote::*;
use super::needs::Need;
use super::slab::NONE;
use super::state::QueueState;
use crate::errno::Errno;
use crate::sys::socket;
use crate::util::bug_or;

impl QueueState {
    /// Has the kernel watch a descriptor for what its knotes need now; true:
    /// that needed the kernel, which knows the descriptor. `changed`: the knote
    /// that needs something else than before; the edges of the one that was
    /// touched come again.
    pub fn refresh(&mut self, id: u32, touched: u32, changed: u32) -> Result<bool, Errno> {
        if self.store.registrations.get(id).is_none_or(|one| one.is_gone) {
            return Ok(false);
        }
        let was_file = self.store.is_file(id);
        let asked = self.refresh_epoll(id, touched)?;
        // A file's are other than those of what epoll takes.
        let changed = (was_file == self.store.is_file(id)).then_some(changed);
        self.refresh_vnode_watches(id, changed)?;
        Ok(asked)
    }

    fn refresh_epoll(&mut self, id: u32, touched: u32) -> Result<bool, Errno> {
        let Some(registration) = self.store.registrations.get(id) else {
            bug_or!(return Ok(false))
        };
        if registration.is_file {
            return Ok(false);
        }
        let (wanted, again) = self.wanted(id, touched);
        let masks = registration.masks;
        let comes_again = mask(&masks, again) != 0 && mask(&wanted, again) != 0;
        if masks == wanted && !comes_again {
            return Ok(false);
        }
        let grows = masks.iter().zip(&wanted).any(|(from, to)| *from == 0 && *to != 0);
        if grows && !registration.is_fresh {
            self.verify(id)?;
        }
        let mut asked = self.hand_over(id, &wanted)?;
        let handed = self.store.masks(id);
        // What is new first: if that fails the rest is as it was.
        for is_new in [true, false] {
            for kind in 0..KINDS {
                let (from, to) = (mask(&handed, kind), mask(&wanted, kind));
                let changes = from != to || comes_again && kind == again;
                if changes && (mask(&masks, kind) == 0) == is_new {
                    self.set_mask(id, kind, from, to)?;
                    asked = true;
                }
            }
        }
        Ok(asked)
    }

    /// Where the kind that is in `inner` goes and another one comes, it takes
    /// that place: this needs no memory of the kernel's. True: it has.
    fn hand_over(&mut self, id: u32, wanted: &Masks) -> Result<bool, Errno> {
        let Some(one) = self.store.registrations.get_mut(id) else { bug_or!(return Ok(false)) };
        let goes = one.in_inner;
        let mut kinds = one.masks.iter().zip(wanted);
        let comes = kinds.position(|(from, to)| *from == 0 && *to != 0);
        let (Some(comes), Some(&0)) = (comes, wanted.get(goes)) else { return Ok(false) };
        let to = mask(wanted, comes);
        let (fd, from) = (one.fd, mask(&one.masks, goes));
        let entry = EpollEntry { kind: comes, in_inner: true, ..self.store.epoll_entry(id, goes) };
        self.sources.set.set(entry, fd, from, to)?;
        if let Some(one) = self.store.registrations.get_mut(id) {
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
        let Some(knote) = self.store.knotes.get(id) else { bug_or!(return false) };
        let Some(registration) = self.store.registrations.get(knote.registration) else {
            return false;
        };
        let (kind, _) = filter::of(knote).interest(knote);
        let mask = mask(&registration.masks, kind);
        kind != LEVEL && mask & ET != 0 && !knote.is(DISABLED) && registration.needs.is_shared(kind)
    }

    /// Counts what a knote needs now, after a change of it.
    pub fn count_need(&mut self, id: u32) {
        let Some(knote) = self.store.knotes.get_mut(id) else { bug_or!(return) };
        let Some(registration) = self.store.registrations.get_mut(knote.registration) else {
            return;
        };
        let (kind, mask) = filter::of(knote).interest(knote);
        let need = if knote.is(DISABLED) { Need::default() } else { Need::new(kind, mask) };
        if need != knote.need {
            registration.needs.change(std::mem::replace(&mut knote.need, need), need);
        }
    }

    /// The masks that its knotes need, and the kind of the one touched.
    fn wanted(&self, id: u32, touched: u32) -> (Masks, usize) {
        let Some(registration) = self.store.registrations.get(id) else {
            return ([0; KINDS], KINDS);
        };
        let touched = self.store.knotes.get(touched).filter(|knote| knote.registration == id);
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
        let Some(registration) = self.store.registrations.get_mut(id) else {
            bug_or!(return Ok(()))
        };
        let fd = registration.fd;
        if from == 0 && registration.in_inner == KINDS {
            registration.in_inner = kind;
        }
        let entry = self.store.epoll_entry(id, kind);
        let result = match self.sources.set.set(entry, fd, from, to) {
            Err(Errno::EEXIST) if self.sources.processes.has_pidfd(fd) => Err(Errno::EINVAL),
            // A duplicate of what was closed came back to this number.
            Err(Errno::EEXIST) => self.sources.set.set(entry, fd, to, to),
            result => result,
        };
        let Some(registration) = self.store.registrations.get_mut(id) else {
            bug_or!(return Ok(()))
        };
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
        self.store.registrations.get(id).map_or(Ok(()), |one| one.verify(&self.sources.set))
    }

    /// The descriptor is another by now: its knotes go without a word, as
    /// they do on BSD when it is closed.
    pub fn forget(&mut self, id: u32) {
        while let Some(registration) = self.store.registrations.get_mut(id) {
            registration.is_gone = true;
            let first = registration.first;
            if first != NONE {
                self.remove(first);
            }
            self.drop_if_unused(id);
        }
    }

    /// A registration without knotes goes.
    pub fn drop_if_unused(&mut self, id: u32) {
        if let Some(registration) = self.store.registrations.get(id).filter(|one| one.first == NONE)
        {
            let fd = registration.fd;
            self.sources.vnode.drop_all(&mut self.store, &self.sources.set, id);
            self.store.index.remove(&(fd as u64, DESCRIPTOR));
            self.store.registrations.remove(id);
        }
    }

    /// The kernel reported it; `wanted`: a knote had a use for that.
    pub fn was_reported(&mut self, id: u32, wanted: bool) {
        let Some(registration) = self.store.registrations.get_mut(id) else { return };
        registration.spurious = if wanted { 0 } else { registration.spurious.saturating_add(1) };
        if registration.spurious >= 2 {
            self.demote_to_edge(id, true);
        } else if wanted && registration.is_demoted {
            self.demote_to_edge(id, false);
        }
    }

    /// Makes it edge-triggered, or level-triggered again.
    fn demote_to_edge(&mut self, id: u32, demote_to_edge: bool) {
        let Some(registration) = self.store.registrations.get_mut(id) else { bug_or!(return) };
        registration.spurious = 0;
        if registration.is_demoted != demote_to_edge {
            registration.is_demoted = demote_to_edge;
            if self.refresh(id, NONE, NONE).is_err() {
                self.forget(id);
            }
        }
    }

    /// Deletes a knote.
    pub fn remove(&mut self, id: u32) {
        let registration = self.store.knotes.get(id).map_or(NONE, |knote| knote.registration);
        // An error of the kernel means that the descriptor was closed.
        let _ = self.unlink(id);
        self.drop_if_unused(registration);
    }

    /// Turns its events on or off.
    pub fn set_enabled(&mut self, id: u32, on: bool) {
        let Some(knote) = self.store.knotes.get_mut(id) else { return };
        if on != knote.is(DISABLED) {
            return;
        }
        if on {
            knote.status &= !DISABLED;
        } else {
            knote.status |= DISABLED;
        }
        if knote.is(QUEUED) {
            self.store.active.remove(&mut self.store.knotes, id);
        } else if on && knote.is(ACTIVE) {
            self.store.active.append(&mut self.store.knotes, id);
        }
        self.count_need(id);
        filter::of_id(&self.store, id).enabled(&mut self.store, &mut self.sources, id, on);
    }

    /// Takes a knote out; whether that needed the kernel.
    pub fn unlink(&mut self, id: u32) -> Result<bool, Errno> {
        filter::of_id(&self.store, id).detach(&mut self.store, &mut self.sources, id);
        self.sources.timers.disarm(&self.store.knotes, id);
        let registration = self.store.remove(id);
        if registration == NONE { Ok(false) } else { self.refresh(registration, NONE, NONE) }
    }
}

/// That of a kind; without the kind nothing.
fn mask(masks: &Masks, kind: usize) -> u32 {
    masks.get(kind).copied().unwrap_or(0)
}
