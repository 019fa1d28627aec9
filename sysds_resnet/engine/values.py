"""The kinds of inputs and outputs of DML programs, and how each is declared to, or read from, the engine."""

from __future__ import annotations

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine.transfer import call

Value = np.ndarray | JavaObject | bool | int | float | str


def declared_type(value: Value) -> str:
    """Gives the arguments of DML's `read` that declare the type of an input."""
    if isinstance(value, bool):
        return 'data_type="scalar", value_type="boolean"'
    if isinstance(value, int):
        return 'data_type="scalar", value_type="int"'
    if isinstance(value, float):
        return 'data_type="scalar", value_type="double"'
    if isinstance(value, str):
        return 'data_type="scalar", value_type="string"'
    if is_list(value):
        return 'data_type="list"'
    return 'data_type="matrix"'


def is_block(value: Value) -> bool:
    """Tells whether a value is a handle of a matrix in the JVM."""
    return isinstance(value, JavaObject) and _class_name(value) == "MatrixBlock"


def is_host_matrix(value: Value) -> bool:
    """Tells whether a value is a handle of a matrix for a GPU (engine/gpu/HostMatrix.java)."""
    return isinstance(value, JavaObject) and _class_name(value) == "HostMatrix"


def is_list(value: Value) -> bool:
    """Tells whether a value is a handle of a list in the JVM."""
    return isinstance(value, JavaObject) and _class_name(value) == "ListObject"


def _class_name(handle: JavaObject) -> str:
    attributes = vars(handle)  # where the name is kept, so that the JVM is asked only once
    if "class_name" not in attributes:
        attributes["class_name"] = call(handle, "getClass").getSimpleName()
    return attributes["class_name"]


# For each kind of output, how it is taken by name from the results of JMLC, SystemDS's Java API.
GETTERS = {
    "matrix": lambda results, name: results.getMatrixBlock(name),
    "list": lambda results, name: results.getListObject(name),
    "double": lambda results, name: results.getDouble(name),
    "int": lambda results, name: results.getLong(name),
    "string": lambda results, name: results.getString(name),
}
