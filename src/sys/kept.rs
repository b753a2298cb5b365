//! Whether an fd still is the descriptor that the library made.
//!
//! A program may close all descriptors, as daemons do, or put another file
//! under an fd (dup2). The file that has the fd then must be neither changed
//! nor closed. So a descriptor that is kept is marked when it is made, and its
//! fd gets a new generation: the mark distinguishes it from every file of
//! the program's, the generation from a later descriptor of the library's.
//!
//! The mark is the signal that the kernel would send for input (F_SETSIG). It
//! belongs to the open file, stays as it is until it is set again, and means
//! nothing to the files that the library makes. All of this may be asked by a
//! signal handler.

mod shared;

use self::shared::{Known, Raced};
use super::{syscall, tsc};
use crate::errno::Errno;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::util::alloc::try_array;
use std::os::fd::RawFd;

/// Ignored by default, should it ever be sent.
const MARK: i32 = libc::SIGWINCH;
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;

/// Of a descriptor that a sandbox does not let be marked: it has only its
/// generation.
const UNMARKED: u32 = 1 << 31;

/// A descriptor that is kept: its fd, and above that the generation of the fd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity(u64);

impl Identity {
    /// No descriptor.
    pub const fn none() -> Self {
        Self::of(-1, 0)
    }

    /// One that the program has closed.
    pub const fn lost() -> Self {
        Self::of(-1, 1)
    }

    const fn of(fd: RawFd, generation: u32) -> Self {
        Self((generation as u64) << 32 | fd.cast_unsigned() as u64)
    }

    /// Marks a new descriptor. ENOMEM.
    #[inline]
    pub fn mark(fd: RawFd) -> Result<Self, Errno> {
        // SAFETY: no pointers.
        let flag = match unsafe { syscall!(SYS_fcntl, fd, F_SETSIG, MARK) } {
            Ok(_) => 0,
            Err(Errno::ENOMEM) => return Err(Errno::ENOMEM),
            Err(_) => UNMARKED,
        };
        Ok(Self::of(fd, begin_generation(fd, flag)?))
    }

    /// The descriptor that the library made last under an fd.
    pub fn newest(fd: RawFd) -> Self {
        Self::of(fd, generation_of(fd).map_or(0, |of| of.load(Ordering::Relaxed)))
    }

    pub fn fd(self) -> RawFd {
        (self.0 as u32).cast_signed()
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn is_marked(self) -> bool {
        self.generation() & UNMARKED == 0
    }

    /// Asks the kernel whether the fd still is this descriptor.
    pub fn is_intact(self) -> bool {
        let expected = if self.is_marked() { MARK } else { 0 };
        // SAFETY: F_GETSIG only looks.
        let is_same = match unsafe { syscall!(SYS_fcntl, self.fd(), F_GETSIG) } {
            Ok(mark) => mark == expected as usize,
            Err(errno) => self.is_unknown(errno),
        };
        is_same && self.is_newest()
    }

    /// Whether a sandbox does not let the mark be read.
    fn is_unknown(self, errno: Errno) -> bool {
        !self.is_marked() && errno != Errno::EBADF
    }

    /// Whether no later descriptor of the library has had its fd.
    fn is_newest(self) -> bool {
        generation_of(self.fd()).is_none_or(|of| of.load(Ordering::Relaxed) == self.generation())
    }

    pub const fn pack(self) -> u64 {
        self.0
    }

    pub const fn unpack(packed: u64) -> Self {
        Self(packed)
    }
}

/// An [`Identity`] that several threads look at, and signal handlers.
/// It is known to be intact at a moment of [`tsc::stamp`], and with what
/// [`LAST`] was then: its complement, if the time is not the counter's.
#[derive(Debug)]
pub(crate) struct SharedIdentity(Known);

impl SharedIdentity {
    pub const fn of(identity: Identity) -> Self {
        Self(Known::new(identity.pack()))
    }

    pub fn get(&self) -> Identity {
        Identity::unpack(self.0.get())
    }

    pub fn set(&self, identity: Identity) {
        self.0.set(identity.pack());
    }

    /// The fd if it is intact, for what happens often: the kernel is only
    /// asked again when some milliseconds have passed, or the library has made
    /// another descriptor.
    #[inline(always)]
    pub fn check(&self) -> Option<RawFd> {
        let identity = self.get();
        // What was known of one before is nothing about none.
        (identity.fd() >= 0 && (self.is_known() || self.ask(identity))).then_some(identity.fd())
    }

    /// Whether it was intact a moment ago, and the library has made no
    /// descriptor since.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        // That the counter can be read is known where such a moment was noted.
        self.0.known_at(LAST.load(Ordering::Relaxed)).is_some_and(tsc::is_recent)
    }

    #[cold]
    fn ask(&self, identity: Identity) -> bool {
        // Both before the kernel is asked.
        let last = LAST.load(Ordering::Relaxed);
        let (now, is_counted) = tsc::stamp();
        let known_last = if is_counted { last } else { !last };
        if !is_counted && self.0.known_at(known_last) == Some(now) {
            return true;
        }
        let is_intact = identity.is_intact();
        if is_intact {
            self.0.note(identity.pack(), now, known_last);
        }
        is_intact
    }
}

