"""The layers of the source: which file may use which.

Every path of src/ that begins with `crate`, `super`, `self` or a module's child
is read, in `use` lines and in code, and resolved to the file that defines the
name, through re-exports; unit tests may use what they like. A folder may use
only what ALLOWED has for it, and no more than three files may import each other
in a circle.
"""

import re
import runpy

from .harness import ROOT

SRC = ROOT / "src"

LEAVES = {"sync", "util", "errno"}
SYSTEM = LEAVES | {"sys", "hash", "in_use", "wakeup"}
# What stands below a loop and a kqueue.
SHARED = SYSTEM | {"handle", "wait", "timer_queue", "signal_hub"}
ALLOWED = {
    "util": {"sync"},
    # The lock that a fork waits for knows the fork's epoch; a futex is a system call.
    "sync": {"sys", "util"},
    "errno": {"util"},
    "sys": LEAVES,
    "hash": {"sync", "sys"},
    "in_use": {"sync", "sys"},
    "wakeup": LEAVES | {"in_use", "sys"},
    "handle": LEAVES | {"sys"},
    "timer_queue": LEAVES | {"sys"},
    "wait": LEAVES | {"sys", "in_use", "wakeup"},
    "signal_hub": LEAVES | {"sys", "in_use", "handle"},
    "file_watch": LEAVES | {"sys", "hash"},
    "timerfd": SYSTEM | {"handle", "wait"},
    # A selector may be a kqueue.
    "poller": SYSTEM | {"handle", "wait", "kqueue"},
    "event_loop": SHARED | {"timerfd", "poller", "file_watch"},
    "kqueue": SHARED | {"file_watch"},
    "capi": SHARED | {"timerfd", "poller", "file_watch", "event_loop", "kqueue"},
}

# The largest circle of files that import each other.
LARGEST = 3

# A kqueue from the top to the bottom.
KQ_USE = r"kqueue/(queue|collect|fork|fd_registry|object|readiness)\.rs"
KQ_CHANGE = r"kqueue/(change|deliver|rebuild)\.rs"
KQ_WATCH = r"kqueue/(state|refresh|vnode_watch|vnode_events)\.rs"
KQ_FILTER = r"kqueue/filter/.*"
KQ_SOURCE = r"kqueue/source/.*"
KQ_DATA = r"kqueue/(event|slab|snapshot|needs|epoll_set|knote|registration|store)\.rs"

# Arrows that no file of the first kind may have to one of the second: what a
# loop consists of knows neither its state nor what works on that.
ABOVE = (r"event_loop/(state|adding|watcher|pending|destroys|registrations|check_fds|revive"
         r"|access|registry|run_guard|dispatch|collect|instrumented|probing|wakeup|run"
         r"|fd_rounds|slow_wait|api/.*)\.rs")
# With their tests, which may use what they like.
SOURCES = r"event_loop/source/(?!\w+_tests\.rs).*"
FORBIDDEN = [
    ("what is changed, watched and delivered knows no lock and no handle of its queue",
     f"{KQ_CHANGE}|{KQ_WATCH}", KQ_USE),
    ("what the kernel watches for a queue is not for a change to say",
     KQ_WATCH, KQ_CHANGE),
    ("a filter of a kqueue decides on a store and on sources, never on the queue",
     KQ_FILTER, f"{KQ_USE}|{KQ_CHANGE}|{KQ_WATCH}"),
    ("a source of a kqueue returns what it has to report, and uses no filter",
     KQ_SOURCE, f"{KQ_USE}|{KQ_CHANGE}|{KQ_WATCH}|{KQ_FILTER}"),
    ("a kqueue's data know nothing of what is done with them",
     KQ_DATA, f"{KQ_USE}|{KQ_CHANGE}|{KQ_WATCH}|{KQ_FILTER}|{KQ_SOURCE}"),
    ("the data of file watchers know nothing of what is done with them",
     r"file_watch/(types|path|queue|node|backlog|subscribers|places|state)\.rs",
     r"file_watch/(events|follow|moves|open|overflow|route|scan|tree|verify|watches|watchers|work)\.rs"),
    ("what an Fd is made with uses no Fd",
     r"sys/(raw_fd|kept|kept/shared|tsc|clock)\.rs", r"sys/(fd|file)\.rs"),
    ("a subscriber of a signal knows no hub",
     r"signal_hub/(counted|disposition|latest|list|reading|ring|siginfo|subscriber)\.rs",
     r"signal_hub/(hub|handler|pending|replace|subscription)\.rs"),
    ("the sources of a loop do not know its state", SOURCES, ABOVE),
    ("slots do not know the state", r"event_loop/slot/.*", ABOVE),
    ("slots do not know the sources", r"event_loop/slot/.*", r"event_loop/source/.*"),
    ("the shared part of a loop does not know its state, slots and sources",
     r"event_loop/(shared|command|ownership|wake_state|pending_stack|pending_work|own_fds"
     r"|file_state|sinks)\.rs", rf"{ABOVE}|event_loop/(slot|source)/.*"),
    ("telemetry does not know the loop", r"event_loop/telemetry/.*",
     rf"{ABOVE}|event_loop/(shared|command|slot/.*|source/.*)\.rs"),
    ("the state does not know what works on it", r"event_loop/(state)\.rs",
     ABOVE.replace("state|", "")),
    ("a run does not know the entry points",
     ABOVE.replace("|api/.*", ""), r"event_loop/api/.*"),
]

