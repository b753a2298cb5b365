//! The loop itself, which belongs to one thread at a time; see `shared`.

use super::command::CommandQueue;
use super::command::Post;
use super::event::{
    AUTO_ADVANCE, CHECK_FDS, Destroy, Event, KEEP_ALIVE, Options, PRECISE, VIRTUAL_TIME,
};
use super::flags::*;
use super::lifecycle::Lifecycle;
use super::node_list::NodeList;
use super::notify::ClosedLoop;
use super::own_fds::OwnFd;
use super::own_words::INTERNAL;
use super::ownership::LoopOwner;
use super::payload::Payloads;
use super::shared::LoopShared;
use super::slot::alloc::SlotAlloc;
use super::slot::list::WatcherList;
use super::slot::view::{closed_event, is_unlinked};
use super::slot::{CLOSING, LIVE};
use super::source::asyncs::AsyncSource;
use super::source::ctx::{SourceCtx, woken_by};
use super::source::fd_sources::FdSources;
use super::source::files;
use super::source::io::Io;
use super::source::pending_queue::PendingQueue;
use super::source::signals::SignalSource;
use super::source::timers::TimerSource;
use super::telemetry::Probe;
use crate::errno::{Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::hash::Map;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll::{self};
use crate::sys::fd::Fd;
use crate::sys::{eventfd, fork};
use crate::util::alloc::try_array;
use crate::util::try_uninit;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

/// So many names of closed watchers are forgotten before the next wait.
pub(super) const MANY_NAMES: usize = 64;

const DEFAULT_EVENTS: usize = 1024;
const DEFAULT_TIMERS: u32 = 4096;
const DEFAULT_POSTS: u32 = 4096;

/// Bits of `LoopState::slow_waits`: time is virtual, and nothing is waited for
/// by a timer of the kernel's.
pub(super) const VIRTUAL: u32 = 1;
/// Descriptors are checked.
pub(super) const CHECKS: u32 = 2;
/// The next wait is limited.
pub(super) const WAIT_LIMITED: u32 = 4;

/// The bits of a loop that was made with these flags.
fn slow_waits_of(flags: u32) -> u32 {
    let mut bits = if flags & VIRTUAL_TIME != 0 { VIRTUAL } else { 0 };
    if flags & CHECK_FDS != 0 {
        bits |= CHECKS;
    }
    bits
}

/// Watchers of the kinds that are called in turn.
#[derive(Default)]
pub(super) struct Lists {
    pub prepare: WatcherList,
    pub check: WatcherList,
    pub idle: WatcherList,
    pub defer: WatcherList,
    pub exit: WatcherList,
    pub clock_change: WatcherList,
}

/// Something to be dispatched.
#[derive(Clone, Copy)]
pub(super) enum BatchItem {
    /// With the number of the timer's setting.
    Event(Event, u64),
    /// The next one of `LoopState::batched`.
    Post,
}

/// Aligned, so that its first and last fields share no cache line with what
/// another loop's thread writes.
#[repr(align(128))]
pub(super) struct LoopState {
    /// What sources use besides their own data.
    pub ctx: SourceCtx,
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
    pub auto_advance: bool,
    /// The process whose descriptors these are.
    pub(super) made_in: fork::Epoch,
    pub io: Io,
    /// What those watchers watch that watch more than a descriptor.
    pub fd_sources: FdSources,
    pub signals: SignalSource,
    pub timers: TimerSource,
    pub files: files::FileWork,
    pub lists: Lists,
    /// How many watchers have a priority; how many idle watchers, and defer
    /// watchers, are to be called.
    pub prioritized: usize,
    pub idlers: usize,
    pub deferred: usize,
    pub asyncs: AsyncSource,
    /// Posted calls, and how many of them are due in this iteration.
    pub posts_due: usize,
    pub posts: NodeList<Post>,
    /// Those that are in `batch`.
    pub batched: NodeList<Post>,
    /// Calls that were posted to an earlier loop when it had just been closed:
    /// what they were for is to be freed.
    pub stale_posts: NodeList<Post>,
    /// Notifications of closed watchers; those to be returned by evloop_wait
    /// for which `pending` had no room; and those that are open yet, for which
    /// `extras` had none.
    pub destroys: NodeList<Destroy>,
    pub unqueued_destroys: NodeList<Destroy>,
    pub orphans: NodeList<Destroy>,
    /// Closed watchers with names, to be forgotten in the command queue; and
    /// whether there are others, for which this had no room.
    pub unnamed: Vec<i64>,
    pub unnamed_more: bool,
    /// The watcher whose callback is running.
    pub current: i64,
    /// Another loop waits for this one; see `evloop_embed_prepare`.
    pub prepared: bool,
    /// Statistics, a trace or a watchdog is on; see `telemetry`.
    pub instrumented: bool,
    pub probe: Probe,
    /// Events dispatched in this iteration.
    pub dispatched: u64,
    pub events: Box<[MaybeUninit<epoll::Event>]>,
    /// Room for all watchers of a list, while they are called.
    pub turn_buffer: Vec<(i64, i32, usize)>,
    /// With priorities: what is ready in this iteration.
    pub batch: Vec<(std::cmp::Reverse<i32>, usize, BatchItem)>,
}

const fn assert_send<T: Send>() {}
// The owner of a loop's state goes from thread to thread.
const _: () = assert_send::<LoopState>();

impl LoopShared {
    /// The owner, with the type of the state.
    #[inline(always)]
    pub fn state_owner(&self) -> &LoopOwner<LoopState, CommandQueue> {
        // SAFETY: of the state there is only a pointer in it, so that both have
        // the same layout; every pointer to a state comes from here.
        unsafe { &*ptr::from_ref(&self.owner).cast() }
    }

    /// Borrows the loop itself.
    ///
    /// # Safety
    /// As [`LoopOwner::with`].
    #[inline(always)]
    pub unsafe fn with_state<R>(&self, act: impl FnOnce(&mut LoopState) -> R) -> Result<R> {
        // SAFETY: this function's contract is the same.
        match unsafe { self.state_owner().with(act) } {
            Some(result) => Ok(result),
            None => handle::stale(self.handle.load(Relaxed)),
        }
    }

    /// The fields for how a loop begins and ends.
    #[inline(always)]
    pub fn lifecycle(&self) -> Lifecycle<'_, LoopState, CommandQueue, Post> {
        let Self { handle, wake_state, pending_work, .. } = self;
        Lifecycle { handle, owner: self.state_owner(), wake_state, pending_work }
    }
}

