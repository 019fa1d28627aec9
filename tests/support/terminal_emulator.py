"""A process in a terminal of its own that shows a run's display, and what an emulator makes of it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pyte

# What the process in the terminal runs: lines that it is sent.
CHILD = """
import os, signal, sys, warnings
sys.path.insert(0, sys.argv[2])
from run_events import epoch, step
from sysds_resnet.report.display import Display
for line in os.fdopen(int(sys.argv[1])):
    exec(line)
"""


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
