"""Damaged files: each gives an image or the documented error; nothing crashes, hangs or blows up."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from command_line import reading_processes

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.images import Augmentation, EncodedDataset
from sysds_resnet.images.pixels.limits import FORMATS as READ
from sysds_resnet.images.sources.photos import PHOTOS, open_photo

FORMATS = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("PNG", "RGBA", {}),
    ("WEBP", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    ("BMP", "RGB", {}),
    ("PPM", "RGB", {}),
    ("GIF", "P", {}),  # which is no format that is read
]


class Files:
    """A source of files in memory."""

    def __init__(self, files):
        self.files = files
        self.labels = np.zeros(len(files), np.int64)
        self.classes = ["damaged"]
        self.notes = []

    def name(self, index):
        return f"file {index}"

    def read(self, index):
        return self.files[index]


def good_files():
    files = []
    for i, (kind, mode, options) in enumerate(FORMATS):
        image = open_photo(PHOTOS[i]).convert("RGB").resize((60, 45)).convert(mode)
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data, *chunks):
    """A PNG of grey pixels that declares this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of_size(data, height, width):
    """The same file with other sizes in its header."""
    start = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


def many_scans(data):
    """A progressive JPEG file whose last scan comes a thousand times."""
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 1000 + data[-2:]


def tiff(width, height, data, *tags):
    """A TIFF of one strip of deflated grey pixels that declares this size, with more entries."""
    strip = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    strip += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(data))]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in (*strip, *tags))
    directory = struct.pack("<H", len(strip) + len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def webp(width, height):
    """A lossy WebP that declares this size."""
    frame = b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(100)
    sizes = struct.pack("<I", len(frame) + 12), struct.pack("<I", len(frame))
    return b"RIFF" + sizes[0] + b"WEBPVP8 " + sizes[1] + frame


def bombs(good):
    """Small files that would be huge images, or texts, if they were believed."""
    zeros = zlib.compress(bytes(50_000_000), 9)  # 50 kilobytes
    yield png(60_000, 60_000, zeros)
    yield png(10_001, 10_001, zeros)
    yield png(9_000, 9_000, zeros)  # small enough to be decoded, and too short
    yield png(60_000, 60_000, zlib.compress(b""))
    yield png(8, 8, zlib.compress(bytes(72)), chunk(b"zTXt", b"a\0\0" + zeros))
    yield png(8, 8, zlib.compress(bytes(72)), chunk(b"iCCP", b"a\0\0" + zeros))
    yield png(8, 8, zlib.compress(bytes(72)), *[chunk(b"tEXt", b"a\0" + bytes(1000))] * 1000)
    yield png(8, 8, zeros)
    yield many_scans(good[1])
    yield tiff(9_000, 9_000, zeros)
    yield tiff(60_000, 60_000, zeros)
    yield tiff(8, 8, zlib.compress(bytes(64)), (270, 2, 2**32 - 1, 8))
    yield tiff(8, 8, zlib.compress(bytes(64)), *[(60_000, 4, 2**20, 8)] * 60_000)
    yield webp(16_383, 16_383)
    yield b"P3 9000 9000 255\n" + b"1 " * 1000
    yield b"P3 9 9 255\n" + b"1" * 100_000
    yield jpeg_of_size(good[0], 65_500, 65_500)
    yield jpeg_of_size(good[0], 9_000, 9_000)
    yield jpeg_of_size(good[1], 9_000, 9_000)
    yield jpeg_of_size(good[0], 65_500, 1)
    yield jpeg_of_size(good[0], 0, 0)
    yield b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24) + bytes(24)
    yield b"P6 100000 100000 255\n" + bytes(100)
    yield b"P6 9000 9000 255\n" + bytes(100)
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9000 9000\n%%EndComments\n{ } loop\n"
    yield b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + bytes(100)


def damaged_files(count):
    """Damage of every kind, the same in each run."""
    rng = np.random.default_rng(0)
    good = good_files()
    files = [*bombs(good), b"", b"\xff", b"\xff\xd8\xff", bytes(1000), b"\xff" * 1000, b"no image"]
    while len(files) < count:
        data = np.frombuffer(good[len(files) % len(good)], np.uint8).copy()
        kind = len(files) // len(good) % 6
        start = int(rng.integers(len(data)))
        if kind == 0:  # truncated
            data = data[:start]
        elif kind == 1:  # some bits are flipped
            places = rng.integers(len(data), size=int(rng.integers(1, 20)))
            data[places] ^= np.uint8(1) << rng.integers(0, 8, len(places)).astype(np.uint8)
        elif kind == 2:  # so are some in the header
            places = rng.integers(min(200, len(data)), size=int(rng.integers(1, 5)))
            data[places] = rng.integers(0, 256, len(places))
        elif kind == 3:  # wrong magic
            data[:4] = np.frombuffer(good[int(rng.integers(len(good)))][:4], np.uint8)
        elif kind == 4:  # a hole of zeros
            data[start : start + int(rng.integers(1, 500))] = 0
        else:  # a part is missing in the middle
            data = np.delete(data, slice(start, start + int(rng.integers(1, 500))))
        files.append(data.tobytes())
    return files


def peak_memory(process):
    """Most bytes that a process had in memory so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.long)])
def test_damaged_files_give_an_image_or_the_documented_error(monkeypatch, count):
    data = EncodedDataset(Files(damaged_files(count)), image_size=32, augmentation=Augmentation())
    bad, good = {}, []
    crashes = []
    end = Readers._end

    def ended(readers):
        crashes.append(readers)
        end(readers)

    with Readers([data], 2) as readers:
        monkeypatch.setattr(Readers, "_end", ended)
        stream = BatchStream(
            data,
            sequential_order(count),
            50,
            readers,
            drop_last=False,
            epochs=1,
            on_error=lambda _, index, reason: bad.setdefault(index, reason),
        )
        with stream:
            good += next(stream).indices.tolist()
            for batch in stream:
                assert batch.images.shape == (len(batch.indices), 32, 32, 3)
                good += batch.indices.tolist()
        workers = reading_processes()
        assert len(workers) == 2 and max(map(peak_memory, workers)) < 2**30
        assert not crashes  # loky itself replaces processes that have grown, after their tasks
    assert reading_processes() == []
    assert sorted([*good, *bad]) == list(range(count))
    assert len(bad) > count / 3 and len(good) > count / 20
    for index, reason in bad.items():
        assert reason.startswith(f"class damaged, image file {index}: found ") and "\n" not in reason
        assert f", expected a whole image in one of the formats {', '.join(READ)}: repair" in reason
