"""Inputs and outputs of DML programs: which kinds there are, and how the engine is asked for them."""

from __future__ import annotations

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine.transfer import uncycle

Value = np.ndarray | JavaObject | bool | int | float | str


def declared_type(value: Value) -> str:
    """What DML's `read` says of an input."""
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
    """Whether it is a handle of a matrix."""
    return isinstance(value, JavaObject) and value.getClass().getSimpleName() == "MatrixBlock"


def is_list(value: Value) -> bool:
    """Whether it is a handle of a list."""
    return isinstance(value, JavaObject) and value.getClass().getSimpleName() == "ListObject"


# Outputs of a kind from the results of JMLC, by name.
GETTERS = {
    "matrix": lambda results, name: results.getMatrixBlock(name),
    "list": lambda results, name: results.getListObject(name),
    "double": lambda results, name: results.getDouble(name),
    "int": lambda results, name: results.getLong(name),
    "string": lambda results, name: results.getString(name),
}


def _block(matrix: JavaObject) -> JavaObject:
    block = matrix.acquireRead()
    matrix.release()
    uncycle(matrix)
    return block


# The same from variables of a symbol table.
FROM_TABLE = {
    "matrix": lambda value: _block(value),
    "list": lambda value: value,
    "double": lambda value: value.getDoubleValue(),
    "int": lambda value: value.getLongValue(),
    "string": lambda value: value.getStringValue(),
}
