"""Which of Java's compilers the JVMs of tests use."""

from contextlib import contextmanager

import pytest

from sysds_resnet.engine.jvm import process
from sysds_resnet.engine.spark import conf

FIRST = "-XX:TieredStopAtLevel=1"
_options = []


def java_options():
    """The options with which tests start JVMs beside those of the package."""
    return list(_options)


@contextmanager
def first_compiler():
    """Meanwhile JVMs compile their code once.

    The second compiler, which optimizes it, takes as long as all that a quick test has it run. What it makes
    of the same code is tested with -m long.
    """
    chosen = process.jvm_options
    with pytest.MonkeyPatch.context() as patch:
        for module in (process, conf):
            patch.setattr(module, "jvm_options", lambda *sizes, **more: [*chosen(*sizes, **more), FIRST])
        _options.append(FIRST)
        yield
        _options.clear()
