"""Prediction: inputs, formats that others read back, writing in parts, ensembles against PyTorch."""

import io
import json
import weakref

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command_line import assert_one_line_error, finish, run_here, start_python
from dml_runner import assert_close
from scoring_reference import CLASSES, logits, probabilities, write_images, write_networks

from sysds_resnet.errors import UserError
from sysds_resnet.scoring import predictions
from sysds_resnet.scoring.predictions import save, to_table


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    yield folder, write_networks(folder, 18, 34)
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def weights(networks):
    return networks[0] / "18.safetensors"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return folder, write_images(folder, 5)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def parts_of(n, size, classes=CLASSES, top=5):
    """Tables and scores of n images in parts."""
    rng = np.random.default_rng(0)
    for start in range(0, n, size):
        numbers = range(start, min(start + size, n))
        scores = rng.normal(size=(len(numbers), 7))
        yield to_table([f"image {i}, ß" for i in numbers], scores, classes, top), scores


# Tables


def test_tables_have_the_most_probable_classes_with_names():
    scores = np.log([[0.1, 0.2, 0.4, 0.3], [0.25, 0.25, 0.25, 0.25]])
    table = to_table(["x", "y"], scores, ["a", "b", "c", "d"], 3)
    expected = {
        "path": ["x", "y"],
        **{"class_1": [2, 0], "class_2": [3, 1], "class_3": [1, 2]},
        **{"prob_1": [0.4, 0.25], "prob_2": [0.3, 0.25], "prob_3": [0.2, 0.25]},
        **{"label_1": ["c", "a"], "label_2": ["d", "b"], "label_3": ["b", "c"]},
    }
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_dtype=False)
    assert list(to_table(["x"], scores[:1], None, 9)) == ["path"] + [
        f"{name}_{i}" for name in ("class", "prob") for i in range(1, 5)
    ]


def read(path, kind):
    """A file of predictions by another library."""
    if kind == "csv":
        table = pd.read_csv(path, dtype=str)  # pandas' own numbers may be off by a bit
        return table.astype({name: float for name in table if name.startswith("prob")}).astype(
            {name: int for name in table if name.startswith("class")}
        )
    if kind == "jsonl":
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    return pq.read_table(path).to_pandas()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("classes", [CLASSES, None])
def test_every_format_holds_the_same_to_the_last_bit(folder, monkeypatch, kind, classes):
    monkeypatch.setattr(predictions, "ROW_GROUP", 12)
    out, scores_path = folder / "new" / "p.out", folder / "l.npy"
    assert save(parts_of(23, 5, classes), out, kind, scores_path) == 23
    expected = pd.concat([table for table, _ in parts_of(23, 5, classes)], ignore_index=True)
    pd.testing.assert_frame_equal(read(out, kind), expected, check_dtype=False, check_exact=True)
    scores = np.load(scores_path, allow_pickle=False)
    np.testing.assert_array_equal(scores, np.concatenate([part for _, part in parts_of(23, 5)]))
    assert scores.dtype == np.float64
    assert names(folder) == ["l.npy", "new"] and names(folder / "new") == ["p.out"]
    if kind == "parquet":
        found = pq.ParquetFile(out).metadata
        assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [15, 8]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_is_written_is_not_kept(folder, kind):
    alive = []

    def parts():
        for table, scores in parts_of(60, 2):
            # the first, which tells whether there are any; the last; and one on its way
            assert sum(reference() is not None for reference in alive) <= 3
            alive.append(weakref.ref(scores))
            yield table, scores

    assert save(parts(), folder / "p", kind, folder / "l.npy") == 60


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_that_are_not_finished_are_not_there(folder, kind):
    (folder / "p").write_text("of another day")

    def parts():
        yield from parts_of(6, 2)
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        save(parts(), folder / "p", kind, folder / "l.npy")
    assert names(folder) == ["p"] and (folder / "p").read_text() == "of another day"


def test_endings_that_say_no_format_are_refused(capfd):
    command = ["predict", "--weights", "w", "--input", ".", "--out"]
    assert_one_line_error(run_here(capfd, *command, "p.jsnl"), "p.jsnl: found ending .jsnl, expected .csv")
    outcome = run_here(capfd, *command, "p.csv", "--logits", "p.csv")
    assert_one_line_error(outcome, "p.csv: found as --out and as --logits")


# The command


