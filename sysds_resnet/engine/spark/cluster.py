"""What a run takes of a Spark cluster."""

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
    """A Spark cluster, and what a run takes of it.

    Attributes:
        master: Spark's URL: spark://HOST:PORT, yarn, k8s://..., local[N].
        executors: How many to wait for, and to ask for where that can be asked for.
        scratch: A folder that driver and executors share: a path, or a URL such as hdfs://... or s3a://...
        cores: Of each executor; each computes micro-batches of its own.
        memory: Of each executor's heap, in bytes.
        conf: More of Spark's settings, with secrets among them: they are in no text of this.
    """

    master: str
    executors: int
    scratch: str
    cores: int = 1
    memory: int = 4 * 2**30
    conf: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        return self.executors * self.cores

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' * (self.cores > 1)}"
        if local_workers(self.master):
            return f"Spark {self.master} with {cores}"
        executors = f"{self.executors} executor{'s' * (self.executors > 1)} with {cores}"
        return f"Spark {self.master}, {executors} and heap {self.memory / 2**30:.1f} GiB each"


def check_form(master: str) -> None:
    """Raises a UserError unless this has the form of a master's URL."""
    if not _MASTERS.fullmatch(master):
        raise UserError(
            f"master: found {master!r}, expected local[N] with N from 1 or *, spark://HOST:PORT, yarn or "
            "k8s://HOST:PORT; correct --master"
        )


def local_workers(master: str) -> int | None:
    """How many tasks run at a time where the driver is all there is; None for a cluster."""
    found = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\d+)?\])?", master)
    if not found:
        return None
    return cores() if found[1] == "*" else int(found[1] or 1)


def on_this_machine(master: str) -> bool:
    """Whether driver and executors are on one machine for sure."""
    return master.startswith(("local", "spark://127.0.0.1:", "spark://localhost:"))


def cluster_conf(cluster: Cluster) -> dict[str, str]:
    """Spark's settings for what a run takes of a cluster, and for what others see of it."""
    conf = {
        "spark.executor.instances": str(cluster.executors),
        "spark.executor.cores": str(cluster.cores),
        "spark.cores.max": str(cluster.workers),
        "spark.executor.memory": f"{cluster.memory // 2**20}m",
        "spark.ui.showConsoleProgress": "false",
        "spark.ui.enabled": "false",  # it asks nobody who they are, and shows settings
        "spark.redaction.regex": SECRET_NAMES,
    }
    if on_this_machine(cluster.master):
        conf |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return conf


def cluster_environment(cluster: Cluster) -> dict[str, str]:
    """What a driver's JVM has in its environment, beside what this process has.

    Where all is on one machine, the address on which everything listens that Spark starts, its web page among
    it. Spark would ask for the address of this machine's name, which need not have one.
    """
    return {"SPARK_LOCAL_IP": "127.0.0.1"} if on_this_machine(cluster.master) else {}


def local_path(name: str) -> str:
    """A URL of a local file as a path: the engine does not find the parts of matrices under file: URLs.

    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/io/IOUtilFunctions.java
    """
    return name.removeprefix("file:").replace("//", "/") if name.startswith("file:") else name


def qualified(name: str) -> str:
    """A path for Spark, which would take one without a scheme for one of its default file system."""
    return name if "://" in name or name.startswith("file:") else user_path(name).resolve().as_uri()
