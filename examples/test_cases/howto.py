# SPDX-License-Identifier: MIT OR Apache-2.0
"""The programs of Python's HOWTO: a blocking timer, and a server three times."""

import re
import socket
import struct
import sys
import time

from run_demo import check_totals, expect

from .common import (EXAMPLES, LATE_S, SLOW, AnyServer, build_dir, example, require,
                     run_to_end)

# ---- the blocking timer ----

def blocking_timer():
    status, lines = run_to_end(example("howto_blocking"), 4)
    expect("exit status", status, 0)
    expect("first line", lines[0], "armed: first expiration in 1.000 s, then every 0.500 s")
    seen = 0
    for line in lines[1:]:
        match = re.match(r"(\d+\.\d+) s: (\d+) new, (\d+) in all$", line)
        require("an unexpected line: %r" % line, match)
        elapsed, new, total = float(match[1]), int(match[2]), int(match[3])
        seen += new
        expect("the total in %r" % line, total, seen)
        due = 1 + 0.5 * (total - 1)
        require("early: %r" % line, elapsed >= due)
        require("late: %r" % line, elapsed <= due + LATE_S)
    require("%d expirations, not 4 or more" % seen, seen >= 4)


def blocking_timer_usage():
    for argument in ("0", "-1", "x", "3x", ""):
        status, lines = run_to_end(example("howto_blocking"), argument)
        expect("exit status for %r" % argument, status, 2)
        require("no usage for %r" % argument, lines[0].startswith("usage: "))


# ---- the servers ----

class Server(AnyServer):
    """howto_epoll or one of its fellows, past its first wait."""

    def __init__(self, name):
        super().__init__([example(name), 0])
        self.wait_for(r"^timer 0\.25 s: 1 new, 1 in all$")

    def check_end(self):
        expect("exit status", self.wait_exit(), 0)
        expect("last line", self.lines[-1], "handles still open: 0")
        return check_totals(self.lines, LATE_S)


def conversation(name):
    """The whole story of the HOWTO, and what the clock says of the timers."""
    began = time.monotonic()
    with Server(name) as server:
        idle = server.descriptors()

        with server.connect() as client:
            client.send(b"hello\r\n")
            expect("answer", client.line(), "unknown command: hello")
            expect("descriptors with a client", server.descriptors(), idle + 1)
        server.wait_for(r"^client 1: closed$")
        expect("descriptors after a hang-up", server.descriptors(), idle)

        # Long enough for each timer to have expired more than once.
        server.wait_for(r"^timer 0\.75 s: .* 2 in all$")

        with server.connect() as client:
            # The server says that it has read the first segment before the
            # second one is sent: they cannot arrive as one.
            client.send(b"st")
            server.wait_for(r"^client 2: 2 bytes, not a whole command yet$")
            client.send(b"op")
            expect("answer", client.line(), "stopping")
            expect("after the answer", client.line(), None)
        elapsed, counts = server.check_end()
        require("it counted more time than there was", elapsed <= time.monotonic() - began)
        expect("timers", sorted(counts), [0.25, 0.5, 0.75])

        # Each total is what was announced, step by step.
        for period, count in counts.items():
            steps = [re.match(r"timer %.2f s: (\d+) new, (\d+) in all$" % period, line)
                     for line in server.lines]
            steps = [(int(step[1]), int(step[2])) for step in steps if step]
            expect("last step of timer %.2f" % period, steps[-1][1], count)
            expect("sum of timer %.2f" % period, sum(new for new, _ in steps), count)


