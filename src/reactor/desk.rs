//! A loop as other threads see it: what stays when the loop is gone.
//!
//! A desk is never freed, only used again, so it can be looked at through a
//! stale handle. Behind it is the loop itself, a [`Core`]. It belongs to the
//! thread that runs the loop: that one uses it without a lock, in callbacks
//! too. While nobody runs the loop it belongs to whoever holds the gate's
//! lock. Others leave commands at the gate. Starting and ending a run take
//! the lock once each: that is the whole hand-over.

use super::command::{Command, Post};
use super::core::Core;
use super::event::{Event, Target};
use super::mailbox::{self, Mailbox};
use super::record::{self, LIVE, LOOP, Record};
use crate::errno::{Errno, Result, fail};
use crate::sync::{
    AtomicI32, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, ForkMutex, MutexGuard, Ordering::*,
    UnsafeCell,
};
use crate::sys::{SavedErrno, eventfd, fork, thread};
use crate::table::{self, Handle, Kind};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::{Condvar, PoisonError};

/// How many clocks timers can have.
pub(super) const CLOCKS: usize = 5;

/// A loop's state for other threads.
pub(super) struct Desk {
    /// The thread that runs it; 0: none.
    thread: AtomicUsize,
    /// The process whose loop it is.
    pub epoch: AtomicU64,
    /// Something is to be done before the next callback.
    pub attention: AtomicU32,
    pub mail: Mailbox<Post>,
    /// The loop's handle; 0: closed.
    handle: AtomicI64,
    /// [`POISONED`] and [`LOST`].
    state: AtomicU32,
    /// 1 while the thread that runs it waits, and does not touch the core.
    pub waiting: AtomicU32,
    /// Virtual time, or [`REAL_TIME`].
    pub virtual_now: AtomicI64,
    /// The time of this iteration, or [`UNKNOWN`].
    pub time: AtomicI64,
    /// The clocks whose timer exists, as bits.
    pub clocks: AtomicU32,
    /// How many watchers are open: those that the loop's own thread counts,
    /// with plain loads and stores, and what others changed about it.
    watchers: AtomicI64,
    others: AtomicI64,
    eventfd: AtomicI32,
    /// How many are writing to it.
    ringing: AtomicU32,
    gate: ForkMutex<Gate>,
    answered: Condvar,
    core: UnsafeCell<Option<Box<Core>>>,
}

// SAFETY: the core is only reached as the module's comment has it.
unsafe impl Sync for Desk {}

/// A panic left the core in an unknown state.
const POISONED: u32 = 1;
/// As a fork in the middle of something did.
const LOST: u32 = 2;
pub(super) const REAL_TIME: i64 = i64::MIN;
pub(super) const UNKNOWN: i64 = i64::MIN;

/// What other threads leave for the loop, and what may be used by both.
#[derive(Default)]
pub(super) struct Gate {
    pub running: bool,
    pub inbox: Vec<Command>,
    /// Records for the watchers that others add.
    pub reserve: Vec<u32>,
    /// The kernel's set; only changed under the lock.
    pub epoll: RawFd,
    /// By handle.
    pub names: HashMap<i64, Box<[u8]>>,
    /// How many times somebody asked for the current callback's end, and up
    /// to which of them the loop has answered.
    pub asked: u64,
    pub answered: u64,
}

static DESKS: ForkMutex<Desks> =
    ForkMutex::new(Desks { all: Vec::new(), free: Vec::new(), records: VecDeque::new() });

struct Desks {
    all: Vec<&'static Desk>,
    free: Vec<&'static Desk>,
    /// Free records for loops.
    records: VecDeque<u32>,
}

/// A live handle of a loop or a watcher, and what it leads to.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub record: &'static Record,
    pub desk: &'static Desk,
    pub handle: Handle,
    state: u32,
}

