"""What a run writes where no terminal is: lines for a log, the time that is left, and any file name."""

import io
import os
import re
from types import SimpleNamespace

import pytest
from run_events import epoch, step

from sysds_resnet.report import display
from sysds_resnet.report.display import Display, epoch_line

LINE = "epoch  1/20  train loss 1.8294  val loss 2.5000  top-1  10.00 %  top-5  49.17 %"


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def run_of(clock, stream, steps, seconds=2.0, validation=10.0, **settings):
    """Have a display shown steps of a run of 20 epochs of ten steps."""
    with Display(200, 20, stream=stream, **settings) as shown:
        for number in steps:
            clock.now += seconds
            shown.step(step(number, (number - 1) // 10 + 1, seconds))
            if number % 10 == 0:
                clock.now += validation
                shown.epoch(epoch(number // 10))


def test_a_log_has_a_line_for_each_epoch_and_none_for_quick_steps(clock):
    log = io.StringIO()
    run_of(clock, log, range(1, 31))
    assert log.getvalue().splitlines() == [epoch_line(epoch(number), 20) for number in (1, 2, 3)]


def test_a_log_of_slow_steps_has_lines_about_them(clock):
    log = io.StringIO()
    run_of(clock, log, range(1, 11), seconds=25.0, interval=60)
    lines = log.getvalue().splitlines()
    assert [re.search(r"step +(\d+)/200", line)[1] for line in lines[:-1]] == ["3", "6", "9"]
    assert lines[0].endswith("loss 1.500  top-1 25.0 %  lr 9.62  2.6 images/s  wait 2 %")
    assert lines[-1] == epoch_line(epoch(1), 20)


def test_a_log_of_a_long_validation_has_lines_about_it(clock):
    log = io.StringIO()
    with Display(200, 20, stream=log, interval=60) as shown:
        shown.step(step(10))
        for done in range(10, 101, 10):
            clock.now += 25
            shown.validating(done, 100)
    lines = log.getvalue().splitlines()
    assert [re.search(r"validating (\d+)/100$", line)[1] for line in lines] == ["30", "60", "90"]
    assert lines[0].startswith("epoch  1/20  step  10/200")


def test_the_eta_is_that_of_the_steps_and_validations_left(clock):
    log = io.StringIO()
    run_of(clock, log, range(1, 26), interval=0)
    found = re.findall(r"step +(\d+)/200 .*ETA (\S+)", log.getvalue())
    etas = {int(number): eta for number, eta in found}
    assert etas[1] == "0:06:38"  # 199 steps of 2 s; how long validation takes is not known yet
    assert etas[11] == "0:09:28"  # 189 steps, and 19 times 10 s
    assert etas[25] == "0:08:50"  # 175 steps, and 18 times 10 s


def test_the_eta_of_a_resumed_run_knows_only_its_own_steps(clock):
    log = io.StringIO()
    with Display(200, 20, step=190, stream=log, interval=0) as shown:
        clock.now += 500  # until the engine is warm
        shown.step(step(191, 20, seconds=3.0))
    assert "epoch 20/20  step 191/200   96 %  ETA 0:00:27" in log.getvalue()


def test_the_eta_follows_a_run_that_has_become_slower(clock):
    log = io.StringIO()
    with Display(10**6, 1, stream=log, interval=0) as shown:
        for number in range(1, 201):
            seconds = 1.0 if number <= 100 else 3.0
            clock.now += seconds
            shown.step(step(number, seconds=seconds, wait=0.0))
    *_, last = log.getvalue().splitlines()
    assert "  21.4 images/s  " in last  # 64 / 3, as the fast steps hardly count any more
    assert "ETA 34 days, " in last  # 999,800 steps of 3 s are 34.7 days


def test_the_line_of_an_epoch_without_validation_has_no_figures_of_it():
    event = epoch(3, val_loss=None, val_top1=None, val_top5=None, images_per_s=None)
    assert epoch_line(event, 20) == "epoch  3/20  train loss 1.8294  lr     9.62  36 s"
    assert epoch_line(epoch(1), 20).startswith(LINE)


def test_colour_variables_do_not_make_a_log_a_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "1")
    log = io.StringIO()
    with Display(200, 20, stream=log) as shown:
        shown.step(step(1))
        shown.note("a note")
    assert log.getvalue() == "a note\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_note_may_hold_any_file_name(encoding):
    name = os.fsdecode(b"caf\xc3\xa9-\xff.jpg")
    log = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with Display(200, 20, stream=log) as shown:
        shown.note(name)
    log.seek(0)
    assert log.read() == {"utf-8": "café-\\udcff.jpg\n", "ascii": "caf\\xe9-\\udcff.jpg\n"}[encoding]


def test_a_run_goes_on_when_its_log_cannot_be_written():
    full = open("/dev/full", "w")  # noqa: SIM115
    with Display(200, 20, stream=full) as shown:
        shown.note("a note")
        shown.epoch(epoch(1))
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_each_line_of_a_log_is_there_at_once(tmp_path):
    with open(tmp_path / "log", "w") as log, Display(200, 20, stream=log) as shown:
        shown.note("a note")
        assert (tmp_path / "log").read_text() == "a note\n"