def commands(name):
    """However the bytes are cut: the same commands."""
    with Server(name) as server, server.connect() as client:
        client.send(b"one\ntwo three\r\n\n\r\nnonstop\n stop\n")
        for text in ("one", "two three", "nonstop", " stop"):
            expect("answer", client.line(), "unknown command: " + text)

        client.send(b"fo")
        server.wait_for(r": 2 bytes, not a whole command yet$")
        client.send(b"ur\nfi")
        expect("answer", client.line(), "unknown command: four")
        client.send(b"ve\n")
        expect("answer", client.line(), "unknown command: five")

        client.send(b"\x1b[2J\x00\xff\n")
        expect("answer", client.line(), "unknown command: ?[2J??")

        with server.connect() as other:
            # Only half closed: the last command, without its end, is answered.
            other.send(b"bye")
            other.socket.shutdown(socket.SHUT_WR)
            expect("answer", other.line(), "unknown command: bye")
            expect("after it", other.line(), None)

        with server.connect() as other:
            other.send(b"x" * 256)
            expect("answer", other.line(), "command too long")
            expect("after it", other.line(), None)

        client.send(b"stop")  # bare, as the HOWTO has it
        expect("answer", client.line(), "stopping")
        server.check_end()


def many_clients(name):
    """Hang-ups of every kind, the most clients, and one more than that."""
    with Server(name) as server:
        idle = server.descriptors()
        for number in range(1, 41):
            with server.connect() as client:
                if number % 2:  # a reset instead of an orderly end
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                             struct.pack("ii", 1, 0))
                if number % 3 == 0:
                    client.send(b"part of a comm")
                if number % 4 == 0:
                    client.send(b"\nunanswered\n" * 20)
        for _ in range(40):
            server.wait_for(r"^client \d+: closed$")
        expect("descriptors after 40 clients", server.descriptors(), idle)

        clients = [server.connect() for _ in range(16)]
        for number, client in enumerate(clients):
            client.send(b"%d\n" % number)
            expect("answer", client.line(), "unknown command: %d" % number)
        with server.connect() as extra:
            expect("answer", extra.line(), "too many clients")
            server.wait_for(r"^a client was turned away")
        expect("descriptors with 16 clients", server.descriptors(), idle + 16)
        clients[7].send(b"stop\r\n")
        expect("answer", clients[7].line(), "stopping")
        for client in clients:
            expect("at the end", client.line(), None)
            client.close()
        server.check_end()


def sleeps(name):
    """With a client connected it waits: the HOWTO's select version spins."""
    with Server(name) as server, server.connect() as client:
        client.send(b"hello\n")
        expect("answer", client.line(), "unknown command: hello")
        cpu, clock = server.cpu_s(), time.monotonic()
        server.wait_for(r"^timer 0\.50 s: ")
        server.wait_for(r"^timer 0\.50 s: ")
        server.wait_for(r"^timer 0\.50 s: ")
        cpu, clock = server.cpu_s() - cpu, time.monotonic() - clock
        require("%.2f s of processor time in %.2f s" % (cpu, clock), cpu < clock / 4)
        client.send(b"stop")
        expect("answer", client.line(), "stopping")
        server.check_end()


def port_in_use(name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        status, lines = run_to_end(example(name), taken.getsockname()[1])
    expect("exit status", status, 1)
    require("no reason: %r" % lines, lines[-1].startswith("bind: "))


def server_usage(name):
    for argument in ("-1", "65536", "x", ""):
        status, lines = run_to_end(example(name), argument)
        expect("exit status for %r" % argument, status, 2)
        require("no usage for %r" % argument, lines[0].startswith("usage: "))


def demonstration():
    began = time.monotonic()
    status, lines = run_to_end(sys.executable, EXAMPLES / "run_demo.py", build_dir())
    expect("exit status (%r)" % lines[-3:], status, 0)
    require("no summary", any(line.startswith("All went well") for line in lines))
    require("it took more than 15 s", time.monotonic() - began < 15 * SLOW)


# ---- all of them ----

def cases():
    yield "blocking timer", blocking_timer
    yield "blocking timer: usage", blocking_timer_usage
    for name in ("howto_epoll", "howto_select", "howto_loop"):
        for case in (conversation, commands, many_clients, sleeps, port_in_use, server_usage):
            title = "%s: %s" % (name, case.__name__.replace("_", " "))
            yield title, lambda case=case, name=name: case(name)
    yield "make run's demonstration", demonstration
