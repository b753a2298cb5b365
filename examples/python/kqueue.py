# SPDX-License-Identifier: MIT OR Apache-2.0
"""select.kqueue of the BSDs on Linux: through ctypes and nothing else.

kqueue, kevent and the constants KQ_* are those of Python's select module, whose
documentation holds. Two things are put right: a queue that is closed while
another thread waits in it ends that wait at once, with EBADF; and changes are
not applied again after a signal.

A program that is to find them where they are on BSD, selectors.KqueueSelector
included, does this before it imports selectors, or what imports that:

    import kqueue, select
    for name in kqueue.__all__:
        setattr(select, name, getattr(kqueue, name))

The library is libevloop.so.0, or what the variable EVLOOP_LIBRARY says.
"""

import ctypes
import errno
import functools
import math
import operator
import os
import time
import weakref
from ctypes import POINTER, c_int, c_int16, c_int64, c_size_t, c_uint16, c_uint32, c_uint64

lib = ctypes.CDLL(os.environ.get("EVLOOP_LIBRARY", "libevloop.so.0"))

KQ_FILTER_READ = -1
KQ_FILTER_WRITE = -2
KQ_FILTER_AIO = -3
KQ_FILTER_VNODE = -4
KQ_FILTER_PROC = -5
KQ_FILTER_SIGNAL = -6
KQ_FILTER_TIMER = -7
KQ_FILTER_NETDEV = -16

KQ_EV_ADD = 0x1
KQ_EV_DELETE = 0x2
KQ_EV_ENABLE = 0x4
KQ_EV_DISABLE = 0x8
KQ_EV_ONESHOT = 0x10
KQ_EV_CLEAR = 0x20
KQ_EV_SYSFLAGS = 0xF000
KQ_EV_FLAG1 = 0x2000
KQ_EV_EOF = 0x8000
KQ_EV_ERROR = 0x4000

KQ_NOTE_LOWAT = 0x1  # READ, WRITE

KQ_NOTE_DELETE = 0x1  # VNODE
KQ_NOTE_WRITE = 0x2
KQ_NOTE_EXTEND = 0x4
KQ_NOTE_ATTRIB = 0x8
KQ_NOTE_LINK = 0x10
KQ_NOTE_RENAME = 0x20
KQ_NOTE_REVOKE = 0x40

KQ_NOTE_EXIT = 0x80000000  # PROC
KQ_NOTE_FORK = 0x40000000
KQ_NOTE_EXEC = 0x20000000
KQ_NOTE_PCTRLMASK = 0xF0000000
KQ_NOTE_PDATAMASK = 0x000FFFFF
KQ_NOTE_TRACK = 0x1
KQ_NOTE_TRACKERR = 0x2
KQ_NOTE_CHILD = 0x4

KQ_NOTE_LINKUP = 0x1  # NETDEV
KQ_NOTE_LINKDOWN = 0x2
KQ_NOTE_LINKINV = 0x4

__all__ = ["kqueue", "kevent"] + [name for name in globals() if name.startswith("KQ_")]


def signed(value, bits):
    """An integer that C has room for, or an exception."""
    value = operator.index(value)
    if not -1 << bits - 1 <= value < 1 << bits - 1:
        raise OverflowError("Python int too large for a signed C type of %d bits" % bits)
    return value


def identifier(thing):
    """A number, or the descriptor of what has one."""
    if hasattr(thing, "__index__"):
        number = operator.index(thing)
        if not 0 <= number < 1 << 64:
            raise OverflowError("ident is negative or has more than 64 bits")
        return number
    if not hasattr(thing, "fileno"):
        raise TypeError("argument must be an int, or have a fileno() method")
    descriptor = thing.fileno()
    if not isinstance(descriptor, int):
        raise TypeError("fileno() returned a non-integer")
    if descriptor < 0:
        raise ValueError("file descriptor cannot be a negative integer (%d)" % descriptor)
    return descriptor


def nanoseconds(timeout):
    """Seconds, or None, as the library has them: rounded up, -1 waits for ever."""
    if timeout is None:
        return -1
    try:
        if isinstance(timeout, float):
            product = timeout * 1e9
            exact = math.ceil(product) if product > 0 else math.floor(product)
        else:
            exact = operator.index(timeout) * 10**9
        exact = signed(exact, 64)
    except (TypeError, ValueError, OverflowError):  # as select.kqueue has it
        raise TypeError("timeout argument must be a number or None, got %.200s"
                        % type(timeout).__name__) from None
    if exact < 0:
        raise ValueError("timeout must be positive or None")
    return exact


