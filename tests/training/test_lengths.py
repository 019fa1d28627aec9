"""How long a run is: its patience, and more epochs for a run that was finished."""

import math
import shutil

import pytest
from command_line import assert_one_line_error, run_here, share_engine
from training_runs import SETTINGS, assert_same_end

from sysds_resnet import train
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.training import loop


def flags(epochs, schedule="constant"):
    """A run on made-up images, whose rate does not depend on its length if it is constant."""
    settings = list(SETTINGS)
    settings[settings.index("--epochs") + 1] = str(epochs)
    return [*settings, "--warmup-epochs", "0", "--schedule", schedule]


@pytest.fixture(scope="module")
def trained(engine, tmp_path_factory):
    """A run of two epochs, whose rate follows a cosine; no test changes it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        share_engine(patch, engine)
        assert train.main([*flags(2, "cosine"), "--out", str(run)]) == 0
    yield run
    shutil.rmtree(run)


@pytest.fixture
def finished(trained, folder):
    """A copy of that run, which a test may go on with."""
    return shutil.copytree(trained, folder / "run")


@pytest.fixture
def validations(monkeypatch):
    """A list of the top-1 of each validation to come, in place of what they would find."""
    scores = []
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "top1": scores.pop(0), "top5": 1.0})
    return scores


def test_patience_ends_a_run_that_gets_no_better(shared, capfd, folder, validations):
    validations += [0.3, 0.5, 0.5, 0.4, 0.9]
    outcome = run_here(capfd, "train", *flags(5), "--patience", "2", "--out", folder / "run")
    assert outcome.code == 0, outcome
    assert read_metrics(folder / "run", "epoch")["epoch"].tolist() == [1, 2, 3, 4]
    assert "\nended after epoch 4 of 5: no better top-1 than in epoch 2 (--patience 2)\n" in outcome.out
    assert "best 50.00 % in epoch 2" in outcome.out and (folder / "run" / "weights.safetensors").exists()
    assert (folder / "run" / "best.safetensors").exists()


@pytest.mark.long
def test_patience_is_counted_from_the_best_epoch_when_a_run_goes_on(shared, capfd, folder, validations):
    validations += [0.5, 0.4]
    assert run_here(capfd, "train", *flags(2), "--out", folder / "run").code == 0
    validations += [0.3, 0.2, 0.1]
    outcome = run_here(capfd, "train", "--resume", folder / "run", "--epochs", "5", "--patience", "3")
    assert outcome.code == 0, outcome
    assert read_metrics(folder / "run", "epoch")["epoch"].tolist() == [1, 2, 3, 4]


def test_a_finished_run_goes_on_for_more_epochs(shared, capfd, folder):
    """With a rate that does not depend on the length, to the bits of one that was as long from the start."""
    for name, epochs in (("short", 1), ("long", 2)):
        assert run_here(capfd, "train", *flags(epochs), "--out", folder / name).code == 0
    outcome = run_here(capfd, "train", "--resume", folder / "short", "--epochs", "2")
    assert outcome.code == 0, outcome
    assert "length:  2 epochs now; the learning rate goes on at 0." in outcome.out
    assert_same_end(folder / "short", folder / "long")
    text = (folder / "short" / "config.yaml").read_text()
    assert (
        text.startswith("# epochs 2 in place of 1 from step 2 on, as asked for\n") and "\nepochs: 2\n" in text
    )
    again = run_here(capfd, "train", "--resume", folder / "short")
    assert again.code == 0 and "no epoch left to train" in again.out and "length:" not in again.out


@pytest.mark.long
def test_the_rate_goes_on_as_if_the_run_had_been_planned_so(shared, capfd, finished):
    """Half of a cosine of twice the length is done when the shorter one has reached 0."""
    outcome = run_here(capfd, "train", "--resume", finished, "--epochs", "4")
    rates = read_metrics(finished, "step")["lr"].tolist()
    base = float(SETTINGS[SETTINGS.index("--base-lr") + 1])
    assert rates[4] == pytest.approx(base * (1 + math.cos(math.pi / 2)) / 2)
    assert f"goes on at {rates[4]:.4g}," in outcome.out and f"its last step had {rates[3]:.4g}" in outcome.out


def test_fewer_epochs_than_are_done_end_a_run(shared, capfd, finished):
    outcome = run_here(capfd, "train", "--resume", finished, "--epochs", "1")
    assert outcome.code == 0 and "length:  1 epochs now, which are done" in outcome.out


def test_other_settings_than_the_epochs_still_cannot_change(shared, capfd, finished):
    outcome = run_here(capfd, "train", "--resume", finished, "--epochs", "3", "--momentum", "0.5")
    assert_one_line_error(outcome, "momentum: found 0.5, expected 0.8 as in")
