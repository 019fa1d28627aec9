"""Runs that are stopped, lose their JVM or a checkpoint: they end as if nothing had happened."""

import errno
import os
import re
import shlex
import shutil
import signal

import pytest
from command_line import (
    assert_gone,
    assert_one_line_error,
    finish,
    jvms_of,
    run_here,
    start_process,
    wait_for,
)
from training_runs import (
    EPOCHS,
    SETTINGS,
    STEPS,
    assert_same_end,
    assert_same_weights,
    dying,
    lines,
    train_undisturbed,
)

from sysds_resnet.errors import EngineDied
from sysds_resnet.report import run_report as report
from sysds_resnet.scoring import evaluation
from sysds_resnet.training import session as session_module
from sysds_resnet.training.state import State


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """A folder of a run that nothing disturbed; no test changes it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train_undisturbed(engine, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of it that a test may change, with links in place of its large files."""
    folder = tmp_path / "copied"
    shutil.copytree(run, folder, copy_function=lambda a, b: (link_or_copy(a, b), b)[1])
    yield folder
    shutil.rmtree(folder)


def link_or_copy(source, destination):
    (os.link if source.endswith(".safetensors") else shutil.copy)(source, destination)


def test_ctrl_c_ends_a_run_after_the_step_under_way(run, narrow_package, shared, capfd, tmp_path):
    folder = tmp_path / "a run"
    process = start_process("train", *SETTINGS, "--out", folder, cwd=narrow_package)
    wait_for(process, lambda: (folder / "metrics.jsonl").exists())
    [jvm] = jvms_of(process)
    for flags in (["--resume", folder], [*SETTINGS, "--out", folder]):  # while it is at work
        refused = run_here(capfd, "train", *flags)
        assert_one_line_error(refused, f"{folder}: found a run at work there, process {process.pid} on")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert (outcome.code, outcome.err) == (0, "\nstopping after this step; once more to stop at once\n")
    found = re.search(r"^stopped at step (\d); continue with: \S+ -m (.*)$", outcome.out, re.MULTILINE)
    steps, command = int(found[1]), shlex.split(found[2])
    assert 1 <= steps < STEPS * EPOCHS and command == ["sysds_resnet.train", "--resume", str(folder)]
    assert_gone(jvm)
    assert not (folder / "weights.safetensors").exists()
    outcome = run_here(capfd, "train", *command[1:])
    assert outcome.code == 0, outcome
    assert f", from step {steps}\n" in outcome.out
    assert_same_end(folder, run)
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_a_run_without_one(
    run, narrow_package, shared, capfd, tmp_path, number
):
    folder = tmp_path / "run"
    process = start_process("train", *SETTINGS, "--out", folder, cwd=narrow_package)
    wait_for(process, lambda: (folder / "config.yaml").exists())
    [jvm] = jvms_of(process)
    process.send_signal(number)
    outcome = finish(process)
    assert outcome.code == 0 and "\nstopped at step 0; continue with: " in outcome.out, outcome
    assert_gone(jvm)
    shutil.rmtree(folder)


def test_a_second_signal_ends_a_run_at_once(narrow_package, tmp_path):
    process = start_process("train", *SETTINGS, "--out", tmp_path / "run", cwd=narrow_package)
    wait_for(process, lambda: jvms_of(process))
    [jvm] = jvms_of(process)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"  # it was heeded
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130 and outcome.err.endswith("interrupted\n"), outcome
    assert_gone(jvm)


@pytest.mark.long
def test_a_run_stopped_in_its_evaluation_evaluates_when_resumed(run, shared, capfd, monkeypatch, tmp_path):
    """An evaluation may take an hour; it need not be waited for."""
    folder, batches = tmp_path / "run", []

    def stopping(engine, dataset, *arguments):
        for batch in read_all(engine, dataset, *arguments):
            batches.append(batch)
            if len(batches) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    read_all = evaluation.read_all
    monkeypatch.setattr(evaluation, "read_all", stopping)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", folder)
    assert outcome.code == 0 and f"stopped at step {STEPS}; continue" in outcome.out
    assert [line["event"] for line in lines(folder)] == ["step"] * STEPS
    outcome = run_here(capfd, "train", "--resume", folder)
    assert outcome.code == 0, outcome
    assert_same_end(folder, run)
    shutil.rmtree(folder)


