"""Running the commands, in this process or in one of their own, and checking how they fail."""

import importlib
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
from java_compilers import java_options

from sysds_resnet import convert, predict
from sysds_resnet.scoring import labelled
from sysds_resnet.training import start

ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str


def run_here(capfd, command, *arguments):
    """Run a command in this process; what the JVM prints counts too."""
    capfd.readouterr()
    try:
        code = importlib.import_module(f"sysds_resnet.{command}").main([str(a) for a in arguments])
    except SystemExit as stop:  # argparse's way out
        code = stop.code
    printed = capfd.readouterr()
    return Outcome(code, printed.out, printed.err)


def start_process(command, *arguments, cwd=None, **environment):
    """Start `python -m sysds_resnet.COMMAND`."""
    return start_python("-m", f"sysds_resnet.{command}", *map(str, arguments), cwd=cwd, **environment)


def start_python(*arguments, cwd=None, **environment):
    """Start Python with pipes, and with Ctrl-C heeded also where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process, timeout=120):
    """Wait for a process and give its outcome; one that takes too long is killed with its children."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        for late in [*psutil.Process(process.pid).children(recursive=True), process]:
            late.kill()
        raise
    return Outcome(process.returncode, out, err)


def wait_for(process, what, timeout=120):
    """Wait until something about a running process is true; fail after so many seconds, or if it ends."""
    deadline = time.monotonic() + timeout
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, finish(process, timeout=1)
        time.sleep(0.02)


def run_systemds(script, *options, cwd=ROOT, environment=None, package=None, **arguments):
    """Run scripts/systemds on a program; in its outcome `err` is the last line of standard error.

    With the folder of another package, such as `narrow_package`, that one runs it, in place of this checkout.
    """
    names = [f"{name}={value}" for name, value in arguments.items()]
    command = [ROOT / "scripts" / "systemds"]
    if package is not None:
        command = [sys.executable, "-m", "sysds_resnet.systemds"]
        cwd = package if cwd == ROOT else cwd
        environment = {"PYTHONPATH": str(package), **(environment or {})}
    done = subprocess.run(
        [*command, "-f", script, *options, *(["-nvargs", *names] if names else [])],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SYSTEMDS_STANDALONE_OPTS": " ".join(["-Xms2g -Xmx2g -Xmn1g", *java_options()]),
            **(environment or {}),
        },
    )
    return Outcome(done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2])


def jvms_of(process):
    """The JVMs that a process computes with; others only say which Java they are, and end."""
    return [child for child in psutil.Process(process.pid).children() if _computes(child)]


def _computes(process):
    try:
        return "java" in process.name() and bool({"-classpath", "-cp"} & set(process.cmdline()))
    except psutil.Error:  # it has ended
        return False


def reading_processes():
    """The processes of this one that read images."""
    return [p for p in psutil.Process().children(recursive=True) if "LokyProcess" in " ".join(p.cmdline())]


def assert_gone(jvm):
    """Check that a JVM ends, or has ended."""
    _, alive = psutil.wait_procs([jvm], timeout=10)
    assert not alive or jvm.status() == psutil.STATUS_ZOMBIE


def share_engine(patch, engine):
    """Have the commands of this process use a running engine instead of starting one each."""
    for module in (start, labelled, predict, convert):
        patch.setattr(module, "Engine", lambda *_args, **_kwargs: nullcontext(engine))


def assert_one_line_error(outcome, *found):
    """Check for exit code 2 and one line on standard error that holds all of `found`."""
    assert outcome.code == 2, outcome
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: "), outcome.err
    for text in found:
        assert str(text) in lines[0], outcome.err
