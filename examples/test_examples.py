#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Drives the examples as a user would, and looks at what they do.

    test_examples.py BUILD_DIR      BUILD_DIR/examples has the programs, and
                                    BUILD_DIR/lib the library

One line for each case that failed, "N passed, N failed, N skipped" at the
end. EVLOOP_TEST_SLOW=N gives everything N times the time.
"""

import errno
import math
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from run_demo import Client, Program, Trouble, check_totals, expect

HERE = Path(__file__).resolve().parent
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
                  HERE.parent / "target/release/libevloop.so"):
        if place.exists():
            return place.resolve()
    raise Trouble("no libevloop.so.0 in %s" % (build_dir() / "lib"))


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

class AnyServer(Program):
    """A server on a free port, which it has told."""

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
    status, lines = run_to_end(sys.executable, HERE / "run_demo.py", build_dir())
    expect("exit status (%r)" % lines[-3:], status, 0)
    require("no summary", any(line.startswith("All went well") for line in lines))
    require("it took more than 15 s", time.monotonic() - began < 15 * SLOW)


# ---- the echo server ----

class Echo(AnyServer):
    """echo_server on a free port; limits are what `ulimit` is called with."""

    def __init__(self, idle_s=60 * SLOW, limit_s=LIMIT_S, limits=None):
        command = [example("echo_server"), 0, idle_s]
        if limits:
            command = ["sh", "-c", 'ulimit %s && exec "$0" "$@"' % limits, *command]
        super().__init__(command, limit_s, stdin=subprocess.PIPE)
        self.room = next(int(line.split()[2]) for line in self.lines
                         if line.startswith("room for "))

    def command(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def check_end(self, **wanted):
        """Its exit, and the statistics that are wanted; all of them are returned."""
        expect("exit status", self.wait_exit(), 0)
        expect("last line", self.lines[-1], "handles still open: 0")
        text = "\n".join(self.lines)
        got = {}
        for pattern, names in (
                (r"^connections: (\d+) in all, (\d+) at once, (\d+) at the end$",
                 ("accepted", "peak", "at_end")),
                (r"^bytes sent back: (\d+)$", ("bytes",)),
                (r"^hung up on for idleness: (\d+)$", ("idle",)),
                (r"^waits for a slow reader: (\d+)$", ("stalled",)),
                (r"^connections not freed: (\d+)$", ("leaked",))):
            match = re.search(pattern, text, re.M)
            require("not among the statistics: %s" % pattern, match)
            got.update(zip(names, map(int, match.groups())))
        expect("connections not freed", got["leaked"], 0)
        for name, number in wanted.items():
            expect(name, got[name], number)
        return got


def exchange(client, text):
    """Sends a line, and expects it back."""
    client.send(text.encode() + b"\n")
    expect("echo", client.line(), text)


def ready_within(seconds, events, *sockets):
    """Those that become ready. (select.select() has no descriptors above 1023.)"""
    poller = select.poll()
    for sock in sockets:
        poller.register(sock, events)
    return poller.poll(seconds * 1000)


def ready(sock, events, program):
    """Waits for one, as long as the program's time allows."""
    require("too slow: not ready", ready_within(program.left(), events, sock))


