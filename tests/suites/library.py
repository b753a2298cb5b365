"""The built library as a file: its symbols, its soname, what it links."""

import re

from .harness import BUILD, CARGO, header_functions, make_variable, need


def library(suite):
    need("nm", "binutils")
    if not suite.make("lib"):
        return
    shared = BUILD / "lib/libevloop.so"
    symbols(suite, shared)
    dynamic_section(suite, shared)
    kqueue(suite)
    static_libs(suite)
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
    """BSD's two names, and in the shared library those of sigaction(2)."""
    shared = BUILD / "lib/libevloop-kqueue.so"
    both = {"kqueue", "kevent"}
    signals = {"sigaction", "signal", "bsd_signal", "ssignal", "sysv_signal", "__sysv_signal",
               "siginterrupt", "sigignore", "sigset"}
    for title, options, file, expected in (
            ("shared", ["-D"], shared, both | signals),
            ("static", ["-g"], BUILD / "lib/libevloop-kqueue.a", both)):
        listing = suite.run(["nm", *options, "--defined-only", "-P", file]).output
        names = {line.split()[0] for line in listing.splitlines() if " T " in line}
        suite.check(f"libevloop-kqueue, {title}: exactly its names", names == expected, listing)
    listing = suite.run(["readelf", "-dW", shared]).output
    expected = make_variable("KQ_SONAME")
    suite.check(f"soname {expected}", f"[{expected}]" in listing, listing)
    suite.check("it needs libevloop", f"NEEDED)             Shared library: [{make_variable('SONAME')}]"
                in listing, listing)


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
