//! What the program would have done with a signal, and how that is done.

use crate::sync::{AtomicPtr, Ordering};
use crate::sys::SavedErrno;
use crate::sys::signal::{self, Action};
use crate::table::try_box;
use std::ffi::{c_int, c_void};

/// A handler with SA_SIGINFO. One of the program's may be a cancellation point:
/// then its thread is unwound, through ours.
pub(super) type Entry = extern "C-unwind" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// A disposition of the program's; a record is never freed, as a handler may
/// be looking at it.
pub(super) struct Chained {
    pub action: Action,
    next: *const Self,
}

// SAFETY: nothing of it changes once it is shared; what `action` may point to
// is code.
unsafe impl Sync for Chained {}

/// SIG_DFL, which SA_RESETHAND leaves behind.
pub(super) static DEFAULT: Chained = Chained {
    // SAFETY: numbers and a pointer that may be null.
    action: unsafe { std::mem::zeroed() },
    next: std::ptr::null(),
};

/// All others.
static KEPT: AtomicPtr<Chained> = AtomicPtr::new(std::ptr::null_mut());

/// The flags that say how a handler is called.
const HOW: c_int = libc::SA_SIGINFO
    | libc::SA_NODEFER
    | libc::SA_RESETHAND
    | libc::SA_RESTART
    | libc::SA_ONSTACK
    | libc::SA_NOCLDSTOP
    | libc::SA_NOCLDWAIT;

pub(super) fn is_same(a: &Action, b: &Action) -> bool {
    a.sa_sigaction == b.sa_sigaction
        && a.sa_flags & HOW == b.sa_flags & HOW
        && signal::mask_of(a) == signal::mask_of(b)
}

/// The record of a disposition; under the lock of the module.
pub(super) fn keep(action: &Action) -> Option<&'static Chained> {
    let first = KEPT.load(Ordering::Acquire).cast_const();
    let mut at = first;
    // SAFETY: null, or a record that is never freed.
    while let Some(known) = unsafe { at.as_ref() } {
        if is_same(&known.action, action) {
            return Some(known);
        }
        at = known.next;
    }
    let fresh: &'static Chained = Box::leak(try_box(Chained { action: *action, next: first })?);
    // Release: who finds it finds it filled in.
    KEPT.store(std::ptr::from_ref(fresh).cast_mut(), Ordering::Release);
    Some(fresh)
}

/// Our handler in place of a disposition: calls it interrupts go on, or not,
/// as they would have, and it runs with the same signals blocked.
pub(super) fn over(action: &Action, number: c_int, handler: usize) -> Action {
    let (flags, mask) = match action.sa_sigaction {
        // Without a handler nothing would have been interrupted.
        libc::SIG_DFL | libc::SIG_IGN => {
            // Children of those who ignore SIGCHLD leave no zombies.
            let no_zombies = number == libc::SIGCHLD && action.sa_sigaction == libc::SIG_IGN;
            let kept = action.sa_flags & (libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT);
            let more = if no_zombies { libc::SA_NOCLDWAIT } else { 0 };
            (libc::SA_RESTART | libc::SA_ONSTACK | kept | more, signal::ALL)
        }
        _ => (action.sa_flags & HOW & !libc::SA_RESETHAND, signal::mask_of(action)),
    };
    signal::action(handler, flags | libc::SA_SIGINFO, mask)
}

impl Chained {
    /// Whether the kernel would have put the default in its place.
    pub fn is_for_once(&self) -> bool {
        let handler = !matches!(self.action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        handler && self.action.sa_flags & libc::SA_RESETHAND != 0
    }

    /// Whether our handler over this one runs with all signals blocked: see
    /// `over`.
    pub fn blocks_all(&self) -> bool {
        let handler = !matches!(self.action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        // What comes after a handler for one time has that one's mask.
        !handler && !std::ptr::eq(self, &raw const DEFAULT)
    }

    /// Does it; `ours`: the handler that this is in place of.
    pub fn call(
        &self,
        number: c_int,
        ours: usize,
        info: *mut libc::siginfo_t,
        context: *mut c_void,
    ) {
        match self.action.sa_sigaction {
            libc::SIG_IGN if !is_fault(number, info) => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let errno = SavedErrno::now();
                // A handler that called ours would not have called this.
                let found = signal::query(number);
                if let Some(found) = found.ok().filter(|found| found.sa_sigaction == ours) {
                    default(number, &found);
                }
                errno.restore();
            }
            handler if self.action.sa_flags & libc::SA_SIGINFO != 0 => {
                // SAFETY: the program installed it as a handler of this form.
                let handler = unsafe { std::mem::transmute::<usize, Entry>(handler) };
                handler(number, info, context);
            }
            handler => {
                // SAFETY: the program installed it as a handler of this form.
                let handler =
                    unsafe { std::mem::transmute::<usize, extern "C-unwind" fn(c_int)>(handler) };
                handler(number);
            }
        }
    }
}

/// Whether the kernel says that the thread itself cannot go on: it does not
/// ignore that whatever it is told.
fn is_fault(number: c_int, info: *const libc::siginfo_t) -> bool {
    let can_be = matches!(
        number,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP | libc::SIGSYS
    );
    // SAFETY: null, or what the kernel, or a handler over this, has given.
    can_be && unsafe { info.as_ref() }.is_some_and(|info| info.si_code > 0)
}

/// Does what the kernel does by default: ends or stops the process, or
/// nothing. `ours`: what is to be in place after a stop.
fn default(number: c_int, ours: &Action) {
    if matches!(number, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH) {
        return;
    }
    if signal::set(number, &DEFAULT.action).is_err() {
        return;
    }
    let before = signal::block(signal::ALL & !signal::bit(number));
    // Here it ends, or stops, unless it is the first of a pid namespace.
    signal::raise(number);
    let _ = signal::set(number, ours);
    signal::block(before);
}

#[cfg(test)]
mod tests {
    use super::super::address;
    use super::*;

    #[test]
    fn a_disposition_has_one_record() {
        let action = signal::action(address(0), libc::SA_RESTART, 6);
        let other = signal::action(address(0), libc::SA_RESTART, 2);
        let kept = keep(&action).unwrap();
        assert!(std::ptr::eq(kept, keep(&action).unwrap()));
        assert!(!std::ptr::eq(kept, keep(&other).unwrap()));
    }

    #[test]
    fn ours_is_called_as_the_other_would_have_been() {
        let flags = libc::SA_NODEFER | libc::SA_RESETHAND | libc::SA_ONSTACK;
        let ours = over(&signal::action(1000, flags, 6), libc::SIGUSR1, 2000);
        assert_eq!(ours.sa_sigaction, 2000);
        assert_eq!(ours.sa_flags, libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK);
        assert_eq!(signal::mask_of(&ours), 6);
        let ignored = over(&signal::action(libc::SIG_IGN, 0, 0), libc::SIGCHLD, 2000);
        assert_ne!(ignored.sa_flags & libc::SA_NOCLDWAIT, 0);
    }
}
