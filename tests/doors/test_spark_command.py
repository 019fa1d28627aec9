"""Lines for spark-submit, and that what they run does the same as from Python and on one machine."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOT, Outcome, assert_one_line_error, run_here, run_systemds
from safetensors.numpy import load_file
from spark_cluster import executors_left

from sysds_resnet import prepare

MASTER = ["--master", "spark://127.0.0.1:7077", "--executors", 3]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set in blocks of ten images."""
    folder = tmp_path_factory.mktemp("data") / "prepared"
    flags = ["--dataset", "digits", "--matrices", "--blocks", "10"]
    assert prepare.main([*flags, "--out", str(folder)]) == 0
    return folder


def line_of(capfd, name, *options):
    """The words of a line."""
    outcome = run_here(capfd, "spark_command", name, *options)
    assert outcome.code == 0, outcome
    return shlex.split(outcome.out)


def confs(words):
    """Spark's settings in a line."""
    return dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--conf")


def test_the_line_for_dml_has_what_driver_and_executors_need(capfd, prepared, tmp_path):
    options = [*MASTER, "--executor-cores", 2, "--executor-memory", "3g", "--heap", "2g", "--blas", "none"]
    more = ["--spark-conf", "spark.eventLog.enabled=true", "--arguments", "depth=18", "batch_size=50"]
    words = line_of(
        capfd, "dml", *options, *more, "--data", prepared, "--blocks", 10, "--out", tmp_path / "w"
    )
    assert words[words.index("--driver-memory") + 1] == "2048m"
    assert words[words.index("--master") + 1] == MASTER[1]
    assert "--add-opens=java.base/java.nio=ALL-UNNAMED" in words[words.index("--driver-java-options") + 1]
    found = confs(words)
    assert found["spark.executor.memory"] == "3072m" and found["spark.executor.cores"] == "2"
    assert found["spark.cores.max"] == "6" and found["spark.eventLog.enabled"] == "true"
    assert "--add-opens=java.base/java.nio=ALL-UNNAMED" in found["spark.executor.extraJavaOptions"]
    arguments = dict(word.split("=", 1) for word in words[words.index("-nvargs") + 1 :])
    assert arguments["workers"] == "6" and arguments["depth"] == "18" and arguments["num_classes"] == "10"
    assert Path(arguments["scratch"]).is_relative_to(tmp_path)
    for name in ("X", "Y", "X_val", "Y_val", "mean_std"):
        assert Path(f"{arguments[name]}.mtd").is_file()
    config = Path(words[words.index("-config") + 1]).read_text()
    assert f"<sysds.scratch>{arguments['scratch']}/engine</sysds.scratch>" in config


def test_the_line_that_prepare_prints_is_one_that_works(capfd, prepared):
    flags = ["--dataset", "digits", "--matrices", "--blocks", 10, "--out", prepared]
    printed = run_here(capfd, "prepare", *flags).out.splitlines()[-1]
    words = shlex.split(printed.replace(" URL ", " spark://127.0.0.1:7077 ").replace(" K ", " 3 "))
    assert words[1:4] == ["-m", "sysds_resnet.spark_command", "dml"]
    assert "org.codehaus.janino.SimpleCompiler" in line_of(capfd, *words[3:])


def test_lines_do_not_start_what_notebooks_left(capfd, monkeypatch):
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON", "jupyter")
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON_OPTS", "lab")
    words = line_of(capfd, "train", *MASTER)
    variables = words[: next(i for i, word in enumerate(words) if word.endswith("/bin/spark-submit"))]
    assert variables[:3] == ["env", "-u", "PYSPARK_DRIVER_PYTHON_OPTS"]
    assert f"PYSPARK_DRIVER_PYTHON={sys.executable}" in variables
    assert "SPARK_LOCAL_IP=127.0.0.1" in variables


