"""A small data set in folders to be prepared, and what is read from one that was."""

import numpy as np
from PIL import Image

from sysds_resnet import prepare

SIZE = 32
OPTIONS = ["--image-size", "32", "--shard-images", "5", "--workers", "1"]
COUNTS = {"train": {"ant": 5, "bee": 4, "cat": 4}, "val": {"ant": 2, "bee": 2, "cat": 2}}
SHARDS = {"train": [5, 5, 3], "val": [5, 1]}
SIDES = [(40, 40), (57, 33), (45, 32), (130, 200), (32, 47)]  # width and height


def make_source(root):
    """A folder for each class, of JPEG and PNG files of several sizes."""
    rng = np.random.default_rng(0)
    for split, classes in COUNTS.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
                picture = coarse.resize(SIDES[i], Image.Resampling.BICUBIC)
                picture.save(root / split / name / f"{i}.{'png' if i % 2 else 'JPEG'}")
    return root


def files_of(source, split):
    return sorted(path for path in (source / split).rglob("*") if path.is_file())


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def load(folder, split, kind):
    return [np.load(path) for path in sorted(folder.glob(f"{split}-*-{kind}.npy"))]


def prepare_small(source, folder):
    """Prepare it in this process; gives the folder."""
    assert prepare.main(["--dataset", str(source), "--out", str(folder), *OPTIONS]) == 0
    return folder
