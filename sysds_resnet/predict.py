"""Predicts the classes of images: python -m sysds_resnet.predict."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field
from tqdm import tqdm

from sysds_resnet.data_settings import BadImages
from sysds_resnet.evaluate import EngineSettings, load_model
from sysds_resnet.images import open_images
from sysds_resnet.loop import read_all
from sysds_resnet.model import ResNet, softmax
from sysds_resnet.readers import Readers
from sysds_resnet.settings import run

TOP = 5


class PredictSettings(EngineSettings):
    """Writes the five most probable classes of images, in sorted order of their paths."""

    input: Path = Field(description="An image, or a folder that is searched for images.")
    out: Path = Field(Path("predictions.csv"), description="CSV file for classes and probabilities.")
    logits: Path | None = Field(None, description=".npy file for the scores, of shape (images, classes).")


def to_table(paths: list[str], logits: np.ndarray, classes: list[str] | None) -> pd.DataFrame:
    """Columns path, class_1 ... class_5 (indices) and prob_1 ... prob_5, and label_1 with class names."""
    probabilities = softmax(logits)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    table = pd.DataFrame({"path": paths})
    for i in range(top.shape[1]):
        table[f"class_{i + 1}"] = top[:, i]
    for i in range(top.shape[1]):
        table[f"prob_{i + 1}"] = probabilities[np.arange(len(top)), top[:, i]]
    if classes:
        table["label_1"] = [classes[i] for i in top[:, 0]]
    return table


def predict(model: ResNet, settings: PredictSettings, metadata: dict) -> tuple[list[str], np.ndarray]:
    """Paths and scores of the images that the settings name and that can be read."""
    dataset = open_images(settings.input, **settings.sizes(metadata))
    paths, logits = [], [np.empty((0, model.network.num_classes))]
    bad = BadImages(settings, settings.out.parent)
    with (
        Readers([dataset], settings.workers) as readers,
        tqdm(total=len(dataset), unit="image", disable=None) as bar,
    ):
        for batch in read_all(model.engine, dataset, readers, bad):
            logits.append(model.logits(batch.images, batch_size=len(batch.images)))
            paths += [dataset.name(i) for i in batch.indices.tolist()]
            bar.update(len(batch.images))
    if len(bad):
        print(f"{len(bad)} images cannot be read and were left out: {bad.path}")
    return paths, np.concatenate(logits)


def command(settings: PredictSettings) -> None:
    """Predicts and writes."""
    with settings.open_engine() as engine:
        model, metadata = load_model(settings.weights, engine)
        paths, logits = predict(model, settings, metadata)
        table = to_table(paths, logits, model.classes)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(settings.out, index=False)
    if settings.logits:
        settings.logits.parent.mkdir(parents=True, exist_ok=True)
        np.save(settings.logits, logits)
    print(f"{len(paths)} images: {settings.out}")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(PredictSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
