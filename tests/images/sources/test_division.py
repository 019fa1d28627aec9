"""Training images are divided for a data set without validation images: each class gives the same share."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here, share_engine
from PIL import Image
from small_layouts import LAYOUTS, make_folders, make_tables

from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.images.sources.layouts import open_source


def write_classes(root, counts):
    """A folder of PATH/CLASS/*.png with so many images of each class; the pixels tell which image it is."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (40, 40), (80 * label, i, 7)).save(root / name / f"{i:04d}.png")
    return root


def names_of(source):
    return [source.relative_name(index) for index in range(len(source.labels))]


def parts(root, share=0.25, seed=0):
    return {split: open_source(root, split, val_split=share, split_seed=seed) for split in ("train", "val")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_training_images_of_each_layout_are_divided(tmp_path, layout):
    make, classes = LAYOUTS[layout]
    make(tmp_path)
    whole = open_source(tmp_path, "train")
    found = parts(tmp_path)
    assert sorted(names_of(found["train"]) + names_of(found["val"])) == sorted(names_of(whole))
    read = {whole.relative_name(i): (whole.labels[i], bytes(whole.read(i))) for i in range(len(whole.labels))}
    for source in found.values():
        source = pickle.loads(pickle.dumps(source))  # noqa: S301 as to a reading process
        assert source.classes == classes
        own = names_of(source)
        assert own == [name for name in names_of(whole) if name in own], "the order is that of the whole"
        for index, name in enumerate(own):
            assert (source.labels[index], bytes(source.read(index))) == read[name]
    assert np.bincount(found["train"].labels).tolist() == [3, 3, 3]
    assert np.bincount(found["val"].labels).tolist() == [1, 1, 1]


def test_one_folder_of_classes_is_divided(tmp_path):
    write_classes(tmp_path, {"cat": 30, "dog": 7, "eel": 2})
    found = parts(tmp_path, 0.1)
    assert np.bincount(found["train"].labels).tolist() == [27, 6, 1]
    assert np.bincount(found["val"].labels).tolist() == [3, 1, 1]  # a tenth, and at least one
    assert found["val"].classes == ["cat", "dog", "eel"]
    [note] = found["val"].notes
    assert "5 of its 39 images are for validation" in note


def test_a_table_needs_no_column_for_it(tmp_path):
    make_tables(tmp_path, one=True)
    table = tmp_path / "all.csv"
    pd.read_csv(table).drop(columns="split").to_csv(table, index=False)
    found = parts(table, 0.5)
    assert len(found["train"].labels) == len(found["val"].labels) == 9
    with pytest.raises(UserError, match="expected one called 'split'"):
        open_source(table, "val")


def test_a_prepared_data_set_keeps_its_mean(tmp_path, capfd):
    make_folders(tmp_path / "data")
    out = tmp_path / "out"
    options = ["--image-size", 32, "--val-split", 0.5]
    assert run_here(capfd, "prepare", "--dataset", tmp_path / "data", "--out", out, *options).code == 0
    prepared = [open_dataset(out, split) for split in ("train", "val")]
    assert [len(dataset) for dataset in prepared] == [6, 6]
    again = open_dataset(out, "val", val_split=0.5)
    assert len(again) == 3
    np.testing.assert_array_equal(again.mean, prepared[0].mean)


def test_the_choice_depends_on_the_names_and_the_seed_alone(tmp_path):
    root = write_classes(tmp_path / "a", {"cat": 40, "dog": 40})
    first = names_of(parts(root)["val"])
    shutil.move(root, tmp_path / "b")
    assert names_of(parts(tmp_path / "b")["val"]) == first
    assert names_of(parts(tmp_path / "b", seed=1)["val"]) != first
    Image.new("RGB", (40, 40)).save(tmp_path / "b" / "cat" / "another.png")
    later = names_of(parts(tmp_path / "b")["val"])
    assert len(later) == len(first) and len(set(later) - set(first)) <= 1


def test_the_choice_is_spread_over_the_names(tmp_path):
    """Files are often numbered in the order in which they were made, which must not decide."""
    root = write_classes(tmp_path, {"cat": 400, "dog": 2})
    numbers = [int(name[-8:-4]) for name in names_of(parts(root, 0.25)["val"]) if "cat" in name]
    assert len(numbers) == 100
    quarters = np.bincount(np.array(numbers) // 100, minlength=4)
    assert quarters.min() >= 12 and quarters.max() <= 38  # 25 each, by chance within three deviations


@pytest.mark.parametrize(
    ("share", "seed", "found"),
    [(0.0, 0, "val_split: found 0.0"), (1.0, 0, "val_split: found 1.0"), (0.1, -1, "split_seed: found -1")],
)
def test_values_out_of_range_are_named(tmp_path, share, seed, found):
    make_folders(tmp_path)
    with pytest.raises(UserError, match=found):
        open_source(tmp_path, "val", val_split=share, split_seed=seed)


def test_classes_of_one_image_stay_in_training_with_a_note(tmp_path):
    root = write_classes(tmp_path / "some", {"cat": 4, "dog": 1})
    found = parts(root)
    assert np.bincount(found["val"].labels, minlength=2).tolist() == [1, 0]
    assert "1 classes of one image have none, the first: 'dog'" in found["train"].notes[-1]
    with pytest.raises(UserError, match="no class with two"):
        parts(write_classes(tmp_path / "few", {"cat": 1, "dog": 1}))


def test_data_sets_with_a_division_of_their_own_take_none():
    for name in ("digits", "synthetic"):
        with pytest.raises(UserError, match=rf"val_split: found 0.1 for {name}"):
            open_dataset(name, "val", val_split=0.1)


def test_a_run_trains_on_one_folder_and_is_evaluated_on_the_same_images(engine, tmp_path, monkeypatch, capfd):
    data, run = write_classes(tmp_path / "data", {"cat": 12, "dog": 12}), tmp_path / "run"
    settings = ["--model", "resnet18", "--image-size", 32, "--batch-size", 6, "--workers", 1, "--epochs", 1]
    settings += ["--base-lr", 0.1, "--out", run]
    assert_one_line_error(
        run_here(capfd, "train", "--dataset", data, *settings),
        "found no train/ to train on",
        "--val-split 0.1",
    )
    share_engine(monkeypatch, engine)
    division = ["--dataset", data, "--val-split", 0.25]
    assert "18 training and 6 validation images" in run_here(capfd, "train", *division, *settings).out
    outcome = run_here(capfd, "evaluate", *division, "--weights", run)
    assert outcome.code == 0 and outcome.out.startswith("6 images: ")
    outcome = run_here(capfd, "train", "--resume", run, "--val-split", 0.5)
    assert outcome.code == 2 and "error: training images: found 12, 6 of them of class cat" in outcome.err
