"""Checkpoints that are written while training goes on and uses its memory again."""

import threading

import numpy as np
from checkpointed_states import saver, step, trained_state

from sysds_resnet.training.checkpoints import Checkpoints, read_checkpoint
from sysds_resnet.training.snapshot import fetch_tensors, handles_of


def test_a_checkpoint_has_the_state_of_its_step_though_it_is_read_later(engine_single, tmp_path, monkeypatch):
    state, may_read = trained_state(engine_single), threading.Event()
    write = Checkpoints._write

    def write_later(checkpoints, path, fetch, *others):
        assert may_read.wait(60)
        write(checkpoints, path, fetch, *others)

    monkeypatch.setattr(Checkpoints, "_write", write_later)
    expected = fetch_tensors(state.model.network, handles_of(state))
    with saver(tmp_path) as checkpoints:
        checkpoints.save(state)
        for _ in range(3):
            step(state)
        may_read.set()
    _, tensors = read_checkpoint(next(tmp_path.glob("*.safetensors")))
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)
    assert state.held == ()
