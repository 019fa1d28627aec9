"""What a run shows while it trains: on a terminal, by an emulator of one; elsewhere, by its text."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pyte
import pytest

from sysds_resnet.report import display
from sysds_resnet.report.display import Display, epoch_line
from sysds_resnet.report.events import EpochEvent, StepEvent, StepMetrics

# What the process in the terminal runs: lines that it is sent.
CHILD = """
import os, signal, sys, warnings
sys.path.insert(0, sys.argv[2])
from test_display import epoch, step
from sysds_resnet.report.display import Display
for line in os.fdopen(int(sys.argv[1])):
    exec(line)
"""
LINE = "epoch  1/20  train loss 1.8294  val loss 2.5000  top-1  10.00 %  top-5  49.17 %"


def step(number, epoch=1, seconds=2.0, wait=0.5, loss=1.5, skipped=False):
    """An event of 64 images."""
    metrics = StepMetrics(loss=loss, top1=0.25, top5=0.75, lr=9.6239, grad_norm=1.0, skipped=skipped)
    return StepEvent(step=number, epoch=epoch, metrics=metrics, seconds=seconds, images=64, data_wait=wait)


def epoch(number, **changed):
    """An event of an epoch of ten steps."""
    values = dict(train_loss=1.8294, val_loss=2.5, val_top1=0.1, val_top5=0.4917, lr=9.6239)
    values |= dict(images_per_s=38.8, seconds=36.0, data_wait_s=0.5) | changed
    return EpochEvent(epoch=number, step=10 * number, **values)


class Terminal:
    """A process in a terminal of its own, and what that shows."""

    def __init__(self, columns=80, rows=12):
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        commands, self._commands = os.pipe()
        tests = os.path.dirname(__file__)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(commands), tests],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=[commands],
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            # a size in the environment, as pytest's own processes have it, would win over the terminal's
            env={k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
            | {"TERM": "xterm-256color"},
        )
        os.close(commands)
        os.close(slave)

    def send(self, *lines):
        """Have the process run lines of Python."""
        os.write(self._commands, "".join(f"{line}\n" for line in lines).encode())

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def wait_for(self, what):
        """Read what the process writes until something about the lines on the screen is true."""
        deadline = time.monotonic() + 60
        while not what(self.lines()):
            assert time.monotonic() < deadline, self.lines()
            self._read()
        return self.lines()

    def text(self):
        """The screen as one line."""
        return "".join(self.screen.display)

    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    def close(self):
        self.process.kill()
        self.process.wait()
        for end in (self._commands, self.master):
            if end is not None:
                os.close(end)

    def _read(self):
        if not select.select([self.master], [], [], 0.05)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the process has ended
            return False
        self._stream.feed(data)
        return bool(data)


@pytest.fixture(scope="module")
def process():
    """A process in a terminal, for tests that leave it alive."""
    terminal = Terminal()
    terminal.send("d = Display(200, 20)")
    yield terminal
    terminal.close()


@pytest.fixture
def terminal(process):
    """Give an empty terminal of some size with a display of 200 steps in 20 epochs."""

    def make(columns=80, rows=12, kind="xterm-256color"):
        process.resize(columns, rows)
        process.send("d.__exit__()", f"os.environ['TERM'] = {kind!r}", r"print('\x1bc-')")
        process.wait_for(lambda lines: lines[0] == "-")
        process.send(r"print('\x1bc', end='')", "d = Display(200, 20).__enter__()")
        return process

    return make


@pytest.fixture
def own_terminal():
    """A terminal whose process may be killed, with the same display."""
    terminal = Terminal()
    terminal.send("d = Display(200, 20).__enter__()")
    yield terminal
    terminal.close()


def shown(lines):
    """The lines that hold the display's two: the bar's, and the figures'."""
    return [i for i, line in enumerate(lines) if "ETA" in line or line.startswith("loss")]


# On a terminal


def test_a_terminal_shows_where_the_run_is(terminal):
    here = terminal()
    lines = here.wait_for(lambda lines: lines[1] == "waiting for the first step")
    assert lines[0].endswith("epoch  1/20  step   0/200    0 %")
    here.send("d.step(step(7), 3 * 2**30)")
    lines = here.wait_for(lambda lines: "step   7" in lines[0])
    bar, rest = lines[0].split("  ", 1)
    assert re.fullmatch(r"epoch  1/20  step   7/200    4 %  ETA 0:0\d:\d\d", rest)
    assert set(bar) <= set("━╸╺")
    assert lines[1] == "loss 1.500  top-1 25.0 %  lr 9.62  32.0 images/s  wait 25 %  heap 3.0 GiB"
    here.send("d.step(step(10))", "d.epoch(epoch(1))")
    lines = here.wait_for(lambda lines: "step  10" in lines[2])
    assert here.text().startswith(epoch_line(epoch(1), 20))
    assert not any(lines[4:])


def test_it_says_that_the_network_is_being_validated_or_that_an_update_was_left_out(terminal):
    here = terminal()
    here.send("d.step(step(10))")
    here.wait_for(lambda lines: lines[1].startswith("validating  loss 1.500"))
    here.send("d.epoch(epoch(1))")
    here.wait_for(lambda lines: lines[3].startswith("loss 1.500"))
    here.send("d.step(step(11, 2, loss=float('nan'), skipped=True))")
    here.wait_for(lambda lines: lines[3].startswith("update left out  loss nan"))