impl LoopState {
    pub fn new(shared: &'static LoopShared, options: &Options) -> Result<Box<Self>> {
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
        let Some(boxed) = try_uninit() else { fail!(ENOMEM, "no memory for a loop") };
        let ctx = SourceCtx {
            shared,
            virtual_time: flags & VIRTUAL_TIME != 0,
            precise: flags & PRECISE != 0,
            epoll,
            eventfd,
            outer: None,
            slots: SlotAlloc::default(),
            extras: Map::default(),
            payloads: Payloads::default(),
            // With KEEP_ALIVE the loop counts as one itself.
            active: usize::from(flags & KEEP_ALIVE != 0),
            pending: PendingQueue::default(),
            failures,
            failures_more: false,
            suspended: Vec::new(),
            in_callback: false,
            fds_only: false,
            collecting: false,
        };
        let state = Self {
            ctx,
            max_timers: bound(options.max_timers, DEFAULT_TIMERS),
            max_posts: bound(options.max_posts, DEFAULT_POSTS),
            options: flags,
            slow_waits: slow_waits_of(flags),
            grace: options.virtual_grace_ns,
            grace_until: None,
            wait_limit: i64::MAX,
            auto_advance: flags & AUTO_ADVANCE != 0,
            made_in: fork::current(),
            io: Io::default(),
            fd_sources: FdSources::default(),
            signals: SignalSource::default(),
            timers: TimerSource::new(options.timer_tolerance_ns),
            files: files::FileWork::nothing(),
            lists: Lists::default(),
            prioritized: 0,
            idlers: 0,
            deferred: 0,
            asyncs: AsyncSource::default(),
            posts_due: 0,
            posts: NodeList::new(),
            batched: NodeList::new(),
            stale_posts: NodeList::new(),
            destroys: NodeList::new(),
            unqueued_destroys: NodeList::new(),
            orphans: NodeList::new(),
            unnamed: Vec::new(),
            unnamed_more: false,
            current: 0,
            prepared: false,
            instrumented: false,
            probe: Probe::default(),
            dispatched: 0,
            events,
            turn_buffer: Vec::new(),
            batch: Vec::new(),
        };
        Ok(Box::write(boxed, state))
    }

