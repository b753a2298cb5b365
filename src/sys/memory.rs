//! Pages of memory that are never unmapped.

use super::syscall;
use crate::errno::Errno;

/// The size of a huge page, on most machines.
const HUGE_PAGE: usize = 2 << 20;

/// Fresh pages, all zero.
pub(crate) fn map(bytes: usize) -> Result<*mut u8, Errno> {
    // SAFETY: an anonymous mapping anywhere.
    let address = unsafe {
        syscall!(
            SYS_mmap,
            0,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1isize,
            0,
        )
    }?;
    if bytes >= HUGE_PAGE {
        // A hint: what is spread over so much is found with fewer misses of
        // the address cache. Not every kernel has them.
        // SAFETY: the mapping of above; its contents stay.
        let _ = unsafe { syscall!(SYS_madvise, address, bytes, libc::MADV_HUGEPAGE) };
    }
    Ok(std::ptr::with_exposed_provenance_mut(address))
}

/// Gives the memory of pages back; true: they are zero from now on.
///
/// # Safety
/// `start` and `bytes` are pages that [`map`] made. No thread may need their
/// contents, and threads may only access them as atomics.
pub(crate) unsafe fn wipe(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: pages of ours, whose contents may go.
    unsafe { syscall!(SYS_madvise, start.expose_provenance(), bytes, libc::MADV_DONTNEED) }.is_ok()
}

/// Prefetches a value into the processor's caches.
#[inline]
pub(crate) fn prefetch<T>(index: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; any address will do.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(index).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = index;
}

/// The same for all of what is there, not only its first 64 bytes.
#[inline]
pub(crate) fn prefetch_all<T>(index: &T) {
    let start = std::ptr::from_ref(index).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(64) {
        let address = start.wrapping_add(line);
        // SAFETY: inside the place.
        prefetch(unsafe { &*address });
    }
}
