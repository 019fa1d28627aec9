"""What a run shows on a terminal while it trains, by an emulator of one."""

import os
import re

import pytest
from run_events import epoch
from terminal_emulator import Terminal

from sysds_resnet.report.display import epoch_line


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
    here.send("d.validating(40, 100)")
    here.wait_for(lambda lines: lines[1].startswith("validating 40/100  loss 1.500"))
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
