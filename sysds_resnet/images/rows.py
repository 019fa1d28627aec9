"""Images as rows of tables, the form in which scikit-learn's tools take and give data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sysds_resnet.errors import WrongValue

Shape = tuple[int, int, int]
"""The shape (H, W, C) of an image."""


def to_rows(X: object) -> tuple[object, Shape | None]:
    """Flattens images to rows.

    Args:
        X: Images of shape (n, H, W, C), grey images of shape (n, H, W), or anything else.

    Returns:
        The rows, of shape (n, H*W*C), and the shape of the images. Anything else is given back as it is, with
        None.

    Raises:
        ValueError: If `X` is a list that NumPy makes no array of.
    """
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    if len(X.shape) not in (3, 4):
        return X, None
    images = np.asarray(X)
    shape = (*images.shape[1:], 1)[:3]
    return images.reshape(len(images), math.prod(shape)), shape


def shape_of_images(values: int, image_shape: Sequence[int] | None, given: Shape | None) -> Shape:
    """Gives the shape of images of so many values.

    Args:
        values: The number of values of an image.
        image_shape: The shape (H, W) or (H, W, C) that the user asks for; one of the numbers may be -1, as in
            NumPy's reshape. None for that of the images, and for rows that of square grey images.
        given: The shape of the images; None if they are rows.

    Raises:
        WrongValue: If the shape does not fit the images.
    """
    if image_shape is None:
        side = math.isqrt(values)
        if given is None and side * side != values:
            raise WrongValue(
                f"X: found rows of {values} values, expected images, or rows of square grey ones; set "
                "image_shape to (H, W) or (H, W, C)"
            )
        return given or (side, side, 1)
    try:
        shape = np.broadcast_to(0, values).reshape(image_shape).shape
    except (TypeError, ValueError):
        shape = ()
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3 or given not in (None, shape):
        found = f"rows of {values} values" if given is None else f"images of shape {given}"
        raise WrongValue(
            f"image_shape: found {image_shape!r} for {found}, expected their (H, W) or (H, W, C); correct it"
        )
    return shape
