"""Standard output and standard error that fail or are not there end nothing, and change no exit code."""

import errno
import io
import os
import subprocess
import sys

import pytest
from disk_faults import failure
from run_events import epoch_event, step_event

from sysds_resnet.report.display import Display
from sysds_resnet.system import console
from sysds_resnet.system.console import say, warn


class Broken(io.StringIO):
    """A stream that fails in one of its functions."""

    encoding = "ascii"

    def __init__(self, function, error):
        super().__init__()
        self.error, self.calls = error, 0
        setattr(self, function, self.fail)

    def fail(self, *_):
        self.calls += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("function", ["write", "flush"])
@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF])
def test_streams_that_fail_end_nothing(function, code):
    stream = Broken(function, failure(code))
    say("text", stream)
    display = Display(4, 2, stream=stream, interval=0)
    with display:
        display.step(step_event(1))
        display.epoch(epoch_event(1))
        display.note("note")
    gone = code != errno.ENOSPC
    calls = stream.calls
    stream.error = None
    display.note("later")
    assert (stream.calls == calls) == gone  # a disk may have room again, a terminal does not come back


@pytest.mark.parametrize("stream", [None, "closed"])
def test_streams_that_are_not_there_end_nothing(monkeypatch, stream):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    say("text")
    warn("text")
    with Display(4, 2, interval=0) as display:
        display.step(step_event(1))
        display.note("note")


def test_names_that_no_encoding_has_are_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("caf\xe9 \udcff", stream)
    assert stream.buffer.getvalue() == b"caf\\xe9 \\udcff\n"


@pytest.mark.parametrize("target", ["a closed pipe", "/dev/full"])
def test_a_process_whose_output_is_gone_ends_with_its_own_code(target):
    """Python would exit with 120, for what it could not write at its end."""
    program = (
        f"import sys\nfrom {console.__name__} import say, settle, warn\n"
        "say('x' * 9000)\nwarn('y')\nsettle()\nsys.exit(7)"
    )
    if target == "a closed pipe":
        reading, output = os.pipe()
        os.close(reading)
    else:
        output = os.open(target, os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", program], stdout=output, stderr=output, check=False)
    os.close(output)
    assert done.returncode == 7
