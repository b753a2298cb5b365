//! The constants of the header that kqueue has.
// Some are only C's.
#![allow(dead_code)]

use crate::kqueue;

/// Filter: there is something to read. ident is a descriptor.
///
/// It works for everything that can be polled, and for files. data is:
///
///   stream sockets,  the bytes that can be read, without an urgent one; an
///   local SEQPACKET  upper bound if an urgent byte is in their middle
///   other sockets    exact, or an upper bound: see below
///   listening        the number of connections to accept; 1 where the kernel
///   sockets          does not report it (other than TCP and local ones)
///   pipes, FIFOs,    the bytes that can be read
///   ttys
///   regular files    from the position to the end, which may be negative;
///                    at the end there is no event until the file grows
///   directories      the same, by the size that fstat() reports
///   devices that     0: always ready (/dev/null)
///   are not polled
///   eventfds,        the counter, the expirations, of 64 bits without a
///   timerfds         sign; 1 without a /proc
///   kqueues          the number of its events, about
///   other            1
///
/// Of a socket that keeps messages (UDP, raw, packet, netlink, local datagrams
/// and others) Linux reports the length of the first message, and not the sum.
/// data is exact if the memory that the socket uses has no room for a second
/// message. Otherwise it is an upper bound, and never less than the sum: a
/// program that receives until it has used up data, or until EAGAIN, receives
/// everything. EAGAIN is the surer sign. An empty message counts as one byte.
/// For local datagram sockets the bound is the first message plus the size of
/// the receive buffer, and without a peer plus sixteen times that size. Only
/// senders with larger send buffers, or more of them than
/// net.unix.max_dgram_qlen allows by default, exceed it. EVLOOP_KQ_NOTE_LOWAT
/// is compared with data, so it may be reached early.
///
/// When the other side has closed, EVLOOP_KQ_EV_EOF is set, data is what is
/// left, and fflags is the errno of a failed TCP connection, as far as the
/// library can read it without taking it from getsockopt(SO_ERROR):
/// ECONNREFUSED, ECONNRESET or 0. A socket that was never connected has no
/// event. fflags of the change may have EVLOOP_KQ_NOTE_LOWAT or
/// EVLOOP_KQ_NOTE_FILE_POLL.
///
/// Not seen are a change of the position by lseek(), and what other machines do
/// to a network file system. A file that the process may not read is polled
/// every 100 ms.
pub const EVLOOP_KQ_FILTER_READ: i16 = -1;
/// Filter: there is room to write. ident is a descriptor.
///
/// data is the number of bytes that there is room for: in a socket's send
/// buffer; in a pipe, at least 1; what can be added to an eventfd, of 64 bits
/// without a sign; 1 where the kernel does not report it; 0 for files and
/// devices that are not polled, which are always ready.
///
/// EVLOOP_KQ_EV_EOF: a write would be EPIPE, because the other side has closed,
/// or because the program has called shutdown(SHUT_WR) (TCP and local stream
/// sockets). data is then 0, and fflags as for EVLOOP_KQ_FILTER_READ. A socket
/// that was never connected has no event. With EVLOOP_KQ_NOTE_LOWAT, while
/// there is some room but less than that, the descriptor is polled every 10 ms.
pub const EVLOOP_KQ_FILTER_WRITE: i16 = -2;
/// Filter: an operation of evloop_kqueue_aio_read() or a function like it is
/// complete. These functions add the knote; a change with EVLOOP_KQ_EV_ADD is
/// -EPERM. It can be disabled and enabled. It is deleted when its event was
/// delivered, and cannot be deleted while the operation is in progress
/// (-EBUSY).
pub const EVLOOP_KQ_FILTER_AIO: i16 = -3;
/// Filter: a file changes or is used, whatever its names are. ident is a
/// descriptor of a regular file, a directory, a device or a named pipe; any
/// other is -EINVAL, and a memfd -ENOTSUP.
///
/// When one of the requested bits has happened, fflags has all bits of what
/// happened: EVLOOP_KQ_NOTE_WRITE and _EXTEND of a file that was written and
/// grew, even if only one of them was requested.
///
/// A queue has one inotify(7) for this. The process must have read permission
/// for the file (-EACCES), and there must be a /proc (-ENOTSUP). Not seen are
/// writes through mmap(2), and what other machines do to a network file system.
/// A change that happens twice before the library reads it is one event. If a
/// descriptor was closed and opened again, with the same fd for the same file,
/// the watch continues. If the kernel drops events
/// (fs.inotify.max_queued_events), each knote gets all requested bits that may
/// have happened; that is all but DELETE and LINK, for which the library counts
/// the names.
///
/// The queue's descriptor also becomes readable after a change that is no
/// event, such as the use of a directory's entry, until the next call.
pub const EVLOOP_KQ_FILTER_VNODE: i16 = -4;
/// Filter: processes. ident is the id of any process that can be seen.
///
/// -ESRCH: there is no such process. An event of EVLOOP_KQ_NOTE_EXIT has
/// EVLOOP_KQ_EV_EOF and EVLOOP_KQ_EV_ONESHOT, and the knote is deleted after
/// it. EVLOOP_KQ_EV_CLEAR is always on. The bits of fflags:
///
///   NOTE_EXIT        works. data is the status, as waitpid() has it. For a
///                    child it is always known, unless the program waited for
///                    it first and the kernel is older than 6.15. For another
///                    process it is known if this process may inspect it (the
///                    same user) or, since Linux 6.15, once it was waited for;
///                    else fflags has EVLOOP_KQ_NOTE_EXITUNKNOWN and data
///                    is 0. The event comes when the process has ended,
///                    not when it is waited for; one that has ended
///                    already, and was not waited for, has it at once.
///                    Before Linux 5.17 the status is that of the first
///                    thread, if that ended before others
///   NOTE_EXITSTATUS  works: nothing more than NOTE_EXIT (macOS requires it),
///                    in the event if the status is known
///   NOTE_FORK        works where the kernel reports forks: with
///                    CAP_NET_ADMIN (since Linux 6.6 without), in the
///                    first network, process and user namespaces;
///                    -ENOTSUP elsewhere
///   NOTE_EXEC        as NOTE_FORK
///   NOTE_TRACK       as NOTE_FORK: children, and theirs, are watched in
///                    the same way, each after an event NOTE_CHILD with
///                    the parent's id in data
///   NOTE_TRACKERR    in an event: a child is not watched; or forks and
///                    executions were lost, as there were too many at once
///   NOTE_CHILD       in an event: ident is a child of a tracked process
///   NOTE_REAP, NOTE_SIGNAL, NOTE_EXIT_DETAIL (macOS)
///                    refused, -ENOTSUP: the kernel does not report it
///
/// While forks are watched, those of other processes may make the queue's
/// descriptor readable without an event.
pub const EVLOOP_KQ_FILTER_PROC: i16 = -5;
/// Filter: signals. ident is the signal.
///
/// data is how often it arrived since the last event. EVLOOP_KQ_EV_CLEAR is
/// always on. -EINVAL: no signal, one that cannot be watched (SIGKILL,
/// SIGSTOP), or fflags is not 0. How the queue sees the signal is decided when
/// the knote is added:
///
///                   the calling thread does    it does: a signalfd takes
///                   not block it: a handler    it from there
///                   counts it
///   count           each delivery; a signal    the same
///                   that is sent while it is
///                   pending comes once (not
///                   those from SIGRTMIN on)
///   SIG_IGN         counted, and ignored       counted
///   SIG_DFL         counted, then what the     counted, and nothing more
///                   kernel does by default:
///                   it ends, stops or ignores;
///                   nothing where a loop
///                   watches it, too
///   a handler       counted, then called, as   counted, and not called:
///                   the kernel would have      it is not pending any more
///   set later       see below                  as a handler
///   several queues  each counts it, and so     the same
///   and loops       does each event loop that
///                   watches it
///   sent to a       counted                    counted if that thread
///   thread                                     waits in the queue
///   blocked by a    counted when a thread      (all must block it, or it
///   thread          takes it that does not     goes to one that does not)
///
/// If one queue or loop sees a signal by a handler and another one by a
/// signalfd, both count it, whichever way it is seen.
///
/// With a handler, the library has a handler of the signal. When the last event
/// that needs it is deleted, in any queue or loop, the library restores the
/// disposition that the program has set. Calls that are never resumed (poll,
/// nanosleep) are interrupted by a signal that was ignored. In a child of
/// fork() nothing is counted, and the signal does what the program has set,
/// SIG_IGN too; a program that such a child executes finds the same. A program
/// that is executed without a fork(), or by posix_spawn() or vfork(), finds the
/// default where the signal was ignored, because the kernel replaces the
/// library's handler with that.
///
/// The program may change the disposition later, to a handler, SIG_IGN or
/// SIG_DFL. In programs that are linked with the shared library
/// libevloop-kqueue the change has effect at once, and every signal is still
/// counted. That library has sigaction(), signal() and their relatives
/// (bsd_signal, ssignal, sysv_signal, sigset, sigignore, siginterrupt). They
/// keep the library's handler in place and answer as if it were not there: see
/// evloop_bsd_sigaction(). They replace those of the C library if the linker
/// finds libevloop-kqueue before the C library. So they do not in these cases:
/// - libevloop-kqueue is loaded with dlopen() or linked statically;
/// - code makes the system call itself, or has the C library's address from
///   elsewhere, as system() has;
/// - a sanitizer's functions of these names come first.
///
/// Then, and in programs without that library, the later change replaces the
/// library's handler, and nothing is counted until the next
/// evloop_kqueue_control() that collects. That call puts the library's handler
/// over the new disposition; it returns -EBUSY if 16 handlers of the library
/// lie over one another.
pub const EVLOOP_KQ_FILTER_SIGNAL: i16 = -6;
/// Filter: a timer. ident is a number that the caller chooses.
///
/// The change's data is the period, in milliseconds or the unit in fflags; 0
/// means 1. With EVLOOP_KQ_EV_ONESHOT the timer expires once, after 0 at once.
/// With EVLOOP_KQ_NOTE_ABSTIME data is a time of the wall clock, whose steps
/// the timer follows, and it expires once. data of an event is the number of
/// expirations since the last one, also while it was disabled. Adding the timer
/// again restarts it and drops its expirations. EVLOOP_KQ_EV_CLEAR is always
/// on, except with ABSTIME. -EINVAL: data is negative, or fflags has two units.
///
/// Timers do not expire early. They share one descriptor for each clock. With
/// more than 64 of them the queue's descriptor may be readable at a time that a
/// timer was set to before, until the next call.
pub const EVLOOP_KQ_FILTER_TIMER: i16 = -7;
/// Filter: file systems are mounted or unmounted, in the mount namespace of the
/// thread that added it first. ident is a number that the caller chooses;
/// fflags are EVLOOP_KQ_VQ bits, 0 for all. EVLOOP_KQ_EV_CLEAR is always set. A
/// mount that appears and disappears before the library reads the list of
/// mounts is not seen.
pub const EVLOOP_KQ_FILTER_FS: i16 = -9;
/// Filter: triggered by the program. ident is a number that the caller chooses.
///
/// A change with EVLOOP_KQ_NOTE_TRIGGER, from any thread, makes an event, also
/// while the knote is disabled. The event stays until the knote is deleted;
/// with EVLOOP_KQ_EV_CLEAR until it is delivered. data and fflags of the event
/// are what changes have set.
pub const EVLOOP_KQ_FILTER_USER: i16 = -11;
/// Filter: a socket has nothing left to send. ident is its descriptor; -EINVAL
/// for others, and for sockets that do not count what they have to send
/// (netlink).
///
/// For a TCP connection it means that the peer has acknowledged all bytes, or
/// that the connection broke; for a local socket that its peer has received
/// them. data and fflags are 0. The kernel notifies the queue of changes of
/// local sockets. Others are polled after 1 ms, and then after twice as long
/// each time, up to 20 ms, while something is left to send and the knote is
/// enabled. After an event with EVLOOP_KQ_EV_CLEAR only the next call that
/// collects notices that more was sent.
pub const EVLOOP_KQ_FILTER_EMPTY: i16 = -13;
/// Filter: the link of a network interface goes up or down. ident is the
/// interface's index, in the network namespace of the thread that added the
/// first one; -ENXIO if there is none. data is the current state of the link,
/// one of the three bits. Before Linux 6.12 a link that goes up may have a
/// state in between, so that LINKINV comes before LINKUP. When the interface is
/// removed, there is a last event with LINKINV and EVLOOP_KQ_EV_EOF.
pub const EVLOOP_KQ_FILTER_NETDEV: i16 = -16;
/// Filter: a socket has out-of-band data, EVLOOP_KQ_NOTE_OOB, or its peer sends
/// no more, EVLOOP_KQ_EV_EOF. ident is a descriptor of a socket (-EINVAL). data
/// is 0. It is one event as long as the urgent byte is not received.
pub const EVLOOP_KQ_FILTER_EXCEPT: i16 = -17;
/// Change: add a knote. If the queue has the ident with this filter already,
/// fflags, data, udata and ext are replaced; EVLOOP_KQ_EV_ONESHOT, _CLEAR,
/// _DISPATCH and _RECEIPT stay as they were when it was added first. The knote
/// is enabled, unless EVLOOP_KQ_EV_DISABLE is given.
pub const EVLOOP_KQ_EV_ADD: u16 = 0x1;
/// Change: delete the knote.
pub const EVLOOP_KQ_EV_DELETE: u16 = 0x2;
/// Change: deliver events.
pub const EVLOOP_KQ_EV_ENABLE: u16 = 0x4;
/// Change: deliver no events; what happens is kept.
pub const EVLOOP_KQ_EV_DISABLE: u16 = 0x8;
/// Flag: after one event the knote is deleted. This flag and the three after it
/// are fixed when the ident is added first.
pub const EVLOOP_KQ_EV_ONESHOT: u16 = 0x10;
/// Flag: an event is only delivered again when something happens.
pub const EVLOOP_KQ_EV_CLEAR: u16 = 0x20;
/// Flag of a change: it gets an EVLOOP_KQ_EV_ERROR entry, with data 0 if it
/// succeeded.
pub const EVLOOP_KQ_EV_RECEIPT: u16 = 0x40;
/// Flag: after one event the knote is disabled.
pub const EVLOOP_KQ_EV_DISPATCH: u16 = 0x80;
/// Change: deliver one event at once, pending or not, then delete the knote.
pub const EVLOOP_KQ_EV_FORCEONESHOT: u16 = 0x100;
/// Change: udata and ext stay as they are.
pub const EVLOOP_KQ_EV_KEEPUDATA: u16 = 0x200;
/// Flag: udata is part of the identity: knotes with the same ident and filter
/// but different udata are different. (macOS has it, under a value that is
/// EVLOOP_KQ_EV_FORCEONESHOT on FreeBSD.)
pub const EVLOOP_KQ_EV_UDATA_SPECIFIC: u16 = 0x400;
/// The bits that a change cannot set.
pub const EVLOOP_KQ_EV_SYSFLAGS: u16 = 0xf000;
/// Of EVLOOP_KQ_EV_SYSFLAGS; not used.
pub const EVLOOP_KQ_EV_DROP: u16 = 0x1000;
/// Of EVLOOP_KQ_EV_SYSFLAGS; not used.
pub const EVLOOP_KQ_EV_FLAG1: u16 = 0x2000;
/// Of EVLOOP_KQ_EV_SYSFLAGS; not used.
pub const EVLOOP_KQ_EV_FLAG2: u16 = 0x4000;
/// In an entry: the change failed with the errno in data or, if data is 0, it
/// succeeded.
pub const EVLOOP_KQ_EV_ERROR: u16 = 0x4000;
/// In an event: the other side has closed.
pub const EVLOOP_KQ_EV_EOF: u16 = 0x8000;
/// READ, WRITE: only with at least as many bytes as data has.
pub const EVLOOP_KQ_NOTE_LOWAT: u32 = 0x1;
/// READ of a regular file: also at the end of the file.
pub const EVLOOP_KQ_NOTE_FILE_POLL: u32 = 0x2;
/// EXCEPT: out-of-band data. Works; TCP's urgent byte, and those of local
/// stream sockets since Linux 5.15.
pub const EVLOOP_KQ_NOTE_OOB: u32 = 0x2;
/// VNODE: a name of it was removed, or another file was renamed to it. Works.
/// For a directory its parent directory must be readable too.
pub const EVLOOP_KQ_NOTE_DELETE: u32 = 0x1;
/// VNODE: it was written; of a directory, its entries changed. Works.
/// Truncating it is reported as a write too, and so is setting only the time of
/// its last modification.
pub const EVLOOP_KQ_NOTE_WRITE: u32 = 0x2;
/// VNODE: it became longer; an entry was moved into a directory, or out of it.
/// Works, by its size when the library checks it.
pub const EVLOOP_KQ_NOTE_EXTEND: u32 = 0x4;
/// VNODE: its attributes changed, or it became shorter. Works; an extended
/// attribute that is set together with a new link may be missed.
pub const EVLOOP_KQ_NOTE_ATTRIB: u32 = 0x8;
/// VNODE: its number of links changed; a subdirectory of it was created or
/// removed. Works. A link that is created and removed before the library checks
/// is an ATTRIB.
pub const EVLOOP_KQ_NOTE_LINK: u32 = 0x10;
/// VNODE: it was renamed. Works.
pub const EVLOOP_KQ_NOTE_RENAME: u32 = 0x20;
/// VNODE: its file system was unmounted, with EVLOOP_KQ_EV_EOF. Works in part:
/// Linux cannot revoke files, and unmounts a file system in use only by
/// MNT_DETACH. It is not reported if the mount was in another namespace from
/// the beginning.
pub const EVLOOP_KQ_NOTE_REVOKE: u32 = 0x40;
/// VNODE: it was opened. Works.
pub const EVLOOP_KQ_NOTE_OPEN: u32 = 0x80;
/// VNODE: a descriptor of it was closed that could not write. Works.
pub const EVLOOP_KQ_NOTE_CLOSE: u32 = 0x100;
/// VNODE: a descriptor of it was closed that could write. Works.
pub const EVLOOP_KQ_NOTE_CLOSE_WRITE: u32 = 0x200;
/// VNODE: it was read. Works.
pub const EVLOOP_KQ_NOTE_READ: u32 = 0x400;
/// PROC: the process ended.
pub const EVLOOP_KQ_NOTE_EXIT: u32 = 0x80000000;
/// PROC: it forked.
pub const EVLOOP_KQ_NOTE_FORK: u32 = 0x40000000;
/// PROC: it executed another program.
pub const EVLOOP_KQ_NOTE_EXEC: u32 = 0x20000000;
/// PROC: it ended, and data is its status (macOS).
pub const EVLOOP_KQ_NOTE_EXITSTATUS: u32 = 0x4000000;
/// PROC: it ended, and its status is not known.
pub const EVLOOP_KQ_NOTE_EXITUNKNOWN: u32 = 0x100000;
/// PROC: the mask of the bits for events.
pub const EVLOOP_KQ_NOTE_PCTRLMASK: u32 = 0xf0000000;
/// PROC: the mask of the bits for data.
pub const EVLOOP_KQ_NOTE_PDATAMASK: u32 = 0xfffff;
/// PROC: children too.
pub const EVLOOP_KQ_NOTE_TRACK: u32 = 0x1;
/// PROC: a child could not be watched.
pub const EVLOOP_KQ_NOTE_TRACKERR: u32 = 0x2;
/// PROC: the process is a child of a tracked one.
pub const EVLOOP_KQ_NOTE_CHILD: u32 = 0x4;
/// FS: a server does not respond; -ENOTSUP.
pub const EVLOOP_KQ_VQ_NOTRESP: u32 = 0x1;
/// FS: a server wants authentication; -ENOTSUP.
pub const EVLOOP_KQ_VQ_NEEDAUTH: u32 = 0x2;
/// FS: there is little space left; -ENOTSUP.
pub const EVLOOP_KQ_VQ_LOWDISK: u32 = 0x4;
/// FS: a file system was mounted, or a mount moved. Works.
pub const EVLOOP_KQ_VQ_MOUNT: u32 = 0x8;
/// FS: a file system was unmounted, or a mount moved. Works.
pub const EVLOOP_KQ_VQ_UNMOUNT: u32 = 0x10;
/// FS: a file system is dead; -ENOTSUP.
pub const EVLOOP_KQ_VQ_DEAD: u32 = 0x20;
/// FS: a file system needs help; -ENOTSUP.
pub const EVLOOP_KQ_VQ_ASSIST: u32 = 0x40;
/// FS: the locks of a server do not respond; -ENOTSUP.
pub const EVLOOP_KQ_VQ_NOTRESPLOCK: u32 = 0x80;
/// NETDEV: the link is up. Works.
pub const EVLOOP_KQ_NOTE_LINKUP: u32 = 0x1;
/// NETDEV: the link is down, or the interface is. Works.
pub const EVLOOP_KQ_NOTE_LINKDOWN: u32 = 0x2;
/// NETDEV: the state of the link is not known: the driver does not report it,
/// as for the loopback interface, or the interface is removed. Works.
pub const EVLOOP_KQ_NOTE_LINKINV: u32 = 0x4;
/// TIMER: data is seconds.
pub const EVLOOP_KQ_NOTE_SECONDS: u32 = 0x1;
/// TIMER: data is milliseconds, as without any unit.
pub const EVLOOP_KQ_NOTE_MSECONDS: u32 = 0x2;
/// TIMER: data is microseconds.
pub const EVLOOP_KQ_NOTE_USECONDS: u32 = 0x4;
/// TIMER: data is nanoseconds.
pub const EVLOOP_KQ_NOTE_NSECONDS: u32 = 0x8;
/// TIMER: data is a time of the wall clock; the timer expires once, at that
/// time.
pub const EVLOOP_KQ_NOTE_ABSTIME: u32 = 0x10;
/// USER: fflags are unchanged.
pub const EVLOOP_KQ_NOTE_FFNOP: u32 = 0x0;
/// USER: fflags are combined by AND with those of the change.
pub const EVLOOP_KQ_NOTE_FFAND: u32 = 0x40000000;
/// USER: fflags are combined by OR with those of the change.
pub const EVLOOP_KQ_NOTE_FFOR: u32 = 0x80000000;
/// USER: fflags are replaced by those of the change.
pub const EVLOOP_KQ_NOTE_FFCOPY: u32 = 0xc0000000;
/// USER: the mask of these four.
pub const EVLOOP_KQ_NOTE_FFCTRLMASK: u32 = 0xc0000000;
/// USER: the mask of the bits that the program may use.
pub const EVLOOP_KQ_NOTE_FFLAGSMASK: u32 = 0xffffff;
/// USER: trigger the event.
pub const EVLOOP_KQ_NOTE_TRIGGER: u32 = 0x1000000;
/// evloop_kqueue_aio_fsync(): only what is needed to read the data again.
pub const EVLOOP_KQ_AIO_DATASYNC: u32 = 0x1;
/// evloop_kqueue_create(): close on exec; always on, accepted.
pub const EVLOOP_KQ_CLOEXEC: u32 = 0x1;
/// evloop_kqueue_create(): a forked child has a copy of the queue.
pub const EVLOOP_KQ_CPONFORK: u32 = 0x2;
/// evloop_kqueue_create(): the program deletes before it closes what has
/// duplicates. Since 0.2.0.
pub const EVLOOP_KQ_TRUST_FDS: u32 = 0x100;

