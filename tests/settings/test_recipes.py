"""Recipes: what they hold, and what wins over them."""

import numpy as np
import pytest
import torch
import yaml
from command_line import assert_one_line_error, run_here
from torch.optim import lr_scheduler
from torchvision_reference import torchvision

from sysds_resnet.settings.command_line import build, parse
from sysds_resnet.settings.recipes import names, read_recipe
from sysds_resnet.training.settings import TrainSettings


@pytest.mark.parametrize("name", names())
def test_a_recipe_says_where_it_comes_from_and_overrides_only_what_differs(name):
    recipe = read_recipe(name)
    assert recipe.about and recipe.source.startswith("https://") and recipe.accuracy
    settings = parse(TrainSettings, ["--recipe", name])
    assert settings.recipe == name
    changed = {k: v for k, v in settings.model_dump().items() if v != TrainSettings.model_fields[k].default}
    assert changed == {**recipe.settings, "recipe": name}


@pytest.mark.parametrize(
    ("name", "batch", "decay_steps"),
    [("mlperf-4096", 4096, 13137), ("mlperf-8192", 8192, 6095), ("mlperf-32768", 32768, 2267)],
)
def test_epochs_of_mlperf_are_its_decay_steps_and_the_warm_up(name, batch, decay_steps):
    """The reference has decay_steps = train_steps - warmup_steps + 1, ImageNet 1,281,167 images."""
    settings = parse(TrainSettings, ["--recipe", name])
    steps_per_epoch = 1_281_167 / batch
    assert settings.batch_size == batch
    assert (decay_steps - 1) / steps_per_epoch + settings.warmup_epochs == pytest.approx(
        settings.epochs, abs=0.1
    )


STEPS = 10  # an epoch, in tests of learning rates


def rates(engine, name, *flags):
    """The learning rates of a recipe's run, of shape (epochs, STEPS)."""
    settings = parse(TrainSettings, ["--recipe", name, *flags])
    return settings.make_schedule(STEPS).rates(engine).reshape(settings.epochs, STEPS)


