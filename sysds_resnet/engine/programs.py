"""Compiling DML programs for a JVM: each once, with or without generated code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Literal

from py4j.java_gateway import JavaGateway, JavaObject, JVMView
from py4j.protocol import Py4JJavaError

from sysds_resnet.engine.blas import Multiply
from sysds_resnet.engine.jvm import dml_home

Kind = Literal["matrix", "list", "double", "int", "string"]

_MAX_PROGRAMS = 32  # a compiled program with the network's functions takes megabytes of heap
# The operators that code generation is for, what takes their file's place with it, and calls of them all.
_GENERATED, _GENERATED_SOURCE = "dml/layers/pixelwise.dml", "dml/layers/pixelwise_codegen.dml"
_SAMPLE = "dml/layers/pixelwise_sample.dml"
# What takes the place of products with the package's native helper.
_PRODUCT, _NATIVE_PRODUCT = "dml/layers/product.dml", "dml/layers/product_native.dml"
# What has loops with workers on a cluster.
_DISTRIBUTED = "dml/distributed.dml"


class Programs:
    """The compiled programs of a JVM.

    Args:
        gateway: The py4j gateway of the JVM.
        multiply: What multiplies matrices.
        codegen: Whether code may be generated; it is not where the JVM has no Java compiler.
        settings: More of the engine's settings, by name.
        fixed: Whether no program is to be compiled again when sizes are known, even without generated code.

    Attributes:
        codegen: Whether code is generated for the programs that ask for it.
        compiled: Prepared scripts by text, inputs, outputs and whether with generated code, oldest first.
        sources: Texts of the package's DML files by name, without and with code generation.
        connections: What prepares scripts, without and with calls of generated code.
        generated: The functions of dml/layers/pixelwise.dml as generated code, by name, once a program has
            asked for them: for this JVM, and for workers on a cluster.
    """

    def __init__(
        self,
        gateway: JavaGateway,
        multiply: Multiply,
        codegen: bool,
        settings: Mapping[str, str],
        fixed: bool = False,
    ) -> None:
        self._gateway, self._jvm, self._settings = gateway, gateway.jvm, settings
        self.compiled: dict[tuple, JavaObject] = {}
        self._compiler = self._find_compiler() if codegen else None
        self.codegen = self._compiler is not None
        self.generated: dict[bool, dict[str, JavaObject]] = {False: {}, True: {}}
        # the native helper takes doubles; only the engine's own helper has a single precision of its own
        self._precision = "double" if multiply.native or multiply.precision == "double" else "single"
        self.connections = {False: self._connect(), True: self._connect()}
        # Hundreds of blocks would be compiled anew in each step, for sizes that change no plan; and what was
        # compiled for the CPU would be for a GPU.
        for connection in self.connections.values() if fixed else [self.connections[True]]:
            self._switch_off(connection, "ALLOW_DYN_RECOMPILATION")
        self.sources = {False: self._jvm.java.util.HashMap(), True: self._jvm.java.util.HashMap()}
        home = dml_home()
        for path in sorted((home / "dml").rglob("*.dml")):
            name, text = path.relative_to(home).as_posix(), path.read_text()
            for sources in self.sources.values():
                sources.put(name, text)
        if multiply.native:
            for sources in self.sources.values():
                sources.put(_PRODUCT, (home / _NATIVE_PRODUCT).read_text())
        self.sources[True].put(_GENERATED, (home / _GENERATED_SOURCE).read_text())

    def prepare(
        self,
        program: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, Kind],
        codegen: bool,
        distributed: bool = False,
        on_gpu: bool = False,
    ) -> JavaObject:
        """The prepared script of a program, compiled unless it is among the last 32.

        Args:
            program: DML text.
            inputs: Names of the variables that it reads, and the types that `read` takes for them.
            outputs: Names and kinds of the variables to give back.
            codegen: Whether to call dml/layers/pixelwise.dml as generated code.
            distributed: Whether it has workers on a cluster.
            on_gpu: Whether it is to be compiled for a GPU.
        """
        codegen = codegen and self.codegen
        key = (program, tuple(inputs.items()), tuple(outputs.items()), codegen, distributed, on_gpu)
        if key not in self.compiled:
            if len(self.compiled) >= _MAX_PROGRAMS:
                self.compiled.pop(next(iter(self.compiled)))  # the oldest
            generated = self.generated[distributed]
            if codegen and not generated:
                generated |= self.generate(threads=not distributed)
            reads = "".join(f'{name} = read("", {declared})\n' for name, declared in inputs.items())
            writes = "".join(f'write({name}, "")\n' for name in outputs)
            connection = self.distributed if distributed else self.connections[codegen]
            script = self._prepare(connection, f"{reads}{program}\n{writes}", codegen, inputs, outputs)
            if codegen:
                for namespace, name in self._pixelwise(script):
                    replace_function(script, namespace, name, generated[name])
            if distributed:
                self._keep_plans(script)
            self.compiled[key] = script
        return self.compiled[key]

    @cached_property
    def distributed(self) -> JavaObject:
        """What prepares scripts whose workers are on a cluster."""
        connection = self._connect()
        # a worker is one of several on its machine, with a thread of its own
        self._switch_off(connection, "ALLOW_DYN_RECOMPILATION", "PARALLEL_CP_MATRIX_OPERATIONS")
        return connection

    def generate(self, threads: bool = True) -> dict[str, JavaObject]:
        """The functions of dml/layers/pixelwise.dml as generated code, by name, with threads or without.

        The engine generates the code of a function when it compiles it with sizes at hand: at its first call,
        if told so. Later calls would do this again; they find it told otherwise.
        """
        connection = self._connect(self._compiler)
        if not threads:
            self._switch_off(connection, "PARALLEL_CP_MATRIX_OPERATIONS")
        sample = (dml_home() / _SAMPLE).read_text()
        script = self._prepare(connection, sample, True, (), ("used",))
        found = self._pixelwise(script)
        for namespace, name in found:
            script.enableFunctionRecompile(namespace, self._strings([name]))
        script.executeScript()
        program = hidden(script, "_prog")
        functions = {name: program.getFunctionProgramBlock(namespace, name) for namespace, name in found}
        for function in functions.values():
            function.setRecompileOnce(False)
        return functions

    def _keep_plans(self, script: JavaObject) -> None:
        """Has loops with workers on a cluster run as they were compiled.

        Otherwise the engine compiles whatever they call anew at each run, before for one node and afterwards
        for Spark, and drops generated code. It does not if it misses what the loop was compiled from.
        https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/ParForProgramBlock.java
        """
        for space, name in self.functions(script):
            if space.endswith(_DISTRIBUTED):
                for block in hidden(script, "_prog").getFunctionProgramBlock(space, name).getChildBlocks():
                    if block.getClass().getSimpleName() == "ParForProgramBlock":
                        block.setStatementBlock(None)

    def functions(self, script: JavaObject) -> list[tuple[str, str]]:
        """Namespaces and names of the functions that a script calls."""
        # a copy, as py4j may not iterate over the set itself in every JVM
        keys = self._jvm.java.util.ArrayList(hidden(script, "_prog").getFunctionProgramBlocks().keySet())
        return [tuple(key.split("::")) for key in keys]

    def _pixelwise(self, script: JavaObject) -> list[tuple[str, str]]:
        return [(space, name) for space, name in self.functions(script) if space.endswith(_GENERATED)]

    def _prepare(
        self,
        connection: JavaObject,
        text: str,
        codegen: bool,
        inputs: Collection[str],
        outputs: Collection[str],
    ) -> JavaObject:
        arguments = self._jvm.java.util.HashMap()
        strings = self._strings(inputs), self._strings(outputs)
        return connection.prepareScript(text, self.sources[codegen], arguments, *strings)

    def _find_compiler(self) -> str | None:
        try:
            self._jvm.Class.forName("org.codehaus.janino.SimpleCompiler")
        except Py4JJavaError:
            return "javac" if self._jvm.javax.tools.ToolProvider.getSystemJavaCompiler() else None
        return "janino"  # a tenth of javac's time for a class, and in no need of a JDK

    def _connect(self, compiler: str | None = None) -> JavaObject:
        config = self._jvm.org.apache.sysds.conf.DMLConfig()
        config.setTextValue("sysds.floating.point.precision", self._precision)
        for name, value in self._settings.items():
            config.setTextValue(name, value)
        if compiler:
            config.setTextValue("sysds.codegen.enabled", "true")
            config.setTextValue("sysds.codegen.api", "java")
            config.setTextValue("sysds.codegen.compiler", compiler)
            # the default plan selector makes cell templates of these operators, five times as slow
            config.setTextValue("sysds.codegen.optimizer", "fuse_all")
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


def replace_function(script: JavaObject, namespace: str, name: str, function: JavaObject) -> None:
    """Has a prepared script call another compiled function in the place of one of its own."""
    program = hidden(script, "_prog")
    program.removeFunctionProgramBlock(namespace, name)
    program.addFunctionProgramBlock(namespace, name, function)


def hidden(script: JavaObject, name: str) -> JavaObject:
    """A field of a prepared script for which it has no accessor.

    These are its program ("_prog"), and its symbol table ("_vars"), the place for lists, which programs take
    and give but JMLC does not bind. One list saves some 400 calls a step for ResNet-50.
    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/api/jmlc/PreparedScript.java
    """
    field = script.getClass().getDeclaredField(name)
    field.setAccessible(True)
    return field.get(script)


def set_static(jvm: JVMView, name: str, field: str, value: bool) -> None:
    """Sets a static field of a class of the engine, for the whole JVM."""
    jvm.java.lang.Class.forName(name).getField(field).setBoolean(None, value)
