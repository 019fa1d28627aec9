"""Files that are no regular ones, in other encodings, or no text: refused in one line, never waited for."""

import os
import socket
from functools import partial

import pytest
from refusals import refusal
from small_layouts import CLASSES, COUNTS, make_arrays, make_folders, make_parquet, make_tables, make_tar

from sysds_resnet.images import open_images
from sysds_resnet.images.sources.layouts import open_source
from sysds_resnet.system.files import decode_text, open_regular, read_text


def pipe(path):
    os.mkfifo(path)


def listening_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(path.parent, os.O_RDONLY)  # a path may be too long for a socket
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def endless(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


IRREGULAR = [pipe, listening_socket, endless, folder]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", IRREGULAR)
@pytest.mark.parametrize("lists", [False, True])
def test_what_is_no_regular_file_is_refused_where_an_image_is_expected(tmp_path, make, lists):
    make_folders(tmp_path, lists=lists)
    path = tmp_path / "val" / CLASSES[0] / "0_0.JPEG"
    path.unlink()
    make(path)
    if make is folder and not lists:
        return  # a folder whose name ends like an image's is a folder
    source = open_source(tmp_path, "val")
    assert f"image {path}: found " in refusal(lambda: source.read(0))
    data = open_images(path.parent)
    if make is not folder:
        assert f"image {path}: found " in refusal(lambda: data.image(0, 0))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", IRREGULAR)
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (make_tables, "val.csv"),
        (lambda root: make_tables(root, ".parquet"), "val.parquet"),
        (make_parquet, "data/validation-00000-of-00002.parquet"),
        (make_tar, "val-000000.tar"),
        (make_arrays, "val_images.npy"),
        (make_arrays, "val_labels.npy"),
        (make_arrays, "classes.txt"),
        (lambda root: make_folders(root, lists=True), "val_list.txt"),
    ],
)
def test_what_is_no_regular_file_is_refused_where_data_are_expected(tmp_path, make, layout, name):
    layout(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    text = refusal(lambda: open_source(tmp_path, "val"))
    assert name.rsplit("/")[-1] in text or "without val" in text


def test_a_regular_file_is_opened(tmp_path):
    (tmp_path / "x").write_bytes(b"data")
    with open_regular(tmp_path / "x") as file:
        assert file.read() == b"data"
    for make in IRREGULAR:
        make(tmp_path / make.__name__)
        with pytest.raises(OSError):
            open_regular(tmp_path / make.__name__)


def test_a_huge_image_file_is_refused_before_it_is_read(tmp_path):
    make_folders(tmp_path)
    path = tmp_path / "val" / CLASSES[0] / "0_0.JPEG"
    with open(path, "wb") as file:
        file.truncate(2**40)
    source = open_source(tmp_path, "val")
    assert f"image {path}: found {2**40} bytes, more than" in refusal(lambda: source.read(0))


def test_a_path_with_a_zero_byte_is_one_line(tmp_path):
    (tmp_path / "val_list.txt").write_bytes(b"a.jpg cat\nb\0.jpg cat\n")
    assert "val_list.txt: found bytes that are no text" in refusal(lambda: open_source(tmp_path, "val"))


# Encodings

WORDS = "chien, forêt, œuf, Größe\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_in_utf_8_is_read_with_and_without_a_mark(tmp_path, encoding):
    (tmp_path / "x.txt").write_bytes(WORDS.encode(encoding))
    assert read_text(tmp_path / "x.txt") == WORDS
    assert read_text(os.fspath(tmp_path / "x.txt")) == WORDS
    assert decode_text(b"", "x") == ""


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (WORDS.encode("utf-16"), "text that seems to be in UTF-16, expected UTF-8: save it as UTF-8"),
        (WORDS.encode("utf-32"), "text that seems to be in UTF-32, expected UTF-8"),
        (WORDS.encode("utf-16-le"), "text that seems to be in UTF-16LE, expected UTF-8"),
        (WORDS.encode("utf-16-be"), "text that seems to be in UTF-16BE, expected UTF-8"),
        (WORDS.encode("cp1252"), "text that seems to be in WINDOWS-1252, expected UTF-8"),
        ("Größe\n".encode("latin-1"), "text that seems to be in ISO-8859-1, expected UTF-8"),
        (bytes(range(256)) * 4, "bytes that are no text, expected text in UTF-8"),
    ],
)
def test_text_in_other_encodings_is_refused_with_how_to_convert_it(tmp_path, data, found):
    (tmp_path / "x.txt").write_bytes(data)
    assert f"{tmp_path / 'x.txt'}: found {found}" in refusal(lambda: read_text(tmp_path / "x.txt"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (lambda root: make_folders(root, lists=True), "val_list.txt"),
        (lambda root: make_folders(root, lists=True), "train_list.txt"),
        (lambda root: make_folders(root, lists=True), "classes.txt"),
        (make_tables, "val.csv"),
        (lambda root: make_tables(root, ".tsv"), "train.tsv"),
        (make_arrays, "classes.txt"),
    ],
)
def test_lists_tables_and_classes_in_other_encodings_are_one_line(tmp_path, encoding, layout, name):
    layout(tmp_path)
    path = tmp_path / name
    text = path.read_text() if path.exists() else "".join(f"{name}\n" for name in CLASSES)
    path.write_bytes(text.replace("n", "ñ").encode(encoding))
    for split in COUNTS:
        text = refusal(partial(open_source, tmp_path, split))
        assert f"{path}: found text that seems to be in " in text


def test_a_mark_before_the_first_class_is_no_part_of_its_name(tmp_path):
    make_arrays(tmp_path)
    (tmp_path / "classes.txt").write_bytes("ant\r\nbee\r\ncat\r\n".encode("utf-8-sig"))
    assert open_source(tmp_path, "val").classes == ["ant", "bee", "cat"]
