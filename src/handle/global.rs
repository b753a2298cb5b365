//! The one table of the process, and what its objects have to be.

use super::bits;
pub(crate) use super::bits::Kind;
use super::slots::{LastRef, LookupError, Pin, Table};
use crate::errno::{Result, fail};
use crate::sync::{AtomicPtr, Ordering};
use crate::sys::fork;
pub(crate) use crate::util::try_box;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// What the table asks of every object.
pub(crate) trait TableObject: Send + Sync {
    /// It was closed while other threads are in calls with it: make those
    /// that wait come back.
    fn closing(&self);

    /// Its descriptor, or -1: the same as long as it lives.
    fn descriptor(&self) -> RawFd {
        -1
    }

    /// Whether a forked child may go on using it.
    fn survives_fork(&self) -> bool;

    /// First call in a forked child; no other thread is in the library.
    /// Locks that another thread held at the fork must be initialized again.
    fn after_fork(&self) {}

    /// It was closed, but its memory has to stay: give back what else it
    /// holds. Neither used nor dropped afterwards.
    fn abandon(&self);
}

/// A type of object.
///
/// # Safety
/// No two types may have the same kind: a payload of a slot is taken for the
/// type that its kind names.
pub(crate) unsafe trait Object: TableObject + Sized + 'static {
    const KIND: Kind;
}

type Payload = Box<dyn TableObject>;

static TABLE: Table<Payload> = Table::new();

/// Objects that have handles but are kept elsewhere, by what lies above this
/// module and uses it.
pub(crate) struct ExternalObjects {
    /// Runs in the first call of a forked child, while no other thread is in
    /// the library.
    pub after_fork: fn(),
    pub kind_of: fn(i64) -> Option<Kind>,
    /// How many are open, if they are of theirs.
    pub count: fn(Option<Kind>) -> i64,
    pub close: fn(i64) -> Result<()>,
}

static EXTERNAL_OBJECTS: AtomicPtr<ExternalObjects> = AtomicPtr::new(std::ptr::null_mut());

/// What else has something to set right in a forked child. Each has a place of
/// its own, so that none is dropped for want of one.
#[derive(Clone, Copy)]
pub(crate) enum ForkHook {
    Signals,
    Kqueues,
}

const FORK_HOOKS: usize = 2;
static FORK_HOOK: [AtomicPtr<()>; FORK_HOOKS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; FORK_HOOKS];

impl ForkHook {
    fn slot(self) -> &'static AtomicPtr<()> {
        let [signals, kqueues] = &FORK_HOOK;
        match self {
            Self::Signals => signals,
            Self::Kqueues => kqueues,
        }
    }
}

/// Has a function run in the first call of a forked child, after the table was
/// set right, while no other thread is in the library; the same one each time.
pub(crate) fn set_fork_hook(hook: ForkHook, run: fn()) {
    // Release: with what it uses.
    hook.slot().store(run as *mut (), Ordering::Release);
}

fn run_fork_hooks() {
    for slot in &FORK_HOOK {
        let run = slot.load(Ordering::Acquire);
        // SAFETY: null, or a function that `set_fork_hook` stored.
        if let Some(run) = unsafe { std::mem::transmute::<*mut (), Option<fn()>>(run) } {
            run();
        }
    }
}

fn external() -> Option<&'static ExternalObjects> {
    // SAFETY: null, or a static that `set_external_objects` stored.
    unsafe { EXTERNAL_OBJECTS.load(Ordering::Acquire).as_ref() }
}

/// Makes others known; the same ones each time.
pub(crate) fn set_external_objects(external: &'static ExternalObjects) {
    EXTERNAL_OBJECTS.store(std::ptr::from_ref(external).cast_mut(), Ordering::Release);
}

/// The table, set right if this is the first call in a forked child.
#[inline]
fn table() -> (&'static Table<Payload>, fork::Epoch) {
    let epoch = fork::epoch(|| {
        let inherit = |object: &Payload| {
            object.after_fork();
            !object.survives_fork()
        };
        // SAFETY: `epoch` runs this while all other threads wait for it.
        unsafe { TABLE.after_fork(inherit, |object| object.abandon()) };
        if let Some(external) = external() {
            (external.after_fork)();
        }
        run_fork_hooks();
    });
    (&TABLE, epoch)
}

