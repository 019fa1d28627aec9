"""Compiling DML programs for a JVM: each once, with or without fused operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.device import Device
from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.jvm.process import dml_home
from sysds_resnet.engine.operators.classes import can_compile, replace_body, uninlined
from sysds_resnet.engine.operators.table import PIXELWISE_SOURCE, operators
from sysds_resnet.engine.program import Place, Program

_MAX_PROGRAMS = 32  # a compiled program with the network's functions takes megabytes of heap
# Files with loops whose iterations are shared out, by the place of programs that call them.
_LOOPS = {
    "cluster": ("dml/cluster/distributed.dml", "dml/cluster/sums.dml"),
    "workers": ("dml/training/gradients.dml",),
}


class Programs:
    """The compiled programs of a JVM.

    Args:
        gateway: The py4j gateway of the JVM.
        multiply: What multiplies matrices.
        fused: Whether operators may be fused; they are not where the JVM cannot compile them.
        settings: More of the engine's settings, by name.
        device: What programs are compiled for.
        workers: Of loops whose workers are here.

    Attributes:
        fused: Whether operators are fused for the programs that ask for it.
        compiled: Prepared scripts by text, inputs, outputs and place, oldest first.
        sources: Texts of the package's DML files by name, without and with fused operators.
        connections: What prepares scripts, without and with fused operators.
    """

    def __init__(
        self,
        gateway: JavaGateway,
        multiply: Multiply,
        fused: bool,
        settings: Mapping[str, str],
        device: Device,
        workers: int = 1,
    ) -> None:
        self._workers, self._device = workers, device
        self._gateway, self._jvm, self._settings = gateway, gateway.jvm, settings
        self.compiled: dict[tuple, JavaObject] = {}
        self.fused, self._native = fused and can_compile(self._jvm), multiply.native
        # the native helper takes doubles; only the engine's own helper has a single precision of its own
        self._precision = "double" if multiply.native or multiply.precision == "double" else "single"
        self.connections = {False: self._connect(), True: self._connect()}
        # Hundreds of blocks would be compiled anew in each step, for sizes that change no plan; and what was
        # compiled for the CPU would be for a GPU.
        accelerated = device.accelerates("device")
        for connection in self.connections.values() if accelerated else [self.connections[True]]:
            self._switch_off(connection, "ALLOW_DYN_RECOMPILATION")
        self.sources = {False: self._jvm.java.util.HashMap(), True: self._jvm.java.util.HashMap()}
        home = dml_home()
        for path in sorted((home / "dml").rglob("*.dml")):
            name, text = path.relative_to(home).as_posix(), path.read_text()
            for sources in self.sources.values():
                sources.put(name, text)
        self.sources[True].put(PIXELWISE_SOURCE, uninlined((home / PIXELWISE_SOURCE).read_text()))

    def prepare(self, program: Program, inputs: Mapping[str, str]) -> JavaObject:
        """The prepared script of a program, compiled unless it is among the last 32.

        Args:
            program: To compile.
            inputs: Names of the variables that it reads, and the types that `read` takes for them.
        """
        place, outputs = program.place, program.outputs
        fused = self.fused and place != "plain"
        accelerated = self._device.accelerates(place)
        kept_as = place if accelerated or place != "device" else "host"
        key = (program.text, tuple(inputs.items()), tuple(outputs.items()), kept_as)
        if key not in self.compiled:
            if len(self.compiled) >= _MAX_PROGRAMS:
                self.compiled.pop(next(iter(self.compiled)))  # the oldest
            reads = "".join(f'{name} = read("", {declared})\n' for name, declared in inputs.items())
            writes = "".join(f'write({name}, "")\n' for name in outputs)
            one_thread = place == "cluster" or (place == "workers" and not accelerated)
            connection = self.one_thread if one_thread else self.connections[fused]
            texts = f"{reads}{program.text}\n{writes}", fused, inputs, outputs
            with self._device.compiling(accelerated):
                script = self._prepare(connection, *texts)
            if fused:
                machine = self._jvm.org.apache.sysds.utils.stats.InfrastructureAnalyzer
                threads = 1 if one_thread else machine.getLocalParallelism()
                for namespace, name in self.functions(script):
                    if ours := operators(namespace, name, self._native):
                        compiled = hidden(script, "_prog")
                        replace_body(self._gateway, compiled, namespace, name, ours, threads, self._native)
            if accelerated:
                with self._device.compiling(False):
                    on_cpu = self._prepare(connection, *texts)
                self._device.install(hidden(script, "_prog"), hidden(on_cpu, "_prog"))
            for loop in self._parallel_loops(script, place) if place == "workers" else []:
                loop.setDegreeOfParallelism(self._workers)
            # Otherwise the engine compiles whatever these call anew at each run, before for one node and
            # afterwards for Spark, and drops fused operators; not if it misses what they were compiled from.
            # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/ParForProgramBlock.java
            for loop in self._parallel_loops(script, place) if place == "cluster" else []:
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

    def _parallel_loops(self, script: JavaObject, place: Place) -> Iterator[JavaObject]:
        """The loops of a script whose iterations are shared out at a place."""
        for space, name in self.functions(script):
            if space.endswith(_LOOPS[place]):
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
