"""The commands on a Spark cluster against the same on one machine."""

import json
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here, share_engine
from reference import random_resnet
from scoring_reference import write_images, write_networks

from sysds_resnet.images.sources.shards import MANIFEST, FileRecord, Manifest

# executors have the real networks, and so have the processes that tests start and this one
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("wide")]


@pytest.fixture
def here(wide_engine, monkeypatch):
    """Commands of this process that need no cluster use an engine of the session."""
    share_engine(monkeypatch, wide_engine)


def test_the_cluster_prepares_what_one_machine_prepares(cluster, capfd, folder):
    data = ["--dataset", "synthetic", "--image-size", 32, "--shard-images", 50, "--blocks", 40]
    options = ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    for out, more in (("here", []), ("cluster", options)):
        assert run_here(capfd, "prepare", *data, *more, "--out", folder / out).code == 0
    one, many = (Manifest.read(folder / out / MANIFEST) for out in ("here", "cluster"))
    assert many == one
    assert {name: FileRecord.of(folder / "cluster" / name) for name in many.files} == one.files


def test_the_cluster_predicts_what_one_machine_predicts(cluster, here, capfd, folder):
    write_networks(folder, 18, make=random_resnet)
    images = write_images(folder / "images", 5)
    options = ["--weights", folder / "18.safetensors", "--tta", "flip", "--precision", "double", "--top", 3]
    run_here(capfd, "predict", *options, "--input", folder / "images", "--out", folder / "here.parquet")
    expected = pd.read_parquet(folder / "here.parquet")
    (folder / "images" / "broken.png").write_bytes(b"no image")
    options += ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    options += ["--input", folder / "images", "--out", folder / "there"]
    outcome = run_here(capfd, "predict", *options)
    assert_one_line_error(outcome, "broken.png")
    outcome = run_here(capfd, "predict", *options, "--on-error", "skip", "--max-bad", 0.5)
    assert outcome.code == 0 and f"{len(images)} images: " in outcome.out, outcome
    found = pd.read_parquet(folder / "there")
    found["path"] = [Path(url2pathname(urlsplit(path).path)).as_posix() for path in found["path"]]
    found = found.sort_values("path").set_index("path")
    assert found["error"].notna().to_dict() == {path: path.endswith("broken.png") for path in found.index}
    good = found[found["error"].isna()].drop(columns="error")
    pd.testing.assert_frame_equal(good, expected.set_index("path"), check_dtype=False, rtol=1e-9)


def test_the_cluster_evaluates_what_one_machine_evaluates(cluster, here, capfd, folder):
    write_networks(folder, 18, make=random_resnet)
    write_images(folder / "data" / "train", 7)
    images = write_images(folder / "data" / "val", 150)  # more than a task has
    (images[3]).write_bytes(b"no image")
    options = ["--weights", folder / "18.safetensors", "--dataset", folder / "data", "--tta", "flip"]
    options += ["--precision", "double", "--on-error", "skip", "--max-bad", 0.1]
    run_here(capfd, "evaluate", *options, "--out", folder / "here")
    options += ["--engine", "spark", "--master", cluster.url, "--executors", 2, "--executor-memory", "1g"]
    outcome = run_here(capfd, "evaluate", *options, "--out", folder / "there")
    assert outcome.code == 0 and "149 images: loss " in outcome.out, outcome
    assert "1 images cannot be read and were left out" in outcome.out
    for name in ("classes.csv", "confusion.csv", "bad_images.csv"):
        assert (folder / "there" / name).read_text() == (folder / "here" / name).read_text()
    one, many = (json.loads((folder / out / "scores.json").read_text()) for out in ("here", "there"))
    assert many == {**one, "loss": pytest.approx(one["loss"], rel=1e-9)}
