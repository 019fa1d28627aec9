"""Runs killed with -9 at any moment, and resumed: they end bit by bit as if nothing had happened."""

import shutil
import time

import numpy as np
import pytest
from command_line import assert_gone, finish, jvms_of, run_here, share_engine, start_process
from narrow import wide_networks
from training_runs import assert_same_end

from sysds_resnet import train

SETTINGS = [
    *["--dataset", "synthetic", "--num-images", "24", "--num-classes", "4", "--model", "resnet18"],
    *["--batch-size", "8", "--micro-batch", "4", "--mixup", "0.2", "--ema-decay", "0.9"],
    *["--base-lr", "1", "--precision", "double", "--heap", "1g", "--workers", "1", "--save-steps", "2"],
]


# the real networks, as the processes have them that are killed: their checkpoints take a while to write
pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def engine(wide_engine):
    return wide_engine


@pytest.fixture(scope="module")
def undisturbed(engine, tmp_path_factory):
    """A function from a number of epochs to the folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(epochs):
        if not (folder / str(epochs)).exists():
            with pytest.MonkeyPatch.context() as patch, wide_networks():
                share_engine(patch, engine)
                assert (
                    train.main([*SETTINGS, "--epochs", str(epochs), "--out", str(folder / str(epochs))]) == 0
                )
        return folder / str(epochs)

    yield run
    shutil.rmtree(folder)


def kill(process):
    """Kill a run, whose JVM then ends by itself, and clear away what is left of it in memory."""
    jvms = jvms_of(process)
    folders = [
        a.partition("=")[2] for jvm in jvms for a in jvm.cmdline() if a.startswith("-Djava.io.tmpdir=")
    ]
    process.kill()
    finish(process)
    for jvm in jvms:
        assert_gone(jvm)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def steps_of(folder):
    """Steps in the record of a run."""
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"event": "step"') if metrics.exists() else 0


def writing(folder):
    """Whether a checkpoint is being written."""
    return any(folder.glob("checkpoints/.*.tmp"))


def when_writing(process, folder, _rng):
    return writing(folder)


def after_steps(count):
    """The moment some time after so many steps."""

    def due(process, folder, rng):
        if steps_of(folder) < count:
            return False
        time.sleep(rng.uniform(0, 0.5))
        return True

    return due


def disturbed_run(folder, epochs, moments, rng):
    """Start a run and kill it at these moments, resuming it each time; the kills that came before its end."""
    kills, in_writing = 0, 0
    for moment in moments:
        begun = (folder / "config.yaml").exists()
        options = ["--resume", folder] if begun else [*SETTINGS, "--epochs", epochs, "--out", folder]
        process = start_process("train", *options)
        while process.poll() is None and not moment(process, folder, rng):
            time.sleep(0.001)
        if process.poll() is not None:
            assert finish(process).code == 0
            break
        in_writing += writing(folder)
        kill(process)
        kills += 1
    return kills, in_writing


@pytest.mark.long
def test_three_kills_leave_no_trace(undisturbed, shared, capfd, folder):
    rng = np.random.default_rng()
    at_start = lambda process, folder, rng: (folder / "config.yaml").exists()  # noqa: E731
    kills, in_writing = disturbed_run(folder / "run", 2, [at_start, when_writing, after_steps(4)], rng)
    assert kills == 3 and in_writing >= 1
    outcome = run_here(capfd, "train", "--resume", folder / "run")
    assert outcome.code == 0, outcome
    assert_same_end(folder / "run", undisturbed(2))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_kills_leave_no_trace(undisturbed, shared, capfd, folder):
    """At random moments: of the start, of steps, of evaluations, and while checkpoints are written."""
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    epochs = 12
    target = folder / "run"

    def random_moment():
        if rng.uniform() < 0.4:
            return when_writing
        seconds = rng.uniform(0, 12)
        began = time.monotonic()
        return lambda process, folder, rng: time.monotonic() - began > seconds

    kills = writes = 0
    while kills < 25:
        done, in_writing = disturbed_run(target, epochs, [random_moment()], rng)
        kills, writes = kills + done, writes + in_writing
        if done == 0:  # the run had ended before its kill
            assert_same_end(target, undisturbed(epochs))
            shutil.rmtree(target)
    assert writes >= 3
    if target.exists() and (target / "config.yaml").exists():
        outcome = run_here(capfd, "train", "--resume", target)
        assert outcome.code == 0, outcome
        assert_same_end(target, undisturbed(epochs))