def test_secrets_of_dml_come_from_a_file_that_spark_submit_reads(capfd, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "hunter2")
    name, secrets = "spark.hadoop.fs.s3a.secret.key", tmp_path / "secrets.conf"
    secrets.write_text(f"{name} hunter2\nspark.eventLog.enabled true\n")
    secrets.chmod(0o600)
    options = [*MASTER, "--data", prepared, "--blocks", 10, "--out", tmp_path / "w", "--scratch", tmp_path]
    words = line_of(capfd, "dml", *options, "--spark-conf-file", secrets)
    assert words[words.index("--properties-file") + 1] == str(secrets)
    assert "hunter2" not in " ".join(words) and confs(words)["spark.eventLog.enabled"] == "true"
    outcome = run_here(capfd, "spark_command", "dml", *options, "--spark-conf", f"{name}=env:MY_KEY")
    assert_one_line_error(outcome, f"spark_conf: found {name} in the environment", "--spark-conf-file")


def test_data_and_weights_of_dml_may_be_under_urls(capfd, prepared):
    url, elsewhere = prepared.as_uri(), "hdfs://elsewhere/folder"
    options = [*MASTER, "--data", url, "--blocks", 10, "--out", f"{elsewhere}/w"]
    words = line_of(capfd, "dml", *options, "--scratch", f"{elsewhere}/s")
    arguments = dict(word.split("=", 1) for word in words[words.index("-nvargs") + 1 :])
    assert arguments["X"] == f"{url}/matrices/train_X_by_10" and arguments["out"] == f"{elsewhere}/w"
    assert arguments["scratch"] == f"{elsewhere}/s" and arguments["H"] == "32"
    outcome = run_here(capfd, "spark_command", "dml", *options)
    assert_one_line_error(outcome, f"scratch: found none for {elsewhere}/w", "add --scratch")


def test_the_line_for_a_command_repeats_its_options(capfd):
    options = ["--dataset", "a folder", "--heap", "1g", "--amp"]
    words = line_of(capfd, "train", *MASTER, *options)
    program = words.index(str(ROOT / "sysds_resnet" / "spark_program.py"))
    assert words[program + 1 :] == ["train", "--engine", "spark", *map(str, MASTER), *options]
    assert words[words.index("--driver-memory") + 1] == "1024m"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            ["dml", *MASTER, "--out", "w", "--blocks", 9],
            "found no matrices/train_X_by_9.mtd, expected blocks",
        ),
        (["dml", "--master", "yarn", "--out", "w", "--blocks", 10], "executors: found none for yarn"),
        (["dml", *MASTER, "--out", "w"], "blocks: found nothing, expected a value; add --blocks N"),
        (
            ["dml", *MASTER, "--out", "w", "--blocks", 10, "--arguments", "depth"],
            "'depth', expected NAME=VALUE",
        ),
    ],
)
def test_wrong_options(capfd, prepared, options, found):
    assert_one_line_error(run_here(capfd, "spark_command", *options, "--data", prepared), found)


def test_unknown_commands(capfd):
    assert_one_line_error(
        run_here(capfd, "spark_command", "fly"), "fly: found no such command", "train, prepare"
    )
    assert_one_line_error(run_here(capfd, "spark_command", "trian"), "did you mean train?")
    outcome = run_here(capfd, "spark_command")
    assert outcome.code == 2 and outcome.err.startswith("usage: python -m sysds_resnet.spark_command {dml,")


def test_blocks_are_the_rows_of_the_matrix(engine, prepared):
    """As the engine reads them, and the last one has what is left."""
    folder = prepared / "matrices"
    for split, images in (("train", 1437), ("val", 360)):
        n = engine.run(
            f'blocks = read("{folder}/{split}_X_by_10", data_type="list")\n'
            f'X = read("{folder}/{split}_X")\n'
            "n = length(blocks)\nparts = list()\n"
            "for (i in 1:n) {\n  part = as.matrix(blocks[i])\n  parts = append(parts, part)\n}\n"
            "all = rbind(parts)\nwrong = sum(all != X)\nrows = nrow(all)\n",
            {},
            {"n": "int", "wrong": "double", "rows": "int"},
        )
        assert n == {"n": -(-images // 10), "wrong": 0, "rows": images}


def submit(words, timeout=280):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=timeout)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prepare", ["--dataset", "data", "--out", "prepared"]),
        ("evaluate", ["--weights", "w.safetensors", "--dataset", "data"]),
        ("predict", ["--weights", "w.safetensors", "--input", "data", "--out", "predictions"]),
        ("train", ["--dataset", "data", "--out", "run"]),
    ],
)
def test_commands_take_the_options_that_they_have(capfd, name, options):
    there = ["--engine", "spark", "--master", "spark://elsewhere:7077", "--executors", "2"]
    words = line_of(capfd, name, *there, *options)
    assert words[-len(there) - len(options) - 1 :] == [name, *there, *options]


