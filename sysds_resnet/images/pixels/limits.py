"""Limits on image files that others made, checked before their pixels are decoded.

A small file may claim to be a huge image, or take minutes to decode; and a file of any name may be in a
format whose reader runs other programs, as Pillow's for EPS runs Ghostscript.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

from sysds_resnet.errors import UserError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""Pillow's names of the formats that are read, those of `IMG_EXTENSIONS`; PPM includes PBM and PGM."""

MAX_PIXELS = 100_000_000
"""The most pixels of an image; a larger one is refused, as it would be more than 300 MB once decoded."""

MAX_BYTES = 4 * MAX_PIXELS
"""The most bytes of a file, room for uncompressed RGBA of `MAX_PIXELS`; a larger one is refused unread."""

MAX_SCANS = 100
"""The most scans of a JPEG file: each is a pass over the image, and encoders make about ten."""

MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
"""The most pixels that the scans of a JPEG file may pass over: so many take about 10 s on one core."""

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not 00 and restarts: they stand within a scan's data
_STANDALONE = (0x01, 0xD8)  # markers without a length: TEM and SOI
_END, _SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)

# All of Pillow's readers are loaded since they know formats by their first bytes, which `format_of` asks
# them for; only those of FORMATS ever read an image. Otherwise Pillow would load readers when first needed,
# without a lock.
Image.init()


class Refused(ValueError):
    """The error for a file that is beyond a limit; its message says what was found."""


def image_error(name: str, found: str) -> UserError:
    """Gives the error for an image called `name` that cannot be read; `found` is what was in its place."""
    return UserError(
        f"image {name}: found {found}, expected a whole image in one of the formats {', '.join(FORMATS)}: "
        "repair, replace or remove the file"
    )


def check_bytes(size: int, name: str) -> None:
    """Raises a UserError for a file of more than `MAX_BYTES`; called before it is read where possible."""
    if size > MAX_BYTES:
        raise image_error(name, f"{size} bytes, more than {MAX_BYTES}")


def check_pixels(width: int, height: int) -> None:
    """Raises `Refused` for an image of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise Refused(f"{width} x {height} pixels, more than {MAX_PIXELS}")


def check_scans(jpeg: bytes, width: int, height: int) -> None:
    """Raises `Refused` for a JPEG file of too many scans, or of scans over too many pixels.

    Args:
        jpeg: The bytes of the file.
        width: The width that the file claims, in pixels.
        height: The height that the file claims, in pixels.
    """
    scans = count_scans(jpeg)
    if scans > MAX_SCANS:
        raise Refused(f"{scans} scans, more than {MAX_SCANS}")
    if scans > 1 and scans * width * height > MAX_SCANNED_PIXELS:
        raise Refused(f"{scans} scans of {width} x {height} pixels, more than {MAX_SCANNED_PIXELS} together")


def count_scans(jpeg: bytes) -> int:
    """Counts the scans of the first image in a JPEG file: usually 1 if it is not progressive.

    Thumbnails in its metadata and what follows its end do not count.
    """
    scans, place = 0, 2
    components, progressive = 0, False
    while found := _MARKER.search(jpeg, place):
        marker, place = jpeg[found.end() - 1], found.end()
        if marker == _END:
            break
        if marker in _STANDALONE:
            continue
        segment = jpeg[place : place + 8]
        if marker in _FRAMES and len(segment) == 8:
            components, progressive = segment[7], marker in _PROGRESSIVE
        elif marker == _SCAN:
            scans += 1
            if not progressive and segment[2:3] == bytes([components]):
                break  # a scan with all components is the only one
        place += int.from_bytes(segment[:2], "big")
    return scans


def format_of(data: bytes) -> str | None:
    """Names the format that a file's first bytes show, whether it is read here or not, or gives None."""
    prefix = data[:16]
    if prefix[4:12] in (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1"):
        return "HEIC"  # a format that Pillow does not know
    for name, (_, accept) in Image.OPEN.items():
        try:
            if accept is not None and accept(prefix) is True:
                return name
        except (IndexError, ValueError, struct.error):  # the file is shorter than the format's sign
            continue
    return None
