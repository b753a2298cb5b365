#!/usr/bin/env python3
"""Draws docs/layers.svg: which folder of src/ uses which, as the sources do.

A box is a folder, or a file, of src/ and stands below all that use it; a line
is a use that no other line implies. `make layers` writes the picture, and the
suite `layers` compares it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.suites.layers import Tree, circles  # noqa: E402

PICTURE = ROOT / "docs/layers.svg"

WHAT = {
    "capi": "exported functions, C types",
    "event_loop": "loops and watchers",
    "kqueue": "knotes, filters, control()",
    "poller": "select, poll, epoll, /dev/poll",
    "timerfd": "timer descriptors",
    "file_watch": "inotify, trees",
    "signal_hub": "handlers, counts",
    "timer_queue": "the timing wheel",
    "handle": "the handle table",
    "wait": "waking waiting threads",
    "wakeup": "wake-up by epoll",
    "hash": "keyed hash maps",
    "in_use": "waiting until it is unused",
    "errno sync sys util": "errors, locks, calls, memory",
}

STYLE = """
  text { font: 13px sans-serif; fill: #1b1f24; text-anchor: middle }
  text.what { font-size: 11px; fill: #57606a }
  rect { fill: #f6f8fa; stroke: #57606a; rx: 6px }
  path { fill: none; stroke: #57606a; stroke-opacity: .7 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f3f6 } text.what { fill: #b7bdc8 }
    rect { fill: #161b22; stroke: #9ea7b3 } path { stroke: #9ea7b3 }
  }"""

WIDTH, BOX, HEIGHT, ROW = 980, 196, 46, 104


def folders():
    """What each folder uses; those that use each other are one."""
    uses = {}
    for module, targets in Tree().arrows().items():
        if module:
            uses.setdefault(module[0], set()).update(
                other[0] for other in targets if other and other[0] != module[0])
    group = {name: name for name in uses}
    for circle in circles(uses):
        group.update(dict.fromkeys(circle, " ".join(circle)))
    joined = {}
    for name, targets in uses.items():
        one = joined.setdefault(group[name], set())
        one.update(group[other] for other in targets)
        one.discard(group[name])
    return joined


def reach(uses, name):
    found = set()
    for other in uses[name]:
        found |= {other} | reach(uses, other)
    return found


def rows(uses):
    """From those that none uses to those that use nothing."""
    def depth(name):
        return 1 + max((depth(other) for other in uses if name in uses[other]), default=-1)

    found = {}
    for name in sorted(uses):
        found.setdefault(depth(name), []).append(name)
    return [found[level] for level in sorted(found)]


def boxes(uses):
    """The middle of the upper edge of each box."""
    places = {}
    for level, names in enumerate(rows(uses)):
        for number, name in enumerate(names):
            places[name] = (WIDTH * (2 * number + 1) // (2 * len(names)), 20 + ROW * level)
    return places


def picture():
    uses = folders()
    places = boxes(uses)
    height = max(y for _, y in places.values()) + HEIGHT + 20
    lines, shapes = [], []
    for name in sorted(uses):
        implied = {far for other in uses[name] for far in reach(uses, other)}
        x, y = places[name]
        for other in sorted(uses[name] - implied):
            to_x, to_y = places[other]
            begin, middle = y + HEIGHT, (to_y - y - HEIGHT) // 2
            lines.append(f'<path d="M{x} {begin} C{x} {begin + middle} {to_x} {to_y - middle} '
                         f'{to_x} {to_y}"/>')
        shapes.append(f'<rect x="{x - BOX // 2}" y="{y}" width="{BOX}" height="{HEIGHT}"/>'
                      f'<text x="{x}" y="{y + 19}">{name.replace(" ", ", ")}</text>'
                      f'<text class="what" x="{x}" y="{y + 35}">{WHAT.get(name, "")}</text>')
    body = "\n".join(lines + shapes)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
            f'<title>The folders of src/ and what each uses</title>\n'
            f'<style>{STYLE}\n</style>\n{body}\n</svg>\n')


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
