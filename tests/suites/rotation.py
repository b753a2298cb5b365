"""What a run leaves to others, so that `make test` ends within its minutes.

The commit chooses, so that a failure can be repeated. EVLOOP_WHOLE=1 (`make
release-check`) leaves out nothing; EVLOOP_ROTATION=N chooses what commit N
would.
"""

import os
import subprocess

from .harness import ROOT


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
        return int(given)
    done = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    # A tarball has no commit.
    return int(done.stdout, 16) if done.returncode == 0 else 0
