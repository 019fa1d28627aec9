"""Which checkpoints stay on the disk: the newest intact ones; leftovers go, damaged ones are set aside."""

import pytest
from checkpointed_states import IDENTITY, fresh, saver, trained_state

from sysds_resnet.errors import UserError
from sysds_resnet.training import checkpoints, retention
from sysds_resnet.training.checkpoints import read_checkpoint, restore
from sysds_resnet.training.progress import Progress
from sysds_resnet.training.state import State


@pytest.fixture(scope="module")
def trained(engine):
    """A state after a step, with an average; no test changes it."""
    return trained_state(engine)


def steps(folder):
    return [path.name for path in sorted(folder.iterdir())]


def name(step):
    return f"step-{step:08d}.safetensors"


def test_the_newest_are_kept_and_leftovers_of_killed_processes_removed(trained, folder):
    (folder / ".step-00000009.safetensors.123.tmp").write_text("half")
    with saver(folder, keep=3) as saved:
        for number in (5, 9, 11, 12):
            saved.save(State(trained.model, trained.moments, None, Progress(step=number)))
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [f"step-{number:08d}.safetensors" for number in (9, 11, 12)]


def test_a_damaged_newer_one_neither_counts_nor_takes_the_intact_ones_with_it(engine, trained, folder):
    state = State(trained.model, trained.moments)
    with saver(folder) as saved:
        state.progress = Progress(step=2)
        saved.save(state)
    (folder / name(4)).write_bytes(b"damaged")
    notes, resumed = [], fresh(engine)
    assert restore(folder, resumed, IDENTITY, notes.append).name == name(2)
    assert len(notes) == 1 and steps(folder) == [name(2), f"{name(4)}.damaged"]
    with saver(folder, keep=1) as saved:
        resumed.progress = Progress(step=3)
        saved.save(resumed)
        saved._wait()
        assert steps(folder) == [name(3), f"{name(4)}.damaged"]
        resumed.progress = Progress(step=4)
        saved.save(resumed)
    assert steps(folder) == [name(4), f"{name(4)}.damaged"]
    assert restore(folder, resumed, IDENTITY, pytest.fail).name == name(4)


def test_where_all_are_damaged_they_stay_so_that_no_run_begins_anew_in_their_place(engine, folder):
    for step in (1, 2):
        (folder / name(step)).write_bytes(b"no")
    for _ in range(2):
        with pytest.raises(UserError, match="found 2 checkpoints, all damaged"):
            restore(folder, fresh(engine), IDENTITY, lambda text: None)


def test_one_that_cannot_be_renamed_or_removed_is_a_note(engine, trained, folder, monkeypatch):
    def refuse(path, *_args, **_kwargs):
        raise PermissionError(1, "Operation not permitted")

    with saver(folder) as saved:
        for step in (1, 2):
            saved.save(State(trained.model, trained.moments, None, Progress(step=step)))
    (folder / name(9)).write_bytes(b"damaged")
    notes = []
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", refuse)
        restore(folder, fresh(engine), IDENTITY, notes.append)
    assert notes[1:] == [f"{folder / name(9)}: damaged, and not renamed (operation not permitted)"]
    notes.clear()
    monkeypatch.setattr(retention.Path, "unlink", refuse)
    with saver(folder, notes, keep=1) as saved:
        for step in (3, 4):
            saved.save(State(trained.model, trained.moments, None, Progress(step=step)))
    assert steps(folder) == [name(step) for step in (1, 2, 3, 4, 9)]
    assert sorted(notes) == [
        f"{folder / name(step)}: not removed (operation not permitted); remove it by hand"
        for step in (1, 2, 3)
    ]


def test_best_weights_that_find_no_room_do_not_take_the_checkpoint_with_them(trained, folder, monkeypatch):
    def full(path, *arguments, **options):
        if path.name == checkpoints.BEST_FILE:
            raise UserError(f"{path}: cannot be written")
        return write(path, *arguments, **options)

    write = checkpoints.write_weights
    monkeypatch.setattr(checkpoints, "write_weights", full)
    notes = []
    with saver(folder / "checkpoints", notes) as saved:
        saved.save(trained, best=True)
    assert len(notes) == 1 and notes[0].startswith("best weights not saved: ")
    read_checkpoint(folder / "checkpoints" / name(1))


def test_leftovers_of_safetensors_are_removed(trained, folder):
    (folder / ".tmpAb12Cd").write_text("half")
    with saver(folder):
        pass
    assert steps(folder) == []
