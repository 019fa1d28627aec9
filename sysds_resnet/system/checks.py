"""Checks of arguments that people give to functions, before these compute with them or fail deep inside."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from sysds_resnet.errors import UserError, one_line


def whole(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """Gives a whole number of Python's or NumPy's, or a float without a fraction, as a Python int.

    Raises:
        UserError: If the value is something else, such as a truth value, or out of its range.
    """
    number = None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        number = int(value)
    elif not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)  # this works for arrays and tensors of one number too
        except TypeError:
            number = None
    outside = number is not None and (
        (least is not None and number < least) or (most is not None and number > most)
    )
    if number is None or outside:
        low = "" if least is None else f" of at least {least}"
        high = f" of at most {most}" if least is None else f" from {least} to {most}"
        asked = low if most is None else high
        raise UserError(f"{name}: found {value!r}, expected a whole number{asked}; give one")
    return number


def flag(name: str, value: object) -> bool:
    """Gives a truth value of Python's or NumPy's as a Python bool.

    Raises:
        UserError: If the value is something else: text such as "no" would count as true.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise UserError(f"{name}: found {value!r}, expected True or False; give one of them")
    return bool(value)


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """Checks that a value is among its choices.

    Raises:
        UserError: If it is not.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        listed = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
        raise UserError(f"{name}: found {value!r}, expected {listed}; choose one")


def as_array(name: str, value: object) -> np.ndarray:
    """Makes an array of a value, such as a list, a Series, or a tensor that lies in this process's memory.

    Raises:
        UserError: If the value cannot be an array, such as a list of images of several sizes.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        # the errors of PyTorch tensors on a GPU, or with gradients, say what to call first
        raise UserError(
            f"{name}: found {type(value).__name__} that is no array ({one_line(error)}), expected a NumPy "
            "array; make one of it"
        ) from error
