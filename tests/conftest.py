"""Engines for the tests: each is a JVM, started when the first test asks for it."""

import gc
import os
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torchvision_reference  # noqa: F401  before transformers imports torchvision
from command_line import share_engine
from dml_runner import Dml
from java_compilers import first_compiler
from listed_images import make_source
from narrow import narrow_networks, wide_networks, write_package
from py4j import java_gateway
from spark_cluster import spark_cluster
from untouched import Untouched

from sysds_resnet.engine import Engine
from sysds_resnet.report import run_report
from sysds_resnet.training import session, start

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # tests call nobody
torch.set_num_threads(1)  # leave a core to the JVM
GIB = 2**30
WIDE = "wide"
# What takes longest comes first: processes take whole groups of tests, and should end together.
LONGEST = [
    WIDE,
    "tests/engine/gpu/test_gpu.py",
    "tests/engine/native/test_native.py",
    "tests/dml/test_dml_programs.py",
    "tests/training/test_stopped_runs.py",
    "tests/batches/test_readers.py",
]


class Groups:
    """Has processes take whole groups of tests: those of a file, and of all files with the large engines."""

    @pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which would take a test without a group for one
    def pytest_collection_modifyitems(self, config, items):
        wide, groups = {"wide_engine", "engine_single", "engine_java", "dml"}, {}
        for item in items:
            left_out = config.option.markexpr == "not long" and item.get_closest_marker("long")
            if wide & set(getattr(item, "fixturenames", ())) and not left_out:
                groups[_file(item)] = WIDE
        for item in items:
            item.add_marker(pytest.mark.xdist_group(groups.get(_file(item), _file(item))))


class Order:
    """Has the groups that take longest start first, so that the processes end together."""

    @pytest.hookimpl(trylast=True)  # after the plugin that shuffles
    def pytest_collection_modifyitems(self, items):
        places = {group: place for place, group in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.get_closest_marker("xdist_group").args[0], len(LONGEST)))


def pytest_configure(config):
    config.pluginmanager.register(Groups())
    config.pluginmanager.register(Order())


def _file(item):
    return item.nodeid.partition("::")[0]


@pytest.fixture(scope="session")
def compilers(pytestconfig):
    """JVMs use Java's first compiler, and with long tests the second one too."""
    with first_compiler() if pytestconfig.option.markexpr == "not long" else nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def narrow_package(tmp_path_factory, compilers):
    """Networks of this process are narrow, and those of processes that start in this folder."""
    folder = write_package(tmp_path_factory.mktemp("narrow"))
    with narrow_networks(folder):
        yield folder


@pytest.fixture
def wide():
    """The networks as they are."""
    with wide_networks():
        yield


@pytest.fixture(scope="session")
def untouched(narrow_package):
    """The state of the process before the first test."""
    return Untouched()


@pytest.fixture(autouse=True)
def _leaves_no_traces(untouched):
    """Fails a test that leaves its process changed, or has a fixture of its module do so.

    What other tests meet would depend on their order. It ends after all fixtures of the test alone.
    """
    untouched.learn()
    yield
    changed = untouched.changes()
    assert not changed, f"left changed: {', '.join(changed)}"


@pytest.fixture(scope="session")
def engine(narrow_package):
    """Double precision, as many threads as the machine has, OpenBLAS if it is there; narrow networks."""
    with Engine(precision="double", heap=3 * GIB // 2) as engine:
        yield engine


def wide_engine_of(**settings):
    with wide_networks():
        engine = Engine(**settings)
    return engine


@pytest.fixture(scope="session")
def wide_engine():
    """The same with the networks as they are."""
    with wide_engine_of(precision="double", heap=5 * GIB // 2) as engine:
        yield engine


@pytest.fixture(scope="session")
def engine_single():
    """Multiplies in single precision, if OpenBLAS is there; networks as they are."""
    with wide_engine_of(precision="single", heap=GIB) as engine:
        yield engine


@pytest.fixture(scope="session")
def engine_java():
    """The engine's own multiplies in Java, on as many threads as the machine has; networks as they are."""
    with wide_engine_of(precision="double", heap=GIB, blas="none") as engine:
        yield engine


@pytest.fixture(scope="session")
def engine_one_thread():
    """A JVM that believes it has one processor; multiplies in Java."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:ActiveProcessorCount=1")
        engine = wide_engine_of(precision="double", heap=GIB, blas="none")
    with engine:
        yield engine


MODES = {
    f"{engine}-{mode}": (engine, mode)
    for engine in ("wide_engine", "engine_java", "engine_one_thread")
    for mode in ("sizes_unknown", "sizes_known", "fused")
}


# as programs run from the command line, and from Python; all nine are run with -m long
QUICK = {"wide_engine-sizes_known", "wide_engine-fused"}


@pytest.fixture(
    params=[pytest.param(mode, marks=[] if mode in QUICK else [pytest.mark.long]) for mode in MODES]
)
def dml(request):
    """Run DML in each way that programs run."""
    engine, mode = MODES[request.param]
    return Dml(request.getfixturevalue(engine), mode)


@pytest.fixture
def quick_dml(wide_engine):
    """Run DML in one way, for what does not depend on it."""
    return Dml(wide_engine)


@pytest.fixture
def shared(engine, monkeypatch):
    """Commands of this process use the session's engine, and draw no curves, a second an epoch.

    They do not warn of few steps, which runs of tests have, nor of a validation at chance.
    """
    share_engine(monkeypatch, engine)
    monkeypatch.setattr(run_report, "plot_curves", lambda *_: None)
    monkeypatch.setattr(start, "FEW_STEPS", 0)
    monkeypatch.setattr(session, "warn_of_chance", lambda *_: None)
    yield
    if engine.heap_used() > GIB // 2:
        # Errors hold the frames that they came through, and these a run's weights, until Python collects
        # them: it sees small objects. A command in a process of its own ends with its JVM.
        gc.collect()


@pytest.fixture
def py4j_handler(monkeypatch):
    """Has py4j as before at the end: Spark puts its handler of errors there with each session object."""
    monkeypatch.setattr(java_gateway, "get_return_value", java_gateway.get_return_value)


@pytest.fixture
def folder(tmp_path):
    """An empty folder, gone after the test: pytest would keep the weights of the last three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set in lists; no test changes it."""
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def own(tmp_path):
    """A data set in lists that a test may change."""
    return make_source(tmp_path / "own")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two Spark workers with a core each: their folder and the master's URL."""
    folder = tmp_path_factory.mktemp("cluster")
    with spark_cluster(folder) as url:
        yield SimpleNamespace(folder=folder, url=url)
