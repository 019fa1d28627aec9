"""Compiling DML programs for a JVM: each once, with or without fused operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.jvm.process import dml_home
from sysds_resnet.engine.operators.classes import can_compile, replace_body, uninlined
from sysds_resnet.engine.operators.table import PIXELWISE_SOURCE, operators

if TYPE_CHECKING:
    from sysds_resnet.engine.gpu.gpus import Gpus

Kind = Literal["matrix", "list", "double", "int", "string"]

_MAX_PROGRAMS = 32  # a compiled program with the network's functions takes megabytes of heap
# What has loops whose workers are on a cluster, and what has one whose workers are here.
_DISTRIBUTED, _PARALLEL = "dml/cluster/distributed.dml", "dml/training/gradients.dml"


class Programs:
    """The compiled programs of a JVM.

    Args:
        gateway: The py4j gateway of the JVM.
        multiply: What multiplies matrices.
        fused: Whether operators may be fused; they are not where the JVM cannot compile them.
        settings: More of the engine's settings, by name.
        gpus: What programs may be compiled for beside the CPU.
        workers: Of loops whose workers are here.

    Attributes:
        fused: Whether operators are fused for the programs that ask for it.
        compiled: Prepared scripts by text, inputs, outputs and whether with fused operators, oldest first.
        sources: Texts of the package's DML files by name, without and with fused operators.
        connections: What prepares scripts, without and with fused operators.
    """

    def __init__(
        self,
        gateway: JavaGateway,
        multiply: Multiply,
        fused: bool,
        settings: Mapping[str, str],
        gpus: Gpus | None = None,
        workers: int = 1,
    ) -> None:
        self._workers, self._gpus = workers, gpus
        self._gateway, self._jvm, self._settings = gateway, gateway.jvm, settings
        self.compiled: dict[tuple, JavaObject] = {}
        self.fused, self._native = fused and can_compile(self._jvm), multiply.native
        # the native helper takes doubles; only the engine's own helper has a single precision of its own
        self._precision = "double" if multiply.native or multiply.precision == "double" else "single"
        self.connections = {False: self._connect(), True: self._connect()}
        # Hundreds of blocks would be compiled anew in each step, for sizes that change no plan; and what was
        # compiled for the CPU would be for a GPU.
        for connection in self.connections.values() if gpus else [self.connections[True]]:
            self._switch_off(connection, "ALLOW_DYN_RECOMPILATION")
        self.sources = {False: self._jvm.java.util.HashMap(), True: self._jvm.java.util.HashMap()}
        home = dml_home()
        for path in sorted((home / "dml").rglob("*.dml")):
            name, text = path.relative_to(home).as_posix(), path.read_text()
            for sources in self.sources.values():
                sources.put(name, text)
        self.sources[True].put(PIXELWISE_SOURCE, uninlined((home / PIXELWISE_SOURCE).read_text()))

    def prepare(
        self,
        program: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, Kind],
        fused: bool,
        distributed: bool = False,
        parallel: bool = False,
        on_gpu: bool = False,
    ) -> JavaObject:
        """The prepared script of a program, compiled unless it is among the last 32.

        Args:
            program: DML text.
            inputs: Names of the variables that it reads, and the types that `read` takes for them.
            outputs: Names and kinds of the variables to give back.
            fused: Whether functions of dml/layers/ are to be operators of our own, where there are such.
            distributed: Whether it has workers on a cluster.
            parallel: Whether it has workers here.
            on_gpu: Whether it is to be compiled for a GPU.
        """
        fused = fused and self.fused
        key = (program, tuple(inputs.items()), tuple(outputs.items()), fused, distributed, parallel, on_gpu)
        if key not in self.compiled:
            if len(self.compiled) >= _MAX_PROGRAMS:
                self.compiled.pop(next(iter(self.compiled)))  # the oldest
            reads = "".join(f'{name} = read("", {declared})\n' for name, declared in inputs.items())
            writes = "".join(f'write({name}, "")\n' for name in outputs)
            one_thread = distributed or (parallel and not on_gpu)
            connection = self.one_thread if one_thread else self.connections[fused]
            texts = f"{reads}{program}\n{writes}", fused, inputs, outputs
            with self._gpus.compiling(on_gpu) if self._gpus else nullcontext():
                script = self._prepare(connection, *texts)
            if fused:
                machine = self._jvm.org.apache.sysds.utils.stats.InfrastructureAnalyzer
                threads = 1 if one_thread else machine.getLocalParallelism()
                for namespace, name in self.functions(script):
                    if outputs := operators(namespace, name, self._native):
                        compiled = hidden(script, "_prog")
                        replace_body(self._gateway, compiled, namespace, name, outputs, threads, self._native)
            if on_gpu:
                with self._gpus.compiling(False):
                    on_cpu = self._prepare(connection, *texts)
                self._gpus.install(hidden(script, "_prog"), hidden(on_cpu, "_prog"))
            for loop in self._parallel_loops(script, _PARALLEL) if parallel else []:
                loop.setDegreeOfParallelism(self._workers)
            # Otherwise the engine compiles whatever these call anew at each run, before for one node and
            # afterwards for Spark, and drops fused operators; not if it misses what they were compiled from.
            # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/ParForProgramBlock.java
            for loop in self._parallel_loops(script, _DISTRIBUTED) if distributed else []:
                loop.setStatementBlock(None)
            self.compiled[key] = script
        return self.compiled[key]

    def forget(self, script: JavaObject) -> None:
        """Has a program compiled again the next time: this script is not to be run any more."""
        self.compiled = {key: known for key, known in self.compiled.items() if known is not script}

    @cached_property
    def one_thread(self) -> JavaObject:
        """What prepares scripts with workers, each of which is one of several on its machine."""
        connection = self._connect()
        self._switch_off(connection, "ALLOW_DYN_RECOMPILATION", "PARALLEL_CP_MATRIX_OPERATIONS")
        return connection

    def _parallel_loops(self, script: JavaObject, source: str) -> Iterator[JavaObject]:
        """The loops with workers in the functions of a source that a script calls."""
        for space, name in self.functions(script):
            if space.endswith(source):
                for block in hidden(script, "_prog").getFunctionProgramBlock(space, name).getChildBlocks():
                    if block.getClass().getSimpleName() == "ParForProgramBlock":
                        yield block

    def functions(self, script: JavaObject) -> list[tuple[str, str]]:
        """Namespaces and names of the functions that a script calls."""
        # a copy, as py4j may not iterate over the set itself in every JVM
        keys = self._jvm.java.util.ArrayList(hidden(script, "_prog").getFunctionProgramBlocks().keySet())
        return [tuple(key.split("::")) for key in keys]

    def _prepare(
        self,
        connection: JavaObject,
        text: str,
        fused: bool,
        inputs: Collection[str],
        outputs: Collection[str],
    ) -> JavaObject:
        arguments = self._jvm.java.util.HashMap()
        strings = self._strings(inputs), self._strings(outputs)
        return connection.prepareScript(text, self.sources[fused], arguments, *strings)

    def _connect(self) -> JavaObject:
        config = self._jvm.org.apache.sysds.conf.DMLConfig()
        config.setTextValue("sysds.floating.point.precision", self._precision)
        for name, value in self._settings.items():
            config.setTextValue(name, value)
        return self._jvm.org.apache.sysds.api.jmlc.Connection(config)

    def _switch_off(self, connection: JavaObject, *names: str) -> None:
        """Switches off what a connection's programs would be compiled or run with."""
        flags = self._jvm.org.apache.sysds.conf.CompilerConfig.ConfigType
        array = self._gateway.new_array(flags, len(names))
        for i, name in enumerate(names):
            array[i] = getattr(flags, name)
        connection.setConfigTypes(False, array)

    def _strings(self, names: Collection[str]) -> JavaObject:
        array = self._gateway.new_array(self._jvm.String, len(names))
        for i, name in enumerate(names):
            array[i] = name
        return array