    /// The descriptor for embedding.
    pub fn fileno(&mut self) -> Result<RawFd> {
        if let Some(outer) = &self.ctx.outer {
            return Ok(outer.raw());
        }
        // Not the set itself, which may have to be replaced.
        let outer = epoll::create()?;
        epoll::add(outer.raw(), self.ctx.own_epoll()?, libc::EPOLLIN as u32, INTERNAL)?;
        self.io.claim_fd(&mut self.ctx, OwnFd::Outer, outer.raw());
        let raw = outer.raw();
        self.ctx.outer = Some(outer);
        Ok(raw)
    }

    /// Whether anything is left that keeps the loop alive.
    pub fn is_alive(&self) -> bool {
        self.ctx.active > 0
            || !self.posts.is_empty()
            || !self.ctx.failures.is_empty()
            || !self.ctx.suspended.is_empty()
            || self.ctx.shared.wake_state.has_posts()
    }

    pub fn list(&mut self, source: Source) -> Option<&mut WatcherList> {
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

    /// Forgets the names of closed watchers; where no callback runs, whose
    /// watcher may be one of them.
    #[inline]
    pub fn forget_names(&mut self, command_queue: &mut CommandQueue) {
        let has_some = !self.unnamed.is_empty() || self.unnamed_more;
        // Names are kept until the destroy callbacks are notified: a watcher
        // still has its name then.
        if has_some && self.destroys.is_empty() {
            self.forget_all_names(command_queue);
        }
    }

    #[cold]
    fn forget_all_names(&mut self, command_queue: &mut CommandQueue) {
        if self.instrumented {
            self.probe_flush_locked(command_queue);
        }
        for handle in self.unnamed.drain(..) {
            let name = command_queue.names.remove(&handle);
            if let (Some(name), Some(trace)) = (name, &mut command_queue.trace) {
                trace.keep_name(handle, name);
            }
        }
        if std::mem::take(&mut self.unnamed_more) {
            command_queue.names.retain(|handle, _| super::slot::live(*handle).is_some());
        }
    }

    /// Lets other threads see how many posted calls there are.
    #[inline(always)]
    pub fn publish_posts(&self) {
        self.ctx.shared.posts.store(self.posts.len() as u32, Relaxed);
    }

    pub fn advance(&mut self, ns: i64) {
        let now = self.ctx.shared.virtual_now.load(Relaxed);
        self.ctx.shared.virtual_now.store(now.saturating_add(ns), Relaxed);
        // This ends the wait for an embedded loop; see `has_news`.
        self.timers.recheck |= 1;
    }

    /// Closes everything. Returns the callbacks to notify.
    pub fn tear_down(mut self: Box<Self>) -> ClosedLoop {
        self.fd_sources = FdSources::default();
        let mut slots = std::mem::take(&mut self.ctx.slots);
        for (index, slot) in slots.all() {
            if is_unlinked(slot.flags.load(Relaxed)) {
                slot.clear_pending();
            }
            if matches!(slot.state(), LIVE | CLOSING) {
                if slot.has(EXTRA)
                    && slot.state() == LIVE
                    && let handle = slot.handle(Kind::Watcher, index)
                    && let Some(node) = self.take_destroy(index, handle)
                {
                    self.note_destroy(node, closed_event(index, slot));
                }
                if let Some(handle) = Handle::unpack(slot.handle(Kind::Watcher, index))
                    && slot.state() == LIVE
                {
                    // From here on no thread sends to it; one that was about to
                    // is seen.
                    slot.close(handle);
                }
            }
        }
        self.asyncs.discard_all(&mut self.ctx);
        slots.tear_down();
        let destroys = self.take_destroys();
        let mut posts = std::mem::take(&mut self.batched);
        posts.append(&mut self.posts);
        posts.append(&mut self.stale_posts);
        ClosedLoop { destroys, posts }
    }

    /// Gives back the descriptors of a loop whose memory has to stay.
    /// `is_sound`: no fork and no panic caught it in the middle of a change.
    pub fn abandon(&self, is_sound: bool) {
        self.ctx.epoll.close_now();
        self.ctx.eventfd.close_now();
        if is_sound {
            self.fd_sources.abandon();
        }
        self.ctx.outer.iter().for_each(Fd::close_now);
        self.timers.abandon();
        self.signals.abandon();
    }
}
