//! Network interfaces: whether their links are up.

use super::event::*;
use super::filter;
use super::slab::NONE;
use super::state::QueueState;
use crate::errno::Errno;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::netlink::{self, Link};

pub(super) struct NetlinkWatch {
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

impl QueueState {
    /// For one more knote.
    pub fn hold_netlink(&mut self) -> Result<(), Errno> {
        self.open_netlink()?;
        self.netlink.users += 1;
        Ok(())
    }

    fn open_netlink(&mut self) -> Result<(), Errno> {
        if self.netlink.fd.is_none() {
            let fresh = netlink::links()?;
            self.set.add_netlink(fresh.raw())?;
            self.netlink.fd = Some(fresh);
        }
        Ok(())
    }

    /// For one less.
    pub fn release_netlink(&mut self) {
        self.netlink.users = self.netlink.users.saturating_sub(1);
        if self.netlink.users == 0
            && let Some(fd) = self.netlink.fd.take()
        {
            // A forked child may hold it open.
            let _ = epoll::delete(self.set.inner(), fd.raw());
        }
    }

    /// In a child that goes on using the queue.
    pub fn renew_netlink(&mut self) -> Result<(), Errno> {
        if self.netlink.users > 0 {
            self.open_netlink()?;
            self.query_all_links();
            self.take_netlink();
        }
        Ok(())
    }

    /// Notifies an interface's knotes of its present state.
    pub fn query_link(&mut self, index: u32) -> Result<(), Errno> {
        // Room for the answer; and what was before is for the others.
        self.take_netlink();
        netlink::ask(self.netlink.raw(), index)?;
        self.take_netlink();
        Ok(())
    }

    /// Notifies the knotes of what has changed.
    pub fn take_netlink(&mut self) {
        let mut buffer = [0; 2048];
        // Interfaces that change all the time cannot keep it here.
        for _ in 0..256 {
            match netlink::receive(self.netlink.raw(), &mut buffer) {
                Ok(Some(mut rest)) => {
                    while let Some((link, after)) = netlink::split(rest) {
                        self.take_link_event(link);
                        rest = after;
                    }
                }
                Err(Errno::ENOBUFS) => self.netlink.has_lost = true,
                // Not before there is room for the answers.
                Ok(None) if std::mem::take(&mut self.netlink.has_lost) => self.query_all_links(),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// How is everything now?
    fn query_all_links(&mut self) {
        let mut cursor = 0;
        while let Some(id) = self.store.knotes.next_from(cursor) {
            cursor = id + 1;
            let knote = self.store.knotes.get(id).filter(|knote| knote.filter == FILTER_NETDEV);
            if let Some(index) = knote.and_then(|knote| u32::try_from(knote.ident).ok()) {
                // It is said again that messages were lost if the answer is.
                let _ = netlink::ask(self.netlink.raw(), index);
            }
        }
    }

    fn take_link_event(&mut self, link: Option<Link>) {
        let Some(link) = link else { return };
        let key = (u64::from(link.index), FILTER_NETDEV);
        let mut cursor = self.store.index.get(&key).copied().unwrap_or(NONE);
        while let Some(knote) = self.store.knotes.get(cursor) {
            let next = knote.next;
            filter::of_id(self, cursor).linked(self, cursor, link.state);
            cursor = next;
        }
    }
}
