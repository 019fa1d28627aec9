"""Learning rates and seeds in DML."""

import numpy as np
import pytest
from dml_runner import assert_close

SCHEDULE = 'source("dml/schedule.dml") as schedule\n'
SEEDS = 'source("dml/seeds.dml") as seeds\n'


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
