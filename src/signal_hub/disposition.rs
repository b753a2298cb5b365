//! What the program does with a signal, and how that is done in its place.

use crate::sync::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, fence};
#[cfg(not(loom))]
pub(super) use on_the_system::*;

/// A disposition in numbers, as sigaction(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disposition {
    pub handler: usize,
    pub flags: i32,
    pub mask: u64,
}

/// SIG_DFL, which SA_RESETHAND leaves behind.
pub(super) const DEFAULT: Disposition = Disposition { handler: 0, flags: 0, mask: 0 };

struct Copy {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
    /// It was for one time, and that is over.
    spent: AtomicU32,
}

/// A disposition that handlers read while it is changed: the writer changes
/// the copy that they do not use.
pub(super) struct SavedAction {
    /// How many changes there were; its last bit says which copy counts.
    current: AtomicUsize,
    copies: [Copy; 2],
}

impl Copy {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            handler: AtomicUsize::new(0),
            flags: AtomicI32::new(0),
            mask: AtomicU64::new(0),
            spent: AtomicU32::new(0),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            handler: AtomicUsize::new(0),
            flags: AtomicI32::new(0),
            mask: AtomicU64::new(0),
            spent: AtomicU32::new(0),
        }
    }

    fn load(&self) -> Disposition {
        let (handler, flags) = (self.handler.load(Relaxed), self.flags.load(Relaxed));
        Disposition { handler, flags, mask: self.mask.load(Relaxed) }
    }

    fn store(&self, new: &Disposition) {
        self.handler.store(new.handler, Relaxed);
        self.flags.store(new.flags, Relaxed);
        self.mask.store(new.mask, Relaxed);
        self.spent.store(0, Relaxed);
    }
}

impl SavedAction {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { current: AtomicUsize::new(0), copies: [Copy::new(), Copy::new()] }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { current: AtomicUsize::new(0), copies: [Copy::new(), Copy::new()] }
    }

    fn copy(&self, which: usize) -> &Copy {
        let [first, second] = &self.copies;
        if which & 1 == 0 { first } else { second }
    }

    /// The disposition, for a handler that has entered the readers, or with
    /// the lock.
    pub fn read(&self) -> Disposition {
        // SeqCst: against `Readers::enter`; and an Acquire, for the copy.
        let copy = self.copy(self.current.load(SeqCst));
        if copy.spent.load(Relaxed) != 0 { DEFAULT } else { copy.load() }
    }

    /// The same, in the handler that is to obey it: one for one time is
    /// spent.
    pub fn use_up(&self, is_for_once: impl FnOnce(&Disposition) -> bool) -> Disposition {
        // As in `read`.
        let copy = self.copy(self.current.load(SeqCst));
        let found = copy.load();
        let is_spent = is_for_once(&found) && copy.spent.swap(1, Relaxed) != 0;
        if is_spent { DEFAULT } else { found }
    }

    /// The same, in a handler that has not entered the readers, as it may be in
    /// a child that shares the memory: if that is killed the readers would be
    /// waited for in vain.
    pub fn use_up_from_outside(
        &self,
        is_for_once: impl FnOnce(&Disposition) -> bool,
    ) -> Disposition {
        loop {
            // As in `read`.
            let current = self.current.load(SeqCst);
            let copy = self.copy(current);
            let found = copy.load();
            // Acquire: pairs with the fence in `write`. A reader that has
            // read a part of a later disposition sees that it has changed.
            fence(Acquire);
            if self.current.load(Relaxed) == current {
                let is_spent = is_for_once(&found) && copy.spent.swap(1, Relaxed) != 0;
                return if is_spent { DEFAULT } else { found };
            }
        }
    }

    /// Changes it, with the lock, after waiting for the handlers that may
    /// still read the other copy.
    pub fn write(&self, new: &Disposition, wait_for_readers: impl FnOnce()) {
        wait_for_readers();
        let next = self.current.load(Relaxed).wrapping_add(1);
        // Release: see `use_up_from_outside`.
        fence(Release);
        self.copy(next).store(new);
        // SeqCst: see `read`; and a Release, for the copy.
        self.current.store(next, SeqCst);
    }
}

/// What needs the system's structures, which models do without.
#[cfg(not(loom))]
mod on_the_system {
    use super::{DEFAULT, Disposition};
    use crate::sys::SavedErrno;
    use crate::sys::signal::{self, Action};
    use std::ffi::{c_int, c_void};

