"""The programs in README.md and in the header's opening comment."""

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


def docs(suite):
    if not suite.make("lib"):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        examples = list(header_programs(HEADER.read_text(encoding="utf-8")))
        suite.check("the header has a first program", examples)
        for code in examples:
            run_program(suite, folder, "the header's program", code, True)
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
