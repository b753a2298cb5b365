# SPDX-License-Identifier: MIT OR Apache-2.0
"""Loops that are late, and how that is found; a clock that is set."""

import json
import os
import re
import subprocess
import tempfile
import time

from run_demo import Program, expect

from .common import LIMIT_S, Skip, arguments_refused, example, require, run_to_end

NAMES = ["heartbeat", "requests", "cache cleaner", "metrics", "log writer"]


def nested(slices):
    """Whether those of a thread follow, or contain, each other."""
    open_ends = []
    for one in slices:
        begin, end = one["ts"], one["ts"] + one["dur"]
        while open_ends and open_ends[-1] <= begin + 0.0005:
            open_ends.pop()
        if open_ends and end > open_ends[-1] + 0.0005:
            return False
        open_ends.append(end)
    return True


def find_the_culprit(culprit):
    """With what the program prints, and with its trace: each alone is enough."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "trace.json")
        status, lines = run_to_end(example("five_watchers"), path, culprit)
        expect("exit status (%r)" % lines[-1:], status, 0)
        with open(path, encoding="utf-8") as file:
            trace = json.load(file)
    longest = re.match(r"the longest callback: (.*), (\d+\.\d+) ms$", lines[-2])
    expect("the longest callback", longest[1], NAMES[culprit - 1])
    require("it is too short: %s ms" % longest[2], float(longest[2]) >= 30)
    late = re.match(r"lateness of timers: .* most +(\d+\.\d+) ms$", lines[2])
    require("nothing was late: %r" % lines[2], float(late[1]) >= 10)

    slices = [one for one in trace["traceEvents"] if one["ph"] == "X"]
    slices.sort(key=lambda one: (one["ts"], -one["dur"]))
    expect("threads", len({(one["pid"], one["tid"]) for one in slices}), 1)
    require("they overlap", nested(slices))
    callbacks = [one for one in slices if "watcher" in one["args"]]
    expect("names", {one["name"] for one in callbacks}, set(NAMES))
    often = {name: sum(one["dur"] >= 30000 for one in callbacks if one["name"] == name)
             for name in NAMES}
    require("not the culprit: %r" % often, max(often, key=often.get) == NAMES[culprit - 1])
    require("iterations and waits", {"iteration", "wait"} <= {one["name"] for one in slices})


def late_service():
    with Program([example("late_service"), "20"], LIMIT_S, stdin=subprocess.PIPE) as program:
        program.wait_for("^ready$")
        program.process.stdin.write("1\n80\n")
        program.process.stdin.flush()
        # The watchdog does not report it any more once the loop is closed.
        program.wait_for("^late: 'requests' is over")
        program.process.stdin.write("2\n")
        program.process.stdin.close()
        expect("exit status", program.wait_exit(), 0)
        lines = program.lines
    stuck = [line for line in lines if line.startswith("late: 'requests' has been running for ")]
    over = [re.match(r"late: 'requests' is over, after (\d+\.\d) ms$", line) for line in lines]
    over = [float(match[1]) for match in over if match]
    require("not reported: %r" % lines, stuck and over and max(over) >= 80)
    last = re.match(r"stats: 3 requests; asleep \d+% of the time; timers late by up to (\d+\.\d) ms; "
                    r"the longest callback was 'requests', (\d+\.\d) ms$", lines[-1])
    require("unexpected: %r" % lines[-1], last)
    require("too short: %r" % lines[-1], float(last[1]) >= 60 and float(last[2]) >= 80)


def wall_clock():
    status, lines = run_to_end(example("wall_clock"), 2)
    expect("exit status", status, 0)
    strikes = [re.match(r"\d\d:\d\d:(\d\d), (\d+\.\d) ms late$", line) for line in lines]
    strikes = [int(strike[1]) for strike in strikes if strike]
    expect("a second later", strikes[1], (strikes[0] + 1) % 60)


def wall_clock_is_set():
    """To the time that it shows: a step, for a program that waits for one."""
    with Program([example("wall_clock"), 2], LIMIT_S) as program:
        program.wait_for("^ready$")
        program.wait_for(r"^\d\d:\d\d:\d\d,")
        try:
            time.clock_settime(time.CLOCK_REALTIME, time.time())
        except PermissionError:
            raise Skip("the clock may not be set here") from None
        program.wait_for(r"^the clock was set, by [+-]0\.0\d\d s$")
        expect("exit status", program.wait_exit(), 0)


def usage():
    arguments_refused("five_watchers", (), ("t.json", "0"), ("t.json", "6"), ("a", "1", "b"))
    arguments_refused("late_service", ("0",), ("x",), ("1", "2"))
    arguments_refused("wall_clock", ("0",), ("-2",), ("1", "2"))


def cases():
    for culprit in range(1, len(NAMES) + 1):
        yield "five_watchers: it is number %d" % culprit, lambda n=culprit: find_the_culprit(n)
    yield "late_service", late_service
    yield "wall_clock", wall_clock
    yield "wall_clock, and the clock is set", wall_clock_is_set
    yield "usage of those", usage
