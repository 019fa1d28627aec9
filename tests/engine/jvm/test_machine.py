"""What is found on the machine: Java, memory, and the doctor's report of it."""

import os
import re
import sys

import psutil
import pytest
from command_line import assert_one_line_error, run_here
from refusals import message

from sysds_resnet.engine.jvm import folders, java, memory, multiply
from sysds_resnet.system.machine import memory_limit

JAVA_8 = ('openjdk version "1.8.0_452"', None)
JAVA_11 = ('openjdk version "11.0.27" 2025-04-15', "java.base@11.0.27\njdk.incubator.vector@11.0.27")
JAVA_17 = ('openjdk version "17.0.15" 2025-04-15', "java.base@17.0.15\njdk.incubator.vector@17.0.15")
JAVA_17_SMALL = ('openjdk version "17.0.15" 2025-04-15', "java.base@17.0.15\njava.logging@17.0.15")
JAVA_25 = ('openjdk version "25" 2025-09-16', "java.base@25\njdk.incubator.vector@25")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without Java, on which a test can install some."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    elsewhere = java.candidates
    monkeypatch.setattr(java, "candidates", lambda: [p for p in elsewhere() if p.is_relative_to(tmp_path)])

    def install(says, folder="bin"):
        """Put a script there that answers as a Java does."""
        version, modules = says
        path = tmp_path / folder / "java"
        path.parent.mkdir(parents=True, exist_ok=True)
        listing = f"echo '{modules}'" if modules else "echo 'Unrecognized option: --list-modules' >&2; exit 1"
        path.write_text(
            f"#!/bin/sh\nif [ \"$1\" = -version ]; then echo '{version}' >&2; else\n{listing}\nfi\n"
        )
        path.chmod(0o755)
        return path

    return install


# Java


def test_without_java_the_error_says_how_to_get_it(machine):
    text = message(java.find_java)
    assert text.startswith("Java: found none; expected Java 17 to 23 with the module jdk.incubator.vector; ")
    assert "openjdk-17-jre-headless" in text and "JAVA_HOME" in text


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (JAVA_8, "it is Java 8"),
        (JAVA_11, "it is Java 11"),
        (JAVA_25, "it is Java 25"),
        (JAVA_17_SMALL, "it lacks the module jdk.incubator.vector"),
        (("Segmentation fault", None), "it does not run"),
    ],
)
def test_a_java_that_does_not_do_is_named_with_the_reason(machine, says, problem):
    path = machine(says)
    assert f"found {path} ({problem}); expected Java 17 to 23" in message(java.find_java)


