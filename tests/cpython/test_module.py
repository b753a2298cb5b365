"""Tests of examples/python/kqueue.py: what CPython's own leave out."""

import ctypes
import errno
import os
import re
import select
import socket
import threading
import unittest
import unittest.mock
from pathlib import Path

import kqueue

HEADER = Path(__file__).resolve().parents[2] / "include/evloop.h"

TIMER_ONCE = select.KQ_EV_ADD | select.KQ_EV_ONESHOT


class Constants(unittest.TestCase):
    def test_they_are_the_headers(self):
        defined = dict(re.findall(r"^#define EVLOOP_(KQ_\w+) (-?\w+)$", HEADER.read_text(), re.M))
        names = [name for name in kqueue.__all__ if name.startswith("KQ_")]
        self.assertGreater(len(names), 30)
        for name in names:
            self.assertEqual(getattr(select, name), int(defined[name], 0), name)

    def test_an_event_is_the_headers(self):
        self.assertEqual(ctypes.sizeof(kqueue.kevent), 64)


class Events(unittest.TestCase):
    def test_arguments_that_are_refused(self):
        for error, arguments in [
            (TypeError, ()),
            (TypeError, ("1",)),
            (TypeError, (1.0,)),
            (TypeError, (1, 1.0)),
            (TypeError, (1, 1, 1, 1, 1, 1, 1)),
            (OverflowError, (-1,)),
            (OverflowError, (1 << 64,)),
            (OverflowError, (1, 1 << 15)),
            (OverflowError, (1, -(1 << 15) - 1)),
            (OverflowError, (1, 1, 1, 1, 1 << 63)),
        ]:
            with self.subTest(arguments=arguments), self.assertRaises(error):
                select.kevent(*arguments)

    def test_names_of_arguments(self):
        event = select.kevent(ident=1, filter=-2, flags=3, fflags=4, data=-5, udata=6)
        self.assertEqual(event, select.kevent(1, -2, 3, 4, -5, 6))

    def test_what_has_a_descriptor(self):
        class Lost:
            def fileno(self):
                return -1

        with socket.socket() as peer:
            self.assertEqual(select.kevent(peer).ident, peer.fileno())
        self.assertRaises(ValueError, select.kevent, Lost())

    def test_repr(self):
        self.assertEqual(repr(select.kevent(1, -2, 3, 4, 5, 6)),
                         "<select.kevent ident=1 filter=-2 flags=0x3 fflags=0x4 "
                         "data=0x5 udata=0x6>")
        self.assertIn("data=0xffffffffffffffff", repr(select.kevent(1, data=-1)))

    def test_order(self):
        ordered = [select.kevent(1, -7), select.kevent(1, -1), select.kevent(1, -1, 2),
                   select.kevent(1, -1, 2, 1), select.kevent(2)]
        self.assertEqual(sorted(reversed(ordered)), ordered)
        self.assertRaises(TypeError, hash, ordered[0])

    def test_attributes_can_be_set(self):
        event = select.kevent(1)
        event.data = -3
        self.assertEqual(event, select.kevent(1, data=-3))
        with self.assertRaises(TypeError):
            event.flags = "1"


class Queues(unittest.TestCase):
    def setUp(self):
        self.queue = select.kqueue()
        self.addCleanup(self.queue.close)

    def test_arguments_that_are_refused(self):
        self.assertRaises(TypeError, select.kqueue, 1)
        for error, arguments in [
            (TypeError, ()),
            (TypeError, (None,)),
            (TypeError, (None, 1.0)),
            (TypeError, (1, 1)),
            (TypeError, ([1], 1)),
            (TypeError, (None, 1, "1")),
            (TypeError, (None, 1, float("nan"))),
            (TypeError, (None, 1, float("inf"))),
            (TypeError, (None, 1, 1 << 40)),
            (ValueError, (None, -1)),
            (ValueError, (None, 1, -1)),
            (ValueError, (None, 1, -1e-10)),
            (OverflowError, (None, 1 << 31)),
        ]:
            with self.subTest(arguments=arguments), self.assertRaises(error):
                self.queue.control(*arguments)

    def test_timeouts_are_rounded_up(self):
        for seconds, nanoseconds in [(None, -1), (0, 0), (2, 2 * 10**9), (0.25, 250_000_000),
                                     (1e-10, 1), (1.5e-9, 2)]:
            self.assertEqual(kqueue.nanoseconds(seconds), nanoseconds, seconds)

    def test_a_change_that_fails(self):
        missing = select.kevent(1, select.KQ_FILTER_TIMER, select.KQ_EV_DELETE)
        with self.assertRaises(FileNotFoundError):
            self.queue.control([missing], 0)
        entry, = self.queue.control([missing], 1)
        self.assertTrue(entry.flags & select.KQ_EV_ERROR)
        self.assertEqual(entry.data, errno.ENOENT)

    def test_fromfd(self):
        for fd, error in ((-1, OSError), (0, OSError), ("0", TypeError), (1 << 31, OverflowError)):
            self.assertRaises(error, select.kqueue.fromfd, fd)
        same = select.kqueue.fromfd(self.queue.fileno())
        self.assertEqual(same.fileno(), self.queue.fileno())
        same.control([select.kevent(1, select.KQ_FILTER_TIMER, TIMER_ONCE, data=1)], 0)
        self.assertEqual(self.queue.control(None, 2, 10)[0].ident, 1)
        same.close()
        with self.assertRaises(OSError) as raised:
            self.queue.control(None, 1, 0)
        self.assertEqual(raised.exception.errno, errno.EBADF)

    def test_close_closes_only_its_own_descriptor(self):
        same = select.kqueue.fromfd(self.queue.fileno())
        same.close()
        fds = os.pipe()  # one of them has the queue's number now
        self.queue.close()
        for fd in fds:
            os.close(fd)

    def test_closed_by_another_thread(self):
        closer = threading.Timer(0.2, self.queue.close)
        closer.start()
        with self.assertRaises(OSError) as raised:
            self.queue.control(None, 1, 60)
        self.assertEqual(raised.exception.errno, errno.EBADF)
        closer.join()

    def test_a_signal_does_not_repeat_the_changes(self):
        control, changes = kqueue.kqueue_control, []

        def interrupted_once(handle, given, count, *rest):
            changes.append(count)
            if len(changes) > 1:
                return control(handle, given, count, *rest)
            control(handle, given, count, None, 0, 0)
            raise InterruptedError

        timer = select.kevent(1, select.KQ_FILTER_TIMER, TIMER_ONCE, data=1)
        with unittest.mock.patch.object(kqueue, "kqueue_control", interrupted_once):
            self.assertEqual(len(self.queue.control([timer], 1)), 1)
        self.assertEqual(changes, [1, 0])

    def test_fork(self):
        timer = select.kevent(1, select.KQ_FILTER_TIMER, TIMER_ONCE, data=1)
        child = os.fork()
        if child == 0:
            try:
                works = self.queue.closed and len(select.kqueue().control([timer], 1, 10)) == 1
            finally:
                os._exit(0 if works else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(len(self.queue.control([timer], 1, 10)), 1)
