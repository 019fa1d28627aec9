"""Rounding of numbers to bf16, which has the range of float32 and 8 bits of precision."""

from __future__ import annotations

import numpy as np


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """Gives numbers rounded to the nearest of bf16, those between two of them to the even one.

    Args:
        values: The numbers, float32.

    Returns:
        The rounded numbers as float32, in memory of their own. What is not a number stays none, and what is
        beyond the largest number of bf16 becomes infinite.
    """
    bits = values.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded &= 0xFFFF0000
    found = rounded.view(np.float32)
    unordered = np.isnan(values)
    if unordered.any():  # whose bits would overflow into those of a number
        found[unordered] = np.nan
    return found
