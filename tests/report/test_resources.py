"""What a run takes of its machine, against what the kernel counts for single processes."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest
from lone_process import be_alone, wait_until

from sysds_resnet.report.resources import ProcessUsage, ResourceSampler

BUSY = "while True: pass"


# A child of a child that holds 200 MB and waits.
HOLDER = """
import subprocess, sys
code = "held = b'x' * 200_000_000; print('ready', flush=True); import time; time.sleep(60)"
subprocess.run([sys.executable, "-c", code])
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No GPU, whatever this machine has, and no processes of other tests."""
    be_alone(monkeypatch)


@contextmanager
def python(code):
    """A child process."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()
        process.stdout.close()


def seconds_of(process):
    times = process.cpu_times()
    return times.user + times.system


# Processor and memory


def test_a_busy_child_shows_the_processor_time_that_the_kernel_counts():
    with python(BUSY) as child:
        here, busy = psutil.Process(), psutil.Process(child.pid)
        wait_until(lambda: seconds_of(busy) > 0.2)
        usage = ProcessUsage()
        began, before = time.perf_counter(), (seconds_of(here), seconds_of(busy))
        wait_until(lambda: seconds_of(busy) > before[1] + 0.5)
        used = seconds_of(here) + seconds_of(busy) - sum(before)
        expected = 100 * used / (time.perf_counter() - began)
        assert usage.sample()["cpu_percent"] == pytest.approx(expected, rel=0.25)


def test_all_of_a_new_child_counts_and_an_ended_one_makes_no_jump():
    began = time.perf_counter()
    usage = ProcessUsage()
    with python(BUSY) as child:
        wait_until(lambda: seconds_of(psutil.Process(child.pid)) > 0.5)
        seconds = usage.sample()["cpu_percent"] / 100 * (time.perf_counter() - began)
        assert seconds > 0.5
    before = time.perf_counter()
    assert 0 <= usage.sample()["cpu_percent"] / 100 * (time.perf_counter() - before) < 0.4


def test_memory_is_that_of_the_children_of_children_too():
    usage = ProcessUsage()
    before = usage.sample()["rss_bytes"]
    with python(HOLDER) as child:
        assert child.stdout.readline() == "ready\n"
        assert usage.sample()["rss_bytes"] - before == pytest.approx(200e6, rel=0.2)


def test_memory_does_not_hold_what_processes_share(tmp_path):
    (tmp_path / "file").write_bytes(bytes(200_000_000))
    code = f"""
import mmap, time
file = open({str(tmp_path / "file")!r}, "rb")
view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(view[::4096])
print("ready", flush=True)
time.sleep(60)
"""
    usage = ProcessUsage()
    before = usage.sample()["rss_bytes"]
    with python(code) as child:
        assert child.stdout.readline() == "ready\n"
        assert psutil.Process(child.pid).memory_info().rss > 200e6
        assert usage.sample()["rss_bytes"] - before < 50e6


def test_a_process_that_vanishes_while_it_is_looked_at_is_left_out(monkeypatch):
    with python("pass") as child:
        gone = psutil.Process(child.pid)
        child.wait()
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive=False: [gone])
    with pytest.raises(psutil.NoSuchProcess):
        gone.cpu_times()
    assert ProcessUsage().sample()["rss_bytes"] > 0


# The thread


def test_samples_are_written_until_it_is_closed():
    lines, steps = [], iter(range(10**6))
    write = lambda **line: lines.append(line)  # noqa: E731
    with ResourceSampler(write, lambda: next(steps), lambda: 2**30, interval=0.01) as sampler:
        wait_until(lambda: len(lines) >= 3)
    written = len(lines)
    assert not sampler._thread.is_alive()
    assert [line["step"] for line in lines] == list(range(written))
    for line in lines:
        assert set(line) == {"event", "step", "cpu_percent", "rss_bytes", "heap_bytes"}
        assert line["event"] == "resources"
        assert line["heap_bytes"] == 2**30


def test_closing_does_not_wait_for_the_next_sample():
    lines = []
    sampler = ResourceSampler(lambda **line: lines.append(line), lambda: 0, interval=3600)
    sampler.close()
    assert not sampler._thread.is_alive()
    assert lines == []


def test_closing_does_not_wait_for_a_jvm_that_hangs(monkeypatch):
    monkeypatch.setattr("sysds_resnet.report.resources.CLOSING", 0.05)
    asked, answer, lines = threading.Event(), threading.Event(), []

    def hang():
        asked.set()
        answer.wait(60)
        return 1

    sampler = ResourceSampler(lambda **line: lines.append(line), lambda: 0, hang, interval=0.01)
    assert asked.wait(60)
    sampler.close()
    answer.set()
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    assert lines == []  # nothing is written after the end


@pytest.mark.parametrize("error", [OSError("connection refused"), RuntimeError("the JVM has ended")])
def test_a_jvm_that_does_not_answer_leaves_only_its_figure_out(error):
    lines, heap = [], iter([error, 5, error])

    def ask():
        value = next(heap)
        if isinstance(value, Exception):
            raise value
        return value

    with ResourceSampler(lambda **line: lines.append(line), lambda: 0, ask, interval=0.01):
        wait_until(lambda: len(lines) >= 3)
    assert [line.get("heap_bytes") for line in lines[:3]] == [None, 5, None]
    assert all("cpu_percent" in line for line in lines)


def test_a_full_disk_does_not_end_the_samples():
    lines = []

    def write(**line):
        lines.append(line)
        raise OSError("no space left on device")

    with ResourceSampler(write, lambda: 0, interval=0.01):
        wait_until(lambda: len(lines) >= 2)
