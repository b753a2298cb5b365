//! Threads: which one this is, in one instruction, or as the kernel knows it;
//! whether there are others; and those that the library starts.

use super::cancel::{self, Uncancelled};
use super::{SavedErrno, file, int, syscall};
use crate::errno::Errno;
use crate::util::try_box;
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// A number that no other living thread of the process has, never 0.
///
/// The thread pointer: the address of the thread's control block. Asking
/// for a `thread_local!` costs a call in a shared library.
#[inline(always)]
pub(crate) fn current() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the ABI has the thread pointer's own address there.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly, pure));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reading this register is allowed to everyone.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem, pure));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[allow(clippy::disallowed_macros)] // it has no destructor
    {
        thread_local!(static HERE: u8 = const { 0 });
        pointer = HERE.try_with(|here| std::ptr::from_ref(here).addr()).unwrap_or(usize::MAX);
    }
    pointer
}

/// Whether the process has no other thread; false where that is not known.
pub(crate) fn is_the_only_one() -> bool {
    // A directory for each, besides the two links of every directory.
    file::stat_path(c"/proc/self/task").is_ok_and(|stat| stat.st_nlink == 3)
}

/// The kernel's number of the calling thread.
pub(crate) fn id() -> i32 {
    // SAFETY: no arguments.
    int(unsafe { syscall!(SYS_gettid) }.unwrap_or(0))
}

/// The kernel's number of the process.
pub(crate) fn process() -> i32 {
    // SAFETY: no arguments.
    int(unsafe { syscall!(SYS_getpid) }.unwrap_or(0))
}

/// The stack of a thread that calls functions of the program's: as much as
/// Rust's own threads have.
pub(crate) const STACK_FOR_CALLBACKS: usize = 2 << 20;
/// The stack of a thread that runs nothing but the library's own code.
pub(crate) const STACK: usize = 128 << 10;
/// A stack holds the program's thread-local variables, too; if those need
/// more, it is made larger, up to this.
const LARGEST_STACK: usize = 256 << 20;

/// A thread of the library's own, to be joined by its owner.
#[must_use]
pub(crate) struct Thread(libc::pthread_t);

// SAFETY: the name of a thread, which any thread may use.
unsafe impl Send for Thread {}

/// What a new thread is to do.
struct Start<F> {
    name: &'static CStr,
    body: F,
}

impl Thread {
    /// Starts a thread with all signals blocked that a program can use, that
    /// cannot be cancelled. The kernel cuts the name to 15 bytes.
    ///
    /// Not by std, which ends the process where there is no memory, and reads
    /// the environment for the size of the stack.
    pub fn start<F>(name: &'static CStr, stack: usize, body: F) -> Result<Self, Errno>
    where
        F: FnOnce() + Send + 'static,
    {
        let start = Box::into_raw(try_box(Start { name, body }).ok_or(Errno::ENOMEM)?);
        // A thread begins with the mask of the one that makes it.
        let before = block_all();
        let mut result = create(stack, run::<F>, start.cast());
        let mut larger = stack;
        while matches!(result, Err(Errno::EINVAL)) && larger < LARGEST_STACK {
            larger *= 4;
            result = create(larger, run::<F>, start.cast());
        }
        set_mask(&before);
        result.inspect_err(|_| {
            // SAFETY: made of a box above; no thread has it.
            drop(unsafe { Box::from_raw(start) });
        })
    }

    /// Waits for its end, without being a cancellation point; a thread that
    /// would wait for itself is let go instead.
    pub fn join(self) {
        // SAFETY: always safe.
        let own = unsafe { libc::pthread_self() };
        // SAFETY: as above.
        if unsafe { libc::pthread_equal(own, self.0) } != 0 {
            // SAFETY: a thread that was neither joined nor detached.
            unsafe { libc::pthread_detach(self.0) };
            return;
        }
        let _uncancelled = Uncancelled::begin();
        // SAFETY: as above.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
    }
}

type StartRoutine = extern "C" fn(*mut c_void) -> *mut c_void;

/// One attempt to make a thread.
fn create(stack: usize, entry: StartRoutine, argument: *mut c_void) -> Result<Thread, Errno> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: room for the attributes.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: initialised above.
    let sized = check(unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack) });
    let mut thread = MaybeUninit::uninit();
    // The C library asserts this where malloc had nothing: not every malloc
    // says it.
    SavedErrno::set(libc::ENOMEM);
    let made = sized.and_then(|()| {
        // SAFETY: room for the thread's name, attributes as above, and a
        // function that takes this argument.
        check(unsafe {
            libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), entry, argument)
        })
    });
    // SAFETY: initialised above, and not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    // SAFETY: filled in by pthread_create, which has succeeded.
    made.map(|()| Thread(unsafe { thread.assume_init() }))
}

