"""A set-user-id program that is started with a hostile environment."""

import os
import pwd
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from .harness import BUILD, Missing, need

# What the libraries below this one, or an earlier version of it, might ask
# for. The loader's own (LD_*) it does not give to such programs itself.
NUMBERS = ["RUST_MIN_STACK"]
PATHS = ["TMPDIR", "TMP", "TEMP", "HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "RUST_LOG",
         "EVLOOP_TRACE", "EVLOOP_LOG", "EVLOOP_DEBUG", "CARGO_HOME", "TZ", "TZDIR",
         "LOCPATH", "NLSPATH", "GCONV_PATH", "HOSTALIASES", "RES_OPTIONS", "DEBUGINFOD_URLS"]
WORDS = {"RUST_BACKTRACE": "full", "RUST_LIB_BACKTRACE": "full", "LANG": "C.UTF-8",
         "MALLOC_CHECK_": "3", "MALLOC_ARENA_MAX": "1"}


def environment(suite):
    need("strace", "strace")
    if os.geteuid() != 0:
        raise Missing("only root can make a program set-user-id and run it as another user")
    if not suite.make("test-tools"):
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="evloop-suid-") as made:
        in_directory(suite, Path(made))


def in_directory(suite, directory):
    directory.chmod(0o755)
    program = directory / "program"
    shutil.copy(BUILD / "tests/environment", program)
    os.chown(program, 0, 0)
    program.chmod(0o4755)
    plain = calls(suite, directory, {}, "without an environment")
    for number in ("99999999999999", "1", "x"):
        hostile = directory / "hostile"
        hostile.mkdir()
        hostile.chmod(0o777)
        values = {name: str(hostile / name) for name in PATHS}
        values |= {name: number for name in NUMBERS} | WORDS
        seen = calls(suite, directory, values, f"with RUST_MIN_STACK={number} and others")
        check(suite, number, plain, seen, hostile)
        shutil.rmtree(hostile)


def check(suite, number, plain, seen, hostile):
    if plain is None or seen is None:
        return
    title = f"RUST_MIN_STACK={number} and others: "
    touched = [line for line in seen if str(hostile) in line]
    suite.check(title + "nothing of it is in a system call", not touched, "\n".join(touched))
    suite.check(title + "nothing is written there", not list(hostile.iterdir()))
    ours, theirs = Counter(plain), Counter(seen)
    suite.check(title + "files, threads and stacks are the same", ours == theirs,
                f"without: {ours - theirs}\nwith: {theirs - ours}")


def calls(suite, directory, values, title):
    """The calls of a run that the environment could change, in any order."""
    log, trace = directory / "strace", directory / "trace.json"
    trace.unlink(missing_ok=True)
    user = pwd.getpwnam("nobody").pw_name
    # env, as root still, so that strace itself does not see them.
    words = [f"{name}={value}" for name, value in values.items()]
    done = suite.run(["strace", "-f", "-qq", "-o", log, "-u", user,
                      "-e", "trace=%file,clone,clone3,mmap,setrlimit,prlimit64",
                      *(f"-E{word}" for word in words), directory / "program", trace])
    if not suite.check(f"it works {title}", done.ok and "worked as 0 for" in done.output,
                       done.tail()):
        return None
    return [line for line in map(normal, log.read_text().splitlines()) if line]


def normal(line):
    """A call without what differs from run to run; None: of no interest."""
    found = re.match(r"\d+ +(\w+)\((.*)\) += ", line)
    if found is None:
        return None
    name, arguments = found.groups()
    if name == "execve":
        return None
    if name == "mmap":
        stack = re.match(r"NULL, (\d+), .*MAP_STACK", arguments)
        return f"stack of {stack[1]} bytes" if stack else None
    arguments = re.sub(r"0x[0-9a-f]+", "POINTER", arguments)
    arguments = re.sub(r"/task/\d+/", "/task/THREAD/", arguments)
    arguments = re.sub(r"/fd(info)?/\d+", "/fd/NUMBER", arguments)
    return f"{name}({re.sub(r'{.*?}', '{}', arguments)})"
