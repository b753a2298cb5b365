//! Epoll objects.
//!
//! The kernel keeps one word with each registration. Ours holds the
//! descriptor and a tag; the caller's data is in a map here. So an event says
//! which descriptor it is for, all 64 bits of data are the caller's, and what
//! comes late for a registration that is gone is recognised.

use super::Ready;
use super::fdmap::{FdEntry, FdMap};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::handle::{self, Kind, Object, TableObject};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::sys::clock::Deadline;
use crate::sys::epoll::{self as sys, Event};
use crate::sys::fd::{self, Fd};
use crate::sys::{eventfd, fork, poll};
use crate::util::Out;
use crate::util::alloc::TryVecCopy;
use crate::wait::{interrupted, pause, refuse_own};
use crate::wakeup::Alarm;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::PoisonError;

/// An epoll object.
pub(crate) struct Epoll {
    fd: Fd,
    /// Of a set that others may have registered the process's eventfd with:
    /// one of its own, for the alarm.
    eventfd: Option<Fd>,
    registered: Mutex<EpollInterest>,
    closed: AtomicBool,
    /// The process that may change the kernel's set.
    epoch: fork::Epoch,
}

struct EpollInterest {
    map: FdMap,
    number: Number,
    /// How many registrations there were.
    count: u64,
    /// A registration was made over one whose descriptor had been closed; a
    /// duplicate may keep that one alive in the kernel.
    leftovers: bool,
    /// Registered here, and turned on to wake every waiter.
    alarm: Alarm,
    /// See `set_alarm`.
    alarmed: bool,
}

/// Marks a word as one of this library: no pointer and no descriptor has
/// this bit. Below it are a tag of 32 bits and the descriptor's 31.
const OURS: u64 = 1 << 63;
const FD_BITS: u32 = 31;
/// A tag is the number of the object, which may share its set with others,
/// and below it a count of registrations, from 1 to the last that fits and
/// from 1 again.
const COUNT_BITS: u32 = 20;
const COUNTS: u32 = (1 << COUNT_BITS) - 1;
/// The alarm's word has count 0, which no registration has, and a descriptor
/// that no word of other code's will have by chance.
const ALARM: RawFd = 0x65_76_6c_70;

fn cookie(tag: u32, fd: RawFd) -> u64 {
    OURS | u64::from(tag) << FD_BITS | u64::from(fd.cast_unsigned())
}

/// The tag and the descriptor of a word of this library's.
fn uncookie(word: u64) -> Option<(u32, RawFd)> {
    let tag = (word & !OURS) >> FD_BITS;
    let fd = word & ((1 << FD_BITS) - 1);
    (word & OURS != 0).then_some((tag as u32, fd as RawFd))
}

impl Epoll {
    pub fn create() -> Result<Self> {
        Self::new(sys::create()?, None)
    }

    /// The descriptor stays the caller's.
    pub fn adopt(fd: RawFd) -> Result<Self> {
        if !fd::is_open(fd) {
            fail!(EBADF, "fd {} is not open", fd);
        }
        refuse_own(fd)?;
        Self::new(Fd::borrowed(fd), Some(eventfd::create(1)?))
    }

    /// From now on the descriptor is not closed with the object; which it is.
    pub fn give_fd_away(&self) -> RawFd {
        self.fd.set_borrowed();
        self.fd.raw()
    }

    /// From now on the descriptor is closed with the object.
    pub fn own_fd(&self) {
        self.fd.set_owned();
    }

    fn new(fd: Fd, eventfd: Option<Fd>) -> Result<Self> {
        let number = Number::new();
        let word = cookie(number.tag(0), ALARM);
        let alarm = match &eventfd {
            Some(own) => Alarm::new(fd.raw(), own.identity(), word),
            None => Alarm::shared(fd.raw(), word),
        };
        let alarm = match alarm {
            Ok(alarm) => alarm,
            Err(Errno::EINVAL) => fail!(EINVAL, "fd {} is not an epoll descriptor", fd.raw()),
            Err(errno) => return Err(errno.into()),
        };
        let (map, leftovers, alarmed) = (FdMap::new(), false, false);
        let registered = EpollInterest { map, number, count: 0, leftovers, alarm, alarmed };
        Ok(Self {
            fd,
            eventfd,
            registered: Mutex::new(registered),
            closed: AtomicBool::new(false),
            epoch: handle::epoch(),
        })
    }

