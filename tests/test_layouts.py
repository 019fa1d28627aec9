"""Every layout gives the same samples: paths, labels, classes and bytes."""

import io
import json
import pickle
import tarfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sysds_resnet.errors import UserError
from sysds_resnet.images.decode import Picture
from sysds_resnet.images.layouts import open_source

CLASSES = ["n01440764", "n02102040", "n03000684"]
COUNTS = {"train": 4, "val": 2}


def encoded(split, label, i):
    """A PNG whose pixels tell which it is."""
    data = io.BytesIO()
    Image.new("RGB", (7, 5), (label, i, split == "val")).save(data, "PNG")
    return data.getvalue()


def samples(split):
    return [(label, i) for label in range(len(CLASSES)) for i in range(COUNTS[split])]


def make_folders(root, lists=False, flat=False):
    for split in COUNTS:
        lines = []
        for label, i in samples(split):
            below = "" if flat and split == "val" else f"{CLASSES[label]}/"
            path = root / split / f"{below}{label}_{i}.JPEG"  # PNG under a JPEG's name, as in ImageNet
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(split, label, i))
            lines.append(f"{path.relative_to(root / split if flat else root)} {label}\n")
        if lists:
            (root / f"{split}_list.txt").write_text("".join(lines))


def make_tables(root, ending=".csv", one=False, names=True):
    make_folders(root / "files")
    tables = []
    for split in COUNTS:
        files = [f"files/{split}/{CLASSES[c]}/{c}_{i}.JPEG" for c, i in samples(split)]
        rows = zip(files, [CLASSES[c] if names else c for c, _ in samples(split)], strict=True)
        tables.append(pd.DataFrame(rows, columns=["file_name", "label"]).assign(split=split))
    if one:
        pd.concat(tables).to_csv(root / "all.csv", index=False)
        return
    for split, table in zip(COUNTS, tables, strict=True):
        if ending == ".parquet":
            table.to_parquet(root / f"{split}{ending}")
        else:
            table.to_csv(root / f"{split}{ending}", index=False, sep="\t" if ending == ".tsv" else ",")


