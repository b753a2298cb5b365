//! What each thread has of its own and gives back when it ends.
//!
//! A `thread_local!` with a destructor needs memory when it is first used,
//! and the C library ends the process where there is none. A key of
//! pthread_key_create(3) reports it instead.

use crate::sync::{AtomicU64, Ordering::*};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

/// One value of type `T` a thread, if that has set one; dropped when the
/// thread ends.
pub(crate) struct PerThread<T: 'static> {
    /// The key, plus one; 0: it was not made yet.
    key: AtomicU64,
    value: PhantomData<fn(T) -> T>,
}

impl<T: 'static> PerThread<T> {
    pub const fn new() -> Self {
        Self { key: AtomicU64::new(0), value: PhantomData }
    }

    /// Looks at the calling thread's value, or at the lack of one. `look`
    /// must not set or take it.
    pub fn with<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        // SAFETY: null, or a value that `set` stored and that was not taken:
        // only this thread can take it, and `look` does not.
        look(unsafe { self.get().as_ref() })
    }

    /// Gives the calling thread a value; the one before is dropped. False:
    /// there is no memory for that.
    #[must_use]
    pub fn set(&self, value: Box<T>) -> bool {
        let Some(key) = self.key() else { return false };
        drop(self.take());
        let value = Box::into_raw(value);
        // SAFETY: a key of ours, whose destructor takes such a pointer.
        let stored = unsafe { libc::pthread_setspecific(key, value.cast()) } == 0;
        if !stored {
            // SAFETY: made of a box above, and not stored.
            drop(unsafe { Box::from_raw(value) });
        }
        stored
    }

    /// Takes the calling thread's value away.
    pub fn take(&self) -> Option<Box<T>> {
        let key = self.known_key()?;
        let value = self.get();
        if value.is_null() {
            return None;
        }
        // SAFETY: a key of ours. What is set already can be set to null: that
        // needs no memory.
        unsafe { libc::pthread_setspecific(key, ptr::null()) };
        // SAFETY: made of a box by `set`, and stored no more.
        Some(unsafe { Box::from_raw(value) })
    }

    fn get(&self) -> *mut T {
        match self.known_key() {
            // SAFETY: a key of ours.
            Some(key) => unsafe { libc::pthread_getspecific(key) }.cast(),
            None => ptr::null_mut(),
        }
    }

    fn known_key(&self) -> Option<libc::pthread_key_t> {
        let key = self.key.load(Relaxed).checked_sub(1)?;
        libc::pthread_key_t::try_from(key).ok()
    }

    fn key(&self) -> Option<libc::pthread_key_t> {
        if let Some(key) = self.known_key() {
            return Some(key);
        }
        let mut fresh = 0;
        // SAFETY: `fresh` is writable, and `drop_value` takes what `set`
        // stores. The library is never unloaded.
        if unsafe { libc::pthread_key_create(&raw mut fresh, Some(drop_value::<T>)) } != 0 {
            return None;
        }
        // Raced, not locked: a fork in the middle must not leave a lock.
        if self.key.compare_exchange(0, u64::from(fresh) + 1, Relaxed, Relaxed).is_err() {
            // SAFETY: made above, and no value was stored under it.
            unsafe { libc::pthread_key_delete(fresh) };
        }
        self.known_key()
    }
}

/// A thread has ended.
unsafe extern "C" fn drop_value<T>(value: *mut c_void) {
    // SAFETY: made of a box by `set`; the C library has forgotten it.
    drop(unsafe { Box::from_raw(value.cast::<T>()) });
}

const _: () = assert!(size_of::<libc::pthread_key_t>() == size_of::<c_int>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicUsize;

    static DROPS: AtomicUsize = AtomicUsize::new(0);

    struct Counted(u32);

    impl Drop for Counted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_value_goes_with_its_thread_and_is_seen_by_no_other() {
        static VALUE: PerThread<Counted> = PerThread::new();
        assert!(VALUE.take().is_none());
        assert!(VALUE.set(Box::new(Counted(1))));
        std::thread::spawn(|| {
            assert!(VALUE.with(|value| value.is_none()));
            assert!(VALUE.set(Box::new(Counted(2))));
            assert!(VALUE.set(Box::new(Counted(3))));
            assert_eq!(DROPS.load(Relaxed), 1);
            assert_eq!(VALUE.with(|value| value.map(|value| value.0)), Some(3));
        })
        .join()
        .unwrap();
        assert_eq!(DROPS.load(Relaxed), 2);
        assert_eq!(VALUE.take().map(|value| value.0), Some(1));
    }
}
