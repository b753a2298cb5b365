# SPDX-License-Identifier: MIT OR Apache-2.0
"""What both Python examples begin with: the library, through ctypes and
nothing else, and its failures as exceptions.

The program's first argument says where the library is; the default is
libevloop.so.0.
"""

import ctypes
import sys

lib = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else "libevloop.so.0")

Handle = ctypes.c_int64


def check(result, _function, _arguments):
    """Turns a negative result into an exception with the library's sentence."""
    if result < 0:
        text = ctypes.create_string_buffer(256)
        lib.evloop_last_error(text, ctypes.c_size_t(256))
        raise OSError(-result, text.value.decode())
    return result


def function(name, restype, *argtypes):
    """A function of the library. The types matter: without them ctypes passes
    and returns int, and would cut a handle, which has 64 bits, in half."""
    f = getattr(lib, name)
    f.restype, f.argtypes, f.errcheck = restype, argtypes, check
    return f


# Interrupted waits return, with InterruptedError here, so that Python runs its
# signal handlers; who does not want to end then waits again. It holds for the
# thread that calls it.
set_interrupt_mode = function("evloop_set_interrupt_mode", ctypes.c_int, ctypes.c_int)
EINTR_RETURN = 1
