"""Steps on a real Spark cluster of two executors against the same steps beside Python."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from spark_cluster import cluster_processes, executors, executors_left, spark_cluster
from spark_images import BATCH, MICRO_BATCH, make_dataset

from sysds_resnet import ResNet
from sysds_resnet.batches.readers import Readers
from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.images import open_dataset
from sysds_resnet.training.loop import evaluate_state
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.steps import spark_evaluate, spark_steps
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import local_steps

GIB = 2**30
SETTINGS = TrainSettings(
    model="resnet18", batch_size=BATCH, micro_batch=MICRO_BATCH, base_lr=1, mixup=0.2, label_smoothing=0.1
)


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


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
            velocities = state.model.network.from_engine(*state.moments, trained_only=True)
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
    """Addresses on which something of the run of `stepped`, or of its cluster, has listened."""
    return set()


@pytest.fixture(scope="module")
def stepped(cluster, dataset, listening):
    """A step, and an evaluation, by two executors."""

    def look(step):
        driver = psutil.Process().children(recursive=True)
        for process in [psutil.Process(), *driver, *cluster_processes(cluster.folder)]:
            listening.update(addresses(process))

    with engine_of(cluster) as engine:
        return train(engine, dataset, spark_steps, 1, look)


@pytest.fixture(scope="module")
def undisturbed(cluster, dataset):
    """Three steps, and an evaluation, by two executors."""
    with engine_of(cluster) as engine:
        return train(engine, dataset, spark_steps, 3)


def addresses(process):
    try:
        found = process.net_connections("inet")
    except psutil.Error:  # it has ended
        return set()
    return {(process.name(), connection.laddr.ip) for connection in found if connection.status == "LISTEN"}


def difference(found, expected):
    """The largest, relative to the largest value of the same name."""
    return max(np.abs(found[name] - array).max() / np.abs(array).max() for name, array in expected.items())


@pytest.mark.long
def test_two_executors_make_the_same_step_as_one_machine(stepped, engine, dataset):
    assert difference(stepped[0], train(engine, dataset, here, 1)[0]) < 1e-12


@pytest.mark.long
def test_two_executors_make_the_same_steps_as_one_machine(undisturbed, engine, dataset):
    expected = train(engine, dataset, here, 3)
    assert difference(undisturbed[0], expected[0]) < 1e-12
    assert difference(undisturbed[2], expected[2]) < 1e-9, "rounding grows from step to step"


@pytest.mark.long
@pytest.mark.usefixtures("wide")
def test_single_precision_travels_in_fp32(cluster, engine_single, dataset):
    """And the gradients of what is not trained, here the stem, not at all.

    The real networks have so many channels that no rounding of one weighs much.
    """
    with engine_of(cluster, precision="single") as own:
        assert own.fp32 == engine_single.fp32
        [found] = train(own, dataset, spark_steps, 1, frozen=1)
    [expected] = train(engine_single, dataset, here, 1, frozen=1)
    for name, array in expected.items():
        scale = np.abs(array).max()
        # a ReLU may fall the other way
        assert np.abs(found[name] - array).max() <= (2e-2 if "velocity" in name else 2e-4) * scale, name
        assert scale > 0 or name.startswith(("conv1", "bn1"))


@pytest.mark.long
def test_nothing_of_a_cluster_on_one_machine_listens_but_on_loopback(stepped, listening):
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
def test_gradients_may_be_added_in_a_tree(cluster, engine, dataset):
    """Of four workers on two executors, in two slices, whose sums of two are added once more."""
    with engine_of(cluster) as own:
        own.spark.cluster = replace(own.spark.cluster, cores=2)
        found = train(own, dataset, partial(spark_steps, fan_in=2), 1)
    assert difference(found[0], train(engine, dataset, here, 1)[0]) < 1e-12


@pytest.mark.long
def test_nothing_is_left_behind(stepped, cluster):
    assert executors_left(cluster.folder) == []
    assert list((cluster.folder / "scratch").iterdir()) == []


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
