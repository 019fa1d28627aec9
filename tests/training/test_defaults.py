"""The settings that a run chooses by its training images, and warnings of runs that learn nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
from command_line import run_here
from noise_images import write_noise

from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.settings.command_line import build
from sysds_resnet.settings.fields import names_where
from sysds_resnet.training import start
from sysds_resnet.training.defaults import choose
from sysds_resnet.training.settings import TrainSettings


def settings(**given):
    return build(TrainSettings, {"dataset": "somewhere", **given})


def chosen_for(settings, *images):
    return choose(settings, *images).values


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A data set of 24 images of 50 x 70 pixels for training, and 6 for validation, in 2 classes."""
    return write_noise(tmp_path_factory.mktemp("images"), 12, 3, (50, 70))


def test_small_data_sets_get_small_batches_and_many_epochs():
    sizes = [chosen_for(settings(), images) for images in (90, 2_000, 50_000, 1_200_000)]
    batches, epochs = ([size[name] for size in sizes] for name in ("batch_size", "epochs"))
    assert batches == sorted(batches) and batches[0] <= 90 / 4
    steps = [n // batch * count for n, batch, count in zip((90, 2000), batches, epochs, strict=False)]
    assert min(steps) >= start.FEW_STEPS
    assert chosen_for(settings(), 5)["batch_size"] == 5


def test_what_is_given_stays_and_decides_about_the_rest():
    chosen = chosen_for(settings(batch_size=128, epochs=7, label_smoothing=0.0), 20_000)
    assert not {"batch_size", "epochs", "label_smoothing"} & chosen.keys()
    assert chosen["base_lr"] == 0.1 and chosen["optimizer"] == "nesterov"  # 0.2 at 256, in proportion
    assert chosen_for(settings(zero_init_residual=False), 90).get("zero_init_residual") is None
    assert chosen_for(settings(batch_size=64, optimizer="adamw"), 2_000)["base_lr"] == 5e-4  # by the root
    trained = chosen_for(settings(init_from="weights.pth"), 20_000, 32)
    assert trained["optimizer"] == "adamw"
    assert not {"image_size", "zero_init_residual"} & trained.keys()
    assert trained["epochs"] < chosen_for(settings(), 20_000)["epochs"]


def test_the_help_knows_which_settings_are_chosen():
    chosen = {name for images in (90, 50_000) for name in chosen_for(settings(), images, 64)}
    assert chosen == set(names_where(TrainSettings, chosen=True))


@pytest.mark.parametrize("given", [{"dataset": "digits"}, {"recipe": "lars-4096"}, {"resume": "runs/x"}])
def test_nothing_is_chosen_where_all_is_said(given):
    assert choose(settings(**given), 2_000, 32) is None


@pytest.mark.parametrize(("side", "size"), [(8, 64), (64, 64), (65, 96), (200, 224), (3000, 224)])
def test_images_are_enlarged_but_to_a_size_for_the_network(side, size):
    assert chosen_for(settings(), 20_000, side)["image_size"] == size
    assert chosen_for(settings(), 200, side)["image_size"] == min(size, 128)
    assert "image_size" not in chosen_for(settings(image_size=48), 2_000, side)


def test_a_run_says_what_it_chose_and_trains_on_that(images, capfd):
    outcome = run_here(capfd, "train", "--dataset", images, "--epochs", 60, "--dry-run")
    assert outcome.code == 0, outcome
    assert "# chosen:  --batch-size 16 --optimizer adamw" in outcome.out and "--epochs" not in outcome.out
    assert "24 training images of about 50 pixels; flags or a --recipe change that" in outcome.out
    assert "image_size: 64\n" in outcome.out and "batch_size: 16\n" in outcome.out
    _, sets, _ = start.open_sets(settings(dataset=str(images)))
    assert [data.image_size for data in sets] == [(64, 64), (64, 64)]


def test_a_warm_up_longer_than_the_chosen_epochs_is_refused(images):
    with pytest.raises(UserError, match="warmup_epochs: found 500 with 60 epochs"):
        start.open_sets(settings(dataset=str(images), warmup_epochs=500))


def test_the_typical_side_is_that_of_images_that_can_be_read(images, tmp_path):
    assert open_dataset(images, "train").typical_side() == 50
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.png").write_bytes(b"no image")
    assert open_dataset(tmp_path, "train").typical_side() is None


def test_few_steps_are_warned_of(capfd):
    start.warn_of_few_steps(settings(batch_size=16, epochs=19), 90)
    assert capfd.readouterr().err == (
        "warning: steps: found 95 in all, expected 100 or more, or hardly anything is learned; choose more "
        "--epochs or a smaller --batch-size\n"
    )
    start.warn_of_few_steps(settings(batch_size=16, epochs=20), 90)
    start.warn_of_few_steps(settings(dataset="synthetic", epochs=1), 90)
    assert capfd.readouterr().err == ""


def test_a_validation_at_chance_is_warned_of(capfd):
    class Labelled(SimpleNamespace):
        def __len__(self):
            return len(self.labels)

    data = Labelled(labels=np.array([0, 0, 0, 1]))
    start.warn_of_chance(0.75, data)
    assert "found 75.00 % top-1, expected more than the 75.00 % of always" in capfd.readouterr().err
    start.warn_of_chance(0.8, data)
    start.warn_of_chance(None, data)
    assert capfd.readouterr().err == ""
