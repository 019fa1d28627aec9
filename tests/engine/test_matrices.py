"""Matrices of a prepared data set, and matrices that are written in parts."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import run_here
from damage import changes, flip

from sysds_resnet import verify
from sysds_resnet.engine.blocks import save_parts
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.preparing import matrices as prepare_matrices


@pytest.fixture(scope="module")
def values():
    """More than two blocks high and more than one wide, with a block of zeros and a sparse one."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (2300, 1100), dtype=np.uint8)
    array[:1000, 1000:] = 0
    array[1000:2000, :1000] *= rng.random((1000, 1000)) < 0.01
    return array


def read_by_dml(quick_dml, path):
    return quick_dml(f'X = read("{path}")', "X")


def test_a_matrix_written_in_parts_is_read_by_programs(quick_dml, values, tmp_path):
    path = tmp_path / "X"
    matrices = quick_dml.engine.matrices
    assert list(save_parts(path, 2300, 1100, lambda a, b: values[a:b])) == [1000, 2000, 2300]
    assert [part.name for part in sorted(path.iterdir())] == ["part-000000", "part-000001", "part-000002"]
    described = json.loads((tmp_path / "X.mtd").read_text())
    assert (described["rows"], described["cols"]) == (2300, 1100)
    assert described["nnz"] == np.count_nonzero(values)
    np.testing.assert_array_equal(read_by_dml(quick_dml, path), values)
    np.testing.assert_array_equal(matrices.read(path), values)
    (path / "part-000001").unlink()
    with pytest.raises(UserError, match=r"X: found \d+ values other than 0, expected"):
        matrices.read(path)


def test_a_matrix_that_was_interrupted_gets_only_what_it_lacks(quick_dml, values, tmp_path):
    path = tmp_path / "X"
    matrices = quick_dml.engine.matrices
    writing = save_parts(path, 2300, 1100, lambda a, b: values[a:b])
    assert next(writing) == 1000
    writing.close()
    assert not (tmp_path / "X.mtd").exists()
    [first] = path.iterdir()
    before = first.stat().st_mtime_ns
    (path / ".part-000001.7.tmp").write_bytes(b"cut off")  # as a kill leaves it
    assert list(save_parts(path, 2300, 1100, lambda a, b: values[a:b])) == [1000, 2000, 2300]
    assert first.stat().st_mtime_ns == before
    assert len(list(path.iterdir())) == 3
    np.testing.assert_array_equal(matrices.read(path), values)  # which counts the values other than 0
    np.testing.assert_array_equal(read_by_dml(quick_dml, path), values)


def test_matrices_hold_images_channel_by_channel_and_labels_from_1(quick_dml, tmp_path, capfd):
    flags = ["--dataset", "digits", "--image-size", 8, "--out", tmp_path]
    assert run_here(capfd, "prepare", *flags).code == 0
    shards = {path: changed for path, changed in changes(tmp_path).items() if path.suffix == ".npy"}

    outcome = run_here(capfd, "prepare", *flags, "--matrices")  # later
    assert (outcome.code, outcome.err) == (0, "")
    matrices = tmp_path / "matrices"
    assert f"X={matrices / 'train_X'} " in outcome.out
    after = changes(tmp_path)
    assert all(after[path] == changed for path, changed in shards.items())
    for split in ("train", "val"):
        digits = open_dataset("digits", split, image_size=8)
        images, labels = digits.arrays()
        rows = np.concatenate([images[..., channel].reshape(len(images), -1) for channel in range(3)], axis=1)
        np.testing.assert_array_equal(read_by_dml(quick_dml, matrices / f"{split}_X"), rows)
        np.testing.assert_array_equal(read_by_dml(quick_dml, matrices / f"{split}_Y"), labels[:, None] + 1)
    np.testing.assert_array_equal(
        read_by_dml(quick_dml, matrices / "mean_std"), np.stack([digits.mean, digits.std])
    )

    recorded = json.loads((tmp_path / "manifest.json").read_text())["files"]
    names = {path.relative_to(tmp_path).as_posix() for path in matrices.rglob("[!.]*") if path.is_file()}
    assert {"matrices/train_X/part-000001", "matrices/val_X.mtd", "matrices/mean_std"} < names
    assert names < set(recorded)
    assert verify.main([str(tmp_path), "--out", str(tmp_path / "bad.csv")]) == 0
    part = matrices / "train_X" / "part-000001"
    whole = part.read_bytes()
    flip(part, len(whole) // 2)
    assert verify.main([str(tmp_path), "--out", str(tmp_path / "bad.csv")]) == 1
    assert pd.read_csv(tmp_path / "bad.csv")["name"].tolist() == [str(part)]


def test_complete_matrices_stay_as_they_are(tmp_path, capfd, monkeypatch):
    digits = ["--dataset", "digits", "--image-size", 8, "--out", tmp_path]
    assert run_here(capfd, "prepare", *digits, "--matrices").code == 0
    before = changes(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    for flags in (["--matrices"], []):
        outcome = run_here(capfd, "prepare", *digits, *flags)
        assert (outcome.code, outcome.err) == (0, "")
        assert changes(tmp_path) == before


def test_matrices_that_were_interrupted_are_completed(quick_dml, tmp_path, capfd, monkeypatch):
    flags = ["--dataset", "digits", "--image-size", 8, "--out", tmp_path, "--matrices"]
    calls = []

    def stop_at_the_third(source, start, stop):
        calls.append(start)
        if len(calls) == 3:  # val's first
            raise KeyboardInterrupt
        return rows(source, start, stop)

    rows = prepare_matrices._rows
    with monkeypatch.context() as patch:
        patch.setattr(prepare_matrices, "_rows", stop_at_the_third)
        assert run_here(capfd, "prepare", *flags).code == 130
    assert calls == [0, 1000, 0]
    assert len(open_dataset(tmp_path, "train")) == 1437, "the shards are complete"
    assert not (tmp_path / "matrices" / "val_X.mtd").exists()
    part = tmp_path / "matrices" / "train_X" / "part-000001"
    before = part.stat().st_mtime_ns
    assert run_here(capfd, "prepare", *flags).code == 0
    assert part.stat().st_mtime_ns == before
    images, _ = open_dataset("digits", "val", image_size=8).arrays()
    np.testing.assert_array_equal(
        read_by_dml(quick_dml, tmp_path / "matrices" / "val_X"),
        images.transpose(0, 3, 1, 2).reshape(len(images), -1),
    )
    assert verify.main([str(tmp_path), "--out", str(tmp_path / "bad.csv")]) == 0
