"""cargo's own checks and tests, and the loom model."""

import re
from pathlib import Path

from .harness import CARGO, TARGET, Missing, need

RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.M)


def component(suite, name):
    need(CARGO, "rustup")
    if not suite.run([CARGO, name, "--version"]).ok:
        package = {"fmt": "rustfmt"}.get(name, name)
        raise Missing(f"cargo {name} is not installed (rustup component add {package})")


def fmt(suite):
    component(suite, "fmt")
    suite.command("cargo fmt --check", [CARGO, "fmt", "--check"])


def clippy(suite):
    component(suite, "clippy")
    suite.command("cargo clippy", [CARGO, "clippy", "--quiet", "--all-targets",
                                   "--", "-D", "warnings"], timeout=1200)


def rustdoc(suite):
    suite.command("cargo doc",
                  [CARGO, "doc", "--quiet", "--no-deps", "--document-private-items"],
                  timeout=1200, env={"RUSTDOCFLAGS": "-Dwarnings"})


def cargo_test(suite):
    add_results(suite, "cargo test", suite.run(
        [CARGO, "test", "--features", "header", "--no-fail-fast"], timeout=1800))


def loom(suite):
    """Every interleaving of the handle table, with up to three preemptions."""
    add_results(suite, "loom", suite.run(
        [CARGO, "test", "--release", "--lib", "loom_"], timeout=1800,
        env={"RUSTFLAGS": "--cfg loom", "LOOM_MAX_PREEMPTIONS": 3,
             "CARGO_TARGET_DIR": TARGET / "loom"}))


# The memory of a loop that a panic has left half changed is never freed.
LEAKS_ON_PURPOSE = ["the_watchers_of_a_poisoned_loop_are_not_the_next_ones"]


def cargo_asan(suite):
    """The unit tests, the random operations from several threads among them."""
    host = re.search(r"^host: (.*)$", suite.run(["rustc", "-vV"]).output, re.M)[1]
    if host not in ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"):
        raise Missing(f"AddressSanitizer for Rust is not used on {host}")
    sysroot = suite.run(["rustc", "--print", "sysroot"]).output.strip()
    if not list(Path(sysroot).glob(f"lib/rustlib/{host}/lib/librustc*rt.asan.a")):
        raise Missing("this Rust has no AddressSanitizer runtime (install it with rustup)")
    add_results(suite, "cargo test with AddressSanitizer", suite.run(
        [CARGO, "test", "--profile", "checked", "--lib", "--target", host, "--",
         *(word for name in LEAKS_ON_PURPOSE for word in ("--skip", name))], timeout=1800,
        env={"RUSTC_BOOTSTRAP": 1, "RUSTFLAGS": "-Zsanitizer=address",
             "CARGO_TARGET_DIR": TARGET / "asan"}))


def add_results(suite, title, done):
    """Sums the `test result:` lines that cargo prints, one per binary."""
    passed, failed, ignored = (sum(map(int, column)) for column in
                               zip((0, 0, 0), *RESULT.findall(done.output)))
    suite.ok(passed)
    if ignored:
        names = re.findall(r"^test (\S+) \.\.\. ignored(.*)$", done.output, re.M)
        suite.skip(title, "; ".join(name + why for name, why in names), ignored)
    if failed or not done.ok:
        suite.fail(title, done.tail(), max(failed, 1))
    elif passed == 0:
        suite.fail(f"{title}: no test ran", done.tail())
