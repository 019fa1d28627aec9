"""CSV files that people open in spreadsheets: no name in them is a formula, and programs read them back."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command_line import run_here
from PIL import Image

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.errors import printable
from sysds_resnet.scoring.outcomes import Outcomes, write_report
from sysds_resnet.scoring.predictions import save, to_table
from sysds_resnet.system.csv_cells import FORMULA, from_cell, to_cell

FORMULAS = ['=HYPERLINK("http://x","y")', "+1", "-1.5", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1", "''+1"]
HARMLESS = ["cat", "a=b", "'quoted'", "", "'", "1.5", " =1", "x,y", 'say "hi"']


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def assert_no_formula(path, *numbers):
    """Check that cells are no formulas, but in columns of numbers."""
    head, *body = rows(path)
    for row in (head, *body):
        for name, cell in zip(head, row, strict=True):
            if name not in numbers:
                assert not cell.startswith(FORMULA) and cell.isprintable(), cell


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text_that_is_read_back(text):
    assert not to_cell(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert from_cell(to_cell(text)) == printable(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text):
    assert to_cell(text) == text == from_cell(text)


def test_predictions_have_no_formulas_but_the_same_names_in_the_other_formats(tmp_path):
    names = [*FORMULAS, "\x1b[2J\u202egpj.jpg"]
    classes = [f"{text}\n" for text in FORMULAS[:4]]
    scores = np.random.default_rng(0).normal(size=(len(names), 4))
    for kind in ("csv", "jsonl", "parquet"):
        save(iter([(to_table(names, scores, classes, 2), scores)]), tmp_path / f"p.{kind}", kind, None)
    assert_no_formula(tmp_path / "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    assert [from_cell(name) for name in table["path"][:4]] == names[:4]
    assert table["prob_1"].dtype == float and table["class_1"].dtype == int
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert (
        [line["path"] for line in lines] == names == pq.read_table(tmp_path / "p.parquet")["path"].to_pylist()
    )
    assert (tmp_path / "p.jsonl").read_text().replace("\n", "").isprintable()
    assert {line["label_1"] for line in lines} <= set(classes)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_scores_by_class_have_no_formulas(tmp_path):
    outcomes = Outcomes(FORMULAS)
    labels = np.arange(len(FORMULAS))
    outcomes.add(labels, np.eye(len(FORMULAS))[np.roll(labels, 1)])  # each is taken for another
    write_report(tmp_path, outcomes, {})
    for name in ("classes.csv", "confusion.csv"):
        assert_no_formula(tmp_path / name)
    table = pd.read_csv(tmp_path / "classes.csv")
    assert table["class"].tolist() == [to_cell(name) for name in FORMULAS]
    assert table["mistaken_for"].tolist() == [to_cell(name) for name in np.roll(FORMULAS, 1)]
    matrix = pd.read_csv(tmp_path / "confusion.csv", index_col="class")
    np.testing.assert_array_equal(matrix, np.eye(len(FORMULAS))[np.roll(labels, 1)])
    assert matrix.index.tolist() == matrix.columns.tolist() == table["class"].tolist()


def test_classes_that_are_never_mistaken_have_no_name_there(tmp_path):
    outcomes = Outcomes(["-1", "b"])
    outcomes.add(np.arange(2), np.eye(2))
    write_report(tmp_path, outcomes, {})
    assert rows(tmp_path / "classes.csv")[1:] == [
        ["'-1", "1", "1.0", "1.0", "", "0"],
        ["b", "1", "1.0", "1.0", "", "0"],
    ]


def test_bad_images_have_no_formulas_and_are_listed_once(tmp_path):
    class Data:
        classes, labels = FORMULAS, np.arange(len(FORMULAS))

        def __len__(self):
            return len(FORMULAS)

        def name(self, index):
            return FORMULAS[index]

    data = Data()
    for _ in range(2):  # a resumed run goes on with the list
        bad = BadImages(ReadingSettings(on_error="skip", max_bad=1), tmp_path)
        for index in range(len(FORMULAS)):
            bad(data, index, f"{FORMULAS[index]}: found a reason")
    assert_no_formula(bad.path)
    assert len(rows(bad.path)) == 1 + len(FORMULAS)


def test_the_list_of_verify_has_no_formulas(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "=cmd" / "train" / "+1"
    folder.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(folder / "good.png")
    (folder / "bad\x1b[2J.png").write_text("no image")
    assert run_here(capfd, "verify", "=cmd", "--workers", 1).code == 1
    assert_no_formula(tmp_path / "verify.csv")
    [row] = csv.DictReader(io.StringIO((tmp_path / "verify.csv").read_text()))
    assert row["name"] == "'=cmd/train/+1/bad\\x1b[2J.png" and row["class"] == "'+1"
