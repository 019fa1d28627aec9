"""Java of this package in the engine's JVM."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from py4j.java_gateway import JavaGateway, JavaObject, JVMView

if TYPE_CHECKING:
    pass


def compile_classes(
    gateway: JavaGateway, folder: Path, *names: str
) -> list[Callable[[Sequence[object]], JavaObject]]:
    """Compiles classes of this package.

    Args:
        gateway: The py4j gateway of the JVM.
        folder: Where their files lie.
        names: Of the classes, which have one constructor each and may use those before them.

    Returns:
        For each what makes an object from the constructor's arguments.

    Raises:
        TypeError, Py4JJavaError: If the JVM has no Janino.
    """
    makers, loader = [], None
    for name in names:
        loader = _compile(gateway, folder / f"{name}.java", loader).getClassLoader()
        makers.append(_maker(gateway, loader.loadClass(f"sysds_resnet.{name}").getConstructors()[0]))
    return makers


def _maker(gateway: JavaGateway, constructor: JavaObject) -> Callable[[Sequence[object]], JavaObject]:
    def make(values: Sequence[object]) -> JavaObject:
        return constructor.newInstance(java_array(gateway, values))

    return make


def java_array(gateway: JavaGateway, values: Sequence[object]) -> JavaObject:
    """An Object[] of these values."""
    array = gateway.new_array(gateway.jvm.Object, len(values))
    for i, value in enumerate(values):
        array[i] = value
    return array


def replace_class(gateway: JavaGateway, file: Path, neighbour: str) -> None:
    """Puts a class of this package in the place of the engine's of the same name, before that was used.

    Args:
        gateway: The py4j gateway of the JVM.
        file: The class, alone in its file.
        neighbour: Full name of another class of its package.

    Raises:
        TypeError, Py4JJavaError: If the JVM has no Janino, or has used the engine's class.
    """
    java = gateway.jvm.java.lang
    package = java.invoke.MethodHandles.privateLookupIn(
        java.Class.forName(neighbour), java.invoke.MethodHandles.lookup()
    )
    [code] = _compile(gateway, file).getBytecodes().values()
    package.defineClass(code)


def _compile(gateway: JavaGateway, file: Path, parent: JavaObject | None = None) -> JavaObject:
    compiler = gateway.jvm.org.codehaus.janino.SimpleCompiler()
    if parent is not None:
        compiler.setParentClassLoader(parent)
    compiler.cook(file.read_text())
    return compiler


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
