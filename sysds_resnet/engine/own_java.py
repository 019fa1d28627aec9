"""Java of this package in the engine's JVM."""

from collections.abc import Callable, Sequence
from pathlib import Path

from py4j.java_gateway import JavaGateway, JavaObject


def compile_class(gateway: JavaGateway, name: str) -> Callable[[Sequence[object]], JavaObject]:
    """Compiles a class of this folder.

    Args:
        gateway: The py4j gateway of the JVM.
        name: Of the class, which has one constructor.

    Returns:
        What makes an object from the constructor's arguments.

    Raises:
        TypeError, Py4JJavaError: If the JVM has no Janino.
    """
    constructor = (
        _compile(gateway, name).getClassLoader().loadClass(f"sysds_resnet.{name}").getConstructors()[0]
    )

    def make(values: Sequence[object]) -> JavaObject:
        arguments = gateway.new_array(gateway.jvm.Object, len(values))
        for i, value in enumerate(values):
            arguments[i] = value
        return constructor.newInstance(arguments)

    return make


def replace_class(gateway: JavaGateway, name: str, neighbour: str) -> None:
    """Puts a class of this folder in the place of the engine's of the same name, before that was used.

    Args:
        gateway: The py4j gateway of the JVM.
        name: Of the class.
        neighbour: Full name of another class of its package.

    Raises:
        TypeError, Py4JJavaError: If the JVM has no Janino, or has used the engine's class.
    """
    java = gateway.jvm.java.lang
    package = java.invoke.MethodHandles.privateLookupIn(
        java.Class.forName(neighbour), java.invoke.MethodHandles.lookup()
    )
    [code] = _compile(gateway, name).getBytecodes().values()
    package.defineClass(code)


def _compile(gateway: JavaGateway, name: str) -> JavaObject:
    compiler = gateway.jvm.org.codehaus.janino.SimpleCompiler()
    compiler.cook(Path(__file__).with_name(f"{name}.java").read_text())
    return compiler