    /// A handler with SA_SIGINFO.
    pub(in crate::signal_hub) type Trampoline =
        extern "C-unwind" fn(c_int, *mut libc::siginfo_t, *mut c_void);

    /// The flags that say how a handler is called.
    const CALLING: c_int = libc::SA_SIGINFO
        | libc::SA_NODEFER
        | libc::SA_RESETHAND
        | libc::SA_RESTART
        | libc::SA_ONSTACK
        | libc::SA_NOCLDSTOP
        | libc::SA_NOCLDWAIT;

    impl Disposition {
        pub fn of(action: &Action) -> Self {
            let (handler, flags) = (action.sa_sigaction, action.sa_flags);
            Self { handler, flags, mask: signal::mask_of(action) }
        }

        pub fn action(&self) -> Action {
            signal::action(self.handler, self.flags, self.mask)
        }

        /// Without what the kernel does not keep: two signals are never
        /// blocked.
        pub fn as_the_kernel_keeps_it(&self) -> Self {
            let never = signal::bit(libc::SIGKILL) | signal::bit(libc::SIGSTOP);
            Self { mask: self.mask & !never, ..*self }
        }

        /// Whether a signal is handled in the same way.
        pub fn is_same(&self, other: &Self) -> bool {
            self.handler == other.handler
                && self.flags & CALLING == other.flags & CALLING
                && self.mask == other.mask
        }

        pub fn is_default(&self) -> bool {
            self.handler == libc::SIG_DFL
        }

        fn is_handler(&self) -> bool {
            !matches!(self.handler, libc::SIG_DFL | libc::SIG_IGN)
        }

        /// Whether the kernel would put the default in its place when it is
        /// called.
        pub fn is_for_once(&self) -> bool {
            self.is_handler() && self.flags & libc::SA_RESETHAND != 0
        }

        /// The library's handler in the place of this disposition: calls that
        /// it interrupts are restarted, or not, as they would have been, and
        /// it runs with the same signals blocked.
        pub fn wrapped_by(&self, handler: usize, number: c_int) -> Action {
            let (flags, mask) = if self.is_handler() {
                (self.flags & CALLING & !libc::SA_RESETHAND, self.mask)
            } else {
                // Without a handler nothing would have been interrupted.
                // Children of a process that ignores SIGCHLD leave no zombies.
                let no_zombies = number == libc::SIGCHLD && self.handler == libc::SIG_IGN;
                let kept = self.flags & (libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT);
                let more = if no_zombies { libc::SA_NOCLDWAIT } else { 0 };
                (libc::SA_RESTART | libc::SA_ONSTACK | kept | more, signal::ALL)
            };
            signal::action(handler, flags | libc::SA_SIGINFO, mask)
        }

        /// Does what it says; `ours`: the library's handler that is in its
        /// place.
        pub fn call(
            &self,
            number: c_int,
            ours: usize,
            info: *mut libc::siginfo_t,
            context: *mut c_void,
        ) {
            match self.handler {
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
                handler if self.flags & libc::SA_SIGINFO != 0 => {
                    // SAFETY: the program installed it as a handler of this
                    // form.
                    let handler = unsafe { std::mem::transmute::<usize, Trampoline>(handler) };
                    handler(number, info, context);
                }
                handler => {
                    // SAFETY: the program installed it as a handler of this
                    // form.
                    let handler = unsafe {
                        std::mem::transmute::<usize, extern "C-unwind" fn(c_int)>(handler)
                    };
                    handler(number);
                }
            }
        }
    }

