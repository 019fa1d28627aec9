"""Image files' bytes into RGB pixels.

What comes out is what torchvision's default loader gives: the first frame in RGB; grey, palette, CMYK and
alpha converted by Pillow, 16-bit grey clipped at 255 rather than scaled, and EXIF orientation ignored.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image

from sysds_resnet.errors import UserError, one_line

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: 300 MB."""

_JPEG = b"\xff\xd8\xff"

# Image.open (in Pillow 11.3 and 13.0) loads parsers when first needed, without a lock: by its code, a second
# thread may then be told that a good file has no known format. So all are loaded beforehand.
Image.init()


def decode(data: bytes | np.ndarray, name: str) -> np.ndarray:
    """Decode an image file.

    Args:
        data: the file; an array is given back as it is.
        name: what errors call it.

    Returns:
        uint8 of shape (H, W, 3).

    Raises:
        UserError: the file is truncated, damaged, larger than `MAX_PIXELS` or not an image.
    """
    if isinstance(data, np.ndarray):
        return data
    if data[:3] == _JPEG:
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
            if height * width <= MAX_PIXELS and space != "CMYK":
                # the same library as Pillow's without its copies, and the same pixels
                return simplejpeg.decode_jpeg(data)
        except ValueError:
            pass  # Pillow reads some that are odd, and says what is wrong with the others
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which nobody here reads
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
                return np.asarray(image.convert("RGB"))
    except Exception as error:
        # Any Exception: on damaged files Pillow's many parsers raise much more than OSError.
        raise UserError(
            f"image {name}: found {_reason(error)}, expected a whole JPEG, PNG or other image that Pillow "
            "reads: repair, replace or remove the file"
        ) from error


def _reason(error: Exception) -> str:
    """Say in a few words and one line why a file could not be decoded."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no known image format"
    return f"a damaged file ({one_line(error)})"
