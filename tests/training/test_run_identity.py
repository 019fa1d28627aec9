"""What a resumed run must agree with: changed data are refused by name; a moved data set goes on."""

import json
import shutil

import numpy as np
import pytest
import yaml
from command_line import assert_one_line_error, run_here, share_engine
from PIL import Image
from safetensors.numpy import load_file
from training_runs import assert_same_end, lines

from sysds_resnet import ResNet, train
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.training import checkpoints
from sysds_resnet.training.checkpoints import read_checkpoint, write_checkpoint
from sysds_resnet.training.identity import check_identity, identity_of
from sysds_resnet.training.settings import TrainSettings

OPTIONS = ["--model", "resnet18", "--image-size", "32", "--epochs", "2", "--batch-size", "6"]
OPTIONS += ["--optimizer", "sgd", "--base-lr", "0.01", "--workers", "1"]


def make_data(folder):
    """Two classes of six training and three validation images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for label in ("cat", "dog"):
            for k in range(count):
                path = folder / split / label / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


@pytest.fixture
def identity(engine, data):
    """A function that gives the identity of a run on the data as they are now."""
    model = ResNet(18, 2, engine=engine, seed=0)
    settings = TrainSettings(model="resnet18", micro_batch=6)

    def identify():
        sets = [open_dataset(data, split, image_size=32) for split in ("train", "val")]
        return identity_of(settings, sets, model)

    return identify


def moved(data):
    (data / "train" / "cat" / "1.png").rename(data / "train" / "dog" / "9.png")
    return "training images: found 12 in other classes, 5 of them of class cat, expected 12 and 6"


def deleted(data):
    (data / "val" / "dog" / "2.png").unlink()
    return "validation images: found 5, 2 of them of class dog, expected 6 and 3"


def added(data):
    shutil.copy(data / "train" / "cat" / "1.png", data / "train" / "cat" / "9.png")
    return "training images: found 13, 7 of them of class cat, expected 12 and 6"


def renamed(data):
    (data / "val" / "cat" / "0.png").rename(data / "val" / "cat" / "7.png")
    return "validation images: found as many with other names, labels or in another order"


def replaced(data):
    Image.new("RGB", (300, 200)).save(data / "train" / "dog" / "3.png")
    return "training images: found files of other sizes"


@pytest.mark.parametrize("change", [moved, deleted, added, renamed, replaced])
def test_changed_data_are_refused_with_the_difference(identity, data, tmp_path, change):
    before = json.loads(json.dumps(identity()))
    check_identity(tmp_path, identity(), before, pytest.fail)
    expected = change(data)
    with pytest.raises(UserError) as caught:
        check_identity(tmp_path, identity(), before, pytest.fail)
    assert str(caught.value).startswith(expected), caught.value
    assert "--init-from" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_another_mean_or_standard_deviation_is_refused(identity, tmp_path, name):
    before = identity()
    now = before | {name: [1.0, 2.0, 3.0]}
    with pytest.raises(UserError, match=rf"^{name}: found \[1.0, 2.0, 3.0\], expected \["):
        check_identity(tmp_path, now, before, pytest.fail)


@pytest.mark.parametrize("name", ["multiplies", "Java", "processor", "cores"])
def test_another_machine_or_engine_is_noted(identity, tmp_path, name):
    before, notes = identity(), []
    now = before | {"machine": before["machine"] | {name: "FP64 in Java"}}
    check_identity(tmp_path, now, before, notes.append)
    assert len(notes) == 1
    assert f"{name} FP64 in Java, not {before['machine'][name]}" in notes[0]


def test_the_place_of_the_data_is_no_part_of_it(identity, tmp_path):
    before = identity()
    now = before | {"place": {"dataset": "elsewhere", "layout": "folder"}}
    check_identity(tmp_path, now, before, pytest.fail)


def test_a_checkpoint_of_an_older_version_is_compared_by_what_it_says(identity, tmp_path):
    now = identity()
    older = {
        name: value for name, value in now.items() if name not in ("data", "mean", "std", "machine", "place")
    }
    older["settings"] = {**older["settings"], "dataset": "digits", "layout": None}
    notes = []
    check_identity(tmp_path, now, older, notes.append)
    assert len(notes) == 1 and "an older version wrote it without digests of the data" in notes[0]
    elsewhere = now | {"place": {"dataset": "data", "layout": "None"}}
    with pytest.raises(UserError, match=r"^dataset: found data, expected digits as in"):
        check_identity(tmp_path, elsewhere, older, notes.append)
    with pytest.raises(UserError, match=r"^training images: found 12, expected 11 as in"):
        check_identity(tmp_path, now, older | {"training images": 11}, notes.append)


def test_a_setting_that_is_newer_than_a_checkpoint_has_its_default_there(identity, tmp_path):
    now = identity()
    older = now | {"settings": {k: v for k, v in now["settings"].items() if k not in ("beta1", "adam_eps")}}
    check_identity(tmp_path, now, older, pytest.fail)
    changed = now | {"settings": now["settings"] | {"beta1": 0.8}}
    with pytest.raises(UserError, match=r"^beta1: found 0.8, expected 0.9 as in"):
        check_identity(tmp_path, changed, older, pytest.fail)


# The command


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """The data set and the folder of a run of two epochs; no test changes them."""
    folder = tmp_path_factory.mktemp("identity")
    make_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        share_engine(patch, engine)
        options = [*OPTIONS, "--dataset", str(folder / "data"), "--out", str(folder / "run")]
        assert train.main(options) == 0
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def half(run, tmp_path):
    """Copies of both, as if the run had been killed after its first epoch."""
    for name in ("data", "run"):
        shutil.copytree(run / name, tmp_path / name)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(run / "data"), str(tmp_path / "data")))
    (tmp_path / "run" / "checkpoints" / "step-00000004.safetensors").unlink()
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_a_run_goes_on_with_a_data_set_that_has_moved(run, half, capfd):
    (half / "data").rename(half / "elsewhere")
    outcome = run_here(capfd, "train", "--resume", half / "run", "--dataset", half / "elsewhere")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_end(half / "run", run / "run")
    config = (half / "run" / "config.yaml").read_text()
    assert yaml.safe_load(config)["dataset"] == str(half / "elsewhere")
    assert config.startswith(f"# dataset {half / 'elsewhere'} in place of {half / 'data'} from step 2 on")


@pytest.mark.usefixtures("shared")
def test_a_run_does_not_go_on_with_changed_data(half, capfd):
    before = lines(half / "run")
    expected = deleted(half / "data")
    outcome = run_here(capfd, "train", "--resume", half / "run")
    assert_one_line_error(outcome, expected, half / "run" / "checkpoints" / "step-00000002.safetensors")
    assert lines(half / "run") == before


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_a_run_of_an_older_version_goes_on_with_a_note(run, half, capfd, monkeypatch):
    path = half / "run" / "checkpoints" / "step-00000002.safetensors"
    described, tensors = read_checkpoint(path)
    for name in ("format", "data", "mean", "std", "machine", "place"):
        del described[name]
    described["settings"] |= {"dataset": str(half / "data"), "layout": None}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", 2)
        write_checkpoint(path, described, tensors)
    outcome = run_here(capfd, "train", "--resume", half / "run")
    assert outcome.code == 0, outcome
    assert outcome.err == (
        f"warning: {path}: an older version wrote it without digests of the data, which are not checked\n"
    )
    weights = (load_file(folder / "run" / "weights.safetensors") for folder in (run, half))
    np.testing.assert_equal(*weights)
