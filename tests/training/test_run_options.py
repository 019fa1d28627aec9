"""Options of training runs: where weights start, when a run ends, and what happens when things fail."""

import json
import resource
import shutil

import numpy as np
import pytest
import yaml
from command_line import assert_one_line_error, run_here, share_engine
from narrow import STEM
from safetensors.numpy import load_file
from training_runs import SETTINGS, assert_same_end, lines

from sysds_resnet import train
from sysds_resnet.network.weights.files import read_metadata, read_weights, write_weights
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.training.state import State


@pytest.fixture(scope="module")
def trained(engine, tmp_path_factory):
    """A folder of a run of two epochs; no test changes it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        share_engine(patch, engine)
        assert train.main([*SETTINGS, "--ema-decay", "0.5", "--out", str(folder)]) == 0
    yield folder
    shutil.rmtree(folder)


def changed(settings, **values):
    """The settings with other values."""
    settings = list(settings)
    for name, value in values.items():
        settings[settings.index(f"--{name.replace('_', '-')}") + 1] = str(value)
    return settings


# Where weights start


def test_training_starts_from_weights_with_a_new_final_layer(trained, shared, capfd, folder):
    """At a learning rate of almost 0, they stay where they began."""
    settings = changed(SETTINGS, num_classes=6, base_lr=1e-30, epochs=1)
    outcome = run_here(capfd, "train", *settings, "--init-from", trained, "--out", folder / "run")
    assert outcome.code == 0 and outcome.err.startswith(f"note: {trained}: took the weights at its end"), (
        outcome
    )
    assert f"weights: {trained}, but for a new final layer: 6 classes for its 4\n" in outcome.out
    start, found = (load_file(path / "weights.safetensors") for path in (trained, folder / "run"))
    assert found["fc.weight"].shape == (6, 8 * STEM)
    for name in start:
        if not name.startswith("fc.") and ".running_" not in name:
            np.testing.assert_allclose(found[name], start[name], rtol=0, atol=1e-25, err_msg=name)
    run_here(capfd, "train", *settings, "--out", folder / "fresh")
    fresh = load_file(folder / "fresh" / "weights.safetensors")
    np.testing.assert_allclose(found["fc.weight"], fresh["fc.weight"], rtol=0, atol=1e-25)


@pytest.mark.long
def test_the_final_layer_stays_where_the_classes_are_the_same(trained, shared, capfd, folder):
    settings = changed(SETTINGS, base_lr=1e-30, epochs=1)
    outcome = run_here(capfd, "train", *settings, "--init-from", trained, "--out", folder / "run")
    assert f"weights: {trained}\n" in outcome.out
    start, found = (load_file(path / "weights.safetensors") for path in (trained, folder / "run"))
    np.testing.assert_allclose(found["fc.weight"], start["fc.weight"], rtol=0, atol=1e-25)


@pytest.mark.long
def test_mean_and_std_are_those_of_the_weights(trained, shared, capfd, folder):
    mean, std = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    beside = read_metadata(trained / "weights.safetensors") | {"mean": mean, "std": std}
    path = folder / "other.safetensors"
    weights = read_weights(trained / "weights.safetensors")
    write_weights(path, weights, metadata={"sysds_resnet": json.dumps(beside)})
    outcome = run_here(
        capfd, "train", *changed(SETTINGS, epochs=1), "--init-from", path, "--out", folder / "run"
    )
    assert outcome.code == 0, outcome
    after = read_metadata(folder / "run" / "weights.safetensors")
    assert (after["mean"], after["std"]) == (mean, std)


@pytest.mark.long
def test_frozen_parts_are_what_they_were(trained, shared, capfd, folder):
    flags = ["--init-from", trained, "--freeze", "layer3", "--fc-lr-factor", "10"]
    outcome = run_here(capfd, "train", *SETTINGS, *flags, "--out", folder / "run")
    assert outcome.code == 0 and "not trained: stem, layer1, layer2, layer3\n" in outcome.out, outcome
    start, found = (load_file(path / "weights.safetensors") for path in (trained, folder / "run"))
    for name in start:
        same = np.array_equal(start[name], found[name])
        assert same == (not name.startswith(("layer4.", "fc."))), name


def test_weights_of_another_network_are_refused(trained, shared, capfd, folder):
    settings, weights = changed(SETTINGS, model="resnet34"), trained / "weights.safetensors"
    outcome = run_here(capfd, "train", *settings, "--init-from", weights, "--out", folder / "run")
    assert_one_line_error(outcome, weights, "found weights of resnet18 for 3 channels", "--model resnet18")
    outcome = run_here(capfd, "train", *SETTINGS, "--init-from", folder / "no", "--out", folder / "run")
    assert_one_line_error(outcome, folder / "no")


@pytest.mark.long
def test_an_averaged_run_goes_on_with_both_its_weights(trained, shared, capfd, folder):
    copied = folder / "copied"
    shutil.copytree(trained, copied)
    (copied / "checkpoints" / "step-00000004.safetensors").unlink()
    outcome = run_here(capfd, "train", "--resume", copied)
    assert outcome.code == 0 and ", from step 2\n" in outcome.out
    assert_same_end(copied, trained)


# When a run ends


@pytest.mark.long
def test_a_run_ends_once_its_accuracy_is_reached(shared, capfd, folder):
    outcome = run_here(
        capfd, "train", *changed(SETTINGS, epochs=5), "--acc-thresh", "1", "--out", folder / "run"
    )
    assert outcome.code == 0, outcome
    epochs = read_metrics(folder / "run", "epoch")
    assert len(epochs) < 5 and epochs["val_top1"].iloc[-1] >= 0.01
    assert (epochs["val_top1"].iloc[:-1] < 0.01).all()
    assert (folder / "run" / "weights.safetensors").exists() and (folder / "run" / "results.md").exists()
    outcome = run_here(capfd, "train", "--resume", folder / "run")
    assert outcome.code == 0 and "no epoch left to train" in outcome.out
    assert len(read_metrics(folder / "run", "epoch")) == len(epochs)


# When things fail


def failing(monkeypatch, steps):
    """Let the loss of these steps be NaN, by images that the check lets through."""
    apply = State.apply

    def spoilt(state, gradients, metrics, optimizer):
        factor = np.nan if state.progress.step + 1 in steps else 1
        return apply(state, gradients, metrics * factor, optimizer)

    monkeypatch.setattr(State, "apply", spoilt)


def test_nan_ends_a_run_with_the_state_before_it_saved(shared, capfd, monkeypatch, folder):
    failing(monkeypatch, {2})
    outcome = run_here(capfd, "train", *SETTINGS, "--out", folder / "run")
    found = ("step 2: found loss nan and gradient norm", f"is in {folder / 'run'}", "--on-nan skip")
    assert_one_line_error(outcome, *found)
    names = [path.name for path in (folder / "run" / "checkpoints").iterdir()]
    assert names == ["step-00000001.safetensors"]
    outcome = run_here(capfd, "train", "--resume", folder / "run", "--on-nan", "skip")
    assert outcome.code == 0 and "1 of 4 updates were left out" in outcome.out, outcome
    steps = [line for line in lines(folder / "run") if line["event"] == "step"]
    assert [(line["loss"] is None, line.get("skipped", False)) for line in steps] == [
        (False, False),
        (True, True),
        (False, False),
        (False, False),
    ]


@pytest.mark.long
def test_a_full_disk_is_reported_and_outlived(trained, shared, capfd, monkeypatch, folder):
    """A limit on the size of files stands for the disk, from before the first checkpoint to the last step."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    update = State.update

    def limiting(state, *arguments):
        limit = before[0] if state.progress.step == 3 else 2**20
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        return update(state, *arguments)

    monkeypatch.setattr(State, "update", limiting)
    flags = ["--ema-decay", "0.5", "--save-steps", "1", "--out", folder / "run"]
    try:
        outcome = run_here(capfd, "train", *SETTINGS, *flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert outcome.code == 0, outcome
    assert "checkpoint not saved: " in outcome.out and "cannot be written" in outcome.out
    saved = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    original = yaml.safe_load((trained / "config.yaml").read_text())
    assert {name for name in saved if saved[name] != original[name]} == {"save_steps"}
    assert lines(folder / "run") == lines(trained)
    np.testing.assert_equal(*(load_file(path / "weights.safetensors") for path in (folder / "run", trained)))


@pytest.mark.long
def test_tensorboard_gets_what_metrics_get(shared, capfd, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = run_here(capfd, "train", *changed(SETTINGS, epochs=1), "--tensorboard", "--out", folder / "run")
    assert outcome.code == 0, outcome
    events = EventAccumulator(str(folder / "run" / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    steps = read_metrics(folder / "run", "step")
    np.testing.assert_allclose(found, steps[["step", "loss"]].to_numpy(), rtol=1e-6)
