"""Opening the JVM that an engine runs in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from py4j.java_gateway import JavaGateway, JVMView
from py4j.protocol import Py4JJavaError

from sysds_resnet.engine.arguments import Arguments
from sysds_resnet.engine.gpu.gpus import gpu_environment
from sysds_resnet.engine.jvm import multiply as blas
from sysds_resnet.engine.jvm.folders import PrivateFolder
from sysds_resnet.engine.jvm.memory import default_heap
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.jvm.process import Jvm
from sysds_resnet.engine.spark.driver import SparkDriver
from sysds_resnet.errors import one_line
from sysds_resnet.system.machine import substitute_name


@dataclass
class OpenJvm:
    """The JVM of an engine.

    Attributes:
        gateway: py4j's.
        multiply: What it is to multiply with.
        owned: What ends it; None if it came with a SystemDSContext.
    """

    gateway: JavaGateway
    multiply: Multiply
    owned: Jvm | SparkDriver | None = None
    _folder: PrivateFolder | None = field(default=None)

    @property
    def folder(self) -> Path:
        """A private folder for files that both processes see."""
        return self.owned.folder if self.owned else self._folder.path

    @property
    def spark(self) -> SparkDriver | None:
        """The driver of a cluster, if it is one."""
        return self.owned if isinstance(self.owned, SparkDriver) else None

    @property
    def ours(self) -> bool:
        """Whether it is one that this package started for itself, on this machine."""
        return isinstance(self.owned, Jvm)

    def close(self) -> None:
        """Ends it, unless it came with a SystemDSContext, and removes the folder."""
        for opened in (self.owned, self._folder):
            if opened is not None:
                opened.close()


def open_jvm(given: Arguments, logs: Path | None = None) -> OpenJvm:
    """Starts a JVM, or takes that of a SystemDSContext.

    Args:
        given: To the engine.
        logs: A folder for what the JVM writes, as of `Jvm`.

    Raises:
        UserError: If there is no usable Java, or the JVM or the cluster does not start.
    """
    if given.gpus:
        multiply = blas.on_gpu(given.precision, "a GPU")
    else:
        multiply = blas.choose(given.precision, given.blas, own_jvm=given.context is None)
    if given.context is not None:
        return OpenJvm(given.context.java_gateway, multiply, None, PrivateFolder())
    heap = given.heap or default_heap()
    if given.cluster is not None:
        owned = SparkDriver(given.cluster, heap, multiply, logs)
    else:
        environment = gpu_environment(multiply.precision == "tf32") if given.gpus else {}
        owned = Jvm(heap, multiply, given.threads, environment, logs)
    return OpenJvm(owned.gateway, multiply, owned)


def local_settings(folder: Path) -> dict[str, str]:
    """The engine's settings for where it puts files of its own, by name.

    By default these are /tmp/systemds, which the users of a machine share, and one in the working directory.

    Args:
        folder: A private one.
    """
    return {"sysds.localtmpdir": str(folder / "local"), "sysds.scratch": str(folder / "scratch")}


def name_user(jvm: JVMView) -> None:
    """Gives Hadoop, through which the engine reads and writes files, a name for a user who has none.

    Hadoop asks the system for the name, and fails.
    """
    if (name := substitute_name()) is not None:
        users = jvm.org.apache.hadoop.security.UserGroupInformation
        users.setLoginUser(users.createRemoteUser(name))


def load_blas(jvm: JVMView, multiply: Multiply, folder: Path) -> Multiply:
    """Has the engine load the library that it is to multiply with; what it multiplies with then.

    Args:
        jvm: Of the engine.
        multiply: What is wanted.
        folder: For a link to the library.
    """
    if not multiply.library:
        return multiply
    helper = jvm.org.apache.sysds.utils.NativeHelper
    os.symlink(multiply.library, folder / blas.LIBRARY)
    helper.initialize(str(folder), "openblas")
    if helper.isNativeLibraryLoaded():
        return multiply
    return Multiply("double", None, False, _loading_problem(jvm, multiply, folder))


def _loading_problem(jvm: JVMView, multiply: Multiply, folder: Path) -> str:
    """Why the engine, which does not say it, has not loaded a library or its helper."""
    helper = [blas.helper_library()] if multiply.native else []
    for library in (folder / blas.LIBRARY, *helper):
        try:
            jvm.System.load(str(library))
        except Py4JJavaError as error:
            return f"the engine does not load {library.name}: {one_line(error.java_exception)}"
    return f"the engine does not load {multiply.library}"