def reset_on_close(sock):
    """No orderly end, so no port of the system stays taken for a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Load:
    """Very many connections to one server, from one epoll object."""

    STARTING = 500  # at once: fewer than the kernel queues for the server

    def __init__(self, program):
        self._program = program
        self._epoll = select.epoll()
        self.sockets = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._epoll.close()
        for sock in self.sockets.values():
            sock.close()

    def _start(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sockets[sock.fileno()] = sock
        reset_on_close(sock)
        error = sock.connect_ex(("127.0.0.1", self._program.port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _echoes(self, word, on_done):
        """Whoever becomes writable sends the word and its number. Calls on_done for
        each right answer, which returns how many are still to come."""
        parts, left = {}, 1
        while left:
            events = self._epoll.poll(self._program.left(), 1024)
            require("too slow: %d echoes are missing" % left, events)
            for fd, event in events:
                sock, message = self.sockets[fd], b"%s %d\n" % (word, fd)
                if event & select.EPOLLOUT:
                    expect("bytes sent", sock.send(message), len(message))
                    parts[fd] = b""
                    self._epoll.modify(fd, select.EPOLLIN)
                else:
                    data = sock.recv(len(message))
                    require("the server hung up", data)
                    parts[fd] += data
                    if len(parts[fd]) == len(message):
                        expect("echo", parts[fd], message)
                        left = on_done()

    def connect(self, number):
        """Connects so many, and has each served once."""
        done = 0

        def on_done():
            nonlocal done
            done += 1
            if len(self.sockets) < number:
                self._start()
            return number - done

        for _ in range(min(number, self.STARTING)):
            self._start()
        self._echoes(b"hello from", on_done)

    def exchange(self):
        """Has each of them served once more."""
        left = len(self.sockets)

        def on_done():
            nonlocal left
            left -= 1
            return left

        for fd in self.sockets:
            self._epoll.modify(fd, select.EPOLLOUT)
        self._echoes(b"again from", on_done)


def echo_thousands():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = 20000 if hard == resource.RLIM_INFINITY else hard - 512  # for other cases
    with Echo(limit_s=3 * LIMIT_S) as server, Load(server) as load:
        idle = server.descriptors()
        number = min(server.room, most)
        if number < 1000:
            raise Skip("descriptors for %d connections only" % number)
        load.connect(number)
        expect("descriptors with clients", server.descriptors(), idle + number)
        load.exchange()
        for fd in list(load.sockets)[::2]:  # half of them hang up
            load.sockets.pop(fd).close()
        load.exchange()  # by then it has seen the others
        server.command("shutdown\n")
        stayed = len(load.sockets)
        got = server.check_end(accepted=number, peak=number, idle=0)
        require("%(at_end)d connections at the end" % got,
                stayed <= got["at_end"] <= number)
        for sock in load.sockets.values():
            ready(sock, select.POLLIN, server)
            expect("at the end", sock.recv(1), b"")


def echo_full_house():
    """More clients than it has descriptors for: they are served one after another."""
    with Echo(limits="-n 64") as server:
        expect("room", server.room, 32)
        clients = [server.connect() for _ in range(server.room)]
        for number, client in enumerate(clients):
            exchange(client, "hello %d" % number)
        late = [server.connect() for _ in range(8)]
        for number, client in enumerate(late):
            client.send(b"late %d\n" % number)
        exchange(clients[0], "still there")
        full = server.descriptors()
        for number, client in enumerate(late):
            require("more than there is room for",
                    not ready_within(0, select.POLLIN, client.socket))
            clients[number].close()
            expect("echo", client.line(), "late %d" % number)
            exchange(clients[-1], "still there")
        expect("descriptors", server.descriptors(), full)
        server.command("shutdown\n")
        for client in clients[8:] + late:
            expect("at the end", client.line(), None)
            client.close()
        server.check_end(accepted=server.room + 8, peak=server.room, at_end=server.room)


def echo_out_of_descriptors():
    """A limit that somebody lowers: EMFILE, and neither an end nor a busy loop."""
    with Echo() as server:
        early = [server.connect() for _ in range(4)]
        for client in early:
            exchange(client, "hello")
        pid, hard = server.process.pid, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        taken = max(int(fd) for fd in os.listdir("/proc/%d/fd" % pid)) + 1
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken, hard))

        late = [server.connect() for _ in range(3)]
        for client in late:
            client.send(b"late\n")
        server.wait_for(r"^cannot accept: ")
        exchange(early[0], "still there")
        cpu, clock = server.cpu_s(), time.monotonic()
        for _ in range(4):  # it tries again from time to time
            server.wait_for(r"^cannot accept: ")
        cpu, clock = server.cpu_s() - cpu, time.monotonic() - clock
        require("%.2f s of processor time in %.2f s" % (cpu, clock), cpu < clock / 2)

        early[1].close()  # room for one
        served = ready_within(server.left(), select.POLLIN, *(client.socket for client in late))
        expect("clients served", len(served), 1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)  # room for all
        for client in late:
            expect("echo", client.line(), "late")
            client.close()
        server.command("shutdown\n")
        server.check_end(accepted=7)
        for client in early[2:] + early[:1]:
            client.close()


def echo_idle():
    """Who says nothing is hung up on, never early; who talks is not."""
    idle_s = 1.0 * SLOW
    with Echo(idle_s=idle_s) as server, server.connect() as quiet, server.connect() as talker:
        began = time.monotonic()
        quiet.send(b"that is all\n")
        expect("echo", quiet.line(), "that is all")
        gone_s = None
        while gone_s is None or time.monotonic() - began < 2.5 * idle_s:
            exchange(talker, "I am here")
            watched = [quiet.socket] if gone_s is None else []
            if ready_within(idle_s / 10, select.POLLIN, *watched):
                expect("after the time", quiet.line(), None)
                gone_s = time.monotonic() - began
        require("early: %.6f s" % gone_s, gone_s >= idle_s)
        require("late: %.6f s" % gone_s, gone_s <= 1.1 * idle_s + LATE_S)

        began = time.monotonic()
        exchange(talker, "good-bye")
        expect("after the time", talker.line(), None)
        gone_s = time.monotonic() - began
        require("early: %.6f s" % gone_s, gone_s >= idle_s)
        server.command("shutdown\n")
        server.check_end(accepted=2, idle=2, at_end=0)


PATTERN = bytes(range(251)) * 1024  # its length is odd: no block looks like its neighbour
TOTAL = 48 << 20  # more than all buffers between two ends can hold


def fill(sock, sent):
    """Sends until nothing more is taken. The bytes sent in all."""
    while sent < TOTAL:
        start = sent % len(PATTERN)
        try:
            sent += sock.send(PATTERN[start:start + TOTAL - sent])
        except BlockingIOError:
            if not ready_within(0.2, select.POLLOUT, sock):
                break
    return sent


def echo_slow_reader():
    """Nothing is lost or mixed up when the reader is slow, and others do not notice."""
    with Echo(limit_s=3 * LIMIT_S) as server, server.connect() as other, \
            server.connect() as client:
        sock = client.socket
        sock.setblocking(False)
        sent = fill(sock, 0)
        require("%d bytes without anybody reading" % sent, sent < TOTAL)
        exchange(other, "not held up")

        received = 0
        while received < TOTAL:
            ready(sock, select.POLLIN | (select.POLLOUT if sent < TOTAL else 0), server)
            try:
                data = sock.recv(100000)
                require("the server hung up after %d bytes" % received, data)
                start = received % len(PATTERN)
                require("other bytes than were sent, near %d" % received,
                        data == (PATTERN * 2)[start:start + len(data)])
                received += len(data)
            except BlockingIOError:
                pass
            if sent < TOTAL:
                start = sent % len(PATTERN)
                try:
                    sent += sock.send(PATTERN[start:start + min(100000, TOTAL - sent)])
                except BlockingIOError:
                    pass
        exchange(other, "done")
        sock.shutdown(socket.SHUT_WR)
        ready(sock, select.POLLIN, server)
        expect("after all", sock.recv(1), b"")
        server.command("shutdown\n")
        got = server.check_end(accepted=2, bytes=TOTAL + len("not held up\ndone\n"))
        require("it never waited for the reader", got["stalled"] > 0)


def echo_no_reader():
    """Who takes nothing shows no sign of life either."""
    with Echo(idle_s=0.5 * SLOW) as server, server.connect() as client:
        sock = client.socket
        sock.setblocking(False)
        try:
            require("everything was taken", fill(sock, 0) < TOTAL)
            ready(sock, select.POLLERR | select.POLLHUP, server)
        except ConnectionError:
            pass  # hung up on already
        server.command("shutdown\n")
        server.check_end(accepted=1, idle=1, at_end=0)


def echo_hang_ups():
    with Echo() as server:
        idle = server.descriptors()
        for number in range(60):
            with server.connect() as client:
                if number % 2:
                    reset_on_close(client.socket)
                if number % 3 == 0:
                    client.send(b"unread " * 1000)
                if number % 5 == 0:
                    exchange_half_closed(client)
        with server.connect() as last:  # the others were before it
            exchange(last, "hello")
            while server.descriptors() != idle + 1:
                exchange(last, "hello")
                require("too slow: %d descriptors" % server.descriptors(), server.left() > 0.001)
            server.command("shutdown\n")
            expect("at the end", last.line(), None)
        server.check_end(at_end=1, idle=0)


def exchange_half_closed(client):
    """What is sent before the end of what a client says is sent back."""
    client.send(b"last words\n")
    client.socket.shutdown(socket.SHUT_WR)
    lines = []
    while (line := client.line()) is not None:
        lines.append(line)
    require("the last words are missing", lines and lines[-1].endswith("last words"))


def echo_shutdown():
    """By a command, however its bytes come; by signals; not by the end of its input."""
    with Echo() as server, server.connect() as client:
        server.command("hello\n" + "x" * 200)
        server.wait_for(r"^the only command is")
        server.command("\nshut")
        exchange(client, "not yet")
        server.command("down\n")
        expect("at the end", client.line(), None)
        server.check_end(accepted=1, at_end=1)
    for number in (signal.SIGTERM, signal.SIGINT):
        with Echo() as server, server.connect() as client:
            exchange(client, "hello")
            server.process.stdin.close()
            exchange(client, "still there")
            server.process.send_signal(number)
            expect("at the end", client.line(), None)
            server.check_end(accepted=1, at_end=1)


def arguments_refused(name, *wrong):
    for arguments in wrong:
        status, lines = run_to_end(example(name), *arguments)
        expect("exit status for %r" % (arguments,), status, 2)
        require("no usage for %r" % (arguments,), lines[0].startswith("usage: "))


def echo_usage():
    arguments_refused("echo_server", ("-1",), ("65536",), ("x",), ("",), ("0", "0"),
                      ("0", "nan"), ("0", "1", "2"))


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
    """200 connections; the last ones stay when the server is told to stop."""
    with Threads(*arguments) as server:
        require("%d threads" % server.threads, server.threads >= 2)
        clients, served = [], {}
        for _ in range(200):
            client = server.connect()
            clients.append(client)
            thread = int(re.match(r"served by thread (\d+)$", client.line())[1])
            served[thread] = served.get(thread, 0) + 1
        for client in clients:
            client.send(b"nobody answers this\n")
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
    three_sources(sys.executable, HERE / "python/loop_ctypes.py", library())


def loop_with_ctypes_interrupted():
    with Program([sys.executable, HERE / "python/loop_ctypes.py", library(), 0],
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
    three_sources(luajit, HERE / "lua/loop.lua", library())


# ---- without linking ----

def three_timers(*command):
    status, lines = run_to_end(*command)
    expect("exit status (%r)" % lines[-2:], status, 0)
    elapsed, counts = check_totals(lines, LATE_S)
    expect("timers", sorted(counts), [0.25, 0.5, 0.75])
    require("it ended before its time", counts[0.75] >= 2 and elapsed >= 1.5)


def with_dlopen():
    three_timers(example("dlopen_timers"), library())
    status, lines = run_to_end(example("dlopen_timers"), HERE / "no-such-library.so")
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
    three_timers(sys.executable, HERE / "python/timers_ctypes.py", library())


def with_luajit():
    luajit = shutil.which("luajit")
    if not luajit:
        raise Skip("luajit is not installed")
    three_timers(luajit, HERE / "lua/timers.lua", library())


def readme_python():
    """The Python program of README.md, with the library where a loader looks."""
    readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
    program = re.search(r"^```python\n(.*?)^```", readme, re.M | re.S)
    require("README.md has no Python program", program)
    done = subprocess.run([sys.executable, "-c", program[1]], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False,
                          env=dict(os.environ, LD_LIBRARY_PATH=str(build_dir().resolve() / "lib")))
    expect("its output (%s)" % done.stderr, done.stdout, "1 1\n")


# ---- running the cases ----

def cases():
    yield "blocking timer", blocking_timer
    yield "blocking timer: usage", blocking_timer_usage
    for name in ("howto_epoll", "howto_select", "howto_loop"):
        for case in (conversation, commands, many_clients, sleeps, port_in_use, server_usage):
            title = "%s: %s" % (name, case.__name__.replace("_", " "))
            yield title, lambda case=case, name=name: case(name)
    yield "make run's demonstration", demonstration
    for case in (echo_thousands, echo_full_house, echo_out_of_descriptors, echo_idle,
                 echo_slow_reader, echo_no_reader, echo_hang_ups, echo_shutdown, echo_usage):
        yield "echo_server: " + case.__name__[len("echo_"):].replace("_", " "), case
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


def attempt(case):
    title, function = case
    try:
        function()
    except Skip as skip:
        return "skipped", "%s: skipped: %s" % (title, skip)
    except Exception as failure:  # whatever it is, the case has failed
        return "failed", "%s: FAILED: %s: %s" % (title, type(failure).__name__, failure)
    return "passed", None


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    outcomes = []
    # They mostly wait for timers; few at once, to have them on time.
    with ThreadPoolExecutor(max_workers=min(4, 2 * (os.cpu_count() or 1))) as pool:
        for outcome, message in pool.map(attempt, cases()):
            outcomes.append(outcome)
            if message:
                print(message, flush=True)
    print("%d passed, %d failed, %d skipped"
          % tuple(outcomes.count(word) for word in ("passed", "failed", "skipped")))
    return 1 if "failed" in outcomes or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
