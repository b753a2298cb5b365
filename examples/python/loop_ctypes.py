#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The event loop from Python, through ctypes and nothing else.

    loop_ctypes.py [LIBRARY [TICKS]]      the defaults are libevloop.so.0 and 3

A timer that writes into a pipe TICKS times, the reading end of that pipe, and
a call posted by another thread: what examples/c/no_callbacks.c does. With 0
ticks it goes on until control-C.

No function of Python is called from C: watchers are added without a callback,
and evloop_wait() returns their events.
"""

import ctypes
import os
import select
import signal
import sys
import threading
import time
from ctypes import POINTER, c_int, c_int64, c_uint32, c_uint64, c_void_p

from evloop import Handle, function

TICKS = int(sys.argv[2]) if len(sys.argv) > 2 else 3


class Event(ctypes.Structure):
    """evloop_event_t"""

    _fields_ = [("watcher", c_int64), ("data", c_uint64), ("type", c_int),
                ("events", c_uint32), ("fd", c_int), ("result", c_int),
                ("count", c_uint64), ("time_ns", c_int64), ("deadline_ns", c_int64),
                ("reserved", c_uint64)]


Callback = c_void_p  # always None here
loop_create = function("evloop_create", Handle, c_void_p)
loop_close = function("evloop_close", c_int, Handle)
loop_stop = function("evloop_stop", c_int, Handle)
loop_wait = function("evloop_wait", c_int, Handle, POINTER(Event), c_int, c_int64)
post = function("evloop_post", c_int, Handle, Callback, c_void_p)
add_io = function("evloop_add_io", Handle, Handle, c_int, c_uint32, Callback, c_void_p)
add_timer = function("evloop_add_timer", Handle, Handle, c_int, c_uint32, c_int64, c_int64,
                     c_int64, Callback, c_void_p)
add_signal = function("evloop_add_signal", Handle, Handle, c_int, c_uint32, Callback, c_void_p)
watcher_unref = function("evloop_watcher_unref", c_int, Handle)
watcher_close = function("evloop_watcher_close", c_int, Handle, c_uint32)
handle_count = function("evloop_handle_count", c_int64, c_int)

# The constants have the system's values, so Python's own names serve; what
# Python has no name for is a plain number of the header.
EVENT_POST = 11
ERROR = 16777216


def main():
    readable, writable = os.pipe()
    os.set_blocking(readable, False)

    loop = loop_create(None)
    timer = add_timer(loop, time.CLOCK_MONOTONIC, 0, 50_000_000, 50_000_000, 0, None, None)
    reader = add_io(loop, readable, select.EPOLLIN, None, None)
    # Over Python's own handler, which is called as well: the wait returns, at
    # whatever moment the signal comes, and Python runs what it has for it.
    control_c = add_signal(loop, signal.SIGINT, 0, None, None)
    watcher_unref(control_c)  # it does not keep the loop alive
    poster = threading.Thread(target=lambda: post(loop, None, 42))
    poster.start()

    # A KeyboardInterrupt would come between any two steps of the work below;
    # a stop is seen by the next wait.
    interrupted = []
    signal.signal(signal.SIGINT, lambda *_: (interrupted.append(True), loop_stop(loop)))

    ticks = 0
    events = (Event * 8)()
    while ready := events[:loop_wait(loop, events, len(events), -1)]:
        for event in ready:
            if event.events & ERROR:
                raise OSError(-event.result, os.strerror(-event.result))

            if event.type == EVENT_POST:
                print("posted: %d" % event.data, flush=True)

            elif event.watcher == timer:
                ticks += event.count
                print("timer: %d new, %d in all" % (event.count, ticks), flush=True)
                os.write(writable, b"tick %d" % ticks)
                if TICKS and ticks >= TICKS:
                    watcher_close(timer, 0)
                    os.close(writable)

            elif event.watcher == reader:
                data = os.read(readable, 256)
                if data:
                    print("pipe: %s" % data.decode(), flush=True)
                else:
                    print("pipe: closed", flush=True)
                    watcher_close(reader, 0)  # before the descriptor
                    os.close(readable)

    print("interrupted" if interrupted else "nothing is left to wait for")
    poster.join()
    loop_close(loop)  # with whatever watchers are left
    print("handles still open: %d" % handle_count(0))


if __name__ == "__main__":
    main()
