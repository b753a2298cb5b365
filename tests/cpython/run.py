#!/usr/bin/env python3
"""Runs CPython's own tests of kqueue on libevloop, unchanged.

    run.py LIBRARY          on examples/python/kqueue.py; and tests of that
    run.py LIBRARY --bsd    on evloop_bsd_kqueue() and evloop_bsd_kevent()

They are those of the Python that runs this, from where it has them, and as
many of them as its version has. The last line counts.
"""

import ctypes
import faulthandler
import importlib
import os
import select
import sys
from ctypes import POINTER, c_int, c_long
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.append(str(Path(__file__).resolve().parents[2] / "examples/python"))

# Module, the beginning of a class's name, and the beginning of a test's.
UPSTREAM = [
    ("test.test_kqueue", "TestKQueue", "test"),
    ("test.test_selectors", "KqueueSelector", "test"),
    ("test.test_asyncio.test_events", "KqueueEventLoop", "test"),
    ("test.test_asyncio.test_sock_lowlevel", "KqueueEventLoop", "test"),
    ("test.test_asyncio.test_sendfile", "KqueueEventLoop", "test"),
    ("test._test_eintr", "SelectEINTRTest", "test_kqueue"),
]
# Only the first two are in every version and every package.
ALWAYS = 2

# It skips itself for the selectors it is not about, this one among them.
NOT_OF_KQUEUE = {"test_modify_unregister"}

# Time limit: then faulthandler prints the tracebacks of all threads, and the
# process ends. (Only _test_eintr has a limit of its own.)
HANGS_S = 300


class Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", c_long), ("tv_nsec", c_long)]


def on_descriptors(kqueue):
    """Has the module call what a BSD program calls, and so CPython there."""
    lib = ctypes.CDLL(os.environ["EVLOOP_LIBRARY"], use_errno=True)
    lib.evloop_bsd_kevent.argtypes = (c_int, POINTER(kqueue.kevent), c_int,
                                      POINTER(kqueue.kevent), c_int, POINTER(Timespec))

    def call(function, *arguments):
        result = function(*arguments)
        if result == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def control(fd, changes, nchanges, events, nevents, timeout_ns):
        timeout = None if timeout_ns < 0 else Timespec(*divmod(timeout_ns, 10**9))
        return call(lib.evloop_bsd_kevent, fd, changes, nchanges, events, nevents, timeout)

    kqueue.kqueue_create = lambda _flags: call(lib.evloop_bsd_kqueue)
    kqueue.kqueue_from_fd = lambda fd, _flags: fd
    kqueue.kqueue_fileno = lambda fd: fd
    kqueue.kqueue_control = control
    kqueue.kqueue_close = os.close


def upstream(unittest):
    tests = unittest.TestSuite()
    loader = unittest.defaultTestLoader
    for number, (module_name, class_prefix, test_prefix) in enumerate(UPSTREAM):
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            if number < ALWAYS:
                raise
            print("%s: this Python has no such tests" % module_name)
            continue
        loader.testMethodPrefix = test_prefix
        for name, member in sorted(vars(module).items()):
            if name.startswith(class_prefix) and isinstance(member, type):
                tests.addTests(loader.loadTestsFromTestCase(member))
    loader.testMethodPrefix = "test"
    return tests


def run(unittest, tests):
    class Result(unittest.TextTestResult):
        passed = 0

        def addSuccess(self, test):
            super().addSuccess(test)
            self.passed += 1

        def addSkip(self, test, reason):
            if getattr(test, "_testMethodName", None) in NOT_OF_KQUEUE:
                self.stream.writeln("not of kqueue")
            else:
                super().addSkip(test, reason)

    result = unittest.TextTestRunner(sys.stdout, verbosity=2, resultclass=Result,
                                     warnings="ignore").run(tests)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.passed + len(result.expectedFailures)
    print("%d passed, %d failed, %d skipped" % (passed, failed, len(result.skipped)), flush=True)
    return 1 if failed else 0


def main():
    arguments = sys.argv[1:]
    bsd = "--bsd" in arguments[1:]
    if len(arguments) != 1 + bsd:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    os.environ["EVLOOP_LIBRARY"] = arguments[0]
    faulthandler.dump_traceback_later(HANGS_S, exit=True)

    import kqueue
    for name in kqueue.__all__:
        setattr(select, name, getattr(kqueue, name))
    if bsd:
        on_descriptors(kqueue)

    # Not before: it may import selectors, which looks for select.kqueue once.
    import unittest
    tests = upstream(unittest)
    if not bsd:
        import test_module
        tests.addTests(unittest.defaultTestLoader.loadTestsFromModule(test_module))
    return run(unittest, tests)


if __name__ == "__main__":
    sys.exit(main())