/// What a handle of this kind leads to.
#[inline(always)]
pub(super) fn named(handle: i64, kind: Kind) -> Result<Named> {
    if let Some(wanted) = Handle::unpack_as(handle, kind)
        && let Some(record) = record::get(wanted.index)
    {
        let state = if matches!(kind, Kind::Loop) { LOOP } else { LIVE };
        if record.is(wanted, state)
            && let Some(desk) = record.desk()
        {
            return Ok(Named { record, desk, handle: wanted, state });
        }
    }
    refuse(handle, kind)
}

#[cold]
fn refuse<T>(handle: i64, wanted: Kind) -> Result<T> {
    match table::kind_of_quietly(handle) {
        Some(kind) if kind != wanted => {
            fail!(EDOM, "handle {} is {}, not {}", handle, kind.name(), wanted.name())
        }
        _ => table::stale(handle),
    }
}

/// The same without words for the failure, for signal handlers.
pub(super) fn named_quietly(handle: i64, kind: Kind) -> std::result::Result<Named, Errno> {
    let found = Handle::unpack_as(handle, kind).and_then(|wanted| {
        let record = record::get(wanted.index)?;
        let state = if kind == Kind::Loop { LOOP } else { LIVE };
        let desk = record.desk().filter(|_| record.is(wanted, state))?;
        Some(Named { record, desk, handle: wanted, state })
    });
    match found {
        Some(named) if named.desk.epoch.load(Relaxed) != fork::current() => Err(Errno::ECHILD),
        Some(named) if named.desk.handle.load(Relaxed) == 0 => Err(Errno::ESTALE),
        Some(named) => Ok(named),
        None if table::kind_of_quietly(handle).is_some_and(|other| other != kind) => {
            Err(Errno::EDOM)
        }
        None => Err(Errno::ESTALE),
    }
}

/// Loops and watchers, for the table of all handles.
static OTHERS: table::Others = table::Others { after_fork, kind_of, count, close: close_any };

/// Whether it is a live loop or watcher, and which.
fn kind_of(handle: i64) -> Option<Kind> {
    let wanted = Handle::unpack(handle)?;
    let state = match wanted.kind {
        Kind::Loop => LOOP,
        Kind::Watcher => LIVE,
        _ => return None,
    };
    let record = record::get(wanted.index).filter(|record| record.is(wanted, state))?;
    let open = record.desk()?.handle.load(Relaxed) != 0;
    open.then_some(wanted.kind)
}

/// How many loops, watchers or both are open.
fn count(kind: Option<Kind>) -> i64 {
    let desks = DESKS.lock();
    let open = desks.all.iter().filter(|desk| desk.handle.load(Relaxed) != 0);
    open.map(|desk| match kind {
        Some(Kind::Loop) => 1,
        Some(Kind::Watcher) => desk.open_watchers(),
        Some(_) => 0,
        None => 1 + desk.open_watchers(),
    })
    .sum()
}

fn close_any(handle: i64) -> Result<()> {
    match Handle::unpack(handle) {
        Some(Handle { kind: Kind::Loop, .. }) => close(handle),
        _ => super::watcher::watcher_close(handle, false),
    }
}

impl Named {
    /// Does something with the loop: `direct` where it may be touched, on the
    /// thread that runs it or if none does; else `remote`, with the gate.
    #[inline(always)]
    pub fn with<R>(
        &self,
        direct: impl FnOnce(&mut Core) -> Result<R>,
        remote: impl FnOnce(&mut Gate) -> Result<R>,
    ) -> Result<R> {
        if self.desk.is_mine() {
            let _poison = Poison(self.desk);
            // SAFETY: this thread runs the loop, and no reference into the
            // core is kept while a callback, which this call is in, runs.
            let core = unsafe { self.desk.core() }?;
            core.stir();
            if self.desk.has_inbox() {
                // What others asked for before comes before.
                core.receive(&mut self.desk.gate());
                if !self.record.is(self.handle, self.state) {
                    return table::stale(self.handle.pack());
                }
            }
            return direct(core);
        }
        self.with_lock(direct, remote)
    }

