//! Network interfaces: whether their links are up.

use super::core::Core;
use super::event::*;
use super::filter;
use super::slab::NONE;
use crate::errno::Errno;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::netlink::{self, Link};

pub(super) struct Links {
    pub fd: Option<Fd>,
    /// For so many knotes.
    users: usize,
    /// Messages were lost.
    has_lost: bool,
}

impl Links {
    pub const fn new() -> Self {
        Self { fd: None, users: 0, has_lost: false }
    }

    /// Its number, unless the program has closed it.
    fn raw(&self) -> i32 {
        self.fd.as_ref().and_then(Fd::check).unwrap_or(-1)
    }
}

impl Core {
    /// For one more knote.
    pub fn hold_links(&mut self) -> Result<(), Errno> {
        self.open_links()?;
        self.links.users += 1;
        Ok(())
    }

    fn open_links(&mut self) -> Result<(), Errno> {
        if self.links.fd.is_none() {
            let fresh = netlink::links()?;
            self.set.add_links(fresh.raw())?;
            self.links.fd = Some(fresh);
        }
        Ok(())
    }

    /// For one less.
    pub fn release_links(&mut self) {
        self.links.users = self.links.users.saturating_sub(1);
        if self.links.users == 0
            && let Some(fd) = self.links.fd.take()
        {
            // A forked child may hold it open.
            let _ = epoll::delete(self.set.main(), fd.raw());
        }
    }

    /// In a child that goes on using the queue.
    pub fn renew_links(&mut self) -> Result<(), Errno> {
        if self.links.users > 0 {
            self.open_links()?;
            self.ask_all();
            self.take_links();
        }
        Ok(())
    }

    /// Has an interface's knotes told how it is.
    pub fn ask_link(&mut self, index: u32) -> Result<(), Errno> {
        // Room for the answer; and what was before is for the others.
        self.take_links();
        netlink::ask(self.links.raw(), index)?;
        self.take_links();
        Ok(())
    }

    /// Tells the knotes what has changed.
    pub fn take_links(&mut self) {
        let mut buffer = [0; 2048];
        // Interfaces that change all the time cannot keep it here.
        for _ in 0..256 {
            match netlink::receive(self.links.raw(), &mut buffer) {
                Ok(Some(mut rest)) => {
                    while let Some((link, after)) = netlink::split(rest) {
                        self.take_link(link);
                        rest = after;
                    }
                }
                Err(Errno::ENOBUFS) => self.links.has_lost = true,
                // Not before there is room for the answers.
                Ok(None) if std::mem::take(&mut self.links.has_lost) => self.ask_all(),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// How is everything now?
    fn ask_all(&mut self) {
        let mut at = 0;
        while let Some(id) = self.knotes.next_from(at) {
            at = id + 1;
            let knote = self.knotes.get(id).filter(|knote| knote.filter == FILTER_NETDEV);
            if let Some(index) = knote.and_then(|knote| u32::try_from(knote.ident).ok()) {
                // It is said again that messages were lost if the answer is.
                let _ = netlink::ask(self.links.raw(), index);
            }
        }
    }

    fn take_link(&mut self, link: Option<Link>) {
        let Some(link) = link else { return };
        let key = (u64::from(link.index), FILTER_NETDEV);
        let mut at = self.index.get(&key).copied().unwrap_or(NONE);
        while let Some(knote) = self.knotes.get(at) {
            let next = knote.next;
            filter::of_id(self, at).linked(self, at, link.state);
            at = next;
        }
    }
}
