"""Faults of disks, set below the functions that write files."""

import builtins
import io
import os
from pathlib import Path

from sysds_resnet.system import files


def failure(code):
    return OSError(code, os.strerror(code))


def fail(code):
    """A function that fails whatever it is given."""

    def failing(*_args, **_kwargs):
        raise failure(code)

    return failing


def faults(monkeypatch, function, code):
    """Let one of the functions by which files are written fail below the run's folder."""
    if function == "open":
        real = builtins.open

        def opening(path, mode="r", *args, **kwargs):
            if isinstance(path, (str, Path)) and not set(mode).isdisjoint("wa+x"):
                raise failure(code)
            return real(path, mode, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", opening)
        monkeypatch.setattr(io, "open", opening)
        monkeypatch.setattr(Path, "touch", fail(code))
    elif function in ("write", "truncate", "close"):
        real = builtins.open

        class Failing:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.close()

            def __getattr__(self, name):
                return getattr(self.file, name)

            def close(self):
                self.file.close()
                if function == "close":
                    raise failure(code)

            def write(self, data):
                if function == "write":
                    self.file.write(data[: len(data) // 2])
                    self.file.flush()
                    raise failure(code)
                return self.file.write(data)

            def truncate(self, *size):
                if function == "truncate":
                    raise failure(code)
                return self.file.truncate(*size)

        def opening(path, mode="r", *args, **kwargs):
            file = real(path, mode, *args, **kwargs)
            return Failing(file) if isinstance(path, (str, Path)) and "a" in mode else file

        monkeypatch.setattr(builtins, "open", opening)
    else:
        monkeypatch.setattr(files.os, function, fail(code))