    #[inline(never)]
    fn with_lock<R>(
        &self,
        direct: impl FnOnce(&mut Core) -> Result<R>,
        remote: impl FnOnce(&mut Gate) -> Result<R>,
    ) -> Result<R> {
        let mut gate = self.lock()?;
        let _poison = Poison(self.desk);
        if gate.running {
            let ring = self.desk.leave_work();
            let result = remote(&mut gate);
            drop(gate);
            if ring {
                self.desk.ring();
            }
            return result;
        }
        self.with_idle(gate, direct)
    }

    /// The same, of a loop that nobody runs, with its gate's lock.
    pub fn with_idle<R>(
        &self,
        gate: MutexGuard<'static, Gate>,
        direct: impl FnOnce(&mut Core) -> Result<R>,
    ) -> Result<R> {
        let _poison = Poison(self.desk);
        // SAFETY: nobody runs the loop, and this thread has the gate's lock.
        let core = unsafe { self.desk.core() }?;
        let result = direct(core);
        let closed = core.take_destroys();
        // A question changes nothing that the foreign wait should end for.
        let prepared = core.is_prepared() && core.has_news();
        drop(gate);
        notify(closed);
        if prepared {
            self.desk.ring();
        }
        result
    }

    /// Whether it can be used, as far as can be told without the lock.
    #[inline]
    pub fn check(&self) -> Result<()> {
        table::epoch();
        if self.desk.handle() == 0 {
            return table::stale(self.handle.pack());
        }
        self.check_ours()
    }

    /// The gate of a loop that is still the one that was named, and ours.
    pub fn lock(&self) -> Result<MutexGuard<'static, Gate>> {
        let gate = self.lock_any()?;
        self.check_ours()?;
        Ok(gate)
    }

    #[inline]
    fn check_ours(&self) -> Result<()> {
        if self.desk.epoch.load(Relaxed) != fork::current() {
            let handle = self.handle.pack();
            fail!(ECHILD, "handle {} is {} of the parent process", handle, self.handle.kind.name());
        }
        if self.desk.state.load(Relaxed) & POISONED != 0 {
            let handle = self.handle.pack();
            fail!(ENOTRECOVERABLE, "handle {} was left unusable by a bug of the library", handle);
        }
        Ok(())
    }

    /// The same, of a parent's or a broken one too: for closing.
    pub fn lock_any(&self) -> Result<MutexGuard<'static, Gate>> {
        table::epoch();
        let gate = self.desk.gate.lock();
        let closed = self.desk.handle.load(Relaxed) == 0;
        if closed || !self.record.is(self.handle, self.state) {
            return table::stale(self.handle.pack());
        }
        Ok(gate)
    }
}

/// Marks a loop whose core a panic left as it happened to be.
struct Poison(&'static Desk);

impl Drop for Poison {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.fetch_or(POISONED, Relaxed);
        }
    }
}

/// Tells the program of watchers that are closed; no lock is held.
pub(super) fn notify(closed: Vec<(Target, Event)>) {
    for (target, event) in closed {
        if let Some(callback) = target.callback {
            // SAFETY: the program's function and argument, as it promised.
            unsafe { callback(&event, target.user_data) };
        }
    }
}

impl Desk {
    fn new() -> Self {
        Self {
            thread: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            attention: AtomicU32::new(0),
            mail: Mailbox::new(),
            handle: AtomicI64::new(0),
            state: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            virtual_now: AtomicI64::new(REAL_TIME),
            time: AtomicI64::new(UNKNOWN),
            clocks: AtomicU32::new(0),
            watchers: AtomicI64::new(0),
            others: AtomicI64::new(0),
            eventfd: AtomicI32::new(-1),
            ringing: AtomicU32::new(0),
            gate: ForkMutex::new(Gate::default()),
            answered: Condvar::new(),
            core: UnsafeCell::new(None),
        }
    }

