"""make install, programs built from the installed copy, make uninstall."""

import os
import tempfile
from pathlib import Path

from .harness import CC, ROOT, Missing, make_variable, need

PROGRAMS = ROOT / "tests/install"
CXX = os.environ.get("CXX", "g++").split()
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


class Installed:
    """A copy below a DESTDIR, used from there as if it were in place."""

    def __init__(self, suite, destdir, prefix, libdir):
        self.suite = suite
        self.destdir = Path(destdir)
        self.prefix = prefix
        self.variables = [f"DESTDIR={destdir}", f"PREFIX={prefix}"]
        self.variables += [f"LIBDIR={libdir}"] if libdir else []
        self.lib = Path(f"{destdir}{libdir or prefix + '/lib'}")
        self.include = Path(f"{destdir}{prefix}/include")
        self.licenses = Path(f"{destdir}{prefix}/share/licenses/libevloop")
        self.run_env = {"LD_LIBRARY_PATH": self.lib}

    def make(self, target):
        done = self.suite.run(["make", "--no-print-directory", target, *self.variables],
                              timeout=1200)
        return self.suite.check(f"make {target} PREFIX={self.prefix}", done.ok, done.tail())

    def files(self):
        """Every file and link, with where a link goes."""
        found = {}
        for path in sorted(self.destdir.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                found[str(path)] = os.readlink(path) if path.is_symlink() else None
        return found

    def pkg_config(self, *options, package="evloop"):
        env = {"PKG_CONFIG_SYSROOT_DIR": self.destdir,
               "PKG_CONFIG_LIBDIR": self.lib / "pkgconfig",
               # /usr/include and /usr/lib are left out otherwise.
               "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": 1, "PKG_CONFIG_ALLOW_SYSTEM_LIBS": 1}
        done = self.suite.run(["pkg-config", *options, package], env=env)
        self.suite.check(f"pkg-config {' '.join(options)} {package}", done.ok, done.tail())
        return done.output.split()


def install(suite):
    need("pkg-config", "pkg-config")
    if not suite.make("lib"):
        return
    for prefix, libdir in (("/usr", None), ("/opt/evloop", "/opt/evloop/lib/multiarch")):
        with tempfile.TemporaryDirectory() as folder:
            copy = Installed(suite, Path(folder) / "root", prefix, libdir)
            if copy.make("install"):
                try_copy(suite, copy, Path(folder))
            copy.make("uninstall")
            suite.check("uninstall leaves no file", not copy.files(), str(copy.files()))


def try_copy(suite, copy, folder):
    file_list(suite, copy)
    relocatable(suite, copy)
    programs(suite, copy, folder)
    bsd_programs(suite, copy, folder)
    examples(suite, copy, folder)
    cmake(suite, copy, folder)


def file_list(suite, copy):
    real, soname = make_variable("REAL"), make_variable("SONAME")
    kq_real, kq_soname = make_variable("KQ_REAL"), make_variable("KQ_SONAME")
    expected = {
        copy.lib / kq_real: None, copy.lib / kq_soname: kq_real,
        copy.lib / "libevloop-kqueue.so": kq_soname, copy.lib / "libevloop-kqueue.a": None,
        copy.include / "evloop-compat/sys/event.h": None,
        copy.lib / "pkgconfig/evloop-kqueue.pc": None,
        copy.lib / real: None, copy.lib / soname: real, copy.lib / "libevloop.so": soname,
        copy.lib / "libevloop.a": None, copy.include / "evloop.h": None,
        copy.lib / "pkgconfig/evloop.pc": None,
        copy.licenses / "LICENSE-MIT": None, copy.licenses / "LICENSE-APACHE": None,
        copy.lib / "cmake/evloop/evloop-config.cmake": None,
        copy.lib / "cmake/evloop/evloop-config-version.cmake": None}
    expected = {str(path): link for path, link in expected.items()}
    found = copy.files()
    suite.check("the installed files", found == expected,
                f"missing or other: {expected.items() - found.items()}\n"
                f"unexpected: {found.items() - expected.items()}")
    leftovers = [path for path in found if path.endswith((".pc", ".cmake"))
                 and any(mark in Path(path).read_text() for mark in ("@", str(copy.destdir)))]
    suite.check("templates are filled in, without DESTDIR", not leftovers, str(leftovers))


def relocatable(suite, copy):
    done = suite.run(["pkg-config", "--define-variable=prefix=/elsewhere", "--cflags", "evloop"],
                     env={"PKG_CONFIG_LIBDIR": copy.lib / "pkgconfig"})
    suite.check("evloop.pc follows its prefix", "-I/elsewhere/include" in done.output, done.tail())
    modversion = copy.pkg_config("--modversion")
    suite.check("pkg-config's version", modversion == [make_variable("VERSION")], str(modversion))


def programs(suite, copy, folder):
    """One C, one C++ program, each linked in every way, and a dlopen one."""
    shared = copy.pkg_config("--cflags", "--libs")
    static = copy.pkg_config("--static", "--cflags", "--libs")
    # -l prefers the shared library where both are.
    archive = [str(copy.lib / "libevloop.a") if word == "-levloop" else word for word in static]
    for title, flags in (("shared", shared), ("--static, shared", static),
                         ("static library", archive), ("-static", ["-static", *static])):
        build_and_run(suite, copy, folder, f"C program, {title}",
                      [*CC, "-std=c99", *STRICT, PROGRAMS / "program.c"], flags)
        build_and_run(suite, copy, folder, f"C++ program, {title}",
                      [*CXX, "-std=c++11", *STRICT, PROGRAMS / "program.cc"], flags)
    build_and_run(suite, copy, folder, "dlopen program",
                  [*CC, "-std=c99", *STRICT, PROGRAMS / "loader.c"], ["-ldl"])


def bsd_programs(suite, copy, folder):
    """A program of BSD's, with one -I and one -l, and as pkg-config has it."""
    shared = copy.pkg_config("--cflags", "--libs", package="evloop-kqueue")
    static = copy.pkg_config("--static", "--cflags", "--libs", package="evloop-kqueue")
    one = [f"-I{copy.include}/evloop-compat", f"-L{copy.lib}", "-levloop-kqueue"]
    command = [*CC, "-std=gnu99", *STRICT, PROGRAMS / "bsd.c"]
    for title, flags in (("one -I and one -l", one), ("shared", shared),
                         ("-static", ["-static", *static])):
        build_and_run(suite, copy, folder, f"BSD program, {title}", command, flags)


def build_and_run(suite, copy, folder, title, command, flags):
    program = folder / "program"
    built = suite.run([*command, "-o", program, *flags])
    if suite.check(f"{title}: builds", built.ok, built.tail()):
        suite.command(f"{title}: runs", [program], env=copy.run_env, timeout=20)


def examples(suite, copy, folder):
    """The C examples build from the installed copy alone."""
    cflags, libs = copy.pkg_config("--cflags"), copy.pkg_config("--libs")
    for source in sorted((ROOT / "examples/c").glob("*.c")):
        # A program that loads the library itself is not linked with it.
        link = ["-ldl"] if "dlopen" in source.stem else libs
        suite.command(f"examples/c/{source.name} from the installed copy",
                      [*CC, "-std=c99", *STRICT, *cflags, source, "-o", folder / source.stem, *link])


def cmake(suite, copy, folder):
    try:
        need("cmake", "cmake")
    except Missing as why:
        suite.skip("find_package(evloop)", why)
        return
    tree = folder / "cmake"
    env = {"CC": CC[0], "CXX": CXX[0]}
    found = suite.command(
        "find_package(evloop)",
        ["cmake", "-S", PROGRAMS, "-B", tree, f"-DCMAKE_PREFIX_PATH={copy.destdir}{copy.prefix}",
         f"-Devloop_DIR={copy.lib}/cmake/evloop"], env=env)
    if not found.ok or not suite.command("cmake --build", ["cmake", "--build", tree], env=env).ok:
        return
    for name in ("c_shared", "c_static", "cxx_shared", "cxx_static", "bsd"):
        # No LD_LIBRARY_PATH: CMake has put the library's place into them.
        suite.command(f"CMake's {name} runs", [tree / name], timeout=20)
    linked = suite.run(["readelf", "-d", tree / "c_static"]).output
    suite.check("evloop::static is linked statically", "libevloop" not in linked, linked)
    refused = suite.run(["cmake", "-S", PROGRAMS, "-B", folder / "other",
                         f"-Devloop_DIR={copy.lib}/cmake/evloop", "-DEVLOOP_WANTED=0.3"], env=env)
    suite.check("another version is refused", not refused.ok, refused.tail())
