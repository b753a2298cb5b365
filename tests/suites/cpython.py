"""CPython's own tests of kqueue; tests/cpython/run.py runs them."""

import sys

from .harness import BUILD, ROOT, Missing

# Python's own installations have them; Debian's in a package of its own.
PYTHONS = [sys.executable, "/usr/bin/python3"]
NEEDED = ["ctypes", "test.support", "test.test_kqueue", "test.test_selectors"]
PROBE = """\
import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))
"""


def cpython(suite):
    python = python_with_tests(suite)
    if not suite.make("lib"):
        return
    runner = [python, ROOT / "tests/cpython/run.py", BUILD / "lib/libevloop.so"]
    suite.counted("CPython's tests", runner)
    suite.counted("CPython's tests, on descriptors", [*runner, "--bsd"])
    suite.note(suite.run([python, "--version"]).output.strip())


def python_with_tests(suite):
    for python in PYTHONS:
        if suite.run([python, "-c", PROBE, *NEEDED]).ok:
            return python
    raise Missing("this Python has no tests of its own (package libpython%d.%d-testsuite)"
                  % sys.version_info[:2])
