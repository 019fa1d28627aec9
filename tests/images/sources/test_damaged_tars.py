"""Damaged and hostile tar files: cut off, joined, compressed or of absurd sizes, each is refused or noted."""

import subprocess
import tarfile
import tracemalloc

import pytest
from tar_files import error_of, pairs, write

from sysds_resnet.images.sources.layouts import open_source


def test_a_file_that_is_compressed_in_spite_of_its_name_is_refused(tmp_path):
    write(tmp_path / "val.tar", *pairs("ab"))
    subprocess.run(["gzip", tmp_path / "val.tar"], check=True)
    (tmp_path / "val.tar.gz").rename(tmp_path / "val.tar")
    assert "val.tar: found a damaged tar file (it is compressed)" in error_of(tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    for ending in ("tar", "parquet"):
        path = tmp_path / f"val.{ending}"
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        assert f"{path}: found a pointer of Git LFS, expected the file itself" in error_of(tmp_path)
        path.unlink()


def test_files_that_were_joined_are_refused_rather_than_read_to_the_first_end(tmp_path):
    write(tmp_path / "val.tar", *pairs("ab"))
    path = tmp_path / "val.tar"
    path.write_bytes(path.read_bytes() * 2)
    assert "found a damaged tar file (more after its end" in error_of(tmp_path)


def test_a_damaged_header_between_members_is_refused_rather_than_taken_for_the_end(tmp_path):
    write(tmp_path / "val.tar", *pairs("abc"))
    path = tmp_path / "val.tar"
    data = bytearray(path.read_bytes())
    data[4 * 512 + 10] ^= 1  # in the header of the third member
    path.write_bytes(data)
    assert "found a damaged tar file" in error_of(tmp_path)


def test_a_file_without_an_end_is_noted(tmp_path):
    write(tmp_path / "val.tar", *pairs("ab"))
    path = tmp_path / "val.tar"
    path.write_bytes(path.read_bytes()[: 4 * 1024])  # four members of a header and a block each
    source = open_source(tmp_path, "val")
    assert len(source.labels) == 2
    assert source.notes == [
        f"data set {tmp_path}: 1 tar files lack the mark at their end, as if cut off, the first: val.tar"
    ]


@pytest.mark.parametrize("cut", range(100, 5 * 1024, 700))
def test_a_file_that_is_cut_off_is_refused_or_noted(tmp_path, cut):
    write(tmp_path / "val.tar", *pairs("abcde"))
    whole = (tmp_path / "val.tar").read_bytes()
    (tmp_path / "val.tar").write_bytes(whole[:cut])
    assert "val.tar: found " in error_of(tmp_path)


def header(name, size, kind=b"0"):
    member = tarfile.TarInfo(name)
    member.type = kind
    data = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def negative(size):
    return b"\xff" + size.to_bytes(11, "big", signed=True)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"K"])
@pytest.mark.parametrize(
    "size",
    [b"77777777777\0", b"\x80" + bytes(3) + b"\xff" * 8, negative(-512), negative(-1024), b"zzzzzzzzzzz\0"],
)
def test_absurd_sizes_end_in_an_error_without_memory(tmp_path, kind, size):
    write(tmp_path / "val.tar", *pairs("ab"))
    whole = (tmp_path / "val.tar").read_bytes()
    for place in (0, 2048):
        data = whole[:place] + header("c.jpg", size, kind) + whole[place:]
        with open(tmp_path / "val.tar", "wb") as file:
            file.write(data)
            file.truncate(2**33)  # eight gigabytes, that take no room on the disk
        tracemalloc.start()
        text = error_of(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()
        assert f"{tmp_path / 'val.tar'}: found a damaged tar file" in text or "without" in text


def test_sparse_members_are_refused(tmp_path):
    picture = tmp_path / "a.jpg"
    with open(picture, "wb") as file:
        file.write(b"image")
        file.truncate(2**22)
    (tmp_path / "a.cls").write_text("a")
    for form in ("gnu", "pax"):
        subprocess.run(
            [
                "tar",
                "-C",
                tmp_path,
                f"--format={form}",
                "--sparse",
                "-cf",
                tmp_path / "val.tar",
                "a.jpg",
                "a.cls",
            ],
            check=True,
        )
        text = error_of(tmp_path)
        assert "val.tar: found " in text and ("sparse" in text or "without an image" in text), text