    /// Whether this thread runs the loop.
    #[inline(always)]
    pub fn is_mine(&self) -> bool {
        self.thread.load(Relaxed) == thread::current()
            && self.epoch.load(Relaxed) == fork::current()
    }

    /// The same, if one look tells; for the quick ways.
    #[inline(always)]
    pub fn is_surely_mine(&self) -> bool {
        self.thread.load(Relaxed) == thread::current() && fork::is_surely(self.epoch.load(Relaxed))
    }

    /// Whether its loop is open, and this process's.
    #[inline(always)]
    pub fn is_usable(&self) -> bool {
        self.handle() != 0 && self.epoch.load(Relaxed) == fork::current()
    }

    /// Whether others have left something that comes before what is done now.
    #[inline(always)]
    pub fn has_inbox(&self) -> bool {
        self.mail.peek() & mailbox::INBOX != 0
    }

    /// The loop itself.
    ///
    /// # Safety
    /// The caller runs the loop, or holds the gate's lock while nobody does;
    /// and no other reference to the core is in use, nor is this one kept
    /// while a callback runs.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn core(&self) -> Result<&mut Core> {
        // SAFETY: this function's contract.
        match self.core.with_mut(|core| unsafe { (*core).as_deref_mut() }) {
            Some(core) => Ok(core),
            None => table::stale(self.handle.load(Relaxed)),
        }
    }

    #[inline(always)]
    pub fn handle(&self) -> i64 {
        self.handle.load(Relaxed)
    }

    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock()
    }

    /// Adds to the number of open watchers; for who may change the loop.
    #[inline(always)]
    pub fn count(&self, change: i64) {
        self.watchers.store(self.watchers.load(Relaxed) + change, Relaxed);
    }

    /// The same, for others.
    pub fn count_from_outside(&self, change: i64) {
        self.others.fetch_add(change, Relaxed);
    }

    fn open_watchers(&self) -> i64 {
        self.watchers.load(Relaxed) + self.others.load(Relaxed)
    }

    /// Wakes the loop. A signal handler may do this.
    pub fn ring(&self) {
        // Against `silence`: it either sees us here, or we see no eventfd.
        self.ringing.fetch_add(1, SeqCst);
        let eventfd = self.eventfd.load(SeqCst);
        if eventfd >= 0 {
            let errno_before = SavedErrno::now();
            eventfd::signal(eventfd);
            errno_before.restore();
        }
        self.ringing.fetch_sub(1, Release);
    }

    /// Nobody writes to the eventfd any more: it can be closed.
    fn silence(&self) {
        self.eventfd.store(-1, SeqCst);
        // A write to an eventfd that does not block: very short.
        while self.ringing.load(SeqCst) != 0 {
            std::thread::yield_now();
        }
    }

    /// The eventfd that wakes it; while it is open, whoever asks.
    pub fn eventfd(&self) -> RawFd {
        self.eventfd.load(Relaxed)
    }

    /// Answers those who wait for the end of the current callback.
    pub fn answer(&self, gate: &mut Gate) {
        gate.answered = gate.asked;
        self.answered.notify_all();
    }

    /// Whether it is a loop of the parent process, that nobody revived.
    pub fn is_inherited(&self) -> bool {
        self.epoch.load(Relaxed) != fork::current()
    }

    /// Says that there is something at the gate, whose lock is held; true:
    /// the caller has to ring once it is there.
    #[must_use]
    pub fn leave_work(&self) -> bool {
        self.mail.leave(self.handle(), mailbox::INBOX) == Some(true)
    }

    /// Waits until the callback that is running, if any, has returned.
    /// `ring`: the loop has to be woken first.
    pub fn await_callback(&'static self, mut gate: MutexGuard<'static, Gate>, ring: bool) {
        gate.asked += 1;
        let ticket = gate.asked;
        let ring = self.mail.leave(self.handle(), mailbox::ASKED) == Some(true) || ring;
        // After that: who sees this finds the question.
        self.attention.store(1, Release);
        if ring {
            self.ring();
        }
        let epoch = fork::current();
        while gate.answered < ticket && fork::current() == epoch {
            gate = self.answered.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A run of a loop on this thread; ends when it is dropped.
pub(super) struct Run {
    pub desk: &'static Desk,
    named: Named,
    /// The desk's, which stays there while this exists.
    core: NonNull<Core>,
    forks: Cell<fork::Watch>,
}

impl Run {
    pub fn begin(named: Named) -> Result<Self> {
        let desk = named.desk;
        if desk.is_mine() {
            fail!(EBUSY, "loop {} is running: this is one of its callbacks", named.handle.pack());
        }
        let mut gate = named.lock()?;
        if gate.running {
            fail!(EBUSY, "loop {} is running in another thread", named.handle.pack());
        }
        // SAFETY: nobody runs the loop, and this thread has the gate's lock.
        let core = unsafe { desk.core() }?;
        core.receive(&mut gate);
        let core = NonNull::from(core);
        gate.running = true;
        desk.thread.store(thread::current(), Relaxed);
        Ok(Self { desk, named, core, forks: Cell::new(fork::Watch::begin()) })
    }

    /// The loop itself, until the next callback.
    ///
    /// # Safety
    /// No other reference to the core is in use.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn core(&self) -> &mut Core {
        let mut core = self.core;
        // SAFETY: this thread runs the loop; else as this function's.
        unsafe { core.as_mut() }
    }

    /// Whether there is something to be done before the next callback.
    #[inline(always)]
    pub fn is_attention_due(&self) -> bool {
        self.desk.attention.load(Relaxed) != 0 || self.forks.get().has_forked()
    }

    /// Whether the loop is still to be run by this thread, in this process;
    /// to be asked after user code ran.
    #[inline]
    pub fn check(&self) -> Result<()> {
        self.check_process()?;
        if self.is_closed() {
            fail!(ESTALE, "loop {} was closed during its run", self.named.handle.pack());
        }
        Ok(())
    }

    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.desk.epoch.load(Relaxed) != fork::current() {
            let handle = self.named.handle.pack();
            fail!(ECHILD, "a callback of loop {} forked, and this is the child", handle);
        }
        if self.forks.get().has_forked() {
            self.forks.set(fork::Watch::begin());
        }
        Ok(())
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.desk.mail.peek() & mailbox::CLOSED != 0
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.desk.epoch.load(Relaxed) != fork::current() {
            // A child in which nobody revived the loop. Should somebody yet,
            // nobody runs it.
            table::epoch();
            let mut gate = self.desk.gate();
            gate.running = false;
            self.desk.thread.store(0, Relaxed);
            // SAFETY: the run is over, and this thread has the gate's lock.
            unsafe { self.core() }.in_callback = false;
            return;
        }
        if std::thread::panicking() {
            self.desk.state.fetch_or(POISONED, Relaxed);
        }
        let mut gate = self.desk.gate();
        self.desk.time.store(UNKNOWN, Relaxed);
        self.desk.thread.store(0, Relaxed);
        gate.running = false;
        self.desk.answer(&mut gate);
        // SAFETY: the run is over, and this thread has the gate's lock.
        let core = unsafe { self.core() };
        core.receive(&mut gate);
        if self.is_closed() {
            return notify(tear_down(self.desk, gate));
        }
        let closed = core.take_destroys();
        drop(gate);
        notify(closed);
    }
}

