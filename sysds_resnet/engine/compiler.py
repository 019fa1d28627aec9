"""The compiler of DML programs, which compiles each program once, with or without fused operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.device import Device
from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.jvm.options import dml_home
from sysds_resnet.engine.operators.classes import can_compile, replace_body, uninlined
from sysds_resnet.engine.operators.table import PIXELWISE_SOURCE, operators
from sysds_resnet.engine.operators.templates import Storage
from sysds_resnet.engine.program import Program

_MAX_PROGRAMS = 32  # a compiled program with the network's functions takes megabytes of heap
_LOOPS = "dml/training/gradients.dml"  # has loops whose iterations are divided among workers


class Programs:
    """The compiled programs of a JVM.

    Args:
        gateway: The py4j gateway of the JVM.
        multiply: The library and the precision that matrices are multiplied with.
        fused: Whether operators may be fused; they are not where the JVM cannot compile them.
        settings: Further settings of SystemDS, by name.
        device: The device that programs are compiled for.
        workers: How many workers of this machine share the iterations of a loop.

    Attributes:
        fused: Whether operators are fused, for all programs but those with the place "plain".
        compiled: The prepared scripts by text, inputs, outputs and place, oldest first.
        sources: The texts of the package's DML files by name, for scripts without fused operators (False) and
            with them (True).
        connections: The connections of JMLC, SystemDS's Java API, that prepare scripts without fused
            operators (False) and with them (True).
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
        self.storage: Storage = "fp64"
        if self.fused and self._native:
            self.storage = "bf16" if multiply.precision == "bf16" else "fp32"
        # the native helper takes doubles in any case; only the engine's own helper needs this setting
        self._precision = "double" if multiply.native or multiply.precision == "double" else "single"
        self.connections = {False: self._connect(), True: self._connect()}
        # The engine would compile hundreds of blocks anew in each step, for sizes that change no plan; and it
        # would compile for a GPU what was compiled for the CPU.
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
        """Gives the prepared script of a program, and compiles it unless it is among the last 32.

        Args:
            program: The program to compile.
            inputs: The names of the variables that the program reads, and for each the arguments of DML's
                `read` that declare its type, as `declared_type` gives them.
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
            one_thread = place == "workers" and not accelerated
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
                        replace_body(self._gateway, compiled, namespace, name, ours, threads, self.storage)
            if accelerated:
                with self._device.compiling(False):
                    on_cpu = self._prepare(connection, *texts)
                self._device.install(hidden(script, "_prog"), hidden(on_cpu, "_prog"))
            for loop in self._parallel_loops(script) if place == "workers" else []:
                loop.setDegreeOfParallelism(self._workers)
            self.compiled[key] = script
        return self.compiled[key]

    def forget(self, script: JavaObject) -> None:
        """Drops a script that must not be run any more; its program is compiled again the next time."""
        self.compiled = {key: known for key, known in self.compiled.items() if known is not script}

    @cached_property
    def one_thread(self) -> JavaObject:
        """The connection for scripts that several workers of a machine run, each on one thread."""
        connection = self._connect()
        self._switch_off(connection, "ALLOW_DYN_RECOMPILATION", "PARALLEL_CP_MATRIX_OPERATIONS")
        return connection

    def _parallel_loops(self, script: JavaObject) -> Iterator[JavaObject]:
        """Gives the loops of a script whose iterations are divided among workers."""
        for space, name in self.functions(script):
            if space.endswith(_LOOPS):
                for block in hidden(script, "_prog").getFunctionProgramBlock(space, name).getChildBlocks():
                    if block.getClass().getSimpleName() == "ParForProgramBlock":
                        yield block

    def functions(self, script: JavaObject) -> list[tuple[str, str]]:
        """Gives the namespaces and names of the functions that a script calls."""
        # a copy, since some JVMs do not let py4j iterate over the set itself
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
        """Switches off options, by name, that a connection would compile or run programs with."""
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
