"""Image files of others: only the formats that are named are read, and small files cannot be huge work."""

import io
import os
import subprocess
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from sysds_resnet.errors import UserError
from sysds_resnet.images import open_images
from sysds_resnet.images.pixels import limits
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.limits import FORMATS, MAX_BYTES, MAX_PIXELS, MAX_SCANS, count_scans
from sysds_resnet.images.sources.base import FileSource
from sysds_resnet.images.sources.files import IMG_EXTENSIONS
from sysds_resnet.images.sources.layouts import open_source

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
showpage
%%EOF
"""


def encoded(kind, mode="RGB", size=(40, 30), **options):
    file = io.BytesIO()
    Image.new(mode, size, 100).save(file, kind, **options)
    return file.getvalue()


def foreign_formats():
    """Every format that Pillow writes and that no accepted ending stands for."""
    Image.init()
    read = {*FORMATS, "MPO"}  # a JPEG file with more images behind the first
    missing = {"AVIF"} if not features.check("avif") else set()
    missing |= {"JPEG2000"} if not features.check("jpg_2000") else set()
    return sorted(set(Image.SAVE) & set(Image.OPEN) - read - missing)


def refusal(data):
    with pytest.raises(UserError) as error:
        Picture(data, "x.jpg").pixels()
    text = str(error.value)
    assert text.startswith("image x.jpg: found ") and "\n" not in text
    assert "expected a whole image in one of the formats JPEG, PNG, PPM, BMP, TIFF, WEBP: repair" in text
    return text


def test_the_accepted_endings_are_those_of_the_formats_that_are_read():
    Image.init()
    assert {Image.EXTENSION[ending] for ending in IMG_EXTENSIONS} == set(FORMATS)


@pytest.mark.parametrize("kind", foreign_formats())
def test_other_formats_never_reach_their_readers(kind, monkeypatch):
    for mode in ("RGB", "L", "1", "F", "P"):
        try:
            data = encoded(kind, mode)
            break
        except (OSError, KeyError, ValueError):
            continue
    else:
        pytest.skip("Pillow has no writer for it here")

    def read(*_):
        raise AssertionError(f"the reader of {kind} was called")

    monkeypatch.setitem(Image.OPEN, kind, (read, Image.OPEN[kind][1]))
    refusal(data)


def test_postscript_by_the_name_of_a_jpeg_runs_nothing_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("Ghostscript was run"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("pixels were asked for"))
    (tmp_path / "x.jpg").write_bytes(EPS)
    with pytest.raises(UserError, match=r"x\.jpg: found an image in the format EPS, expected"):
        open_images(tmp_path / "x.jpg", image_size=16).image(0, 0)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"8BPS\0\1" + bytes(40), "the format PSD"),
        (b"SIMPLE  =                    T" + bytes(40), "the format FITS"),
        (b"GIF89a" + bytes(40), "the format GIF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "the format HEIC"),
        (b"<svg/>", "no known image format"),
        (b"", "no known image format"),
    ],
)
def test_the_format_that_was_found_is_named_where_it_can_be_told(data, found):
    assert f"found an image in {found}," in (text := refusal(data)) or f"found {found}," in text


@pytest.mark.parametrize("kind", ["MPO", "PPM", "BMP", "TIFF", "WEBP", "PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_accepted_formats_are_read(kind, mode):
    data = encoded(kind, mode, **({"save_all": True} if kind == "MPO" else {}))
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(Picture(data, "x").pixels(), expected)


# Scans


def progressive(scans=0, size=(64, 48), thumbnail=b""):
    """A progressive JPEG file whose last scan comes again until there are so many."""
    data = encoded("JPEG", size=size, progressive=True, exif=thumbnail)
    end = len(data) - 2
    last = data[data.rindex(b"\xff\xda") : end]
    return data[:end] + last * (scans - count_scans(data)) + data[end:]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scans_are_counted(mode):
    assert count_scans(encoded("JPEG", mode)) == 1
    data = encoded("JPEG", mode, progressive=True)
    # none of these has another 0xFFDA, in metadata for instance
    assert count_scans(data) == data.count(b"\xff\xda") > 5


def test_fill_bytes_restarts_and_what_is_not_the_image_do_not_hide_or_add_scans():
    data = encoded("JPEG", progressive=True)
    scans = count_scans(data)
    filled = data.replace(b"\xff\xda", b"\xff\xff\xff\xda")
    assert np.array_equal(Picture(filled, "x").pixels(), Picture(data, "x").pixels())
    assert count_scans(filled) == scans
    thumbnails = data[:2] + b"\xff\xe2" + (2 + 4 * 900).to_bytes(2, "big") + b"\xff\xda\0\1" * 900 + data[2:]
    assert count_scans(thumbnails) == scans
    assert count_scans(data + b"\xff\xda\0\1" * 900) == scans  # a film that a telephone adds
    restarts = encoded("JPEG", progressive=True, restart_marker_blocks=1)
    assert count_scans(restarts) == scans
    for end in range(len(data)):
        count_scans(data[:end])  # whatever is cut off, it ends


@pytest.mark.parametrize("turbo", [True, False])
def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded(turbo, monkeypatch):
    if not turbo:
        monkeypatch.setattr(Picture, "_turbo_size", lambda *_: None)
    expected = Picture(progressive(), "x").pixels()
    np.testing.assert_array_equal(Picture(progressive(MAX_SCANS), "x").pixels(), expected)
    monkeypatch.setattr(Picture, "_decode", lambda *_: pytest.fail("it was decoded"))
    assert f"found {MAX_SCANS + 1} scans, more than {MAX_SCANS}" in refusal(progressive(MAX_SCANS + 1))


def test_large_images_may_have_fewer_scans(monkeypatch):
    data = progressive(20)
    monkeypatch.setattr(limits, "MAX_SCANNED_PIXELS", 20 * 64 * 48)
    Picture(data, "x").pixels()
    monkeypatch.setattr(limits, "MAX_SCANNED_PIXELS", 20 * 64 * 48 - 1)
    assert "found 20 scans of 64 x 48 pixels, more than 61439 together" in refusal(data)
    Picture(encoded("JPEG", size=(640, 480)), "x").pixels()  # of one scan, MAX_PIXELS is the limit


# Bytes


def test_a_file_of_too_many_bytes_is_refused(monkeypatch):
    assert MAX_BYTES >= 3 * MAX_PIXELS  # an uncompressed image of the largest size
    data = encoded("BMP")
    monkeypatch.setattr(limits, "MAX_BYTES", len(data))
    Picture(data, "x").pixels()
    assert f"found {len(data) + 1} bytes, more than {len(data)}" in refusal(data + b"\0")


def sparse_file(folder):
    with open(folder / "x.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    return FileSource([str(folder / "x.jpg")], np.zeros(1, int), ["a"])


def sparse_member(folder):
    """A tar file whose image is a hole of 8 GiB."""
    with open(folder / "train.tar", "wb") as file:
        for name, size in (("x.cls", 1), ("x.jpg", 2**33)):
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.write(b"0".ljust(512, b"\0") if size == 1 else b"")
        file.truncate(file.tell() + 2**33 + 1024)
    return open_source(folder, "train")


@pytest.mark.parametrize("make", [sparse_file, sparse_member])
def test_a_file_of_too_many_bytes_is_not_even_read(make, tmp_path, monkeypatch):
    source = make(tmp_path)
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("it was read"))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"x(\.jpg)?: found \d+ bytes, more than {MAX_BYTES}, expected"):
            source.read(0)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_image_for_which_there_is_no_memory_is_not_called_damaged(monkeypatch):
    def decode(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", decode)
    assert "found too little memory to decode it" in refusal(encoded("PNG", "L"))
