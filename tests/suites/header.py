"""The header in every dialect of C and C++, with and without its likes."""

import re
import tempfile
from pathlib import Path

from .harness import CC, HEADER, Missing, need

SYSTEM = ["poll.h", "sys/epoll.h", "sys/timerfd.h", "sys/eventfd.h",
          "sys/select.h", "time.h", "signal.h"]
C = ["c99", "c11", "c17", "c2x"]
CXX = ["c++11", "c++14", "c++17", "c++20"]
# Dialects before C99 and C++11, where <stdint.h> is an extension: without
# -Wpedantic, but with what strict projects switch on besides.
OLD_C = ["c89", "gnu89"]
OLD_CXX = ["c++98"]
OLD = ["-Wall", "-Wextra", "-Werror", "-Wundef", "-fsyntax-only", f"-I{HEADER.parent}"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
          f"-I{HEADER.parent}", f"-I{HEADER.parent / 'compat'}"]
STRICT_C = ["-Wstrict-prototypes", "-Wmissing-prototypes"]

# Uses a value, a structure, an array and a callback, so that more than the
# declarations must be right.
USE = """
int use(evloop_poll_t set);
static int go_on(void *user_data) { return user_data != 0; }
int use(evloop_poll_t set) {
  evloop_ready_t ready[4];
  int count = evloop_poll_wait(set, ready, 4, -1);
  (void)evloop_set_interrupt_check(go_on, 0);
  return count > 0 ? ready[0].fd : EVLOOP_VERSION_MAJOR;
}
"""

# The same for BSD's header, which stands for itself.
USE_KQUEUE = """
int use_kqueue(void);
int use_kqueue(void) {
  struct kevent list[2];
  int kq = kqueue();
  EV_SET(&list[0], 1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, 5, 0);
  EV_SET(list + 1, 2, EVFILT_USER, EV_ADD, NOTE_FFCOPY | NOTE_TRIGGER, 0, list);
  return kevent(kq, list, 2, list, 2, 0) + (int)list[0].data;
}
"""


def includes(names):
    return "".join(f"#include <{name}>\n" for name in names)


def sources():
    """Ways to include the header, by name."""
    own = ["evloop.h"]
    return {
        "alone": includes(own) + USE,
        "first": includes(own + SYSTEM) + USE,
        "last": includes(SYSTEM + own) + USE,
        "twice": includes(own) + "#define _GNU_SOURCE 1\n" + includes(own) + USE,
        "with BSD's": includes(own + ["sys/event.h"]) + USE + USE_KQUEUE,
        "after BSD's": includes(["sys/event.h"] + SYSTEM + own) + USE + USE_KQUEUE,
        "not at all, BSD's alone": includes(["sys/event.h"]) + USE_KQUEUE,
        "gnu": "#define _GNU_SOURCE 1\n" + includes(SYSTEM + own + SYSTEM) + USE,
    }


def dialects(suite):
    """Every compiler, dialect and way to include it: one test each."""
    jobs, missing = [], []
    for tool, suffix, standards, package in [
            ("gcc", "c", C, "gcc"), ("clang", "c", C, "clang"),
            ("g++", "cc", CXX, "g++"), ("clang++", "cc", CXX, "clang")]:
        try:
            need(tool, package)
        except Missing as why:
            missing.append((tool, str(why), len(standards) * len(sources())))
            continue
        jobs += [(tool, suffix, standard, way)
                 for standard in standards for way in sources()]
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder))
        suite.each(lambda job: compile_one(suite, Path(folder), *job), jobs)
    for tool, why, count in missing:
        suite.skip(tool, why, count)


def write_sources(folder):
    for way, text in sources().items():
        for suffix in ("c", "cc"):
            # g++ has defined _GNU_SOURCE already.
            guard = text.replace("#define _GNU_SOURCE 1",
                                 "#ifndef _GNU_SOURCE\n#define _GNU_SOURCE 1\n#endif")
            (folder / f"{way}.{suffix}").write_text(guard)


def compile_one(suite, folder, tool, suffix, standard, way):
    extra = STRICT_C if suffix == "c" else []
    suite.command(f"{tool} -std={standard}, evloop.h {way}",
                  [tool, f"-std={standard}", *STRICT, *extra, folder / f"{way}.{suffix}"])


def old_dialects(suite):
    source = includes(["evloop.h"]) + USE.replace("evloop_ready_t ready[4];\n  int",
                                                  "evloop_ready_t ready[4]; int")
    with tempfile.TemporaryDirectory() as folder:
        for tool, suffix, standards, package in [
                ("gcc", "c", OLD_C, "gcc"), ("clang", "c", OLD_C, "clang"),
                ("g++", "cc", OLD_CXX, "g++"), ("clang++", "cc", OLD_CXX, "clang")]:
            path = Path(folder) / f"old.{suffix}"
            path.write_text(source)
            extra = [*STRICT_C, "-Wconversion"] if suffix == "c" else ["-Wold-style-cast"]
            for standard in standards:
                title = f"{tool} -std={standard}"
                try:
                    need(tool, package)
                except Missing as why:
                    suite.skip(title, why)
                    continue
                suite.command(title, [tool, f"-std={standard}", *OLD, *extra, path])


def constants(suite):
    """Constants have the system's values; no other name is defined."""
    text = HEADER.read_text(encoding="utf-8")
    macros = re.findall(r"^#define (\w+)[ \t]+\S", text, re.M)
    strangers = [name for name in macros if not name.startswith("EVLOOP_")]
    suite.check("only EVLOOP_ macros", macros and not strangers, "\n".join(strangers))
    long = [line for line in text.splitlines() if len(line) > 80]
    suite.check("no line is over 80 columns", not long, "\n".join(long))
    source = "#define _GNU_SOURCE 1\n" + includes(SYSTEM + ["limits.h", "stddef.h"])
    source += includes(["evloop.h"]) + "int compared;\n"
    source += "".join(comparison(name) for name in macros)
    source += (
        '_Static_assert(sizeof(evloop_ready_t) == 16, "size");\n'
        '_Static_assert(offsetof(evloop_ready_t, events) == 4, "events");\n'
        '_Static_assert(offsetof(evloop_ready_t, data) == 8, "data");\n')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constants.c"
        path.write_text(source)
        suite.command("the system's values", [*CC, "-std=c11", *STRICT, path])
        listing = suite.run([*CC, "-std=c11", "-E", "-P", f"-I{HEADER.parent}", path])
    # POLL*, EPOLL*, CLOCK_* and TFD_*: far fewer means that nothing was compared.
    count = listing.output.count('"EVLOOP_')
    suite.check("constants were compared", count >= 35, f"only {count}")
    suite.note(f"{count} constants equal the system's")


def comparison(name):
    system = name.removeprefix("EVLOOP_")
    return (f"#ifdef {system}\n_Static_assert((uint64_t){name} == (uint64_t){system}, "
            f'"{name}");\n#endif\n')


def header(suite):
    constants(suite)
    dialects(suite)
    old_dialects(suite)