fn check(result: c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(Errno::new(result)) }
}

/// What a thread of the library's begins with.
extern "C" fn run<F: FnOnce()>(start: *mut c_void) -> *mut c_void {
    cancel::disable();
    // SAFETY: the box that `start` made for this thread.
    let start = unsafe { Box::from_raw(start.cast::<Start<F>>()) };
    let Start { name, body } = *start;
    // SAFETY: a string that ends with a NUL byte.
    let _ = unsafe { syscall!(SYS_prctl, libc::PR_SET_NAME, name.as_ptr()) };
    // A panic is a bug of ours; the program must not end by it.
    let _ = catch_unwind(AssertUnwindSafe(body));
    ptr::null_mut()
}

/// Blocks all signals but those that the C library keeps for itself: setuid(2)
/// waits for every thread to take one of them. What was blocked before.
fn block_all() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    // SAFETY: room for the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: filled in above.
    set_mask(&unsafe { all.assume_init() })
}

/// Sets what the calling thread blocks; what it blocked before.
fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: a set, and room for another one. No failure is possible.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, before.as_mut_ptr()) };
    // SAFETY: filled in above; and zeros are a set, too.
    unsafe { before.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{AtomicU64, Ordering::Relaxed};
    use crate::sys::signal;
    use crate::util::try_arc::TryArc;

    #[test]
    fn a_thread_runs_with_its_name_and_without_signals() {
        let seen = TryArc::new([AtomicU64::new(0), AtomicU64::new(0)]).unwrap();
        let theirs = seen.clone();
        let before = signal::blocked();
        let thread = Thread::start(c"evloop-test", STACK, move || {
            let [blocked, named] = &*theirs;
            blocked.store(signal::blocked(), Relaxed);
            let mut name = [0; 32];
            let own = file::read_start(c"/proc/thread-self/comm", &mut name).unwrap();
            named.store((own == b"evloop-test\n").into(), Relaxed);
        });
        thread.unwrap().join();
        assert_eq!(signal::blocked(), before);
        let [blocked, named] = &*seen;
        assert_eq!(named.load(Relaxed), 1);
        let blocked = blocked.load(Relaxed);
        for signal in [libc::SIGTERM, libc::SIGRTMIN(), libc::SIGRTMAX()] {
            assert!(blocked & signal::bit(signal) != 0, "{signal}: {blocked:x}");
        }
        // Those of the C library, which setuid needs.
        assert_eq!(blocked & (signal::bit(32) | signal::bit(33)), 0, "{blocked:x}");
    }

    #[test]
    fn a_stack_that_is_too_small_is_made_larger() {
        let thread = Thread::start(c"small", 1, || {});
        assert!(thread.map(Thread::join).is_ok());
    }

    #[test]
    fn a_panic_ends_only_its_thread() {
        let thread = Thread::start(c"panics", STACK_FOR_CALLBACKS, || panic!("on purpose"));
        assert!(thread.map(Thread::join).is_ok());
    }
}
