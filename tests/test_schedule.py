"""Learning rates, seeds and batches in DML."""

import numpy as np
import pytest
from dml_runner import assert_close

from sysds_resnet.errors import UserError

SCHEDULE = 'source("dml/schedule.dml") as schedule\n'
SEEDS = 'source("dml/seeds.dml") as seeds\n'
DATA = 'source("dml/data.dml") as data\n'


def rates(dml, total, warmup, base, end, power, steps):
    return dml(
        SCHEDULE
        + """out = matrix(0, rows=1, cols=steps)
        for (step in 1:steps) {
          out[1,step] = schedule::polynomial(step - 1, total, warmup, base, end, power)
        }
        """,
        "out",
        total=total,
        warmup=warmup,
        base=base,
        end=end,
        power=power,
        steps=steps,
    )[0]


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("end", [0.0, 1e-4])
@pytest.mark.parametrize(("total", "warmup"), [(20, 5), (20, 0), (1, 0), (7, 7)])
def test_rates_have_their_closed_form(dml, total, warmup, end, power):
    steps = total + 3
    step = np.arange(steps)
    progress = np.clip((step - warmup) / max(total - warmup, 1), 0, 1)
    expected = np.where(
        step < warmup, 10.0 * (step + 1) / (warmup + 1), end + (10.0 - end) * (1 - progress) ** power
    )
    assert_close(rates(dml, total, warmup, 10.0, end, power, steps), expected)


def test_rates_at_the_ends(quick_dml):
    found = rates(quick_dml, 100, 9, 2.0, 0.01, 2.0, 103)
    assert_close(found[0], 0.2)  # the first step is not lost
    assert found[9] == 2.0 and (np.diff(found[:10]) > 0).all()
    assert (np.diff(found[9:101]) < 0).all()
    assert_close(found[100:], [0.01] * 3)  # and stays there


def test_seeds_differ_for_every_seed_purpose_and_index(dml):
    grid = [(s, p, i) for s in (0, 1, 42, 2**31 - 1) for p in range(4) for i in (0, 1, 2, 2**18 - 1)]
    derived = dml(
        SEEDS
        + """out = matrix(0, rows=nrow(grid), cols=1)
        for (k in 1:nrow(grid)) {
          seed = as.integer(as.scalar(grid[k,1]))
          purpose = as.integer(as.scalar(grid[k,2]))
          index = as.integer(as.scalar(grid[k,3]))
          out[k,1] = seeds::derive(seed, purpose, index)
        }
        """,
        "out",
        grid=np.array(grid, dtype=float),
    )
    assert [int(x) for x in derived[:, 0]] == [s * 2**20 + p * 2**18 + i for s, p, i in grid]
    assert len(np.unique(derived)) == len(grid)


def orders(dml, n, seed, epoch):
    return dml(DATA + "out = data::order(n, seed, epoch)\n", "out", n=n, seed=seed, epoch=epoch)[:, 0]


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_order_is_a_permutation(dml, n):
    assert sorted(orders(dml, n, 42, 0)) == list(range(1, n + 1))


def test_order_depends_on_seed_and_epoch_alone(dml):
    first = orders(dml, 1000, 42, 0)
    assert np.array_equal(orders(dml, 1000, 42, 0), first)
    for other in (orders(dml, 1000, 43, 0), orders(dml, 1000, 42, 1)):
        assert (other == first).mean() < 0.02


def test_normalization_is_by_channel(dml):
    rng = np.random.default_rng(0)
    pixels, mean, std = rng.random((12, 3)), rng.random((1, 3)), rng.random((1, 3)) + 0.1
    out = dml(DATA + "out = data::normalize(pixels, mean, std)\n", "out", pixels=pixels, mean=mean, std=std)
    assert_close(out, (pixels - mean) / std)


@pytest.mark.parametrize("shape", [(5, 3), (400, 3000)])
def test_take_gives_rows_in_their_order(dml, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    rows = np.array([[5.0], [1.0], [5.0]])
    out = dml(DATA + "out = data::take(X, rows)\n", "out", X=x, rows=rows)
    assert np.array_equal(out, x[[4, 0, 4]])


@pytest.mark.parametrize("wrong", [0.0, -1.0, 4.0, 1.5, np.nan])
def test_labels_that_are_no_classes_are_refused(quick_dml, wrong):
    program = DATA + "y = data::check_labels(y, 3)\nn = nrow(y)\n"
    good = np.array([[1.0], [3.0], [2.0]])
    assert quick_dml(program, "n:int", y=good) == 3
    good[1] = wrong
    with pytest.raises(UserError, match=r"labels: found values from .* expected whole numbers from 1 to 3"):
        quick_dml(program, "n:int", y=good)
