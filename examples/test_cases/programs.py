# SPDX-License-Identifier: MIT OR Apache-2.0
"""The server with threads, and the programs without a server."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

from run_demo import Program, check_totals, expect

from .common import (EXAMPLES, LATE_S, LIMIT_S, AnyServer, Skip, arguments_refused, build_dir,
                     example, library, require, run_to_end)

# ---- the server with threads ----

class Threads(AnyServer):
    def __init__(self, *arguments):
        super().__init__([example("threads_server"), 0, *arguments])
        self.threads = int(re.search(r", (\d+) threads$", self.lines[-1])[1])

    def check_end(self):
        """Its exit; the connections of each thread, and how many threads cut some off."""
        expect("exit status", self.wait_exit(), 0)
        expect("last line", self.lines[-1], "handles still open: 0")
        found = re.findall(r"^thread (\d+): (\d+) connections(.*)$", "\n".join(self.lines), re.M)
        counts = {int(thread): int(number) for thread, number, _ in found}
        expect("threads", sorted(counts), list(range(1, self.threads + 1)))
        expect("the sum", self.lines[-2], "%d connections in all" % sum(counts.values()))
        return counts, sum(bool(cut_off) for _, _, cut_off in found)


def threads(stay, *arguments):
    """200 connections; the last ones stay when the server is to stop."""
    with Threads(*arguments) as server:
        require("%d threads" % server.threads, server.threads >= 2)
        clients, served = [], {}
        for _ in range(200):
            client = server.connect()
            clients.append(client)
            thread = int(re.match(r"served by thread (\d+)$", client.line())[1])
            served[thread] = served.get(thread, 0) + 1
        for client in clients:
            client.send(b"no answer to this\n")
        for client in clients[:200 - stay]:
            client.close()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(r"^stopping$")
        for client in clients[200 - stay:]:
            expect("at the end", client.line(), None)
            client.close()
        if stay:
            require("it did not wait for them", time.monotonic() - began >= 1)
        counts, cut_off = server.check_end()
        expect("connections", {thread: n for thread, n in counts.items() if n}, served)
        expect("connections in all", sum(counts.values()), 200)
        if server.threads == 2:
            require("one thread has served all: %r" % counts, len(served) == 2)
        require("%d threads cut connections off" % cut_off,
                cut_off == min(stay, 1) if stay < 2 else cut_off >= 1)


def threads_usage():
    arguments_refused("threads_server", ("-1",), ("65536",), ("x",), ("0", "0"), ("0", "65"),
                      ("0", "2", "3"))


# ---- programs without a server ----

def retries():
    """29 hours, and 130 more, in no time; the program checks every time itself."""
    began = time.monotonic()
    status, lines = run_to_end(example("retry_test"))
    require("it took as long as that?", time.monotonic() - began < LIMIT_S)
    expect("exit status (%r)" % lines[-1:], status, 0)
    times = [re.match(r"(\D+?) +(\d+\.\d+) s in (\d+\.\d+) ms$", line) for line in lines]
    require("an unexpected line: %r" % lines, all(times))
    expect("tests", [match[1] for match in times],
           ["gives up", "jitter", "success resets", "in real time"])
    expect("the time of giving up, and a day", float(times[0][2]), 18423 + 86400)
    require("real time ran ahead", float(times[3][2]) * 1000 <= float(times[3][3]) + 1)


def three_sources(*command):
    """A posted call, a timer and a pipe, through evloop_wait()."""
    status, lines = run_to_end(*command)
    expect("exit status (%r)" % lines[-2:], status, 0)
    expect("the end", lines[-2:], ["nothing is left to wait for", "handles still open: 0"])
    expect("posted", [line for line in lines if line.startswith("posted")], ["posted: 42"])
    total, written = 0, ""
    for line in lines:
        if tick := re.match(r"timer: (\d+) new, (\d+) in all$", line):
            total += int(tick[1])
            expect("total", int(tick[2]), total)
            written += "tick %d" % total
    require("%d ticks" % total, total >= 3)
    read = [line[len("pipe: "):] for line in lines if line.startswith("pipe: ")]
    expect("from the pipe", ("".join(read[:-1]), read[-1]), (written, "closed"))


def without_callbacks():
    three_sources(example("no_callbacks"))


def loop_with_ctypes():
    three_sources(sys.executable, EXAMPLES / "python/loop_ctypes.py", library())


def loop_with_ctypes_interrupted():
    with Program([sys.executable, EXAMPLES / "python/loop_ctypes.py", library(), 0],
                 LIMIT_S) as program:
        program.wait_for(r"^timer: .* 2 in all$")
        program.process.send_signal(signal.SIGINT)
        program.wait_for(r"^interrupted$")
        expect("exit status", program.wait_exit(), 0)
        expect("last line", program.lines[-1], "handles still open: 0")


def loop_with_luajit():
    luajit = shutil.which("luajit")
    if not luajit:
        raise Skip("luajit is not installed")
    three_sources(luajit, EXAMPLES / "lua/loop.lua", library())


# ---- without linking ----

def three_timers(*command):
    status, lines = run_to_end(*command)
    expect("exit status (%r)" % lines[-2:], status, 0)
    elapsed, counts = check_totals(lines, LATE_S)
    expect("timers", sorted(counts), [0.25, 0.5, 0.75])
    require("it ended before its time", counts[0.75] >= 2 and elapsed >= 1.5)


def with_dlopen():
    three_timers(example("dlopen_timers"), library())
    status, lines = run_to_end(example("dlopen_timers"), EXAMPLES / "no-such-library.so")
    expect("exit status without the library", status, 1)
    require("no reason: %r" % lines, "no-such-library.so" in lines[-1])


def dlopen_is_not_linked():
    readelf = shutil.which("readelf")
    if not readelf:
        raise Skip("readelf is not installed")
    listing = subprocess.run([readelf, "-d", str(example("dlopen_timers"))],
                             capture_output=True, text=True, timeout=LIMIT_S, check=True)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", listing.stdout)
    require("readelf names no library", needed)
    require("it is linked with %r" % needed, not any("evloop" in name for name in needed))


def with_ctypes():
    three_timers(sys.executable, EXAMPLES / "python/timers_ctypes.py", library())


def with_luajit():
    luajit = shutil.which("luajit")
    if not luajit:
        raise Skip("luajit is not installed")
    three_timers(luajit, EXAMPLES / "lua/timers.lua", library())


def readme_python():
    """The Python program of README.md, with the library where a loader looks."""
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    program = re.search(r"^```python\n(.*?)^```", readme, re.M | re.S)
    require("README.md has no Python program", program)
    done = subprocess.run([sys.executable, "-c", program[1]], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False,
                          env=dict(os.environ, LD_LIBRARY_PATH=str(build_dir().resolve() / "lib")))
    expect("its output (%s)" % done.stderr, done.stdout, "1 1\n")


# ---- all of them ----

def cases():
    yield "threads_server: all leave", lambda: threads(0)
    yield "threads_server: one stays", lambda: threads(1, 2)
    yield "threads_server: many stay", lambda: threads(50, 7)
    yield "threads_server: usage", threads_usage
    yield "retry_test", retries
    yield "no_callbacks", without_callbacks
    yield "ctypes: event loop", loop_with_ctypes
    yield "ctypes: event loop, control-C", loop_with_ctypes_interrupted
    yield "luajit: event loop", loop_with_luajit
    yield "dlopen", with_dlopen
    yield "dlopen: not linked", dlopen_is_not_linked
    yield "ctypes", with_ctypes
    yield "luajit", with_luajit
    yield "README.md's Python program", readme_python