def test_a_finished_run_can_be_resumed_to_write_its_weights_again(run, copied, shared, capfd):
    """With settings that do not change the weights, which may differ."""
    (copied / "weights.safetensors").unlink()
    outcome = run_here(capfd, "train", "--resume", copied, "--heap", "2g", "--workers", 1, "--log-every", 9)
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_weights(copied, run)
    assert lines(copied) == lines(run)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(run, copied, shared, capfd):
    newest = copied / "checkpoints" / "step-00000004.safetensors"
    whole = newest.read_bytes()
    newest.unlink()  # it is a link
    newest.write_bytes(whole[: len(whole) // 2])
    outcome = run_here(capfd, "train", "--resume", copied)
    assert outcome.code == 0 and ", from step 2\n" in outcome.out, outcome
    assert f"weights: {copied / 'checkpoints' / 'step-00000002.safetensors'}\n" in outcome.out
    assert outcome.err.startswith(f"warning: {newest}: found a damaged checkpoint (")
    assert_same_end(copied, run)


@pytest.mark.long
def test_a_jvm_that_ends_is_replaced_and_leaves_no_trace(run, shared, capfd, monkeypatch, tmp_path):
    """Not for a full heap: with the same micro-batch, so that the result is the same bit by bit."""
    monkeypatch.setattr(State, "update", dying(2, EngineDied("JVM: killed")))
    outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    line = "warning: JVM: killed; going on in a new one from step 2, with the same micro-batch\n"
    assert outcome.err == 2 * line
    assert_same_end(tmp_path / "run", run)
    assert (tmp_path / "run" / "config.yaml").read_text() == (run / "config.yaml").read_text()
    shutil.rmtree(tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_moments_and_the_number_of_updates_go_on_too(shared, capfd, monkeypatch, tmp_path, optimizer):
    flags = [optimizer if flag == "sgd" else flag for flag in SETTINGS]
    assert run_here(capfd, "train", *flags, "--out", tmp_path / "undisturbed").code == 0
    monkeypatch.setattr(State, "update", dying(1, EngineDied("JVM: killed")))
    outcome = run_here(capfd, "train", *flags, "--out", tmp_path / "run")
    assert outcome.code == 0 and "going on in a new one from step 2" in outcome.err, outcome
    assert_same_end(tmp_path / "run", tmp_path / "undisturbed")
    for name in ("run", "undisturbed"):
        shutil.rmtree(tmp_path / name)


@pytest.mark.long
def test_a_jvm_that_always_ends_ends_the_run_which_goes_on_later(run, shared, capfd, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(State, "update", dying(99, EngineDied("JVM: killed"), step=4))
        outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    last = outcome.err.splitlines()[-1]
    assert outcome.code == 2, outcome
    assert last.startswith(
        "error: JVM: killed; the run goes on from the checkpoint of step 2 (1 step is lost)"
    )
    command = shlex.split(last.partition(" with: ")[2])
    assert run_here(capfd, "train", *command[3:]).code == 0
    assert_same_end(tmp_path / "run", run)
    shutil.rmtree(tmp_path / "run")


@pytest.mark.long
def test_a_jvm_that_is_killed_leaves_no_trace(run, narrow_package, tmp_path):
    """A real one; without a checkpoint before."""
    process = start_process("train", *SETTINGS, "--out", tmp_path / "run", cwd=narrow_package)
    wait_for(process, lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    [jvm] = jvms_of(process)
    jvm.kill()
    outcome = finish(process)
    assert outcome.code == 0, outcome
    assert re.match(r"warning: JVM: it ended with code -9 \(SIGKILL\): the system killed it", outcome.err)
    assert_same_end(tmp_path / "run", run)
    assert (tmp_path / "run" / "jvm.log").exists()
    shutil.rmtree(tmp_path / "run")


@pytest.mark.long
def test_what_only_reports_never_ends_a_run(run, shared, capfd, monkeypatch, tmp_path):
    """The record, the curves, the results and the display fail from the first step to the last."""

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("MetricsFile._append", "plot_curves", "Display.step", "Display.epoch", "Display.note"):
        owner, _, method = name.rpartition(".")
        monkeypatch.setattr(getattr(report, owner) if owner else report, method, fail)
    monkeypatch.setattr(session_module, "write_results", fail)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    assert outcome.err.startswith("warning: results.md not written: ")
    assert_same_weights(tmp_path / "run", run)
    shutil.rmtree(tmp_path / "run")
