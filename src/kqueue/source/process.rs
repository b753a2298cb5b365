//! The processes that a queue watches.
//!
//! A pidfd reports that its process has ended. It is taken out of the set
//! then, since it stays readable. The kernel's process connector reports forks
//! and executions, of all processes and in their order. So the queue knows a
//! tracked child before it reads what the child does itself. Where it was too
//! late to open a pidfd, the connector reports the end of the process.

use super::super::epoll_set::{EpollSet, GENERATION};
use super::super::event::*;
use super::super::knote::*;
use super::super::slab::{NONE, Slab};
use super::super::store::Store;
use crate::errno::{Errno, Result, error, fail};
use crate::handle::try_box;
use crate::sys::connector::{self, ProcEvent};
use crate::sys::fd::Fd;
use crate::sys::{fork, pidfd};
use crate::util::bug_or;
use std::os::fd::RawFd;

/// What only the connector reports.
const BY_CONNECTOR: u32 = NOTE_FORK | NOTE_EXEC | NOTE_TRACK;

/// What a knote has of its process.
#[derive(Default)]
struct WatchedProcess {
    pidfd: Option<Fd>,
    /// What happened since the last event.
    pending: u32,
    /// Of NOTE_CHILD: the parent.
    parent: i64,
    /// It has ended; and how, if that is known.
    is_over: bool,
    status: Option<i32>,
    /// It needs the connector.
    listens: bool,
    /// It is only there to report a child.
    is_child_event: bool,
}

/// An event to deliver.
pub(in super::super) struct Report {
    pub data: i64,
    pub fflags: u32,
    pub is_over: bool,
}

pub(in super::super) struct Processes {
    records: Slab<WatchedProcess>,
    pub connector: Option<Fd>,
    /// The process that made it.
    epoch: fork::Epoch,
    /// Knotes that need it.
    listeners: usize,
}

impl Processes {
    pub const fn new() -> Self {
        Self { records: Slab::new(), connector: None, epoch: 0, listeners: 0 }
    }

    /// Before the connector is closed; a forked child closes only its own.
    fn leave(&self, connector: &Fd) {
        if self.epoch == fork::current()
            && let Some(connector) = connector.check()
        {
            connector::leave(connector);
        }
    }

    pub fn has_pidfd(&self, fd: RawFd) -> bool {
        let records = (0..self.records.end()).filter_map(|id| self.records.get(id));
        records.filter_map(|record| record.pidfd.as_ref()).any(|pidfd| pidfd.raw() == fd)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(connector) = &self.connector {
            self.leave(connector);
        }
    }
}

impl Processes {
    /// Has another set watch what this one watches of processes.
    pub fn add_to(&self, store: &Store, set: &EpollSet) -> std::result::Result<(), Errno> {
        self.add_pidfds_to(store, set)?;
        match &self.connector {
            Some(connector) => set.add_connector(connector.raw()),
            None => Ok(()),
        }
    }

    pub fn add_pidfds_to(&self, store: &Store, set: &EpollSet) -> std::result::Result<(), Errno> {
        for id in 0..store.knotes.end() {
            let knote = store.knotes.get(id).filter(|knote| knote.filter == FILTER_PROC);
            let record = knote.and_then(|knote| u32::try_from(knote.state).ok());
            let process = record.and_then(|record| self.records.get(record));
            if let Some(process) = process.filter(|process| !process.is_over)
                && let Some(pidfd) = &process.pidfd
            {
                set.add_process(pidfd.raw(), id, store.knotes.generation(id))?;
            }
        }
        Ok(())
    }

    /// In a forked child that keeps the queue: the connector's socket is the
    /// parent's, whose events must not be taken from it.
    pub fn renew_connector(&mut self, store: &mut Store, set: &EpollSet) -> Result<()> {
        if self.listeners == 0 {
            return Ok(());
        }
        match self.listen(set) {
            // It will not be had later either.
            Err(error) if error.errno == Errno::ENOTSUP => {
                self.lost(store, set);
                Ok(())
            }
            result => result,
        }
    }

