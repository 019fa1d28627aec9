"""The Java classes of this package in the engine's JVM, and hidden fields of the engine's own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

from py4j.java_gateway import JavaGateway, JavaObject, JVMView

from sysds_resnet.errors import UserError

# The constructors of the classes that a JVM has, by their files. Each class is compiled only once: py4j
# remembers methods by the name of their class, and would call those of an earlier one on later objects.
# https://github.com/py4j/py4j/blob/0.10.9/py4j-java/src/main/java/py4j/reflection/MethodDescriptor.java
_constructors: WeakKeyDictionary[JavaGateway, dict[Path, JavaObject]] = WeakKeyDictionary()
_compiling = Lock()


def compile_classes(
    gateway: JavaGateway, folder: Path, *names: str
) -> list[Callable[[Sequence[object]], JavaObject]]:
    """Compiles Java classes of this package in the JVM, but for those that it has already.

    Args:
        gateway: The py4j gateway of the JVM.
        folder: The folder that contains the classes' files.
        names: The names of the classes, which have one constructor each and may use the classes before them.

    Returns:
        For each class a function that makes an object from the constructor's arguments.

    Raises:
        UserError: If the JVM cannot compile Java.
    """
    makers, loader = [], None
    with _compiling:
        known = _constructors.setdefault(gateway, {})
        for name in names:
            file = folder / f"{name}.java"
            if file not in known:
                found = _compile(gateway, file, loader).getClassLoader().loadClass(f"sysds_resnet.{name}")
                known[file] = found.getConstructors()[0]
            loader = known[file].getDeclaringClass().getClassLoader()
            makers.append(_maker(gateway, known[file]))
    return makers


def _maker(gateway: JavaGateway, constructor: JavaObject) -> Callable[[Sequence[object]], JavaObject]:
    def make(values: Sequence[object]) -> JavaObject:
        return constructor.newInstance(java_array(gateway, values))

    return make


def java_array(gateway: JavaGateway, values: Sequence[object]) -> JavaObject:
    """Makes an Object[] in the JVM that contains these values."""
    array = gateway.new_array(gateway.jvm.Object, len(values))
    for i, value in enumerate(values):
        array[i] = value
    return array


def replace_class(gateway: JavaGateway, file: Path, neighbour: str) -> None:
    """Replaces a class of the engine, which must not have been used yet, by one of this package.

    Args:
        gateway: The py4j gateway of the JVM.
        file: The Java file that contains the new class, of the same name, and nothing else.
        neighbour: The full name of another class in the same Java package.

    Raises:
        UserError: If the JVM cannot compile Java.
        Py4JJavaError: If the JVM has used the engine's class.
    """
    java = gateway.jvm.java.lang
    package = java.invoke.MethodHandles.privateLookupIn(
        java.Class.forName(neighbour), java.invoke.MethodHandles.lookup()
    )
    [code] = _compile(gateway, file).getBytecodes().values()
    package.defineClass(code)


def _compile(gateway: JavaGateway, file: Path, parent: JavaObject | None = None) -> JavaObject:
    try:
        compiler = gateway.jvm.org.codehaus.janino.SimpleCompiler()
    except TypeError as error:  # py4j takes what is not there for a package
        raise UserError(
            "engine: found a JVM without the Janino compiler, expected one that this engine started; open "
            "the engine without `context`"
        ) from error
    if parent is not None:
        compiler.setParentClassLoader(parent)
    compiler.cook(file.read_text())
    return compiler


def hidden(script: JavaObject, name: str) -> JavaObject:
    """Gives a field of a prepared script for which the script has no accessor.

    Such fields are its program ("_prog") and its symbol table ("_vars"). Lists must be put into the latter:
    programs take and give them, but JMLC, SystemDS's Java API, does not bind them. One list saves some 400
    calls in each step of ResNet-50.
    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/api/jmlc/PreparedScript.java
    """
    field = script.getClass().getDeclaredField(name)
    field.setAccessible(True)
    return field.get(script)


def set_static(jvm: JVMView, name: str, field: str, value: bool) -> None:
    """Sets a static boolean field of one of the engine's classes, for the whole JVM."""
    jvm.java.lang.Class.forName(name).getField(field).setBoolean(None, value)
