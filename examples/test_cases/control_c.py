# SPDX-License-Identifier: MIT OR Apache-2.0
"""Control-C at every moment around the start of a wait, as README.md has it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from .common import EXAMPLES, SLOW, Skip, library, require

TIMES = 2000
WAIT_NS = int(20e9 * SLOW)  # a wait that was not ended takes this long

# Says that it is about to wait, and is interrupted; again and again. What is
# interrupted before the wait leaves an event behind, which is taken first.
PYTHON = """
import ctypes, os, signal, sys
sys.path.insert(0, sys.argv[4])
from evloop import Handle, function
create = function("evloop_create", Handle, ctypes.c_void_p)
add_signal = function("evloop_add_signal", Handle, Handle, ctypes.c_int, ctypes.c_uint32,
                      ctypes.c_void_p, ctypes.c_void_p)
wait = function("evloop_wait", ctypes.c_int, Handle, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
loop = create(None)
add_signal(loop, signal.SIGINT, 0, None, None)
event = ctypes.create_string_buffer(64)
late = []
for turn in range(int(sys.argv[2])):
    before = wait(loop, event, 1, 0)
    try:
        os.write(1, b".")
        late.append((turn, before, wait(loop, event, 1, int(sys.argv[3])), event.raw.hex()))
    except KeyboardInterrupt:
        pass
sys.exit(f"{len(late)} late; turn, event before, result and event: {late[:3]}" if late else 0)
"""

LUA = """
package.path = arg[3] .. "/?.lua;" .. package.path
local ffi = require("ffi")
local evloop = require("evloop")
ffi.cdef [[
int64_t evloop_create(const void *options);
int64_t evloop_add_signal(int64_t loop, int signum, uint32_t flags, void *callback,
                          void *user_data);
int evloop_wait(int64_t loop, void *out_events, int max, int64_t timeout_ns);
long write(int fd, const void *buf, size_t n);
]]
local loop = evloop.must(evloop.lib.evloop_create(nil))
evloop.must(evloop.lib.evloop_add_signal(loop, 2, 0, nil, nil))
local event = ffi.new("char[64]")
ffi.C.write(1, ".", 1)
evloop.lib.evloop_wait(loop, event, 1, tonumber(arg[2]))
-- LuaJIT looks at what its handler has set before it goes on.
for _ = 1, 10 do end
os.exit(3)
"""


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def default_interrupt():
    # A shell ignores SIGINT for what it starts in the background, and Python
    # then has no handler for it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def python():
    command = [sys.executable, "-c", PYTHON, library(), TIMES, WAIT_NS, EXAMPLES / "python"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=default_interrupt) as program:
        for _ in range(TIMES):
            require("it waits", os.read(program.stdout.fileno(), 1) == b".")
            spin(random.uniform(0, 200e-6))
            program.send_signal(signal.SIGINT)
        said = program.stderr.read().decode()
        require(f"no control-C was late: {said}", program.wait() == 0)


def luajit():
    found = shutil.which("luajit")
    if not found:
        raise Skip("luajit is not installed")

    def once(_):
        command = [found, "-", library(), WAIT_NS, EXAMPLES / "lua"]
        began = time.monotonic()
        with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            program.stdin.write(LUA.encode())
            program.stdin.close()
            require("it waits", os.read(program.stdout.fileno(), 1) == b".")
            spin(random.uniform(0, 200e-6))
            program.send_signal(signal.SIGINT)
            text = program.stderr.read()
            require("it was interrupted: %r" % text, b"interrupted" in text)
            require("it ended by itself", program.wait() == 1)
        require("in time", time.monotonic() - began < WAIT_NS / 1e9)

    # After its first control-C LuaJIT has the default action back: a process
    # each.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(once, range(TIMES)))


def cases():
    yield "ctypes: control-C around a wait", python
    yield "luajit: control-C around a wait", luajit
