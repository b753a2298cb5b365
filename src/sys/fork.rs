//! Noticing that the process is a forked child.
//!
//! The current epoch stands in a page that the kernel empties in a child
//! (MADV_WIPEONFORK), so that noticing costs one load, whatever code forked,
//! and by whatever means. Where there is no such page, the process id is
//! compared.

use super::{futex, syscall};
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use once_cell::race::OnceNonZeroUsize;
use std::num::NonZeroUsize;
use std::ptr;

/// Numbers the processes of a line of forks; above [`BUSY`].
pub(crate) type Epoch = u64;

/// The page is new, or wiped: nothing was done yet in this process.
const WIPED: u64 = 0;
/// One thread is doing what a fork asks for.
const BUSY: u64 = 1;

/// Stands in for the page where there can be none.
static NO_PAGE: AtomicU64 = AtomicU64::new(WIPED);
/// The address of the page, or of NO_PAGE. Decided once for a process and its
/// children: a page that came later would be taken for a wiped one. Raced,
/// not locked: a fork in the middle must not leave a lock behind.
static PAGE: OnceNonZeroUsize = OnceNonZeroUsize::new();
/// The epoch of this process or, in a child that was not noticed yet, of its
/// parent; 1: none.
static EPOCH: AtomicU64 = AtomicU64::new(1);

#[inline]
fn page() -> &'static AtomicU64 {
    let address = match PAGE.get() {
        Some(address) => address,
        None => make_page(),
    };
    let page = ptr::with_exposed_provenance::<AtomicU64>(address.get());
    // SAFETY: NO_PAGE, or a page that is never unmapped.
    unsafe { &*page }
}

fn is_by_pid(page: &AtomicU64) -> bool {
    ptr::eq(page, &NO_PAGE)
}

/// The epoch, after `recover` was run if this is the first call in a child.
///
/// `recover` runs while every other thread of the process waits here.
#[inline]
pub(crate) fn epoch(recover: fn()) -> Epoch {
    // Acquire: sees what `recover` did, when another thread ran it.
    let epoch = page().load(Ordering::Acquire);
    if epoch > BUSY { epoch } else { notice(recover) }
}

/// The epoch, or something else in a child that was not noticed yet.
#[inline]
pub(crate) fn current() -> Epoch {
    match page().load(Ordering::Relaxed) {
        WIPED if is_by_pid(page()) => by_pid(),
        epoch => epoch,
    }
}

/// Whether this is that epoch, as far as one load shows: false may also mean
/// that more than one load is needed.
#[inline(always)]
pub(crate) fn is_current_fast(epoch: Epoch) -> bool {
    let Some(address) = PAGE.get() else { return false };
    let page = ptr::with_exposed_provenance::<AtomicU64>(address.get());
    // SAFETY: as in `page`.
    let seen = unsafe { &*page }.load(Ordering::Relaxed);
    seen == epoch && seen != WIPED
}

/// Watches for forks, from the process that it was made in.
#[derive(Clone, Copy)]
pub(crate) struct ForkWatch {
    page: &'static AtomicU64,
    epoch: Epoch,
}

impl ForkWatch {
    pub fn begin() -> Self {
        Self { page: page(), epoch: current() }
    }

    /// Whether this is a child of that process.
    #[inline(always)]
    pub fn has_forked(&self) -> bool {
        let seen = self.page.load(Ordering::Relaxed);
        seen != self.epoch && (!is_by_pid(self.page) || by_pid() != self.epoch)
    }
}

#[cold]
fn notice(recover: fn()) -> Epoch {
    let page = page();
    if is_by_pid(page) {
        return notice_by_pid(recover);
    }
    loop {
        // Acquire: as in `epoch`.
        match page.compare_exchange(WIPED, BUSY, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                let epoch = EPOCH.fetch_add(1, Ordering::Relaxed) + 1;
                if epoch > FIRST {
                    recover();
                }
                // Release: the others see what `recover` did.
                page.store(epoch, Ordering::Release);
                futex::wake_all(low_half(page.as_ptr()));
                return epoch;
            }
            Err(BUSY) => futex::wait(low_half(page.as_ptr()), BUSY as u32),
            Err(epoch) => return epoch,
        }
    }
}

/// The half of a word that a thread can sleep on while another one recovers:
/// it differs then from what it is afterwards.
fn low_half<T>(word: *mut T) -> *const u32 {
    let half = if cfg!(target_endian = "big") { 1 } else { 0 };
    word.cast::<u32>().wrapping_add(half)
}

/// The epoch of the process that made the first call.
const FIRST: Epoch = 2;

/// Maps the page, or decides to do without; the address that counts.
#[cold]
fn make_page() -> NonZeroUsize {
    let mapped = map_page();
    let ours = mapped.and_then(NonZeroUsize::new);
    let none = NonZeroUsize::new((&raw const NO_PAGE).expose_provenance());
    let decided = PAGE.get_or_init(|| ours.or(none).unwrap_or(NonZeroUsize::MIN));
    if let Some(address) = mapped
        && ours != Some(decided)
    {
        // SAFETY: another thread's page is the one in use; no other thread
        // knows this one.
        let _ = unsafe { syscall!(SYS_munmap, address, size_of::<AtomicU64>()) };
    }
    decided
}

/// A page that a fork empties, if that can be had.
fn map_page() -> Option<usize> {
    // SAFETY: an anonymous mapping anywhere.
    let map = unsafe {
        syscall!(
            SYS_mmap,
            0,
            size_of::<AtomicU64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1isize,
            0,
        )
    };
    let address = map.ok()?;
    // SAFETY: the mapping that was just made, rounded up to a page.
    let wipe =
        unsafe { syscall!(SYS_madvise, address, size_of::<AtomicU64>(), libc::MADV_WIPEONFORK) };
    if wipe.is_err() {
        // SAFETY: as above, and no other thread knows it.
        let _ = unsafe { syscall!(SYS_munmap, address, size_of::<AtomicU64>()) };
        return None;
    }
    Some(address)
}

/// The process that EPOCH is of, for [`notice_by_pid`]; negative while one
/// thread recovers.
static PROCESS: AtomicI64 = AtomicI64::new(0);

fn process() -> i64 {
    i64::from(std::process::id())
}

fn by_pid() -> Epoch {
    let same = PROCESS.load(Ordering::Acquire) == process();
    if same { EPOCH.load(Ordering::Relaxed) } else { WIPED }
}

/// What `epoch` does where there is no page.
fn notice_by_pid(recover: fn()) -> Epoch {
    let me = process();
    loop {
        // Acquire: as in `epoch`.
        let known = PROCESS.load(Ordering::Acquire);
        if known == me {
            return EPOCH.load(Ordering::Relaxed);
        }
        if known == -me {
            futex::wait(low_half(PROCESS.as_ptr()), known as u32);
        } else if PROCESS.compare_exchange(known, -me, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            let epoch = EPOCH.fetch_add(1, Ordering::Relaxed) + 1;
            if epoch > FIRST {
                recover();
            }
            // Release: as in `notice`.
            PROCESS.store(me, Ordering::Release);
            futex::wake_all(low_half(PROCESS.as_ptr()));
        }
    }
}
