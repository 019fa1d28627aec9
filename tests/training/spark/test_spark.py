"""Steps on a real Spark cluster of two executors against the same steps beside Python."""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
import psutil
import pytest
from command_line import (
    assert_gone,
    assert_one_line_error,
    finish,
    jvms_of,
    run_here,
    start_process,
    wait_for,
)
from scoring_reference import write_images, write_networks
from spark_cluster import cluster_processes, executors, executors_left, spark_cluster
from training_runs import assert_same_end

from sysds_resnet import ResNet
from sysds_resnet.batches.order import BatchOrder, sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.errors import UserError
from sysds_resnet.images import ArrayDataset, open_dataset
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.images.sources.shards import MANIFEST, FileRecord, Manifest
from sysds_resnet.training.loop import evaluate_state
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark import steps as spark_steps_module
from sysds_resnet.training.spark.images import micro_batches, write_micro_batch
from sysds_resnet.training.spark.steps import spark_evaluate, spark_steps
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import local_steps

CLASSES, IMAGES, BATCH, MICRO_BATCH = 5, 24, 8, 2
GIB = 2**30
MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])
SETTINGS = TrainSettings(
    model="resnet18", batch_size=BATCH, micro_batch=MICRO_BATCH, base_lr=1, mixup=0.2, label_smoothing=0.1
)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 40, 3), dtype=np.uint8)
    return ArrayDataset(images, rng.integers(0, CLASSES, IMAGES), list("abcde"), mean=MEAN, std=STD)


@contextmanager
def engine_of(cluster, executors=2, precision="double"):
    scratch = str(cluster.folder / "scratch")
    spark = Cluster(cluster.url, executors, scratch, memory=GIB)
    with Engine(precision, 2 * GIB, cluster=spark) as engine:
        yield engine