def of_pytorch(make, steps, base_lr):
    """What a scheduler of PyTorch gives, step by step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base_lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(found)


@pytest.mark.parametrize(
    ("name", "weights"), [("torchvision-v1", "IMAGENET1K_V1"), ("torchvision-v2", "IMAGENET1K_V2")]
)
def test_recipes_of_torchvision_are_those_that_its_weights_name(name, weights):
    weights = torchvision.models.ResNet50_Weights[weights]
    recipe, settings = read_recipe(name), parse(TrainSettings, ["--recipe", name])
    assert recipe.source == weights.meta["recipe"]
    assert recipe.accuracy.startswith(f"{weights.meta['_metrics']['ImageNet-1K']['acc@1']:.3f} % top-1")
    preprocessing = weights.transforms()
    eval_size = settings.eval_size or settings.image_size or 224
    assert [eval_size] == preprocessing.crop_size
    assert [settings.resize_size or 256] == preprocessing.resize_size


@pytest.mark.parametrize("name", ["torchvision-v1", "deepspark"])
def test_torchvisions_first_recipe_divides_the_rate_by_ten_every_thirty_epochs(engine, name):
    expected = of_pytorch(lambda optimizer: lr_scheduler.StepLR(optimizer, 30), 90, 0.1)
    np.testing.assert_allclose(rates(engine, name), np.repeat(expected[:, None], STEPS, axis=1), rtol=1e-12)


def test_torchvisions_second_recipe_is_a_cosine_after_a_warm_up(engine):
    """Its schedulers step once an epoch, and so agree with ours where an epoch begins."""

    def schedulers(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=5)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=595)
        return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[5])

    found = rates(engine, "torchvision-v2")
    assert np.all(np.diff(found[:5].ravel()) > 0) and found[4, -1] < 0.5
    np.testing.assert_allclose(found[5:, 0], of_pytorch(schedulers, 600, 0.5)[5:], rtol=1e-9)


def test_the_average_of_torchvisions_second_recipe_forgets_as_its_script_computes():
    """Its alpha is 1 - 0.99998, times GPUs * batch of each * steps between updates / epochs."""
    settings = parse(TrainSettings, ["--recipe", "torchvision-v2"])
    alpha = (1 - 0.99998) * 8 * 128 * 32 / 600
    assert settings.ema_every == 32
    assert 1 - settings.ema_decay == pytest.approx(alpha, rel=1e-6)


def test_rates_of_torchvisions_recipes_follow_the_batch_size_in_proportion(engine):
    half = rates(engine, "torchvision-v1", "--batch-size", "128")
    np.testing.assert_allclose(half, rates(engine, "torchvision-v1") / 2, rtol=1e-12)
    quarter = rates(engine, "torchvision-v2", "--batch-size", "256", "--epochs", "20")
    assert quarter.max() == pytest.approx(0.125)


def test_one_cycle_of_imagenet_is_pytorchs(engine):
    found = rates(engine, "imagenet-onecycle").ravel()
    expected = of_pytorch(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, 0.002, total_steps=300, pct_start=0.3, div_factor=25, final_div_factor=1e4
        ),
        300,
        0.002,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (found[0], found.max(), found[-1]) == pytest.approx((8e-5, 2e-3, 8e-9))


def test_an_update_of_imagenet_onecycle_accumulates_four_batches_of_128():
    settings = parse(TrainSettings, ["--recipe", "imagenet-onecycle"])
    assert (settings.micro_batch, settings.batch_size // settings.micro_batch) == (128, 4)


def test_systemds_rate_for_lars_is_for_256_images(engine):
    found = rates(engine, "lars-4096")
    epochs = np.arange(5, 100)
    assert found.max() == pytest.approx(0.02 * 4096 / 256)
    np.testing.assert_allclose(found[5:, 0], 0.32 * (1 - (epochs - 5) / 95) ** 2, rtol=1e-9)
    assert rates(engine, "lars-4096", "--lr-scaling", "none").max() == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("name", "base_lr", "warmup_epochs", "decay_epochs"),
    [
        ("mlperf-4096", 10, 5, 13137 / 313),
        ("mlperf-8192", 17, 5, 6095 / 157),
        ("mlperf-32768", 21.2, 16, 2267 / 40),
    ],
)
def test_rates_of_mlperf_fall_with_power_two(engine, name, base_lr, warmup_epochs, decay_epochs):
    """By its decay steps; within 2 % of base_lr, as there an epoch's last batch may be smaller."""
    found = rates(engine, name)
    assert found.max() == pytest.approx(base_lr)
    for epochs in (0, 10, 20, 30):
        expected = 1e-4 + (base_lr - 1e-4) * (1 - epochs / decay_epochs) ** 2
        assert found[warmup_epochs + epochs, 0] == pytest.approx(expected, abs=0.02 * base_lr)


@pytest.mark.parametrize("name", names())
def test_batches_are_whole_micro_batches_without_a_sample_twice(name):
    """As torchvision's sampler sends the repetitions of a sample to different GPUs."""
    settings = parse(TrainSettings, ["--recipe", name])
    if settings.micro_batch != "auto":
        assert settings.batch_size % settings.micro_batch == 0
        assert settings.batch_size // settings.repeats % settings.micro_batch == 0


def test_flags_and_files_win_over_a_recipe(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"base_lr": 3.0, "epochs": 5}))
    settings = parse(TrainSettings, ["--recipe", "mlperf-8192", "--config", str(file), "--epochs", "2"])
    assert (settings.batch_size, settings.base_lr, settings.epochs) == (8192, 3.0, 2)


def test_a_file_and_a_python_call_may_name_a_recipe(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("recipe: mlperf-32768\nepochs: 3\n")
    for settings in (
        parse(TrainSettings, ["--config", str(file)]),
        build(TrainSettings, {"recipe": "mlperf-32768", "epochs": 3}),
    ):
        assert (settings.momentum, settings.epochs) == (0.94, 3)


def test_recipes_are_listed(capfd):
    outcome = run_here(capfd, "train", "--recipe", "list")
    assert (outcome.code, outcome.err) == (0, "")
    for name in names():
        recipe = read_recipe(name)
        assert f"{name}\n    {recipe.about}\n    expected: {recipe.accuracy}" in outcome.out


def test_an_unknown_recipe_is_one_line(capfd, tmp_path):
    outcome = run_here(capfd, "train", "--recipe", "nix", "--out", tmp_path / "run")
    assert_one_line_error(
        outcome, "recipe: found nix, expected list or one of digits, ", "mlperf-4096, mlperf-8192"
    )
    assert not (tmp_path / "run").exists()