/// A new loop; its handle.
pub(super) fn open(make: impl FnOnce(&'static Desk) -> Result<Box<Core>>) -> Result<i64> {
    let epoch = table::epoch();
    table::set_others(&OTHERS);
    let (desk, index) = take()?;
    let core = match make(desk) {
        Ok(core) => core,
        Err(error) => {
            give_back(desk, index);
            return Err(error);
        }
    };
    let Some(record) = record::get(index) else { return table::stale(0) };
    let handle = record.handle(Kind::Loop, index);
    let mut gate = desk.gate();
    gate.epoll = core.epoll();
    desk.eventfd.store(core.eventfd(), SeqCst);
    desk.epoch.store(epoch, Relaxed);
    desk.state.store(0, Relaxed);
    desk.attention.store(0, Relaxed);
    desk.time.store(UNKNOWN, Relaxed);
    desk.virtual_now.store(if core.is_virtual() { 0 } else { REAL_TIME }, Relaxed);
    // SAFETY: the desk is nobody's yet.
    desk.core.with_mut(|place| unsafe { *place = Some(core) });
    desk.mail.assign(handle);
    desk.handle.store(handle, Relaxed);
    drop(gate);
    record.set_desk(desk);
    record.set_state(LOOP);
    Ok(handle)
}

/// A desk that is not in use, and a record for its loop.
fn take() -> Result<(&'static Desk, u32)> {
    let mut desks = DESKS.lock();
    if desks.records.is_empty() {
        if desks.records.try_reserve(record::PER_BLOCK as usize).is_err() {
            fail!(ENOMEM, "no memory for a loop");
        }
        let first = record::take_block()? * record::PER_BLOCK;
        desks.records.extend(first + 1..first + record::PER_BLOCK);
    }
    if desks.free.is_empty() {
        // Room to give it back, too.
        let all = desks.all.len();
        let room = desks.all.try_reserve(1).is_ok() && desks.free.try_reserve(all + 1).is_ok();
        let records = desks.records.try_reserve(1).is_ok();
        let fresh = if room && records { table::try_box(Desk::new()) } else { None };
        let Some(fresh) = fresh else { fail!(ENOMEM, "no memory for a loop") };
        let fresh: &'static Desk = Box::leak(fresh);
        desks.all.push(fresh);
        desks.free.push(fresh);
    }
    match (desks.free.pop(), desks.records.pop_front()) {
        (Some(desk), Some(index)) => Ok((desk, index)),
        _ => fail!(ENOMEM, "no memory for a loop"),
    }
}

fn give_back(desk: &'static Desk, index: u32) {
    let mut desks = DESKS.lock();
    desks.free.push(desk);
    if record::get(index).is_some_and(|record| !record.is_worn_out()) {
        desks.records.push_back(index);
    }
}

/// Closes a loop: now, or when the run that is going on notices.
pub(crate) fn close(handle: i64) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    let desk = named.desk;
    let mut gate = named.lock_any()?;
    if desk.epoch.load(Relaxed) != fork::current() {
        abandon(&named, gate);
        return Ok(());
    }
    if !gate.running {
        // SAFETY: nobody runs the loop, and this thread has the gate's lock.
        if let Ok(core) = unsafe { desk.core() }
            && desk.state.load(Relaxed) == 0
        {
            core.receive(&mut gate);
        }
        named.record.free();
        notify(tear_down(desk, gate));
        return Ok(());
    }
    let ring = desk.mail.leave(handle, mailbox::CLOSED);
    named.record.free();
    // From now on nothing finds it, its watchers neither.
    desk.handle.store(0, Relaxed);
    desk.thread.store(0, Relaxed);
    desk.attention.store(1, Relaxed);
    drop(gate);
    if ring == Some(true) {
        desk.ring();
    }
    Ok(())
}