@functools.total_ordering
class kevent(ctypes.Structure):
    """kevent(ident, filter=KQ_FILTER_READ, flags=KQ_EV_ADD, fflags=0, data=0, udata=0)

    A change to a queue, or an event from it: evloop_kevent_t.
    """

    _fields_ = [("ident", c_uint64), ("filter", c_int16), ("flags", c_uint16),
                ("fflags", c_uint32), ("data", c_int64), ("udata", c_uint64),
                ("_ext", c_uint64 * 4)]

    def __init__(self, ident, filter=KQ_FILTER_READ, flags=KQ_EV_ADD, fflags=0, data=0,
                 udata=0):
        super().__init__(identifier(ident), signed(filter, 16), operator.index(flags),
                         operator.index(fflags), signed(data, 64), operator.index(udata))

    def _values(self):
        return self.ident, self.filter, self.flags, self.fflags, self.data, self.udata

    def __eq__(self, other):
        if not isinstance(other, kevent):
            return NotImplemented
        return self._values() == other._values()

    def __lt__(self, other):
        if not isinstance(other, kevent):
            return NotImplemented
        return self._values() < other._values()

    def __repr__(self):
        return ("<select.kevent ident=%d filter=%d flags=0x%x fflags=0x%x data=0x%x udata=0x%x>"
                % (self.ident, self.filter, self.flags, self.fflags,
                   self.data & (1 << 64) - 1, self.udata))


# ---- the library's functions ----

def check(result, _function, _arguments):
    """Turns a negative result into an exception with the library's sentence."""
    if result == -errno.ESTALE:  # it is closed, which BSD reports as EBADF
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if result < 0:
        text = ctypes.create_string_buffer(256)
        lib.evloop_last_error(text, c_size_t(256))
        raise OSError(-result, text.value.decode())
    return result


def function(name, restype, *argtypes):
    f = getattr(lib, name)
    f.restype, f.argtypes, f.errcheck = restype, argtypes, check
    return f


Handle = c_int64
kqueue_create = function("evloop_kqueue_create", Handle, c_uint32)
kqueue_from_fd = function("evloop_kqueue_from_fd", Handle, c_int, c_uint32)
kqueue_fileno = function("evloop_kqueue_fileno", c_int, Handle)
kqueue_control = function("evloop_kqueue_control", c_int, Handle, POINTER(kevent), c_int,
                          POINTER(kevent), c_int, c_int64)
kqueue_close = function("evloop_kqueue_close", c_int, Handle)
set_interrupt_mode = function("evloop_set_interrupt_mode", c_int, c_int)
EINTR_RETURN = 1
FD_OWN = 1


class kqueue:
    """A queue of events of the kernel."""

    _handle = None
    _all = weakref.WeakSet()

    def __init__(self):
        self._open(kqueue_create(0))

    @classmethod
    def fromfd(cls, fd, /):
        """A queue from a given descriptor, which it closes in its turn."""
        self = cls.__new__(cls)
        self._open(kqueue_from_fd(signed(fd, 32), FD_OWN))
        return self

    def _open(self, handle):
        self._handle = handle
        self._all.add(self)

    def _live(self):
        handle = self._handle
        if handle is None:
            raise ValueError("I/O operation on closed kqueue object")
        return handle

    @property
    def closed(self):
        """True if the queue is closed."""
        return self._handle is None

    def close(self):
        """Close the queue. It may be closed again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                kqueue_close(handle)
            except OSError:  # closed as the queue of another descriptor
                pass

    __del__ = close

    def fileno(self):
        """The descriptor of the queue."""
        return kqueue_fileno(self._live())

    def control(self, changelist, max_events, timeout=None, /):
        """Change what is watched, and wait for up to so many events.

        changelist is an iterable of kevents or None, timeout seconds or None.
        """
        room = signed(max_events, 32)
        handle = self._live()
        if room < 0:
            raise ValueError("Length of eventlist must be 0 or positive, got %d" % room)
        wait_ns = nanoseconds(timeout)
        changes = [] if changelist is None else list(changelist)
        if not all(isinstance(change, kevent) for change in changes):
            raise TypeError("changelist must be an iterable of select.kevent objects")
        events = (kevent * room)()
        count = interruptible(handle, (kevent * len(changes))(*changes), events, wait_ns)
        # Each a copy, that does not keep all of them in memory.
        return [kevent.from_buffer_copy(event) for event in events[:count]]


def interruptible(handle, changes, events, wait_ns):
    """Waits, and lets Python run its signal handlers when a signal comes: what
    they raise ends the wait, else it goes on with the rest of its time."""
    end_ns = time.monotonic_ns() + wait_ns
    left = len(changes)
    before = set_interrupt_mode(EINTR_RETURN)
    try:
        while True:
            try:
                return kqueue_control(handle, changes, left, events, len(events), wait_ns)
            except InterruptedError:
                left = 0  # all of them were applied
                if wait_ns > 0:
                    wait_ns = max(0, end_ns - time.monotonic_ns())
    finally:
        set_interrupt_mode(before)


def close_all():
    for queue in list(kqueue._all):
        queue.close()


# A forked child has no queues of its parent's.
os.register_at_fork(after_in_child=close_all)
