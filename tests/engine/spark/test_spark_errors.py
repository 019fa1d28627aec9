"""What is wrong with a cluster is said in one line, before or after it was asked for something."""

import socket

import pytest
from command_line import assert_one_line_error, run_here

from sysds_resnet.engine.spark import checks as spark_checks
from sysds_resnet.engine.spark.checks import SPARK_VERSION
from sysds_resnet.engine.spark.cluster import local_workers
from sysds_resnet.engine.spark.errors import explain
from sysds_resnet.errors import OutOfMemory
from sysds_resnet.images import BUILT_IN
from sysds_resnet.preparing.settings import PrepareSettings
from sysds_resnet.settings.command_line import build
from sysds_resnet.system.command_lines import install_command

SPARK = ["--engine", "spark"]
LOST = "Job aborted due to stage failure: Task 0 in stage 4.0 failed 4 times, most recent failure: "
LOST += "Lost task 0.3 in stage 4.0 (TID 12) (10.0.0.7 executor 1): "


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_master_that_does_not_listen(capfd, tmp_path):
    url = f"spark://127.0.0.1:{free_port()}"
    outcome = run_here(capfd, "train", *SPARK, "--master", url, "--executors", 2, "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"master: found none at {url} (connection refused)", "check --master")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("version", ["3.4.4", "4.0.1"])
def test_another_version_of_spark(capfd, tmp_path, monkeypatch, version):
    monkeypatch.setattr(spark_checks, "version", lambda name: version)
    outcome = run_here(capfd, "train", *SPARK, "--master", "local[2]", "--out", tmp_path / "run")
    assert_one_line_error(
        outcome, f"pyspark: found {version}, expected 3.5.0 to", SPARK_VERSION, install_command("spark")
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--master", "local[2]"], "master without engine spark"),
        ([*SPARK, "--master", "yarn"], "executors: found none for yarn, expected a number; add --executors"),
        ([*SPARK, "--gpus", "2"], "gpus 2 with engine spark, expected device cpu or gpu"),
        ([*SPARK, "--device", "cuda:1"], "device cuda:1 with engine spark, expected device cpu or gpu"),
        (
            [*SPARK, "--master", "local", "--executor-memory", "4"],
            "executor_memory: found 4, expected at least",
        ),
        ([*SPARK, "--spark-conf", "a"], "expected NAME=VALUE"),
        ([*SPARK, "--profile", "3"], "profile with engine spark"),
    ],
)
def test_settings_that_do_not_fit(capfd, tmp_path, options, found):
    outcome = run_here(capfd, "train", *options, "--out", tmp_path / "run")
    assert_one_line_error(outcome, found)


@pytest.mark.parametrize(
    ("master", "workers"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[2,4]", 2),
        ("spark://local[2]", None),
        ("local-cluster[2,1,9]", None),
    ],
)
def test_how_many_tasks_the_driver_runs_itself(master, workers):
    assert local_workers(master) == workers


@pytest.mark.parametrize(
    "message",
    [
        LOST
        + "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: Command exited "
        "with code 3",
        LOST + "java.lang.OutOfMemoryError: Java heap space\n\tat a.B.c(B.java:1)",
    ],
)
def test_executors_out_of_memory(message):
    error = explain(message, 2**30)
    assert isinstance(error, OutOfMemory) and str(error).startswith("executors: found heaps of 1024m full")


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            LOST
            + "org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n  File x\n"
            "sysds_resnet.errors.UserError: image a.jpg: found nothing: restore it\n\n\tat org.apache.X",
            "image a.jpg: found nothing: restore it",
        ),
        (
            LOST + 'java.io.IOException: Cannot run program "/x/python": error=2, No such file or directory',
            "PYSPARK_PYTHON: found no /x/python where executors run",
        ),
        (
            LOST + "java.io.InvalidClassException: a.B; local class incompatible: stream classdesc",
            "another version on the cluster than pyspark's",
        ),
        (LOST + "java.io.IOException: No space left on device\n\tat a", "executors: found no space left"),
        (LOST + "X: y\n\tat a.B\nCaused by: a.E: first\n\tat c\nCaused by: b.E: last\n\tat d", "(b.E: last)"),
        (LOST + "a.E: alone\n\tat b", "(TID 12) (10.0.0.7 executor 1): a.E: alone"),
        (
            "org.apache.spark.scheduler.BarrierJobSlotsNumberCheckFailed: [SPARK-24819]: Barrier execution "
            "mode does not allow run a barrier stage that requires more slots than the total number of slots",
            "executors: found fewer free cores than the run's processes need at the same time",
        ),
    ],
)
def test_jobs_that_failed(message, found):
    error = explain(message, 2**30)
    assert not isinstance(error, OutOfMemory) and found in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("engine", ["jvm", "spark"])
def test_executors_open_data_sets_by_whole_paths(tmp_path, monkeypatch, engine):
    """They run in folders of their own."""
    monkeypatch.chdir(tmp_path)

    def located(dataset):
        settings = build(PrepareSettings, {"engine": engine, "dataset": dataset, "out": "prepared"})
        return settings.located(settings.engine == "spark")

    assert located("data") == (str(tmp_path / "data") if engine == "spark" else "data")
    for name in (*BUILT_IN, "s3a://bucket/data", str(tmp_path)):
        assert located(name) == name