# So long is a file at most, in lines.
LONGEST = 600

LOOM_ONLY = {"kqueue_aio_jobs", "kqueue_queue_waiters", "waiter_list"}


class Source:
    """A file as a module: its text without comments, and its names."""

    def __init__(self, path, module):
        self.path, self.module = path, module
        text = path.read_text(encoding="utf-8")
        self.lines = text.count("\n")
        self.text = stripped(text)
        self.inline = inline_modules(self.text)
        self.imports, self.globs = {}, []
        for at, path_text in use_paths(self.text):
            if self.depth(at):
                continue
            for names, alias in expanded(path_text):
                if names[-1] == "*":
                    self.globs.append(names[:-1])
                else:
                    self.imports[alias] = names

    def depth(self, at):
        """The inline modules around a place."""
        return [name for name, begin, end in self.inline if begin < at < end]

    def defines(self, name):
        items = r"(?:fn|struct|enum|const|static|type|trait|mod|union|macro_rules!)"
        return re.search(rf"\b{items}\s+(?:mut\s+)?{name}\b", self.text) is not None

    def paths(self):
        """All paths of more than one name, with their modules."""
        for at, text in use_paths(self.text):
            if "tests" not in self.depth(at):
                for names, _ in expanded(text):
                    yield self.module + tuple(self.depth(at)), names
        code = re.sub(r"\buse\s[^;]*;", lambda found: " " * len(found[0]), self.text)
        for found in re.finditer(r"(?<![\w:])\w+(?:\s*::\s*\w+)+", code):
            inside = self.depth(found.start())
            if "tests" not in inside:
                yield self.module + tuple(inside), re.split(r"\s*::\s*", found[0])


def stripped(text):
    """Comments and what stands in quotes become spaces."""
    # A visibility is no use.
    text = re.sub(r"\bpub\s*\(\s*in\s[^)]*\)", "pub", text)
    pattern = r'//[^\n]*|/\*.*?\*/|b?r#*"(?:.*?)"#*|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.|[^\'\\])\''
    return re.sub(pattern, lambda found: " " * len(found[0]), text, flags=re.S)


def inline_modules(text):
    found = []
    for head in re.finditer(r"\bmod\s+(\w+)\s*\{", text):
        depth, at = 1, head.end()
        while depth and at < len(text):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        found.append((head[1], head.end(), at))
    return found


def use_paths(text):
    for found in re.finditer(r"\buse\s+([^;]+);", text):
        yield found.start(), found[1]


def expanded(text):
    """The paths of a use declaration: (names, the name it has here)."""
    text = re.sub(r"\s+", " ", text).strip()
    brace = text.find("{")
    if brace < 0:
        path, _, alias = text.partition(" as ")
        names = [name.strip() for name in path.strip().split("::") if name.strip()]
        if names[-1] == "self" and len(names) > 1:
            names = names[:-1]
        return [(names, alias.strip() or names[-1])]
    head, inner = text[:brace], text[brace + 1:text.rindex("}")]
    parts, depth, part = [], 0, ""
    for char in inner:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += char
    return [one for part in parts + [part] if part.strip() for one in expanded(head + part.strip())]


