"""The C tests: shared, static, and under valgrind, sanitizers and nosys."""

import platform
import re

from .harness import BUILD, ROOT, Missing, need
from .rotation import chosen

# One binary runs each of its cases in a process of its own, with a time
# limit; this one is only for the binary as a whole.
BINARY_TIMEOUT = 900

VALGRIND = ["valgrind", "--quiet", "--vgdb=no", "--trace-children=yes", "--leak-check=full",
            "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect",
            "--error-exitcode=99", "--num-callers=30"]

ASAN = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:"
                    "strict_string_checks=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "EVLOOP_TEST_ASAN": 1,
    "EVLOOP_TEST_SLOW": 4,
}

# What old kernels and sandboxes answer to calls that have a fallback.
REFUSALS = ["epoll_pwait2", "epoll_pwait2=EPERM", "preadv2", "preadv2=EOPNOTSUPP"]
# The same, for what only some tests use.
REFUSALS_OF = {
    "test_kqueue_aio": ["io_uring_setup", "io_uring_setup=EPERM", "io_uring_setup,preadv2"],
}
ENOSYS, EMFILE = 38, 24


# These set limits to the address space, of which these tools need much
# themselves, or have a malloc() of their own, as the tools do.
NOT_UNDER_TOOLS = ("test_loop_memory", "test_faults", "test_loop_faults", "test_loop_denied",
                   "test_loop_file_memory")
# Their frames are larger, and their own.
LARGER_FRAMES = ("test_stack",)
# valgrind 3.19 does not know pidfd_open(2), and says ENOSYS; nor SIGSYS for a
# system call.
NOT_UNDER_VALGRIND = ("test_kqueue_proc", "test_kqueue_proc_flood", "test_loop_process",
                      "test_loop_process_thread", "test_kqueue_faults",
                      # It measures tenths of a millisecond.
                      "test_loop_coalescing")
# The sanitizer's sigaction() comes first.
NOT_UNDER_ASAN = ("test_kqueue_sigaction",)
# There is no shared library in these programs to look for the next sigaction().
NOT_WITH_MUSL = ("test_kqueue_sigaction",)


def names(variant=""):
    stems = sorted(path.stem for path in (ROOT / "c-tests").glob("test_*.c"))
    tool = variant in ("checked", "asan", "musl")
    without = NOT_UNDER_TOOLS if tool else ()
    if variant in ("checked", "asan"):
        without += LARGER_FRAMES
    if variant == "checked":
        without += NOT_UNDER_VALGRIND
    if variant == "asan":
        without += NOT_UNDER_ASAN
    if variant == "musl":
        without += NOT_WITH_MUSL
    return [stem for stem in stems if stem not in without]


def run_all(suite, variant, before=(), env=None, title="", tests=None):
    """Runs every test binary of a variant, after the words in `before`."""
    def run(name):
        binary = BUILD / "c-tests" / variant / name
        return suite.run([*before, binary], env=env, timeout=BINARY_TIMEOUT)

    tests = tests or names(variant)
    if not tests:
        suite.fail("no C tests", "c-tests/test_*.c")
    for name, done in zip(tests, suite.each(run, tests)):
        # valgrind's warnings about system calls younger than itself.
        output = re.sub(r"^--\d+-- .*\n", "", done.output, flags=re.M)
        suite.add_counts(f"{name}{title}", done._replace(output=output))


def shared(suite):
    if suite.make("c-tests-shared"):
        run_all(suite, "shared")


def static(suite):
    if suite.make("c-tests-static"):
        run_all(suite, "static")


def valgrind(suite):
    need("valgrind", "valgrind")
    if suite.make("c-tests-checked"):
        # Far slower, and one thread at a time.
        run_all(suite, "checked", VALGRIND,
                {"EVLOOP_TEST_VALGRIND": 1, "EVLOOP_TEST_SLOW": 10},
                tests=chosen(suite, "tests", names("checked"), 3))


# ---- AddressSanitizer ----

def asan(suite):
    if platform.machine() not in ("x86_64", "aarch64"):
        raise Missing("AddressSanitizer for Rust needs x86_64 or aarch64")
    if not suite.make("c-tests-asan"):
        return
    prove_instrumented(suite)
    run_all(suite, "asan", env=ASAN)


def prove_instrumented(suite):
    """Without these a build that lost its flags would pass for clean."""
    archive = BUILD / "lib-asan/libevloop.a"
    listing = suite.run(["nm", "-A", archive]).output
    own = [line for line in listing.splitlines() if re.search(r":evloop[.-][^:]*:", line)]
    suite.check("the library calls __asan_report",
                any("__asan_report" in line for line in own), "\n".join(own[:20]))
    done = suite.run([BUILD / "tests/asan_proof"], env=ASAN)
    suite.check("a write of the library to freed memory is reported",
                not done.ok and "heap-use-after-free" in done.output
                and "tfd_gettime_ns" in done.output, done.tail())


# ---- system calls that fail ----

def nosys(suite):
    runner = BUILD / "tests/nosys"
    if not suite.make("test-tools", "c-tests-shared"):
        return
    if suite.run([runner, "madvise", "--", "true"]).code == 77:
        raise Missing("this kernel has no seccomp filters")
    refused_outright(suite, runner)
    for rule in chosen(suite, "refusals", REFUSALS):
        # The variable is for a case that must know what is refused.
        run_all(suite, "shared", [runner, rule, "--"], {"EVLOOP_TEST_NOSYS": rule},
                title=f" without {rule}")
    for test, rules in REFUSALS_OF.items():
        for rule in rules:
            run_all(suite, "shared", [runner, rule, "--"], {"EVLOOP_TEST_NOSYS": rule},
                    title=f" without {rule}", tests=[test])


def refused_outright(suite, runner):
    """Calls without a fallback: their errno comes back, and no crash."""
    def values(rule):
        done = suite.run([runner, rule, "--", BUILD / "tests/nosys_probe"])
        suite.check(f"{rule}: ends by itself", done.ok, done.tail())
        return dict(line.split(" ", 1) for line in done.output.splitlines() if " " in line)

    def expect(rule, **expected):
        got = values(rule)
        for name, value in expected.items():
            suite.check(f"{rule}: {name} is {value}", got.get(name) == str(value),
                        f"it is {got.get(name)}")

    expect("epoll_pwait2,preadv2=EOPNOTSUPP", raw_epoll_pwait2=-ENOSYS, raw_preadv2=-95,
           tfd_wait=0, evloop_epoll_wait=0, evloop_poll_wait=0, left_open=0)
    expect("timerfd_create", tfd_create=-ENOSYS, sentence="ok", evloop_epoll_wait=0)
    expect("timerfd_create=EMFILE", tfd_create=-EMFILE, sentence="ok", left_open=0)
    expect("epoll_create1", evloop_epoll_create=-ENOSYS, sentence="ok", tfd_wait=0)
    expect("epoll_create1=EMFILE", evloop_epoll_create=-EMFILE, sentence="ok", left_open=0)
    for error, number in (("ENOSYS", ENOSYS), ("EMFILE", EMFILE)):
        # Which calls need an eventfd is the library's business.
        rule = f"eventfd2={error}"
        got = values(rule)
        strange = {name: value for name, value in got.items()
                   if not name.startswith("raw_") and name != "sentence"
                   and value not in ("0", str(-number))}
        suite.check(f"{rule}: {-number} or success", got and not strange, str(strange))
        suite.check(f"{rule}: no handle is left", got.get("left_open") == "0", str(got))
