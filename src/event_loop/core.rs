//! The loop itself, which belongs to one thread at a time; see `desk`.

use super::command::{Command, Post};
use super::desk::{Desk, Gate};
use super::details::Details;
use super::event::{Destroy, Event, Options};
use super::files;
use super::flags::*;
use super::held_queue::HeldQueue;
use super::inside::Watch;
use super::io::Io;
use super::letters::{Letter, Letters};
use super::list::List;
use super::named::Closed;
use super::objects::{Watched, Watching};
use super::own_fds::OwnFd;
use super::record::{self, CLOSING, LIVE, Record};
use super::sent_stack::NOBODY;
use super::signals::Signals;
use super::slots::Slots;
use super::timers::Timers;
use crate::errno::{Errno, Result, fail};
use crate::handle::{Handle, Kind};
use crate::hash::Map;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{epoll, eventfd, fork};
use crate::util::alloc::{TryDeque, TryMap, TryVec, try_array};
use crate::util::try_room;
use crate::wakeup;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// So many names of closed watchers are forgotten before the next wait.
pub(super) const MANY_NAMES: usize = 64;

/// Words of the loop's own registrations; handles are below 2^53. 0 is what
/// wakes it, the others are clocks and, behind them, the signalfd.
pub(super) const INTERNAL: u64 = 1 << 63;

/// Room for more commands than this is not kept.
const MANY_COMMANDS: usize = 1024;

const DEFAULT_EVENTS: usize = 1024;
const DEFAULT_TIMERS: u32 = 4096;
const DEFAULT_POSTS: u32 = 4096;

/// What is rarely said about a watcher.
#[derive(Default)]
pub(super) struct Extra {
    pub priority: i32,
    pub limit: Option<Limit>,
    pub destroy: Option<Box<Letter<Destroy>>>,
    /// What a disabled timer is set to.
    pub parked: i64,
    /// Which file a descriptor was of that is always ready.
    pub file: Option<(u64, u64)>,
    /// What happened while the watcher was suspended.
    pub kept: Option<Event>,
    /// Where it is in `Core::suspended`, if it is there.
    pub suspended_at: usize,
}

impl Extra {
    /// Keeps what happened, with what was kept before.
    pub fn keep(&mut self, event: &Event) {
        match &mut self.kept {
            Some(kept) => kept.merge(event),
            None => self.kept = Some(*event),
        }
    }
}

/// A rate limit, and the interval that is going on.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub interval: i64,
    pub burst: i32,
    pub since: i64,
    pub count: i32,
}

/// Watchers of the kinds that are called in turn.
#[derive(Default)]
pub(super) struct Lists {
    pub prepare: List,
    pub check: List,
    pub idle: List,
    pub defer: List,
    pub exit: List,
    pub clock_change: List,
}

/// Aligned, so that its first and last fields share no cache line with what
/// another loop's thread writes.
#[repr(align(128))]
pub(super) struct Core {
    pub desk: &'static Desk,
    pub max_timers: u32,
    pub max_posts: u32,
    /// The flags that it was made with.
    pub options: u32,
    /// What makes its waits more than one system call; see `slow_wait`.
    pub slow_waits: u32,
    /// Real time of quiet before virtual time jumps, and when that is over;
    /// `None`: it has not begun.
    pub grace: i64,
    pub grace_until: Option<i64>,
    /// How long the next wait may be at most.
    pub wait_limit: i64,
    pub virtual_time: bool,
    pub auto_advance: bool,
    pub precise: bool,

    pub(super) epoll: Fd,
    /// Always readable; see `wakeup`.
    pub(super) eventfd: Fd,
    /// What evloop_fileno gave away; the epoll is in it.
    pub(super) outer: Option<Fd>,
    /// The process whose descriptors these are.
    pub(super) made_in: fork::Epoch,

