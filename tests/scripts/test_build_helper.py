"""Compiling the native helper (scripts/build_helper.py) on machines of all kinds."""

import errno
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import pytest
from helper_build import load_build_script

from sysds_resnet.engine.jvm import multiply

build = load_build_script()
FOLDER = "sysds_resnet/engine/native/lib"
LIBRARIES = [f"{FOLDER}/{build.LIBRARY}", f"{FOLDER}/{build.ONEDNN}"]
BOTH = sorted([build.LIBRARY, build.ONEDNN])


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine where a test can install a compiler, and a source in a folder with a space."""
    for name in ("CXX", "CXXFLAGS", "LDFLAGS", build.WANTED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build, "LOAD", "")  # what the stand-in makes is no library
    packages = tmp_path / "a b" / "include" / "x" / "y"
    packages.mkdir(parents=True)
    (packages / build.ONEDNN).write_text("oneDNN")
    monkeypatch.setattr(build, "_file", lambda package, name: packages / name)
    native = tmp_path / "my source" / "sysds_resnet" / "engine" / "native"
    native.mkdir(parents=True)

    def install(name, says="g++ (Debian) 12", compiles='for last; do :; done; echo made > "$last"'):
        """A compiler that writes down its arguments, one a line."""
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        told = f'printf "%s\\n" "$@" > "{tmp_path}/told"'
        version = f'case " $* " in *" --version "*) echo "{says}"; exit ;; esac'
        text = f"#!/bin/sh\n{version}\n{told}\n{compiles}\n"
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(version="standard", target="wheel"):
        """The hook; gives what it told hatchling and its warnings."""
        warnings = []
        hook = build.HelperHook()
        hook.root, hook.target_name = str(native.parents[2]), target
        hook.app = SimpleNamespace(display_warning=warnings.append, abort=sys.exit)
        data = {"artifacts": [], "force_include": {}}
        hook.initialize(version, data)
        data["files"] = sorted(path.name for path in native.glob("lib/*"))
        data["told"] = (tmp_path / "told").read_text().splitlines() if (tmp_path / "told").exists() else []
        hook.finalize(version, data, "")
        return data, warnings

    return SimpleNamespace(install=install, run=run, native=native)


def assert_without(machine, reason):
    data, warnings = machine.run()
    assert data["files"] == [build.REASON] and "pure_python" not in data and "tag" not in data
    assert data["artifacts"] == [f"{FOLDER}/{build.REASON}"]
    assert warnings == [f"built without the native helper: {reason}"] and "\n" not in reason
    assert (machine.native / "lib" / build.REASON).read_text() == f"{reason}\n"


def test_the_libraries_make_the_wheel_one_for_this_platform(machine):
    machine.install("g++")
    data, warnings = machine.run()
    assert not warnings and data["files"] == BOTH and data["artifacts"] == LIBRARIES
    assert data["pure_python"] is False and data["tag"] == "py3-none-linux_x86_64"


def test_onednn_lies_beside_the_library_that_was_linked_against_it(machine):
    machine.install("g++")
    told = machine.run()[0]["told"]
    assert (machine.native / "lib" / build.ONEDNN).read_text() == "oneDNN"
    assert Path(told[-1]).with_name(build.ONEDNN) == Path(told[told.index("-Wl,-rpath,$ORIGIN") - 1])


def test_only_names_that_debuggers_read_are_taken_out_of_onednn(machine):
    machine.install("g++")
    strip = machine.install("strip", compiles='echo stripped > "$2"')
    assert machine.run()[0]["told"] == ["--strip-unneeded", ANY]
    assert (machine.native / "lib" / build.ONEDNN).read_text() == "stripped\n"
    strip.write_text("#!/bin/sh\nexit 1\n")
    data, warnings = machine.run()
    assert not warnings and data["files"] == BOTH


def test_paths_with_spaces_stay_whole(machine):
    machine.install("g++")
    data, _ = machine.run()
    assert str(machine.native / "helper.cpp") in data["told"]
    assert any(word.startswith("-I") and word.endswith("a b/include") for word in data["told"])


def test_cxx_and_flags_are_heeded(machine, monkeypatch):
    machine.install("g++", says="not this one")
    other = machine.install("my compiler")
    monkeypatch.setenv("CXX", f"'{other}' -pipe")
    monkeypatch.setenv("CXXFLAGS", "-g -DNAME='a b'")
    monkeypatch.setenv("LDFLAGS", "-Wl,-z,now")
    data, warnings = machine.run()
    assert not warnings and data["told"][0] == "-pipe"
    assert {"-g", "-DNAME=a b", "-Wl,-z,now", "-fopenmp"} <= set(data["told"])


def test_gcc_is_taken_where_cxx_is_clang(machine):
    machine.install("g++")
    machine.install("c++", says="Debian clang version 14.0.6")
    assert machine.run()[0]["files"] == BOTH


def test_without_a_compiler_the_package_is_built_and_says_why(machine, monkeypatch):
    (machine.native / "lib").mkdir()
    for name in BOTH:
        (machine.native / "lib" / name).write_text("of another version")
    assert_without(machine, "found no C++ compiler; install g++, then sysds-resnet again")
    monkeypatch.setattr(multiply, "HELPER_FOLDER", machine.native)
    assert multiply.helper_problem() == (
        "it was not compiled: found no C++ compiler; install g++, then sysds-resnet again"
    )


def test_a_package_for_all_platforms_has_no_helper_and_says_why(machine, monkeypatch):
    machine.install("g++")
    machine.run()
    monkeypatch.setenv(build.WANTED, "0")
    for system in (build.sys.platform, "darwin"):
        monkeypatch.setattr(build.sys, "platform", system)
        data, warnings = machine.run()
        assert data["files"] == [build.REASON] and "tag" not in data and not warnings
    monkeypatch.setattr(multiply, "HELPER_FOLDER", machine.native)
    assert multiply.helper_problem() == (
        "it was not compiled: SYSDS_RESNET_HELPER=0, as in the wheel for all platforms; install g++, then "
        "sysds-resnet from its source"
    )


def test_a_build_that_must_have_the_helper_fails_without_a_compiler(machine, monkeypatch):
    monkeypatch.setenv(build.WANTED, "1")
    with pytest.raises(
        SystemExit, match=r"^SYSDS_RESNET_HELPER=1: .* cannot be made: found no C\+\+ compiler"
    ):
        machine.run()
    machine.install("g++")
    assert machine.run()[0]["files"] == BOTH
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    with pytest.raises(
        SystemExit, match=r"^SYSDS_RESNET_HELPER=1: found linux on aarch64, expected linux on x86_64; "
    ):
        machine.run()


def test_clang_alone_is_named(machine):
    path = machine.install("c++", says="Debian clang version 14.0.6")
    expected = "expected GCC; install g++, or set CXX to it, and install again"
    assert_without(machine, f"found clang as {path}, {expected}")


def test_a_compiler_that_is_not_there_is_named(machine, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++-99")
    assert_without(machine, "/nowhere/g++-99: No such file or directory; check CXX")


def test_the_first_error_of_a_compiler_is_said(machine):
    machine.install(
        "g++", compiles="echo 'In file x:' >&2; echo 'x.h:3: error: no omp.h' >&2; echo more >&2; exit 1"
    )
    assert_without(machine, "g++ failed: x.h:3: error: no omp.h")


def test_a_library_that_does_not_load_is_not_installed(machine, monkeypatch):
    machine.install("g++")
    monkeypatch.setattr(build, "LOAD", "raise SystemExit('error: it was linked to libomp')")
    data, warnings = machine.run()
    assert data["files"] == [build.REASON] and "error: it was linked to libomp" in warnings[0]


def test_headers_that_are_not_installed_are_named(machine, monkeypatch):
    def missing(*_):
        raise build.PackageNotFoundError("onednn-devel-cpu-gomp")

    machine.install("g++")
    monkeypatch.setattr(build, "_file", missing)
    assert_without(machine, "found no package onednn-devel-cpu-gomp; install it")


@pytest.mark.parametrize("version", ["standard", "editable"])
def test_a_read_only_source_makes_a_wheel_all_the_same(machine, monkeypatch, version):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    machine.install("g++")
    monkeypatch.setattr(build, "_replace", read_only)
    data, warnings = machine.run(version)
    if version == "standard":
        assert not warnings and list(data["force_include"].values()) == LIBRARIES
    else:
        assert warnings == [f"built without the native helper: {machine.native}: Read-only file system"]


def test_a_source_distribution_leaves_the_library_alone(machine):
    (machine.native / "lib").mkdir()
    (machine.native / "lib" / build.LIBRARY).write_text("in use")
    data, warnings = machine.run(target="sdist")
    assert not warnings and not data["artifacts"] and data["files"] == [build.LIBRARY]


@pytest.mark.long
def test_the_helper_compiles_in_a_folder_with_a_space(tmp_path):
    folder = tmp_path / "my source"
    shutil.copytree(multiply.HELPER_FOLDER, folder)
    library = tmp_path / build.LIBRARY
    build.compile_helper(folder / "helper.cpp", library)
    assert library.stat().st_size > 10**5
    assert (
        library.with_name(build.ONEDNN).stat().st_size
        < build._file("onednn-cpu-gomp", build.ONEDNN).stat().st_size
    )