@pytest.mark.long
def test_dml_on_a_cluster_trains_as_on_one_machine(capfd, cluster, prepared, engine, tmp_path):
    """The same order, for files that hold more than an image, and validation with a part of a micro-batch.

    The gradients of more workers than executors have cores are added in a tree.
    """
    run = {"depth": 18, "epochs": 1, "batch_size": 480, "micro_batch": 80, "base_lr": 1, "ema_decay": 0.5}
    options = ["--master", cluster.url, "--executors", 2, "--executor-memory", "1g", "--heap", "2g"]
    options += ["--data", prepared, "--blocks", 10, "--out", tmp_path / "there"]
    history = f"history={tmp_path / 'there.csv'}", "workers=6"
    words = line_of(capfd, "dml", *options, "--arguments", *(f"{k}={v}" for k, v in run.items()), *history)
    assert (outcome := submit(words)).code == 0, outcome
    names = {"X": "train_X", "Y": "train_Y", "X_val": "val_X", "Y_val": "val_Y", "mean_std": "mean_std"}
    files = {name: prepared / "matrices" / file for name, file in names.items()}
    here = {"out": tmp_path / "here", "history": tmp_path / "here.csv", "shuffle_block": 10}
    outcome = run_systemds("dml/train.dml", **files, **run, **here)
    assert outcome.code == 0, outcome
    found, expected = (engine.matrices.read(tmp_path / name / "tensors") for name in ("there", "here"))
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
    found, expected = (np.loadtxt(tmp_path / name, delimiter=",")[:7] for name in ("there.csv", "here.csv"))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert executors_left(cluster.folder) == []


@pytest.mark.long
@pytest.mark.usefixtures("wide")  # as is the package that Spark runs
def test_a_submitted_run_trains_as_from_python(capfd, cluster, tmp_path):
    options = ["--master", cluster.url, "--executors", 2, "--executor-memory", "1g", "--heap", "2g"]
    options += ["--dataset", "synthetic", "--num-images", 32, "--num-classes", 4, "--image-size", 32]
    options += ["--model", "resnet18", "--batch-size", 16, "--micro-batch", 4, "--precision", "double"]
    options += ["--epochs", 1, "--base-lr", 1]
    words = line_of(capfd, "train", *options, "--out", tmp_path / "submitted")
    assert (outcome := submit(words)).code == 0, outcome
    outcome = run_here(capfd, "train", "--engine", "spark", *options, "--out", tmp_path / "here")
    assert outcome.code == 0, outcome
    found, expected = (load_file(tmp_path / name / "weights.safetensors") for name in ("submitted", "here"))
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


@pytest.mark.long
def test_errors_of_submitted_programs_are_one_line(capfd, cluster, prepared, tmp_path):
    options = ["--master", cluster.url, "--executors", 2, "--executor-memory", "1g", "--heap", "2g"]
    words = line_of(capfd, "train", *options, "--out", tmp_path / "run")
    outcome = submit([*words, "--dataset", str(tmp_path / "none")])
    assert outcome.code == 2
    # Spark puts what Python writes to either on its standard output
    assert re.search(f"^error: data set {tmp_path}/none: found nothing, expected", outcome.out, re.MULTILINE)
    options += ["--data", prepared, "--blocks", 10, "--out", tmp_path / "weights"]
    outcome = submit(line_of(capfd, "dml", *options, "--arguments", "depth=18", "micro_batch=16"))
    assert outcome.code == 2
    found = "^error: micro_batch: found 16 with files of 10 images, expected a multiple; choose one$"
    assert re.search(found, outcome.err, re.MULTILINE)