    pub slots: Slots,
    pub extras: Map<u32, Extra>,
    pub io: Io,
    /// What those watchers watch that watch more than a descriptor.
    pub objects: Map<u32, Box<dyn Watched>>,
    /// Those for which there was no room in that yet.
    pub late_objects: Letters<Watching>,
    pub signals: Signals,
    pub details: Details,
    pub timers: Timers,
    pub files: files::Outlook,
    pub lists: Lists,
    /// How many watchers keep the loop alive.
    pub active: usize,
    /// How many watchers have a priority; how many idle watchers, and defer
    /// watchers, are to be called.
    pub ranked: usize,
    pub idlers: usize,
    pub deferred: usize,
    /// The first of the async watchers that were sent to, taken off the stack
    /// and linked in their records as they were on it.
    pub arrived: u32,
    /// Posted calls, and how many of them are due in this iteration.
    pub posts_due: usize,
    pub posts: Letters<Post>,
    /// Those that are in `batch`.
    pub batched: Letters<Post>,
    /// Calls that were posted to an earlier loop when it had just been closed:
    /// what they were for is to be freed.
    pub stale_posts: Letters<Post>,
    /// Events for evloop_wait.
    pub held: HeldQueue,
    /// Failures to be reported; and whether there are more, for which this had
    /// no room. It is not empty then. The watchers of both are marked.
    pub failures: VecDeque<(i64, Errno)>,
    pub failures_more: bool,
    /// Watchers over their rate limit, and until when.
    pub suspended: Vec<(i64, u32)>,
    /// Notifications of closed watchers; those to be returned by
    /// evloop_wait for which `held` had no room; and those that are open yet,
    /// for which `extras` had none.
    pub destroys: Letters<Destroy>,
    pub unheld: Letters<Destroy>,
    pub orphans: Letters<Destroy>,
    /// Closed watchers with names, to be forgotten at the gate; and whether
    /// there are others, for which this had no room.
    pub unnamed: Vec<i64>,
    pub unnamed_more: bool,

    /// A run is going on: who calls is a callback.
    pub in_callback: bool,
    /// The watcher whose callback is running.
    pub current: i64,
    /// Somebody else waits for the loop; see `evloop_embed_prepare`.
    pub prepared: bool,
    /// Nothing was changed since an iteration that found no need for another
    /// full one; see `quiet`.
    pub quiet: bool,
    /// Records are asked for by evloop_wait, not only kept.
    pub collecting: bool,
    /// The wall clock was stepped.
    pub clock_changed: bool,
    /// Somebody looks at what is done; see `inside`.
    pub watched: bool,
    pub watch: Watch,
    /// Events dispatched in this iteration.
    pub dispatched: u64,
    pub events: Box<[MaybeUninit<epoll::Event>]>,
    /// Room for all watchers of a list, while they are called.
    pub turn: Vec<(i64, i32, usize)>,
    /// With priorities: what is ready in this iteration.
    pub batch: Vec<(std::cmp::Reverse<i32>, usize, super::dispatch::Job)>,
}

