"""The same small data set in every layout: three classes, four training and two validation images of each."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

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