/// The epoch of this process, for an object that is the process's own.
#[inline]
pub(crate) fn epoch() -> fork::Epoch {
    table().1
}

/// Puts an object in; its handle.
pub(crate) fn insert<T: Object>(object: T) -> Result<i64> {
    insert_box(try_box(object))
}

/// The same of an object that is in a box, if there was memory for one.
pub(crate) fn insert_box<T: Object>(object: Option<Box<T>>) -> Result<i64> {
    let descriptor = object.as_ref().map_or(-1, |object| object.descriptor());
    insert_payload(T::KIND, object.map(|object| object as Payload), descriptor)
}

fn insert_payload(kind: Kind, object: Option<Payload>, descriptor: RawFd) -> Result<i64> {
    match object.map(|object| table().0.insert(kind, object, descriptor)) {
        Some(Ok(handle)) => Ok(handle),
        _ => fail!(ENOMEM, "no memory, or no handle, for {}", kind.name()),
    }
}

/// An object in use; it exists until this is dropped.
pub(crate) struct Pinned<T: Object> {
    pin: ManuallyDrop<Pin<'static, Payload>>,
    epoch: fork::Epoch,
    object: NonNull<T>,
}

// SAFETY: a count in its slot, and a reference to an object that threads share
// (an Object is Send and Sync): any thread may use it, and give it up.
unsafe impl<T: Object> Send for Pinned<T> {}

/// Pins the object that a handle names.
#[inline(always)]
pub(crate) fn pin<T: Object>(handle: i64) -> Result<Pinned<T>> {
    let (table, epoch) = table();
    match table.pin(handle, T::KIND) {
        Ok(pin) => match pin.get() {
            // The kind is T's, so the object is a T (contract of Object).
            Some(object) => {
                let object = NonNull::from(&**object).cast();
                Ok(Pinned { pin: ManuallyDrop::new(pin), epoch, object })
            }
            // Cannot be: what is live has a payload.
            None => lookup_error(LookupError::Poisoned, handle, T::KIND),
        },
        Err(refused) => lookup_error(refused, handle, T::KIND),
    }
}

/// For a fork hook: whether the object that a handle names is this process's.
pub(crate) fn survived<T: Object>(handle: i64) -> bool {
    match TABLE.pin(handle, T::KIND) {
        Ok(pin) => {
            unpin(pin);
            true
        }
        Err(_) => false,
    }
}

/// The descriptor of the object that a handle names.
#[inline]
pub(crate) fn descriptor<T: Object>(handle: i64) -> Result<RawFd> {
    let found = table().0.descriptor(handle, T::KIND);
    found.or_else(|refused| lookup_error(refused, handle, T::KIND))
}

/// Closes the object that a handle names, if it is a `T`.
pub(crate) fn close<T: Object>(handle: i64) -> Result<()> {
    close_kind(handle, Some(T::KIND))
}

/// Closes the object that a handle names, if it is a `T`, and has something
/// done to it before it is gone: of several that close it only the first does.
pub(crate) fn release<T: Object, R>(handle: i64, act: impl FnOnce(&T) -> R) -> Result<R> {
    // An inherited one that is not this process's is refused.
    drop(pin::<T>(handle)?);
    let (pin, in_use) = match table().0.close(handle, Some(T::KIND)) {
        Ok(closed) => closed,
        Err(refused) => return lookup_error(refused, handle, T::KIND),
    };
    let Some(object) = pin.get() else {
        unpin(pin);
        return lookup_error(LookupError::Poisoned, handle, T::KIND);
    };
    // SAFETY: the kind is T's, so the object is a T (contract of Object).
    let result = act(unsafe { NonNull::from(&**object).cast::<T>().as_ref() });
    if in_use {
        object.closing();
    }
    unpin(pin);
    Ok(result)
}

