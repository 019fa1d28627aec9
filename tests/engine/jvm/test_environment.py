"""What of a process's environment the engine's JVM gets, and what changes there or is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_here

from sysds_resnet.engine.jvm import environment, java, multiply
from sysds_resnet.engine.jvm import process as jvm
from sysds_resnet.engine.jvm.process import command_line
from sysds_resnet.errors import UserError

GIB = 2**30
NEEDS_HELPER = pytest.mark.skipif(multiply.helper_problem() is not None, reason="no native helper")
# The engine on FP32 or bf16: a product, and a convolution as the network has it.
COMPUTE = """
import sys
import numpy as np
from sysds_resnet.engine import Engine
rng = np.random.default_rng(0)
a, b = rng.standard_normal((500, 60)), rng.standard_normal((60, 40))
x, f = rng.standard_normal((2 * 8 * 8, 16)), rng.standard_normal((9 * 16, 8))
program = '''
source("dml/layers/pixels/gather.dml") as gather
source("dml/layers/pixels/conv2d.dml") as conv2d
S = gather::windows(2, 8, 8, 3, 1, 1)
out = conv2d::windows_forward(X, F, S, 8, 8, 3, 1)
C = A %*% B
'''
with Engine(sys.argv[1], heap=512 * 2**20) as engine:
    results = engine.run(program, {"A": a, "B": b, "X": x, "F": f}, {"C": "matrix", "out": "matrix"})
    c, out = (engine.to_numpy(results[name]) for name in ("C", "out"))
    padded = np.pad(x.reshape(2, 8, 8, 16), [(0, 0), (1, 1), (1, 1), (0, 0)])
    right = sum(
        padded[:, r : r + 8, s : s + 8].reshape(-1, 16) @ f.reshape(3, 3, 16, 8)[r, s]
        for r in range(3) for s in range(3)
    )
    print(engine.multiply, f"heap {engine.heap / 2**20:.0f}", file=sys.stderr)
    print(np.abs(c - a @ b).max() / np.abs(c).max(), np.abs(out - right).max() / np.abs(right).max())
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [*environment.dropped(), *environment.JAVA_VARIABLES, *environment.INSTRUCTION_SETS]:
        monkeypatch.delenv(name, raising=False)