/// A descriptor of the process that is made at first use: raced for, not
/// locked, as a fork in the middle must not leave a lock behind.
pub(crate) struct RacedIdentity(Raced);

impl RacedIdentity {
    pub const fn none() -> Self {
        Self(Raced::new(Identity::none().pack()))
    }

    pub fn get(&self) -> Identity {
        Identity::unpack(self.0.get())
    }

    /// Puts another one in the place of what was there before; or the one of
    /// a thread that was faster.
    pub fn replace(&self, before: Identity, fresh: Identity) -> Result<(), Identity> {
        self.0.replace(before.pack(), fresh.pack()).map_err(Identity::unpack)
    }
}

/// Numbers whose generations are kept together.
const PER_BLOCK: usize = 1024;
/// Those of numbers beyond are not kept: few programs have a million files.
const BLOCKS: usize = 1024;

type Block = [AtomicU32; PER_BLOCK];

static GENERATIONS: [AtomicPtr<Block>; BLOCKS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; BLOCKS];

fn block_of(fd: RawFd) -> Option<(&'static AtomicPtr<Block>, usize)> {
    let number = usize::try_from(fd).ok()?;
    Some((GENERATIONS.get(number / PER_BLOCK)?, number % PER_BLOCK))
}

fn generation_of(fd: RawFd) -> Option<&'static AtomicU32> {
    let (block, index) = block_of(fd)?;
    // SAFETY: null, or a block, which is never freed. Acquire: it was filled
    // in before it was put there.
    unsafe { block.load(Ordering::Acquire).as_ref() }?.get(index)
}

/// The last generation of all, which is never 0.
static LAST: AtomicU64 = AtomicU64::new(1);

/// The number has a new descriptor.
fn begin_generation(fd: RawFd, flag: u32) -> Result<u32, Errno> {
    let of = match generation_of(fd) {
        None => first_generation_of(fd)?,
        of => of,
    };
    let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    let generation = number as u32 & !UNMARKED | flag;
    if let Some(of) = of {
        of.store(generation, Ordering::Relaxed);
    }
    Ok(generation)
}

#[cold]
fn first_generation_of(fd: RawFd) -> Result<Option<&'static AtomicU32>, Errno> {
    tsc::prepare();
    if let Some((block, _)) = block_of(fd) {
        make_block(block)?;
    }
    Ok(generation_of(fd))
}

fn make_block(index: &AtomicPtr<Block>) -> Result<(), Errno> {
    let fresh = try_array(PER_BLOCK, |_| AtomicU32::new(0)).ok_or(Errno::ENOMEM)?;
    let fresh = Box::into_raw(fresh).cast::<Block>();
    // Raced, not locked: a fork in the middle must not leave a lock behind.
    // Release: a thread that finds it finds it filled in.
    let none = std::ptr::null_mut();
    let placed = index.compare_exchange(none, fresh, Ordering::Release, Ordering::Relaxed);
    if placed.is_err() {
        // SAFETY: made above, of a block's length, and no other thread knows
        // it.
        drop(unsafe { Box::from_raw(fresh) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;
    use crate::sys::{epoll, eventfd};

    #[test]
    fn a_number_that_became_another_file_is_not_intact() {
        let kept = epoll::create().unwrap();
        assert!(kept.is_intact());
        let other = fd::duplicate_to_write(2).unwrap();
        fd::replace(&other, kept.raw()).unwrap();
        assert!(!kept.is_intact());
        // Dropping it leaves the fd to the other one.
        let number = kept.raw();
        drop(kept);
        assert!(fd::is_open(number));
        drop(fd::Fd::owned(number));
    }

    #[test]
    fn a_number_that_became_another_descriptor_of_the_library_is_not_intact() {
        let before = eventfd::create(1).unwrap();
        drop(fd::Fd::owned(before.raw()));
        let mut later = Vec::new();
        // Other tests take numbers, too.
        while later.last().is_none_or(|fd: &fd::Fd| fd.raw() != before.raw()) {
            later.push(eventfd::create(1).unwrap());
        }
        assert!(!before.is_intact());
        let number = before.raw();
        drop(before);
        assert!(fd::is_open(number) && later.iter().all(fd::Fd::is_intact));
    }

    #[test]
    fn what_is_known_ends_with_the_next_descriptor() {
        let kept = eventfd::create(1).unwrap();
        let shared = SharedIdentity::of(kept.identity());
        assert!(!shared.is_known());
        assert_eq!(shared.check(), Some(kept.raw()));
        let next = eventfd::create(1).unwrap();
        assert!(!shared.is_known());
        assert_eq!((shared.check(), next.check()), (Some(kept.raw()), Some(next.raw())));
    }

    #[test]
    fn an_identity_survives_being_shared() {
        let kept = eventfd::create(1).unwrap();
        let shared = SharedIdentity::of(kept.identity());
        assert_eq!(shared.get(), kept.identity());
        assert_eq!((shared.check(), shared.check()), (Some(kept.raw()), Some(kept.raw())));
        shared.set(Identity::none());
        assert_eq!((shared.check(), shared.get()), (None, Identity::none()));
        shared.set(Identity::lost());
        assert_eq!((shared.check(), shared.get()), (None, Identity::lost()));
    }
}
