//! The only path to locks and atomics: std's, or loom's when it models them.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    },
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{
        AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    },
};

/// loom's cell, so that a model sees who touches the contents when.
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// The same interface over std's cell.
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A fence for loom, which orders sequentially consistent fences but not
/// sequentially consistent accesses; nothing outside of models.
#[inline(always)]
pub(crate) fn model_order() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// A number on which threads can sleep until it changes.
#[cfg(not(loom))]
pub(crate) struct Futex(AtomicU32);

#[cfg(not(loom))]
impl Futex {
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline(always)]
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Sleeps while it has this value; until it is woken, or earlier.
    pub fn wait(&self, expected: u32) {
        crate::sys::futex::wait(self.0.as_ptr(), expected);
    }

    /// Wakes all threads that sleep. A signal handler may do this.
    pub fn wake_all(&self) {
        crate::sys::futex::wake_all(self.0.as_ptr());
    }
}

/// The same for models: as in the kernel, a lock orders looking at the number
/// and waking.
#[cfg(loom)]
pub(crate) struct Futex {
    word: AtomicU32,
    lock: Mutex<()>,
    woken: loom::sync::Condvar,
}

#[cfg(loom)]
impl Futex {
    pub fn new(value: u32) -> Self {
        let (lock, woken) = (Mutex::new(()), loom::sync::Condvar::new());
        Self { word: AtomicU32::new(value), lock, woken }
    }

    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }

    pub fn wait(&self, expected: u32) {
        let locked = self.lock.lock();
        if self.word.load(Ordering::SeqCst) == expected {
            drop(locked.map(|locked| self.woken.wait(locked)));
        }
    }

    pub fn wake_all(&self) {
        let _locked = self.lock.lock();
        self.woken.notify_all();
    }
}

/// What follows this in a `repr(C)` struct begins another cache line; or
/// another pair of lines, which some processors fetch together.
#[repr(align(128))]
pub(crate) struct LineBreak;

/// A mutex that a forked child can replace: the thread that held it at the
/// fork does not exist there and will never unlock it.
pub(crate) struct ForkMutex<T>(UnsafeCell<Mutex<T>>);

// SAFETY: the contents are reached through the mutex, which is Sync for T:
// Send; `remake` has its own contract.
unsafe impl<T: Send> Sync for ForkMutex<T> {}

impl<T> ForkMutex<T> {
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(Mutex::new(value)))
    }

    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self(UnsafeCell::new(Mutex::new(value)))
    }

    /// Locks. A panic of an earlier holder does not matter here: what it
    /// left is checked by the poisoning of the object.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: the mutex is only replaced while no other thread is here
        // (contract of `remake`), and lives as long as `self`.
        let mutex = self.0.with(|mutex| unsafe { &*mutex });
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Locks, if that needs no waiting.
    #[cfg(not(loom))]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        // SAFETY: as in `lock`.
        let mutex = self.0.with(|mutex| unsafe { &*mutex });
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Sets the contents right, in a forked child: `mend` is given them, or
    /// nothing if a thread may have been changing them; what it returns then
    /// takes their place.
    ///
    /// # Safety
    /// As [`Self::remake`].
    #[cfg(not(loom))]
    pub unsafe fn recover(&self, mend: impl FnOnce(Option<&mut T>) -> Option<T>) {
        // SAFETY: it lives as long as `self`, and no other thread replaces it
        // (this function's contract).
        let mutex = self.0.with(|mutex| unsafe { &*mutex });
        if let Ok(mut contents) = mutex.try_lock() {
            if let Some(other) = mend(Some(&mut contents)) {
                *contents = other;
            }
            return;
        }
        let Some(value) = mend(None) else { return };
        self.0.with_mut(|mutex| {
            // SAFETY: no other thread uses it (this function's contract), and
            // the old value is not dropped by `write`.
            unsafe { mutex.write(Mutex::new(value)) }
        });
    }

    /// Unlocks it and gives it other contents. Old contents that a thread was
    /// changing, and that may be half changed, are forgotten.
    ///
    /// # Safety
    /// No other thread may be using it, and the caller must not hold it: the
    /// first call of the library in a forked child.
    pub unsafe fn remake(&self, value: T) {
        // SAFETY: it lives as long as `self`, and no other thread replaces it
        // (this function's contract).
        let mutex = self.0.with(|mutex| unsafe { &*mutex });
        if let Ok(mut contents) = mutex.try_lock() {
            *contents = value;
            return;
        }
        self.0.with_mut(|mutex| {
            // SAFETY: no other thread uses it (this function's contract), and
            // the old value is not dropped by `write`.
            unsafe { mutex.write(Mutex::new(value)) }
        });
    }
}