// What the queue itself goes by.
const _: () = {
    assert!(EVLOOP_KQ_FILTER_READ == kqueue::FILTER_READ);
    assert!(EVLOOP_KQ_FILTER_WRITE == kqueue::FILTER_WRITE);
    assert!(EVLOOP_KQ_FILTER_AIO == kqueue::FILTER_AIO);
    assert!(EVLOOP_KQ_FILTER_VNODE == kqueue::FILTER_VNODE);
    assert!(EVLOOP_KQ_FILTER_PROC == kqueue::FILTER_PROC);
    assert!(EVLOOP_KQ_FILTER_SIGNAL == kqueue::FILTER_SIGNAL);
    assert!(EVLOOP_KQ_FILTER_TIMER == kqueue::FILTER_TIMER);
    assert!(EVLOOP_KQ_FILTER_FS == kqueue::FILTER_FS);
    assert!(EVLOOP_KQ_FILTER_USER == kqueue::FILTER_USER);
    assert!(EVLOOP_KQ_FILTER_EMPTY == kqueue::FILTER_EMPTY);
    assert!(EVLOOP_KQ_FILTER_NETDEV == kqueue::FILTER_NETDEV);
    assert!(EVLOOP_KQ_FILTER_EXCEPT == kqueue::FILTER_EXCEPT);
    assert!(EVLOOP_KQ_EV_ADD == kqueue::EV_ADD);
    assert!(EVLOOP_KQ_EV_DELETE == kqueue::EV_DELETE);
    assert!(EVLOOP_KQ_EV_ENABLE == kqueue::EV_ENABLE);
    assert!(EVLOOP_KQ_EV_DISABLE == kqueue::EV_DISABLE);
    assert!(EVLOOP_KQ_EV_ONESHOT == kqueue::EV_ONESHOT);
    assert!(EVLOOP_KQ_EV_CLEAR == kqueue::EV_CLEAR);
    assert!(EVLOOP_KQ_EV_RECEIPT == kqueue::EV_RECEIPT);
    assert!(EVLOOP_KQ_EV_DISPATCH == kqueue::EV_DISPATCH);
    assert!(EVLOOP_KQ_EV_FORCEONESHOT == kqueue::EV_FORCEONESHOT);
    assert!(EVLOOP_KQ_EV_KEEPUDATA == kqueue::EV_KEEPUDATA);
    assert!(EVLOOP_KQ_EV_UDATA_SPECIFIC == kqueue::EV_UDATA_SPECIFIC);
    assert!(EVLOOP_KQ_EV_SYSFLAGS == kqueue::EV_SYSFLAGS);
    assert!(EVLOOP_KQ_EV_ERROR == kqueue::EV_ERROR);
    assert!(EVLOOP_KQ_EV_EOF == kqueue::EV_EOF);
    assert!(EVLOOP_KQ_NOTE_LOWAT == kqueue::NOTE_LOWAT);
    assert!(EVLOOP_KQ_NOTE_FILE_POLL == kqueue::NOTE_FILE_POLL);
    assert!(EVLOOP_KQ_NOTE_OOB == kqueue::NOTE_OOB);
    assert!(EVLOOP_KQ_NOTE_DELETE == kqueue::NOTE_DELETE);
    assert!(EVLOOP_KQ_NOTE_WRITE == kqueue::NOTE_WRITE);
    assert!(EVLOOP_KQ_NOTE_EXTEND == kqueue::NOTE_EXTEND);
    assert!(EVLOOP_KQ_NOTE_ATTRIB == kqueue::NOTE_ATTRIB);
    assert!(EVLOOP_KQ_NOTE_LINK == kqueue::NOTE_LINK);
    assert!(EVLOOP_KQ_NOTE_RENAME == kqueue::NOTE_RENAME);
    assert!(EVLOOP_KQ_NOTE_REVOKE == kqueue::NOTE_REVOKE);
    assert!(EVLOOP_KQ_NOTE_OPEN == kqueue::NOTE_OPEN);
    assert!(EVLOOP_KQ_NOTE_CLOSE == kqueue::NOTE_CLOSE);
    assert!(EVLOOP_KQ_NOTE_CLOSE_WRITE == kqueue::NOTE_CLOSE_WRITE);
    assert!(EVLOOP_KQ_NOTE_READ == kqueue::NOTE_READ);
    assert!(EVLOOP_KQ_VQ_MOUNT == kqueue::VQ_MOUNT);
    assert!(EVLOOP_KQ_VQ_UNMOUNT == kqueue::VQ_UNMOUNT);
    assert!(EVLOOP_KQ_NOTE_LINKUP == kqueue::NOTE_LINKUP);
    assert!(EVLOOP_KQ_NOTE_LINKDOWN == kqueue::NOTE_LINKDOWN);
    assert!(EVLOOP_KQ_NOTE_LINKINV == kqueue::NOTE_LINKINV);
    assert!(EVLOOP_KQ_NOTE_EXIT == kqueue::NOTE_EXIT);
    assert!(EVLOOP_KQ_NOTE_FORK == kqueue::NOTE_FORK);
    assert!(EVLOOP_KQ_NOTE_EXEC == kqueue::NOTE_EXEC);
    assert!(EVLOOP_KQ_NOTE_TRACK == kqueue::NOTE_TRACK);
    assert!(EVLOOP_KQ_NOTE_TRACKERR == kqueue::NOTE_TRACKERR);
    assert!(EVLOOP_KQ_NOTE_CHILD == kqueue::NOTE_CHILD);
    assert!(EVLOOP_KQ_NOTE_EXITSTATUS == kqueue::NOTE_EXITSTATUS);
    assert!(EVLOOP_KQ_NOTE_EXITUNKNOWN == kqueue::NOTE_EXITUNKNOWN);
    assert!(EVLOOP_KQ_NOTE_SECONDS == kqueue::NOTE_SECONDS);
    assert!(EVLOOP_KQ_NOTE_MSECONDS == kqueue::NOTE_MSECONDS);
    assert!(EVLOOP_KQ_NOTE_USECONDS == kqueue::NOTE_USECONDS);
    assert!(EVLOOP_KQ_NOTE_NSECONDS == kqueue::NOTE_NSECONDS);
    assert!(EVLOOP_KQ_NOTE_ABSTIME == kqueue::NOTE_ABSTIME);
    assert!(EVLOOP_KQ_NOTE_FFNOP == kqueue::NOTE_FFNOP);
    assert!(EVLOOP_KQ_NOTE_FFAND == kqueue::NOTE_FFAND);
    assert!(EVLOOP_KQ_NOTE_FFOR == kqueue::NOTE_FFOR);
    assert!(EVLOOP_KQ_NOTE_FFCOPY == kqueue::NOTE_FFCOPY);
    assert!(EVLOOP_KQ_NOTE_FFCTRLMASK == kqueue::NOTE_FFCTRLMASK);
    assert!(EVLOOP_KQ_NOTE_FFLAGSMASK == kqueue::NOTE_FFLAGSMASK);
    assert!(EVLOOP_KQ_NOTE_TRIGGER == kqueue::NOTE_TRIGGER);
};
