"""Callbacks: they are told what the run does, in its order, and cannot end it but by asking."""

import sys
import threading

import pytest
from command_line import assert_one_line_error, run_here
from training_runs import SETTINGS

from sysds_resnet import Callback
from sysds_resnet.errors import UserError
from sysds_resnet.report.callbacks import Callbacks, load_callbacks
from sysds_resnet.report.metrics import read_lines
from sysds_resnet.settings.command_line import parse
from sysds_resnet.train import TrainSettings, train

MODULE = """
from sysds_resnet import Callback

TOLD = []

class Tell(Callback):
    def begin(self, run):
        self.run = run
        TOLD.append(("begin", run))
    def record(self, event, values):
        TOLD.append((event, values))
        if event == "step" and values["step"] == 3:
            self.run.stop()
    def end(self, finished):
        TOLD.append(("end", finished))

class Broken(Callback):
    def __init__(self):
        raise ValueError("of the\\nuser")

class Other:
    pass
"""


class Told(Callback):
    """Keeps what it is told, and in which thread."""

    def __init__(self):
        self.calls, self.threads = [], set()

    def begin(self, run):
        self.run = run

    def record(self, event, values):
        self.calls.append((event, values))
        self.threads.add(threading.current_thread())

    def end(self, finished):
        self.calls.append(("end", finished))


@pytest.fixture
def module(folder, monkeypatch):
    """A module of callbacks in the working directory."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (folder / "my_callbacks.py").write_text(MODULE)
    yield "my_callbacks"
    sys.modules.pop("my_callbacks", None)


@pytest.fixture
def run(tmp_path):
    """What callbacks are told of a run that begins."""
    return tmp_path, {"epochs": 2}, 4, 0


def test_a_run_tells_what_it_writes_to_its_metrics(shared, folder):
    told = Told()
    settings = parse(TrainSettings, [*SETTINGS, "--out", str(folder / "run")])
    assert train(settings, callbacks=[told]) == folder / "run"
    assert told.run.folder == folder / "run" and (told.run.total_steps, told.run.step) == (4, 0)
    assert told.run.settings["optimizer"] == "sgd" and told.run.settings["micro_batch"] == 4
    lines = [line for line in read_lines(folder / "run" / "metrics.jsonl") if line["event"] != "resources"]
    heard = [call for call in told.calls if call[0] != "resources"]
    assert heard.pop() == ("end", True)
    assert [{"event": event, **values} for event, values in heard] == [
        {name: value for name, value in line.items() if name != "time"} for line in lines
    ]
    assert len(told.threads) == 1 and threading.current_thread() not in told.threads


@pytest.mark.long
def test_a_callback_of_the_command_line_can_stop_a_run_which_then_goes_on(shared, capfd, folder, module):
    outcome = run_here(capfd, "train", *SETTINGS, "--callbacks", f"{module}:Tell", "--out", folder / "run")
    assert outcome.code == 0 and "stopped at step" in outcome.out, outcome
    told = sys.modules[module].TOLD
    assert told[0][0] == "begin" and told[-1] == ("end", False)
    told.clear()
    outcome = run_here(capfd, "train", "--resume", folder / "run")
    assert outcome.code == 0 and told[-1] == ("end", True)  # the run folder knows the callback
    assert told[0][1].step in (3, 4)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Tell", "found 'Tell', expected MODULE:CLASS"),
        ("my_callbacks:Broken", "cannot be made (ValueError: of the user)"),
        ("my_callbacks:Missing", "cannot be made (AttributeError: "),
        ("no_such_module:Tell", "cannot be made (ModuleNotFoundError: "),
        ("my_callbacks:Other", "found my_callbacks:Other, which is no Callback"),
    ],
)
def test_what_is_no_callback_is_refused_before_the_run(shared, capfd, folder, module, name, found):
    outcome = run_here(capfd, "train", *SETTINGS, "--callbacks", name, "--out", folder / "run")
    assert_one_line_error(outcome, "callbacks: ", found)
    assert not (folder / "run").exists()


def test_callbacks_of_the_working_directory_are_found(module):
    assert load_callbacks([f"{module}:Tell"])[0].__class__.__name__ == "Tell"


def test_one_that_fails_is_noted_once_and_the_others_are_told(run):
    class Failing(Callback):
        def record(self, event, values):
            if values["step"] != 3:
                raise OSError(28, "No space left on device")

    notes, told = [], Told()
    callbacks = Callbacks([Failing(), told], notes.append)
    callbacks.begin(*run)
    for step in range(1, 6):
        callbacks.record("step", {"step": step})
    callbacks.end(True)
    assert [values["step"] for event, values in told.calls[:-1]] == [1, 2, 3, 4, 5]
    assert len(notes) == 2  # once before it succeeded, and once after
    assert notes[0].startswith("callback Failing failed: ") and notes[0].endswith("; the run goes on")


def test_one_that_fails_at_the_beginning_ends_the_run(run):
    class Failing(Callback):
        def begin(self, run):
            raise RuntimeError("no server")

    with pytest.raises(UserError, match=r"Failing failed at the beginning \(RuntimeError: no server\)"):
        Callbacks([Failing()], pytest.fail).begin(*run)


def test_a_slow_one_does_not_hold_up_the_run(run):
    free = threading.Event()

    class Slow(Told):
        def record(self, event, values):
            free.wait(60)
            super().record(event, values)

    slow = Slow()
    callbacks = Callbacks([slow], pytest.fail)
    callbacks.begin(*run)
    for step in range(100):
        callbacks.record("step", {"step": step})
    assert slow.calls == []
    free.set()
    callbacks.end(False)
    assert [values["step"] for _, values in slow.calls[:-1]] == list(range(100))
    assert slow.calls[-1] == ("end", False)


def test_a_callback_may_ask_for_the_end_at_any_time(run):
    told = Told()
    callbacks = Callbacks([told], pytest.fail)
    callbacks.begin(*run)
    assert not callbacks.stopping()
    told.run.stop()
    assert callbacks.stopping()
    callbacks.end(False)


def test_a_run_begins_once_and_ends_once(run):
    told = Told()
    callbacks = Callbacks([told], pytest.fail)
    callbacks.record("step", {"step": 1})  # before the beginning there is nobody to tell
    callbacks.begin(*run)
    callbacks.begin(*run)
    callbacks.end(True)
    callbacks.end(False)
    assert told.calls == [("end", True)]