def make_parquet(root, names=True):
    (root / "data").mkdir()
    features = {"label": {"names": CLASSES, "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, name in (("train", "train"), ("val", "validation")):
        rows = [({"bytes": encoded(split, c, i), "path": None}, c) for c, i in samples(split)]
        for part, some in enumerate((rows[:4], rows[4:])):
            table = pa.table({"image": [row[0] for row in some], "label": [row[1] for row in some]})
            path = root / "data" / f"{name}-{part:05d}-of-00002.parquet"
            pq.write_table(table.replace_schema_metadata(metadata if names else None), path, row_group_size=3)


def make_tar(root, label="cls"):
    for split in COUNTS:
        for part, some in enumerate((samples(split)[:3], samples(split)[3:])):
            with tarfile.open(root / f"{split}-{part:06d}.tar", "w") as archive:
                for c, i in some:
                    told = str(c) if label == "cls" else json.dumps({"label": c})
                    for ending, data in (("png", encoded(split, c, i)), (label, told.encode())):
                        member = tarfile.TarInfo(f"shard/{c}_{i}.{ending}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))


def make_arrays(root):
    for split in COUNTS:
        images = [np.asarray(Image.open(io.BytesIO(encoded(split, c, i)))) for c, i in samples(split)]
        np.save(root / f"{split}_images.npy", np.stack(images))
        np.save(root / f"{split}_labels.npy", np.array([c for c, _ in samples(split)]))


NAMED, NUMBERED = CLASSES, ["0", "1", "2"]
LAYOUTS = {
    "folders": (make_folders, NAMED),
    "lists": (lambda root: make_folders(root, lists=True), NAMED),
    "flat lists": (lambda root: make_folders(root, lists=True, flat=True), NAMED),
    "csv": (make_tables, NAMED),
    "csv, numbers": (lambda root: make_tables(root, names=False), NUMBERED),
    "tsv": (lambda root: make_tables(root, ".tsv"), NAMED),
    "table in parquet": (lambda root: make_tables(root, ".parquet"), NAMED),
    "parquet": (make_parquet, NAMED),
    "parquet without names": (lambda root: make_parquet(root, names=False), NUMBERED),
    "tar": (make_tar, NUMBERED),
    "tar, json": (lambda root: make_tar(root, "json"), NUMBERED),
    "arrays": (make_arrays, NUMBERED),
}


def assert_holds(source, split, classes):
    assert source.classes == classes
    assert source.labels.tolist() == [label for label, _ in samples(split)]
    for index, (label, i) in enumerate(samples(split)):
        pixels = Picture(source.read(index), source.name(index)).pixels()
        assert pixels.shape == (5, 7, 3)
        assert (pixels == [label, i, split == "val"]).all()
    names = [source.name(index) for index in range(len(source.labels))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_gives_its_samples(tmp_path, layout, split):
    make, classes = LAYOUTS[layout]
    make(tmp_path)
    source = open_source(tmp_path, split)
    assert_holds(source, split, classes)
    assert_holds(pickle.loads(pickle.dumps(source)), split, classes)  # noqa: S301 as to a reading process


@pytest.mark.parametrize("split", COUNTS)
def test_one_table_may_hold_both_splits(tmp_path, split):
    make_tables(tmp_path, one=True)
    assert_holds(open_source(tmp_path / "all.csv", split), split, NAMED)


@pytest.mark.parametrize("layout", ["csv, numbers", "parquet without names", "tar", "arrays"])
def test_numbered_classes_are_called_as_in_classes_txt(tmp_path, layout):
    LAYOUTS[layout][0](tmp_path)
    (tmp_path / "classes.txt").write_text("tench\nbeagle\nchainsaw\n")
    assert open_source(tmp_path, "val").classes == ["tench", "beagle", "chainsaw"]


def spoil_list(root):
    make_folders(root, lists=True)
    (root / "val_list.txt").write_text("val/x.JPEG\n")


def spoil_table(root):
    make_tables(root)
    (root / "val.csv").write_text("where,label\nx.jpg,1\n")


def spoil_labels(root):
    make_tables(root)
    (root / "val.csv").write_text("path,label\nx.jpg,\n")


def spoil_parquet(root):
    make_parquet(root)
    (root / "data" / "validation-00000-of-00002.parquet").write_bytes(b"PAR1")


def spoil_tar(root):
    make_tar(root)
    path = root / "val-000000.tar"
    path.write_bytes(path.read_bytes()[:700])


def spoil_tar_labels(root):
    with tarfile.open(root / "val-0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())


def spoil_array(root):
    make_arrays(root)
    np.save(root / "val_images.npy", np.zeros((6, 5, 7, 3)))


def spoil_classes(root):
    make_arrays(root)
    (root / "classes.txt").write_text("a\nb\n")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (spoil_list, "val_list.txt, line 1: found 'val/x.JPEG', expected 'relative/path label'"),
        (spoil_table, "val.csv: found columns where, label, expected one called 'path'"),
        (spoil_labels, "val.csv: found row 1 without path or label"),
        (spoil_parquet, "validation-00000-of-00002.parquet: found no readable parquet file"),
        (spoil_tar, "val-000000.tar: found"),
        (spoil_tar_labels, "val-0.tar: found a without a label, expected a.cls"),
        (spoil_array, "val_images.npy: found float64 of shape (6, 5, 7, 3), expected uint8"),
        (
            spoil_classes,
            "classes.txt: found 2 different names in 2 lines, expected one for each of 3 classes",
        ),
        (lambda root: (root / "x.txt").write_text("x"), "found no sub-folders, expected one sub-folder"),
    ],
)
def test_what_is_wrong_in_a_data_set_is_one_line_that_names_the_file(tmp_path, spoil, found):
    spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path, "val")
    assert found in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_gone_is_named_when_it_is_read(tmp_path):
    make_tables(tmp_path)
    (tmp_path / "files" / "val" / CLASSES[0] / "0_1.JPEG").unlink()
    source = open_source(tmp_path, "val")
    with pytest.raises(UserError, match=r"0_1\.JPEG: found no such file or directory, expected a file"):
        source.read(1)
