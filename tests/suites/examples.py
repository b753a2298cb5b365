"""The examples, driven as a user would; examples/test_examples.py does it."""

import sys

from .harness import BUILD, ROOT


def examples(suite):
    if suite.make("lib", "examples"):
        suite.counted("examples", [sys.executable, ROOT / "examples/test_examples.py", BUILD])
