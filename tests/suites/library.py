"""The built library as a file: its symbols, its soname, what it links."""

import re
import tempfile
from pathlib import Path

from .harness import BUILD, CARGO, CC, ROOT, Missing, header_functions, make_variable, need


def library(suite):
    need("nm", "binutils")
    if not suite.make("lib"):
        return
    shared = BUILD / "lib/libevloop.so"
    symbols(suite, shared)
    dynamic_section(suite, shared)
    kqueue(suite)
    faults(suite, shared)
    static_libs(suite)
    archive(suite)
    cargo_c(suite)
    suite.note(f".so {shared.stat().st_size / 1024:.0f} kB")


def symbols(suite, shared):
    """Exported are the header's functions: nothing more, nothing less."""
    declared = set(header_functions())
    listing = suite.run(["nm", "-D", "--defined-only", "-P", shared])
    exported = {line.split()[0] for line in listing.output.splitlines() if line}
    suite.check("the header declares functions", len(declared) > 30, str(len(declared)))
    suite.check("every function of the header is exported", declared <= exported,
                "\n".join(sorted(declared - exported)))
    suite.check("nothing else is exported", exported <= declared,
                "\n".join(sorted(exported - declared)))
    suite.check("names begin with tfd_ or evloop_",
                all(re.match(r"(tfd|evloop)_", name) for name in declared),
                "\n".join(sorted(declared)))
    static = suite.run(["nm", "--defined-only", "-P", "-g", BUILD / "lib/libevloop.a"])
    names = {line.split()[0] for line in static.output.splitlines() if " T " in line}
    suite.check("the static library has them all", declared <= names,
                "\n".join(sorted(declared - names)))


def dynamic_section(suite, shared):
    listing = suite.run(["readelf", "-dW", shared]).output
    soname = re.search(r"SONAME\).*\[(.*)\]", listing)
    expected = make_variable("SONAME")
    suite.check(f"soname {expected}", soname and soname[1] == expected, listing)
    # Threads' descriptors are closed by destructors whose code must stay.
    suite.check("not unmapped by dlclose", "NODELETE" in listing, listing)
    needed = set(re.findall(r"NEEDED\).*\[(.*)\]", listing))
    known = re.compile(r"(libc|libgcc_s|libm|libpthread|libdl|librt|ld-linux.*)\.so\.\d+$")
    strange = {name for name in needed if not known.match(name)}
    suite.check("needs only the C library", not strange, "\n".join(sorted(strange)))


def kqueue(suite):
    """BSD's names, and in the shared library those of sigaction(2)."""
    shared = BUILD / "lib/libevloop-kqueue.so"
    bsd = {"kqueue", "kqueue1", "kqueuex", "kevent"}
    signals = {"sigaction", "signal", "bsd_signal", "ssignal", "sysv_signal", "__sysv_signal",
               "siginterrupt", "sigignore", "sigset"}
    for title, options, file, expected in (
            ("shared", ["-D"], shared, bsd | signals),
            ("static", ["-g"], BUILD / "lib/libevloop-kqueue.a", bsd)):
        listing = suite.run(["nm", *options, "--defined-only", "-P", file]).output
        names = {line.split()[0] for line in listing.splitlines() if " T " in line}
        suite.check(f"libevloop-kqueue, {title}: exactly its names", names == expected, listing)
    listing = suite.run(["readelf", "-dW", shared]).output
    expected = make_variable("KQ_SONAME")
    suite.check(f"soname {expected}", f"[{expected}]" in listing, listing)
    suite.check("it needs libevloop", f"NEEDED)             Shared library: [{make_variable('SONAME')}]"
                in listing, listing)


def faults(suite, shared):
    """Where it was loaded by dlopen, a thread can begin without memory."""
    if suite.make("test-tools"):
        suite.command("calls without memory, after dlopen",
                      [BUILD / "tests/dlopen_faults", shared])


def static_libs(suite):
    """The packages name what rustc says a static link needs."""
    listing = suite.run(
        [CARGO, "rustc", "--lib", "--crate-type", "staticlib", "--", "--print",
         "native-static-libs"], timeout=1200)
    found = re.search(r"native-static-libs: (.*)", listing.output)
    if found is None:
        suite.fail("rustc lists the native libraries", listing.tail())
        return
    # The C compiler adds libgcc_s or, with -static, libgcc_eh: see Makefile.
    ours = make_variable("STATIC_LIBS").split() + ["-lgcc_s"]
    suite.check("Libs.private is rustc's list", sorted(set(found[1].split())) == sorted(ours),
                f"rustc: {found[1]}\nMakefile and -lgcc_s: {' '.join(ours)}")


def archive(suite):
    """The archive that ships: its names are private, and it links anywhere."""
    path = BUILD / "lib/libevloop.a"
    try:
        need("llvm-objcopy", "llvm")
    except Missing as why:
        suite.skip("the archive's private names", why)
        return
    listing = suite.run(["nm", "--defined-only", "-P", "-g", path]).output
    names = {line.split()[0] for line in listing.splitlines() if len(line.split()) > 2}
    strange = names - set(header_functions())
    suite.check("the archive has no other global names", not strange,
                "\n".join(sorted(strange)[:20]))
    size = path.stat().st_size / 1e6
    suite.check("the archive is under 4 MB", size < 4, f"{size:.1f} MB")
    suite.note(f".a {size:.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        beside_rust(suite, path, Path(folder))
        lto(suite, path, Path(folder))


def beside_rust(suite, path, folder):
    """Another Rust static library in one C program, and a Rust program."""
    sources, other, program = ROOT / "tests/archive", folder / "libother.a", folder / "program"
    if not suite.command("another Rust static library",
                         ["rustc", "--edition", "2024", "-O", "--crate-type", "staticlib",
                          sources / "other.rs", "-o", other]).ok:
        return
    command = [*CC, sources / "two.c", f"-I{ROOT}/include", "-o", program]
    for title, files in (("before", [path, other]), ("after", [other, path])):
        if suite.command(f"linked {title} another Rust library", [*command, *files, "-lm"]).ok:
            suite.command(f"linked {title} another Rust library: runs", [program], timeout=20)
    if suite.command("linked into a Rust program",
                     ["rustc", "--edition", "2024", "-O", "-C", "lto=fat", f"-L{path.parent}",
                      sources / "program.rs", "-o", program]).ok:
        suite.command("linked into a Rust program: runs", [program], timeout=20)


def lto(suite, path, folder):
    """Link-time optimisation of the program: no bitcode of ours is in its way."""
    program = folder / "program"
    for tool, package in (("gcc", "gcc"), ("clang", "clang")):
        try:
            need(tool, package)
        except Missing as why:
            suite.skip(f"{tool} -flto", why)
            continue
        if suite.command(f"{tool} -flto links the archive",
                         [tool, "-O2", "-flto", ROOT / "tests/install/program.c",
                          f"-I{ROOT}/include", path, "-lm", "-o", program]).ok:
            suite.command(f"{tool} -flto: runs", [program], timeout=20)


def cargo_c(suite):
    """cargo-c sets this; what it would install is not the whole."""
    done = suite.run([CARGO, "check"], timeout=600,
                     env={"RUSTFLAGS": "--cfg cargo_c", "CARGO_TARGET_DIR": BUILD / "cargo-c"})
    suite.check("cargo-c is refused, with what to do instead",
                not done.ok and "run `make install`" in done.output, done.tail())
