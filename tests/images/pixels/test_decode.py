"""Decoding against Pillow, scaled decoding, and broken files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sysds_resnet.errors import UserError
from sysds_resnet.images import EncodedDataset, open_images
from sysds_resnet.images.pixels.decode import SPARE, Picture
from sysds_resnet.images.pixels.limits import MAX_PIXELS
from sysds_resnet.images.pixels.resample import resize
from sysds_resnet.images.sources.base import FileSource
from sysds_resnet.images.sources.photos import PHOTOS, open_photo


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path, width=40, height=30, seed=0):
    picture(width, height, seed).save(path)


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def files(*paths):
    """A data set of these files."""
    return EncodedDataset(
        FileSource([str(path) for path in paths], np.zeros(len(paths)), ["a"]), image_size=16
    )


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert "found" in text and "expected" in text
    return text


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image = Image.new("I;16", (9, 7), 100) if mode == "I;16" else picture(9, 7).convert(mode)
    image.save(path)
    found = Picture(path.read_bytes(), str(path)).pixels()
    assert (found.dtype, found.shape) == (np.uint8, (7, 9, 3))
    np.testing.assert_array_equal(found, Image.open(path).convert("RGB"))


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(9, 7).save(tmp_path / "x.jpg", exif=exif)
    assert Picture((tmp_path / "x.jpg").read_bytes(), "x.jpg").pixels().shape == (7, 9, 3)


def break_file(path, how):
    save(path, 64, 64)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not an image")
    elif how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "missing", "folder"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_broken_image_is_one_line_that_names_the_file(tmp_path, how, suffix):
    path = tmp_path / f"broken{suffix}"
    break_file(path, how)
    data = open_images(tmp_path, image_size=16) if path.is_file() else files(path)
    with pytest.raises(UserError) as error:
        data.image(0, 0)
    assert str(path) in one_line(error)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 90},
        {"quality": 60, "progressive": True},
        {"quality": 95, "subsampling": 0},
        {"quality": 90, "subsampling": 1},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(75, 50), (1, 1), (3, 200), (500, 2)])
def test_jpegs_have_the_same_pixels_as_by_pillow(options, mode, size):
    data = encoded(open_photo(PHOTOS[0]).resize(size).convert(mode), **options)
    found = Picture(data, "x.jpg")
    assert (found.width, found.height) == size
    np.testing.assert_array_equal(found.pixels(), Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_png_by_the_name_of_jpeg_is_read(tmp_path):
    picture(9, 7).save(tmp_path / "x.JPEG", "PNG")
    found = Picture((tmp_path / "x.JPEG").read_bytes(), "x.JPEG")
    np.testing.assert_array_equal(found.pixels(), picture(9, 7))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_part_is_the_crop_resized_or_the_resized_cropped(alone, kind):
    image = open_photo(PHOTOS[8])
    data = encoded(image, kind)
    image = Image.open(io.BytesIO(data))
    top, left, height, width = 40, 100, 160, 240
    found = Picture(data, "x").part((top, left, height, width), 120, 120, alone=alone)
    bottom, right = top + height, left + width
    if alone:
        expected = image.crop((left, top, right, bottom)).resize((120, 120), Image.Resampling.BILINEAR)
    else:
        expected = image.resize((120, 120), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    assert np.abs(np.asarray(expected, int) - found).max() <= 1


@pytest.mark.parametrize("shape", [(30, 40), (1, 1), (1, 300), (300, 1), (224, 224)])
@pytest.mark.parametrize("size", [(224, 224), (16, 9), (1, 1)])
def test_resizing_is_pillows_but_for_a_level(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(expected, int) - resize(pixels, *size)).max() <= 1


def test_resizing_without_the_fast_library_is_the_same_but_for_a_level(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (75, 50, 3), dtype=np.uint8)
    fast = resize(pixels, 32, 32, (10.5, 3, 50, 40.25))
    monkeypatch.setattr("sysds_resnet.images.pixels.resample.fast", None)
    slow = resize(pixels, 32, 32, (10.5, 3, 50, 40.25))
    assert np.abs(slow.astype(int) - fast).max() == 1  # other code, as it must be


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])  # decoded by simplejpeg and by Pillow
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_scaled_decoding_stays_within_its_tolerance(photo, mode, shrink):
    data = encoded(open_photo(photo).convert(mode), quality=92)
    full = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width = full.shape[:2]
    side = min(height, width)
    box = ((height - side) / 2, (width - side) / 2, side, side)
    size = side // (SPARE * shrink)
    assert Picture(data, "x").pixels(shrink).shape == (-(-height // shrink), -(-width // shrink), 3)
    expected = Picture(full, "x").part(box, size, size, alone=True)
    difference = np.abs(Picture(data, "x").part(box, size, size, alone=True) - expected.astype(int))
    assert 0 < difference.mean() < 0.7
    assert np.percentile(difference, 99) <= 5


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("size", [(8, 8), (15, 9), (16, 17), (31, 63), (75, 50)])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_scaled_decoding_rounds_sides_up(mode, size, shrink):
    data = encoded(open_photo(PHOTOS[0]).resize(size).convert(mode))
    height, width = -(-size[1] // shrink), -(-size[0] // shrink)
    assert Picture(data, "x").pixels(shrink).shape == (height, width, 3)


def test_scaled_decoding_is_used_where_the_crop_allows(monkeypatch):
    asked = []
    monkeypatch.setattr(Picture, "pixels", lambda self, shrink=1: asked.append(shrink) or self._data)
    image = Picture(np.zeros((900, 1200, 3), np.uint8), "x")
    for side in (599, 600, 300, 100):
        image.part((0, 0, side, side), 100, 100, alone=True)
    image.part((0, 0, 900, 900), 20, 20, alone=True)
    assert asked == [1, 2, 1, 1, 8]


def bomb():
    """A PNG of a few kilobytes that declares and holds 20,000 x 20,000 pixels of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(2_501) * 20_000)  # one bit a pixel
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def huge_jpeg():
    """A JPEG whose header says 65,500 x 65,500."""
    data = bytearray(encoded(picture(16, 16)))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


@pytest.mark.parametrize("make", [bomb, huge_jpeg])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(make):
    with pytest.raises(UserError) as error:
        Picture(make(), "x")
    assert str(MAX_PIXELS) in one_line(error) or "decompression bomb" in one_line(error)