def train(engine, dataset, steps_of, steps, during=lambda step: None, settings=SETTINGS, frozen=0):
    """So many steps: after each of them, everything that it changed, by name, and at last an evaluation."""
    model = ResNet(18, dataset.num_classes, engine=engine, mean=dataset.mean, std=dataset.std)
    state = State.fresh(model)
    optimizer = settings.make_optimizer(len(dataset) // settings.batch_size, frozen)
    found = []
    with steps_of(settings, state, dataset) as source:
        for step in range(steps):
            batch = next(source)
            during(step)
            loss = source.update(batch, optimizer).loss
            velocities = state.model.network.from_engine(state.velocities, trained_only=True)
            changed = state.model.state_dict() | {f"{name} velocity": v for name, v in velocities.items()}
            found.append(changed | {"loss": np.array(loss)})
    if engine.spark:
        scores = spark_evaluate(settings, state, dataset)
    else:
        with Readers([dataset], 1) as readers:
            scores = evaluate_state(state, dataset, readers)
    found[-1] |= {f"validation {name}": np.array(score) for name, score in scores.items()}
    return found


@contextmanager
def here(settings, state, dataset):
    with Readers([dataset], 1) as readers, local_steps(settings, state, dataset, readers) as steps:
        yield steps


@pytest.fixture(scope="module")
def listening():
    """Addresses on which something of the run of `undisturbed`, or of its cluster, has listened."""
    return set()


@pytest.fixture(scope="module")
def undisturbed(cluster, dataset, listening):
    def look(step):
        driver = psutil.Process().children(recursive=True)
        for process in [psutil.Process(), *driver, *cluster_processes(cluster.folder)]:
            listening.update(addresses(process))

    with engine_of(cluster) as engine:
        return train(engine, dataset, spark_steps, 3, look)


def addresses(process):
    try:
        found = process.net_connections("inet")
    except psutil.Error:  # it has ended
        return set()
    return {(process.name(), connection.laddr.ip) for connection in found if connection.status == "LISTEN"}


def difference(found, expected):
    """The largest, relative to the largest value of the same name."""
    return max(np.abs(found[name] - array).max() / np.abs(array).max() for name, array in expected.items())


def test_two_executors_make_the_same_steps_as_one_machine(undisturbed, engine, dataset):
    expected = train(engine, dataset, here, 3)
    assert difference(undisturbed[0], expected[0]) < 1e-12
    assert difference(undisturbed[2], expected[2]) < 1e-9, "rounding grows from step to step"


@pytest.mark.long
def test_single_precision_travels_in_fp32(cluster, engine_single, dataset):
    """And the gradients of what is not trained, here the stem, not at all."""
    with engine_of(cluster, precision="single") as own:
        assert own.fp32 == engine_single.fp32
        [found] = train(own, dataset, spark_steps, 1, frozen=1)
    [expected] = train(engine_single, dataset, here, 1, frozen=1)
    for name, array in expected.items():
        scale = np.abs(array).max()
        # a ReLU may fall the other way
        assert np.abs(found[name] - array).max() <= (2e-2 if "velocity" in name else 2e-4) * scale, name
        assert scale > 0 or name.startswith(("conv1", "bn1"))


def test_nothing_of_a_cluster_on_one_machine_listens_but_on_loopback(undisturbed, listening):
    assert sum(name == "java" for name, _ in listening) and {name for name, _ in listening} > {"java"}
    assert {ip.removeprefix("::ffff:") for _, ip in listening} <= {"127.0.0.1", "::1"}


def kill_executor(folder):
    executors(folder)[0].kill()


def kill_worker(folder):
    """The process that starts executors; its own goes on until it sees that it is alone."""
    os.kill(int((folder / "worker1.pid").read_text()), signal.SIGKILL)


def pause_executor(folder):
    process = executors(folder)[0]
    process.suspend()
    time.sleep(8)
    process.resume()


def check_disturbed(undisturbed, cluster, dataset, disturb):
    """Three steps, in the second of which something happens to the cluster: the same bits."""
    disturbed = []

    def act():
        time.sleep(0.3)
        disturb(cluster.folder)
        disturbed.append(disturb)

    def during(step):
        if step == 1:
            threading.Thread(target=act).start()

    with engine_of(cluster) as engine:
        found = train(engine, dataset, spark_steps, 3, during)
    assert disturbed
    for one, other in zip(found, undisturbed, strict=True):
        assert all(np.array_equal(one[name], array) for name, array in other.items())


@pytest.mark.long
@pytest.mark.parametrize("disturb", [kill_executor, pause_executor])
def test_a_disturbed_executor_changes_nothing(undisturbed, cluster, dataset, disturb):
    check_disturbed(undisturbed, cluster, dataset, disturb)


@pytest.mark.long
def test_a_lost_worker_changes_nothing(undisturbed, dataset, tmp_path):
    with spark_cluster(tmp_path) as url:  # of its own: nobody replaces the worker
        check_disturbed(undisturbed, SimpleNamespace(folder=tmp_path, url=url), dataset, kill_worker)


@pytest.mark.long
def test_gradients_may_be_added_in_a_tree(cluster, engine, dataset, monkeypatch):
    """Of four workers on two executors, in two slices, whose sums of two are added once more."""
    monkeypatch.setattr(spark_steps_module, "FAN_IN", 2)
    with engine_of(cluster) as own:
        own.spark.cluster = replace(own.spark.cluster, cores=2)
        found = train(own, dataset, spark_steps, 1)
    assert difference(found[0], train(engine, dataset, here, 1)[0]) < 1e-12


def test_nothing_is_left_behind(undisturbed, cluster):
    assert executors_left(cluster.folder) == []
    assert list((cluster.folder / "scratch").iterdir()) == []


@pytest.mark.parametrize("mixing", [Mixing(), Mixing(mixup=0.4), Mixing(cutmix=1.0)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_executors_read_what_one_machine_reads(engine, dataset, tmp_path, mixing, repeats):
    order = np.random.default_rng(1).permutation(IMAGES)
    options = dict(drop_last=True, repeats=repeats, epochs=1)
    batches = BatchOrder(IMAGES, lambda epoch: order, BATCH, **options)
    known = SimpleNamespace(value=dataset)  # in the place of a broadcast
    with BatchStream(dataset, lambda epoch: order, BATCH, **options) as stream:
        for samples, batch in zip(batches, stream, strict=True):
            images, labels = batch.images, batch.labels
            if mixing:
                images, labels = mixing.apply(images, labels, 7, batch.epoch, batch.step)
            tasks = micro_batches(samples, MICRO_BATCH, str(tmp_path / str(batch.step)))
            written = [write_micro_batch(known, MICRO_BATCH, True, mixing, 7, task) for task in tasks]
            assert [part.errors for part in written] == [[]] * len(tasks)
            rows = read_matrices(engine, [task.path for task in tasks])
            assert np.array_equal(rows.reshape(BATCH, 3, 32, 40).transpose(0, 2, 3, 1), images)
            expected = mixed_columns(labels) if mixing else labels.reshape(BATCH, 1) + 1
            assert np.array_equal(np.concatenate([part.y for part in written]), expected)


def mixed_columns(labels):
    return np.column_stack([labels.own + 1, labels.other + 1, labels.share])


def read_matrices(engine, paths):
    handles = [engine.matrices.open(path, MICRO_BATCH, 3 * 32 * 40) for path in paths]
    return np.concatenate(list(map(engine.to_numpy, engine.list_items(engine.make_list(handles)))))


class Damaged:
    """A data set of which some images cannot be read."""

    def __init__(self, dataset, bad):
        self._dataset, self._bad = dataset, bad

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def __len__(self):
        return len(self._dataset)

    def image(self, index, epoch):
        if index in self._bad:
            raise UserError("image broken.jpg: found no image")
        return self._dataset.image(index, epoch)


def test_micro_batches_of_an_evaluation_are_filled_up(engine, dataset, tmp_path):
    """Images that cannot be read are left out, and there is nothing in the place of those after the last."""
    order = BatchOrder(7, sequential_order(7), 7, drop_last=False, epochs=1)
    tasks = micro_batches(next(order), MICRO_BATCH, str(tmp_path))
    known = SimpleNamespace(value=Damaged(dataset, [2]))
    written = [write_micro_batch(known, MICRO_BATCH, False, Mixing(), 0, task) for task in tasks]
    rows = read_matrices(engine, [task.path for task in tasks])
    images = np.stack([dataset.image(index, 0) for index in range(7)])
    expected = np.zeros((8, 32, 40, 3))
    expected[[0, 1, 2, 4, 5, 6]] = images[[0, 1, 3, 4, 5, 6]]
    assert np.array_equal(rows.reshape(8, 3, 32, 40).transpose(0, 2, 3, 1), expected)
    y = np.concatenate([part.y for part in written])[:, 0]
    assert y[[3, 7]].tolist() == [0, 0]
    assert np.array_equal(y[[0, 1, 2, 4, 5, 6]], dataset.labels[[0, 1, 3, 4, 5, 6]] + 1)
    assert [error for part in written for error in part.errors] == [(2, "image broken.jpg: found no image")]


def test_a_data_set_without_an_image_that_can_be_read(dataset, tmp_path):
    order = BatchOrder(IMAGES, sequential_order(IMAGES), BATCH, drop_last=True, epochs=1)
    task = micro_batches(next(order), MICRO_BATCH, str(tmp_path))[0]
    known = SimpleNamespace(value=Damaged(dataset, range(IMAGES)))
    with pytest.raises(
        UserError, match=r"none that can be read \(the first: image broken.jpg: found no image"
    ):
        write_micro_batch(known, MICRO_BATCH, True, Mixing(), 0, task)


@pytest.mark.long
def test_the_cluster_prepares_what_one_machine_prepares(cluster, capfd, folder):
    data = ["--dataset", "synthetic", "--image-size", 32, "--shard-images", 50, "--blocks", 40]
    options = ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    for out, more in (("here", []), ("cluster", options)):
        assert run_here(capfd, "prepare", *data, *more, "--out", folder / out).code == 0
    here, there = (Manifest.read(folder / out / MANIFEST) for out in ("here", "cluster"))
    assert there == here
    assert {name: FileRecord.of(folder / "cluster" / name) for name in there.files} == here.files


@pytest.mark.long
def test_the_cluster_predicts_what_one_machine_predicts(cluster, shared, capfd, folder):
    write_networks(folder, 18)
    images = write_images(folder / "images", 5)
    options = ["--weights", folder / "18.safetensors", "--tta", "flip", "--precision", "double", "--top", 3]
    run_here(capfd, "predict", *options, "--input", folder / "images", "--out", folder / "here.parquet")
    expected = pd.read_parquet(folder / "here.parquet")
    (folder / "images" / "broken.png").write_bytes(b"no image")
    options += ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    options += ["--input", folder / "images", "--out", folder / "there"]
    outcome = run_here(capfd, "predict", *options)
    assert_one_line_error(outcome, "broken.png")
    outcome = run_here(capfd, "predict", *options, "--on-error", "skip", "--max-bad", 0.5)
    assert outcome.code == 0 and f"{len(images)} images: " in outcome.out, outcome
    found = pd.read_parquet(folder / "there")
    found["path"] = [Path(url2pathname(urlsplit(path).path)).as_posix() for path in found["path"]]
    found = found.sort_values("path").set_index("path")
    assert found["error"].notna().to_dict() == {path: path.endswith("broken.png") for path in found.index}
    good = found[found["error"].isna()].drop(columns="error")
    pd.testing.assert_frame_equal(good, expected.set_index("path"), check_dtype=False, rtol=1e-9)


@pytest.mark.long
def test_the_cluster_evaluates_what_one_machine_evaluates(cluster, shared, capfd, folder):
    write_networks(folder, 18)
    write_images(folder / "data" / "train", 7)
    images = write_images(folder / "data" / "val", 150)  # more than a task has
    (images[3]).write_bytes(b"no image")
    options = ["--weights", folder / "18.safetensors", "--dataset", folder / "data", "--tta", "flip"]
    options += ["--precision", "double", "--on-error", "skip", "--max-bad", 0.1]
    run_here(capfd, "evaluate", *options, "--out", folder / "here")
    options += ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    outcome = run_here(capfd, "evaluate", *options, "--out", folder / "there")
    assert outcome.code == 0 and "149 images: loss " in outcome.out, outcome
    assert "1 images cannot be read and were left out" in outcome.out
    for name in ("classes.csv", "confusion.csv", "bad_images.csv"):
        assert (folder / "there" / name).read_text() == (folder / "here" / name).read_text()
    here, there = (json.loads((folder / out / "scores.json").read_text()) for out in ("here", "there"))
    assert there == {**here, "loss": pytest.approx(here["loss"], rel=1e-9)}


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ten_steps_on_digits_are_those_of_one_machine(engine, tmp_path, count):
    """A batch in four micro-batches, by one, two and four executors."""
    digits = open_dataset("digits", "train")
    settings = SETTINGS.model_copy(update={"batch_size": 64, "micro_batch": 16, "base_lr": 10, "mixup": 0.0})
    with (
        spark_cluster(tmp_path, workers=count) as url,
        engine_of(SimpleNamespace(folder=tmp_path, url=url), count) as own,
    ):
        found = train(own, digits, spark_steps, 10, settings=settings)
    expected = train(engine, digits, here, 10, settings=settings)
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < 1e-12


@pytest.mark.long
def test_a_killed_driver_is_resumed_exactly(cluster, capfd, folder):
    data = ["--dataset", "synthetic", "--num-images", 64, "--num-classes", 4, "--image-size", 32]
    options = [*data, "--model", "resnet18", "--batch-size", 8, "--micro-batch", 4, "--precision", "double"]
    options += ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    options += ["--heap", "2g", "--epochs", 1, "--save-steps", 2, "--base-lr", 1]
    assert finish(start_process("train", *options, "--out", folder / "whole"), 300).code == 0
    killed = start_process("train", *options, "--out", folder / "killed")
    metrics = folder / "killed" / "metrics.jsonl"
    wait_for(killed, lambda: metrics.exists() and '"step": 5,' in metrics.read_text())
    jvms = jvms_of(killed)
    killed.kill()
    finish(killed)
    for jvm in jvms:
        assert_gone(jvm)
    outcome = finish(start_process("train", "--resume", folder / "killed"), 300)
    assert outcome.code == 0 and "from step 4" in outcome.out, outcome
    assert_same_end(folder / "killed", folder / "whole")
    assert not any((folder / "killed" / "scratch").iterdir())
