"""Names of files and classes that hold commands to terminals, and long messages of other libraries."""

import io
import json
import os
import pickle
import sys

import numpy as np
import pytest
from command_line import finish, run_here, start_python
from narrow import STEM
from PIL import Image
from small_weights import resnet18

from sysds_resnet.errors import MAX_FOREIGN, NotFinite, UserError, one_line, printable
from sysds_resnet.network.weights.files import write_weights
from sysds_resnet.report.display import Display
from sysds_resnet.report.result_tables import markdown
from sysds_resnet.scoring.outcomes import draw_confusion
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.show import titles

NASTY = "\x1b[2J\x1b]0;title\x07a\nb\rc\td\x7f\x9b1m\u202egpj.exe\u2066\u2069\u2028\ud800\udcff\0"
ESCAPED = r"\x1b[2J\x1b]0;title\x07a\nb\rc\td\u007f\u009b1m\u202egpj.exe\u2066\u2069\u2028\ud800\udcff\x00"


def test_what_moves_the_cursor_or_the_text_around_is_escaped_once():
    assert printable(NASTY) == ESCAPED == printable(ESCAPED)
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(every)
    assert shown.encode() and len(shown.splitlines()) == 1
    for direction in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c":
        assert direction not in shown


def test_a_line_of_json_keeps_its_values():
    values = {"path": NASTY.replace("\ud800", ""), "label": "日本語"}
    line = printable(json.dumps(values, ensure_ascii=False))
    assert json.loads(line) == values
    assert printable(line) == line and "日本語" in line


@pytest.mark.parametrize("text", ["naïve café", "日本語", "क्‍ष", "👩‍🔬", "C:\\new\\table", "a b", "'=1+1'"])
def test_what_people_write_stays(text):
    assert printable(text) == text


def test_no_message_of_an_error_can_hold_them():
    for error in (UserError(f"class {NASTY}: found"), NotFinite(f"class {NASTY}: found", None)):
        assert str(error) == f"class {ESCAPED}: found"
    error = UserError(NASTY)
    assert str(pickle.loads(pickle.dumps(error))) == ESCAPED  # noqa: S301  as reading processes send it


class Empty(Settings):
    pass


@pytest.mark.parametrize("kind", [UserError, OSError])
def test_commands_print_errors_in_one_line(capfd, kind):
    def fail(_):
        raise kind(f"image {NASTY}: found")

    assert run(Empty, fail, []) == 2
    assert capfd.readouterr().err == f"error: image {ESCAPED}: found\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "iso8859-1"])
def test_a_name_that_the_encoding_of_the_output_lacks_is_no_traceback(encoding):
    program = """
import sys
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.show import titles
class Empty(Settings): pass
code = run(Empty, lambda _: print("日 \\udcff"), [])
assert sys.stdout.errors == "strict"
sys.exit(code)
"""
    outcome = finish(start_python("-c", program, PYTHONIOENCODING=encoding))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == ("日" if encoding == "utf-8" else r"\u65e5") + " \\udcff\n"


def test_commands_show_them_escaped_in_places_to_write_to(tmp_path, source, capfd):
    name = "a\x1b[2Jb\u202ec"
    write_weights(tmp_path / "weights.safetensors", resnet18(stem=STEM))
    for command, *options in [
        ("prepare", "--dataset", source, "--image-size", 8, "--out", tmp_path / name),
        ("convert", tmp_path / "weights.safetensors", tmp_path / f"{name}.safetensors"),
    ]:
        outcome = run_here(capfd, command, *options)
        assert outcome.code == 0 and printable(f"{tmp_path / name}") in outcome.out
        assert (outcome.out + outcome.err).replace("\n", "").isprintable()


def test_the_display_shows_them_escaped():
    stream = io.StringIO()
    with Display(1, 1, stream=stream) as display:
        display.note(f"left out: {NASTY}")
    assert stream.getvalue() == f"left out: {ESCAPED}\n"


def test_tables_in_markdown_hold_no_other_cells():
    table = markdown(["a", "b"], [[NASTY, "x | y"]])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", rf"| {ESCAPED} | x \| y |"]


@pytest.mark.filterwarnings("error")  # of characters that a font lacks
def test_pictures_have_such_names_in_one_line(tmp_path):
    pictures = []
    for name in ("\n" * 500 + NASTY, "x" * 600):
        draw_confusion(np.eye(2, dtype=int), [name, "plain"], tmp_path / "confusion.png")
        pictures.append(Image.open(io.BytesIO((tmp_path / "confusion.png").read_bytes())))
    assert abs(pictures[0].height - pictures[1].height) <= 1
    assert titles(np.array([0]), ["\n\n\n"]) == [r"\n\n\n"]


# What other libraries say


def test_what_other_libraries_say_is_cut_to_its_beginning_and_its_end():
    text = one_line(ValueError("cannot be opened: " + "dlopen failed\n " * 1000 + "no such file"))
    assert len(text) <= MAX_FOREIGN and "\n" not in text
    assert text.startswith("cannot be opened: dlopen failed") and text.endswith("dlopen failed no such file")
    assert one_line(ValueError("x" * MAX_FOREIGN)) == "x" * MAX_FOREIGN
    assert one_line(ValueError("")) == "ValueError"
    assert one_line(FileNotFoundError(2, os.strerror(2))) == "no such file or directory"
