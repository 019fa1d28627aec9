"""Each benchmark runs, at its smallest: a change of what it calls must not break it unseen."""

import json
import os
import shutil
import statistics
import subprocess
import sys

import pytest
import software_gpus
import throughput
from command_line import ROOT

from sysds_resnet.engine.jvm import multiply

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ON_GPU = ["--batches", 2, "--steps", 1, "--warmup", 1]
SMALLEST = {
    "checkpoint": ["--batch", 2, "--size", 32, "--steps", 2, "--rounds", 1],
    "collective": ["--sizes", 2, "--most", 0, "--rounds", 1],
    "convergence": [
        *["--datasets", "digits", "--optimizers", "lars", "--seeds", 41, "--control-seeds", 41],
        *["--epochs", 1, "--heap", "3g"],
    ],
    "digits": ["--precisions", "single", "--seeds", 41, "--epochs", 1],
    "gpu": ["--only", "parity", "single", "operators tf32", *ON_GPU],
    "gpu_host": ["--batch", 2, "--rounds", 1],
    "loader": ["--rounds", 1],
    "scaling": [
        *["--sizes", 32, "--counts", 1, "--images", 4, "--micro-batch", 2, "--steps", 1, "--rounds", 1],
        *["--heap", "2g"],
    ],
    "scaling_model": [],
    "overlap": ["--gbits", 10, "--wires", "bf16", "--size", 32, "--images", 2, "--rounds", 1],
    "versions": [
        *["--other", ROOT, "--pairs", 1, "--steps", 2, "--warmup", 1, "--batch", 2, "--size", 32],
    ],
}
OTHERS = ("defaults", "throughput")  # with tests of their own
PARTS = (
    "report",
    "throughput_peers",
    "convergence_pytorch",
    "processes",
    "emulated_network",
)  # which the others import or start
CASES = [
    (peer, task)
    for peer in throughput.PEERS
    for task in ("train", "infer")
    if (peer, task) != ("overhead", "infer")  # which is a training step
    and (peer != "PyTorch bf16 channels_last" or multiply.has_bf16())  # which takes minutes without
]


@pytest.fixture(scope="module")
def on_software_gpus(tmp_path_factory):
    """The environment of processes that have one, and what tells its name."""
    folder = tmp_path_factory.mktemp("gpus")
    software_gpus.build(folder)
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho software GPU\n")
    (folder / "nvidia-smi").chmod(0o755)
    return {"LD_LIBRARY_PATH": str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def run(name, *arguments, **environment):
    command = [sys.executable, f"benchmarks/{name}.py", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_benchmark_is_here():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == {*SMALLEST, *OTHERS, *PARTS}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_writes_its_results(name, request, tmp_path):
    if name == "overlap" and not (os.geteuid() == 0 and shutil.which("tc")):
        pytest.skip("emulating a network needs root and iproute2")
    out = tmp_path / "results.json"
    environment = request.getfixturevalue("on_software_gpus") if name == "gpu" else {}
    run(name, *SMALLEST[name], "--out", out, **environment)
    result = json.loads(out.read_text())
    assert result["command"].startswith(f"python benchmarks/{name}.py ")
    if name == "gpu":
        assert None not in result["parts"].values() and len(result["parts"]) == 3
        assert statistics.median(result["parts"]["parity"]["single"]["gradient"]) < 1e-4


def test_defaults_are_tried_on_photos(tmp_path):
    out = tmp_path / "results.json"
    flags = ["--epochs", 1, "--image-size", 32, "--heap", "2g"]
    run("defaults", "--data", tmp_path, "--only", "photos", "--out", out, "--", *flags)
    found = json.loads(out.read_text())["photos"]
    assert found["command"].startswith("python benchmarks/defaults.py ")


@pytest.mark.parametrize(("peer", "task"), CASES, ids=str)
def test_throughput_measures_each_peer(peer, task):
    batch = 64 if peer == "accumulated" else 2  # in micro-batches of 32
    out = run("throughput", "--one", json.dumps([peer, task, batch, 32, 1, 2]))
    measured = json.loads(out.splitlines()[-1])
    assert len(measured["seconds"]) == 2 and min(measured["seconds"]) > 0 < measured["first_step_s"]
