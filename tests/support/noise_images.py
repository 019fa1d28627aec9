"""A data set of noise in folders of two classes, for tests to which pixels do not matter."""

import numpy as np
from PIL import Image


def write_noise(folder, training, validation, size):
    """Writes so many PNG files of each class; their size is height and width."""
    rng = np.random.default_rng(0)
    for split, count in (("train", training), ("val", validation)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.png")
    return folder
