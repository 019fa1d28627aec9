"""Starting the JVM of a Spark driver, and leaving pyspark and this process as they were found."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from py4j import java_gateway

from sysds_resnet.engine.jvm.death import LOG_HEADER, last_words
from sysds_resnet.engine.jvm.java import find_java
from sysds_resnet.engine.spark.checks import executors_python, spark_home
from sysds_resnet.engine.spark.properties import write_private_properties
from sysds_resnet.errors import UserError
from sysds_resnet.system.command_lines import own_command

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway

# Variables that a Spark session leaves in the environment of this process.
_LEFT = ("SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE")


def environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Gives the environment variables that spark-submit needs, whatever notebooks have set in this process.

    Args:
        additions: More variables to set, by name.

    Raises:
        UserError: If there is no usable Java.
    """
    return {
        "JAVA_HOME": str(find_java().path.resolve().parents[1]),
        "SPARK_HOME": str(spark_home()),
        "PYSPARK_PYTHON": executors_python(),
        "PYSPARK_DRIVER_PYTHON": sys.executable,  # where notebooks put their own program
        **additions,
    }


@contextmanager
def changed_environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Sets environment variables of this process during a `with` block, and removes those that are None."""
    found = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(found)


def launch(conf: Mapping[str, str], additions: Mapping[str, str], folder: Path, log: Path) -> JavaGateway:
    """Starts a JVM with Spark in it, whose standard input this process holds, and gives its py4j gateway.

    Settings reach the JVM in a file that only this user can read, and which is removed afterwards, because
    all users can see the command lines of processes.

    Args:
        conf: Spark's settings, by name.
        additions: More environment variables for the JVM, by name.
        folder: A private folder, for the file of settings.
        log: The file to which the JVM's output and errors are appended.

    Raises:
        UserError: If there is no usable Java, or the JVM does not start.
    """
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    settings = folder / "spark.properties"
    write_private_properties(settings, conf)
    # notebooks leave options in this variable that would win over the file's
    options = {"PYSPARK_SUBMIT_ARGS": shlex.join(["--properties-file", str(settings), "pyspark-shell"])}
    try:
        with changed_environment(environment(additions) | options), open(log, "ab") as output:
            output.write(LOG_HEADER.encode())
            output.flush()
            return launch_gateway(popen_kwargs={"stdout": output, "stderr": output})
    except (PySparkRuntimeError, OSError) as error:
        words = last_words(log) if isinstance(error, PySparkRuntimeError) else str(error)
        raise UserError(
            f"Spark: found that the driver's JVM did not start ({words}), expected one for "
            f"{conf['spark.master']}; mend what it says, or run {own_command('doctor')}"
        ) from error
    finally:
        settings.unlink()


class Found:
    """The state of this process before a session, as far as pyspark changes it; `restore` brings it back.

    It includes the JVM of an earlier session that has ended, and a function of py4j that pyspark replaces by
    one with which gateways to other JVMs fail.
    """

    def __init__(self) -> None:
        from pyspark import SparkContext

        self._gateway = SparkContext._gateway, SparkContext._jvm
        self._environment = {name: os.environ.get(name) for name in _LEFT}
        self._path = list(sys.path)
        self._get_return_value = java_gateway.get_return_value
        self._handler = signal.getsignal(signal.SIGINT)

    def restore_process(self) -> None:
        """Puts back what a session can run without: py4j's own function, and the handler of Ctrl-C."""
        java_gateway.get_return_value = self._get_return_value
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handler)  # pyspark's own would cancel the step under way

    def restore(self) -> None:
        """Puts back everything else, and py4j's function again, after the session's end."""
        from pyspark import SparkContext

        SparkContext._gateway, SparkContext._jvm = self._gateway
        java_gateway.get_return_value = self._get_return_value
        sys.path[:] = [name for name in sys.path if name in self._path]
        _set(self._environment)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
