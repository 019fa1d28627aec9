"""The Spark cluster of a run: its master, the resources that the run uses, and Spark's settings for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sysds_resnet.errors import UserError
from sysds_resnet.system.files import user_path
from sysds_resnet.system.machine import cores
from sysds_resnet.system.redaction import NAMES as SECRET_NAMES

_PLACE = r"(?:[^\s:/,@\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}"
_MASTERS = re.compile(
    r"local(\[(\*|[1-9]\d*)(,[1-9]\d*)?\])?|local-cluster\[[1-9]\d*,[1-9]\d*,[1-9]\d*\]"
    rf"|spark://{_PLACE}(,{_PLACE})*|yarn|k8s://[^\s@]+"
)


@dataclass(frozen=True)
class Cluster:
    """A Spark cluster, and the resources of it that a run uses.

    Attributes:
        master: The URL of the Spark master: spark://HOST:PORT, yarn, k8s://..., local[N].
        executors: The number of executors to wait for, and to ask for if the master lets a run ask.
        cores: The number of cores of each executor.
        memory: The size of each executor's heap, in bytes; in training, that of the JVM that computes there.
        conf: More of Spark's settings, by name. `repr` does not show them, since they hold secrets.
    """

    master: str
    executors: int
    cores: int = 1
    memory: int = 4 * 2**30
    conf: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def workers(self) -> int:
        """The number of tasks that run at a time."""
        return self.executors * self.cores


def check_form(master: str) -> None:
    """Raises a UserError unless a text has the form of a Spark master's URL."""
    if not _MASTERS.fullmatch(master):
        raise UserError(
            f"master: found {master!r}, expected local[N] with N from 1 or *, spark://HOST:PORT, yarn or "
            "k8s://HOST:PORT; correct --master"
        )


def local_workers(master: str) -> int | None:
    """Gives the number of tasks at a time if all run in the driver (local[N]); None for other masters."""
    found = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\d+)?\])?", master)
    if not found:
        return None
    return cores() if found[1] == "*" else int(found[1] or 1)


def on_this_machine(master: str) -> bool:
    """Tells whether the driver and all executors are certain to run on one machine."""
    return master.startswith(("local", "spark://127.0.0.1:", "spark://localhost:"))


def cluster_conf(cluster: Cluster) -> dict[str, str]:
    """Gives Spark's settings for the resources that a run uses, and for what other users can see of it."""
    conf = {
        "spark.executor.instances": str(cluster.executors),
        "spark.executor.cores": str(cluster.cores),
        "spark.cores.max": str(cluster.workers),
        "spark.executor.memory": f"{cluster.memory // 2**20}m",
        "spark.ui.showConsoleProgress": "false",
        "spark.ui.enabled": "false",  # this web page has no login, and shows settings
        "spark.redaction.regex": SECRET_NAMES,
    }
    if on_this_machine(cluster.master):
        conf |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return conf


def cluster_environment(cluster: Cluster) -> dict[str, str]:
    """Gives the environment variables of a driver's JVM, in addition to those of this process.

    If everything is on one machine, this is the address on which all that Spark starts listens, its web page
    included. Spark itself would look up the address of this machine's name, which need not have one.
    """
    return {"SPARK_LOCAL_IP": "127.0.0.1"} if on_this_machine(cluster.master) else {}


def local_path(name: str) -> str:
    """Turns a file: URL into a path, because the engine finds no parts of matrices under such a URL.

    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/io/IOUtilFunctions.java
    """
    return name.removeprefix("file:").replace("//", "/") if name.startswith("file:") else name


def qualified(name: str) -> str:
    """Turns a path into a file: URL, since Spark looks for plain paths in its default file system."""
    return name if "://" in name or name.startswith("file:") else user_path(name).resolve().as_uri()
