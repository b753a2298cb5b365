#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Drives the examples as a user would, and looks at what they do.

    test_examples.py BUILD_DIR      BUILD_DIR/examples has the programs, and
                                    BUILD_DIR/lib the library

One line for each case that failed, "N passed, N failed, N skipped" at the
end. EVLOOP_TEST_SLOW=N gives everything N times the time.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from test_cases import bsd, control_c, echo, files, howto, inside, programs, supervisor
from test_cases.common import Skip


def cases():
    yield from howto.cases()
    yield from echo.cases()
    yield from programs.cases()
    yield from control_c.cases()
    yield from supervisor.cases()
    yield from bsd.cases()
    yield from files.cases()
    yield from inside.cases()


def attempt(case):
    title, function = case
    try:
        function()
    except Skip as skip:
        return "skipped", "%s: skipped: %s" % (title, skip)
    except Exception as failure:  # whatever it is, the case has failed
        return "failed", "%s: FAILED: %s: %s" % (title, type(failure).__name__, failure)
    return "passed", None


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    outcomes = []
    # They mostly wait for timers; few at once, to have them on time.
    with ThreadPoolExecutor(max_workers=min(4, 2 * (os.cpu_count() or 1))) as pool:
        for outcome, message in pool.map(attempt, cases()):
            outcomes.append(outcome)
            if message:
                print(message, flush=True)
    print("%d passed, %d failed, %d skipped"
          % tuple(outcomes.count(word) for word in ("passed", "failed", "skipped")))
    return 1 if "failed" in outcomes or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
