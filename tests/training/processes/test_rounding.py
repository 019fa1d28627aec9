"""Rounding to bf16 against PyTorch's."""

import numpy as np
import torch

from sysds_resnet.training.processes.rounding import round_to_bf16


def test_numbers_of_all_sizes_are_rounded_as_torch_rounds_them():
    bits = np.random.default_rng(0).integers(0, 2**32, 300_000, np.uint32)
    ties = (bits[:1000] & 0xFFFF0000) | 0x8000
    edges = np.array([0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 1, 1.00390625], "f4").view("u4")
    quiet = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001], "u4")  # not numbers
    values = np.concatenate([bits, ties, edges, quiet]).view("f4")
    before = values.copy()
    found = round_to_bf16(values)
    np.testing.assert_array_equal(found, torch.from_numpy(before).bfloat16().float().numpy())
    np.testing.assert_array_equal(values.view("u4"), before.view("u4"))
    numbers = ~np.isnan(found)
    assert not (found[numbers].view("u4") & 0xFFFF).any()
