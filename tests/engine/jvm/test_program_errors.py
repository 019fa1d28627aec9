"""What is wrong with the files of a DML program: one readable line that names the file, and exit code 2."""

import numpy as np
import pytest
from command_line import ROOT, assert_one_line_error, run_systemds

pytestmark = pytest.mark.long  # each starts a JVM and compiles a program


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small files, right and wrong ones."""
    folder = tmp_path_factory.mktemp("data")
    X = np.random.default_rng(0).integers(0, 255, (8, 1024))
    labels = np.arange(8) % 3
    for name, matrix in {
        "X": X,
        "Y": labels + 1,
        "from_zero": labels,
        "narrow": X[:, :1000],
        "five": labels[:5] + 1,
        "ids": labels + 1_440_764,
        "mean_std": [[1], [2]],
    }.items():
        np.savetxt(folder / f"{name}.csv", matrix, fmt="%d", delimiter=",")
    text = (folder / "X.csv").read_text()
    (folder / "named.csv").write_text(",".join(f"p{i}" for i in range(1024)) + "\n" + text)
    (folder / "semicolons.csv").write_text(text.replace(",", ";"))
    (folder / "empty.csv").write_text("")
    (folder / "damaged.csv").write_text(text)
    (folder / "damaged.csv.mtd").write_text("{oops")
    (folder / "file").touch()
    return folder


def train(data, **changes):
    small = {"depth": 18, "C": 1, "epochs": 1, "batch_size": 4, "base_lr": 0.1, "out": "weights"}
    arguments = {"X": "X.csv", "Y": "Y.csv", "format": "csv", **small, **changes}
    return run_systemds(ROOT / "dml" / "train.dml", cwd=data, **arguments)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"format": "mtd"}, ["X.csv: found no X.csv.mtd, expected it, or format=csv for a CSV file"]),
        ({"X": "none.csv"}, ["none.csv", "does not exist"]),
        ({"X": "Y.csv", "Y": "X.csv"}, ["images: found a matrix of 8 x 1", "whether X and Y are swapped"]),
        ({"X": "narrow.csv"}, ["images: found a matrix of 8 x 1000, expected a row of C*H*W values"]),
        (
            {"C": 3, "H": 32, "W": 32},
            ["images: found a matrix of 8 x 1024, expected a row of 3072"],
        ),
        ({"Y": "from_zero.csv"}, ["labels: found values from 0.0 to", "numbered from 1, not from 0: add 1"]),
        ({"Y": "five.csv"}, ["labels: found 5 for 8 images"]),
        ({"Y": "ids.csv"}, ["labels: found classes up to 1440766 of 8 images"]),
        ({"mean_std": "mean_std.csv"}, ["mean_std.csv: found no mean_std.csv.mtd", '"format": "csv"']),
        ({"X": "named.csv"}, ["Reading of named.csv failed", "no names of columns"]),
        ({"X": "semicolons.csv"}, ["Reading of semicolons.csv failed"]),
        ({"X": "empty.csv"}, ["Reading of empty.csv failed", "Empty input file"]),
        ({"X": "damaged.csv"}, ["metadata (.mtd) that are no JSON"]),
        ({"out": "file"}, ["out: found a file at file"]),
        ({"out": "file/weights"}, ["out: found that nothing can be written to"]),
        ({"init": "nowhere"}, ["nowhere/complete", "does not exist"]),
        ({"X_val": "X.csv"}, ["X_val, Y_val: found X.csv and , expected both or none"]),
    ],
)
def test_wrong_files_are_named(data, changes, found):
    outcome = train(data, **changes)
    assert_one_line_error(outcome, *found)
    assert len(outcome.err) < 800
    assert not (data / "weights").exists()


def test_a_mean_std_in_csv_is_read_with_the_metadata_that_the_error_names(data, tmp_path):
    outcome = train(data, mean_std="mean_std.csv")
    metadata = outcome.err[outcome.err.index("{") : outcome.err.index("}") + 1]
    (tmp_path / "mean_std.csv").write_bytes((data / "mean_std.csv").read_bytes())
    (tmp_path / "mean_std.csv.mtd").write_text(metadata)
    outcome = train(data, mean_std=tmp_path / "mean_std.csv", out=tmp_path / "weights")
    assert outcome.code == 0, outcome


def test_a_mistake_in_a_program_is_the_user_s(tmp_path):
    (tmp_path / "own.dml").write_text("x = 1 +\n")
    assert_one_line_error(run_systemds("own.dml", cwd=tmp_path), "SystemDS: ParseException")
    (tmp_path / "own.dml").write_text("print(nothing_there)\n")
    assert_one_line_error(run_systemds("own.dml", cwd=tmp_path), "nothing_there")
