"""What is refused of image files that others made, before their pixels are decoded.

A small file may claim to be a huge image, or take minutes to decode; and a file of any name may be in a
format whose reader runs other programs, as Pillow's for EPS runs Ghostscript.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

from sysds_resnet.errors import UserError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""Pillow's names of the formats that are read: those of `IMG_EXTENSIONS`. PPM is PBM and PGM too."""

MAX_PIXELS = 100_000_000
"""Larger images are refused: decoded, they would be more than 300 MB."""

MAX_BYTES = 4 * MAX_PIXELS
"""Larger files are refused before they are read: room for uncompressed RGBA of `MAX_PIXELS`."""

MAX_SCANS = 100
"""JPEG files of more scans are refused: each is a pass over the image, and encoders make about ten."""

MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
"""JPEG files are refused whose scans pass over more pixels: so many take about 10 s on one core."""

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # 00 and restarts stand within the data of a scan
_STANDALONE = (0x01, 0xD8)  # markers without a length: TEM and SOI
_END, _SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)

# Only the readers of FORMATS are ever called, but what the others know of first bytes gives formats a name.
# Pillow loads readers when first needed, without a lock, so all are loaded here.
Image.init()


class Refused(ValueError):
    """A file is beyond a limit. The message says what was found."""


def image_error(name: str, found: str) -> UserError:
    """The error of an image that cannot be read, by its name and what was found in the place of an image."""
    return UserError(
        f"image {name}: found {found}, expected a whole image in one of the formats {', '.join(FORMATS)}: "
        "repair, replace or remove the file"
    )


def check_bytes(size: int, name: str) -> None:
    """Raise a UserError for a file of more than `MAX_BYTES`, before it is read where that is possible."""
    if size > MAX_BYTES:
        raise image_error(name, f"{size} bytes, more than {MAX_BYTES}")


def check_pixels(width: int, height: int) -> None:
    """Raise `Refused` for an image of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise Refused(f"{width} x {height} pixels, more than {MAX_PIXELS}")


def check_scans(jpeg: bytes, width: int, height: int) -> None:
    """Raise `Refused` for a JPEG file of too many scans, or of scans over too many pixels.

    Args:
        jpeg: the file.
        width: that it claims, in pixels.
        height: likewise.
    """
    scans = count_scans(jpeg)
    if scans > MAX_SCANS:
        raise Refused(f"{scans} scans, more than {MAX_SCANS}")
    if scans > 1 and scans * width * height > MAX_SCANNED_PIXELS:
        raise Refused(f"{scans} scans of {width} x {height} pixels, more than {MAX_SCANNED_PIXELS} together")


def count_scans(jpeg: bytes) -> int:
    """Count the scans of the first image in a JPEG file: 1 if it is not progressive, but for odd ones.

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
                break  # all components are in it, so that there is no other
        place += int.from_bytes(segment[:2], "big")
    return scans


def format_of(data: bytes) -> str | None:
    """Name the format that a file's first bytes are the sign of, if there is one: read here or not."""
    prefix = data[:16]
    if prefix[4:12] in (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1"):
        return "HEIC"  # which Pillow does not know
    for name, (_, accept) in Image.OPEN.items():
        try:
            if accept is not None and accept(prefix) is True:
                return name
        except (IndexError, ValueError, struct.error):  # of a file that is shorter than any sign
            continue
    return None
