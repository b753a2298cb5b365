"""The programs in README.md and in the header's opening comment, the examples
of the header's sections, the files and names that documents mention, and
words that no text of the project uses."""

import re
import tempfile
from pathlib import Path

from .harness import BUILD, CC, HEADER, ROOT

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
RUN_MARK = "<!-- test: run -->"


def header_programs(text):
    """The indented programs of the comments before the include guard."""
    opening = text.split("#ifndef", 1)[0]
    blocks = re.findall(r"(?:^ \*(?:   .*)?\n)+", opening, re.M)
    for block in blocks:
        lines = [line[5:] for line in block.splitlines()]
        code = "\n".join(lines).strip() + "\n"
        if "int main" in code:
            # A sentence that leads to the program may be indented no less.
            yield code[code.index("#"):]


# What the examples of the header's sections stand in.
AROUND_EXAMPLE = """
#define _DEFAULT_SOURCE 1
#include <evloop.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>
void on_event(const evloop_event_t *event, void *user_data);
void example(evloop_t loop, int fd);
void example(evloop_t loop, int fd) {{
%s
}}
"""
EXAMPLE_OPTIONS = ["-Wno-unused-variable", "-Wno-unused-parameter", "-c", "-o", "/dev/null"]
EXAMPLE_LINES = range(3, 7)


def section_examples(text):
    """The title of each section, and the indented lines of its introduction."""
    rule = re.escape(f" * {'-' * 72}\n")
    for section in re.finditer(rf"^/\* -+\n \* ([^\n]*)\n{rule}(.*?)^ \*/", text, re.M | re.S):
        yield section[1], re.findall(r"^ \*   (.*)$", section[2], re.M)


def compile_examples(suite, folder, text):
    sections = list(section_examples(text))
    titles = re.findall(r"^/\* -{72}\n \* (.*)$", text, re.M)
    suite.check("every section of the header has an introduction",
                titles and titles == [title for title, _ in sections], "\n".join(titles))
    source = folder / "example.c"
    for title, lines in sections:
        if not suite.check(f"{title}: an example of about five lines",
                           len(lines) in EXAMPLE_LINES, "\n".join(lines)):
            continue
        source.write_text(AROUND_EXAMPLE % "\n".join(lines))
        suite.command(f"{title}: the example compiles",
                      [*CC, *STRICT, *EXAMPLE_OPTIONS, f"-I{HEADER.parent}", source])


def readme_programs(text):
    """Fenced C programs, and whether the mark before the fence says run."""
    fences = re.finditer(r"^([^\n]*)\n*^```c\b[^\n]*\n(.*?)^```", text, re.M | re.S)
    for fence in fences:
        if "int main" in fence[2]:
            yield fence[2], RUN_MARK in fence[1]


def build(suite, folder, title, code):
    source, program = folder / "program.c", folder / "program"
    source.write_text(code)
    done = suite.run([*CC, *STRICT, f"-I{HEADER.parent}", source, "-o", program,
                      f"-L{BUILD / 'lib'}", "-levloop", f"-Wl,-rpath,{BUILD / 'lib'}"])
    return program if suite.check(f"{title} compiles", done.ok, done.tail()) else None


def mentioned_files(text):
    """Paths in code style; `<kind>` stands for a name of the reader's."""
    return re.findall(r"`([\w.-]+(?:/[\w.-]+)+\.[a-z]+)`", text)


def check_names(suite):
    """What documents name is in the tree."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]):
        text = path.read_text(encoding="utf-8")
        gone = [name for name in mentioned_files(text)
                if not any((base / name).exists() for base in (ROOT, ROOT / "src"))]
        suite.check(f"{path.name}: the files that it names are there", not gone, "\n".join(gone))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs"))
    words = set(re.findall(r"\w+", sources))
    terms = re.findall(r"`(\w+)`", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"))
    gone = [term for term in terms if term not in words]
    suite.check("glossary.md: the sources have its names", terms and not gone, "\n".join(gone))


# What happens most, and how many files a reader has to open for it.
JOURNEYS = {"An io event, from the wait to the callback": 7,
            "A timer that is started again, and expires": 5,
            "A watcher that is closed by a thread that does not run the loop": 6,
            "A kevent change and event": 8}


def check_journeys(suite):
    """The journeys of design.md: their functions are there."""
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    for title, most in JOURNEYS.items():
        part = text.partition(f"\n### {title}\n")[2].partition("\n#")[0]
        steps = re.findall(r"^\| src/([\w/.]+) \| (\w+) \|", part, re.M)
        files = {file: (ROOT / "src" / file).read_text(encoding="utf-8") for file, _ in steps
                 if (ROOT / "src" / file).exists()}
        wrong = [f"{file}: {name}" for file, name in steps
                 if not re.search(rf"\bfn {name}\b", files.get(file, ""))]
        suite.check(f"design.md: {title}: its functions are there", steps and not wrong,
                    "\n".join(wrong))
        suite.check(f"design.md: {title}: {most} files at most", len(dict(steps)) <= most,
                    "\n".join(sorted(dict(steps))))


# Who does what is to be said, with the field's words; not these, which the
# project once used.
UNWANTED = re.compile(r"\b(?:desk|letter|told|nobody|whoever|somebody|anew)s?\b", re.I)
TEXTS = ["src", "header", "include", "c-tests", "tests", "benches", "examples", "docs", "README.md",
         "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"]
TEXT_FORMS = {".rs", ".c", ".h", ".py", ".md", ".txt", ".lua", ""}


def check_words(suite):
    found = []
    for name in TEXTS:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix not in TEXT_FORMS or not file.is_file() or "__pycache__" in file.parts:
                continue
            lines = file.read_text(encoding="utf-8").splitlines()
            # Quotations may have them.
            found += [f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
                      for number, line in enumerate(lines, 1)
                      if UNWANTED.search(re.sub(r'"[^"]*"', "", line))]
    suite.check("no text has words that say nothing of who does what", not found,
                "\n".join(found[:20]))


def docs(suite):
    check_names(suite)
    check_journeys(suite)
    check_words(suite)
    if not suite.make("lib"):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header = HEADER.read_text(encoding="utf-8")
        examples = list(header_programs(header))
        suite.check("the header has a first program", examples)
        for code in examples:
            run_program(suite, folder, "the header's program", code, True)
        compile_examples(suite, folder, header)
        readme = ROOT / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        programs = list(readme_programs(text))
        suite.check("README.md has a first program", programs)
        for number, (code, runs) in enumerate(programs, 1):
            run_program(suite, folder, f"README.md, program {number}", code, runs)


def run_program(suite, folder, title, code, runs):
    program = build(suite, folder, title, code)
    if program and runs:
        suite.command(f"{title} runs", [program], timeout=20)
