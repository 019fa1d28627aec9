"""Pictures and pages of schedules, whose rates are worked out by hand or by PyTorch."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from command_line import assert_one_line_error, run_here
from drawn_pages import draw_schedule

from sysds_resnet import plot


@pytest.fixture
def schedule(capfd, tmp_path, monkeypatch, engine):
    """Draw a schedule with the session's engine, and give its title, its rates by epoch, and its marks."""
    monkeypatch.setattr(plot, "Engine", lambda *_args, **_kwargs: nullcontext(engine))
    return lambda *flags: draw_schedule(capfd, tmp_path, *flags)


def test_a_schedule_is_drawn_over_the_epochs_of_the_run_it_is_for(schedule):
    title, x, y, marks = schedule(
        "--images", 105, "--batch-size", 10, "--epochs", 6, "--base-lr", 3, "--warmup-epochs", 1.5
    )
    assert title == "polynomial, 6 epochs of 105 images, 60 steps"
    step = np.arange(60)
    np.testing.assert_allclose(x, (step + 1) / 10)
    np.testing.assert_allclose(
        y, np.where(step < 15, 3 * (step + 1) / 16, 3 * (1 - (step - 15) / 45) ** 2), rtol=1e-12
    )
    assert marks == {
        "peak": (pytest.approx(1.6), pytest.approx(3)),
        "warm-up ends": (pytest.approx(1.5), pytest.approx(3 * 15 / 16)),
    }


def test_a_one_cycle_schedule_is_pytorchs(schedule):
    _, _, y, marks = schedule("onecycle", "--epochs", 4, "--base-lr", 0.5, "--dataset", "digits")
    steps = 4 * (1437 // 64)  # of the digits' training images
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, steps, cycle_momentum=False)
    expected = []
    for _ in range(steps - 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(y[:-1], expected, rtol=1e-9)
    assert list(marks) == ["peak"] and marks["peak"][1] == max(y), "there is no warm-up"


def test_a_recipe_is_drawn_for_imagenet_once_it_is_asked_for(schedule, capfd):
    title, x, _, marks = schedule("--recipe", "mlperf-8192", "--images", 1_281_167, "--epochs", 30)
    assert title == "polynomial, 30 epochs of 1,281,167 images (ImageNet-1k), 4,680 steps"
    assert x[-1] == 30 and marks["peak"][0] == pytest.approx(marks["warm-up ends"][0], abs=0.01)
    outcome = run_here(capfd, "plot", "--schedule", "--recipe", "mlperf-8192")
    assert_one_line_error(outcome, "images: found 1437 for a batch size of 8192", "--images")


def test_bad_combinations_with_a_schedule_are_one_line(capfd, tmp_path):
    for flags, *found in (
        (["--schedule", "square"], "schedule: found square, expected 'polynomial'"),
        (["--schedule", "--resume", tmp_path], "resume: found", "config.yaml"),
        (["--schedule", "--images", 0], "images: found 0"),
        (["--schedule=cosine", "--recipe", "nix"], "recipe: found nix"),
    ):
        assert_one_line_error(run_here(capfd, "plot", *flags), *found)
