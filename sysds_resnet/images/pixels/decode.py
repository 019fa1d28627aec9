"""The decoding of image files into RGB pixels.

The result is that of torchvision's default loader: the first frame in RGB, with grey, palette, CMYK and alpha
converted by Pillow, 16-bit grey clipped at 255 rather than scaled, and EXIF orientation ignored.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.pixels.limits import (
    FORMATS,
    Refused,
    check_bytes,
    check_pixels,
    check_scans,
    format_of,
    image_error,
)
from sysds_resnet.images.pixels.resample import Box, resize

SPARE = 3
"""The least number of decoded pixels for each pixel of the result, along either side, in scaled decoding.

With 3, the values of photographs are on average less than 0.7 of 255 levels from those without scaled
decoding, and 99 % of them within 5 (tests/images/pixels/test_decode.py); with 2 it would be 1.8 and 9.
"""

_JPEG = b"\xff\xd8\xff"
_BAND = 256  # rows


class Picture:
    """An image file whose size is known, and whose pixels are decoded when they are asked for.

    Args:
        data: The bytes of the file, or its pixels, uint8 of shape (H, W, 3).
        name: The name of the image in errors.

    Attributes:
        height: The height of the image in pixels.
        width: The width of the image in pixels.

    Raises:
        UserError: If the file is beyond a limit (limits.py), or not an image in one of `FORMATS`.
    """

    def __init__(self, data: bytes | np.ndarray, name: str) -> None:
        self._data = data
        self._name = name
        self._turbo = False  # whether libjpeg-turbo can decode it
        self._decoded: tuple[int, np.ndarray] | None = None  # the last shrink and its pixels
        if isinstance(data, np.ndarray):
            self.height, self.width = data.shape[:2]
            return
        check_bytes(len(data), name)
        try:
            self.width, self.height = self._turbo_size(data) or _size(data)
            check_pixels(self.width, self.height)
            if data[:3] == _JPEG:
                check_scans(data, self.width, self.height)
        except Exception as error:
            # Any Exception is caught, as Pillow's many readers raise more than OSError on damaged files.
            raise self._error(error) from error

    def _turbo_size(self, data: bytes) -> tuple[int, int] | None:
        """Gives width and height of a JPEG file that libjpeg-turbo reads, or None."""
        if data[:3] != _JPEG:
            return None
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            return None  # Pillow reads some of these files, and says what is wrong with the others
        self._turbo = space != "CMYK"
        return width, height

    def pixels(self, shrink: int = 1) -> np.ndarray:
        """Decodes the image, unless the last call did so with the same `shrink`.

        Args:
            shrink: The divisor 1, 2, 4 or 8 of the sides: a JPEG file is decoded at this fraction of its
                size, which is faster and takes less memory. Other files come in full size.

        Returns:
            The pixels, uint8 of shape (H, W, 3).

        Raises:
            UserError: If the file is truncated or damaged.
        """
        if isinstance(self._data, np.ndarray):
            return self._data
        if self._decoded is None or self._decoded[0] != shrink:
            self._decoded = shrink, self._decode(shrink)
        return self._decoded[1]

    def _decode(self, shrink: int) -> np.ndarray:
        if self._turbo:
            try:
                # Pillow uses the same library and gives the same pixels, but makes copies.
                return simplejpeg.decode_jpeg(
                    self._data,
                    min_height=-(-self.height // shrink),
                    min_width=-(-self.width // shrink),
                    min_factor=shrink,
                )
            except ValueError:
                pass  # Pillow reads some of these files, and says what is wrong with the others
        try:
            with _opened(self._data) as image:
                # Pillow's decoder of JPEG takes this fraction; its other decoders give the full size
                image.draft(None, (self.width // shrink, self.height // shrink))
                return _to_array(image)
        except Exception as error:
            raise self._error(error) from error

    def part(self, box: Box, height: int, width: int, *, alone: bool) -> np.ndarray:
        """Decodes a part of the image and resizes it.

        Args:
            box: The part, in pixels of the image, within it.
            height: The height of the result in pixels.
            width: The width of the result in pixels.
            alone: Whether the image is cropped first and resized then, so that no pixel outside of the box
                counts. Otherwise the result is as if the image were resized first and cropped then.

        Returns:
            The resized part, uint8 of shape (height, width, 3).

        Raises:
            UserError: If the file is truncated or damaged.
        """
        room = min(box[2] / height, box[3] / width) / SPARE
        shrink = max(factor for factor in (1, 2, 4, 8) if factor <= max(1, room))
        pixels = self.pixels(shrink)
        if pixels.shape[:2] == (self.height, self.width):
            shrink = 1
        # The decoder rounds up sides that shrink does not divide, so that only their last pixel is not whole.
        top, left, h, w = (value / shrink for value in box)
        if alone:
            pixels = pixels[int(top) : math.ceil(top + h), int(left) : math.ceil(left + w)]
            top, left = top - int(top), left - int(left)
        return resize(pixels, height, width, (top, left, h, w))

    def _error(self, error: Exception) -> UserError:
        if isinstance(error, Refused):
            reason = str(error)
        elif isinstance(error, MemoryError):
            reason = "too little memory to decode it"
        elif isinstance(error, Image.UnidentifiedImageError):
            name = format_of(self._data)
            other = name is not None and name not in FORMATS
            reason = f"an image in the format {name}" if other else "no known image format"
        else:
            reason = f"a damaged file ({one_line(error)})"
        return image_error(self._name, reason)


def _to_array(image: Image.Image) -> np.ndarray:
    """Gives the pixels in RGB, uint8 of shape (H, W, 3).

    They are taken in bands, as Pillow makes another copy of what it gives, 200 MB for the largest images.
    """
    image.load()
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        pixels[top : top + _BAND] = band if band.mode == "RGB" else band.convert("RGB")
    return pixels


def _size(data: bytes) -> tuple[int, int]:
    """Gives width and height of an image that Pillow reads."""
    with _opened(data) as image:
        return image.size


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Opens an image without decoding its pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which nobody here reads
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image