def test_a_java_that_cannot_be_executed_is_named(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    path = machine(JAVA_17)
    path.write_bytes(b"\x7fELF")
    text = message(java.find_java)
    assert f"{tmp_path}/gone/bin/java (it does not run), {path} (it does not run)" in text


def test_every_java_that_does_not_do_is_named(machine, monkeypatch, tmp_path):
    old = machine(JAVA_11)
    small = machine(JAVA_17_SMALL, "home/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    text = message(java.find_java)
    assert f"found {small} (it lacks the module jdk.incubator.vector), {old} (it is Java 11);" in text


def test_java_home_is_taken_before_path(machine, monkeypatch, tmp_path):
    on_path, at_home = machine(JAVA_17), machine(JAVA_17, "home/bin")
    assert java.find_java() == java.Java(on_path, 17, True)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert java.find_java().path == at_home


def test_a_java_home_that_does_not_do_is_passed_over(machine, monkeypatch, tmp_path):
    good = machine(JAVA_17)
    machine(JAVA_25, "home/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert java.find_java().path == good


# OpenBLAS


@pytest.mark.parametrize(
    "missing", ["libopenblas.so.0", pytest.param("libgomp.so.1", marks=pytest.mark.long)]
)
def test_openblas_counts_only_with_what_the_engine_links(monkeypatch, missing, capfd):
    def load(name):
        if name == missing:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(multiply.ctypes, "CDLL", load)
    assert multiply.find_openblas() is None
    outcome = run_here(capfd, "doctor", "--heap", "600m")
    assert re.search(r"OpenBLAS +not found: double .* in Java; apt-get install libopenblas0", outcome.out)
    assert re.search(r"engine +started: SystemDS 3.4.0, multiplies in FP", outcome.out)


# Memory


@pytest.mark.parametrize(
    ("text", "size"), [("1g", 2**30), ("600m", 600 * 2**20), (" 1G ", 2**30), ("700000k", 700000 * 2**10)]
)
def test_sizes_are_read_as_java_reads_them(text, size):
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "1.5g", "-1g", "1gb", "12 g"])
def test_what_is_no_size_is_named(text):
    assert message(memory.parse_size, text).startswith(f'heap: found "{text}", expected a size such as 12g')


def test_too_small_a_heap_is_refused():
    assert message(memory.parse_size, "10m").startswith("heap: found 10m, expected at least 512m")


def test_a_heap_larger_than_the_memory_is_refused():
    text = message(memory.parse_size, "900t")
    assert re.match(r"heap: found 900t, expected at most this machine's memory of \d+m; ask for less", text)


def test_the_default_heap_fits_the_machine():
    assert memory_limit() <= psutil.virtual_memory().total
    assert memory.default_heap() < memory_limit() or memory.default_heap() == memory.MIN_HEAP


# The doctor


def test_doctor_says_what_was_found_and_starts_the_engine(capfd):
    outcome = run_here(capfd, "doctor", "--heap", "600m")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines()]
    names = [name for name, _ in lines]
    for name in (
        "Python",
        "SystemDS",
        "Java",
        "OpenBLAS",
        "memory",
        "heap",
        "JVM",
        "threads",
        "images",
        "micro-batch",
        "GPU",
        "Spark",
        "engine",
    ):
        assert name in names
    found = dict(lines)
    assert found["Python"] == sys.version.split()[0]
    assert found["threads"].startswith(f"{len(os.sched_getaffinity(0))}, all cores")
    assert found["JVM"].startswith("its heap begins with what a run is expected to need")
    fits = re.fullmatch(
        r"ResNet-50: at most (\d+) at 32 x 32 and (\d+) at 224 x 224, which keep 45 % of the heap",
        found["micro-batch"],
    )
    # 600 MiB, less what the collector sets aside
    values = 0.45 * 600 * 2**20 / (4 if multiply.helper_problem() is None else 8) / 400
    assert 0.8 * values / 32**2 < int(fits[1]) < values / 32**2
    assert int(fits[2]) == max(1, int(fits[1]) * 32**2 // 224**2)
    assert found["heap"].startswith("0.6 GiB (asked for)")
    assert found["engine"].startswith("started: SystemDS 3.4.0, ")
    assert float(found["multiply"].split()[2]) < 3e-6
    assert found["libraries"].startswith("loaded from /")
    assert found["transfers"].startswith("through ")
    assert found["helper"].startswith("loaded") == (multiply.helper_problem() is None)
    assert "usable" in found["Spark"]


def test_doctor_without_java_says_how_to_get_it_and_fails(machine, capfd):
    path = machine(JAVA_25)
    outcome = run_here(capfd, "doctor")
    assert_one_line_error(outcome, f"Java: found {path} (it is Java 25)", "openjdk-17-jre-headless")
    assert f"{path}: not usable, since it is Java 25" in outcome.out
    assert "OpenBLAS" in outcome.out, "what else was found is still said"


def test_doctor_says_what_a_run_does_where_libraries_cannot_be_loaded(monkeypatch, capfd):
    """As in a container: not that the helper is usable because Python loads it."""
    monkeypatch.setattr(folders, "loading_problem", lambda folder: "mounted noexec")
    outcome = run_here(capfd, "doctor", "--heap", "600m")
    assert outcome.code == 0
    lines = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    why = "found no folder that libraries can be loaded from: /dev/shm (mounted noexec)"
    for name in ("libraries", "helper"):
        assert lines[name].startswith(why), lines
    assert f"multiplies in FP64 by plain Java ({why}" in lines["engine"]
    assert outcome.err.splitlines() == [
        f"warning: multiplies in {lines['engine'].split('multiplies in ')[1].rpartition(', heap')[0]}"
    ]


def test_doctor_with_too_small_a_heap_fails(capfd):
    assert_one_line_error(run_here(capfd, "doctor", "--heap", "10m"), "heap: found 10m")


def test_training_without_java_leaves_nothing(machine, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--dataset", "synthetic", "--out", tmp_path / "run")
    assert_one_line_error(outcome, "Java: found none")
    assert not (tmp_path / "run").exists()
