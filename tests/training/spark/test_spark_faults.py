"""What goes wrong around a run on a cluster ends it with one line, and leaves what --resume goes on from."""

import shutil
import signal

import pytest
import yaml
from command_line import assert_one_line_error, finish, run_here, start_process, wait_for
from spark_cluster import executors_left

from sysds_resnet.training import run as run_module

# the processes that tests start have the real networks, and so have those of this one
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("wide")]


@pytest.fixture(scope="module")
def stopped(cluster, tmp_path_factory):
    """A run on a prepared data set of two shards, stopped by Ctrl-C: its folder, and that of its data."""
    folder = tmp_path_factory.mktemp("run")
    data = ["--dataset", "synthetic", "--image-size", 64]
    prepared = finish(start_process("prepare", *data, "--shard-images", 130, "--out", folder / "data"), 100)
    assert prepared.code == 0, prepared
    options = ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    options += ["--dataset", folder / "data", "--image-size", 64, "--model", "resnet18", "--heap", "2g"]
    options += ["--batch-size", 16, "--micro-batch", 8, "--epochs", 1, "--save-steps", 1, "--out"]
    process = start_process("train", *options, folder / "run")
    metrics = folder / "run" / "metrics.jsonl"
    wait_for(process, lambda: metrics.exists() and '"step": 3,' in metrics.read_text())
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 0 and "continue with: " in outcome.out, outcome
    return folder / "run", folder / "data"


@pytest.fixture
def copied(stopped, tmp_path):
    """A copy of the stopped run, and its data."""
    run, data = stopped
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run", data


def checkpoints(run):
    files = (path for path in (run / "checkpoints").rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_shard_that_executors_cannot_read(cluster, copied, capfd, monkeypatch, damage):
    """The driver has seen a good one, as where it is one machine's disk that fails."""
    run, data = copied
    shard = data / "train-00001-images.npy"
    content, before = shard.read_bytes(), checkpoints(run)
    begin = run_module.train_on_cluster

    def train(*arguments):
        shard.unlink() if damage == "missing" else shard.write_bytes(content[:-1])
        return begin(*arguments)

    monkeypatch.setattr(run_module, "train_on_cluster", train)
    outcome = run_here(capfd, "train", "--resume", run)
    shard.write_bytes(content)
    found = 0 if damage == "missing" else len(content) - 1
    assert_one_line_error(
        outcome,
        shard,
        f"found {found} bytes, expected {len(content)} as in manifest.json",
        "restore the file",
    )
    assert checkpoints(run) == before
    assert executors_left(cluster.folder) == []


@pytest.fixture
def one_executor(cluster, stopped):
    """Options for ResNet-18 in FP64 on one executor that is not tried again."""
    options = ["--engine", "spark", "--master", cluster.url, "--executors", 1]
    options += ["--spark-conf", "spark.task.maxFailures=1", "--dataset", stopped[1], "--image-size", 64]
    return [*options, "--model", "resnet18", "--precision", "double", "--epochs", 1, "--heap", "3g"]


def test_executors_with_too_little_memory_for_a_micro_batch(one_executor, capfd, tmp_path):
    """Which is found out in a step, as the micro-batch is asked for; the run goes on with a smaller one."""
    options = ["--executor-memory", "1g", "--batch-size", 256, "--micro-batch", 256]
    outcome = run_here(capfd, "train", *one_executor, *options, "--out", tmp_path / "run")
    assert outcome.code == 0 and "JVM: found its heap of" in outcome.err, outcome
    assert "going on with micro_batch 128 in place of 256" in outcome.err
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["micro_batch"] <= 128


def test_executors_with_too_little_memory_for_an_image(one_executor, capfd, tmp_path):
    options = ["--executor-memory", "512m", "--batch-size", 1, "--micro-batch", 1]
    outcome = run_here(capfd, "train", *one_executor, *options, "--out", tmp_path / "run")
    assert "warning: micro_batch: found 1 image" in outcome.out
    assert_one_line_error(outcome, "JVM: found its heap of 0.5 GiB full", "more with --executor-memory")


def test_a_stopped_run_goes_on(copied, capfd):
    run, _ = copied
    outcome = run_here(capfd, "train", "--resume", run)
    assert outcome.code == 0 and "weights: " in outcome.out, outcome
