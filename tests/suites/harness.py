"""What every suite is made of: running commands, counting, saying why."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("BUILD", "build")
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
LOGS = BUILD / "test-logs"
HEADER = ROOT / "include/evloop.h"

CC = os.environ.get("CC", "cc").split()
CARGO = os.environ.get("CARGO", "cargo")

# What only the tests build: gone when all of them have passed.
OWN_BUILDS = [BUILD / "c-tests", BUILD / "lib-asan", BUILD / "tests", BUILD / "cargo-c",
              TARGET / "asan", TARGET / "loom", TARGET / "checked"]

# More would make the timing tests measure each other.
JOBS = min(2, os.cpu_count() or 1)
TAIL = 40

COUNTS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    output: str

    @property
    def ok(self):
        return self.code == 0

    def tail(self, lines=TAIL):
        kept = self.output.rstrip().splitlines()[-lines:]
        return "\n".join(kept + [f"(exit status {self.code})"])


class Missing(Exception):
    """A tool is not installed: the suite is skipped, with the reason."""


class Suite:
    """Counts what passed, and keeps a log file of all that was run."""

    def __init__(self, name):
        self.name = name
        self.passed = self.failed = self.skipped = 0
        self.seconds = 0
        self.failures = []
        self.skips = []
        self.notes = []
        self.running = []  # commands, the one that began last at the end
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log_path = LOGS / f"{name}.log"
        self.log = open(self.log_path, "w", encoding="utf-8", errors="replace")

    # ---- counting ----

    def ok(self, count=1):
        self.passed += count

    def fail(self, title, detail="", count=1):
        self.failed += count
        self.failures.append((title, detail))
        self.log.write(f"\nFAILED: {title}\n{detail}\n")

    def skip(self, title, why, count=1):
        self.skipped += count
        self.skips.append(f"{title}: {why}")
        self.log.write(f"\nskipped: {title}: {why}\n")

    def note(self, text):
        """Information for the suite's line."""
        self.notes.append(text)

    def check(self, title, condition, detail=""):
        if condition:
            self.ok()
        else:
            self.fail(title, detail)
        return bool(condition)

    def command(self, title, args, **options):
        """One command, one test: it passes if it ends with 0."""
        done = self.run(args, **options)
        self.check(title, done.ok, done.tail())
        return done

    def counted(self, title, args, **options):
        """A program whose last line is `N passed, N failed, N skipped`."""
        self.add_counts(title, self.run(args, **options))

    def add_counts(self, title, done):
        lines = done.output.rstrip().splitlines()
        counts = COUNTS.match(lines[-1].strip()) if lines else None
        if counts is None:
            self.fail(f"{title}: no count in its last line", done.tail())
            return
        passed, failed, skipped = map(int, counts.groups())
        if passed + failed + skipped == 0:
            self.fail(f"{title}: no test ran", done.tail())
        self.ok(passed)
        if skipped:
            reasons = [line.strip() for line in lines[:-1] if "skip" in line.lower()]
            self.skip(title, "; ".join(reasons) or "it does not say why", skipped)
        if failed or not done.ok:
            self.fail(title, done.tail(), max(failed, 1))

    # ---- running ----

    def run(self, args, timeout=600, cwd=ROOT, env=None):
        """Runs a command to its end and logs it, without a terminal."""
        args = [str(arg) for arg in args]
        began = time.monotonic()
        self.running.append(args)
        try:
            code, text = execute(args, timeout, cwd, env)
        finally:
            self.running.remove(args)
        seconds = time.monotonic() - began
        settings = "".join(f"{key}={value} " for key, value in (env or {}).items())
        self.log.write(f"$ {settings}{' '.join(args)}\n{text}"
                       f"(exit status {code}, {seconds:.1f} s)\n\n")
        return Done(code, text)

    def each(self, function, items):
        """Calls function for every item, some at a time; results in order."""
        with ThreadPoolExecutor(JOBS) as pool:
            return list(pool.map(function, items))

    def make(self, *targets):
        """Has the Makefile build something; says whether it could."""
        done = self.run(["make", "--no-print-directory", f"-j{JOBS}", *targets],
                        timeout=1200)
        if not done.ok:
            self.fail("make " + " ".join(targets), done.tail())
        return done.ok


class Progress:
    """Says what a suite is doing while that takes long."""

    PERIOD = 10

    def __init__(self, suite):
        self.suite = suite
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.report, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()

    def report(self):
        began, before = time.monotonic(), None
        while not self.over.wait(self.PERIOD):
            commands = list(self.suite.running)
            if commands and commands != before:
                what = "; ".join(brief(args) for args in commands)
                print(f"      {self.suite.name}, {time.monotonic() - began:.0f} s: {what}",
                      flush=True)
            before = commands


def brief(args):
    """A command in a few words: paths by their names, and no options."""
    words = [os.path.basename(word) for word in args if not word.startswith("-")]
    return " ".join(words)[:60]


def remove_build():
    for path in OWN_BUILDS:
        shutil.rmtree(path, ignore_errors=True)


def execute(args, timeout, cwd, env):
    """The exit status and the output, also when there was no end or start."""
    try:
        # A session of its own, so that all of it can be ended together.
        process = subprocess.Popen(
            args, cwd=cwd, env=environment(env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
    except OSError as why:
        return 127, f"{why}\n"
    try:
        output, _ = process.communicate(timeout=timeout)
        code, end = process.returncode, ""
    except subprocess.TimeoutExpired:
        output, code = kill_group(process), 124
        end = f"\n(stopped after {timeout} s)\n"
    except BaseException:
        kill_group(process)
        raise
    return code, output.decode(errors="replace") + end


def kill_group(process):
    """Ends a process with all its children; returns what it had printed."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return process.communicate()[0]


def environment(extra):
    # A make that runs this would hand its job server and flags down.
    keep = {key: value for key, value in os.environ.items()
            if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    keep.update({key: str(value) for key, value in (extra or {}).items()})
    return keep


def need(tool, package):
    """The path of a program, or Missing."""
    path = shutil.which(tool)
    if path is None:
        raise Missing(f"{tool} is not installed (package {package})")
    return path


def make_variable(name):
    """A variable of the Makefile, so that it is said in one place."""
    rule = f"_print:\n\t@echo '$({name})'\n"
    done = subprocess.run(["make", "-s", "-f", "Makefile", "-f", "-", "_print"],
                          input=rule, cwd=ROOT, env=environment({}), text=True,
                          capture_output=True, check=True)
    return done.stdout.strip()


def header_functions():
    """The functions that the header declares, in its order."""
    text = HEADER.read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"typedef[^;{]*;|typedef[^{]*\{.*?\}[^;]*;", "", text, flags=re.S)
    return re.findall(r"\b(\w+)\s*\([^()]*(?:\([^()]*\)[^()]*)*\)\s*;", text)