impl Core {
    pub fn new(desk: &'static Desk, options: &Options) -> Result<Box<Self>> {
        let flags = options.flags;
        let bound = |given: i32, usual: u32| match u32::try_from(given) {
            Ok(0) | Err(_) => usual,
            Ok(given) => given,
        };
        let max_events = bound(options.max_events, DEFAULT_EVENTS as u32) as usize;
        let mut failures = VecDeque::new();
        let events = try_array(max_events, |_| MaybeUninit::uninit());
        let Some(events) = events.filter(|_| failures.try_reserve(16).is_ok()) else {
            fail!(ENOMEM, "no memory for {} events", max_events as i64);
        };
        let eventfd = eventfd::create(1)?;
        let epoll = woken_by(&eventfd)?;
        let Some(room) = try_room() else { fail!(ENOMEM, "no memory for a loop") };
        let core = Self {
            desk,
            max_timers: bound(options.max_timers, DEFAULT_TIMERS),
            max_posts: bound(options.max_posts, DEFAULT_POSTS),
            options: flags,
            slow_waits: super::slow_wait::of_options(flags),
            grace: options.virtual_grace_ns,
            grace_until: None,
            wait_limit: i64::MAX,
            virtual_time: flags & super::VIRTUAL_TIME != 0,
            auto_advance: flags & super::AUTO_ADVANCE != 0,
            precise: flags & super::PRECISE != 0,
            epoll,
            eventfd,
            outer: None,
            made_in: fork::current(),
            slots: Slots::default(),
            extras: Map::default(),
            io: Io::default(),
            objects: Map::default(),
            late_objects: Letters::new(),
            signals: Signals::default(),
            details: Details::default(),
            timers: Timers::new(options.timer_tolerance_ns),
            files: files::Outlook::nothing(),
            lists: Lists::default(),
            // With KEEP_ALIVE the loop counts as one itself.
            active: usize::from(flags & super::KEEP_ALIVE != 0),
            ranked: 0,
            idlers: 0,
            deferred: 0,
            arrived: NOBODY,
            posts_due: 0,
            posts: Letters::new(),
            batched: Letters::new(),
            stale_posts: Letters::new(),
            held: HeldQueue::default(),
            failures,
            failures_more: false,
            suspended: Vec::new(),
            destroys: Letters::new(),
            unheld: Letters::new(),
            orphans: Letters::new(),
            unnamed: Vec::new(),
            unnamed_more: false,
            in_callback: false,
            current: 0,
            prepared: false,
            quiet: false,
            collecting: false,
            clock_changed: false,
            watched: false,
            watch: Watch::default(),
            dispatched: 0,
            events,
            turn: Vec::new(),
            batch: Vec::new(),
        };
        Ok(Box::write(room, core))
    }

    #[inline(always)]
    pub fn epoll(&self) -> RawFd {
        self.epoll.raw()
    }

    /// The epoll, if it still is the loop's: for what is done outside of a run,
    /// too.
    pub fn own_epoll(&self) -> Result<RawFd> {
        match self.epoll.check() {
            Some(epoll) => Ok(epoll),
            None => fail!(EBADF, "the descriptors of loop {} were closed", self.desk.handle()),
        }
    }

    /// Has other threads wake the loop in its epoll.
    pub fn be_woken(&self) {
        self.desk.wake_in(self.epoll.identity(), self.eventfd.raw());
    }

    /// Whether others may poll the descriptor for embedding.
    pub fn is_given_away(&self) -> bool {
        self.outer.is_some()
    }

    /// The descriptor for embedding.
    pub fn fileno(&mut self) -> Result<RawFd> {
        if let Some(outer) = &self.outer {
            return Ok(outer.raw());
        }
        // Not the set itself, which may have to be replaced.
        let outer = epoll::create()?;
        epoll::add(outer.raw(), self.own_epoll()?, libc::EPOLLIN as u32, INTERNAL)?;
        self.fd_is_ours(OwnFd::Outer, outer.raw());
        let raw = outer.raw();
        self.outer = Some(outer);
        Ok(raw)
    }

    /// Puts another set in the place of this one.
    pub fn replace_epoll(&mut self, fresh: Fd) -> Result<()> {
        if let Some(outer) = &self.outer {
            epoll::add(outer.raw(), fresh.raw(), libc::EPOLLIN as u32, INTERNAL)?;
            let _ = epoll::delete(outer.raw(), self.epoll());
        }
        self.desk.own.set(OwnFd::Epoll, fresh.raw());
        let before = std::mem::replace(&mut self.epoll, fresh);
        self.be_woken();
        drop(before);
        Ok(())
    }

    /// A new set, in which the loop can be woken.
    pub fn fresh_epoll(&self) -> Result<Fd> {
        let fresh = woken_by(&self.eventfd)?;
        super::busy_poll::apply(self.desk, fresh.raw());
        Ok(fresh)
    }

    /// Whether the epoll is what it was. If the program has closed it, or put
    /// another file in its place, what has its number now is left alone.
    pub fn has_own_epoll(&mut self, gate: &mut Gate) -> bool {
        let is_intact = self.epoll.is_intact() && self.epoll() >= 0;
        if !is_intact {
            self.lose_epoll(gate);
        }
        is_intact
    }

