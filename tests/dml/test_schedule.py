"""Learning rates against closed forms and PyTorch's schedulers, and seeds, in DML."""

import numpy as np
import pytest
import torch
from dml_runner import assert_close

from sysds_resnet.training.schedule import Schedule
from sysds_resnet.training.settings import TrainSettings

SCHEDULE = 'source("dml/optim/schedule.dml") as schedule\n'
SEEDS = 'source("dml/network/seeds.dml") as seeds\n'
DEFAULTS = dict(
    base_lr=10.0, end_lr=0.0, power=2.0, gamma=0.1, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
)  # fmt: skip


def rates(dml, name, steps, *, epochs=1, steps_per_epoch=1, warmup_epochs=0, milestones=(1,), **changes):
    """The learning rates of so many steps, which may be more than the run has."""
    return dml(
        SCHEDULE
        + """plan = schedule::plan(name, epochs, warmup_epochs, base_lr, end_lr, power, milestones, gamma,
          pct_start, div_factor, final_div_factor)
        while(FALSE){}
        out = matrix(0, rows=1, cols=steps)
        for (step in 1:steps) {
          out[1,step] = schedule::rate(step - 1, steps_per_epoch, plan)
        }
        """,
        "out",
        name=name,
        steps=steps,
        epochs=float(epochs),
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=float(warmup_epochs),
        milestones=np.array(milestones, dtype=float)[:, None],
        **{**DEFAULTS, **changes},
    )[0]


def of_pytorch(make, steps, base_lr):
    """What a scheduler of PyTorch gives, step by step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base_lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("end", [0.0, 1e-4])
@pytest.mark.parametrize(("total", "warmup"), [(20, 5), (20, 0), (1, 0), (7, 7)])
def test_polynomial_has_its_closed_form(dml, total, warmup, end, power):
    steps = total + 3
    step = np.arange(steps)
    progress = np.clip((step - warmup) / max(total - warmup, 1), 0, 1)
    expected = np.where(
        step < warmup, 10.0 * (step + 1) / (warmup + 1), end + (10.0 - end) * (1 - progress) ** power
    )
    found = rates(dml, "polynomial", steps, epochs=total, warmup_epochs=warmup, end_lr=end, power=power)
    assert_close(found, expected)


def test_rates_at_the_ends(quick_dml):
    found = rates(quick_dml, "polynomial", 103, epochs=100, warmup_epochs=9, base_lr=2.0, end_lr=0.01)
    assert_close(found[0], 0.2)  # the first step is not lost
    assert found[9] == 2.0 and (np.diff(found[:10]) > 0).all()
    assert (np.diff(found[9:101]) < 0).all()
    assert_close(found[100:], [0.01] * 3)  # and stays there


@pytest.mark.parametrize(("warmup", "first"), [(0.8, 4), (0.5, 3), (0.4, 2), (2.0, 10)])
def test_warm_ups_of_parts_of_epochs_are_rounded_to_steps(quick_dml, warmup, first):
    """Half a step counts."""
    found = rates(quick_dml, "constant", 15, epochs=3, steps_per_epoch=5, warmup_epochs=warmup)
    assert np.flatnonzero(found == 10)[0] == first
    assert_close(found[:first], 10 * np.arange(1, first + 1) / (first + 1))
    assert (found[first:] == 10).all()


@pytest.mark.parametrize("warmup", [0, 3])
def test_cosine_is_pytorchs_after_the_warm_up(dml, warmup):
    found = rates(dml, "cosine", 41, epochs=10, steps_per_epoch=4, warmup_epochs=warmup, end_lr=0.1)
    rest = 40 - 4 * warmup
    expected = of_pytorch(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, rest, eta_min=0.1), rest + 1, 10.0
    )
    assert_close(found[4 * warmup :], expected)


@pytest.mark.parametrize("milestones", [(3, 6, 8), (2.5,), (1, 1.25)])
def test_multistep_is_pytorchs(dml, milestones):
    found = rates(dml, "multistep", 40, epochs=10, steps_per_epoch=4, milestones=milestones, gamma=0.3)
    expected = of_pytorch(
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [round(4 * m) for m in milestones], 0.3), 40, 10.0
    )
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("steps", "options"),
    [(50, {}), (7, {}), (400, {"pct_start": 0.1, "div_factor": 10.0, "final_div_factor": 100.0})],
)
def test_onecycle_is_pytorchs_over_a_whole_run(dml, steps, options):
    found = rates(dml, "onecycle", steps, epochs=1, steps_per_epoch=steps, base_lr=0.002, **options)
    expected = of_pytorch(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.002, total_steps=steps, cycle_momentum=False, **options
        ),
        steps - 1,  # after the last one PyTorch refuses another
        0.002,
    )
    assert_close(found[:-1], expected)
    last = 0.002 / options.get("div_factor", 25) / options.get("final_div_factor", 1e4)
    assert found[-1] == pytest.approx(last, rel=1e-12)


def test_an_unknown_schedule_is_refused(quick_dml):
    with pytest.raises(Exception, match="schedule: found square, expected polynomial, cosine"):
        rates(quick_dml, "square", 1)


@pytest.mark.parametrize("name", ["polynomial", "cosine", "multistep", "constant", "onecycle"])
def test_rates_of_a_run_are_those_of_its_steps(engine, quick_dml, name):
    schedule = Schedule(name, 3, 4, 0.5, 10.0, 0.1, 2.0, (1.0, 2.0), 0.1, 0.3, 25.0, 1e4)
    same = dict(epochs=3, steps_per_epoch=4, warmup_epochs=0.5, milestones=(1, 2), end_lr=0.1)
    assert_close(schedule.rates(engine), rates(quick_dml, name, 12, **same))


@pytest.mark.parametrize(
    ("scaling", "expected"), [("none", 0.1), ("linear", 0.1 * 1024 / 256), ("sqrt", 0.1 * 2)]
)
def test_the_learning_rate_follows_the_batch_size(scaling, expected):
    settings = TrainSettings(base_lr=0.1, batch_size=1024, lr_scaling=scaling)
    assert settings.make_schedule(1).base_lr == pytest.approx(expected)


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
