"""Runs on a Spark cluster of separate processes, with narrow networks, and what may happen to them."""

import os
import re
import shutil
import signal
import time

import numpy as np
import psutil
import pytest
from command_line import assert_one_line_error, finish, start_process, wait_for
from safetensors.numpy import load_file
from spark_cluster import cluster_processes, executors, spark_cluster
from training_runs import SETTINGS, assert_same_end, train_undisturbed

pytestmark = pytest.mark.long
MINUTES = 300  # seconds that a run may take here


@pytest.fixture(scope="module")
def narrow_cluster(narrow_package, tmp_path_factory):
    """The URL of a cluster of two workers whose executors have narrow networks, and its folder."""
    folder = tmp_path_factory.mktemp("narrow-cluster")
    with spark_cluster(folder, PYTHONPATH=str(narrow_package)) as url:
        yield url, folder


@pytest.fixture
def begin(narrow_cluster, narrow_package):
    """A function that starts a run of two executors in a folder."""
    return lambda folder, *flags: start(narrow_cluster[0], narrow_package, folder, *flags)


def start(url, package, folder, *flags):
    options = ["--engine", "spark", "--master", url, "--executors", "2", "--executor-memory", "1g"]
    options += [*SETTINGS[:-2], "--save-steps", "1", "--workers", "1", *flags, "--out", folder]
    return start_process("train", *options, cwd=package)


@pytest.fixture(scope="module")
def run(narrow_cluster, narrow_package, tmp_path_factory):
    """A run that nothing disturbed: its folder, its outcome, and the addresses on which it listened."""
    url, cluster = narrow_cluster
    folder, listening = tmp_path_factory.mktemp("spark") / "run", set()
    process = start(url, narrow_package, folder)
    wait_for(process, lambda: (folder / "metrics.jsonl").exists(), MINUTES)
    while process.poll() is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), *cluster_processes(cluster)]:
            listening |= addresses(one)
    outcome = finish(process)
    assert outcome.code == 0, outcome
    yield folder, outcome, listening
    shutil.rmtree(folder)


def addresses(process):
    try:
        found = process.net_connections("inet")
    except psutil.Error:  # it has ended
        return set()
    return {c.laddr.ip.removeprefix("::ffff:") for c in found if c.status == psutil.CONN_LISTEN}


def test_two_executors_end_as_one_machine_does(run, engine, tmp_path):
    folder, outcome, _ = run
    assert outcome.err == ""
    assert re.search(r"^engine:  2 processes, each with SystemDS", outcome.out, re.MULTILINE)
    assert outcome.out.count("validation top-1") == 1
    train_undisturbed(engine, tmp_path / "alone")
    names = os.listdir(tmp_path / "alone")
    assert sorted(os.listdir(folder)) == sorted([*names, "jvm.log", "output.log"])
    expected = load_file(tmp_path / "alone" / "weights.safetensors")
    for name, array in load_file(folder / "weights.safetensors").items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-8 * np.abs(array).max())


def test_nothing_of_a_cluster_on_one_machine_listens_but_on_loopback(run):
    assert run[2] <= {"127.0.0.1", "::1"}


def members(cluster):
    """The processes that train, in executors."""
    return [one for one in cluster_processes(cluster) if "processes.member" in " ".join(one.cmdline())]


def kill_executor(cluster):
    executors(cluster)[0].kill()


def kill_process(cluster):
    members(cluster)[0].kill()


def kill_python(cluster):
    """The Python of a task, whose process ends with it."""
    members(cluster)[0].parent().kill()


def kill_jvm(cluster):
    [jvm] = [one for one in members(cluster)[0].children() if one.name() == "java"]
    jvm.kill()


def pause(process, seconds):
    process.suspend()
    time.sleep(seconds)
    process.resume()


