"""Other targets: musl, where the C tests run too, and 64-bit ARM."""

import shutil

from .ctests import run_all
from .harness import CARGO, TARGET, need

MUSL = "x86_64-unknown-linux-musl"
ARM = "aarch64-unknown-linux-gnu"


def targets(suite):
    need("rustup", "rustup")
    installed = suite.run(["rustup", "target", "list", "--installed"]).output.split()
    for target in (MUSL, ARM):
        # A registry may not have it: that is no fault of the library.
        if target not in installed:
            suite.note(f"{target} not shown: rustup target add {target}")
            suite.ok()
            continue
        suite.command(f"cargo check --target {target}",
                      [CARGO, "check", "--quiet", "--target", target],
                      env={"CARGO_TARGET_DIR": TARGET / "targets"}, timeout=1200)
    if MUSL in installed:
        musl(suite)


def musl(suite):
    """The C tests, linked with musl's C library."""
    if shutil.which("musl-gcc") is None:
        suite.note("the C tests with musl not shown: package musl-tools")
        return
    if suite.make("c-tests-musl"):
        run_all(suite, "musl")
