"""The layers in DML, as programs source them, and random tensors for them."""

import numpy as np
import torch

GATHER = 'source("dml/layers/pixels/gather.dml") as gather\n'
CONV = 'source("dml/layers/pixels/conv2d.dml") as conv2d\n'
NORM = 'source("dml/layers/pixels/batch_norm2d.dml") as bn\n'
PIXELWISE = 'source("dml/layers/pixels/pixelwise.dml") as pixelwise\n'
POOL = 'source("dml/layers/pixels/max_pool2d.dml") as pool\n'


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))
