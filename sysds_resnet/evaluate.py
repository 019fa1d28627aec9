"""Evaluates weights on a data set: python -m sysds_resnet.evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import Field

from sysds_resnet.convert import read_any
from sysds_resnet.data_settings import BadImages, DataSettings, ReadingSettings
from sysds_resnet.engine import Engine
from sysds_resnet.engine.blas import Blas, Precision
from sysds_resnet.engine.memory import parse_size
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.loop import evaluate
from sysds_resnet.model import ResNet
from sysds_resnet.readers import Readers
from sysds_resnet.settings import run


class EngineSettings(ReadingSettings):
    """Settings of commands that run a trained network."""

    weights: Path = Field(description="Weights: .safetensors, .pth, a run folder, a Hugging Face folder, ...")
    image_size: int | None = Field(
        None, ge=32, description="Side of the images in pixels; by default what the weights say, or 224."
    )
    resize_size: int | None = Field(
        None,
        ge=32,
        description="Shorter side before the centre crop; by default as the weights say, or 256.",
    )
    precision: Precision = Field("single", description="Of matrix multiplies.")
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")

    def open_engine(self) -> Engine:
        """The engine that these settings ask for."""
        return Engine(self.precision, self.heap and parse_size(self.heap), self.blas)

    def sizes(self, metadata: dict) -> dict[str, int | None]:
        """Sizes of the images: these settings', else what stands beside the weights."""
        resize_size = metadata.get("resize_size") if self.image_size is None else None
        return {
            "image_size": self.image_size or metadata.get("image_size", [None])[0],
            "resize_size": self.resize_size or resize_size,
        }


class EvaluateSettings(EngineSettings, DataSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    out: Path | None = Field(None, description="JSON file for the result.")


def load_model(weights: Path, engine: Engine) -> tuple[ResNet, dict]:
    """A model from weights in any form, and what stands beside the weights."""
    state_dict, metadata = read_any(weights, engine)
    return ResNet.from_state_dict(state_dict, engine, str(weights), **metadata), metadata


def command(settings: EvaluateSettings) -> None:
    """Evaluates and prints."""
    with settings.open_engine() as engine:
        model, metadata = load_model(settings.weights, engine)
        dataset = open_dataset(settings.dataset, "val", layout=settings.layout, **settings.sizes(metadata))
        if dataset.num_classes != model.network.num_classes:
            raise UserError(
                f"{settings.dataset}: found {dataset.num_classes} classes, expected "
                f"{model.network.num_classes} as in {settings.weights}; evaluate on its own kind of data"
            )
        with Readers([dataset], settings.workers) as readers:
            bad = BadImages(settings, settings.out.parent if settings.out else Path())
            scores = evaluate(model, dataset, readers, bad)
    print(
        f"{scores['images']} images: loss {scores['loss']:.4f}, top-1 {100 * scores['top1']:.2f} %, "
        f"top-5 {100 * scores['top5']:.2f} %"
    )
    if len(bad):
        print(f"{len(bad)} images cannot be read and were left out: {bad.path}")
    if settings.out:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(scores, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(EvaluateSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
