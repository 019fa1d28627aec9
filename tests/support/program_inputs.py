"""What DML programs are given: small images with labels, as matrices and in files, and sources."""

import numpy as np

DEPTH, CLASSES, SIZE = 18, 3, 32
MEAN_STD = np.array([[125.0, 120.0, 130.0], [50.0, 55.0, 60.0]])
PARTS = "".join(
    f'source("dml/{file}.dml") as {name}\n'
    for name, file in {
        "data": "training/data",
        "initial": "network/initialization",
        "loop": "training/loop",
        "optim": "optim/optimizer",
        "reg": "network/registry",
        "folding": "network/folding",
        "plans": "network/plan",
        "schedule": "optim/schedule",
        "trainer": "training/gradients",
        "weights": "network/weights",
    }.items()
)


def make_images():
    """Training and validation images in 0..255, brighter in places that their class says, and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(24 + 10) % CLASSES + 1
    patterns = rng.uniform(0, 90, (CLASSES, 3 * SIZE * SIZE))
    pixels = np.rint(rng.uniform(0, 160, (len(labels), 3 * SIZE * SIZE)) + patterns[labels - 1])
    y = labels[:, None].astype(float)
    return {"X": pixels[:24], "Y": y[:24], "X_val": pixels[24:], "Y_val": y[24:]}


def write_files(folder, images, mean_std):
    """The images as CSV files, without metadata except for one."""
    for name, matrix in {**images, "mean_std": mean_std}.items():
        np.savetxt(folder / f"{name}.csv", matrix, fmt="%d", delimiter=",")
    rows, cols = mean_std.shape
    (folder / "mean_std.csv.mtd").write_text(
        f'{{"data_type": "matrix", "value_type": "double", "rows": {rows}, "cols": {cols}, '
        '"format": "csv", "header": false, "sep": ","}'
    )
    return {name: folder / f"{name}.csv" for name in [*images, "mean_std"]}


def make_registry(engine):
    """The registry of the network that the programs train here."""
    program = f"{PARTS}registry = reg::describe({DEPTH}, 3, {CLASSES})\n"
    return engine.run(program, {}, {"registry": "list"})["registry"]