def test_what_else_is_printed_stands_above_the_display(terminal):
    here = terminal()
    here.send(
        "d.step(step(1))",
        "d.note('a note ' + 30 * 'that is long ')",
        "print('printed')",
        "print('to standard error', file=sys.stderr)",
        "warnings.warn('a warning')",
        "d.note('[bold]a/list[0] :smile:')",
        "d.step(step(2))",
    )
    lines = here.wait_for(lambda lines: any("step   2" in line for line in lines))
    text = "".join(lines[: shown(lines)[0]])
    places = [
        text.index(part)
        for part in (
            "that is long that is long",
            "printed",
            "to standard error",
            "UserWarning: a warning",
            "[bold]a/list[0] :smile:",
        )
    ]
    assert places == sorted(places)
    assert len(shown(lines)) == 2
    assert not any(lines[shown(lines)[1] + 1 :])


@pytest.mark.parametrize("columns", [5, 20, 45, 60])
def test_a_narrow_terminal_shows_the_first_figures(terminal, columns):
    here = terminal(columns, 6)
    here.send("d.step(step(7), 3 * 2**30)")
    here.wait_for(lambda lines: lines[1].startswith("lo"))
    here.send("d.step(step(8, loss=3.0), 3 * 2**30)", "d.note('-')")
    lines = here.wait_for(lambda lines: "-" in lines)
    lines = lines[lines.index("-") + 1 :]
    full = "loss 3.000  top-1 25.0 %  lr 9.62  32.0 images/s  wait 25 %  heap 3.0 GiB"
    assert full.startswith(lines[1])
    position = re.sub("^[━╸╺]+  |  ETA.*", "", lines[0])
    assert "epoch  1/20  step   8/200    4 %".startswith(position)
    assert all(len(line) <= columns - 3 for line in lines)
    assert not any(lines[2:])  # nothing was wrapped


def test_a_resized_terminal_shows_it_at_the_new_width(terminal):
    here = terminal(80, 12)
    here.send("d.step(step(1), 2**30)")
    here.wait_for(lambda lines: "heap" in lines[1])
    here.resize(40, 12)
    here.wait_for(lambda lines: lines[0] == "epoch  1/20  step   1/200    0 %")
    here.resize(100, 12)
    lines = here.wait_for(lambda lines: "heap 1.0 GiB" in lines[1])
    assert "━" in lines[0]
    assert not any(lines[2:])
    assert here.process.poll() is None


def test_ctrl_c_leaves_the_display_whole(terminal):
    here = terminal()
    here.send(
        "signal.signal(signal.SIGINT, lambda *_: print('\\nstopping after this step', file=sys.stderr))",
        "d.step(step(1), 2**30)",
    )
    here.wait_for(lambda lines: "heap" in lines[1])
    os.write(here.master, b"\x03")  # which the terminal shows as ^C, at the cursor
    here.wait_for(lambda lines: "stopping after this step" in lines)
    here.send("d.step(step(2), 2**30)")
    lines = here.wait_for(lambda lines: any("step   2" in line for line in lines))
    assert len(shown(lines)) == 2
    assert not any(lines[shown(lines)[1] + 1 :])
    assert not any("^C" in line for line in lines)


def test_nothing_but_what_was_printed_stays(terminal):
    here = terminal()
    here.send("d.step(step(10))", "d.epoch(epoch(1, val_top5=None))", "d.__exit__()", "print('after')")
    lines = here.wait_for(lambda lines: "after" in lines)
    assert here.text().startswith(epoch_line(epoch(1, val_top5=None), 20))
    assert lines.index("after") == 2
    assert not any(lines[3:])
    assert not here.screen.cursor.hidden


def test_a_dumb_terminal_gets_plain_lines(terminal):
    here = terminal(kind="dumb")
    here.send("d.step(step(1))", "d.epoch(epoch(1))")
    here.wait_for(lambda lines: "36 s" in "".join(lines))
    assert here.text().rstrip() == epoch_line(epoch(1), 20)


def test_a_killed_run_leaves_the_cursor(own_terminal):
    own_terminal.send("d.step(step(1))")
    own_terminal.wait_for(lambda lines: "step   1" in lines[0])
    own_terminal.process.kill()
    own_terminal.process.wait()
    assert not own_terminal.screen.cursor.hidden


def test_a_run_outlives_its_terminal(own_terminal, tmp_path):
    here = own_terminal
    here.send("signal.signal(signal.SIGHUP, signal.SIG_IGN)", "d.step(step(1))")
    here.wait_for(lambda lines: "step   1" in lines[0])
    os.close(here.master)
    here.master = None
    here.send(
        "import time",
        "d.note('to nobody')",
        "print('to nobody')",
        "time.sleep(1)",  # in which it is drawn
        "d.step(step(2)); d.epoch(epoch(1)); d.__exit__()",
        f"open({str(tmp_path / 'done')!r}, 'w').close()",
        "os._exit(0)",
    )
    assert here.process.wait(60) == 0
    assert (tmp_path / "done").exists()


# Elsewhere


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
    assert epoch_line(event, 20) == "epoch  3/20  train loss 1.8294  lr   9.6239  36 s"
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
