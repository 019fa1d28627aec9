"""What predict reads: files, folders, lists and standard input, and what is none of them."""

import io
import os
import socket
import sys
from types import SimpleNamespace

import pytest
from command_line import assert_one_line_error, run_here

from sysds_resnet.errors import UserError, printable
from sysds_resnet.images.encoded import open_files
from sysds_resnet.images.sources import inputs
from sysds_resnet.images.sources.inputs import find_inputs
from sysds_resnet.scoring.settings import PredictSettings
from sysds_resnet.settings.command_line import parse


@pytest.fixture
def files(folder, monkeypatch):
    """Names in a working directory; what is in them is of no importance."""
    monkeypatch.chdir(folder)
    for name in ("b/2.png", "b/1.JPG", "b/c/0.jpeg", "b/notes.txt", "a, [x].png", "odd"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "list.txt").write_bytes("\ufeffb/2.png\r\n\n ü, [1].png\nnowhere.png\n".encode())
    return folder


def test_inputs_are_files_folders_lists_and_standard_input_in_their_order(files, monkeypatch):
    given = SimpleNamespace(buffer=io.BytesIO(b"last.png\nb/2.png"))
    monkeypatch.setattr(sys, "stdin", given)
    assert find_inputs(["odd", "list.txt", "b", "-", "a, [x].png"]) == [
        "odd",
        *["b/2.png", " ü, [1].png", "nowhere.png"],
        *["b/1.JPG", "b/2.png", "b/c/0.jpeg"],
        *["last.png", "b/2.png"],
        "a, [x].png",
    ]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "images x.txt: found no paths, expected one in each line"),
        (b"\n \r\n", "images x.txt: found no paths, expected one in each line"),
        (b"a.png\n\xff.png\n", "images x.txt: found text that seems to be in ISO-8859-1, expected UTF-8"),
        ("ä.png\n".encode("utf-16"), "images x.txt: found text that seems to be in UTF-16, expected UTF-8"),
        ("a.png\n".encode("utf-16-le"), "images x.txt: found text that seems to be in UTF-16LE"),
        (b"a.png\na\0b.png\n", "images x.txt: found bytes that are no text"),
    ],
)
def test_lists_without_paths_are_refused(files, content, found):
    (files / "x.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        find_inputs(["x.txt"])
    assert str(error.value).startswith(found)


@pytest.mark.parametrize(
    "name", ["pipe", "pipe.txt", "/dev/zero", "socket.jpg", "link.png", "x" * 300, "a\0b"]
)
def test_what_is_no_file_is_refused_rather_than_waited_for(files, name):
    os.mkfifo(files / "pipe")
    os.mkfifo(files / "pipe.txt")
    (files / "link.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        with pytest.raises(UserError) as error:
            find_inputs([name])
    assert str(error.value).startswith(f"images {printable(name)}: found ")
    assert "found nothing" not in str(error.value)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_standard_input_that_never_ends_is_refused(device, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_LIST_BYTES", 2**22)
    with open(device, "rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        with pytest.raises(UserError, match="images standard input: found "):
            find_inputs(["-"])
        assert file.tell() <= 2**23


def test_a_list_is_limited(files, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_LIST_BYTES", 10)
    (files / "x.txt").write_text("123456789\n")
    assert find_inputs(["x.txt"]) == ["123456789"]
    (files / "x.txt").write_text("1234567890\n")
    with pytest.raises(UserError, match=r"x\.txt: found more than 10 bytes, expected a path in each line"):
        find_inputs(["x.txt"])


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "b"])
def test_a_listed_name_that_is_no_file_is_an_image_that_cannot_be_read(files, name):
    os.mkfifo(files / "pipe")
    (files / "x.txt").write_text(f"{name}\n")
    data = open_files(find_inputs(["x.txt"]), image_size=16)
    with pytest.raises(UserError, match=f"^image {name}: found "):
        data.image(0, 0)


def test_file_names_that_are_no_text_are_refused(files):
    with open(b"b/\xff.png", "w"):
        pass
    with pytest.raises(UserError, match="expected one in UTF-8: rename the file"):
        find_inputs(["b"])


def test_an_empty_standard_input_is_refused(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    outcome = run_here(capfd, "predict", "--weights", "w", "--input", "-")
    assert_one_line_error(outcome, "images standard input: found no paths")


def test_flags_take_several_values_whatever_is_in_them():
    given = ["a, [x].png", "2024", "-", "{y}", "null", " b", "1e3"]
    argv = ["--weights", "v,w", "--input", *given, "--scales", "1", "1.5", "--out", "-"]
    settings = parse(PredictSettings, argv)
    assert (settings.weights, settings.input) == (["v,w"], given)
    assert (settings.scales, settings.out) == ([1.0, 1.5], "-")
    argv = ["--input=a,b", "--weights=w", "--input", "c", "--no-debug", "--top", "3"]
    settings = parse(PredictSettings, argv)
    assert (settings.input, settings.weights, settings.top) == (["a,b", "c"], ["w"], 3)
