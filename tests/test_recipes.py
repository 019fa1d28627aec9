"""Recipes: what they hold, and what wins over them."""

import pytest
import yaml
from command_line import assert_one_line_error, run_here

from sysds_resnet.recipes import names, read_recipe
from sysds_resnet.settings import build, parse
from sysds_resnet.train_settings import TrainSettings


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
    assert_one_line_error(outcome, "recipe: found nix, expected list or one of mlperf-4096, mlperf-8192")
    assert not (tmp_path / "run").exists()
