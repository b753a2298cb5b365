#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The benchmarks: builds them, runs them, prints a table.

    run.py BUILD_DIR             BUILD_DIR/lib has the library ("make bench")
    run.py BUILD_DIR --quick     only counts the event loop's events, in a few
                                 seconds, for the tests
    run.py BUILD_DIR --json      only the event loop's figures, as JSON
    run.py BUILD_DIR --limits    only counts instructions, and prints what to
                                 put into limits.json for this machine

Times are medians of interleaved rounds of one run; only what is compared
inside a run means anything, and on a busy machine not even that. So times
never fail. Instructions are counted by valgrind, system calls by strace, and
do not depend on the machine's mood: a call that takes more of them than
limits.json allows is a failure, and so is an event that was lost, early or
too many; the exit status is then 1.
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
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-I%s" % (ROOT / "include")]
FLAGS = ["-std=c99", "-O2", "-Wpedantic"] + WARNINGS
LOOP_FLAGS = ["-std=gnu11", "-O2", "-pthread"] + WARNINGS
LOOP_SOURCES = ["loops.c", "bench.c", "bench_io.c", "bench_timer.c", "bench_thread.c",
                "bench_call.c", "bench_kqueue.c", "bench_signal.c", "bench_memory.c", "guard.c"]
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
    run(CC + LOOP_FLAGS + [HERE / name for name in LOOP_SOURCES] +
        ["-o", out / "loops", "-L%s" % out, "-lbare", "-L%s" % lib, "-levloop", "-lm",
         "-Wl,-rpath,%s:%s" % (out, lib)])


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


def loops(program, *options):
    """Says itself what it measures, while it does; whether all events were there."""
    sys.stdout.flush()
    return subprocess.run([str(program), *options], timeout=1800, check=False).returncode == 0


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


def counted(programs):
    """Instructions by name, of all programs."""
    jobs = [(program, name) for program in programs
            for name in run([program, "-l"]).stdout.splitlines()]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        counts = list(pool.map(lambda job: instructions(*job), jobs))
    return {name: count for (_, name), count in zip(jobs, counts)}


def guard(programs):
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
    counts = counted(programs)
    exceeded = 0
    print("  %-40s %8s %8s" % ("", "count", "limit"))
    for name, count in counts.items():
        limit = limits.get(name)
        over = limit is not None and count > limit
        exceeded += over
        print("  %-40s %8.1f %8s  %s" % (
            name, count, "-" if limit is None else limit, "TOO MANY" if over else ""))
    for name in sorted(set(limits) - set(counts)):
        exceeded += 1
        print("  %-40s has a limit, but there is no such bench" % name)
    return exceeded


def new_limits(programs):
    """Some room above the counts: another C library, another compiler."""
    limits = {name: int((count * 1.1 + 5) // 5 * 5) for name, count in counted(programs).items()
              if " bare " not in name and not name.endswith("by hand")}
    print(json.dumps({platform.machine(): limits}, indent=2))


def system_calls(program):
    """How many calls of the event loop make more system calls than they may."""
    print("\nSystem calls a call (strace)")
    probe = shutil.which("strace") and subprocess.run(["strace", "-o", os.devnull, "true"],
                                                      capture_output=True, check=False)
    if not probe or probe.returncode:
        print("  skipped: strace is not installed, or not allowed")
        return 0
    limits = json.loads((HERE / "limits.json").read_text(encoding="utf-8"))["system calls"]

    def total(name, count):
        with tempfile.NamedTemporaryFile() as out:
            # How often descriptors are asked whether they are what they were,
            # by fcntl(2), goes by the time, and strace takes much of it.
            run(["strace", "-f", "-c", "-e", "trace=!fcntl", "-o", out.name,
                 program, name, count])
            text = Path(out.name).read_text(encoding="utf-8")
        return int(re.search(r"^\S+\s+\S+\s+\S*\s+(\d+).* total$", text, re.M)[1])

    exceeded = 0
    print("  %-40s %8s %8s" % ("", "count", "limit"))
    for name in run([program, "-l"]).stdout.splitlines():
        count = (total(name, MANY) - total(name, FEW)) / (MANY - FEW)
        over = name in limits and count > limits[name]
        exceeded += over
        print("  %-40s %8.2f %8s  %s" % (
            name, count, limits.get(name, "-"), "TOO MANY" if over else ""))
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
    options = sys.argv[2:]
    if len(sys.argv) < 2 or options not in ([], ["--quick"], ["--json"], ["--limits"]):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    base = Path(sys.argv[1]).resolve()
    library, out = base / "lib/libevloop.so.0", base / "benches"
    if not library.exists():
        print("%s is not there: run make first" % library, file=sys.stderr)
        return 2
    build(library.parent, out)
    guarded = [out / "calls", out / "loops"]
    if options == ["--limits"]:
        new_limits(guarded)
        return 0
    if options:
        return 0 if loops(out / "loops", *options) else 1
    calls(out / "calls")
    loading(out / "load", str(library))
    size(library, out)
    exceeded = guard(guarded) + system_calls(out / "loops")
    if exceeded:
        print("\n%d of the limits are exceeded: benches/limits.json" % exceeded)
    print("\nThe event loop, against epoll, timerfd and eventfd called directly")
    complete = loops(out / "loops")
    return 1 if exceeded or not complete else 0


if __name__ == "__main__":
    sys.exit(main())