@pytest.mark.usefixtures("shared")
def test_probabilities_of_views_and_networks_are_averaged(networks, images, folder, capfd):
    """Scores are logarithms of the mean probabilities."""
    root, paths = images
    files = [networks[0] / f"{depth}.safetensors" for depth in (18, 34)]
    outcome = run_here(
        capfd, "predict", "--weights", *files, "--input", root, "--out", folder / "p.parquet",
        "--tta", "flip", "--logits", folder / "l.npy", "--top", 3,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    expected = probabilities(networks[1], paths, "flip")
    np.testing.assert_allclose(np.exp(np.load(folder / "l.npy")), expected, rtol=1e-9)
    table = pd.read_parquet(folder / "p.parquet")
    assert table["path"].tolist() == [str(path) for path in paths]
    ranking = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_array_equal(table[["class_1", "class_2", "class_3"]], ranking)
    np.testing.assert_array_equal(table[["label_1", "label_2", "label_3"]], np.array(CLASSES)[ranking])
    found = table[["prob_1", "prob_2", "prob_3"]]
    np.testing.assert_allclose(found, np.take_along_axis(expected, ranking, 1), rtol=1e-9)


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_scales_are_averaged_like_runs_at_these_sizes(weights, images, folder, capfd):
    _, paths = images
    command = ["predict", "--weights", weights, "--input", *paths[:2], "--out", folder / "p.csv"]
    found = {}
    for name, flags in {
        "both": ["--scales", "1", "1.5"],
        "small": [],
        "large": ["--resize-size", "57"],
    }.items():
        outcome = run_here(capfd, *command, "--logits", folder / "l.npy", *flags)
        assert (outcome.code, outcome.err) == (0, "")
        found[name] = softmax(np.load(folder / "l.npy"))
    assert np.abs(found["small"] - found["large"]).max() > 1e-3
    np.testing.assert_allclose(found["both"], (found["small"] + found["large"]) / 2, rtol=1e-9)


@pytest.mark.usefixtures("shared")
def test_images_are_left_out_of_all_files_and_small_batches_change_nothing(
    networks, weights, images, folder, capfd, monkeypatch
):
    """Batches of two, the second of images that cannot be read; the list says where images are."""
    monkeypatch.setattr("sysds_resnet.scoring.evaluation.default_batch", lambda *_: 2)
    _, paths = images
    (folder / "broken.png").write_bytes(b"no image")
    given = [*paths[:2], folder / "broken.png", folder / "nowhere.png", *paths[2:]]
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in given))
    command = ["predict", "--weights", weights, "--input", folder / "list.txt", "--logits", folder / "l.npy"]
    outcome = run_here(capfd, *command, "--out", folder / "p.csv")
    assert_one_line_error(outcome, "broken.png: found no known image format")
    assert names(folder) == ["broken.png", "list.txt"]
    skip = ["--on-error", "skip", "--max-bad", "0.3"]
    outcome = run_here(capfd, *command, "--out", folder / "p.jsonl", *skip)
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        f"2 images cannot be read and were left out: {folder / 'bad_images.csv'}",
        f"5 images: {folder / 'p.jsonl'}",
    ]
    rows = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    expected = logits({18: networks[1][18]}, paths)[0, :, 0]
    assert_close(np.load(folder / "l.npy"), expected, 1e-9)
    assert [row["class_1"] for row in rows] == expected.argmax(axis=1).tolist()


@pytest.mark.usefixtures("shared")
def test_images_none_of_which_can_be_read_are_an_error(weights, folder, capfd):
    outcome = run_here(
        capfd, "predict", "--weights", weights, "--input", __file__, "--out", folder / "p.csv",
        "--on-error", "skip", "--max-bad", 1,
    )  # fmt: skip
    assert_one_line_error(outcome, "images: found none that can be read")
    assert names(folder) == ["bad_images.csv"]


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_standard_output_gets_rows_and_nothing_else(weights, images, folder, capfd, monkeypatch, kind):
    monkeypatch.chdir(folder)
    _, paths = images
    flags = ["--out", "-", "--format", kind] if kind != "csv" else ["--out", "-"]
    outcome = run_here(capfd, "predict", "--weights", weights, "--input", *paths[:3], *flags)
    assert (outcome.code, outcome.err) == (0, "")
    found = (
        pd.read_csv(io.StringIO(outcome.out))
        if kind == "csv"
        else [json.loads(line) for line in outcome.out.splitlines()]
    )
    assert [row["path"] for row in (found.to_dict("records") if kind == "csv" else found)] == [
        str(path) for path in paths[:3]
    ]
    assert names(folder) == []


MANY_ROWS = """
import numpy, pandas
from sysds_resnet.scoring.predictions import save
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run

part = pandas.DataFrame({"path": 1000 * ["x"]}), numpy.zeros((1000, 7))
raise SystemExit(run(Settings, lambda _: save(iter(1000 * [part]), None, "csv", None), []))
"""


def test_a_reader_that_stops_reading_ends_the_command_with_one_line():
    process = start_python("-c", MANY_ROWS)
    assert process.stdout.readline() == "path\n"
    process.stdout.close()
    process.stdout = None
    assert_one_line_error(finish(process), "Broken pipe")
