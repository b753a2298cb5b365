#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The epoll server of Python's timer HOWTO, with a scripted client beside it.

    run_demo.py BUILD_DIR      BUILD_DIR/examples has the programs ("make run")

Prints what both sides see, ends by itself after two and a half seconds, with status
0 only if everything went as it should.
"""

import math
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


class Trouble(Exception):
    """Something did not go as it should; the text says what."""


class Program:
    """A running example: its output line by line, and a deadline for all of it.

    Nothing here sleeps: a test that needs something to have happened waits for
    the line that says so.
    """

    def __init__(self, command, deadline_s, on_line=lambda line: None,
                 stdin=subprocess.DEVNULL):
        self.deadline = time.monotonic() + deadline_s
        self.lines = []
        self._arrived = queue.Queue()
        self._on_line = on_line
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            for line in self.process.stdout:
                line = line.rstrip("\n")
                self._on_line(line)
                self._arrived.put(line)
        finally:
            self._arrived.put(None)

    def left(self):
        return max(0.001, self.deadline - time.monotonic())

    def _next(self):
        try:
            line = self._arrived.get(timeout=self.left())
        except queue.Empty:
            raise Trouble("too slow; the last lines were: %r" % self.lines[-3:]) from None
        if line is not None:
            self.lines.append(line)
        return line

    def wait_for(self, pattern):
        """The match of the first line that matches and was not looked at yet."""
        while True:
            line = self._next()
            if line is None:
                raise Trouble("ended without printing %r; the last lines were: %r"
                              % (pattern, self.lines[-3:]))
            match = re.search(pattern, line)
            if match:
                return match

    def wait_exit(self):
        """The exit status, once all output was read."""
        while self._next() is not None:
            pass
        try:
            return self.process.wait(self.left())
        except subprocess.TimeoutExpired:
            raise Trouble("its output has ended, but it is still running") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        if self.process.stdin:
            self.process.stdin.close()


class Client:
    """One TCP connection to a server on the loopback address."""

    def __init__(self, port, program):
        self._program = program
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=program.left())
        # Each send is a segment of its own, sent at once.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self.socket.makefile("r", encoding="utf-8", errors="replace")

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        """The next line of an answer without its end, None at the end of all."""
        self.socket.settimeout(self._program.left())
        line = self._reader.readline()
        return line.rstrip("\n") if line else None

    def close(self):
        self._reader.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def totals(lines):
    """What a program with timers printed at its end: seconds, {period: count}."""
    text = "\n".join(lines)
    elapsed = re.search(r"^stopped after (\d+\.\d+) s$", text, re.M)
    counts = re.findall(r"^timer (\d+\.\d+) s: total (\d+)$", text, re.M)
    if not elapsed or not counts:
        raise Trouble("no totals in its output: %r" % lines[-6:])
    return float(elapsed[1]), {float(period): int(count) for period, count in counts}


def check_totals(lines, late_s):
    """Never more expirations than the clock allows, and at most late_s behind.

    The time begins before the timers are set and ends after they were last
    read, so the upper bound is exact.
    """
    elapsed, counts = totals(lines)
    for period, count in counts.items():
        most = math.floor(elapsed / period)
        least = math.floor(max(0.0, elapsed - late_s) / period)
        if not least <= count <= most:
            raise Trouble("timer %.2f s: %d expirations in %.6f s, not %d to %d"
                          % (period, count, elapsed, least, most))
    return elapsed, counts


def expect(what, got, wanted):
    if got != wanted:
        raise Trouble("%s: %r, not %r" % (what, got, wanted))


# ---- the demonstration ----

START = time.monotonic()
PRINTING = threading.Lock()


def say(who, text):
    with PRINTING:
        try:
            print("%6.2f s  %-6s | %s" % (time.monotonic() - START, who, text), flush=True)
        except BrokenPipeError:  # the reader has seen enough: go on without
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def demonstrate(server):
    port = int(server.wait_for(r"^listening on 127\.0\.0\.1:(\d+)$")[1])

    server.wait_for(r"^timer 0\.50 s: .* 1 in all$")
    say("client", "connects")
    with Client(port, server) as client:
        say("client", 'sends a command that the server does not know: "hello"')
        client.send(b"hello\n")
        answer = client.line()
        say("client", 'was answered: "%s"' % answer)
        expect("the answer", answer, "unknown command: hello")
        say("client", "hangs up")
    server.wait_for(r"^client 1: closed$")

    server.wait_for(r"^timer 0\.75 s: .* 3 in all$")
    say("client", "connects again")
    with Client(port, server) as client:
        say("client", 'sends "st"')
        client.send(b"st")
        server.wait_for(r"^client 2: 2 bytes")
        server.wait_for(r"^timer 0\.25 s: ")  # the timers still run
        say("client", 'sends "op"')
        client.send(b"op")
        answer = client.line()
        say("client", 'was answered: "%s"' % answer)
        expect("the answer", answer, "stopping")
        expect("after the last answer", client.line(), None)
        say("client", "the server closed the connection")

    expect("the server's exit status", server.wait_exit(), 0)
    expect("its last line", server.lines[-1], "handles still open: 0")
    return check_totals(server.lines, late_s=1.0)


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    program = Path(sys.argv[1]) / "examples" / "howto_epoll"
    if not program.exists():
        print("%s is not there: run make first" % program, file=sys.stderr)
        return 2

    print("Three timers and a TCP server in one loop: examples/c/howto_epoll.c\n")
    try:
        with Program([program, 0], 12, lambda line: say("server", line)) as server:
            elapsed, counts = demonstrate(server)
    except (Trouble, OSError) as trouble:
        print("\nIt went wrong: %s" % trouble)
        return 1
    print("\nAll went well. In %.3f s the timers expired" % elapsed)
    for period, count in counts.items():
        print("  every %.2f s: %2d times; the clock allows %.2f"
              % (period, count, elapsed / period))
    return 0


if __name__ == "__main__":
    sys.exit(main())
