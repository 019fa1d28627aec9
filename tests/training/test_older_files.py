"""Files of an older version: run folders, checkpoints and weights that commit 50040ef wrote are still read.

run_of_50040ef/ is what that version left of a run of four steps, stopped after the third: its texts as
they were, and of its checkpoint and weights everything but the values, which are made up here.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run_here, share_engine
from safetensors.numpy import save_file
from training_runs import lines

from sysds_resnet import ResNet
from sysds_resnet.network.weights.files import read_metadata
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.settings.command_line import build
from sysds_resnet.training.checkpoints import read_checkpoint
from sysds_resnet.training.run_folder import read_config
from sysds_resnet.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("wide")
OLDER = Path(__file__).with_name("run_of_50040ef")
CLASSES = ["pattern0", "pattern1", "pattern2", "pattern3"]


def values(name, shape):
    """Values of a tensor with which a network computes nothing that is not finite."""
    if name.startswith("velocity/"):
        return np.zeros(shape)
    if name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
        return np.ones(shape)
    return 0.02 * np.random.default_rng(len(name)).standard_normal(shape)


def write(path, described):
    """Writes a file as it is described, with the checksum that version 50040ef gave to checkpoints."""
    tensors = {name: values(name, shape) for name, shape in described["shapes"].items()}
    metadata = dict(described["metadata"])
    if metadata.pop("sha256", None):
        digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for name, array in sorted(tensors.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data)
        metadata["sha256"] = digest.hexdigest()
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, metadata)
    return tensors


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(OLDER, folder, ignore=shutil.ignore_patterns("*.json"))
    checkpoint = json.loads((OLDER / "checkpoint.json").read_text())
    write(folder / "checkpoints" / "step-00000003.safetensors", checkpoint)
    yield folder
    shutil.rmtree(folder)


def test_the_settings_of_an_older_run_are_read():
    settings = build(TrainSettings, read_config(OLDER))
    found = (settings.model, settings.micro_batch, settings.base_lr, settings.ema_decay, settings.precision)
    assert found == ("resnet18", 4, 0.5, 0.5, "double")


def test_the_checkpoint_of_an_older_run_is_read(run):
    described, tensors = read_checkpoint(run / "checkpoints" / "step-00000003.safetensors")
    assert described["progress"]["step"] == 3 and described["model"] == "resnet18"
    assert len(tensors) == 266 and set(read_metrics(run, "step")["step"]) == {1, 2, 3}


def test_older_weights_are_read(wide_engine, tmp_path):
    path = tmp_path / "weights.safetensors"
    expected = write(path, json.loads((OLDER / "weights.json").read_text()))
    model = ResNet.load(path, wide_engine)
    assert model.classes == CLASSES and read_metadata(path)["image_size"] == [32, 32]
    found = model.state_dict()
    assert all(np.array_equal(found[name], expected[name]) for name in found)


@pytest.mark.long
def test_an_older_run_is_resumed_to_its_end(run, wide_engine, monkeypatch, capfd):
    """The bits too are those of the older version: tried with whole files, too large to keep."""
    share_engine(monkeypatch, wide_engine)
    outcome = run_here(capfd, "train", "--resume", run)
    assert outcome.code == 0, outcome.err
    steps = [line["step"] for line in lines(run) if line["event"] == "step"]
    assert steps == [1, 2, 3, 4] and (run / "weights.safetensors").exists()
