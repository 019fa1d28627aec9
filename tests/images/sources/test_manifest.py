"""Manifests of prepared data sets that others made: wrong ones are one line, and nothing outside is read."""

import json
import os

import numpy as np
import pytest
from command_line import assert_one_line_error, run_here

from sysds_resnet import prepare
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.images.sources import manifest
from sysds_resnet.images.sources.manifest import Manifest

RECORD = {"bytes": 1, "sha256": "0" * 64}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A prepared data set; no test changes it."""
    folder = tmp_path_factory.mktemp("prepared") / "set"
    assert prepare.main(["--dataset", "synthetic", "--image-size", "8", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def values(good):
    return json.loads((good / "manifest.json").read_text())


CHANGES = {
    "no list of classes": {"classes": "abc"},
    "no classes": {"classes": []},
    "a class twice": {"classes": ["a", "a"]},
    "a class that is a number": {"classes": [1]},
    "mean of NaN": {"mean": [float("nan")] * 3},
    "mean of one channel": {"mean": [1.0]},
    "infinite mean": {"mean": [0.0, 0.0, float("inf")]},
    "std of 0": {"std": [1.0, 1.0, 0.0]},
    "negative std": {"std": [1.0, 1.0, -1.0]},
    "a text for std": {"std": ["1", "1", "1"]},
    "negative sizes": {"image_size": [-8, -8]},
    "one size": {"image_size": [8]},
    "huge sizes": {"image_size": [10**9, 10**9]},
    "sizes that are fractions": {"image_size": [8.5, 8.5]},
    "negative counts": {"shards": {"train": [-1], "val": [1]}},
    "absurd counts": {"shards": {"train": [10**18], "val": [1]}},
    "counts that are no integers": {"shards": {"train": [True], "val": [1]}},
    "another split": {"shards": {"../train": [1]}},
    "no splits": {"shards": []},
    "more shards than files": {"shards": {"train": [1] * 100, "val": [1]}},
    "options that are none": {"options": None},
    "no files": {"files": None},
    "a record that is none": {"files": {"a": 1}},
    "negative bytes": {"files": {"a": {**RECORD, "bytes": -1}}},
    "a digest that is none": {"files": {"a": {**RECORD, "sha256": "x"}}},
    "more of a record": {"files": {"a": {**RECORD, "path": "/etc/passwd"}}},
    "more of the manifest": {"more": 1},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_manifest_that_is_none_is_one_line(values, tmp_path, change):
    assert Manifest.parse(json.dumps(values).encode(), "name")
    with pytest.raises(UserError) as error:
        Manifest.parse(json.dumps({**values, **change}).encode(), "name")
    text = str(error.value)
    assert text.startswith("name: found no readable manifest (") and len(text) < 600


@pytest.mark.parametrize(
    "name",
    [
        *["../secret", "a/../../secret", "/etc/passwd", "..", ".", "", "a//b", "./a", "a\\..\\b"],
        *["a\n", "a\0", "\ud800"],
    ],
)
def test_names_of_files_never_lead_out_of_the_folder(values, name):
    values["files"][name] = RECORD
    with pytest.raises(UserError, match=r"^name: found no readable manifest \(files\."):
        Manifest.parse(json.dumps(values).encode(), "name")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"format":' * 1_000_000,
        b'{"format": "sysds_resnet shards 1", "options": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"format": ' + b"1" * 100_000 + b"}",
        b"null",
        b'"format"',
        b"",
        b"\xff\xfe{\0}\0",
        b'{"format": {"a": "' + b"x" * 100_000 + b'"}}',
    ],
)
def test_json_that_is_no_manifest_is_one_short_line(data):
    with pytest.raises(UserError) as error:
        Manifest.parse(data, "name")
    assert str(error.value).startswith("name: found ") and len(str(error.value)) < 600


def test_a_manifest_of_too_many_bytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", 100)
    (tmp_path / "manifest.json").write_bytes(b" " * 101)
    with pytest.raises(UserError, match="more than 100 bytes"):
        Manifest.read(tmp_path / "manifest.json")
    os.truncate(tmp_path / "manifest.json", 2**40)
    with pytest.raises(UserError, match="more than 100 bytes"):
        Manifest.read(tmp_path / "manifest.json")


@pytest.mark.parametrize("name", ["manifest.json", "progress.json"])
def test_verify_and_prepare_read_nothing_outside(values, tmp_path, capfd, name):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "set"
    folder.mkdir()
    values["files"]["../secret"] = RECORD
    (folder / name).write_text(json.dumps(values))
    outcomes = [run_here(capfd, "prepare", "--dataset", "synthetic", "--image-size", 8, "--out", folder)]
    if name == "manifest.json":
        outcomes.append(run_here(capfd, "verify", folder, "--out", tmp_path / "bad.csv"))
    for outcome in outcomes:
        assert_one_line_error(outcome, folder / name, "leads out of the folder")


def test_verify_does_not_wait_for_a_file_that_is_a_pipe(good, values, tmp_path, capfd):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(values))
    for name in values["files"]:
        os.mkfifo(folder / name)
    outcome = run_here(capfd, "verify", folder, "--out", tmp_path / "bad.csv")
    assert outcome.code == 1 and "a pipe" in (tmp_path / "bad.csv").read_text()


@pytest.mark.parametrize("shape", [(10**18,), (10**9, 10**9), (2**63,)])
def test_an_array_whose_header_claims_an_absurd_shape_is_one_line(good, values, tmp_path, shape):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in values["files"]:
        with open(folder / name, "wb") as file:
            header = {"descr": "<i8" if "labels" in name else "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(100))
        values["files"][name]["bytes"] = (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(values))
    for place in (folder, folder.as_uri()):
        with pytest.raises(UserError, match=r"labels\.npy: found no such array as was prepared"):
            open_dataset(place, "train")