    /// The loop can wait no more: every wait says so from now on.
    pub fn lose_epoll(&mut self, gate: &mut Gate) {
        self.desk.lose_epoll();
        self.stir();
        gate.epoll = -1;
        // These numbers are the program's.
        self.desk.own.clear();
        self.epoll = Fd::borrowed(-1);
    }

    /// More about a watcher, made if there is nothing yet.
    pub fn extra(&mut self, index: u32, record: &Record) -> Result<&mut Extra> {
        // Each of them may come to be suspended.
        let more = (self.extras.len() + 1).saturating_sub(self.suspended.len());
        let room = self.suspended.try_reserve(more).is_ok();
        match self.extras.try_entry(index) {
            Ok(extra) if room => {
                record.set(EXTRA);
                Ok(extra)
            }
            _ => fail!(ENOMEM, "no memory for a watcher"),
        }
    }

    /// Has a failure reported as an event of the watcher.
    pub fn fail(&mut self, handle: i64, errno: Errno) {
        self.desk.failures.store(1, Relaxed);
        let record = super::dispatch::live(handle).map(|(_, record)| record);
        if record.is_some_and(|record| record.has(FAILED)) {
            // A watcher that fails again before that is reported fails once.
            return;
        }
        // There is room for some always.
        let is_listed = self.failures.try_push_back((handle, errno)).is_ok();
        if let Some(record) = record {
            record.set(FAILED);
            self.failures_more |= !is_listed;
        }
    }

    /// Finds the failures for which there was no room, as far as there is
    /// some now.
    #[cold]
    pub fn list_failures(&mut self) {
        self.failures_more = false;
        // Those that are marked then are not listed.
        self.mark_failures(false);
        for (index, record) in self.slots.all().filter(|(_, record)| record.has(FAILED)) {
            // What it was is not known any more, but why it is not.
            let errno = if record.has(DEAD) { Errno::EBADF } else { Errno::ENOMEM };
            let handle = record.handle(Kind::Watcher, index);
            if self.failures.try_push_back((handle, errno)).is_err() {
                self.failures_more = true;
                break;
            }
        }
        self.mark_failures(true);
    }

    /// Marks the watchers whose failures are listed, or takes the marks off.
    fn mark_failures(&self, marked: bool) {
        for (handle, _) in &self.failures {
            if let Some((_, record)) = super::dispatch::live(*handle) {
                if marked { record.set(FAILED) } else { record.unset(FAILED) }
            }
        }
    }

    /// Counts a watcher among those that keep the loop alive, or not.
    #[inline]
    pub fn count_liveness(&mut self, record: &Record) {
        let flags = record.flags.load(Relaxed);
        let wanted = keeps_alive(flags);
        if wanted && flags & COUNTED == 0 {
            record.set(COUNTED);
            self.active += 1;
        } else if !wanted && flags & COUNTED != 0 {
            record.unset(COUNTED);
            self.active -= 1;
        }
    }

    /// Whether anything is left that keeps the loop alive.
    pub fn is_alive(&self) -> bool {
        self.active > 0
            || !self.posts.is_empty()
            || !self.failures.is_empty()
            || !self.suspended.is_empty()
            || self.desk.mail.has_letters()
    }

    pub fn list(&mut self, source: Source) -> Option<&mut List> {
        match source {
            Source::Prepare => Some(&mut self.lists.prepare),
            Source::Check => Some(&mut self.lists.check),
            Source::Idle => Some(&mut self.lists.idle),
            Source::Defer => Some(&mut self.lists.defer),
            Source::Exit => Some(&mut self.lists.exit),
            Source::ClockChange => Some(&mut self.lists.clock_change),
            _ => None,
        }
    }

    /// Does what others left at the gate.
    #[inline]
    pub fn receive(&mut self, gate: &mut Gate) {
        self.stir();
        self.slots.settle();
        if self.desk.has_inbox() || gate.has_commands() || self.watched {
            self.receive_all(gate);
        }
    }

