"""Images that the prepare command cannot read: they end it, or are left out and listed."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here
from damage import changes, cut
from small_preparations import COUNTS, OPTIONS, contents, files_of, load, make_source, prepare_small

from sysds_resnet.images import open_dataset


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data set with all its images, as prepared; no test changes it."""
    source = make_source(tmp_path_factory.mktemp("source"))
    return prepare_small(source, tmp_path_factory.mktemp("prepared") / "data")


def test_a_bad_image_ends_the_command_which_goes_on_when_it_is_repaired(prepared, tmp_path, capfd):
    source = make_source(tmp_path / "source")
    bad = source / "train" / "cat" / "1.png"
    whole = bad.read_bytes()
    cut(bad)
    flags = ["--dataset", source, *OPTIONS, "--out", tmp_path / "out"]
    outcome = run_here(capfd, "prepare", *flags)
    assert_one_line_error(outcome, f"error: class cat, image {bad}: found a damaged file")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "bad_images.csv").exists()
    bad.write_bytes(whole)
    assert run_here(capfd, "prepare", *flags).code == 0
    here, there = contents(tmp_path / "out"), contents(prepared)
    assert here.pop("manifest.json") != there.pop("manifest.json"), "the paths differ"
    assert here == there


def test_bad_images_can_be_left_out_and_are_listed(prepared, tmp_path, capfd):
    source = make_source(tmp_path / "source")
    bad = {
        source / "train" / "ant" / "1.png": "found a damaged file",
        source / "train" / "cat" / "0.JPEG": "found no known image format",
    }
    first, second = bad
    cut(first)
    second.write_bytes(b"")
    out = tmp_path / "out"
    flags = ["--dataset", source, *OPTIONS, "--out", out, "--on-error", "skip", "--max-bad", 0.2]
    outcome = run_here(capfd, "prepare", *flags)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"2 images cannot be read and were left out: {out / 'bad_images.csv'}\n" in outcome.out
    assert f"{out}: 17 images" in outcome.out
    table = pd.read_csv(out / "bad_images.csv")
    assert table["name"].tolist() == [str(path) for path in bad]
    assert table["class"].tolist() == ["ant", "cat"]
    for reason, path in zip(table["reason"], bad, strict=True):
        assert str(path) in reason and bad[path] in reason
    good = [i for i, path in enumerate(files_of(source, "train")) if path not in bad]
    for kind in ("images", "labels"):
        whole = np.concatenate(load(prepared, "train", kind))
        np.testing.assert_array_equal(np.concatenate(load(out, "train", kind)), whole[good])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["shards"] == {"train": [4, 4, 3], "val": [5, 1]}
    assert open_dataset(out, "train").labels.tolist() == [0] * 4 + [1] * 4 + [2] * 3

    before = changes(out)
    assert run_here(capfd, "prepare", *flags).code == 0
    assert changes(out) == before


def test_each_split_may_lack_its_share_of_images(tmp_path, capfd):
    source = make_source(tmp_path / "source")
    for name in ("train/ant/0.JPEG", "train/ant/1.png", "val/ant/0.JPEG"):  # 2 of 13, 1 of 6
        cut(source / name)
    outcome = run_here(
        capfd, "prepare", "--dataset", source, *OPTIONS, "--out", tmp_path / "out", "--on-error", "skip",
        "--max-bad", 0.2,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert [len(open_dataset(tmp_path / "out", split)) for split in COUNTS] == [11, 5]


def test_too_many_bad_images_end_the_command_which_goes_on_when_more_are_allowed(tmp_path, capfd):
    source = make_source(tmp_path / "source")
    for i, ending in enumerate(["JPEG", "png"]):
        cut(source / "train" / "ant" / f"{i}.{ending}")
    out = tmp_path / "out"
    flags = ["--dataset", source, *OPTIONS, "--out", out, "--on-error", "skip", "--max-bad"]
    outcome = run_here(capfd, "prepare", *flags, 0.1)
    assert_one_line_error(outcome, out / "bad_images.csv", "found 2 images", "no more than 0.1 of 13")
    outcome = run_here(capfd, "prepare", *flags, 0.2)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(open_dataset(out, "train")) == 11
    assert len(pd.read_csv(out / "bad_images.csv")) == 2