    /// Whether the kernel says that the thread itself cannot go on, which
    /// SIG_IGN does not change.
    fn is_fault(number: c_int, info: *const libc::siginfo_t) -> bool {
        let can_be = matches!(
            number,
            libc::SIGSEGV
                | libc::SIGBUS
                | libc::SIGFPE
                | libc::SIGILL
                | libc::SIGTRAP
                | libc::SIGSYS
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
        if signal::set(number, &DEFAULT.action()).is_err() {
            return;
        }
        let before = signal::block(signal::ALL & !signal::bit(number));
        // Here it ends, or stops, unless it is the first of a pid namespace.
        signal::raise(number);
        let _ = signal::set(number, ours);
        signal::block(before);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::signal;

    fn disposition(handler: usize, flags: i32, mask: u64) -> Disposition {
        Disposition { handler, flags, mask }
    }

    #[test]
    fn ours_is_called_as_the_other_would_have_been() {
        let flags = libc::SA_NODEFER | libc::SA_RESETHAND | libc::SA_ONSTACK;
        let ours = disposition(1000, flags, 6).wrapped_by(2000, libc::SIGUSR1);
        assert_eq!(ours.sa_sigaction, 2000);
        assert_eq!(ours.sa_flags, libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK);
        assert_eq!(signal::mask_of(&ours), 6);
        let ignored = disposition(libc::SIG_IGN, 0, 0).wrapped_by(2000, libc::SIGCHLD);
        assert_ne!(ignored.sa_flags & libc::SA_NOCLDWAIT, 0);
        assert_eq!(signal::mask_of(&ignored), signal::ALL);
    }

    #[test]
    fn a_disposition_for_one_time_is_the_default_afterwards() {
        let action = SavedAction::new();
        let once = disposition(1000, libc::SA_RESETHAND, 2);
        action.write(&once, || {});
        assert_eq!(action.read(), once);
        assert_eq!(action.use_up(Disposition::is_for_once), once);
        assert_eq!(action.use_up(Disposition::is_for_once), DEFAULT);
        assert_eq!(action.read(), DEFAULT);
        let always = disposition(1000, 0, 2);
        action.write(&always, || {});
        for _ in 0..2 {
            assert_eq!(action.use_up(Disposition::is_for_once), always);
        }
    }

    #[test]
    fn an_action_is_the_same_after_it_was_numbers() {
        let before = disposition(1000, libc::SA_RESTART | libc::SA_ONSTACK, 0x402);
        assert!(Disposition::of(&before.action()).is_same(&before));
        assert!(!before.is_same(&disposition(1000, libc::SA_RESTART, 0x402)));
    }
}

/// Handlers that read a disposition while the program changes it.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::in_use::Readers;
    use loom::sync::Arc;
    use loom::thread;

    /// A disposition whose parts belong together.
    fn numbered(number: i32) -> Disposition {
        Disposition { handler: number as usize, flags: number, mask: number as u64 }
    }

    fn model(waits: bool) {
        loom::model(move || {
            let shared = Arc::new((SavedAction::new(), Readers::new()));
            shared.0.write(&numbered(1), || {});
            let handler = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (entry, readers) = &*shared;
                    let _reading = readers.enter();
                    entry.read()
                })
            };
            let (entry, readers) = &*shared;
            for number in 2..=3 {
                entry.write(&numbered(number), || {
                    if waits {
                        readers.wait();
                    }
                });
            }
            let read = handler.join().unwrap();
            assert_eq!(read, numbered(read.flags));
        });
    }

    #[test]
    fn loom_a_handler_reads_a_whole_disposition() {
        model(true);
    }

    #[test]
    #[should_panic]
    fn loom_twin_changing_a_disposition_without_waiting_fails() {
        model(false);
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Look {
        AsItIs,
        AtTheCopyOnly,
        WithoutAFence,
    }

    impl SavedAction {
        /// As `use_up_from_outside`, once, with a look that is not enough.
        fn read_badly(&self, look: Look) -> Option<Disposition> {
            let current = self.current.load(SeqCst);
            let found = self.copy(current).load();
            if look != Look::WithoutAFence {
                fence(Acquire);
            }
            let now = self.current.load(Relaxed);
            let is_same = match look {
                Look::AtTheCopyOnly => now & 1 == current & 1,
                _ => now == current,
            };
            is_same.then_some(found)
        }
    }

    fn from_outside(look: Look) {
        loom::model(move || {
            let model = Arc::new(SavedAction::new());
            model.write(&numbered(1), || {});
            let handler = {
                let model = model.clone();
                thread::spawn(move || match look {
                    Look::AsItIs => Some(model.use_up_from_outside(|_| false)),
                    _ => model.read_badly(look),
                })
            };
            for number in 2..=3 {
                model.write(&numbered(number), || {});
            }
            let read = handler.join().unwrap();
            assert!(read.is_none_or(|read| read == numbered(read.flags)), "{read:?} is torn");
        });
    }

    #[test]
    fn loom_a_handler_that_did_not_enter_reads_a_whole_disposition() {
        from_outside(Look::AsItIs);
    }

    #[test]
    #[should_panic(expected = "is torn")]
    fn loom_twin_a_look_at_which_copy_counts_misses_two_changes() {
        from_outside(Look::AtTheCopyOnly);
    }

    #[test]
    #[should_panic(expected = "is torn")]
    fn loom_twin_a_look_without_a_fence_comes_too_early() {
        from_outside(Look::WithoutAFence);
    }
}
