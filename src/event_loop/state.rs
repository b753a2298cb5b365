//! The loop itself, which belongs to one thread at a time; see `shared`.

use super::command::CommandQueue;
use super::command::{Command, Post};
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
use super::slot::{self, CLOSING, LIVE, WatcherSlot};
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
use crate::util::alloc::{TryVec, try_array};
use crate::util::try_uninit;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

/// So many names of closed watchers are forgotten before the next wait.
pub(super) const MANY_NAMES: usize = 64;

/// Room for more commands than this is not kept.
const MANY_COMMANDS: usize = 1024;

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

    /// Does what others queued in the command queue.
    #[inline]
    pub fn apply_commands(&mut self, command_queue: &mut CommandQueue) {
        self.mark_changed();
        self.ctx.slots.settle();
        if self.ctx.shared.has_commands() || command_queue.has_commands() || self.instrumented {
            self.receive_all(command_queue);
        }
    }

    #[inline(never)]
    fn receive_all(&mut self, command_queue: &mut CommandQueue) {
        self.ctx.shared.wake_state.take(super::wake_state::HAS_COMMANDS);
        if self.instrumented {
            // What came before what they may ask for.
            self.probe_flush_locked(command_queue);
        }
        // Others' timers count from their calls: nothing is left to be found
        // out about them.
        let in_callback = std::mem::replace(&mut self.ctx.in_callback, false);
        command_queue.clocks = 0;
        for command in command_queue.commands.drain(..) {
            self.apply(command);
        }
        if command_queue.commands.capacity() > MANY_COMMANDS {
            command_queue.commands.try_shrink(0);
        }
        if std::mem::take(&mut command_queue.unlisted) {
            self.close_unlisted();
        }
        self.ctx.in_callback = in_callback;
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

    /// Takes the calls that others posted.
    pub fn take_posts(&mut self) {
        let shared = self.ctx.shared;
        let mut taken = shared.wake_state.take_posts(shared.handle(), |stale| {
            if stale.value().destroy.is_some() {
                self.stale_posts.push(stale);
            }
        });
        if !self.stale_posts.is_empty() {
            shared.pending_work.set();
        }
        self.posts.append(&mut taken);
        self.publish_posts();
        if shared.has_commands() {
            // What was asked for before something was posted comes before.
            self.apply_commands(&mut shared.lock_commands());
        }
    }

    /// Lets other threads see how many posted calls there are.
    #[inline(always)]
    pub fn publish_posts(&self) {
        self.ctx.shared.posts.store(self.posts.len() as u32, Relaxed);
    }

    fn apply(&mut self, command: Command) {
        let result = match command {
            Command::Block(block) => {
                self.ctx.slots.attach_block(block);
                Ok(())
            }
            Command::Clock(clock, fd) => self
                .timers
                .adopt_clock(&mut self.ctx, &mut self.io, clock, fd)
                .map_err(|error| (0, error)),
            Command::Add(handle) => self.on_new_watcher(handle, |state, index, slot| {
                if Source::of(slot.flags.load(Relaxed)) == Source::Defer {
                    slot.unset(COMING);
                }
                state.add_to_list(index, slot)
            }),
            Command::AddFile(handle) => self.on_new_watcher(handle, |state, index, _| {
                state.files.added(&mut state.ctx, &mut state.io, index);
                Ok(())
            }),
            Command::AddIo(handle, registered) => self
                .on_new_watcher(handle, |state, index, slot| {
                    state.io.added_late(&mut state.ctx, index, slot, registered)
                }),
            Command::AddObject(handle, registered, node) => {
                self.on_new_watcher(handle, |state, index, slot| {
                    state.fd_sources.insert_late(node);
                    state.io.added_late(&mut state.ctx, index, slot, registered)
                })
            }
            Command::AddSignal(handle, new) => self.on_new_watcher(handle, |state, index, slot| {
                state.signals.added(&mut state.ctx, &mut state.io, index, slot, new)
            }),
            Command::AddTimer { handle, setting, deadline } => {
                self.on_new_watcher(handle, |state, index, slot| {
                    slot.unset(COMING);
                    state.set_timer(index, slot, &setting, Some(deadline))
                })
            }
            Command::Close(handle, deregistered) => {
                if let Some((index, slot)) = closing(handle) {
                    self.finish_close(index, slot, deregistered);
                }
                Ok(())
            }
            Command::Change(handle, change) => {
                self.on_watcher(handle, |state, index, slot| state.change(index, slot, change))
            }
            Command::Destroy(node) => {
                let handle = node.to();
                self.on_watcher(handle, |state, index, slot| {
                    state.set_destroy_late(index, slot, node);
                    Ok(())
                })
            }
            Command::Set(handle, setting, deadline) => self
                .on_watcher(handle, |state, index, slot| {
                    state.set_timer(index, slot, &setting, Some(deadline))
                }),
            Command::Again(handle, deadline) => self.on_watcher(handle, |state, index, slot| {
                state.timers.again(&mut state.ctx, index, slot, Some(deadline))
            }),
            Command::Advance(ns) => {
                self.advance(ns);
                Ok(())
            }
            Command::Probe(change) => {
                self.change_probe(change);
                Ok(())
            }
        };
        if let Err((handle, error)) = result {
            self.ctx.fail(handle, error.errno);
        }
    }

    /// For a watcher that another thread made.
    fn on_new_watcher(
        &mut self,
        handle: i64,
        add: impl FnOnce(&mut Self, u32, &'static WatcherSlot) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        self.on_watcher(handle, |state, index, slot| {
            if slot.has(RECORDS) {
                // If there is no memory, it is looked for again when an event
                // is there.
                state.ctx.pending.expect_watcher();
            }
            add(state, index, slot)
        })
    }

    /// For a watcher that another thread made or changed, and perhaps closed
    /// since: then what it asked for before still counts.
    fn on_watcher(
        &mut self,
        handle: i64,
        change: impl FnOnce(&mut Self, u32, &'static WatcherSlot) -> Result<()>,
    ) -> std::result::Result<(), (i64, crate::errno::Error)> {
        let live = slot::live(handle);
        let Some((index, slot)) = live.or_else(|| closing(handle)) else { return Ok(()) };
        self.ctx.count_liveness(slot);
        change(self, index, slot).map_err(|error| (handle, error))
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

/// The watcher of a handle that is marked closing.
fn closing(handle: i64) -> Option<(u32, &'static WatcherSlot)> {
    let handle = Handle::unpack_as(handle, Kind::Watcher)?;
    let slot = slot::get(handle.index).filter(|slot| slot.is(handle, CLOSING))?;
    Some((handle.index, slot))
}