    pub fn fileno(&self) -> RawFd {
        self.fd.raw()
    }

    fn registered(&self) -> MutexGuard<'_, EpollInterest> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let mut registered = self.registered();
        self.refuse_alarm(fd, &registered)?;
        refuse_own(fd)?;
        registered.map.reserve(fd)?;
        let tag = registered.next_tag();
        sys::add(self.open_fd()?, fd, events, cookie(tag, fd))
            .map_err(|errno| explain(errno, fd))?;
        let is_new = registered.map.set_reserved(fd, FdEntry { events, tag, data });
        registered.leftovers |= !is_new;
        Ok(())
    }

    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> Result<()> {
        let mut registered = self.registered();
        self.refuse_alarm(fd, &registered)?;
        registered.map.reserve(fd)?;
        // A registration by raw epoll_ctl(2) becomes the object's.
        let tag = match registered.map.get(fd) {
            Some(entry) => entry.tag,
            None => registered.next_tag(),
        };
        sys::modify(self.open_fd()?, fd, events, cookie(tag, fd))
            .map_err(|errno| explain(errno, fd))?;
        registered.map.set_reserved(fd, FdEntry { events, tag, data });
        Ok(())
    }

    pub fn unregister(&self, fd: RawFd) -> Result<()> {
        let registered = self.registered();
        self.refuse_alarm(fd, &registered)?;
        sys::delete(self.open_fd()?, fd).map_err(|errno| explain(errno, fd))?;
        registered.map.remove(fd);
        Ok(())
    }

    /// The alarm is no descriptor of the program's; unless that has closed it
    /// and registered another one of this number.
    fn refuse_alarm(&self, fd: RawFd, registered: &EpollInterest) -> Result<()> {
        if registered.alarm.is(fd) && registered.map.get(fd).is_none() {
            fail!(EINVAL, "fd {} is the library's own", fd);
        }
        Ok(())
    }

    /// While on, every wait returns at once, with what is ready.
    pub fn set_alarm(&self, on: bool) -> Result<()> {
        let mut registered = self.registered();
        let before = std::mem::replace(&mut registered.alarmed, on);
        let applied = self.apply_alarm(&mut registered);
        applied.inspect_err(|_| registered.alarmed = before)
    }

    /// Under the lock, so that a close in the middle of `set_alarm` either
    /// sees what that did, or is seen by it.
    fn apply_alarm(&self, registered: &mut EpollInterest) -> Result<()> {
        let on = registered.alarmed || self.closed.load(Ordering::Acquire);
        let word = cookie(registered.number.tag(0), ALARM);
        Ok(registered.alarm.set(self.open_fd()?, on, word)?)
    }

    /// The descriptor, unless the program has closed it.
    #[inline]
    fn open_fd(&self) -> Result<RawFd> {
        self.fd.check().ok_or_else(|| self.is_lost())
    }

    #[cold]
    fn is_lost(&self) -> Error {
        error!(Errno::EBADF, "the program closed the object's fd {}", self.fileno())
    }

    /// Waits; what is ready is in `out` then.
    pub fn wait(&self, out: &mut Out<Ready>, timeout_ns: i64) -> Result<()> {
        let deadline = Deadline::after(timeout_ns);
        let mut gone = None;
        loop {
            let fetched = self.wait_once(out, deadline, &mut gone)?;
            if out.filled() > 0 || deadline.passed() {
                return Ok(());
            }
            if fetched.noise {
                pause(deadline, interrupted)?;
            }
        }
    }

    /// One wait of the kernel's, which replaces what is in `out`. `gone` is
    /// kept between the waits of one call, and `None` before the first.
    pub fn wait_once(
        &self,
        out: &mut Out<Ready>,
        deadline: Deadline,
        gone: &mut Option<u64>,
    ) -> Result<Fetched> {
        const SMALL: usize = 64;
        self.check()?;
        out.truncate(0);
        let mut small = [MaybeUninit::<Event>::uninit(); SMALL];
        let mut large = Vec::new();
        // No more than can be delivered: an edge must not be fetched and lost.
        let (most, count) = self.most_events();
        let wanted = out.capacity().min(most);
        let buffer = if wanted <= SMALL {
            small.get_mut(..wanted).unwrap_or_default()
        } else {
            if large.try_lengthen(wanted, MaybeUninit::uninit()).is_err() {
                fail!(ENOMEM, "no memory for {} events", wanted as i64);
            }
            &mut large
        };
        let result = sys::wait(self.open_fd()?, buffer, deadline.left_ns());
        if let Err(Errno::EINTR) = result {
            interrupted()?;
        }
        // Before anything is stored, and before a lock is taken: user code may
        // have closed the object, or forked.
        self.check()?;
        match result {
            Ok(events) => Ok(self.deliver(events, out, (gone, count))),
            Err(Errno::EINTR) => Ok(Fetched { alarmed: false, noise: false }),
            Err(Errno::EINVAL) => fail!(EINVAL, "fd {} is not an epoll any more", self.fileno()),
            Err(errno) => Err(explain(errno, self.fileno())),
        }
    }

    /// How many events there can be, generously: some registrations may not
    /// be ours. And how many registrations there were.
    fn most_events(&self) -> (usize, u64) {
        const FOREIGN: usize = 1 << 16;
        let registered = self.registered();
        (registered.map.len() + FOREIGN, registered.count)
    }

    /// `count`: of registrations, before the wait.
    fn deliver(
        &self,
        events: &[Event],
        out: &mut Out<Ready>,
        (gone, count): (&mut Option<u64>, u64),
    ) -> Fetched {
        // A registration is put into the map under this lock, so its first
        // event cannot be looked up before that is done.
        let registered = self.registered();
        let (mut alarmed, mut noise) = (false, false);
        // Tags may have come again during the wait.
        let is_certain = registered.count - count < COUNTS.into();
        for event in events {
            let (bits, word) = (event.events, event.u64);
            match registered.find(word) {
                Owner::Alarm => alarmed = true,
                Owner::AlarmOfOther => noise = true,
                Owner::Registration(fd, data) if is_certain => {
                    out.push(Ready { fd, events: bits, data });
                }
                Owner::Registration(fd, _) => self.ask_again(fd, &registered),
                // Once it may have been unregistered between the kernel's
                // answer and now; a second time, the kernel still has it.
                Owner::Gone if *gone != Some(word) => *gone = Some(word),
                Owner::Gone | Owner::Unknown => {
                    out.push(Ready { fd: -1, events: bits, data: word });
                }
            }
        }
        Fetched { alarmed, noise }
    }

    /// Has the kernel report a descriptor again, if it still is ready.
    fn ask_again(&self, fd: RawFd, registered: &EpollInterest) {
        if let Some(entry) = registered.map.get(fd) {
            // What fails was closed since.
            let _ = sys::modify(self.fileno(), fd, entry.events, cookie(entry.tag, fd));
        }
    }

    #[inline]
    fn check(&self) -> Result<()> {
        let is_usual = fork::is_current_fast(self.epoch) && !self.closed.load(Ordering::Acquire);
        if is_usual { Ok(()) } else { self.check_closely() }
    }

    #[cold]
    fn check_closely(&self) -> Result<()> {
        if fork::current() != self.epoch {
            fail!(ECHILD, "the process forked during the wait, and this is the child");
        }
        if self.closed.load(Ordering::Acquire) {
            fail!(ESTALE, "the object was closed during the wait");
        }
        Ok(())
    }
}