@pytest.mark.parametrize("disturb", [kill_executor, kill_process, kill_python, kill_jvm])
def test_what_is_killed_changes_nothing(run, begin, narrow_cluster, tmp_path, disturb):
    process = begin(tmp_path / "run")
    wait_for(process, lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), MINUTES)
    before = members(narrow_cluster[1])
    disturb(narrow_cluster[1])
    outcome = finish(process, MINUTES)
    assert outcome.code == 0 and "going on in a new one from step" in outcome.err, outcome
    assert_same_end(tmp_path / "run", run[0])
    assert psutil.wait_procs(before, timeout=120)[1] == []


@pytest.mark.parametrize("of", [executors, members])
def test_what_stands_still_for_a_moment_changes_nothing(run, begin, narrow_cluster, tmp_path, of):
    process = begin(tmp_path / "run")
    wait_for(process, lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), MINUTES)
    pause(of(narrow_cluster[1])[0], 10)
    outcome = finish(process, MINUTES)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert_same_end(tmp_path / "run", run[0])


def test_a_process_that_stands_still_is_replaced(run, begin, narrow_cluster, tmp_path):
    process = begin(tmp_path / "run", "--peer-timeout", "10")
    wait_for(process, lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), MINUTES)
    members(narrow_cluster[1])[0].suspend()
    outcome = finish(process, MINUTES)
    silent = r"process [01] on [\w.-]+: found no answer for 10 s, in which the others waited for it"
    assert outcome.code == 0 and re.search(silent, outcome.err), outcome
    assert not (tmp_path / "run" / "waiting").exists()
    assert_same_end(tmp_path / "run", run[0])


def test_an_executor_that_stands_still_for_ever_is_replaced(run, begin, narrow_cluster, tmp_path):
    """Spark gives it up after two minutes without a heartbeat, and its worker ends it."""
    process = begin(tmp_path / "run")
    wait_for(process, lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), MINUTES)
    before = [*executors(narrow_cluster[1]), *members(narrow_cluster[1])]
    before[0].suspend()
    outcome = finish(process, MINUTES)
    assert outcome.code == 0, outcome
    assert_same_end(tmp_path / "run", run[0])
    assert psutil.wait_procs(before, timeout=120)[1] == []


def test_a_killed_driver_is_resumed_exactly(run, begin, narrow_cluster, narrow_package, tmp_path):
    process = begin(tmp_path / "run")
    wait_for(process, lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), MINUTES)
    left = [*psutil.Process(process.pid).children(recursive=True), *executors(narrow_cluster[1])]
    left += members(narrow_cluster[1])
    process.kill()
    finish(process)
    assert psutil.wait_procs(left, timeout=120)[1] == []
    outcome = finish(start_process("train", "--resume", tmp_path / "run", cwd=narrow_package), MINUTES)
    assert outcome.code == 0 and ", from step " in outcome.out, outcome
    assert_same_end(tmp_path / "run", run[0])


def test_ctrl_c_ends_a_run_after_the_step_under_way(run, begin, narrow_package, tmp_path):
    process = begin(tmp_path / "run")
    wait_for(process, lambda: (tmp_path / "run" / "metrics.jsonl").exists(), MINUTES)
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert (outcome.code, outcome.err) == (0, "\nstopping after this step; once more to stop at once\n")
    assert re.search(r"^stopped at step \d; continue with: ", outcome.out, re.MULTILINE)
    assert not (tmp_path / "run" / "stop").exists()
    outcome = finish(start_process("train", "--resume", tmp_path / "run", cwd=narrow_package), MINUTES)
    assert outcome.code == 0, outcome
    assert_same_end(tmp_path / "run", run[0])


def test_too_few_executors_are_told_within_a_minute(begin, tmp_path):
    began = time.monotonic()
    outcome = finish(begin(tmp_path / "run", "--executors", "3", "--micro-batch", "2"))
    assert_one_line_error(outcome, "executors: found 2 of 3 with 1 cores", "expected all")
    assert time.monotonic() - began < 100  # a minute, and the start and end of a session
    assert not (tmp_path / "run").exists()


def test_nothing_is_left_behind(run, narrow_cluster):
    assert (
        psutil.wait_procs([*executors(narrow_cluster[1]), *members(narrow_cluster[1])], timeout=120)[1] == []
    )
