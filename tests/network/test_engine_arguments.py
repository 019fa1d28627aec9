"""What an engine is given, and whole numbers of any type: taken where plain, and otherwise one line."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from refusals import message

from sysds_resnet.engine import Engine
from sysds_resnet.engine.arguments import Arguments
from sysds_resnet.system.checks import whole

DEFAULTS = dict(
    precision="double", heap=None, blas="auto", context=None, fused=True, threads=None,
    workers=1, gpus=(), channel_major=False, initial_heap=None,
)  # fmt: skip
ENGINE_AT_PORT = SimpleNamespace(java_gateway=None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"heap": "2g"}, {"heap": 2**31}),
        ({"initial_heap": "1g", "heap": "2g"}, {"initial_heap": 2**30, "heap": 2**31}),
        ({"heap": np.float64(2**30)}, {"heap": 2**30}),
        ({"heap": np.int64(2**30)}, {"heap": 2**30}),
        ({"threads": np.int32(2), "workers": 3.0}, {"threads": 2, "workers": 3}),
        ({"gpus": range(2)}, {"gpus": (0, 1)}),
        ({"gpus": np.array([1])}, {"gpus": (1,)}),
        ({"fused": np.False_}, {"fused": False}),
        ({"context": ENGINE_AT_PORT, "heap": "2g"}, {"context": ENGINE_AT_PORT}),
    ],
)
def test_arguments_of_the_engine_that_are_plain_are_taken(given, expected):
    taken = Arguments(**DEFAULTS | given)
    for name, value in expected.items():
        assert getattr(taken, name) == value and type(getattr(taken, name)) is type(value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"precision": "fp16"}, "precision: found 'fp16', expected double, single, bf16 or tf32; choose one"),
        ({"precision": np.float32}, "precision: found <class"),
        ({"precision": None}, "precision: found None"),
        ({"blas": "mkl"}, "blas: found 'mkl', expected auto, openblas or none; choose one"),
        ({"heap": "lots"}, 'heap: found "lots", expected a size such as 12g'),
        ({"initial_heap": 2}, "initial_heap: found 2, expected at least 536870912 bytes"),
        ({"heap": "900t"}, "heap: found 900t, expected at most this machine's memory"),
        ({"heap": 2}, "heap: found 2, expected at least 536870912 bytes, or a size such as '12g'"),
        ({"heap": 0}, "heap: found 0"),
        ({"heap": -(2**31)}, "heap: found -2147483648"),
        ({"heap": 2.0**31 + 0.5}, "heap: found 2147483648.5"),
        ({"heap": float("nan")}, "heap: found nan"),
        ({"heap": True}, "heap: found True"),
        ({"heap": [2**31]}, "heap: found [2147483648]"),
        ({"threads": 0}, "threads: found 0, expected a whole number of at least 1; give one"),
        ({"threads": -1}, "threads: found -1"),
        ({"threads": "4"}, "threads: found '4'"),
        ({"threads": 1.5}, "threads: found 1.5"),
        ({"workers": 0}, "workers: found 0"),
        ({"workers": None}, "workers: found None"),
        ({"workers": True}, "workers: found True"),
        ({"gpus": [-1]}, "gpus: found -1"),
        ({"gpus": 0}, "gpus: found 0, expected a list of numbers such as [0]"),
        ({"gpus": None}, "gpus: found None, expected a list"),
        ({"gpus": "0,1"}, "gpus: found '0,1', expected a list"),
        ({"gpus": [0, 0]}, "gpus: found [0, 0], expected each GPU once"),
        ({"fused": "no"}, "fused: found 'no', expected True or False"),
        ({"channel_major": 1}, "channel_major: found 1"),
        ({"context": 5}, "context: found an int, expected a SystemDSContext"),
        ({"context": ENGINE_AT_PORT, "gpus": [0]}, "context: found gpus beside it"),
    ],
)
def test_arguments_of_the_engine_that_are_none_are_one_line(given, found):
    assert message(Engine, **given).startswith(found)


def test_whole_numbers_are_what_python_takes_for_an_index():
    for value in (3, np.int8(3), np.uint64(3), 3.0, np.float32(3), np.array(3), torch.tensor(3)):
        assert whole("n", value) == 3 and type(whole("n", value)) is int
    for value in (None, "3", b"3", 3.5, np.nan, np.inf, True, np.True_, 3j, [3], np.array([3, 4])):
        assert re.match(r"n: found .*, expected a whole number; give one$", message(whole, "n", value))
    assert message(whole, "n", 9, most=8) == "n: found 9, expected a whole number of at most 8; give one"
    assert message(whole, "n", 9, 0, 8) == "n: found 9, expected a whole number from 0 to 8; give one"
