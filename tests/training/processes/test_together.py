"""Runs of several processes of this machine by the train command, and what may happen to them."""

import os
import re
import shutil
import signal

import numpy as np
import psutil
import pytest
from command_line import assert_one_line_error, finish, run_here, start_process, wait_for
from safetensors.numpy import load_file
from training_runs import SETTINGS, assert_same_end, train_undisturbed

TOGETHER = [*SETTINGS, "--processes", "2", "--workers", "1", "--save-steps", "1"]


@pytest.fixture(scope="module")
def run(narrow_package, tmp_path_factory):
    """A folder of a run of two processes that nothing disturbed, and the addresses on which it listened."""
    folder = tmp_path_factory.mktemp("together") / "run"
    process, listening = start_process("train", *TOGETHER, "--out", folder, cwd=narrow_package), set()
    wait_for(process, lambda: (folder / "metrics.jsonl").exists())
    while process.poll() is None:
        listening |= addresses(process)
    outcome = finish(process)
    assert outcome.code == 0, outcome
    yield folder, outcome, listening
    shutil.rmtree(folder)


def addresses(process):
    """The addresses on which a process and all that it has started listen."""
    found = set()
    for one in family(process):
        try:
            connections = one.net_connections("inet")
        except psutil.Error:  # it has ended
            continue
        found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def family(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def members(process):
    """The processes that train, by their ranks."""
    found = [one for one in psutil.Process(process.pid).children() if "member" in " ".join(one.cmdline())]
    return sorted(found, key=lambda one: one.create_time())


def assert_trained_as_one(folder, engine, alone):
    """Check that a run ended as that of one process does, but for rounding, with the same files."""
    train_undisturbed(engine, alone)
    assert sorted(os.listdir(folder)) == sorted([*os.listdir(alone), "jvm.log"])
    expected = load_file(alone / "weights.safetensors")
    for name, array in load_file(folder / "weights.safetensors").items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-8 * np.abs(array).max())


def test_two_processes_of_which_one_is_killed_end_as_one_does(narrow_package, engine, tmp_path):
    """Nothing of theirs listens but on loopback."""
    folder = tmp_path / "a run"
    process = start_process("train", *TOGETHER, "--out", folder, cwd=narrow_package)
    wait_for(process, lambda: (folder / "metrics.jsonl").exists())
    listening, before = addresses(process), family(process)
    members(process)[1].kill()
    outcome = finish(process)
    assert outcome.code == 0, outcome
    assert listening == {"127.0.0.1"}
    assert re.search(r"^engine:  2 processes, each with SystemDS", outcome.out, re.MULTILINE)
    assert outcome.out.count("validation top-1") == 1
    assert re.fullmatch(
        r"warning: process 1: found it ended by SIGKILL, expected it to work to the end of the run; going on "
        r"in a new one from step \d, with the same micro-batch",
        outcome.err.strip(),
    )
    assert_trained_as_one(folder, engine, tmp_path / "alone")
    assert psutil.wait_procs(before, timeout=20)[1] == []


@pytest.mark.long
def test_two_processes_end_as_one_does(run, engine, tmp_path):
    folder, outcome, listening = run
    assert outcome.err == "" and outcome.out.count("validation top-1") == 1
    assert listening == {"127.0.0.1"}
    assert_trained_as_one(folder, engine, tmp_path / "alone")


def disturbed(run, narrow_package, folder, act, *flags):
    """A run to which something happens once its first checkpoint is there; it ends as if nothing had."""
    process = start_process("train", *TOGETHER, *flags, "--out", folder, cwd=narrow_package)
    wait_for(process, lambda: list((folder / "checkpoints").glob("step-*")))
    before = family(process)
    act(process)
    outcome = finish(process)
    assert outcome.code == 0, outcome
    assert_same_end(folder, run[0])
    assert psutil.wait_procs(before, timeout=20)[1] == []
    return outcome


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_changes_nothing(run, narrow_package, tmp_path, rank):
    outcome = disturbed(
        run, narrow_package, tmp_path / "a run", lambda process: members(process)[rank].kill()
    )
    assert f"process {rank}: found it ended by SIGKILL" in outcome.err


@pytest.mark.long
def test_a_killed_jvm_changes_nothing(run, narrow_package, tmp_path):
    def kill(process):
        [jvm] = [one for one in members(process)[1].children() if one.name() == "java"]
        jvm.kill()

    disturbed(run, narrow_package, tmp_path / "a run", kill)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stands_still_is_replaced(run, narrow_package, tmp_path, rank):
    outcome = disturbed(
        run,
        narrow_package,
        tmp_path / "a run",
        lambda process: members(process)[rank].suspend(),
        *["--peer-timeout", "8"],
    )
    assert f"process {rank}: found no answer for 8 s, in which the others waited" in outcome.err


@pytest.mark.long
def test_a_process_that_stands_still_for_a_moment_changes_nothing(run, narrow_package, tmp_path):
    def pause(process):
        member = members(process)[1]
        member.suspend()
        with pytest.raises(TimeoutError):
            wait_for_nothing(10)
        member.resume()

    assert disturbed(run, narrow_package, tmp_path / "a run", pause).err == ""


def wait_for_nothing(seconds):
    signal.sigtimedwait([], seconds)
    raise TimeoutError


@pytest.mark.long
def test_nothing_outlives_a_killed_launcher(run, narrow_package, tmp_path):
    folder = tmp_path / "a run"
    process = start_process("train", *TOGETHER, "--out", folder, cwd=narrow_package)
    wait_for(process, lambda: (folder / "metrics.jsonl").exists())
    left = family(process)
    process.kill()
    finish(process)
    assert len(left) >= 4 and psutil.wait_procs(left, timeout=20)[1] == []
    process = start_process("train", "--resume", folder, cwd=narrow_package)
    outcome = finish(process)
    assert outcome.code == 0, outcome
    assert_same_end(folder, run[0])


@pytest.mark.long
def test_ctrl_c_ends_all_processes_after_the_step_under_way(run, narrow_package, tmp_path):
    folder = tmp_path / "a run"
    process = start_process("train", *TOGETHER, "--out", folder, cwd=narrow_package)
    wait_for(process, lambda: (folder / "metrics.jsonl").exists())
    left = family(process)
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert (outcome.code, outcome.err) == (0, "\nstopping after this step; once more to stop at once\n")
    assert re.search(r"^stopped at step \d; continue with: ", outcome.out, re.MULTILINE)
    assert psutil.wait_procs(left, timeout=20)[1] == []
    outcome = finish(start_process("train", "--resume", folder, cwd=narrow_package))
    assert outcome.code == 0, outcome
    assert_same_end(folder, run[0])


def test_processes_need_images_for_all_of_them(capfd, tmp_path):
    outcome = run_here(capfd, "train", *TOGETHER, "--processes", "3", "--out", tmp_path / "a run")
    assert_one_line_error(outcome, "processes: found 3 for a batch of 8 images in micro-batches of 4")
    assert not (tmp_path / "a run").exists()


@pytest.mark.parametrize("flags", [["--engine", "spark"], ["--profile", "1"]])
def test_processes_are_no_part_of_other_ways(capfd, tmp_path, flags):
    outcome = run_here(capfd, "train", *TOGETHER, *flags, "--out", tmp_path / "a run")
    assert_one_line_error(outcome, "settings: found processes 2 with", "expected one of them")
