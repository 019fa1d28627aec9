"""The Java text of operators, made from the templates beside this file and the formulas in table.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from sysds_resnet.engine.operators.table import VECTORS, Native, Output, Pixelwise

Storage = Literal["fp64", "fp32", "bf16"]
"""The type that activations are kept in. FP32 and bf16 need the native helper."""

_FOLDER = Path(__file__).parent
_SHARED = ("Imports", "Frame", "Storage", "Helper")  # files with what several classes have in common


def names_used(output: Output) -> set[str]:
    """Gives the names of the inputs that an output needs."""
    if isinstance(output, Pixelwise):
        return set(re.findall(r"\w+", " ".join([output.value, *output.sums])))
    if isinstance(output, Native):
        windows = ["height", "width", "K", "stride"] if output.windows else []
        return {output.images, output.gradient, output.filters, *windows}
    return set(output.inputs.split())


def java(class_name: str, output: Output, inputs: list[tuple[str, str]], storage: Storage) -> str:
    """Gives the text of the class that computes an output.

    Args:
        class_name: The name of the class.
        output: The output, as `operators` in table.py gives it.
        inputs: The name of each input that is used, and "MATRIX" or "SCALAR".
        storage: What activations are kept in.
    """
    matrices = [name for name, kind in inputs if kind == "MATRIX"]
    scalars = [name for name, kind in inputs if kind == "SCALAR"]
    taken = [matrices.index(name) for name in output.taken.split() if storage != "fp64"]
    fields = {"NAME": class_name, "TAKEN": _numbers(taken), "IS_BF16": _boolean(storage == "bf16")}
    if isinstance(output, Pixelwise):
        fields["SUMS"] = str(len(output.sums))
        if storage == "fp64" or not output.number:
            fields |= _pixelwise(output, matrices, scalars)
            return _filled("Pixelwise.java", fields)
        operands = [i for i, name in enumerate(matrices) if name not in VECTORS and i not in taken[:1]]
        fields["IS_BF16"] = _boolean(storage == "bf16" and not output.fp32)
        fields["OPERANDS"] = _numbers(taken[:1] + operands)
        fields["ROWS"] = _numbers([i for i, name in enumerate(matrices) if name in VECTORS])
        fields["PASS"] = str(output.number)
        return _filled("Pass.java", fields)
    if isinstance(output, Native):
        roles = {"IMAGES": output.images, "GRADIENT": output.gradient, "FILTERS": output.filters}
        fields |= {role: str(matrices.index(name) if name else -1) for role, name in roles.items()}
        fields["IS_SUM"] = _boolean(not output.filters)
        return _filled("Native.java", fields)
    fields["BACKWARD"] = _boolean(output.backward)
    fields["REAL"] = "double" if storage == "fp64" else "float"
    fields["PASS"] = str(output.number)
    return _filled("Pool.java" if output.number and storage != "fp64" else output.template, fields)


def recycler() -> str:
    """Gives the text of the class codegen.Recycler."""
    return _filled("Recycler.java", {})


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _boolean(value: bool) -> str:
    return str(value).lower()


def _pixelwise(output: Pixelwise, matrices: list[str], scalars: list[str]) -> dict[str, str]:
    value = f"((DoubleVector) ({output.value or 'DoubleVector.zero(SPECIES)'}))"
    add = "DoubleVector.fromArray(SPECIES, sums, i + {0}{1}).add({2}).intoArray(sums, i + {0}{1});"
    added = [(f"{k} * tile", f"((DoubleVector) ({summed}))") for k, summed in enumerate(output.sums)]

    def load(name: str, mask: str) -> str:
        start = "" if name in VECTORS else "from + "
        return f"DoubleVector {name} = DoubleVector.fromArray(SPECIES, {name}_, {start}i{mask});"

    return {
        "IS_VECTOR": ", ".join(_boolean(name in VECTORS) for name in matrices),
        "ARRAYS": " ".join(
            [f"double[] {name}_ = in[{i}];" for i, name in enumerate(matrices)]
            + [f"double {name} = numbers[{i}];" for i, name in enumerate(scalars)]
        ),
        "LOADS": " ".join(load(name, "") for name in matrices),
        "MASKED_LOADS": " ".join(load(name, ", mask") for name in matrices),
        "VALUE": value,
        "ADD": " ".join(add.format(place, "", summed) for place, summed in added),
        "MASKED_ADD": " ".join(add.format(place, ", mask", summed) for place, summed in added),
    }


def _filled(template: str, fields: dict[str, str]) -> str:
    text = (_FOLDER / template).read_text()
    for name in _SHARED:
        text = text.replace(f"${name.upper()}$", (_FOLDER / f"{name}.java").read_text().strip())
    for field, value in fields.items():
        text = text.replace(f"${field}$", value)
    return text
