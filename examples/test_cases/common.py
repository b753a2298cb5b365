# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the cases share: the programs, servers among them, and what to expect."""

import os
import subprocess
import sys
from pathlib import Path

from run_demo import Client, Program, Trouble, expect

EXAMPLES = Path(__file__).resolve().parents[1]
SLOW = float(os.environ.get("EVLOOP_TEST_SLOW") or 1)
LIMIT_S = 20 * SLOW
LATE_S = 0.5 * SLOW  # how far a program may be behind its timers when it ends


class Skip(Exception):
    """The case cannot be run here; the text says why."""


def require(what, condition):
    if not condition:
        raise Trouble(what)


def run_to_end(*command):
    """Exit status and output lines of a program that ends by itself."""
    with Program(command, LIMIT_S) as program:
        return program.wait_exit(), program.lines


def build_dir():
    return Path(sys.argv[1])


def example(name):
    return build_dir() / "examples" / name


def library():
    for place in (build_dir() / "lib/libevloop.so.0",
                  EXAMPLES.parent / "target/release/libevloop.so"):
        if place.exists():
            return place.resolve()
    raise Trouble("no libevloop.so.0 in %s" % (build_dir() / "lib"))


def arguments_refused(name, *wrong):
    for arguments in wrong:
        status, lines = run_to_end(example(name), *arguments)
        expect("exit status for %r" % (arguments,), status, 2)
        require("no usage for %r" % (arguments,), lines[0].startswith("usage: "))


class AnyServer(Program):
    """A server on a free port, which it has printed."""

    def __init__(self, command, limit_s=LIMIT_S, stdin=subprocess.DEVNULL):
        super().__init__(command, limit_s, stdin=stdin)
        self.port = int(self.wait_for(r"^listening on 127\.0\.0\.1:(\d+)\b")[1])

    def connect(self):
        return Client(self.port, self)

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def cpu_s(self):
        """Processor time used so far."""
        text = Path("/proc/%d/stat" % self.process.pid).read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