    #[inline(never)]
    fn receive_all(&mut self, gate: &mut Gate) {
        self.desk.mail.take(super::mailbox::INBOX);
        if self.watched {
            // What came before what they may ask for.
            self.watch_pending_at(gate);
        }
        // Others' timers count from their calls: nothing is left to be found
        // out about them.
        let in_callback = std::mem::replace(&mut self.in_callback, false);
        gate.clocks = 0;
        for command in gate.inbox.drain(..) {
            self.obey(command);
        }
        if gate.inbox.capacity() > MANY_COMMANDS {
            gate.inbox.try_shrink(0);
        }
        if std::mem::take(&mut gate.unlisted) {
            self.close_unlisted();
        }
        self.in_callback = in_callback;
    }

    /// Forgets the names of closed watchers; where no callback runs, whose
    /// watcher may be one of them.
    #[inline]
    pub fn forget_names(&mut self, gate: &mut Gate) {
        let has_some = !self.unnamed.is_empty() || self.unnamed_more;
        // Those to be told of are told of with their names.
        if has_some && self.destroys.is_empty() {
            self.forget_all_names(gate);
        }
    }

    #[cold]
    fn forget_all_names(&mut self, gate: &mut Gate) {
        if self.watched {
            self.watch_pending_at(gate);
        }
        for handle in self.unnamed.drain(..) {
            let name = gate.names.remove(&handle);
            if let (Some(name), Some(trace)) = (name, &mut gate.trace) {
                trace.keep_name(handle, name);
            }
        }
        if std::mem::take(&mut self.unnamed_more) {
            gate.names.retain(|handle, _| super::dispatch::live(*handle).is_some());
        }
    }

    /// Takes the calls that others posted.
    pub fn take_letters(&mut self) {
        let desk = self.desk;
        let mut taken = desk.mail.take_letters(desk.handle(), |stale| {
            if stale.content().destroy.is_some() {
                self.stale_posts.push(stale);
            }
        });
        if !self.stale_posts.is_empty() {
            desk.attention.set();
        }
        self.posts.append(&mut taken);
        self.publish_posts();
        if desk.has_inbox() {
            // What was asked for before something was posted comes before.
            self.receive(&mut desk.gate());
        }
    }

    /// Lets other threads see how many posted calls there are.
    #[inline(always)]
    pub fn publish_posts(&self) {
        self.desk.posts.store(self.posts.len() as u32, Relaxed);
    }

    fn obey(&mut self, command: Command) {
        let result = match command {
            Command::Block(block) => {
                self.slots.adopt(block);
                Ok(())
            }
            Command::Clock(clock, fd) => self.adopt_clock(clock, fd).map_err(|error| (0, error)),
            Command::Add(handle) => self.on_new_watcher(handle, |core, index, record| {
                if Source::of(record.flags.load(Relaxed)) == Source::Defer {
                    record.unset(COMING);
                }
                core.add_to_list(index, record)
            }),
            Command::AddFile(handle) => self.on_new_watcher(handle, |core, index, _| {
                core.file_added(index);
                Ok(())
            }),
            Command::AddIo(handle, how) => self.on_new_watcher(handle, |core, index, record| {
                core.io_added_late(index, record, how)
            }),
            Command::AddObject(handle, how, letter) => {
                self.on_new_watcher(handle, |core, index, record| {
                    core.keep_object_late(letter);
                    core.io_added_late(index, record, how)
                })
            }
            Command::AddSignal(handle, new) => self
                .on_new_watcher(handle, |core, index, record| {
                    core.signal_added(index, record, new)
                }),
            Command::AddTimer { handle, setting, deadline } => {
                self.on_new_watcher(handle, |core, index, record| {
                    record.unset(COMING);
                    core.timer_set(index, record, &setting, Some(deadline))
                })
            }
            Command::Close(handle, told) => {
                if let Some((index, record)) = closing(handle) {
                    self.finish_close(index, record, told);
                }
                Ok(())
            }
            Command::Change(handle, change) => {
                self.on_watcher(handle, |core, index, record| core.change(index, record, change))
            }
            Command::Destroy(letter) => {
                let handle = letter.to();
                self.on_watcher(handle, |core, index, record| {
                    core.set_destroy_late(index, record, letter);
                    Ok(())
                })
            }
            Command::Set(handle, setting, deadline) => self
                .on_watcher(handle, |core, index, record| {
                    core.timer_set(index, record, &setting, Some(deadline))
                }),
            Command::Again(handle, deadline) => self.on_watcher(handle, |core, index, record| {
                core.timer_again(index, record, Some(deadline))
            }),
            Command::Advance(ns) => {
                self.advance(ns);
                Ok(())
            }
            Command::Look(look) => {
                self.look(look);
                Ok(())
            }
        };
        if let Err((handle, error)) = result {
            self.fail(handle, error.errno);
        }
    }

