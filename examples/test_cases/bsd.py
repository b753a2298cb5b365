# SPDX-License-Identifier: MIT OR Apache-2.0
"""The program written for BSD."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from run_demo import Program, expect

from .common import LIMIT_S, arguments_refused, example

# A command that prints a line on SIGHUP, and ends with status 3 on SIGTERM.
COMMAND = ["sh", "-c", "trap 'echo reloaded' HUP; trap 'exit 3' TERM; echo ready;"
           " while :; do sleep 0.05; done"]


class Supervised:
    """The program on a command, and a file of its own."""

    def __init__(self, *command):
        self.folder = tempfile.TemporaryDirectory(prefix="evloop-supervise-")
        self.file = Path(self.folder.name) / "config"
        self.file.write_text("a")
        self.program = Program([example("supervise"), self.file, *command], LIMIT_S,
                               stdin=subprocess.PIPE)

    def __enter__(self):
        self.program.__enter__()
        return self

    def __exit__(self, *details):
        self.program.__exit__(*details)
        self.folder.cleanup()


def a_command_is_kept_running():
    with Supervised("sh", "-c", "exit 5") as supervised:
        program = supervised.program
        program.wait_for(r"^started \d+$")
        program.wait_for(r"^ended with 5$")
        program.wait_for(r"^started \d+$")
        program.wait_for(r"^ended with 5$")
        program.process.send_signal(signal.SIGTERM)
        expect("exit status", program.wait_exit(), 0)


def the_command_is_notified_of_a_change():
    with Supervised(*COMMAND) as supervised:
        program = supervised.program
        program.wait_for(r"^ready$")
        with supervised.file.open("a") as file:
            file.write("b")
        program.wait_for(r"^reloaded$")
        # As editors do it.
        fresh = supervised.file.with_suffix(".new")
        fresh.write_text("c")
        os.replace(fresh, supervised.file)
        program.wait_for(r"^reloaded$")
        program.process.send_signal(signal.SIGINT)
        program.wait_for(r"^ended with 3$")
        expect("exit status", program.wait_exit(), 0)


def the_end_of_the_input_ends_it():
    with Supervised(*COMMAND) as supervised:
        program = supervised.program
        program.wait_for(r"^ready$")
        program.process.stdin.write("status\n")
        program.process.stdin.flush()
        program.wait_for(r"^running, starts: 1$")
        program.process.stdin.close()
        program.wait_for(r"^ended with 3$")
        expect("exit status", program.wait_exit(), 0)


def cases():
    yield "supervise: a command is kept running", a_command_is_kept_running
    yield "supervise: the command is notified of a change", the_command_is_notified_of_a_change
    yield "supervise: the end of the input ends it", the_end_of_the_input_ends_it
    yield "supervise: usage", lambda: arguments_refused("supervise", [], ["file"])
