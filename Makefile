# Everything that is done with libevloop starts here: `make help` lists it.
#
# Cargo builds the library (into target/), this file the C programs (into
# build/) and the installation. V=1 shows the commands.

SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# ---- what is built, from where ----

# The version is Cargo.toml's and the soname's number build.rs': said once.
cargo_field = $(shell sed -n 's/^$(1) = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
VERSION := $(call cargo_field,version)
RUST_VERSION := $(call cargo_field,rust-version)
ABI := $(shell sed -n 's/^const ABI: &str = "\(.*\)";$$/\1/p' build.rs)
REAL := libevloop.so.$(VERSION)
SONAME := libevloop.so.$(ABI)
# BSD's names for the kqueue functions, in a library of their own.
KQ_REAL := libevloop-kqueue.so.$(VERSION)
KQ_SONAME := libevloop-kqueue.so.$(ABI)

CARGO ?= cargo
PYTHON ?= python3
BUILD ?= build
TARGET := $(or $(CARGO_TARGET_DIR),target)

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
LICENSEDIR ?= $(PREFIX)/share/licenses/libevloop
DESTDIR ?=

# What `rustc --print native-static-libs` lists, without -lgcc_s: every C
# compiler adds the right one of libgcc_s and libgcc_eh by itself, and there
# is no libgcc_s for -static. A test compares the two lists.
STATIC_LIBS := -lutil -lrt -lpthread -lm -ldl -lc

CFLAGS ?= -O2 -g
WERROR ?= -Werror
C_FLAGS := -std=c99 -Wall -Wextra -Wpedantic $(WERROR) $(CFLAGS) -Iinclude
SANITIZE := -fsanitize=address,undefined -fno-omit-frame-pointer

HEADER := include/evloop.h
COMPAT_HEADER := include/compat/sys/event.h
EXAMPLES := $(patsubst examples/c/%.c,$(BUILD)/examples/%,$(wildcard examples/c/*.c)) \
  $(patsubst examples/bsd/%.c,$(BUILD)/examples/%,$(wildcard examples/bsd/*.c))
C_TESTS := $(patsubst c-tests/%.c,%,$(wildcard c-tests/test_*.c))
C_TEST_HEADERS := $(wildcard c-tests/*.h)
EXAMPLE_HEADERS := $(wildcard examples/c/*.h)
LIBRARY := $(addprefix $(BUILD)/lib/,$(REAL) $(SONAME) libevloop.so libevloop.a)
KQ_LIBRARY := $(addprefix $(BUILD)/lib/,$(KQ_REAL) $(KQ_SONAME) libevloop-kqueue.so libevloop-kqueue.a)

# ---- saying what is done ----

ifeq ($(V),1)
Q :=
say =
CARGO_QUIET :=
else
Q := @
say = @printf '  %-7s %s\n' '$(1)' '$(2)'
CARGO_QUIET := --quiet
endif

# Shell text: end with a clear message when a program is not there.
need = command -v $(firstword $(1)) >/dev/null 2>&1 || \
  { echo "make: '$(firstword $(1))' was not found; it is needed $(2)" >&2; exit 1; }

# ---- targets ----

.PHONY: all lib header check-header examples run test check release-check bench miri c-tests install layers \
  uninstall clean help need-rust need-cc need-python FORCE
.PHONY: c-tests-shared c-tests-static c-tests-checked c-tests-asan c-tests-musl test-tools

all: lib examples ## the libraries and the examples

lib: $(LIBRARY) $(KQ_LIBRARY) ## the shared and the static libraries, into build/lib

examples: $(EXAMPLES) ## the C example programs, into build/examples

run: lib examples need-python ## the timer server of Python's HOWTO, with a client beside it
	$(Q)$(PYTHON) examples/run_demo.py $(BUILD)

# The suites build what they need themselves.
test: need-rust need-cc need-python ## all tests; SUITES="c-tests loom" for some
	$(Q)CC='$(CC)' CXX='$(CXX)' CARGO='$(CARGO)' BUILD='$(BUILD)' \
	  $(PYTHON) tests/run.py $(SUITES)

release-check: need-rust need-cc need-python ## all tests, and what `make test` does in turns
	$(Q)EVLOOP_WHOLE=1 $(MAKE) --no-print-directory test

# What a contributor runs before a commit: a minute and a half.
check: ## the quick tests: formatting, lints, unit tests, the header, C tests
	@$(MAKE) --no-print-directory test SUITES='fmt clippy cargo-test library c-tests-shared'

bench: lib examples need-python ## the benchmarks
	$(Q)CC='$(CC)' $(PYTHON) benches/run.py $(BUILD)

# What the unit tests of pure data structures do, in Rust's own model of
# memory. Nothing that makes system calls: Miri has no epoll.
MIRI_TESTS := errno:: kqueue::slab:: handle::slots:: handle::segments:: timer_queue:: util::
# The same of what threads share, in several runs: each has other
# interleavings, and other values that a weak order allows.
MIRI_SHARED := kqueue::source::aio::jobs:: kqueue::queue_waiters:: event_loop::telemetry::cells:: \
  event_loop::telemetry::trace_ring:: event_loop::ownership:: event_loop::wake_state:: \
  event_loop::pending_work:: event_loop::slot_word:: event_loop::pending_stack:: wait::list::
MIRI_SEEDS ?= 0..8

miri = CARGO_TARGET_DIR=$(TARGET)/miri PROPTEST_CASES=2 \
  MIRIFLAGS='-Zmiri-disable-isolation $(1)' $(CARGO) +nightly miri test --lib --

miri: need-rust ## unit tests of tables, queues and what threads share under Miri, of nightly Rust
	$(Q)$(CARGO) +nightly miri --version >/dev/null 2>&1 || \
	  { echo "make: Miri was not found; it is part of nightly Rust: rustup toolchain install nightly -c miri -c rust-src" >&2; exit 1; }
	$(Q)$(call miri,-Zmiri-many-seeds=$(MIRI_SEEDS)) $(MIRI_SHARED)
	$(Q)$(call miri) $(MIRI_TESTS)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | \
	  while IFS="$$(printf '\t')" read -r name text; do \
	    printf '  make %-13s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  Variables: V=1, CC, CFLAGS, PREFIX ($(PREFIX)), LIBDIR, INCLUDEDIR, DESTDIR'

# A CARGO_TARGET_DIR may be shared with other projects: it stays.
CLEAN := $(BUILD) $(if $(CARGO_TARGET_DIR),,target)

clean: ## remove build/ and target/
	$(call say,RM,$(CLEAN))
	$(Q)rm -rf $(CLEAN)

# ---- tools ----

need-rust:
	@$(call need,$(CARGO),to build the library: install Rust $(RUST_VERSION) or newer)
	@$(call need,rustc,to build the library: install Rust $(RUST_VERSION) or newer)
	@have=$$(rustc --version | cut -d' ' -f2); \
	  printf '%s\n%s\n' '$(RUST_VERSION)' "$$have" | sort -V -C || \
	  { echo "make: Rust $(RUST_VERSION) or newer is needed, this is $$have (rustup update stable)" >&2; exit 1; }

need-cc:
	@$(call need,$(CC),to compile and link: install gcc or clang)

need-python:
	@$(call need,$(PYTHON),to run the examples and tests: install python3)

# ---- the library ----

# Cargo knows what has changed, so it is always asked; what is made from its
# files is made again only when their time stamps changed.
$(TARGET)/release/libevloop.so $(TARGET)/release/libevloop.a &: FORCE | need-rust need-cc
	$(call say,CARGO,release)
	$(Q)$(CARGO) build --release $(CARGO_QUIET)

$(BUILD)/lib/$(REAL): $(TARGET)/release/libevloop.so
	$(call say,CP,$@)
	$(Q)mkdir -p $(@D) && cp $< $@

# In the archive that ships only the header's names are global, so that it
# links beside other static libraries of Rust's, whose standard library is
# another. GNU's objcopy makes an archive that does not link then; LLVM's
# does. Without LLVM's the archive is rustc's, with all its names.
LLVM_OBJCOPY ?= $(firstword $(notdir $(wildcard $(addsuffix /llvm-objcopy,$(subst :, ,$(PATH))))))
LOCALISE := --wildcard --keep-global-symbol='tfd_*' --keep-global-symbol='evloop_*' \
  --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd

$(BUILD)/lib/libevloop.a: $(TARGET)/release/libevloop.a
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@
ifeq ($(LLVM_OBJCOPY),)
	@echo "make: no llvm-objcopy (Debian's package llvm): all names of $(@F) are global" >&2
	$(Q)cp $< $@
else
	$(Q)$(LD) -r --whole-archive $< -o $(BUILD)/evloop.o
	$(Q)$(LLVM_OBJCOPY) $(LOCALISE) $(BUILD)/evloop.o
	$(Q)$(AR) rcs $@ $(BUILD)/evloop.o && rm -f $(BUILD)/evloop.o
endif

$(BUILD)/lib/$(SONAME) $(BUILD)/lib/libevloop.so: $(BUILD)/lib/$(REAL)
	$(Q)ln -sf $(REAL) $@

$(BUILD)/kqueue.o: src/compat/kqueue.c $(COMPAT_HEADER) $(HEADER) | need-cc
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) -Iinclude/compat -fPIC -fvisibility=hidden -c $< -o $@

$(BUILD)/sigaction.o: src/compat/sigaction.c $(HEADER) | need-cc
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) -fPIC -fvisibility=hidden -c $< -o $@

# It lies beside libevloop, where a program that links with nothing else
# must find that. Only a shared library can stand between a program and the
# C library's functions.
$(BUILD)/lib/$(KQ_REAL): $(BUILD)/kqueue.o $(BUILD)/sigaction.o $(LIBRARY)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(filter %.o,$^) -o $@ $(LDFLAGS) -Wl,-soname,$(KQ_SONAME) \
	  -Wl,--no-undefined -L$(BUILD)/lib -levloop -ldl -Wl,-rpath,'$$ORIGIN'

$(BUILD)/lib/libevloop-kqueue.a: $(BUILD)/kqueue.o
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $<

$(BUILD)/lib/$(KQ_SONAME) $(BUILD)/lib/libevloop-kqueue.so: $(BUILD)/lib/$(KQ_REAL)
	$(Q)ln -sf $(KQ_REAL) $@

# Release code with line tables and debug assertions, for valgrind.
$(TARGET)/checked/libevloop.a: FORCE | need-rust need-cc
	$(call say,CARGO,checked)
	$(Q)$(CARGO) build --profile checked $(CARGO_QUIET)

# The same with AddressSanitizer inside. -Z options are for the compiler's
# development versions only, unless RUSTC_BOOTSTRAP says otherwise; a named
# target keeps the flag away from build scripts.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
ASAN_LIB = $(TARGET)/asan/$(HOST)/checked/libevloop.a

# ---- the header ----

header: need-rust need-cc ## write include/evloop.h from the Rust sources
	$(call say,HEADER,$(HEADER))
	$(Q)EVLOOP_UPDATE_HEADER=1 $(CARGO) check --features header $(CARGO_QUIET)

check-header: need-rust need-cc ## compare include/evloop.h with the Rust sources
	$(call say,CHECK,$(HEADER))
	$(Q)$(CARGO) test --features header --test header $(CARGO_QUIET)

layers: need-python ## draw docs/layers.svg from the sources
	$(call say,DRAW,docs/layers.svg)
	$(Q)$(PYTHON) docs/draw_layers.py

# ---- C programs ----

# Not linked where nothing of it is used (the dlopen example); found beside
# the program in any case.
LINK_SHARED := -L$(BUILD)/lib -Wl,--as-needed -levloop -Wl,-rpath,'$$ORIGIN/../lib' -ldl

# As BSD software is built: one -I and one -l.
$(BUILD)/examples/%: examples/bsd/%.c $(COMPAT_HEADER) $(LIBRARY) $(KQ_LIBRARY)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -Wall -Wextra $(WERROR) -Iinclude/compat $< -o $@ \
	  $(LDFLAGS) -L$(BUILD)/lib -levloop-kqueue -Wl,-rpath,'$$ORIGIN/../lib' \
	  -Wl,-rpath-link,$(BUILD)/lib

$(BUILD)/examples/%: examples/c/%.c $(EXAMPLE_HEADERS) $(HEADER) $(LIBRARY)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) -pthread $< -o $@ $(LDFLAGS) $(LINK_SHARED)

# What several of them use, compiled once for each kind of build.
C_TEST_SUPPORT := $(patsubst c-tests/%.c,%,$(filter-out c-tests/test_%.c,$(wildcard c-tests/*.c)))
SUPPORT_plain := $(BUILD)/c-tests/support-plain.a
SUPPORT_asan := $(BUILD)/c-tests/support-asan.a
SUPPORT_musl := $(BUILD)/c-tests/support-musl.a
C_TEST_DEPS := $(C_TEST_HEADERS) $(HEADER) $(COMPAT_HEADER) $(wildcard src/compat/*.c)
CC_TEST = mkdir -p $(@D) && $(CC) $(C_TEST_FLAGS)
CHECKED_LIB := $(TARGET)/checked/libevloop.a

c-tests: c-tests-shared c-tests-static ## the C test programs, into build/c-tests
c-tests-shared: $(C_TESTS:%=$(BUILD)/c-tests/shared/%)
c-tests-static: $(C_TESTS:%=$(BUILD)/c-tests/static/%)
c-tests-checked: $(C_TESTS:%=$(BUILD)/c-tests/checked/%)

# $(1): its name; $(2): its compiler and options.
define c_test_support
$(BUILD)/c-tests/support-$(1)/%.o: c-tests/%.c $(C_TEST_DEPS)
	$$(call say,CC,$$@)
	$$(Q)mkdir -p $$(@D) && $(2) -c $$< -o $$@

$$(SUPPORT_$(1)): $(C_TEST_SUPPORT:%=$(BUILD)/c-tests/support-$(1)/%.o)
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
C_TEST_FLAGS := $(C_FLAGS) -Ic-tests -Iinclude/compat -pthread
$(eval $(call c_test_support,plain,$(CC) $(C_TEST_FLAGS)))
$(eval $(call c_test_support,asan,$(CC) $(C_TEST_FLAGS) $(SANITIZE)))
$(eval $(call c_test_support,musl,$$(MUSL_CC) $(C_TEST_FLAGS) $$(KERNEL_HEADERS)))

$(BUILD)/c-tests/shared/%: c-tests/%.c $(C_TEST_DEPS) $(SUPPORT_plain) $(LIBRARY)
	$(call say,CC,$@)
	$(Q)$(CC_TEST) $< $(SUPPORT_plain) -o $@ $(LDFLAGS) -L$(BUILD)/lib -levloop -lutil -ldl \
	  -Wl,-rpath,'$$ORIGIN/../../lib'

$(BUILD)/c-tests/static/%: c-tests/%.c $(C_TEST_DEPS) $(SUPPORT_plain) $(BUILD)/lib/libevloop.a
	$(call say,CC,$@)
	$(Q)$(CC_TEST) $< $(SUPPORT_plain) -o $@ $(LDFLAGS) $(BUILD)/lib/libevloop.a $(STATIC_LIBS)

$(BUILD)/c-tests/checked/%: c-tests/%.c $(C_TEST_DEPS) $(SUPPORT_plain) $(CHECKED_LIB)
	$(call say,CC,$@)
	$(Q)$(CC_TEST) $< $(SUPPORT_plain) -o $@ $(LDFLAGS) $(CHECKED_LIB) $(STATIC_LIBS)

# With musl in place of glibc: the compiler driver is Debian's musl-tools'.
MUSL_CC ?= musl-gcc
# It does not look where the kernel's headers are.
KERNEL_HEADERS := -idirafter /usr/include/$(shell uname -m)-linux-gnu -idirafter /usr/include
# gcc's unwinder here is glibc's; Rust brings one for musl.
MUSL_UNWIND = $(shell rustc --print sysroot)/lib/rustlib/$(MUSL_TARGET)/lib/self-contained/libunwind.a
MUSL_TARGET := $(shell uname -m)-unknown-linux-musl
MUSL_LIB := $(TARGET)/targets/$(MUSL_TARGET)/release/libevloop.a

c-tests-musl: $(C_TESTS:%=$(BUILD)/c-tests/musl/%)

$(BUILD)/lib-musl/libevloop.a: FORCE | need-rust need-cc
	$(call say,CARGO,release for $(MUSL_TARGET))
	$(Q)CARGO_TARGET_DIR=$(TARGET)/targets $(CARGO) rustc --release --crate-type staticlib \
	  --target $(MUSL_TARGET) $(CARGO_QUIET)
	$(Q)mkdir -p $(@D) && cp -u $(MUSL_LIB) $@

$(BUILD)/c-tests/musl/%: c-tests/%.c $(C_TEST_DEPS) $(SUPPORT_musl) $(BUILD)/lib-musl/libevloop.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(MUSL_CC) $(C_TEST_FLAGS) -static \
	  $(KERNEL_HEADERS) $< $(SUPPORT_musl) -o $@ $(BUILD)/lib-musl/libevloop.a $(MUSL_UNWIND)

# Static: the runtime of the C compiler, gcc or clang, then serves the Rust
# code too, and leaks of the library are found.
c-tests-asan: $(C_TESTS:%=$(BUILD)/c-tests/asan/%) $(BUILD)/tests/asan_proof

$(BUILD)/lib-asan/libevloop.a: FORCE | need-rust need-cc
	$(call say,CARGO,checked + AddressSanitizer)
	$(Q)RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$(TARGET)/asan \
	  $(CARGO) build --profile checked --target $(HOST) $(CARGO_QUIET)
	$(Q)mkdir -p $(@D) && cp -u $(ASAN_LIB) $@

$(BUILD)/c-tests/asan/%: c-tests/%.c $(C_TEST_DEPS) $(SUPPORT_asan) $(BUILD)/lib-asan/libevloop.a
	$(call say,CC,$@)
	$(Q)$(CC_TEST) $(SANITIZE) $< $(SUPPORT_asan) -o $@ $(LDFLAGS) \
	  $(BUILD)/lib-asan/libevloop.a $(STATIC_LIBS)

$(BUILD)/tests/asan_proof: tests/asan_proof.c $(HEADER) $(BUILD)/lib-asan/libevloop.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) -pthread $(SANITIZE) $< -o $@ \
	  $(LDFLAGS) $(BUILD)/lib-asan/libevloop.a $(STATIC_LIBS)

test-tools: $(addprefix $(BUILD)/tests/,nosys nosys_probe environment dlopen_faults)

$(BUILD)/tests/nosys: tests/nosys.c | need-cc
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) $< -o $@ $(LDFLAGS)

$(BUILD)/tests/nosys_probe: tests/nosys_probe.c $(HEADER) $(LIBRARY)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) $< -o $@ $(LDFLAGS) $(LINK_SHARED)

# Static: the loader of a set-user-id program passes over its rpath.
$(BUILD)/tests/environment: tests/environment.c $(HEADER) $(BUILD)/lib/libevloop.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) -pthread $< -o $@ $(LDFLAGS) \
	  $(BUILD)/lib/libevloop.a $(STATIC_LIBS)

$(BUILD)/tests/dlopen_faults: tests/dlopen_faults.c | need-cc
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(CC) $(C_FLAGS) -pthread $< -o $@ $(LDFLAGS) -ldl

# ---- installing ----

# `sudo make install` after `make`: root may have no cargo, and then what was
# built is installed as it is.
ifneq ($(shell $(CARGO) --version 2>/dev/null),)
INSTALL_NEEDS := lib
endif

# Directories below PREFIX are written relative to it, so that
# `pkg-config --define-variable=prefix=...` moves them all.
pc_path = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))
template = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@ABI@|$(ABI)|g' \
  -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(call pc_path,$(LIBDIR))|g' \
  -e 's|@INCLUDEDIR@|$(call pc_path,$(INCLUDEDIR))|g' $(2) \
  packaging/$(1).in

D_LIB := $(DESTDIR)$(LIBDIR)
D_INCLUDE := $(DESTDIR)$(INCLUDEDIR)
D_COMPAT := $(D_INCLUDE)/evloop-compat
D_PC := $(D_LIB)/pkgconfig
D_CMAKE := $(D_LIB)/cmake/evloop
D_LICENSES := $(DESTDIR)$(LICENSEDIR)
INSTALLED := $(D_LIB)/$(REAL) $(D_LIB)/$(SONAME) $(D_LIB)/libevloop.so \
  $(D_LIB)/libevloop.a $(D_INCLUDE)/evloop.h $(D_PC)/evloop.pc \
  $(D_LIB)/$(KQ_REAL) $(D_LIB)/$(KQ_SONAME) $(D_LIB)/libevloop-kqueue.so \
  $(D_LIB)/libevloop-kqueue.a $(D_COMPAT)/sys/event.h $(D_PC)/evloop-kqueue.pc \
  $(D_CMAKE)/evloop-config.cmake $(D_CMAKE)/evloop-config-version.cmake \
  $(D_LICENSES)/LICENSE-MIT $(D_LICENSES)/LICENSE-APACHE

install: $(INSTALL_NEEDS) ## install into PREFIX (and under DESTDIR)
	@test -e $(BUILD)/lib/$(REAL) || { echo "make: nothing is built yet: run 'make' first" >&2; exit 1; }
	@for folder in '$(PREFIX)' '$(LIBDIR)' '$(INCLUDEDIR)' '$(LICENSEDIR)'; do \
	  case "$$folder" in /*) ;; *) \
	    echo "make: PREFIX, LIBDIR, INCLUDEDIR and LICENSEDIR must begin with /" >&2; exit 1;; \
	  esac; done
	$(call say,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)mkdir -p '$(D_LIB)' '$(D_COMPAT)/sys' '$(D_PC)' '$(D_CMAKE)' '$(D_LICENSES)'
	$(Q)install -m 644 LICENSE-MIT LICENSE-APACHE '$(D_LICENSES)'
	$(Q)install -m 755 $(BUILD)/lib/$(REAL) '$(D_LIB)/$(REAL)'
	$(Q)ln -sf $(REAL) '$(D_LIB)/$(SONAME)'
	$(Q)ln -sf $(SONAME) '$(D_LIB)/libevloop.so'
	$(Q)install -m 644 $(BUILD)/lib/libevloop.a '$(D_LIB)/libevloop.a'
	$(Q)install -m 644 $(HEADER) '$(D_INCLUDE)/evloop.h'
	$(Q)install -m 755 $(BUILD)/lib/$(KQ_REAL) '$(D_LIB)/$(KQ_REAL)'
	$(Q)ln -sf $(KQ_REAL) '$(D_LIB)/$(KQ_SONAME)'
	$(Q)ln -sf $(KQ_SONAME) '$(D_LIB)/libevloop-kqueue.so'
	$(Q)install -m 644 $(BUILD)/lib/libevloop-kqueue.a '$(D_LIB)/libevloop-kqueue.a'
	$(Q)install -m 644 $(COMPAT_HEADER) '$(D_COMPAT)/sys/event.h'
	$(Q)$(call template,evloop-kqueue.pc) >'$(D_PC)/evloop-kqueue.pc'
	$(Q)$(call template,evloop.pc,-e 's|@STATIC_LIBS@|$(STATIC_LIBS)|') >'$(D_PC)/evloop.pc'
	$(Q)up=$$(realpath -m --relative-to='$(LIBDIR)' '$(INCLUDEDIR)'); \
	  libs=$$(echo '$(STATIC_LIBS)' | tr ' ' ';'); \
	  $(call template,evloop-config.cmake,-e "s|@INCLUDE_FROM_LIB@|$$up|" -e "s|@STATIC_LIBS@|$$libs|") \
	  >'$(D_CMAKE)/evloop-config.cmake'
	$(Q)$(call template,evloop-config-version.cmake) >'$(D_CMAKE)/evloop-config-version.cmake'
	$(Q)chmod 644 '$(D_PC)/evloop.pc' '$(D_PC)/evloop-kqueue.pc' '$(D_CMAKE)'/*.cmake
	$(if $(DESTDIR),,@echo "  If programs do not find $(SONAME), run ldconfig as root.")

uninstall: ## remove what install put there
	$(call say,RM,$(DESTDIR)$(PREFIX): libevloop)
	$(Q)rm -f $(INSTALLED)
	$(Q)if [ -d '$(D_COMPAT)' ]; then rmdir --ignore-fail-on-non-empty '$(D_COMPAT)/sys' '$(D_COMPAT)'; fi
	$(Q)for folder in '$(D_CMAKE)' '$(D_LICENSES)'; do \
	  if [ -d "$$folder" ]; then rmdir --ignore-fail-on-non-empty "$$folder"; fi; done
