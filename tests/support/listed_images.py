"""A small data set in lists, which several tests read and break."""

import csv

import numpy as np
from PIL import Image

CLASSES = ["ant", "bee", "cat"]
COUNTS = {"train": 6, "val": 3}  # of each class


def make_source(root):
    """Lists of files in a folder for each class: progressive and other JPEG, and PNG."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        lines = []
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                path = root / split / name / f"{i}.{'png' if i % 3 == 1 else 'JPEG'}"
                coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                coarse.resize((60, 45 + i), Image.Resampling.BICUBIC).save(path, progressive=i % 3 == 2)
                lines.append(f"{path.relative_to(root)} {label}\n")
        (root / f"{split}_list.txt").write_text("".join(lines))
    return root


def rows(path):
    """The rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
