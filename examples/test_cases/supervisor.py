# SPDX-License-Identifier: MIT OR Apache-2.0
"""The process supervisor."""

import os
import signal

from run_demo import Program, expect

from .common import LIMIT_S, arguments_refused, example, require

# Does not end when it is asked to, for a minute or so; says so once it does not.
STUBBORN = "trap '' TERM; echo stubborn; for i in $(seq 1200); do sleep 0.05; done"


class Supervisor(Program):
    def __init__(self, *arguments):
        super().__init__([example("supervisor"), *arguments], LIMIT_S)

    def send(self, number):
        self.process.send_signal(number)

    def started(self, service):
        return int(self.wait_for(r"^%d: started, pid (\d+)$" % service)[1])

    def stubborn(self):
        """The first service is started, and has said that it is; in either order."""
        pid = None
        for _ in range(2):
            pid = self.wait_for(r"^(?:stubborn|1: started, pid (\d+))$")[1] or pid
        return int(pid)

    def check_end(self):
        expect("exit status", self.wait_exit(), 0)
        expect("the end", self.lines[-2:], ["all have ended", "handles still open: 0"])


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def restarts():
    """One that ends is started again, later each time; the other one is left alone."""
    with Supervisor("exec sleep 1000", "exit 3") as program:
        sleeper = program.started(1)
        for delay in ("0.1", "0.2", "0.4"):
            program.wait_for(r"^2: started, pid \d+$")
            program.wait_for(r"^2: exit status 3$")
            program.wait_for(r"^2: again in %s s$" % delay)
        require("the other one has ended", is_there(sleeper))
        program.send(signal.SIGTERM)
        program.wait_for(r"^stopping, signal 15 from pid %d$" % os.getpid())
        program.wait_for(r"^1: ended by signal 15$")
        program.check_end()
        require("a process is left", not is_there(sleeper))


def hangup():
    """SIGHUP ends them and starts them at once."""
    with Supervisor("exec sleep 1000", "exec sleep 1000") as program:
        before = [program.started(1), program.started(2)]
        program.send(signal.SIGHUP)
        program.wait_for(r"^restarting all$")
        program.wait_for(r"^[12]: ended by signal 15$")
        program.wait_for(r"^[12]: started, pid \d+$")
        program.wait_for(r"^[12]: ended by signal 15$")
        program.wait_for(r"^[12]: started, pid \d+$")
        require("they were not ended", not any(is_there(pid) for pid in before))
        program.send(signal.SIGINT)
        program.check_end()


def deadline():
    """Who does not end is killed."""
    with Supervisor("-k", "200", STUBBORN) as program:
        pid = program.stubborn()
        program.send(signal.SIGTERM)
        program.wait_for(r"^1: does not end, killed$")
        program.wait_for(r"^1: ended by signal 9$")
        program.check_end()
        require("it is left", not is_there(pid))


def second_signal():
    """A second signal does not wait for the deadline."""
    with Supervisor("-k", "3600000", STUBBORN) as program:
        program.stubborn()
        program.send(signal.SIGINT)
        program.wait_for(r"^stopping, signal 2 ")
        program.send(signal.SIGTERM)
        program.wait_for(r"^killing, signal 15 ")
        program.wait_for(r"^1: ended by signal 9$")
        program.check_end()


def usage():
    arguments_refused("supervisor", (), ("-k",), ("-k", "10"), ("-k", "x", "true"),
                      ("-k", "-1", "true"), ("-x", "true"))


def cases():
    yield "supervisor: restarts", restarts
    yield "supervisor: SIGHUP", hangup
    yield "supervisor: deadline", deadline
    yield "supervisor: second signal", second_signal
    yield "supervisor: usage", usage
