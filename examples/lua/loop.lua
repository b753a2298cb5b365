-- SPDX-License-Identifier: MIT OR Apache-2.0
--
-- The event loop from LuaJIT, through its FFI.
--
--   luajit loop.lua [LIBRARY]      the default is libevloop.so.0
--
-- A timer that writes into a pipe three times, the reading end of that pipe,
-- and a posted call: what examples/c/no_callbacks.c does.
--
-- LuaJIT has callbacks from C, but few and slow ones. None is needed:
-- watchers are added without one, and evloop_wait() returns their events.

local ffi = require("ffi")
-- evloop.lua is beside this program.
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local evloop = require("evloop")
local lib, must = evloop.lib, evloop.must

-- Copied from evloop.h; the callbacks, always nil here, as plain pointers.
ffi.cdef [[
typedef struct {
  int64_t watcher; uint64_t data;
  int type; uint32_t events; int fd; int result;
  uint64_t count; int64_t time_ns; int64_t deadline_ns; uint64_t reserved;
} evloop_event_t;
const char *evloop_strerror(int code);
int64_t evloop_handle_count(int kind);
int64_t evloop_create(const void *options);
int evloop_close(int64_t loop);
int evloop_wait(int64_t loop, evloop_event_t *out_events, int max,
                int64_t timeout_ns);
int evloop_post(int64_t loop, void *callback, void *user_data);
int64_t evloop_add_io(int64_t loop, int fd, uint32_t events, void *callback,
                      void *user_data);
int64_t evloop_add_timer(int64_t loop, int clockid, uint32_t flags,
                         int64_t initial_ns, int64_t interval_ns,
                         int64_t tolerance_ns, void *callback,
                         void *user_data);
int64_t evloop_add_signal(int64_t loop, int signum, uint32_t flags,
                          void *callback, void *user_data);
int evloop_watcher_unref(int64_t watcher);
int evloop_watcher_close(int64_t watcher, uint32_t flags);

int pipe(int *ends);
long read(int fd, void *buf, size_t cap);
long write(int fd, const void *buf, size_t n);
int close(int fd);
char *strerror(int number);
]]

local CLOCK_MONOTONIC = 1
local EPOLLIN = 1
local SIGINT = 2
local EVENT_POST = 11
local ERROR = 16777216

local function must_sys(result, what)
  if result < 0 then
    error(what .. ": " .. ffi.string(ffi.C.strerror(ffi.errno())), 2)
  end
  return tonumber(result)
end

local ends = ffi.new("int[2]")
must_sys(ffi.C.pipe(ends), "pipe")

local loop = must(lib.evloop_create(nil))
local timer = must(lib.evloop_add_timer(loop, CLOCK_MONOTONIC, 0, 50000000,
                                        50000000, 0, nil, nil))
local reader = must(lib.evloop_add_io(loop, ends[0], EPOLLIN, nil, nil))
-- Over LuaJIT's own handler, which is called as well: the wait returns, at
-- whatever moment control-C comes, and LuaJIT ends the program.
local control_c = must(lib.evloop_add_signal(loop, SIGINT, 0, nil, nil))
must(lib.evloop_watcher_unref(control_c)) -- it does not keep the loop alive
-- A posted call has no watcher: its data says what it is about.
must(lib.evloop_post(loop, nil, ffi.cast("void *", 42)))

local ticks = 0

-- What to do for which watcher.
local on = {}

on[timer] = function(event)
  local new = tonumber(event.count)
  ticks = ticks + new
  print(string.format("timer: %d new, %d in all", new, ticks))
  local text = "tick " .. ticks
  must_sys(ffi.C.write(ends[1], text, #text), "write")
  if ticks >= 3 then
    must(lib.evloop_watcher_close(timer, 0))
    ffi.C.close(ends[1])
  end
end

on[control_c] = function() end -- LuaJIT has seen to it by now

local buffer = ffi.new("char[256]")
on[reader] = function()
  local length = must_sys(ffi.C.read(ends[0], buffer, 256), "read")
  if length > 0 then
    print("pipe: " .. ffi.string(buffer, length))
  else
    print("pipe: closed")
    must(lib.evloop_watcher_close(reader, 0)) -- before the descriptor
    ffi.C.close(ends[0])
  end
end

local events = ffi.new("evloop_event_t[8]")
while true do
  local n = must(lib.evloop_wait(loop, events, 8, -1))
  if n == 0 then break end -- nothing is left to wait for
  for i = 0, n - 1 do
    local event = events[i]
    if event.events >= ERROR then
      error(ffi.string(lib.evloop_strerror(event.result)))
    elseif event.type == EVENT_POST then
      print("posted: " .. tonumber(event.data))
    else
      on[tonumber(event.watcher)](event)
    end
  end
end

print("nothing is left to wait for")
must(lib.evloop_close(loop))
print("handles still open: " .. must(lib.evloop_handle_count(0)))
