"""What small steps on one GPU and on two are made of."""

import numpy as np

from sysds_resnet.train import TrainSettings

IDS = ["a_gpu", "two_gpus"]


def batch(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


def optimizer(**changes):
    return TrainSettings(base_lr=0.5, micro_batch=4, **changes).make_optimizer(10)
