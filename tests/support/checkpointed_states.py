"""Small states of training, and what saves their checkpoints."""

import numpy as np
import pytest

from sysds_resnet import ResNet
from sysds_resnet.training.checkpoints import Checkpoints
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.state import State

CLASSES = 3
BESIDE = {"classes": ["a", "b", "c"], "mean": [1, 2, 3], "std": [1, 1, 1]}
IDENTITY = {"model": "resnet18", "settings": {"seed": 1, "base_lr": 0.1}, "classes": {"class 0": "cat"}}


def trained_state(engine):
    """A state after a step, with an average."""
    state = State.fresh(ResNet(18, CLASSES, engine=engine, seed=3))
    step(state)
    return state


def step(state, optimizer="sgd"):
    rng = np.random.default_rng(state.progress.step)
    settings = TrainSettings(micro_batch=4, optimizer=optimizer, base_lr=0.01, ema_decay=0.9)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    state.update(images, rng.integers(0, CLASSES, 4), settings.make_optimizer(2))


def fresh(engine, optimizer="sgd"):
    return State.fresh(ResNet(18, CLASSES, engine=engine, seed=4), optimizer)


def saver(folder, notes=None, identity=IDENTITY, keep=2, every_steps=None):
    note = pytest.fail if notes is None else notes.append
    return Checkpoints(folder, identity, BESIDE, keep, every_steps, 1e9, note)