/// What one wait of the kernel's brought besides events: whether this object's
/// alarm is on, and whether another object's is (`noise`), which this object
/// cannot remove and which will be ready again at once.
pub(crate) struct Fetched {
    pub alarmed: bool,
    pub noise: bool,
}

/// Whose event it is.
enum Owner {
    Alarm,
    /// Another object's on the same set, which is being closed.
    AlarmOfOther,
    Registration(RawFd, u64),
    /// A registration's that was removed.
    Gone,
    /// Made by raw epoll_ctl(2) or another object, or left over.
    Unknown,
}

impl EpollInterest {
    fn find(&self, word: u64) -> Owner {
        match uncookie(word) {
            Some((tag, ALARM)) if tag == self.number.tag(0) => Owner::Alarm,
            Some((tag, ALARM)) if tag & COUNTS == 0 => Owner::AlarmOfOther,
            Some((tag, fd)) if self.number.is_of(tag) => {
                match self.map.get(fd).filter(|entry| entry.tag == tag) {
                    Some(entry) if !self.is_doubtful(fd, entry.events) => {
                        Owner::Registration(fd, entry.data)
                    }
                    None if !self.leftovers => Owner::Gone,
                    _ => Owner::Unknown,
                }
            }
            _ => Owner::Unknown,
        }
    }