def compute(precision, **variables):
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, precision],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return [float(error) for error in done.stdout.split()], done.stderr.splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "OMP_THREAD_LIMIT",
        "OMP_STACKSIZE",
        "OMP_PLACES",
        "GOMP_CPU_AFFINITY",
        "KMP_AFFINITY",
        "ONEDNN_VERBOSE",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_PRIMITIVE_CACHE_CAPACITY",
        "OPENBLAS_CORETYPE",
        "MALLOC_PERTURB_",
    ],
)
def test_what_is_meant_for_other_programs_does_not_reach_the_jvm(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert name not in environment.jvm_environment({}) and environment.dropped() == [name]
    assert environment.jvm_environment({name: "ours"})[name] == "ours"
    assert os.environ[name] == "1", "this process keeps it"


def test_all_else_reaches_the_jvm(monkeypatch):
    for name in ("LD_PRELOAD_X", "TMPDIR", "MALLOC_ARENA_MAX", "http_proxy", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.setenv(name, "kept")
    assert {**os.environ, "A": "b"} == environment.jvm_environment({"A": "b"})


def test_threads_spin_for_a_moment_and_are_as_many_as_asked_for_or_may_be_used(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("GOMP_SPINCOUNT", "infinity")
    chosen = multiply.Multiply("double", None, False)
    _, additions = command_line(GIB, chosen, Path("/tmp"), threads=3)
    found = environment.jvm_environment(additions)
    assert "OMP_WAIT_POLICY" not in found
    assert found["GOMP_SPINCOUNT"] == environment.SPINNING["GOMP_SPINCOUNT"]
    assert found["OMP_NUM_THREADS"] == "3"
    monkeypatch.setattr(jvm, "cores", lambda: 5)  # as a container's limit may leave them
    _, additions = command_line(GIB, chosen, Path("/tmp"))
    found = environment.jvm_environment(additions)
    assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "5"


@pytest.mark.parametrize("name", environment.JAVA_VARIABLES)
@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("-Xmx1g", None),
        ("-XX:+UseG1GC -Dproxy=a", "-Dproxy=a"),
        ("-XX:MaxRAMPercentage=20 -XX:MaxHeapSize=9g -XX:NewRatio=3 -XX:+UseZGC", None),
        ("-Djava.io.tmpdir=/nowhere -javaagent:a.jar", "-javaagent:a.jar"),
        ("-XX:-UseTransparentHugePages", None),
        ("-Dname='a b' -XX:ActiveProcessorCount=2", "-Dname='a b' -XX:ActiveProcessorCount=2"),
        ("an 'unfinished quote", "an 'unfinished quote"),
    ],
)
def test_java_variables_say_nothing_of_what_the_engine_says(monkeypatch, name, value, left):
    command, _ = command_line(GIB, multiply.Multiply("double", None, False), Path("/tmp"))
    monkeypatch.setenv(name, value)
    assert environment.jvm_environment({}, command).get(name) == left


def test_a_java_that_does_not_run_because_of_a_variable_is_told_of(monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+NoSuchThing")
    with pytest.raises(UserError, match=r"JAVA_TOOL_OPTIONS is -XX:\+NoSuchThing: try without it$"):
        java.find_java()


@NEEDS_HELPER
def test_instructions_that_the_environment_forbids_are_said(monkeypatch):
    monkeypatch.setattr(multiply, "has_bf16", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert str(multiply.choose("bf16", "auto", own_jvm=True)) == (
        "FP32 by oneDNN (ONEDNN_MAX_CPU_ISA=AVX2 forbids bf16; unset it)"
    )
    assert str(multiply.choose("single", "auto", own_jvm=True)) == (
        "FP32 by oneDNN (ONEDNN_MAX_CPU_ISA=AVX2 holds oneDNN back; unset it)"
    )
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert multiply.choose("bf16", "auto", own_jvm=True).precision == "bf16"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "default")
    assert multiply.choose("bf16", "auto", own_jvm=True).note == ""


@pytest.mark.long
@NEEDS_HELPER
def test_an_environment_full_of_settings_costs_neither_precision_nor_heap():
    errors, said = compute(
        "single",
        OMP_THREAD_LIMIT="1",
        OMP_STACKSIZE="16k",
        OMP_MAX_ACTIVE_LEVELS="0",
        OMP_PROC_BIND="true",
        GOMP_CPU_AFFINITY="0",
        ONEDNN_DEFAULT_FPMATH_MODE="BF16",
        ONEDNN_VERBOSE="2",
        OPENBLAS_CORETYPE="nonsense",
        JAVA_TOOL_OPTIONS="-Xmx100m -XX:+UseG1GC",
        _JAVA_OPTIONS="-Xmx64m -Djava.io.tmpdir=/nowhere",
        CLASSPATH="/nowhere",
    )
    assert len(said) == 1 and said[0].startswith("FP32 by oneDNN heap ") and int(said[0].split()[-1]) > 400
    assert max(errors) < 3e-6


@pytest.mark.long
@NEEDS_HELPER
@pytest.mark.parametrize("precision", ["single", "bf16"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_DYNAMIC", "true"),
        ("OMP_NUM_THREADS", "2,2"),
        ("OMP_PLACES", "{0}"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41"),
        ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0"),
        ("OPENBLAS_NUM_THREADS", "1"),
        ("MALLOC_PERTURB_", "165"),
        ("MALLOC_ARENA_MAX", "1"),
        ("LD_PRELOAD", "/nowhere.so"),
        ("JDK_JAVA_OPTIONS", "-Xmx64m"),
        ("TMPDIR", "/nowhere"),
    ],
)
def test_each_setting_leaves_the_engine_right(name, value, precision):
    errors, said = compute(precision, **{name: value})
    assert max(errors) < 2e-2, said


def test_the_doctor_names_what_the_jvm_does_not_get(monkeypatch, capfd):
    monkeypatch.setenv("OMP_DYNAMIC", "true")
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx64m")
    outcome = run_here(capfd, "doctor", "--heap", "600m")
    assert outcome.code == 0
    assert "environment the JVM does not get OMP_DYNAMIC; _JAVA_OPTIONS is -Xmx64m" in outcome.out
    assert "heap 0.6 GiB" in outcome.out or "heap 0.5 GiB" in outcome.out
