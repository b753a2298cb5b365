"""What a run leaves to others, so that `make test` ends within its minutes.

The commit chooses, so that a failure can be repeated. EVLOOP_WHOLE=1 (`make
release-check`) leaves out nothing; EVLOOP_ROTATION=N chooses what commit N
would.
"""

import os
import shutil
import subprocess

from .harness import ROOT, Missing


def chosen(suite, what, items, parts=None):
    """One of `parts` shares of the items: by default, one item."""
    parts = parts or len(items)
    if os.environ.get("EVLOOP_WHOLE") == "1":
        return items
    turn = number() % parts
    suite.note(f"{what}: part {turn + 1} of {parts}, by the commit")
    return items[turn::parts]


def number():
    given = os.environ.get("EVLOOP_ROTATION")
    if given:
        if not given.isdecimal():
            raise Missing(f"EVLOOP_ROTATION={given} is not a number")
        return int(given)
    # A tarball has no commit, and a machine may have no git.
    if shutil.which("git") is None:
        return 0
    done = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    return int(done.stdout, 16) if done.returncode == 0 else 0