    /// Whether an event that seems to be a descriptor's is that of one left
    /// over, whose tag has come again: what is reported is not so.
    fn is_doubtful(&self, fd: RawFd, events: u32) -> bool {
        if !self.leftovers || self.count <= COUNTS.into() {
            return false;
        }
        let mut asked = [poll::entry(fd, events)];
        poll::look(&mut asked).is_ok_and(|ready| ready == 0)
    }

    fn next_tag(&mut self) -> u32 {
        self.count += 1;
        let count = (self.count - 1) % u64::from(COUNTS) + 1;
        self.number.tag(count as u32)
    }
}

/// The number of an object, which no other one has at the same time, as long
/// as there are not too many.
struct Number {
    number: u32,
    /// It is marked as in use.
    is_own: bool,
}

const NUMBERS: u32 = 1 << (u32::BITS - COUNT_BITS);
/// Those in use. A forked child goes on with its parent's, as they may share
/// sets.
static IN_USE: [AtomicU64; NUMBERS as usize / 64] =
    [const { AtomicU64::new(0) }; NUMBERS as usize / 64];

impl Number {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A forked child's and its parent's new ones mostly differ, too.
        let from = std::process::id().wrapping_mul(0x9e5);
        let next = || NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(from) % NUMBERS;
        let free = (0..NUMBERS).map(|_| next()).find(|number| {
            let (word, bit) = Self::locate(*number);
            word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
        });
        Self { number: free.unwrap_or_else(next), is_own: free.is_some() }
    }

    fn locate(number: u32) -> (Option<&'static AtomicU64>, u64) {
        (IN_USE.get(number as usize / 64), 1 << (number % 64))
    }

    fn tag(&self, count: u32) -> u32 {
        self.number << COUNT_BITS | count
    }

    fn is_of(&self, tag: u32) -> bool {
        tag >> COUNT_BITS == self.number
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let (word, bit) = Self::locate(self.number);
        if let Some(word) = word.filter(|_| self.is_own) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

fn explain(errno: Errno, fd: RawFd) -> Error {
    match errno {
        Errno::EEXIST => error!(errno, "fd {} is already registered with this epoll", fd),
        Errno::ENOENT => error!(errno, "fd {} is not registered with this epoll", fd),
        Errno::EBADF => error!(errno, "fd {} is not open", fd),
        Errno::EPERM => error!(errno, "fd {} cannot be waited for with epoll", fd),
        Errno::EINVAL => {
            error!(errno, "fd {} is the epoll itself, or its events do not go together", fd)
        }
        Errno::ELOOP => {
            error!(errno, "fd {} would nest epoll sets in a circle, too deep or too often", fd)
        }
        _ => errno.into(),
    }
}

impl TableObject for Epoll {
    fn closing(&self) {
        // Release, and Acquire in `check`: a thread that is woken sees it.
        self.closed.store(true, Ordering::Release);
        // It cannot fail where the descriptor is open; and where its owner
        // closed it there is no waiting any more.
        let _ = self.apply_alarm(&mut self.registered());
    }

    fn descriptor(&self) -> RawFd {
        self.fileno()
    }

    fn survives_fork(&self) -> bool {
        false
    }

    fn abandon(&self) {
        self.fd.close_now();
        self.eventfd.iter().for_each(Fd::close_now);
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // The set may live on, by a duplicate or its owner's descriptor; but
        // a child must not change its parent's.
        if fork::current() == self.epoch
            && let Some(fd) = self.fd.check()
        {
            self.registered().alarm.remove(fd);
        }
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for Epoll {
    const KIND: Kind = Kind::Epoll;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const IN: u32 = libc::EPOLLIN as u32;
    const ET: u32 = libc::EPOLLET as u32;

    fn readable() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &b, b"x").unwrap();
        (a, b)
    }

    /// What a wait without waiting returns.
    fn ready(epoll: &Epoll) -> Vec<(RawFd, u64)> {
        let mut array = [Ready { fd: 0, events: 0, data: 0 }; 8];
        // SAFETY: as many entries as the array has.
        let mut out = unsafe { Out::new(array.as_mut_ptr(), array.len()) };
        epoll.wait(&mut out, 0).unwrap();
        out.with_filled(|filled| filled.iter().map(|one| (one.fd, one.data)).collect())
    }

    #[test]
    fn registrations_stay_apart_when_their_count_begins_again() {
        let epoll = Epoll::create().unwrap();
        let (a, _b) = readable();
        epoll.registered().count = u64::from(COUNTS) - 3;
        for data in 0..10 {
            epoll.register(a.as_raw_fd(), IN, data).unwrap();
            assert_eq!(ready(&epoll), [(a.as_raw_fd(), data)]);
            epoll.unregister(a.as_raw_fd()).unwrap();
            assert_eq!(ready(&epoll), []);
        }
    }

    #[test]
    fn an_event_that_may_be_of_a_tag_that_came_again_is_asked_for_again() {
        let epoll = Epoll::create().unwrap();
        let ((a, _b), (idle, _c)) = (readable(), UnixStream::pair().unwrap());
        for (stream, data) in [(&a, 1), (&idle, 2)] {
            epoll.register(stream.as_raw_fd(), IN | ET, data).unwrap();
        }
        assert_eq!(ready(&epoll), [(a.as_raw_fd(), 1)]);
        // Both were reported, says a wait that began very long ago.
        let event = |stream: &UnixStream| {
            let fd = stream.as_raw_fd();
            Event { events: IN, u64: cookie(epoll.registered().map.get(fd).unwrap().tag, fd) }
        };
        let events = [event(&a), event(&idle)];
        epoll.registered().count += u64::from(COUNTS);
        epoll.deliver(&events, &mut Out::none(), (&mut None, 2));
        // One of them is so, and its edge comes again.
        assert_eq!(ready(&epoll), [(a.as_raw_fd(), 1)]);
        assert_eq!(ready(&epoll), []);
    }

    #[test]
    fn what_is_left_over_is_not_taken_for_a_registration_of_the_same_tag() {
        let epoll = Epoll::create().unwrap();
        let ((old, _b), (fresh, other)) = (readable(), UnixStream::pair().unwrap());
        let fd = fd::duplicate_to_write(old.as_raw_fd()).unwrap();
        epoll.register(fd.raw(), IN, 1).unwrap();
        let tag = epoll.registered().map.get(fd.raw()).unwrap().tag;
        // Its number is another's now, and `old` keeps it alive.
        fd::replace(&fd::duplicate_to_write(fresh.as_raw_fd()).unwrap(), fd.raw()).unwrap();
        epoll.registered().count = u64::from(COUNTS);
        epoll.register(fd.raw(), IN, 2).unwrap();
        assert_eq!(epoll.registered().map.get(fd.raw()).unwrap().tag, tag);
        assert!(ready(&epoll).iter().all(|(fd, _)| *fd == -1));
        std::io::Write::write_all(&mut &other, b"x").unwrap();
        assert!(ready(&epoll).contains(&(fd.raw(), 2)));
    }

    #[test]
    fn numbers_of_objects_come_again_and_are_never_used_twice_at_once() {
        let kept = [Number::new(), Number::new()];
        for _ in 0..3 * NUMBERS {
            let number = Number::new();
            assert!(kept.iter().all(|kept| kept.number != number.number));
        }
        let numbers: Vec<_> = (0..NUMBERS).map(|_| Number::new()).collect();
        assert!(numbers.iter().any(|number| !number.is_own));
        drop(numbers);
        assert!(Number::new().is_own);
    }
}
