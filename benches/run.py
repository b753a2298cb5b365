#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The benchmarks: builds them, runs them, prints a table.

    run.py BUILD_DIR      BUILD_DIR/lib has the library ("make bench")

Times are medians of interleaved rounds of one run; only what is compared
inside a run means anything, and on a busy machine not even that. So times
never fail. Instructions are counted by valgrind and do not depend on the
machine's mood: a call that takes more than limits.json allows is a failure,
and the exit status is 1.
"""

import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CC = shlex.split(os.environ.get("CC") or "cc")
FLAGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
         "-I%s" % (ROOT / "include")]
GOAL_NS = 10
FEW, MANY = 100, 1100  # calls, for the instruction counter
LOADS = 40


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=300, **options)
    if done.returncode:
        sys.exit("%s failed:\n%s%s" % (shlex.join(map(str, command)), done.stdout, done.stderr))
    return done


def build(lib, out):
    out.mkdir(parents=True, exist_ok=True)
    run(CC + FLAGS + ["-shared", "-fPIC", HERE / "bare.c", "-o", out / "libbare.so"])
    run(CC + FLAGS + [HERE / "calls.c", "-o", out / "calls", "-L%s" % out, "-lbare",
                      "-L%s" % lib, "-levloop", "-Wl,-rpath,%s:%s" % (out, lib)])
    run(CC + FLAGS + [HERE / "load.c", "-o", out / "load", "-ldl"])


def calls(program):
    rows = [line.split("\t") for line in run([program]).stdout.splitlines()]

    def table(group, goal):
        for kind, name, bare, handle, difference in rows:
            if kind != group:
                continue
            verdict = ""
            if goal is not None:
                verdict = "ok" if float(difference) <= goal else "over +%d" % goal
            print("  %-34s %8s %8s %+8.1f %6.2fx  %s" % (
                name, bare, handle, float(difference), float(handle) / float(bare), verdict))

    print("A call through a handle, over the same call on a bare pointer; ns a call")
    print("  %-34s %8s %8s %8s %7s  goal +%d ns" % ("", "bare", "handle", "more", "ratio", GOAL_NS))
    table("p", GOAL_NS)
    print("\nThe same for calls that make a system call each (no goal)")
    table("s", None)


def instructions(program, name):
    """Instructions for one call, the bench's own loop (about 5) included."""
    def total(count):
        with tempfile.NamedTemporaryFile() as out:
            # Not the same everywhere, and the limits have room for it: the C
            # library chooses its memory routines by the processor, and where
            # valgrind does not know epoll_pwait2 the fallback is counted.
            run(["valgrind", "--tool=callgrind", "--callgrind-out-file=%s" % out.name,
                 program, name, count])
            text = Path(out.name).read_text(encoding="utf-8", errors="replace")
        return int(re.search(r"^(?:summary|totals): (\d+)", text, re.M)[1])

    return (total(MANY) - total(FEW)) / (MANY - FEW)


def guard(program):
    """How many calls take more instructions than they may."""
    print("\nInstructions a call, in user space (callgrind)")
    if not shutil.which("valgrind"):
        print("  skipped: valgrind is not installed")
        return 0
    machine = platform.machine()
    limits = json.loads((HERE / "limits.json").read_text(encoding="utf-8")).get(machine)
    if limits is None:
        print("  limits.json has no limits for %s: nothing is checked" % machine)
        limits = {}
    names = run([program, "-l"]).stdout.splitlines()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        counts = list(pool.map(lambda name: instructions(program, name), names))
    exceeded = 0
    print("  %-34s %8s %8s" % ("", "count", "limit"))
    for name, count in zip(names, counts):
        limit = limits.get(name)
        over = limit is not None and count > limit
        exceeded += over
        print("  %-34s %8.1f %8s  %s" % (
            name, count, "-" if limit is None else limit, "TOO MANY" if over else ""))
    for name in sorted(set(limits) - set(names)):
        exceeded += 1
        print("  %-34s has a limit, but there is no such bench" % name)
    return exceeded


def loading(program, library):
    """Medians of interleaved runs: inside the program, and as a process."""
    inside, whole = {"": [], library: []}, {"": [], library: []}
    for _ in range(LOADS):
        for which in inside:
            began = time.perf_counter()
            done = run([program, which] if which else [program])
            whole[which].append((time.perf_counter() - began) * 1e6)
            inside[which].append(int(done.stdout) / 1e3)
    print("\nFrom nothing to the first timer fired, us")
    print("  %-34s %8s %8s" % ("", "inside", "process"))
    for title, which in (("system calls alone", ""), ("dlopen and the library", library)):
        print("  %-34s %8.1f %8.0f" % (
            title, statistics.median(inside[which]), statistics.median(whole[which])))


def size(library, out):
    stripped = out / "stripped.so"
    shutil.copyfile(library, stripped)
    how = "as built"
    if shutil.which("strip"):
        run(["strip", "--strip-all", stripped])
        how = "stripped"
    print("\nlibevloop.so, %s: %d KB" % (how, round(stripped.stat().st_size / 1024)))


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    base = Path(sys.argv[1]).resolve()
    library, out = base / "lib/libevloop.so.0", base / "benches"
    if not library.exists():
        print("%s is not there: run make first" % library, file=sys.stderr)
        return 2
    build(library.parent, out)
    calls(out / "calls")
    loading(out / "load", str(library))
    size(library, out)
    exceeded = guard(out / "calls")
    if exceeded:
        print("\n%d of the instruction limits are exceeded: benches/limits.json" % exceeded)
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
