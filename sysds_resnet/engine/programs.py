"""Compiling DML programs for a JVM: each once, with or without generated code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from py4j.java_gateway import JavaGateway, JavaObject
from py4j.protocol import Py4JJavaError

from sysds_resnet.engine.blas import Multiply
from sysds_resnet.engine.jvm import dml_home

Kind = Literal["matrix", "list", "double", "int", "string"]

_MAX_PROGRAMS = 32  # a compiled program with the network's functions takes megabytes of heap
# The operators that code generation is for, and what takes their file's place with it.
_GENERATED, _GENERATED_SOURCE = "dml/layers/pixelwise.dml", "dml/layers/pixelwise_codegen.dml"
# What takes the place of products with the package's native helper.
_PRODUCT, _NATIVE_PRODUCT = "dml/layers/product.dml", "dml/layers/product_native.dml"


class Programs:
    """The compiled programs of a JVM.

    Args:
        gateway: The py4j gateway of the JVM.
        multiply: What multiplies matrices.
        codegen: Whether code may be generated; it is not where the JVM has no Java compiler.

    Attributes:
        codegen: Whether code is generated for the programs that ask for it.
        compiled: Prepared scripts by text, inputs, outputs and whether code is generated, oldest first.
        sources: Texts of the package's DML files by name, without and with code generation.
        connections: What prepares scripts, without and with code generation.
    """

    def __init__(self, gateway: JavaGateway, multiply: Multiply, codegen: bool) -> None:
        self._gateway, self._jvm = gateway, gateway.jvm
        self.compiled: dict[tuple, JavaObject] = {}
        compiler = self._find_compiler() if codegen else None
        self.codegen = compiler is not None
        # the native helper takes doubles; only the engine's own helper has a single precision of its own
        precision = "double" if multiply.native else multiply.precision
        self.connections = {False: self._connect(precision, None), True: self._connect(precision, compiler)}
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
        self, program: str, inputs: Mapping[str, str], outputs: Mapping[str, Kind], codegen: bool
    ) -> JavaObject:
        """The prepared script of a program, compiled unless it is among the last 32.

        Args:
            program: DML text.
            inputs: Names of the variables that it reads, and the types that `read` takes for them.
            outputs: Names and kinds of the variables to give back.
            codegen: Whether to generate code for dml/layers/pixelwise.dml.
        """
        codegen = codegen and self.codegen
        key = (program, tuple(inputs.items()), tuple(outputs.items()), codegen)
        if key not in self.compiled:
            if len(self.compiled) >= _MAX_PROGRAMS:
                self.compiled.pop(next(iter(self.compiled)))  # the oldest
            reads = "".join(f'{name} = read("", {declared})\n' for name, declared in inputs.items())
            writes = "".join(f'write({name}, "")\n' for name in outputs)
            if codegen:
                # Whatever is compiled again while it runs is generated, however small and each time anew. So
                # nothing is, but for the functions named below; naming them sets this flag again.
                self._set_recompilation(False)
            script = self.connections[codegen].prepareScript(
                f"{reads}{program}\n{writes}",
                self.sources[codegen],
                self._jvm.java.util.HashMap(),
                self._strings(inputs),
                self._strings(outputs),
            )
            if codegen:
                self._set_recompilation(True)
                functions = hidden(script, "_prog").getFunctionProgramBlocks().keySet()
                for namespace, name in (function.split("::") for function in functions):
                    if namespace.endswith(_GENERATED):
                        script.enableFunctionRecompile(namespace, self._strings([name]))
            self.compiled[key] = script
        return self.compiled[key]

    def _find_compiler(self) -> str | None:
        try:
            self._jvm.Class.forName("org.codehaus.janino.SimpleCompiler")
        except Py4JJavaError:
            return "javac" if self._jvm.javax.tools.ToolProvider.getSystemJavaCompiler() else None
        return "janino"  # a tenth of javac's time for a class, and in no need of a JDK

    def _connect(self, precision: str, compiler: str | None) -> JavaObject:
        config = self._jvm.org.apache.sysds.conf.DMLConfig()
        config.setTextValue("sysds.floating.point.precision", precision)
        if compiler:
            config.setTextValue("sysds.codegen.enabled", "true")
            config.setTextValue("sysds.codegen.api", "java")
            config.setTextValue("sysds.codegen.compiler", compiler)
            # the default plan selector makes cell templates of these operators, five times as slow
            config.setTextValue("sysds.codegen.optimizer", "fuse_all")
        return self._jvm.org.apache.sysds.api.jmlc.Connection(config)

    def _set_recompilation(self, allowed: bool) -> None:
        flags = self._jvm.org.apache.sysds.conf.CompilerConfig.ConfigType
        array = self._gateway.new_array(flags, 1)
        array[0] = flags.ALLOW_DYN_RECOMPILATION
        self.connections[True].setConfigTypes(allowed, array)

    def _strings(self, names: Collection[str]) -> JavaObject:
        array = self._gateway.new_array(self._jvm.String, len(names))
        for i, name in enumerate(names):
            array[i] = name
        return array


def hidden(script: JavaObject, name: str) -> JavaObject:
    """A field of a prepared script for which it has no accessor.

    These are its program ("_prog"), and its symbol table ("_vars"), the place for lists, which programs take
    and give but JMLC does not bind. One list saves some 400 calls a step for ResNet-50.
    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/api/jmlc/PreparedScript.java
    """
    field = script.getClass().getDeclaredField(name)
    field.setAccessible(True)
    return field.get(script)
