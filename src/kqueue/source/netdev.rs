//! Network interfaces: whether their links are up.

use super::super::epoll_set::EpollSet;
use super::super::event::*;
use super::super::store::Store;
use crate::errno::Errno;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::netlink::{self, Link, LinkState};

/// What is done with a notice: the link of a knote's interface is so, perhaps
/// as before.
pub(in super::super) type Notify = fn(&mut Store, u32, LinkState);

pub(in super::super) struct NetlinkWatch {
    pub fd: Option<Fd>,
    /// For so many knotes.
    users: usize,
    /// Messages were lost.
    has_lost: bool,
}

impl NetlinkWatch {
    pub const fn new() -> Self {
        Self { fd: None, users: 0, has_lost: false }
    }

    /// Its number, unless the program has closed it.
    fn raw(&self) -> i32 {
        self.fd.as_ref().and_then(Fd::check).unwrap_or(-1)
    }
}

impl NetlinkWatch {
    /// For one more knote.
    pub fn hold(&mut self, set: &EpollSet) -> Result<(), Errno> {
        self.open(set)?;
        self.users += 1;
        Ok(())
    }

    fn open(&mut self, set: &EpollSet) -> Result<(), Errno> {
        if self.fd.is_none() {
            let fresh = netlink::links()?;
            set.add_netlink(fresh.raw())?;
            self.fd = Some(fresh);
        }
        Ok(())
    }

    /// For one less.
    pub fn release(&mut self, set: &EpollSet) {
        self.users = self.users.saturating_sub(1);
        if self.users == 0
            && let Some(fd) = self.fd.take()
        {
            // A forked child may hold it open.
            let _ = epoll::delete(set.inner(), fd.raw());
        }
    }

    /// In a child that goes on using the queue.
    pub fn renew(
        &mut self,
        store: &mut Store,
        set: &EpollSet,
        notify: Notify,
    ) -> Result<(), Errno> {
        if self.users > 0 {
            self.open(set)?;
            self.query_all(store);
            self.take(store, notify);
        }
        Ok(())
    }

    /// Notifies an interface's knotes of its present state.
    pub fn query(&mut self, store: &mut Store, index: u32, notify: Notify) -> Result<(), Errno> {
        // Room for the answer; and what was before is for the others.
        self.take(store, notify);
        netlink::ask(self.raw(), index)?;
        self.take(store, notify);
        Ok(())
    }

    /// Notifies the knotes of what has changed.
    pub fn take(&mut self, store: &mut Store, notify: Notify) {
        let mut buffer = [0; 2048];
        // Interfaces that change all the time cannot keep it here.
        for _ in 0..256 {
            match netlink::receive(self.raw(), &mut buffer) {
                Ok(Some(mut rest)) => {
                    while let Some((link, after)) = netlink::split(rest) {
                        take_link_event(store, link, notify);
                        rest = after;
                    }
                }
                Err(Errno::ENOBUFS) => self.has_lost = true,
                // Not before there is room for the answers.
                Ok(None) if std::mem::take(&mut self.has_lost) => self.query_all(store),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// How is everything now?
    fn query_all(&self, store: &Store) {
        let mut cursor = 0;
        while let Some(id) = store.knotes.next_from(cursor) {
            cursor = id + 1;
            let knote = store.knotes.get(id).filter(|knote| knote.filter == FILTER_NETDEV);
            if let Some(index) = knote.and_then(|knote| u32::try_from(knote.ident).ok()) {
                // It is said again that messages were lost if the answer is.
                let _ = netlink::ask(self.raw(), index);
            }
        }
    }
}

/// Notifies an interface's knotes of its link.
fn take_link_event(store: &mut Store, link: Option<Link>, notify: Notify) {
    let Some(link) = link else { return };
    let mut cursor = store.first_of(u64::from(link.index), FILTER_NETDEV);
    while let Some(knote) = store.knotes.get(cursor) {
        let next = knote.next;
        notify(store, cursor, link.state);
        cursor = next;
    }
}