class Tree:
    """All modules of the crate."""

    def __init__(self, root=SRC):
        self.root = root
        self.files = {}
        for path in sorted(root.rglob("*.rs")):
            names = path.relative_to(root).with_suffix("").parts
            if names[-1] in ("mod", "lib"):
                names = names[:-1]
            self.files[names] = Source(path, names)

    def name(self, module):
        return str(self.files[module].path.relative_to(self.root))

    def resolve(self, module, names, seen=()):
        """The module of the file that defines a path, or None."""
        # Inline modules belong to their file.
        at, rest = module, list(names)
        if rest[0] == "crate":
            at, rest = (), rest[1:]
        elif rest[0] in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                at, rest = (at[:-1] if rest[0] == "super" else at), rest[1:]
        else:
            while at not in self.files:
                at = at[:-1]
            if at + (rest[0],) not in self.files:
                return None
        while rest and at + (rest[0],) in self.files:
            at, rest = at + (rest[0],), rest[1:]
        while at not in self.files:
            at, rest = at[:-1], []
        if not rest or rest[0] == "*":
            return at
        return self.defining(at, rest, seen)

    def defining(self, at, rest, seen):
        source, name = self.files[at], rest[0]
        if (at, name) in seen or source.defines(name):
            return at
        seen = (*seen, (at, name))
        if name in source.imports:
            return self.resolve(at, self.absolute(at, source.imports[name]) + rest[1:], seen) or at
        for glob in source.globs:
            target = self.resolve(at, self.absolute(at, glob) + [name], seen)
            if target is not None and self.files[target].defines(name):
                return target
        return at

    def absolute(self, at, names):
        if names[0] in ("crate", "self", "super"):
            return list(names)
        return ["self", *names] if at + (names[0],) in self.files else ["crate", *names]

    def arrows(self):
        """Which files each file uses."""
        found = {module: set() for module in self.files}
        for module, source in self.files.items():
            for inside, names in source.paths():
                target = self.resolve(inside, names)
                if target is not None and target != module:
                    found[module].add(target)
        return found


def circles(arrows):
    """The strongly connected sets of more than one file (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


def layers(suite):
    tree = Tree()
    arrows = tree.arrows()
    suite.check("paths are found", sum(map(len, arrows.values())) > 300)
    for module, targets in sorted(arrows.items()):
        if not module:
            continue
        wrong = [tree.name(other) for other in sorted(targets)
                 if other and other[0] not in ALLOWED[module[0]] | {module[0]}]
        suite.check(f"{tree.name(module)} uses only what {module[0]} may",
                    not wrong, f"it uses {', '.join(wrong)}")
    for rule, source, target in FORBIDDEN:
        wrong = [f"{tree.name(one)} -> {tree.name(other)}" for one in sorted(arrows)
                 for other in sorted(arrows[one])
                 if re.fullmatch(source, tree.name(one)) and re.fullmatch(target, tree.name(other))]
        suite.check(rule, not wrong, "\n".join(wrong))
        for pattern in (source, target):
            suite.check(f"{rule}: such files are there",
                        any(re.fullmatch(pattern, tree.name(one)) for one in arrows), pattern)
    for module in sorted(tree.files):
        name, lines = tree.name(module), tree.files[module].lines
        suite.check(f"{name} has at most {LONGEST} lines", lines <= LONGEST, f"it has {lines}")
    for circle in circles(arrows):
        names = [tree.name(module) for module in circle]
        suite.check(f"{names[0]} and others import each other in a circle of at most {LARGEST}",
                    len(circle) <= LARGEST, f"{len(circle)} files: {', '.join(names)}")
    picture = runpy.run_path(str(ROOT / "docs/draw_layers.py"))
    drawn = picture["PICTURE"].read_text(encoding="utf-8")
    suite.check("docs/layers.svg shows them", drawn == picture["picture"](), "run: make layers")
