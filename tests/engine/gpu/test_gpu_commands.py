"""The commands and the DML programs on GPUs in software, against the CPU."""

import json

import numpy as np
import pandas as pd
import pytest
import software_gpus
import yaml
from command_line import ROOT, assert_one_line_error, run_here, run_systemds
from gpu_steps import batch
from reference import relative_error
from safetensors.numpy import load_file

from sysds_resnet import ResNet

MIB = 2**20


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpus")
    software_gpus.build(folder)
    return folder


@pytest.mark.long
@pytest.mark.usefixtures("wide")
def test_commands_take_gpus(libraries, source, tmp_path, capfd):
    images, weights = ["--dataset", source, "--image-size", 32], tmp_path / "run"
    small = ["--model", "resnet18", "--epochs", 1, "--batch-size", 4, "--gpus", 2]

    def run(*arguments):
        outcome = run_here(capfd, *arguments, "--heap", "1g")
        assert outcome.code == 0, outcome.err
        return outcome.out

    losses, tables = [], []
    with software_gpus.installed(libraries, 2):
        assert "software GPU" in run("train", *images, *small, "--out", weights)
        for device, precision in (("cuda:0,1", "single"), ("cpu", "double")):
            there = ["--weights", weights, "--device", device, "--precision", precision]
            run("evaluate", *images, *there, "--out", tmp_path / device)
            losses.append(json.loads((tmp_path / device / "scores.json").read_text())["loss"])
            path = tmp_path / f"{device}.csv"
            run("predict", "--input", source / "val", *there, "--out", path)
            tables.append(pd.read_csv(path))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)


@pytest.mark.long
@pytest.mark.usefixtures("wide")
def test_two_gpus_with_a_process_each_train_as_one(libraries, source, tmp_path, capfd):
    """With images and an optimizer for which rounding does not become a step of its own.

    Norms over two numbers have gradients that are nothing but rounding, and AdamW divides them by their size.
    """
    options = ["--dataset", source, "--image-size", 64, "--model", "resnet18", "--epochs", 1]
    options += ["--batch-size", 4, "--micro-batch", 2, "--precision", "double", "--base-lr", 0.01]
    options += ["--optimizer", "sgd", "--warmup-epochs", 0, "--heap", "1g"]
    found = []
    with software_gpus.installed(libraries, 2):
        for count in (1, 2):
            outcome = run_here(capfd, "train", *options, "--gpus", count, "--out", tmp_path / str(count))
            assert outcome.code == 0, outcome.err
            found.append(load_file(tmp_path / str(count) / "weights.safetensors"))
    assert relative_error(found[1], found[0]) < 1e-8


@pytest.fixture
def matrices(tmp_path):
    """Arguments of DML programs: images and labels in files."""
    images, labels = batch(8)
    np.savetxt(tmp_path / "X", images.transpose(0, 3, 1, 2).reshape(8, -1) / 128 - 1, delimiter=",")
    np.savetxt(tmp_path / "Y", labels + 1)
    return {"X": tmp_path / "X", "Y": tmp_path / "Y", "format": "csv"}


@pytest.mark.long
def test_training_in_dml_on_a_gpu_is_that_on_the_cpu(libraries, wide_engine, matrices, tmp_path):
    """In memory for weights, average, velocities, gradients and both updates' results: 90 MB each."""
    steps = {
        "epochs": 4,
        "batch_size": 8,
        "micro_batch": 4,
        "base_lr": 0.01,
        "warmup_epochs": 0,
        "ema_decay": 0.5,
        "depth": 18,
        "num_classes": 10,
    }
    validation = {"X_val": matrices["X"], "Y_val": matrices["Y"]}
    machine = {"LD_LIBRARY_PATH": str(libraries), "SOFTWARE_GPU_MEMORY": str(700 * MIB)}
    trained = []
    for options in ((), ("-gpu", "-stats", "999")):
        out = tmp_path / f"weights{len(options)}"
        outcome = run_systemds(
            ROOT / "dml/train.dml", *options, environment=machine, **matrices, **validation, **steps, out=out
        )
        assert outcome.code == 0, outcome
        assert ("gpu_conv2d_backward_filter" in outcome.out) == bool(options)
        trained.append(wide_engine.matrices.read(out / "tensors"))
    assert np.linalg.norm(trained[1] - trained[0]) < 1e-9 * np.linalg.norm(trained[0])


@pytest.mark.long
@pytest.mark.usefixtures("wide")  # the processes that run DML programs have the real networks
@pytest.mark.parametrize("program", ["evaluate", "predict"])
def test_scoring_in_dml_on_a_gpu_is_that_on_the_cpu(
    libraries, wide_engine, matrices, tmp_path, capfd, program
):
    ResNet(18, 10, seed=3, engine=wide_engine).save(tmp_path / "weights.safetensors")
    paths = tmp_path / "weights.safetensors", tmp_path / "weights"
    assert run_here(capfd, "convert", *paths, "--to", "systemds").code == 0
    arguments = {"weights": tmp_path / "weights", "X": matrices["X"], "format": "csv", "batch_size": 3}
    arguments |= {"Y": matrices["Y"]} if program == "evaluate" else {"out_format": "csv"}
    scores = []
    for options in ((), ("-gpu",)):
        out = tmp_path / f"scores{len(options)}"
        machine = {"LD_LIBRARY_PATH": str(libraries)}
        outcome = run_systemds(
            ROOT / f"dml/{program}.dml", *options, environment=machine, **arguments, out=out
        )
        assert outcome.code == 0, outcome
        scores.append(np.loadtxt(out, delimiter=","))
    assert np.abs(scores[1] - scores[0]).max() < 1e-10


def test_dml_programs_say_in_one_line_why_there_is_no_gpu():
    outcome = run_systemds(ROOT / "dml/train.dml", "-gpu")
    assert_one_line_error(outcome, "-gpu: no NVIDIA driver (")


@pytest.mark.long
def test_training_goes_on_with_smaller_micro_batches_when_memory_is_full(libraries, tmp_path, capfd):
    flags = ["--dataset", "synthetic", "--num-images", 128, "--image-size", 128, "--model", "resnet18"]
    flags += ["--epochs", 1, "--batch-size", 128, "--micro-batch", 128, "--heap", "2g", "--device", "gpu"]
    with software_gpus.installed(libraries, memory=128 * MIB):
        outcome = run_here(capfd, "train", *flags, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "GPU: found the memory of software GPU full" in outcome.err
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["micro_batch"] in (32, 64)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_digits_are_learned(libraries, tmp_path, capfd):
    with software_gpus.installed(libraries):
        trained = run_here(capfd, "train", "--device", "gpu", "--out", tmp_path / "run")
        assert trained.code == 0, trained.err
        scored = run_here(
            capfd, "evaluate", "--device", "gpu", "--weights", tmp_path / "run", "--dataset", "digits",
            "--out", tmp_path / "scores",
        )  # fmt: skip
    assert scored.code == 0, scored.err
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["top1"] >= 0.97
