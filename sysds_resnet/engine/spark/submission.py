"""Command lines for spark-submit, as lists of words: the beginning of all, and those for this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sysds_resnet.engine.jvm.memory import heap_of
from sysds_resnet.engine.spark.checks import check_pyspark, spark_home
from sysds_resnet.engine.spark.cluster import Cluster, cluster_environment
from sysds_resnet.engine.spark.conf import combined, driver_memory, with_defaults
from sysds_resnet.engine.spark.launch import environment
from sysds_resnet.engine.spark.secrets import shown_conf
from sysds_resnet.engine.spark.settings import SparkSettings

PROGRAM = Path(__file__).resolve().parents[2] / "spark_program.py"
# Settings that spark-submit needs before it reads the others, with its options for them.
_EARLY = {
    "spark.driver.memory": "--driver-memory",
    "spark.driver.extraClassPath": "--driver-class-path",
    "spark.driver.extraJavaOptions": "--driver-java-options",
}


def submit_words(cluster: Cluster, conf: Mapping[str, str], shown: Mapping[str, str]) -> list[str]:
    """Gives the words of a line that come before the program: the environment, spark-submit and settings.

    Args:
        cluster: The cluster to run on.
        conf: This package's own settings of Spark, by name.
        shown: The user's settings of Spark, without secrets, by name.

    Raises:
        UserError: If pyspark or Java is missing.
    """
    check_pyspark()
    variables = environment(cluster_environment(cluster))
    # options that notebooks leave for the driver's Python would start a notebook
    words = ["env", "-u", "PYSPARK_DRIVER_PYTHON_OPTS", *(f"{name}={v}" for name, v in variables.items())]
    words += [str(spark_home() / "bin" / "spark-submit"), "--master", cluster.master]
    settings = combined(conf, shown)
    behind = with_defaults(settings)
    settings = {name: behind[name] for name in settings}
    for name, option in _EARLY.items():
        if name in settings:
            words += [option, settings.pop(name)]
    for name, value in settings.items():
        words += ["--conf", f"{name}={value}"]
    return words


def python_line(name: str, settings: SparkSettings, options: Sequence[str]) -> list[str]:
    """Gives the words of the line that runs a command of this package.

    The line has only the settings that the driver's JVM starts with; the command itself sets all others.

    Args:
        name: The name of the command, such as "train".
        settings: The settings that `options` stand for.
        options: The options of the command.

    Raises:
        UserError: If an option does not fit.
    """
    conf = {} if (heap := getattr(settings, "heap", None)) is None else driver_memory(heap_of(heap))
    shown = shown_conf(settings.spark_conf, settings.spark_conf_file)
    return [*submit_words(settings.cluster(), conf, shown), str(PROGRAM), name, *options]
