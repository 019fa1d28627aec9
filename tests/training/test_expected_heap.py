"""The heap that a run begins with: what its micro-batches and its network are expected to need."""

import re

import pytest
from command_line import run_here

from sysds_resnet.training.micro_batch import expected_heap
from sysds_resnet.training.settings import TrainSettings

GIB = 2**30


def expected(heap=64 * GIB, image_size=(224, 224), processes=1, **settings):
    return expected_heap(TrainSettings(dataset="synthetic", **settings), heap, image_size, processes)


def test_each_image_of_a_micro_batch_takes_as_much():
    one, two, three = (expected(batch_size=6, micro_batch=n) for n in (1, 2, 3))
    assert three - two == pytest.approx(two - one, abs=2)
    small = [expected(batch_size=6, micro_batch=n, image_size=(112, 112)) for n in (1, 2)]
    assert two - one == pytest.approx(4 * (small[1] - small[0]), rel=1e-6)


def test_double_precision_takes_twice_of_all_that_grows():
    single, double = (expected(batch_size=4, micro_batch=4, precision=p) for p in ("single", "double"))
    assert double - GIB == pytest.approx(2 * (single - GIB), rel=1e-6)


def test_deeper_networks_take_more():
    found = [expected(batch_size=4, micro_batch=4, model=f"resnet{n}") for n in (18, 34, 50, 101, 152)]
    assert found == sorted(found)


def test_micro_batches_of_their_own_choice_are_those_that_fit():
    """A batch of 64 images for two processes that have room for 40 each: 32 at a time."""
    assert expected(batch_size=64, processes=2) == expected(batch_size=64, micro_batch=32)
    few = expected(heap=GIB, batch_size=64)
    assert few == GIB, "never more than is allowed"


def test_a_dry_run_prints_what_the_engine_would_begin_with(capfd):
    words = "--dataset synthetic --image-size 64 --batch-size 8 --micro-batch 4 --heap 4g --dry-run"
    outcome = run_here(capfd, "train", *words.split())
    sizes = {name: int(size) for name, size in re.findall(r"-X(m[sx])(\d+)m", outcome.out)}
    heap = expected(heap=4 * GIB, image_size=(64, 64), batch_size=8, micro_batch=4)
    assert sizes == {"ms": heap // 2**20, "mx": 4096}
    assert heap < 3 * GIB