    fn process_of(&mut self, store: &Store, id: u32) -> Option<&mut WatchedProcess> {
        let record = u32::try_from(store.knotes.get(id)?.state).ok()?;
        self.records.get_mut(record)
    }

    /// Gives a new knote a record.
    fn insert_record(&mut self, store: &mut Store, id: u32, process: WatchedProcess) -> Result<()> {
        let Some(record) = self.records.insert(process, NONE) else {
            fail!(ENOMEM, "no memory to watch another process");
        };
        if let Some(knote) = store.knotes.get_mut(id) {
            knote.state = record.into();
        }
        Ok(())
    }

    /// Begins to watch a knote's process.
    pub fn attach(&mut self, store: &mut Store, set: &EpollSet, id: u32) -> Result<()> {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        let (ident, fflags) = (knote.ident, knote.fflags);
        let Some(pid) = i32::try_from(ident).ok().filter(|pid| *pid > 0) else {
            fail!(ESRCH, "there is no process {}", ident as i64);
        };
        self.insert_record(store, id, WatchedProcess::default())?;
        // First this: there is no fork between.
        self.listen_for(store, set, id, fflags)?;
        let pidfd = match pidfd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::ESRCH) => fail!(ESRCH, "there is no process {}", pid),
            Err(Errno::ENOSYS) => fail!(ENOTSUP, "the kernel lacks or forbids pidfd_open"),
            Err(errno) => return Err(error!(errno, "process {} cannot be watched", pid)),
        };
        if fflags & NOTE_EXIT == 0 && pidfd::has_ended(pidfd.raw()) {
            fail!(ESRCH, "process {} has ended", pid);
        }
        Ok(self.watch_pidfd(store, set, id, pidfd)?)
    }

    fn watch_pidfd(
        &mut self,
        store: &Store,
        set: &EpollSet,
        id: u32,
        pidfd: Fd,
    ) -> std::result::Result<(), Errno> {
        let generation = store.knotes.generation(id);
        set.add_process(pidfd.raw(), id, generation)?;
        if let Some(process) = self.process_of(store, id) {
            process.pidfd = Some(pidfd);
        }
        Ok(())
    }

    /// Has the connector there if a knote with these bits needs it.
    pub fn listen_for(
        &mut self,
        store: &Store,
        set: &EpollSet,
        id: u32,
        fflags: u32,
    ) -> Result<()> {
        let wanted = fflags & BY_CONNECTOR != 0;
        let Some(process) = self.process_of(store, id) else { return Ok(()) };
        if wanted == process.listens {
            return Ok(());
        }
        process.listens = wanted;
        if wanted {
            self.listeners += 1;
            let result = self.listen(set);
            if result.is_err() {
                let _ = self.listen_for(store, set, id, 0);
            }
            return result;
        }
        self.listeners -= 1;
        if self.listeners == 0
            && let Some(connector) = self.connector.take()
        {
            set.drop_own(connector.raw());
            self.leave(&connector);
        }
        Ok(())
    }

    fn listen(&mut self, set: &EpollSet) -> Result<()> {
        if self.connector.is_some() {
            return Ok(());
        }
        let fresh = match connector::open() {
            Ok(fresh) => fresh,
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
                return Err(errno.into());
            }
            Err(errno) => {
                let code = errno.negated();
                fail!(ENOTSUP, "the kernel does not report forks to this process ({})", code);
            }
        };
        if let Err(errno) = set.add_connector(fresh.raw()) {
            connector::leave(fresh.raw());
            return Err(errno.into());
        }
        self.connector = Some(fresh);
        self.epoch = fork::current();
        Ok(())
    }

    pub fn detach(&mut self, store: &Store, set: &EpollSet, id: u32) {
        let _ = self.listen_for(store, set, id, 0);
        self.drop_pidfd(store, set, id);
        if let Some(record) = store.knotes.get(id).and_then(|one| u32::try_from(one.state).ok()) {
            drop(self.records.remove(record));
        }
    }

    fn drop_pidfd(&mut self, store: &Store, set: &EpollSet, id: u32) {
        if let Some(pidfd) = self.process_of(store, id).and_then(|process| process.pidfd.take()) {
            set.drop_own(pidfd.raw());
        }
    }

    /// A pidfd reports that its knote's process has ended.
    pub fn take_end(&mut self, store: &mut Store, set: &EpollSet, (id, generation): (u32, u32)) {
        let is_same = |store: &Store| store.knotes.generation(id) & GENERATION == generation;
        if !is_same(store) {
            return;
        }
        // What it did before comes first.
        self.take_connector(store, set);
        // Not every generation fits into what the kernel keeps of it, so that
        // it is asked.
        let is_same = is_same(store);
        let pidfd = self.process_of(store, id).and_then(|process| process.pidfd.as_ref());
        if is_same && pidfd.is_some_and(|pidfd| pidfd::has_ended(pidfd.raw())) {
            self.ended(store, set, id, None);
        }
    }

    /// Notes that a knote's process has ended, and how.
    fn ended(&mut self, store: &mut Store, set: &EpollSet, id: u32, reported: Option<i32>) {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return) };
        let (fflags, pid) = (knote.fflags, i32::try_from(knote.ident).unwrap_or(0));
        let Some(process) = self.process_of(store, id).filter(|process| !process.is_over) else {
            return;
        };
        process.is_over = true;
        process.pending |= fflags & NOTE_EXIT;
        let pidfd = process.pidfd.as_ref().map(Fd::raw);
        if fflags & NOTE_EXIT != 0 {
            let asked = pidfd.and_then(|pidfd| pidfd::status(pidfd, pid));
            process.status = asked.or(reported).or(process.status);
        }
        let is_known = process.status.is_some();
        if process.pending == 0 {
            // The knote does not ask for the end.
            self.detach(store, set, id);
            store.remove(id);
            return;
        }
        match pidfd {
            Some(_) if is_known => self.drop_pidfd(store, set, id),
            // It is asked again at the delivery.
            Some(pidfd) => set.drop_own(pidfd),
            None => {}
        }
        store.activate(id);
    }

    /// What is to be reported of a knote's process.
    pub fn report(&mut self, store: &Store, id: u32) -> Option<Report> {
        let knote = store.knotes.get(id)?;
        let (fflags, pid) = (knote.fflags, i32::try_from(knote.ident).unwrap_or(0));
        let process = self.process_of(store, id)?;
        let happened = std::mem::take(&mut process.pending);
        let mut report =
            Report { data: process.parent, fflags: happened, is_over: process.is_over };
        if happened & NOTE_EXIT == 0 {
            return (happened != 0).then_some(report);
        }
        let again = || pidfd::status(process.pidfd.as_ref()?.raw(), pid);
        match process.status.or_else(again) {
            Some(status) => {
                report.data = status.into();
                report.fflags |= fflags & NOTE_EXITSTATUS;
            }
            None => report.fflags |= NOTE_EXITUNKNOWN,
        }
        Some(report)
    }

    /// Reads what the connector has: all that was there when this begins, and
    /// no more than can be there, since others may fork without end.
    pub fn take_connector(&mut self, store: &mut Store, set: &EpollSet) {
        for _ in 0..connector::MOST {
            // A knote that goes may take the connector with it.
            let connector = self.connector.as_ref().and_then(Fd::check);
            let Some(connector) = connector else { return };
            match connector::next(connector) {
                Ok(ProcEvent::Fork { parent, child }) => self.forked(store, set, parent, child),
                Ok(ProcEvent::Exec { pid }) => each_of(store, pid, |store, id| {
                    self.happened(store, id, NOTE_EXEC);
                }),
                Ok(ProcEvent::Exit { pid, status }) => each_of(store, pid, |store, id| {
                    self.take_exit(store, set, id, status);
                }),
                Ok(ProcEvent::Other) => {}
                Err(Errno::ENOBUFS) => self.lost(store, set),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Something happened that a knote may be for.
    fn happened(&mut self, store: &mut Store, id: u32, what: u32) {
        let wanted = store.knotes.get(id).map_or(0, |knote| knote.fflags | NOTE_TRACKERR);
        let Some(process) =
            self.process_of(store, id).filter(|one| !one.is_over && !one.is_child_event)
        else {
            return;
        };
        process.pending |= what & wanted;
        if process.pending != 0 {
            store.activate(id);
        }
    }

    /// The connector reports that a process has ended, or only its first
    /// thread. If there is a pidfd it decides whether the process has ended.
    fn take_exit(&mut self, store: &mut Store, set: &EpollSet, id: u32, status: i32) {
        let Some(process) = self.process_of(store, id).filter(|process| !process.is_child_event)
        else {
            return;
        };
        match process.pidfd {
            Some(_) => process.status = Some(status),
            None => self.ended(store, set, id, Some(status)),
        }
    }

    fn forked(&mut self, store: &mut Store, set: &EpollSet, parent: i32, child: i32) {
        let mut id = first_of(store, parent);
        while let Some(knote) = store.knotes.get(id) {
            let (next, tracks) = (knote.next, knote.fflags & NOTE_TRACK != 0);
            let tracks = tracks
                && self
                    .process_of(store, id)
                    .is_some_and(|process| !process.is_child_event && !process.is_over);
            let failed = tracks && self.track(store, set, id, (parent, child)).is_err();
            self.happened(store, id, if failed { NOTE_FORK | NOTE_TRACKERR } else { NOTE_FORK });
            id = next;
        }
    }

    /// The connector has lost some events; which, is not known.
    fn lost(&mut self, store: &mut Store, set: &EpollSet) {
        for id in 0..store.knotes.end() {
            let is_of_process = store.knotes.get(id).is_some_and(|one| one.filter == FILTER_PROC);
            let process = if is_of_process { self.process_of(store, id) } else { None };
            let Some(process) = process.filter(|process| process.listens) else { continue };
            let has_pidfd = process.pidfd.is_some();
            self.happened(store, id, NOTE_TRACKERR);
            if !has_pidfd {
                // Its end may be among them.
                self.ended(store, set, id, None);
            }
        }
    }

    /// Watches a child as its parent is watched, and reports the child.
    fn track(
        &mut self,
        store: &mut Store,
        set: &EpollSet,
        id: u32,
        (parent, child): (i32, i32),
    ) -> Result<()> {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        let change = Kevent {
            ident: u64::from(child.cast_unsigned()),
            fflags: knote.fflags,
            ..knote.event()
        };
        let note = WatchedProcess {
            pending: NOTE_CHILD,
            parent: parent.into(),
            is_child_event: true,
            ..WatchedProcess::default()
        };
        let event = Kevent { fflags: 0, flags: change.flags | EV_ONESHOT, ..change };
        let event = self.insert_child(store, &event, note)?;
        store.activate(event);
        let tracker = self.insert_child(store, &change, WatchedProcess::default())?;
        self.listen_for(store, set, tracker, change.fflags)?;
        // Without a pidfd the connector reports the end of the child.
        if let Ok(pidfd) = pidfd::open(child) {
            let _ = self.watch_pidfd(store, set, tracker, pidfd);
        }
        Ok(())
    }

    fn insert_child(
        &mut self,
        store: &mut Store,
        change: &Kevent,
        process: WatchedProcess,
    ) -> Result<u32> {
        let mut knote = Knote::new(change, change.flags);
        knote.state = NONE.into();
        if change.ext != [0; 4] {
            knote.ext = Some(try_box(change.ext).ok_or(Errno::ENOMEM)?);
        }
        store.reserve_index()?;
        let id = store.insert(knote)?;
        store.link(id, change);
        if let Err(error) = self.insert_record(store, id, process) {
            store.remove(id);
            return Err(error);
        }
        Ok(id)
    }
}

fn first_of(store: &Store, pid: i32) -> u32 {
    store.first_of(u64::from(pid.cast_unsigned()), FILTER_PROC)
}

/// For each knote of a process, of which that may be the end.
fn each_of(store: &mut Store, pid: i32, mut act: impl FnMut(&mut Store, u32)) {
    let mut id = first_of(store, pid);
    while let Some(knote) = store.knotes.get(id) {
        let next = knote.next;
        act(store, id);
        id = next;
    }
}
