"""Networks with an eighth of the channels, which the tests have unless they say otherwise.

They have the layers of the real ones and a sixty-fourth of their weights, so that steps, checkpoints and
files of weights take a moment. What is tested about the networks themselves, and with weights of others, is
tested on the real ones: see the fixtures `wide` and `wide_engine`.
"""

import functools
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from java_compilers import java_options
from reference import random_resnet

import sysds_resnet
from sysds_resnet.engine import compiler
from sysds_resnet.engine.jvm.options import dml_home
from sysds_resnet.network import names

STEM = 8
"""Channels after the first convolution, in place of 64."""
# where the package computes with that number, and where it knows weights by their shapes
WIDE = {
    "dml/network/registry.dml": ("unit(0, 7, 2, C, 64, 1, 1)", "c_in = 64\n", "width = 64 * 2^(s-1)"),
    "network/names.py": ("STEM_FILTERS = 64\n",),
}
narrow_resnet = functools.partial(random_resnet, stem=STEM)
"""The reference in PyTorch that is as narrow."""


def write_package(folder):
    """Writes the package with narrow networks into a folder, for processes that start there."""
    package = Path(sysds_resnet.__file__).parent
    copy = folder / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "dml"))
    shutil.copytree(dml_home() / "dml", copy / "dml")
    for path, places in WIDE.items():
        for place in places:
            _replace(copy / path, place, place.replace("64", str(STEM)))
    option = '"-XX:+ExitOnOutOfMemoryError",'
    _replace(copy / "engine" / "jvm" / "options.py", option, f"{option} *{java_options()!r},")
    return folder


def _replace(path, place, text):
    found = path.read_text()
    assert found.count(place) == 1, place
    path.write_text(found.replace(place, text))


@contextmanager
def networks(stem, dml):
    """Meanwhile engines that are opened in this process have networks of this width, from this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "dml_home", lambda: dml)
        patch.setattr(names, "STEM_FILTERS", stem)
        yield


def narrow_networks(folder):
    """Has narrow networks meanwhile, of a package that `write_package` wrote into a folder."""
    return networks(STEM, folder / "sysds_resnet")


def wide_networks():
    """Has the real networks meanwhile."""
    return networks(64, dml_home())
