#!/usr/bin/env python3
"""Runs the test suites and prints their sum as the last line.

    python3 tests/run.py            all of them
    python3 tests/run.py c-tests    those whose name is, or begins with, that
    python3 tests/run.py --list     what there is

Each suite's commands and their output go to build/test-logs/NAME.log; the
terminal shows a line per suite, what it is doing while that takes long, and
what failed. A suite that lacks a tool is skipped and says which package has
it; with EVLOOP_CI=1 a skipped test counts as failed. When all suites were run
and have passed, what was built for them alone is removed, unless EVLOOP_KEEP
is set.
"""

import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from suites import (  # noqa: E402
    benches, cpython, ctests, docs, environment, examples, header, install, layers, library,
    rust, targets)
from suites.harness import LOGS, Missing, Progress, Suite, remove_build  # noqa: E402

SUMMARY = LOGS / "summary"  # the last line again, for .ci/run

# Cheap ones first; what is slow, and fails only when these do, last.
SUITES = {
    "fmt": (rust.fmt, "cargo fmt --check"),
    "clippy": (rust.clippy, "cargo clippy, no warnings"),
    "rustdoc": (rust.rustdoc, "cargo doc, no warnings"),
    "layers": (layers.layers, "which file of the source may use which"),
    "cargo-test": (rust.cargo_test, "Rust's unit, property and drift tests"),
    "library": (library.library, "exported symbols, soname, link flags"),
    "header": (header.header, "the header in every C and C++ dialect"),
    "c-tests-shared": (ctests.shared, "C tests with the shared library"),
    "c-tests-static": (ctests.static, "C tests with the static library"),
    "c-tests-nosys": (ctests.nosys, "C tests while system calls are refused"),
    "environment": (environment.environment, "a set-user-id program's environment"),
    "docs": (docs.docs, "the programs in README.md and the header"),
    "examples": (examples.examples, "the examples, driven"),
    "cpython": (cpython.cpython, "CPython's own tests of kqueue"),
    "benches": (benches.benches, "the benchmarks, small: nothing lost"),
    "targets": (targets.targets, "musl, with its C tests, and 64-bit ARM"),
    "install": (install.install, "install, use, uninstall"),
    "loom": (rust.loom, "every interleaving of what threads share"),
    "cargo-asan": (rust.cargo_asan, "Rust's unit tests under AddressSanitizer"),
    "c-tests-asan": (ctests.asan, "C tests under AddressSanitizer and UBSan"),
    "c-tests-valgrind": (ctests.valgrind, "C tests under valgrind memcheck"),
}


def chosen(wanted):
    def matches(name):
        return any(name == word or name.startswith(word + "-") for word in wanted)

    return [name for name in SUITES if not wanted or matches(name)]


def run_suite(name, ci):
    suite = Suite(name)
    began = time.monotonic()
    with Progress(suite):
        try:
            SUITES[name][0](suite)
        except Missing as why:
            suite.skip(name, str(why))
        except Exception:  # One broken suite must not hide the others' results.
            suite.fail("the suite itself", traceback.format_exc())
    if ci and suite.skipped:
        for why in suite.skips:
            suite.failures.append((f"skipped, which CI does not allow: {why}", ""))
        suite.failed += suite.skipped
        suite.skipped = 0
    suite.seconds = time.monotonic() - began
    report(suite)
    suite.log.close()
    return suite


def report(suite):
    counts = [f"{suite.passed} passed"]
    counts += [f"{suite.failed} FAILED"] if suite.failed else []
    counts += [f"{suite.skipped} skipped"] if suite.skipped else []
    notes = "".join(f" ({note})" for note in suite.notes)
    print(f"  {suite.name:<17} {', '.join(counts)}{notes}  [{suite.seconds:.0f} s]", flush=True)
    for why in suite.skips if suite.skipped else []:
        print(f"      skipped: {why}")
    for title, detail in suite.failures:
        print(f"    FAILED {title}")
        for line in detail.splitlines():
            print(f"      | {line}")
    if suite.failures:
        print(f"    all of it: {suite.log_path}")
    sys.stdout.flush()


def report_all(done):
    """The suites' minutes, longest last; and what failed, together."""
    by_time = sorted(done, key=lambda suite: suite.seconds)
    print("minutes: " + ", ".join(f"{suite.name} {suite.seconds / 60:.1f}" for suite in by_time))
    for suite in done:
        for title, detail in suite.failures:
            lines = [line.strip() for line in detail.splitlines()]
            said = [line for line in lines if "failed:" in line or line.startswith("FAIL ")]
            print(f"FAILED {suite.name}: {title}: {'; '.join(said or lines[-3:])[:400]}")


def main(arguments):
    if "--list" in arguments:
        for name, (_, text) in SUITES.items():
            print(f"{name:<17} {text}")
        return 0
    names = chosen(arguments)
    unknown = [word for word in arguments if not chosen([word])]
    if unknown:
        print(f"no such suite: {', '.join(unknown)} (see --list)", file=sys.stderr)
        return 2
    ci = os.environ.get("EVLOOP_CI") == "1"
    LOGS.mkdir(parents=True, exist_ok=True)
    SUMMARY.unlink(missing_ok=True)
    done = [run_suite(name, ci) for name in names]
    passed, failed, skipped = (sum(getattr(suite, field) for suite in done)
                               for field in ("passed", "failed", "skipped"))
    if not arguments and not failed and "EVLOOP_KEEP" not in os.environ:
        remove_build()
    report_all(done)
    counts = f"{passed} passed, {failed} failed, {skipped} skipped"
    SUMMARY.write_text(counts + "\n")
    print(counts, flush=True)
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