/// Closes the object that a handle names.
pub(crate) fn close_any(handle: i64) -> Result<()> {
    match external() {
        Some(external) if (external.kind_of)(handle).is_some() => (external.close)(handle),
        _ => close_kind(handle, None),
    }
}

#[inline(always)]
fn close_kind(handle: i64, kind: Option<Kind>) -> Result<()> {
    match table().0.close(handle, kind) {
        Ok((pin, in_use)) => {
            if in_use && let Some(object) = pin.get() {
                object.closing();
            }
            unpin(pin);
            Ok(())
        }
        Err(refused) => lookup_error(refused, handle, kind.unwrap_or(Kind::Tfd)),
    }
}

/// The kind of object that a handle names.
pub(crate) fn kind_of(handle: i64) -> Result<Kind> {
    let (table, _) = table();
    match kind_in(table, handle) {
        Some(kind) => Ok(kind),
        None => bits::stale(handle),
    }
}

/// The same, without words for the failure, and safe in signal handlers.
pub(crate) fn kind_of_quietly(handle: i64) -> Option<Kind> {
    kind_in(&TABLE, handle)
}

fn kind_in(table: &Table<Payload>, handle: i64) -> Option<Kind> {
    let elsewhere = || external().and_then(|external| (external.kind_of)(handle));
    table.kind_of(handle).ok().or_else(elsewhere)
}

/// How many objects of a kind are open.
pub(crate) fn count(kind: Kind) -> i64 {
    table().0.open(kind) + external().map_or(0, |external| (external.count)(Some(kind)))
}

/// How many objects are open.
pub(crate) fn count_all() -> i64 {
    table().0.open_all() + external().map_or(0, |external| (external.count)(None))
}

/// The kind with this number.
pub(crate) fn kind_from_code(code: i32) -> Option<Kind> {
    Kind::from_code(u64::try_from(code).ok()?)
}

#[cold]
fn lookup_error<T>(refused: LookupError, handle: i64, wanted: Kind) -> Result<T> {
    let elsewhere = external().and_then(|external| (external.kind_of)(handle));
    match (refused, elsewhere) {
        (LookupError::Stale, None) => bits::stale(handle),
        (LookupError::Kind(kind), _) | (LookupError::Stale, Some(kind)) => {
            fail!(EDOM, "handle {} is {}, not {}", handle, kind.name(), wanted.name())
        }
        (LookupError::Inherited, _) => {
            fail!(ECHILD, "handle {} is {} of the parent process", handle, wanted.name())
        }
        (LookupError::Poisoned, _) => {
            fail!(ENOTRECOVERABLE, "handle {} was left unusable by a bug of the library", handle)
        }
        (LookupError::Full, _) => fail!(ENOMEM, "handle {} is in too many calls at once", handle),
    }
}

impl<T: Object> Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a T, as `pin` has it, that the pin keeps where it is.
        unsafe { self.object.as_ref() }
    }
}

impl<T: Object> Drop for Pinned<T> {
    #[inline(always)]
    fn drop(&mut self) {
        let is_usual = fork::is_current_fast(self.epoch) && !std::thread::panicking();
        if is_usual || self.is_to_be_given_up() {
            // SAFETY: taken once, here.
            unpin(unsafe { ManuallyDrop::take(&mut self.pin) });
        }
    }
}

impl<T: Object> Pinned<T> {
    #[cold]
    fn is_to_be_given_up(&self) -> bool {
        // In a child that this very call came back in, the pins of before
        // the fork are, or will be, forgotten all together.
        let is_ours = fork::current() == self.epoch;
        if is_ours && std::thread::panicking() {
            self.pin.poison();
        }
        is_ours
    }
}

/// Gives up a pin, and drops the object if it was a closed one's last.
#[inline(always)]
fn unpin(pin: Pin<'_, Payload>) {
    if let Some(last) = TABLE.release(pin) {
        dispose(last);
    }
}

#[cold]
fn dispose(last: LastRef<'_, Payload>) {
    drop(TABLE.reclaim(last, |object| object.abandon()));
}
