# SPDX-License-Identifier: MIT OR Apache-2.0
"""The program that watches files."""

import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from run_demo import Program, expect

from .common import LIMIT_S, arguments_refused, example, require, run_to_end


@contextmanager
def watching(*arguments):
    """The program, which watches a directory that has one in it."""
    with tempfile.TemporaryDirectory(prefix="evloop-watch-") as home:
        tree = Path(home) / "tree"
        (tree / "src").mkdir(parents=True)
        with Program([example("watch_files"), tree, *arguments], LIMIT_S) as program:
            program.wait_for(r"^watching ")
            yield program, tree


def burst(program):
    """The lines up to the next one that says that it is quiet, and that one."""
    before = len(program.lines)
    program.wait_for(r"^quiet: ")
    return program.lines[before:]


def check_end(program):
    expect("exit status", program.wait_exit(), 0)
    expect("last line", program.lines[-1], "handles still open: 0")


def changes():
    """Each is printed with its name, and a burst of them is one."""
    with watching() as (program, tree):
        (tree / "src/new").mkdir()
        (tree / "src/new/a.c").write_text("int a;\n")
        lines = burst(program)
        expect("made", [line for line in lines if line.startswith("made: ")],
               ["made: src/new/", "made: src/new/a.c"])
        # By a process of its own: what another test starts at this moment
        # would have the file open for a moment, too, and close it later.
        subprocess.run(["sh", "-ec", "echo > new/b.c; mv new/b.c a.c; rm new/a.c"],
                       cwd=tree / "src", check=True)
        expect("a burst", burst(program),
               ["made: src/new/b.c", "written: src/new/b.c",
                "renamed: src/new/b.c -> src/a.c", "deleted: src/new/a.c", "quiet: 4 changes"])
        (tree / "src").rename(tree.parent / "out")
        expect("moved out", burst(program), ["moved out: src/", "quiet: 1 change"])
        (tree / "odd\tname\x1b").touch()
        require("an odd name", "made: odd?name?" in burst(program))
        program.process.send_signal(signal.SIGTERM)
        check_end(program)


def command():
    with watching(10, "echo building") as (program, tree):
        (tree / "file").touch()
        program.wait_for(r"^building$")
        # Not SIGINT: while a command runs, system(3) has that ignored.
        program.process.send_signal(signal.SIGTERM)
        check_end(program)


def gone():
    with watching(10) as (program, tree):
        shutil.rmtree(tree)
        program.wait_for(r"^the directory is gone$")
        program.wait_for(r"^quiet: ")
        check_end(program)


def usage():
    arguments_refused("watch_files", (), ("/", "0"), ("/", "x"), ("/", "1", "true", "more"))
    status, lines = run_to_end(example("watch_files"), "/nowhere")
    expect("exit status without a directory", status, 1)
    require("no reason: %r" % lines, "there is no such file" in lines[-1])


def cases():
    yield "watch_files", changes
    yield "watch_files: a command", command
    yield "watch_files: the directory goes", gone
    yield "watch_files: usage", usage
