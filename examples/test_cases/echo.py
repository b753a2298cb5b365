# SPDX-License-Identifier: MIT OR Apache-2.0
"""The echo server: thousands of connections, and everything that runs out."""

import errno
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import time

from run_demo import expect

from .common import LATE_S, LIMIT_S, SLOW, AnyServer, Skip, arguments_refused, example, require


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
        """Each socket that becomes writable sends the word and its fd. Calls on_done
        for each right answer, which returns how many are still to come."""
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
    """The limit is lowered: EMFILE, and neither an end nor a busy loop."""
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
        require("%d bytes without a reader" % sent, sent < TOTAL)
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


def echo_usage():
    arguments_refused("echo_server", ("-1",), ("65536",), ("x",), ("",), ("0", "0"),
                      ("0", "nan"), ("0", "1", "2"))


def cases():
    for case in (echo_thousands, echo_full_house, echo_out_of_descriptors, echo_idle,
                 echo_slow_reader, echo_no_reader, echo_hang_ups, echo_shutdown, echo_usage):
        yield "echo_server: " + case.__name__[len("echo_"):].replace("_", " "), case
