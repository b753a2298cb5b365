#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Three timers from Python, through ctypes and nothing else.

    timers_ctypes.py [LIBRARY]      the default is libevloop.so.0

Ends when the slowest timer has expired twice, after 1.5 s. It works with
every Python 3: nothing is needed but ctypes, not even os.timerfd_create of
Python 3.13.
"""

import ctypes
import select
import time
from ctypes import POINTER, byref, c_double, c_int, c_int64, c_uint32, c_uint64

from evloop import EINTR_RETURN, Handle, function, set_interrupt_mode


class Ready(ctypes.Structure):
    """evloop_ready_t"""

    _fields_ = [("fd", ctypes.c_int32), ("events", c_uint32), ("data", c_uint64)]


tfd_create = function("tfd_create", Handle, c_int, c_uint32)
tfd_settime = function("tfd_settime", c_int, Handle, c_uint32, c_double, c_double,
                       POINTER(c_double), POINTER(c_double))
tfd_fileno = function("tfd_fileno", c_int, Handle)
tfd_read = function("tfd_read", c_int, Handle, POINTER(c_uint64))
tfd_close = function("tfd_close", c_int, Handle)
epoll_create = function("evloop_epoll_create", Handle, c_uint32)
epoll_register = function("evloop_epoll_register", c_int, Handle, c_int, c_uint32, c_uint64)
epoll_wait = function("evloop_epoll_wait", c_int, Handle, POINTER(Ready), c_int, c_int64)
epoll_close = function("evloop_epoll_close", c_int, Handle)

# The constants have the system's values, so Python's own names serve; what
# Python has no name for is a plain number of the header.
TFD_NONBLOCK = 0o4000

PERIODS = (0.25, 0.5, 0.75)


def wait(ep, ready):
    """Interrupted waits return, so that Python runs its signal handlers:
    control-C raises KeyboardInterrupt here, and others resume the wait."""
    while True:
        try:
            return epoll_wait(ep, ready, len(ready), -1)
        except InterruptedError:
            pass


def main():
    set_interrupt_mode(EINTR_RETURN)
    ep = epoll_create(0)
    timers, totals = [], [0] * len(PERIODS)
    start = time.monotonic()
    for i, period in enumerate(PERIODS):
        timer = tfd_create(time.CLOCK_MONOTONIC, TFD_NONBLOCK)
        tfd_settime(timer, 0, period, period, None, None)
        epoll_register(ep, tfd_fileno(timer), select.EPOLLIN, i)
        timers.append(timer)

    ready = (Ready * len(PERIODS))()
    while totals[-1] < 2:
        for event in ready[:wait(ep, ready)]:
            expirations = c_uint64()
            tfd_read(timers[event.data], byref(expirations))
            totals[event.data] += expirations.value
            print("timer %.2f s: %d new, %d in all" % (
                PERIODS[event.data], expirations.value, totals[event.data]), flush=True)

    print("stopped after %.6f s" % (time.monotonic() - start))
    for timer, period, total in zip(timers, PERIODS, totals):
        print("timer %.2f s: total %d" % (period, total))
        tfd_close(timer)
    epoll_close(ep)


if __name__ == "__main__":
    main()
