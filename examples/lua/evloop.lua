-- SPDX-License-Identifier: MIT OR Apache-2.0
--
-- What both Lua examples begin with: the library, and its failures as errors
-- of Lua. A program declares the functions that it calls itself, as copied
-- from evloop.h, which has no macro that would be in the way.

local ffi = require("ffi")

ffi.cdef [[
int evloop_last_error(char *buf, size_t cap);
]]

local evloop = {}

-- The program's first argument says where the library is.
evloop.lib = ffi.load(arg[1] or "libevloop.so.0")

-- Raises an error, with the library's sentence, if a call of it has failed.
function evloop.must(result)
  if result < 0 then
    local text = ffi.new("char[256]")
    evloop.lib.evloop_last_error(text, 256)
    error(ffi.string(text), 2)
  end
  -- A 64-bit integer is a boxed value, equal to nothing but itself as a table
  -- key. A handle is below 2^53, so it is exact as a plain number.
  return tonumber(result)
end

return evloop
