#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws the time around a trace's longest callback.

    draw_trace.py TRACE.json > trace.svg
"""

import html
import json
import sys

WIDTH, ROW, LEFT = 960, 34, 12
SHOWN_US = 80_000
COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948"]


def slices_of(path):
    with open(path, encoding="utf-8") as file:
        return [one for one in json.load(file)["traceEvents"] if one["ph"] == "X"]


def draw(slices):
    callbacks = [one for one in slices if "watcher" in one["args"]]
    longest = max(callbacks, key=lambda one: one["dur"])
    names = sorted({one["name"] for one in callbacks})
    begin = longest["ts"] - (SHOWN_US - longest["dur"]) / 3
    rows = ["wait", "iteration"] + names
    yield ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
           'font-family="sans-serif" font-size="12">' % (WIDTH, ROW * len(rows) + 40))
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    scale = (WIDTH - 2 * LEFT) / SHOWN_US
    for one in slices:
        left = max(one["ts"] - begin, 0)
        right = min(one["ts"] + one["dur"] - begin, SHOWN_US)
        if one["name"] not in rows or right <= left:
            continue
        row = rows.index(one["name"])
        colour = ["#d5d8dc", "#aab7b8"][row] if row < 2 else COLOURS[(row - 2) % len(COLOURS)]
        colour = "#e15759" if one is longest else colour
        yield ('<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s"><title>%s, %.3f ms'
               '</title></rect>' % (LEFT + left * scale, row * ROW + 16,
                                    max((right - left) * scale, 1), ROW - 18, colour,
                                    html.escape(one["name"]), one["dur"] / 1000))
    for row, name in enumerate(rows):
        yield ('<text x="%d" y="%d" fill="#2c3e50">%s</text>'
               % (LEFT, row * ROW + 12, html.escape(name)))
    for at in range(0, SHOWN_US + 1, 10_000):
        yield ('<text x="%.1f" y="%d" fill="#7f8c8d" text-anchor="middle">%d ms</text>'
               % (LEFT + at * scale, ROW * len(rows) + 28, at // 1000))
    yield "</svg>"


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    print("\n".join(draw(slices_of(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