    /// For a watcher that another thread made.
    fn on_new_watcher(
        &mut self,
        handle: i64,
        add: impl FnOnce(&mut Self, u32, &'static Record) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        self.on_watcher(handle, |core, index, record| {
            if record.has(RECORDS) {
                // If there is no memory, it is looked for again when an event
                // is there.
                core.held.expect_watcher();
            }
            add(core, index, record)
        })
    }

    /// For a watcher that another thread made or changed, and perhaps closed
    /// since: then what it asked for before still counts.
    fn on_watcher(
        &mut self,
        handle: i64,
        change: impl FnOnce(&mut Self, u32, &'static Record) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        let live = super::named::named(handle, Kind::Watcher).ok();
        let live = live.map(|named| (named.handle.index, named.record));
        let Some((index, record)) = live.or_else(|| closing(handle)) else { return Ok(()) };
        self.count_liveness(record);
        change(self, index, record).map_err(|error| (handle, error))
    }

    pub fn advance(&mut self, ns: i64) {
        let now = self.desk.virtual_now.load(Relaxed);
        self.desk.virtual_now.store(now.saturating_add(ns), Relaxed);
        // Whoever waits for an embedded loop has to hear of it.
        self.timers.recheck |= 1;
    }

    /// Everything is closed; whom to tell.
    pub fn tear_down(mut self: Box<Self>) -> Closed {
        self.objects.clear();
        self.late_objects = Letters::new();
        let mut slots = std::mem::take(&mut self.slots);
        for (index, record) in slots.all() {
            if super::asyncs::off_stack(record.flags.load(Relaxed)) {
                record.receive();
            }
            if matches!(record.state(), LIVE | CLOSING) {
                if record.has(EXTRA)
                    && record.state() == LIVE
                    && let handle = record.handle(Kind::Watcher, index)
                    && let Some(letter) = self.take_destroy(index, handle)
                {
                    self.note_destroy(letter, super::watcher::closed_event(index, record));
                }
                if let Some(handle) = Handle::unpack(record.handle(Kind::Watcher, index))
                    && record.state() == LIVE
                {
                    // From here on nobody sends to it; one who was about to is
                    // seen.
                    record.close(handle);
                }
            }
        }
        self.forget_sent();
        slots.tear_down();
        let destroys = self.take_destroys();
        let mut posts = std::mem::replace(&mut self.batched, Letters::new());
        posts.append(&mut self.posts);
        posts.append(&mut self.stale_posts);
        Closed { destroys, posts }
    }

    /// Gives back the descriptors of a loop whose memory has to stay.
    /// `is_sound`: no fork and no panic caught it in the middle of a change.
    pub fn abandon(&self, is_sound: bool) {
        self.epoll.abandon();
        self.eventfd.abandon();
        if is_sound {
            self.objects.values().for_each(|watched| watched.abandon());
        }
        self.outer.iter().for_each(Fd::abandon);
        self.timers.abandon();
        self.signals.abandon();
    }
}

/// A new set, and in it what its waiters are woken by.
pub(super) fn woken_by(eventfd: &Fd) -> std::result::Result<Fd, Errno> {
    let fresh = epoll::create()?;
    wakeup::register(fresh.raw(), eventfd.raw(), INTERNAL)?;
    Ok(fresh)
}

/// The watcher of a handle that is marked closing.
fn closing(handle: i64) -> Option<(u32, &'static Record)> {
    let handle = Handle::unpack_as(handle, Kind::Watcher)?;
    let record = record::get(handle.index).filter(|record| record.is(handle, CLOSING))?;
    Some((handle.index, record))
}