/// Frees a closed loop, whose record is free already; whom to tell.
fn tear_down(desk: &'static Desk, mut gate: MutexGuard<'static, Gate>) -> Vec<(Target, Event)> {
    let index = Handle::unpack(desk.mail.owner()).map_or(0, |handle| handle.index);
    desk.handle.store(0, Relaxed);
    desk.mail.assign(0);
    drop(desk.mail.take_letters(0));
    desk.silence();
    // SAFETY: no run, and this thread has the gate's lock.
    let core = desk.core.with_mut(|core| unsafe { (*core).take() });
    let poisoned = desk.state.load(Relaxed) != 0;
    let (asked, answered) = (gate.asked, gate.answered);
    let before = std::mem::replace(&mut *gate, Gate { asked, answered, ..Gate::default() });
    desk.watchers.store(0, Relaxed);
    desk.others.store(0, Relaxed);
    desk.clocks.store(0, Relaxed);
    let closed = match core {
        // Nothing in it can be relied on.
        Some(core) if poisoned => {
            core.abandon();
            std::mem::forget(core);
            Vec::new()
        }
        Some(core) => core.tear_down(),
        None => Vec::new(),
    };
    drop(gate);
    drop(before);
    give_back(desk, index);
    closed
}

/// Closes a loop of the parent process, in a child: its descriptors here,
/// and no more, since it may be in the middle of something.
fn abandon(named: &Named, mut gate: MutexGuard<'static, Gate>) {
    let desk = named.desk;
    named.record.free();
    desk.handle.store(0, Relaxed);
    desk.mail.assign(0);
    // SAFETY: no other thread of this process uses the parent's loop.
    if let Ok(core) = unsafe { desk.core() } {
        core.abandon();
    }
    gate.names = HashMap::new();
}

