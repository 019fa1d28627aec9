"""Engines for the tests: each is a JVM, started when the first test asks for it."""

import gc
import shutil
from types import SimpleNamespace

import pytest
import torch
import torchvision_reference  # noqa: F401  before transformers imports torchvision
from command_line import share_engine
from dml_runner import Dml
from listed_images import make_source
from spark_cluster import spark_cluster
from untouched import Untouched

from sysds_resnet.engine import Engine

torch.set_num_threads(1)  # leave a core to the JVM
GIB = 2**30
# The files that take longest come first: processes take whole files, and should end together.
LONGEST = [
    "test_spark.py",
    "test_gpu.py",
    "test_stopped_runs.py",
    "test_train.py",
    "test_dml_programs.py",
    "test_training_options.py",
]


def pytest_collection_modifyitems(items):
    """Orders the files."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def untouched():
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
def engine():
    """Double precision, as many threads as the machine has, OpenBLAS if it is there."""
    with Engine(precision="double", heap=5 * GIB // 2) as engine:
        yield engine


@pytest.fixture(scope="session")
def engine_single():
    """Multiplies in single precision, if OpenBLAS is there."""
    with Engine(precision="single", heap=GIB) as engine:
        yield engine


@pytest.fixture(scope="session")
def engine_java():
    """The engine's own multiplies in Java, on as many threads as the machine has."""
    with Engine(precision="double", heap=GIB, blas="none") as engine:
        yield engine


@pytest.fixture(scope="session")
def engine_one_thread():
    """A JVM that believes it has one processor; multiplies in Java."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:ActiveProcessorCount=1")
        engine = Engine(precision="double", heap=GIB, blas="none")
    with engine:
        yield engine


MODES = {
    f"{engine}-{mode}": (engine, mode)
    for engine in ("engine", "engine_java", "engine_one_thread")
    for mode in ("sizes_unknown", "sizes_known", "fused")
}


# what the others do not show; all nine are run with -m long
QUICK = {"engine-sizes_unknown", "engine-sizes_known", "engine-fused", "engine_one_thread-fused"}


@pytest.fixture(
    params=[pytest.param(mode, marks=[] if mode in QUICK else [pytest.mark.long]) for mode in MODES]
)
def dml(request):
    """Run DML in each way that programs run."""
    engine, mode = MODES[request.param]
    return Dml(request.getfixturevalue(engine), mode)


@pytest.fixture
def quick_dml(engine):
    """Run DML in one way, for what does not depend on it."""
    return Dml(engine)


@pytest.fixture
def shared(engine, monkeypatch):
    """Commands of this process use the session's engine, which multiplies in double precision."""
    share_engine(monkeypatch, engine)
    yield
    if engine.heap_used() > GIB:
        # Errors hold the frames that they came through, and these a run's weights, until Python collects
        # them: it sees small objects. A command in a process of its own ends with its JVM.
        gc.collect()


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
