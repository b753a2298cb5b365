// SPDX-License-Identifier: MIT OR Apache-2.0

// A user's C++ program, built against the installed library.

#include <evloop.h>

#include <iostream>
#include <stdexcept>
#include <vector>

namespace {

class Set {
 public:
  Set() : handle_(evloop_poll_create()) {}
  ~Set() { evloop_poll_close(handle_); }
  Set(const Set &) = delete;
  Set &operator=(const Set &) = delete;

  void add(int fd) { check(evloop_poll_register(handle_, fd, EVLOOP_POLLIN, 7)); }

  std::vector<evloop_ready_t> wait(int64_t timeout_ns) {
    std::vector<evloop_ready_t> ready(4);
    int count = check(evloop_poll_wait(handle_, ready.data(), 4, timeout_ns));
    ready.resize(static_cast<size_t>(count));
    return ready;
  }

 private:
  static int check(int result) {
    if (result < 0) throw std::runtime_error(evloop_strerror(result));
    return result;
  }

  evloop_poll_t handle_;
};

}  // namespace

int main() {
  tfd_t timer = tfd_create(EVLOOP_CLOCK_MONOTONIC, 0);
  if (tfd_settime(timer, 0, 0.001, 0, nullptr, nullptr) < 0) return 1;
  Set set;
  set.add(tfd_fileno(timer));
  auto ready = set.wait(-1);
  if (ready.size() != 1 || ready[0].data != 7) return 2;
  std::cout << "C++ " << evloop_version_string() << "\n";
  return tfd_close(timer) < 0;
}
