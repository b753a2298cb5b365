-- SPDX-License-Identifier: MIT OR Apache-2.0
--
-- Three timers from LuaJIT, through its FFI.
--
--   luajit timers.lua [LIBRARY]      the default is libevloop.so.0
--
-- Ends when the slowest timer has expired twice, after 1.5 s.

local ffi = require("ffi")
-- evloop.lua is beside this program.
package.path = arg[0]:gsub("[^/]*$", "") .. "?.lua;" .. package.path
local evloop = require("evloop")
local lib, must = evloop.lib, evloop.must

-- Copied from evloop.h.
ffi.cdef [[
typedef struct { int32_t fd; uint32_t events; uint64_t data; } evloop_ready_t;
int64_t tfd_create(int clockid, uint32_t flags);
int tfd_settime(int64_t t, uint32_t flags, double initial_s,
                double interval_s, double *out_old_initial_s,
                double *out_old_interval_s);
int tfd_fileno(int64_t t);
int tfd_read(int64_t t, uint64_t *out_expirations);
int tfd_close(int64_t t);
int64_t evloop_selector_create(int backend);
int evloop_selector_register(int64_t s, int fd, uint32_t events,
                             uint64_t data);
int evloop_selector_wait(int64_t s, evloop_ready_t *out_ready, int max,
                         int64_t timeout_ns);
int evloop_selector_close(int64_t s);

struct example_timespec { long tv_sec; long tv_nsec; };
int clock_gettime(int clockid, struct example_timespec *out);
]]

local CLOCK_MONOTONIC = 1
local TFD_NONBLOCK = 2048
local SELECTOR_DEFAULT = 0
local SELECTOR_READ = 1

local function now()
  local t = ffi.new("struct example_timespec")
  ffi.C.clock_gettime(CLOCK_MONOTONIC, t)
  return tonumber(t.tv_sec) + tonumber(t.tv_nsec) / 1e9
end

local periods = { 0.25, 0.5, 0.75 }
local timers, totals = {}, {}

local selector = must(lib.evloop_selector_create(SELECTOR_DEFAULT))
local start = now()
for i, period in ipairs(periods) do
  local timer = must(lib.tfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK))
  must(lib.tfd_settime(timer, 0, period, period, nil, nil))
  must(lib.evloop_selector_register(selector, must(lib.tfd_fileno(timer)),
                                    SELECTOR_READ, i))
  timers[i], totals[i] = timer, 0
end

local ready = ffi.new("evloop_ready_t[?]", #periods)
local expirations = ffi.new("uint64_t[1]")
while totals[#periods] < 2 do
  for i = 0, must(lib.evloop_selector_wait(selector, ready, #periods, -1)) - 1 do
    local which = tonumber(ready[i].data)
    must(lib.tfd_read(timers[which], expirations))
    local new = tonumber(expirations[0])
    totals[which] = totals[which] + new
    print(string.format("timer %.2f s: %d new, %d in all", periods[which], new,
                        totals[which]))
  end
end

print(string.format("stopped after %.6f s", now() - start))
for i, period in ipairs(periods) do
  print(string.format("timer %.2f s: total %d", period, totals[i]))
  must(lib.tfd_close(timers[i]))
end
must(lib.evloop_selector_close(selector))