/// Makes a loop of the parent process this one's.
pub(crate) fn revive(handle: i64) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    let desk = named.desk;
    let mut gate = named.lock_any()?;
    let epoch = fork::current();
    if desk.epoch.load(Relaxed) == epoch {
        return Ok(());
    }
    if desk.state.load(Relaxed) != 0 {
        fail!(EBUSY, "loop {} was in use by another thread when the process forked", handle);
    }
    // SAFETY: no other thread of this process uses the loop yet, and this one
    // has the gate's lock; where it forked in a callback no reference is kept.
    let core = unsafe { desk.core() }?;
    core.revive(&mut gate)?;
    desk.eventfd.store(core.eventfd(), SeqCst);
    gate.epoll = core.epoll();
    if gate.running {
        desk.thread.store(thread::current(), Relaxed);
    }
    desk.epoch.store(epoch, Relaxed);
    Ok(())
}

/// Sets everything right in a forked child: only this thread exists.
fn after_fork() {
    // SAFETY: the first call of a child: nobody else is in the library.
    unsafe { record::after_fork() };
    let mut lost = false;
    let keep = |desks: Option<&mut Desks>| match desks {
        Some(_) => None,
        None => {
            // A loop was being made or closed. The list of those there are is
            // somewhere in the middle of that: they are not looked for.
            lost = true;
            Some(Desks { all: Vec::new(), free: Vec::new(), records: VecDeque::new() })
        }
    };
    // SAFETY: as above.
    unsafe { DESKS.recover(keep) };
    if lost {
        return;
    }
    for desk in &DESKS.lock().all {
        desk.after_fork();
    }
}

impl Desk {
    fn after_fork(&self) {
        self.ringing.store(0, Relaxed);
        let forked_in_callback = self.thread.load(Relaxed) == thread::current();
        let waited = self.waiting.swap(0, Relaxed) != 0;
        let mut lost = false;
        let mend = |gate: Option<&mut Gate>| match gate {
            Some(gate) => {
                if gate.running && !forked_in_callback {
                    // Between two waits its state was anything.
                    lost = !waited;
                    gate.running = false;
                    gate.answered = gate.asked;
                }
                None
            }
            None => {
                lost = true;
                Some(Gate::default())
            }
        };
        // SAFETY: the first call of a child: nobody else is in the library.
        unsafe { self.gate.recover(mend) };
        if lost {
            self.state.fetch_or(LOST, Relaxed);
        }
        if !forked_in_callback {
            self.thread.store(0, Relaxed);
        }
    }
}
