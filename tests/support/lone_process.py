"""This process as if it were alone on a machine without GPUs, and waiting for what happens in it."""

import sys
import time

import psutil


def be_alone(monkeypatch):
    """Show no GPU, whatever this machine has, and no processes of other tests."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    children = psutil.Process.children
    others = set(children(psutil.Process(), recursive=True))
    monkeypatch.setattr(
        psutil.Process,
        "children",
        lambda self, recursive=False: [p for p in children(self, recursive) if p not in others],
    )


def wait_until(what):
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)
