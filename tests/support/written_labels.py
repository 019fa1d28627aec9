"""Labels of both splits written in every layout, and what is read of them."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from refusals import refusal

from sysds_resnet.images.sources.layouts import open_source

# Each writes the labels of both splits, text as it stands in files, in one layout.


def write_csv(root, labels):
    for split, some in labels.items():
        rows = "".join(f"{split}/{i}.jpg,{label}\n" for i, label in enumerate(some))
        (root / f"{split}.csv").write_text(f"path,label\n{rows}")


def write_one_table(root, labels):
    rows = [
        f"{split},{split}/{i}.jpg,{label}\n" for split, some in labels.items() for i, label in enumerate(some)
    ]
    (root / "all.csv").write_text("split,path,label\n" + "".join(rows))


def write_lists(root, labels):
    for split, some in labels.items():
        lines = [f"{split}/{i}.jpg {label}\n" for i, label in enumerate(some)]
        (root / f"{split}_list.txt").write_text("".join(lines))


def write_tars(root, labels, form="{}", ending="cls"):
    for split, some in labels.items():
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for i, label in enumerate(some):
                for name, data in ((f"{i}.jpg", b"image"), (f"{i}.{ending}", form.format(label).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def write_parquet(root, labels, kind=None, names=None):
    for split, some in labels.items():
        columns = {"image": [b"image"] * len(some), "label": pa.array(some, kind)}
        listed = {"label": {"names": (names or {}).get(split), "_type": "ClassLabel"}}
        info = {b"huggingface": json.dumps({"info": {"features": listed}}).encode()}
        table = pa.table(columns).replace_schema_metadata(info if names else None)
        pq.write_table(table, root / f"{split}.parquet", row_group_size=2)


def write_arrays(root, labels, dtype=None):
    for split, some in labels.items():
        np.save(root / f"{split}_images.npy", np.zeros((len(some), 4, 4, 3), np.uint8))
        np.save(root / f"{split}_labels.npy", np.array(some, dtype))


TEXT = {
    "csv": write_csv,
    "one table": write_one_table,
    "lists": write_lists,
    "tar": write_tars,
    "tar, json": lambda root, labels: write_tars(root, labels, '{{"label": "{}"}}', "json"),
    "tar, txt": lambda root, labels: write_tars(root, labels, "{}\n", "txt"),
}


NAMES = {**TEXT, "parquet": write_parquet}


NUMBERS = {
    **TEXT,
    "tar, numbers in json": lambda root, labels: write_tars(root, labels, '{{"label": {}}}', "json"),
    "parquet": write_parquet,
    "parquet, decimals": lambda root, labels: write_parquet(root, labels, pa.decimal128(30)),
    "arrays": write_arrays,
}


def opened(root, split):
    path = root / "all.csv"
    return open_source(path if path.exists() else root, split)


def error_of(root, split):
    return refusal(opened, root, split)
