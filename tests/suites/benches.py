"""The event loop's benchmarks, small and once: every event is counted."""

import sys

from .harness import BUILD, ROOT


def benches(suite):
    if suite.make("lib"):
        suite.command("no event is lost, early or too many",
                      [sys.executable, ROOT / "benches/run.py", BUILD, "--quick"], timeout=300)
